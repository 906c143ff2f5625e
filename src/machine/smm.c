/* SPDX-License-Identifier: Apache-2.0
 *
 * System-management mode on a machine whose memory map is one for all processors: while SMRAM
 * shows, only processors in SMM may run. So an SMI first brings every other processor to the
 * barrier of run.c; those that get an SMI themselves join in, the rest stand until the last RSM.
 * A guest notices nothing but time: an SMI is not to be seen from outside anyway.
 */
#include "machine/machine.h"
#include "machine/pc.h"

#include "cpu/smm.h"

static void open_smram(struct machine *m, bool open) { i440fx_set_smm(&m->pc->host, open); }

static void kick_all(struct machine *m)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        cpu_raise_event(m->cpus[i], CPU_EV_KICK);
    }
}

static void want(struct machine *m, struct vcpu *v)
{
    v->wants_smm = true;
    atomic_fetch_add(&m->smm_count, 1);
}

bool machine_smm_may_run(struct machine *m, struct vcpu *v)
{
    if (atomic_load(&m->smm_count) == 0 || v->cpu->in_smm) {
        return true;
    }
    if (!v->wants_smm && cpu_smi_due(v->cpu)) {
        want(m, v);
    }
    return v->wants_smm && m->parked + m->smm_running >= m->cpu_count;
}

/* Called twice for an SMI: the processor comes to the barrier in between, and leaves it when nobody
 * outside SMM runs any more. */
bool machine_smm_enter(void *ctx, struct cpu *cpu)
{
    struct machine *m = ctx;
    struct vcpu *v = &m->vcpus[cpu->index];
    bus_lock(m->bus);
    pthread_mutex_lock(&m->run_lock);
    bool enter = v->wants_smm && v->smm_running;
    bool first = !v->wants_smm;
    if (enter) {
        v->wants_smm = false;
        m->smm_inside++;
    } else if (first) {
        want(m, v);
    }
    pthread_mutex_unlock(&m->run_lock);
    if (enter) {
        open_smram(m, true);
    }
    bus_unlock(m->bus);
    if (first) {
        kick_all(m);
    }
    return enter;
}

void machine_smm_left(void *ctx, struct cpu *cpu)
{
    struct machine *m = ctx;
    struct vcpu *v = &m->vcpus[cpu->index];
    bus_lock(m->bus);
    pthread_mutex_lock(&m->run_lock);
    v->smm_running = false;
    m->smm_running--;
    m->smm_inside--;
    bool last = m->smm_inside == 0;
    bool others = atomic_fetch_sub(&m->smm_count, 1) != 1;
    pthread_cond_broadcast(&m->run_changed);
    pthread_mutex_unlock(&m->run_lock);
    if (last) {
        open_smram(m, false);
    }
    bus_unlock(m->bus);
    if (others) {
        cpu_raise_event(cpu, CPU_EV_KICK); /* it is outside now, and stands */
    }
}

void machine_smm_recount(struct machine *m)
{
    unsigned inside = 0;
    pthread_mutex_lock(&m->run_lock);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        struct vcpu *v = &m->vcpus[i];
        v->wants_smm = v->smm_running = false;
        inside += v->cpu->in_smm;
    }
    m->smm_running = 0;
    m->smm_inside = inside;
    atomic_store(&m->smm_count, inside);
    pthread_mutex_unlock(&m->run_lock);
    open_smram(m, inside != 0);
}
