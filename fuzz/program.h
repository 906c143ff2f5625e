/* SPDX-License-Identifier: Apache-2.0
 *
 * What fuzz targets of devices share: the input as a program, and saved states of any content.
 */
#ifndef SOSIA_FUZZ_PROGRAM_H
#define SOSIA_FUZZ_PROGRAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/dev.h"

/* The program: reads past its end give 0. */
struct program {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t take(struct program *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && p->left > 0; i++) {
        v |= (uint64_t)*p->at++ << 8 * i;
        p->left--;
    }
    return v;
}

/* -- States ------------------------------------------------------------------------------------ */
/* Save, reset, load, save: nothing changes. */
static inline void roundtrip(struct bus *bus)
{
    struct err e = { "" };
    struct state_out *a = state_out_new();
    struct state_out *b = state_out_new();
    struct state_in *in;
    size_t len[2];
    bus_quiesce(bus);
    bus_save(bus, a);
    const uint8_t *first = state_out_data(a, &len[0]);
    bus_reset(bus);
    if (state_in_new(&in, first, len[0], &e) < 0 || bus_load(bus, in, &e) < 0) {
        fprintf(stderr, "own state refused: %s\n", e.msg);
        abort();
    }
    state_in_free(in);
    bus_save(bus, b);
    const uint8_t *second = state_out_data(b, &len[1]);
    if (len[0] != len[1] || memcmp(first, second, len[0]) != 0) {
        fprintf(stderr, "state changed by save and load\n");
        abort();
    }
    state_out_free(a);
    state_out_free(b);
}

/* One scalar is 0 or 1, or nearly what it was: else a table with checks is never passed. */
static inline void twist(const struct state_field *table, uint8_t *obj, struct program *p)
{
    for (const struct state_field *f = table; f->type != STATE_T_END; f++) {
        for (uint32_t i = 0; i < f->count; i++) {
            uint8_t *at = obj + f->offset + (size_t)i * f->elem_size;
            if (f->type == STATE_T_STRUCT) {
                twist(f->sub, at, p);
                continue;
            }
            uint8_t how = (uint8_t)take(p, 1);
            if (how < 0xe0) {
                continue;
            }
            if (f->type == STATE_T_BOOL) {
                *at = how & 1;
            } else {
                at[how % f->elem_size] = (uint8_t)take(p, 1);
            }
        }
    }
}

static inline void load_any(struct dev_rig *r, struct program *p)
{
    struct err e;
    struct state_out *out = state_out_new();
    struct state_in *in;
    size_t len;
    bus_quiesce(r->bus);
    for (struct dev *d = bus_first_dev(r->bus); d != NULL; d = d->next) {
        if (d->cls->state == NULL) {
            continue;
        }
        if (d->cls->pre_save != NULL) {
            d->cls->pre_save(d);
        }
        uint8_t *copy = malloc(d->cls->size);
        memcpy(copy, d, d->cls->size);
        twist(d->cls->state, copy, p);
        state_save(out, d->name, d->cls->version, d->cls->state, copy);
        free(copy);
    }
    const uint8_t *data = state_out_data(out, &len);
    if (state_in_new(&in, data, len, &e) < 0) {
        abort();
    }
    if (bus_load(r->bus, in, &e) < 0) {
        bus_reset(r->bus);
    }
    state_in_free(in);
    state_out_free(out);
}

#endif
