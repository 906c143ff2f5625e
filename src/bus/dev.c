/* SPDX-License-Identifier: Apache-2.0 -- the machine's list of devices: reset, save, load */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/internal.h"

void dev_register(struct bus *b, struct dev *d, const struct dev_class *cls, const char *name)
{
    size_t len = strlen(name);
    assert(len > 0 && len < sizeof d->name);
    struct dev **at = bus_dev_list(b);
    while (*at != NULL) {
        assert(*at != d && strcmp((*at)->name, name) != 0);
        at = &(*at)->next;
    }
    d->cls = cls;
    d->bus = b;
    d->next = NULL;
    memcpy(d->name, name, len + 1);
    *at = d;
}

void dev_unregister(struct dev *d)
{
    if (d->bus == NULL) {
        return; /* never registered: fini of a half-made device */
    }
    struct dev **at = bus_dev_list(d->bus);
    while (*at != d) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = d->next;
    d->next = NULL;
    d->bus = NULL;
}

struct dev *bus_first_dev(struct bus *b) { return *bus_dev_list(b); }

void bus_reset(struct bus *b)
{
    for (struct dev *d = bus_first_dev(b); d != NULL; d = d->next) {
        if (d->cls->reset != NULL) {
            d->cls->reset(d);
        }
    }
}

void bus_quiesce(struct bus *b)
{
    for (struct dev *d = bus_first_dev(b); d != NULL; d = d->next) {
        if (d->cls->quiesce != NULL) {
            d->cls->quiesce(d);
        }
    }
}

void bus_save(struct bus *b, struct state_out *out)
{
    for (struct dev *d = bus_first_dev(b); d != NULL; d = d->next) {
        if (d->cls->pre_save != NULL) {
            d->cls->pre_save(d);
        }
        if (d->cls->state != NULL) {
            state_save(out, d->name, d->cls->version, d->cls->state, d);
        }
    }
}

int bus_load(struct bus *b, struct state_in *in, struct err *e)
{
    for (struct dev *d = bus_first_dev(b); d != NULL; d = d->next) {
        if (d->cls->state != NULL) {
            int r = state_load(in, d->name, d->cls->version, d->cls->state, d, d->cls->size, e);
            if (r < 0 && !(r == -ENOENT && d->cls->came_later)) {
                return r;
            }
        }
    }
    for (struct dev *d = bus_first_dev(b); d != NULL; d = d->next) {
        if (d->cls->post_load != NULL) {
            int r = d->cls->post_load(d, e);
            if (r < 0) {
                return err_prefix(e, r, "%s", d->name);
            }
        }
    }
    return 0;
}
