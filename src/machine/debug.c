/* SPDX-License-Identifier: Apache-2.0 -- a debugger outside of the guest */
#include "machine/debug.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct machine_debugger {
    struct cpu_stops stops;    /* what cpu->stops points to */
    gva_t *breaks;             /* owned */
    struct cpu_watch *watches; /* owned */
};

int machine_debug_attach(struct machine *m)
{
    struct machine_debugger *none = NULL;
    struct machine_debugger *d = xzalloc(sizeof *d);
    if (!atomic_compare_exchange_strong(&m->debugger, &none, d)) {
        free(d);
        return -EBUSY;
    }
    return 0;
}

/* Code caches and TLBs know what stops. */
static void stops_changed(struct machine *m)
{
    if (m->engine_class->stops_changed != NULL) {
        m->engine_class->stops_changed(m->engine);
    }
    machine_map_changed(m);
}

void machine_debug_detach(struct machine *m)
{
    struct machine_debugger *d = atomic_exchange(&m->debugger, NULL);
    if (d == NULL) {
        return;
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->cpus[i]->stops = NULL;
        cpu_stop_resume(m->cpus[i], CPU_STEP_OFF);
        atomic_store(&m->vcpus[i].stands, false);
    }
    stops_changed(m);
    machine_release(m, HOLD_DEBUG);
    free(d->breaks);
    free(d->watches);
    free(d);
}

void machine_debug_stop(struct machine *m)
{
    machine_hold(m, HOLD_DEBUG);
    machine_pause(m);
    /* A reset may be on its way, which changes them all. */
    pthread_mutex_lock(&m->run_lock);
    while ((m->hold_bits & HOLD_RESET) && m->end.reason == MACHINE_RUNS && !m->quit) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    pthread_mutex_unlock(&m->run_lock);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->engine_class->sync(m->engine, m->cpus[i], CPU_GROUP_ALL, true);
    }
}

bool machine_debug_next(struct machine *m, struct machine_stop *out)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        struct cpu *cpu = m->cpus[i];
        enum cpu_stop_why why = (enum cpu_stop_why)cpu->stop_why;
        if (why == CPU_STOP_NONE && cpu->stop_step == CPU_STEP_DONE) {
            why = CPU_STOP_STEP; /* it was made to pause before it could say so */
        }
        if (why != CPU_STOP_NONE) {
            *out = (struct machine_stop){ i, why, cpu->stop_va };
            cpu->stop_why = CPU_STOP_NONE;
            cpu->stop_step = CPU_STEP_OFF;
            return true;
        }
    }
    return false;
}

static void *copy_of(const void *p, size_t count, size_t size)
{
    void *copy = xcalloc(count + 1, size);
    return count != 0 ? memcpy(copy, p, count * size) : copy;
}

static bool same(const struct cpu_stops *a, const struct cpu_stops *b)
{
    if (a->break_count != b->break_count || a->watch_count != b->watch_count) {
        return false;
    }
    for (size_t i = 0; i < a->break_count; i++) {
        if (a->breaks[i] != b->breaks[i]) {
            return false;
        }
    }
    for (size_t i = 0; i < a->watch_count; i++) {
        const struct cpu_watch *x = &a->watches[i];
        const struct cpu_watch *y = &b->watches[i];
        if (x->va != y->va || x->len != y->len || x->read != y->read || x->write != y->write) {
            return false;
        }
    }
    return true;
}

void machine_debug_set_stops(struct machine *m, const struct cpu_stops *stops)
{
    struct machine_debugger *d = m->debugger;
    if (same(&d->stops, stops)) {
        return;
    }
    free(d->breaks);
    free(d->watches);
    d->breaks = copy_of(stops->breaks, stops->break_count, sizeof *d->breaks);
    d->watches = copy_of(stops->watches, stops->watch_count, sizeof *d->watches);
    d->stops = (struct cpu_stops){ d->breaks, stops->break_count, d->watches, stops->watch_count };
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->cpus[i]->stops = &d->stops;
    }
    stops_changed(m);
}

/* A breakpoint is met again, if it is still there; an access that a watchpoint saw is done, and so
 * is a step that is wanted still. */
static bool has_news(const struct cpu *cpu, enum machine_go how)
{
    return cpu->stop_why >= CPU_STOP_WRITE ||
           (how == MACHINE_GO_STEP && cpu->stop_step == CPU_STEP_DONE);
}

void machine_debug_go(struct machine *m, const enum machine_go *how)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        if (has_news(m->cpus[i], how[i])) {
            machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_DEBUG });
            return;
        }
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        struct cpu *cpu = m->cpus[i];
        cpu->stops = &m->debugger->stops; /* a reader of none steps, too */
        cpu_stop_resume(cpu, how[i] == MACHINE_GO_STEP ? CPU_STEP_WANTED : CPU_STEP_OFF);
        atomic_store(&m->vcpus[i].stands, how[i] == MACHINE_GO_STAND);
    }
    machine_release(m, HOLD_DEBUG);
    machine_resume(m);
}
