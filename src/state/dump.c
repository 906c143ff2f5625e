/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "state/state.h"
#include "state/stream.h"

#define PATH_BYTES 256
#define BYTES_SHOWN 32u

/* Counts what does not fit, as snprintf does. */
struct dump {
    char *buf;
    size_t size;
    size_t len;
};

static void dump_printf(struct dump *d, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void dump_printf(struct dump *d, const char *fmt, ...)
{
    size_t room = d->len < d->size ? d->size - d->len : 0;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(room != 0 ? d->buf + d->len : NULL, room, fmt, ap);
    va_end(ap);
    assert(n >= 0);
    d->len += (size_t)n;
}

static uint64_t scalar(const struct state_field *f, const uint8_t *at)
{
    switch (f->elem_size) {
    case 1:
        return *at;
    case 2:
        return load_le16(at);
    case 4:
        return load_le32(at);
    default:
        return load_le64(at);
    }
}

static void dump_table(struct dump *d, const char *path, const struct state_field *table,
                       const uint8_t *obj)
{
    for (const struct state_field *f = table; f->type != STATE_T_END; f++) {
        const uint8_t *at = obj + f->offset;
        if (f->type == STATE_T_STRUCT) {
            for (uint32_t i = 0; i < f->count; i++, at += f->elem_size) {
                char sub[PATH_BYTES];
                if (f->count == 1) {
                    snprintf(sub, sizeof sub, "%s%s.", path, f->name);
                } else {
                    snprintf(sub, sizeof sub, "%s%s[%u].", path, f->name, i);
                }
                dump_table(d, sub, f->sub, at);
            }
            continue;
        }
        dump_printf(d, "%s%s=", path, f->name);
        if (f->type == STATE_T_BYTES) {
            for (uint32_t i = 0; i < f->count && i < BYTES_SHOWN; i++) {
                dump_printf(d, "%02x", at[i]);
            }
            if (f->count > BYTES_SHOWN) {
                dump_printf(d, "... (%u bytes)", f->count);
            }
        } else {
            for (uint32_t i = 0; i < f->count; i++, at += f->elem_size) {
                dump_printf(d, "%s%#llx", i != 0 ? "," : "", (unsigned long long)scalar(f, at));
            }
        }
        dump_printf(d, "\n");
    }
}

size_t state_dump(char *buf, size_t size, const struct state_field *table, const void *obj)
{
    struct dump d = { buf, size, 0 };
    if (size != 0) {
        buf[0] = '\0';
    }
    dump_table(&d, "", table, obj);
    return d.len + 1;
}
