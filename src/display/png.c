/* SPDX-License-Identifier: Apache-2.0
 *
 * PNG (RFC 2083) without a library: the deflate stream (RFC 1951) has stored blocks only, so that
 * every build can write screenshots.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "display/surface.h"

#define STORED_MAX 0xffffu
#define ADLER_MOD 65521u

struct png {
    FILE *f;
    uint32_t crc;       /* of the chunk, so far */
    uint32_t a, b;      /* Adler-32 of the uncompressed data */
    uint64_t left;      /* uncompressed bytes to come */
    uint32_t in_block;  /* bytes to come in the stored block */
};

static void put(struct png *p, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++) {
        p->crc ^= bytes[i];
        for (unsigned n = 0; n < 8; n++) {
            p->crc = p->crc >> 1 ^ (p->crc & 1 ? 0xedb88320u : 0);
        }
    }
    fwrite(data, 1, len, p->f);
}

static void begin(struct png *p, const char *type, uint32_t len)
{
    uint8_t size[4];
    store_be32(size, len);
    fwrite(size, 1, sizeof size, p->f);
    p->crc = 0xffffffff;
    put(p, type, 4);
}

static void end(struct png *p)
{
    uint8_t crc[4];
    store_be32(crc, ~p->crc);
    fwrite(crc, 1, sizeof crc, p->f);
}

static void begin_block(struct png *p)
{
    uint32_t n = p->left < STORED_MAX ? (uint32_t)p->left : STORED_MAX;
    uint8_t head[5] = { p->left == n };
    store_le16(head + 1, (uint16_t)n);
    store_le16(head + 3, (uint16_t)~n);
    put(p, head, sizeof head);
    p->in_block = n;
}

static void store(struct png *p, const uint8_t *data, size_t len)
{
    while (len != 0) {
        if (p->in_block == 0) {
            begin_block(p);
        }
        size_t n = len < p->in_block ? len : p->in_block;
        for (size_t i = 0; i < n; i++) {
            p->a = (p->a + data[i]) % ADLER_MOD;
            p->b = (p->b + p->a) % ADLER_MOD;
        }
        put(p, data, n);
        data += n;
        len -= n;
        p->left -= n;
        p->in_block -= (uint32_t)n;
    }
}

static void write_rows(struct png *p, const struct surface *s)
{
    uint64_t row_bytes = 1 + 3ull * s->width;
    uint64_t blocks = (row_bytes * s->height + STORED_MAX - 1) / STORED_MAX;
    uint8_t row[1 + 3 * SURFACE_MAX];
    uint8_t sum[4];
    p->left = row_bytes * s->height;
    begin(p, "IDAT", (uint32_t)(2 + p->left + 5 * blocks + 4));
    put(p, "\x78\x01", 2);
    for (unsigned y = 0; y < s->height; y++) {
        row[0] = 0; /* no filter */
        for (unsigned x = 0; x < s->width; x++) {
            uint32_t v = s->pixels[(size_t)y * s->width + x];
            row[1 + 3 * x] = (uint8_t)(v >> 16);
            row[2 + 3 * x] = (uint8_t)(v >> 8);
            row[3 + 3 * x] = (uint8_t)v;
        }
        store(p, row, row_bytes);
    }
    store_be32(sum, p->b << 16 | p->a);
    put(p, sum, sizeof sum);
    end(p);
}

int surface_write_png(const struct surface *s, const char *path, struct err *e)
{
    struct png p = { .f = fopen(path, "wbe"), .a = 1 };
    uint8_t header[13] = { [8] = 8, 2 };
    if (p.f == NULL) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    store_be32(header, s->width);
    store_be32(header + 4, s->height);
    fwrite("\x89PNG\r\n\x1a\n", 1, 8, p.f);
    begin(&p, "IHDR", sizeof header);
    put(&p, header, sizeof header);
    end(&p);
    write_rows(&p, s);
    begin(&p, "IEND", 0);
    end(&p);
    bool bad = ferror(p.f);
    bad |= fclose(p.f) != 0;
    return bad ? err_set(e, -EIO, "%s: cannot be written", path) : 0;
}
