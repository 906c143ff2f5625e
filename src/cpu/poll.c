/* SPDX-License-Identifier: Apache-2.0
 *
 * Between two instructions: what waits is taken in the order of SDM 3 table 6-2. The protocol with
 * the engines is in cpu/except.h. */
#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/exclusive.h"
#include "cpu/smm.h"
#include "cpu/stop.h"

static bool traps_wanted(const struct cpu *cpu)
{
    return (cpu->rflags & FLAG_TF) || cpu->int_shadow || cpu->pending_dr6 != 0 || cpu->step_armed ||
           cpu_debug_active(cpu) || cpu->stop_step != CPU_STEP_OFF;
}

void cpu_update_trap(struct cpu *cpu)
{
    if (traps_wanted(cpu)) {
        atomic_fetch_or_explicit(&cpu->events, CPU_EV_TRAP, memory_order_relaxed);
    }
}

static void deliver(struct cpu *cpu, struct cpu_exception x)
{
    x.external = true;
    cpu->insn_ip = cpu->rip;
    cpu_deliver_event(cpu, &x);
}

/* Requests of other threads that need no architectural state. */
static void housekeeping(struct cpu *cpu, uint32_t ev)
{
    if (ev & CPU_EV_EXCLUSIVE) {
        cpu_exclusive_yield(cpu);
    }
    if (ev & CPU_EV_TLB) {
        cpu_clear_event(cpu, CPU_EV_TLB);
        tlb_flush_all(cpu);
    }
    if (ev & CPU_EV_CODE) {
        cpu_clear_event(cpu, CPU_EV_CODE);
    }
}

/* SDM 3 8.4: INIT puts an AP to wait, a start-up interrupt sets it off at vector << 12. */
void cpu_startup(struct cpu *cpu)
{
    uint32_t ev = atomic_load_explicit(&cpu->events, memory_order_seq_cst);
    if ((ev & CPU_EV_INIT) && !cpu->in_smm) { /* latched until RSM (SDM 3 32.3.2) */
        cpu_clear_event(cpu, CPU_EV_INIT);
        cpu_init_signal(cpu);
    }
    if (ev & CPU_EV_SIPI) {
        cpu_clear_event(cpu, CPU_EV_SIPI);
        if (cpu->activity == CPU_WAIT_SIPI) {
            cpu->seg[SEG_CS].sel = (uint16_t)(cpu->sipi_vector << 8);
            cpu->seg[SEG_CS].base = (uint64_t)cpu->sipi_vector << 12;
            cpu->rip = 0;
            cpu->activity = CPU_ACTIVE;
        }
    }
}

/* A #DB trap of the instruction before goes first, and must not be forgotten. */
bool cpu_smi_due(const struct cpu *cpu)
{
    return (atomic_load_explicit(&cpu->events, memory_order_seq_cst) & CPU_EV_SMI) &&
           !cpu->in_smm && cpu->activity != CPU_WAIT_SIPI && cpu->activity != CPU_SHUTDOWN &&
           cpu->int_shadow == CPU_SHADOW_NONE && !cpu->step_armed && cpu->pending_dr6 == 0;
}

/* False: the world is not ready for it. */
static bool system_management(struct cpu *cpu)
{
    const struct cpu_world *w = cpu->world;
    if (w->smm_enter != NULL && !w->smm_enter(w->ctx, cpu)) {
        return false;
    }
    cpu_clear_event(cpu, CPU_EV_SMI);
    cpu->interrupts++;
    smm_enter(cpu);
    return true;
}

/* #DB traps of the instruction just done, NMI, interrupts. True when one was delivered. */
static bool interrupt(struct cpu *cpu, uint32_t ev, enum cpu_shadow shadow)
{
    if (cpu->pending_dr6 != 0 && shadow != CPU_SHADOW_SS) {
        uint64_t bits = cpu->pending_dr6;
        cpu->pending_dr6 = 0;
        deliver(cpu, (struct cpu_exception){ .vector = EXC_DB, .dr6_bits = bits });
        return true;
    }
    if (cpu->stop_step == CPU_STEP_WANTED && cpu->activity == CPU_ACTIVE) {
        return false; /* a person who steps wants the next instruction, not a timer's handler */
    }
    if ((ev & CPU_EV_NMI) && !cpu->nmi_blocked && shadow != CPU_SHADOW_SS) {
        cpu_take_nmi(cpu);
        cpu->nmi_blocked = true;
        cpu->interrupts++;
        deliver(cpu, (struct cpu_exception){ .vector = EXC_NMI });
        return true;
    }
    if ((ev & CPU_EV_INTR) && (cpu->rflags & FLAG_IF) && shadow == CPU_SHADOW_NONE) {
        int vector = cpu->world->irq_ack(cpu->world->ctx, cpu);
        if (vector >= 0) {
            cpu->interrupts++;
            deliver(cpu, (struct cpu_exception){ .vector = (uint8_t)vector });
            return true;
        }
    }
    return false;
}

/* Guest code runs on: for one instruction or freely. */
static enum cpu_poll resume(struct cpu *cpu, enum cpu_shadow shadow)
{
    bool debug = cpu_debug_active(cpu);
    if (debug && !(cpu->rflags & FLAG_RF) && shadow != CPU_SHADOW_SS) {
        uint64_t hit = cpu_breakpoint_at(cpu, cpu_linear_rip(cpu));
        if (hit != 0) {
            cpu->insn_ip = cpu->rip;
            cpu_raise_db(cpu, hit);
        }
    }
    if (debug) {
        /* It holds for one instruction; that may set it anew (IRET, a repeated string
         * instruction). */
        cpu->rflags &= ~FLAG_RF;
    }
    cpu->step_armed = cpu->rflags & FLAG_TF;
    bool stepped = cpu->stop_step == CPU_STEP_WANTED;
    if (stepped) {
        cpu->stop_step = CPU_STEP_DONE;
    }
    if (cpu->step_armed || debug || stepped || cpu->pending_dr6 != 0) {
        cpu_update_trap(cpu);
        return CPU_POLL_STEP;
    }
    cpu_clear_event(cpu, CPU_EV_TRAP);
    return shadow != CPU_SHADOW_NONE ? CPU_POLL_STEP : CPU_POLL_RUN;
}

enum cpu_poll cpu_poll_events(struct cpu *cpu)
{
    uint32_t ev = atomic_load_explicit(&cpu->events, memory_order_seq_cst);
    if (unlikely(ev & (CPU_EV_EXCLUSIVE | CPU_EV_TLB | CPU_EV_CODE))) {
        housekeeping(cpu, ev);
    }
    if (ev & CPU_EV_KICK) {
        return CPU_POLL_KICK;
    }
    if (unlikely(cpu->stops != NULL) && cpu_stop_due(cpu)) {
        return CPU_POLL_DEBUG;
    }
    if (unlikely(ev & (CPU_EV_INIT | CPU_EV_SIPI))) {
        cpu_startup(cpu);
    }
    if (cpu->activity == CPU_SHUTDOWN) {
        return CPU_POLL_SHUTDOWN;
    }
    if (cpu->activity == CPU_WAIT_SIPI) {
        return CPU_POLL_HALT;
    }

    if (unlikely(ev & CPU_EV_SMI) && cpu_smi_due(cpu) && !system_management(cpu)) {
        return CPU_POLL_KICK;
    }

    enum cpu_shadow shadow = cpu->int_shadow;
    cpu->int_shadow = CPU_SHADOW_NONE;
    if (cpu->step_armed) {
        cpu->step_armed = false;
        if (shadow != CPU_SHADOW_SS) { /* MOV SS and POP SS are not stepped on */
            cpu->pending_dr6 |= DR6_BS;
        }
    }
    /* A trap may be followed by an NMI, that by an interrupt: each at most once, so that the
     * guest's handlers make progress under any load. */
    for (unsigned i = 0; i < 3 && interrupt(cpu, ev, shadow); i++) {
        shadow = CPU_SHADOW_NONE;
        ev = atomic_load_explicit(&cpu->events, memory_order_seq_cst);
        if (cpu->activity == CPU_SHUTDOWN) {
            return CPU_POLL_SHUTDOWN;
        }
    }
    if (cpu->activity == CPU_HALTED) {
        cpu_clear_event(cpu, CPU_EV_TRAP); /* nothing to wake up for; resume() looks again */
        return CPU_POLL_HALT;
    }
    if (unlikely(cpu->stops != NULL) && cpu_stop_due(cpu)) {
        return CPU_POLL_DEBUG; /* at the first instruction of a handler */
    }
    return resume(cpu, shadow);
}
