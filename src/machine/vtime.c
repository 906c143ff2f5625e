/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual time: an instruction takes a nanosecond, and HLT as long as it takes to the next timer.
 * One processor runs at a time, a slice of instructions each; its thread fires the timers, exactly
 * where they are due. So the same machine does the same every time and on every engine that counts,
 * as long as nothing comes from outside: disks and networks answer when the host does.
 */
#include "machine/vtime.h"

#include <errno.h>

#include "cpu/smm.h"
#include "machine/machine.h"

#define SLICE_INSNS 20000u

uint64_t machine_instructions(const struct machine *m)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < m->cpu_count; i++) {
        sum += m->cpus[i]->icount;
    }
    return sum;
}

/* Exact on the thread whose turn it is and while all stand; else of a moment ago. */
static uint64_t virtual_ns(void *ctx) { return machine_instructions(ctx); }

/* A timer is due earlier than the processor that runs has been told: it must ask again. */
static void rearm(void *ctx)
{
    struct machine *m = ctx;
    cpu_raise_event(m->cpus[atomic_load(&m->turn)], CPU_EV_KICK);
}

struct clock *machine_vtime_clock(struct machine *m)
{
    struct clock *c = clock_new(virtual_ns, m);
    m->slice_end = SLICE_INSNS;
    atomic_store(&m->stop_at, UINT64_MAX);
    return c;
}

void machine_vtime_start(struct machine *m) { clock_set_rearm(m->clock, rearm, m); }

/* -- Turns ------------------------------------------------------------------------------------- */

/* A debugger may have it stand, and so does system management (smm.c). */
static bool stands(const struct machine *m, const struct vcpu *v)
{
    return atomic_load(&v->stands) || (atomic_load(&m->smm_count) != 0 && !v->cpu->in_smm &&
                                       !v->wants_smm && !cpu_smi_due(v->cpu));
}

bool machine_vtime_turn(const struct machine *m, const struct vcpu *v)
{
    unsigned i = atomic_load(&m->turn);
    for (unsigned n = 1; n < m->cpu_count && stands(m, &m->vcpus[i]); n++) {
        i = (i + 1) % m->cpu_count;
    }
    return i == v->cpu->index;
}

static void pass_turn(struct machine *m, const struct vcpu *v)
{
    m->slice_end = machine_instructions(m) + SLICE_INSNS;
    pthread_mutex_lock(&m->run_lock);
    atomic_store(&m->turn, (v->cpu->index + 1) % m->cpu_count);
    pthread_cond_broadcast(&m->run_changed);
    pthread_mutex_unlock(&m->run_lock);
}

/* Instructions until the next timer; a guest that has one always due gets on all the same. */
static uint64_t run_timers(struct machine *m)
{
    bus_lock(m->bus);
    uint64_t deadline = clock_run_due(m->clock);
    uint64_t now = clock_now_ns(m->clock);
    bus_unlock(m->bus);
    return deadline > now ? deadline - now : 1;
}

bool machine_vtime_begin(struct machine *m, struct vcpu *v)
{
    uint64_t count = machine_instructions(m);
    uint64_t stop_at = atomic_load(&m->stop_at);
    if (count >= stop_at) {
        machine_hold(m, HOLD_COUNT);
        return false;
    }
    if (m->cpu_count > 1 && count >= m->slice_end) {
        pass_turn(m, v);
        return false;
    }
    uint64_t n = run_timers(m);
    if (n > stop_at - count) {
        n = stop_at - count;
    }
    if (m->cpu_count > 1 && n > m->slice_end - count) {
        n = m->slice_end - count;
    }
    v->idle = false;
    v->cpu->icount_limit = v->cpu->icount + n < n ? UINT64_MAX : v->cpu->icount + n;
    return true;
}

void machine_vtime_save(const struct machine *m, struct vtime_turn *out)
{
    *out = (struct vtime_turn){ 0 };
    if (m->virtual_time && m->cpu_count > 1) {
        out->cpu = atomic_load(&m->turn);
        out->left = (uint32_t)(m->slice_end - machine_instructions(m));
    }
}

int machine_vtime_load(struct machine *m, const struct vtime_turn *t, struct err *e)
{
    if (t->cpu >= m->cpu_count || t->left > SLICE_INSNS) {
        return err_set(e, -EINVAL, "virtual time: no such turn");
    }
    atomic_store(&m->turn, t->cpu);
    m->slice_end = machine_instructions(m) + t->left;
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->vcpus[i].idle = false;
    }
    return 0;
}

/* -- HLT --------------------------------------------------------------------------------------- */

/* What a processor may wake up for; the other events are engines' own, and kicks from outside. */
static uint32_t events_of(const struct vcpu *v)
{
    return atomic_load(&v->cpu->events) & (CPU_EV_INTR | CPU_EV_NMI | CPU_EV_NMI_2 | CPU_EV_SMI |
                                           CPU_EV_INIT | CPU_EV_SIPI);
}

static bool all_idle(const struct machine *m)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        const struct vcpu *v = &m->vcpus[i];
        if (!v->idle || v->idle_events != events_of(v)) {
            return false;
        }
    }
    return true;
}

/* No timer is armed: something from outside may come. */
static void wait_for_wake(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    for (unsigned i = 0; i < m->cpu_count && m->hold_bits == 0 && !m->quit;) {
        if (m->vcpus[i].idle_wakes != atomic_load(&m->vcpus[i].wakes)) {
            break;
        }
        if (++i == m->cpu_count) {
            pthread_cond_wait(&m->run_changed, &m->run_lock);
            i = 0;
        }
    }
    pthread_mutex_unlock(&m->run_lock);
}

void machine_vtime_idle(struct machine *m, struct vcpu *v, uint32_t wakes)
{
    v->idle = true;
    v->idle_events = events_of(v);
    v->idle_wakes = wakes;
    if (!all_idle(m)) {
        if (m->cpu_count > 1) {
            pass_turn(m, v);
        }
        return;
    }
    bus_lock(m->bus);
    uint64_t deadline = clock_next_deadline(m->clock);
    if (deadline != TIMER_NEVER && deadline > clock_now_ns(m->clock)) {
        clock_set_now(m->clock, deadline);
    }
    bus_unlock(m->bus);
    if (deadline != TIMER_NEVER) {
        return; /* machine_vtime_begin fires it */
    }
    if (atomic_load(&m->stop_at) != UINT64_MAX) {
        machine_hold(m, HOLD_COUNT); /* there is nothing to run to */
    } else {
        wait_for_wake(m);
    }
}

/* -- For those who look ------------------------------------------------------------------------ */

int machine_run_until(struct machine *m, uint64_t instructions, struct err *e)
{
    if (!m->virtual_time) {
        return err_set(e, -EINVAL, "instructions are counted in virtual time only");
    }
    if (!machine_paused(m)) {
        return err_set(e, -EBUSY, "the machine is running");
    }
    atomic_store(&m->stop_at, instructions);
    machine_resume(m);
    pthread_mutex_lock(&m->run_lock);
    while (!(m->hold_bits & HOLD_COUNT) && m->end.reason == MACHINE_RUNS) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    pthread_mutex_unlock(&m->run_lock);
    machine_pause(m);
    machine_release(m, HOLD_COUNT);
    atomic_store(&m->stop_at, UINT64_MAX);
    struct machine_end end;
    return machine_get_end(m, &end) == 0
               ? err_set(e, -ESHUTDOWN, "the machine has come to its end: %s", end.text)
               : 0;
}
