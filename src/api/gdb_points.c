/* SPDX-License-Identifier: Apache-2.0
 *
 * What GDB has inserted. It takes everything out and puts it in again at nearly every stop, so that
 * the machine, which drops translated code for it, is told only when it goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/gdb_session.h"
#include "base/alloc.h"

static bool is_break(const struct gdb_point *p) { return p->kind <= GDB_HARD_BREAK; }

static bool before(const struct gdb_point *a, const struct gdb_point *b)
{
    return a->va != b->va       ? a->va < b->va
           : a->kind != b->kind ? a->kind < b->kind
                                : a->len < b->len;
}

/* The first that is not before p. */
static size_t place_of(const struct gdb_session *s, const struct gdb_point *p)
{
    size_t low = 0;
    size_t high = s->points;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (before(&s->point[middle], p)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void changed(struct gdb_session *s, const struct gdb_point *p)
{
    s->breaks_changed |= is_break(p);
    s->watches_changed |= !is_break(p);
}

int gdb_points_add(struct gdb_session *s, const struct gdb_point *p)
{
    size_t n = place_of(s, p);
    if (n < s->points && !before(p, &s->point[n])) {
        return 0; /* twice is once */
    }
    if (s->points == GDB_POINTS_MAX) {
        return -ENOSPC;
    }
    if (s->points == s->points_cap) {
        s->points_cap = s->points_cap != 0 ? 2 * s->points_cap : 16;
        s->point = xrealloc(s->point, s->points_cap * sizeof *s->point);
    }
    memmove(&s->point[n + 1], &s->point[n], (s->points - n) * sizeof *s->point);
    s->point[n] = *p;
    s->points++;
    changed(s, p);
    return 0;
}

void gdb_points_remove(struct gdb_session *s, const struct gdb_point *p)
{
    size_t n = place_of(s, p);
    if (n < s->points && !before(p, &s->point[n])) {
        s->points--;
        memmove(&s->point[n], &s->point[n + 1], (s->points - n) * sizeof *s->point);
        changed(s, p);
    }
}

bool gdb_points_has(const struct gdb_session *s, gva_t va, enum gdb_point_kind kind)
{
    const struct gdb_point p = { .va = va, .kind = kind };
    size_t n = place_of(s, &p);
    return n < s->points && s->point[n].va == va && s->point[n].kind == kind;
}

void gdb_points_commit(struct gdb_session *s)
{
    gva_t *breaks = xcalloc(s->points + 1, sizeof *breaks);
    struct cpu_watch *watches = xcalloc(s->points + 1, sizeof *watches);
    struct cpu_stops stops = { .breaks = breaks, .watches = watches };
    for (size_t i = 0; i < s->points; i++) {
        const struct gdb_point *p = &s->point[i];
        if (!is_break(p)) {
            watches[stops.watch_count++] = (struct cpu_watch){
                .va = p->va,
                .len = p->len,
                .read = p->kind != GDB_WRITE,
                .write = p->kind != GDB_READ,
            };
        } else if (stops.break_count == 0 || breaks[stops.break_count - 1] != p->va) {
            breaks[stops.break_count++] = p->va;
        }
    }
    machine_debug_set_stops(s->machine, &stops);
    s->breaks_changed = s->watches_changed = false;
    free(breaks);
    free(watches);
}
