/* SPDX-License-Identifier: Apache-2.0 -- little- and big-endian bytes, any alignment; zeroes */
#ifndef SOSIA_BASE_BYTES_H
#define SOSIA_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BYTES_ACCESSORS(bits)                                                                      \
    static inline uint##bits##_t load_le##bits(const void *p)                                      \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return v; /* hosts are x86-64: little-endian */                                            \
    }                                                                                              \
    static inline void store_le##bits(void *p, uint##bits##_t v) { memcpy(p, &v, sizeof v); }      \
    static inline uint##bits##_t load_be##bits(const void *p)                                      \
    {                                                                                              \
        return __builtin_bswap##bits(load_le##bits(p));                                            \
    }                                                                                              \
    static inline void store_be##bits(void *p, uint##bits##_t v)                                   \
    {                                                                                              \
        store_le##bits(p, __builtin_bswap##bits(v));                                               \
    }
BYTES_ACCESSORS(16)
BYTES_ACCESSORS(32)
BYTES_ACCESSORS(64)
#undef BYTES_ACCESSORS

static inline bool bytes_are_zero(const void *data, size_t len)
{
    const uint8_t *p = data;
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

#endif
