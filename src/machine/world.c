/* SPDX-License-Identifier: Apache-2.0
 *
 * What a processor sees of the machine: ports, memory that is not RAM, its APIC, time.
 * Thread: [vcpu] of the processor passed; none of these is called with the machine lock held.
 */
#include "cpu/fpu.h"
#include "machine/chips.h"
#include "machine/machine.h"
#include "machine/pc.h"

#define PORT_CLEAR_BUSY 0xf0u /* of the coprocessor: clears FERR# */
#define IRQ_COPROCESSOR 13

static uint32_t world_port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)cpu;
    struct machine *m = ctx;
    return bus_port_read(m->bus, port, size);
}

static void world_port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *m = ctx;
    if (port == PORT_CLEAR_BUSY) {
        fpu_ignne(cpu);
        return;
    }
    bus_port_write(m->bus, port, size, value);
}

static uint64_t world_mmio_read(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size)
{
    struct machine *m = ctx;
    if (!lapic_claims(&m->pc->lapics[cpu->index], gpa)) {
        return bus_mmio_read(m->bus, gpa, size);
    }
    uint64_t v = lapic_mmio_read(machine_borrow_lapic(m, cpu), gpa % LAPIC_PAGE, size);
    machine_return_lapic(m, cpu);
    return v;
}

static void world_mmio_write(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
    struct machine *m = ctx;
    if (!lapic_claims(&m->pc->lapics[cpu->index], gpa)) {
        bus_mmio_write(m->bus, gpa, size, value);
        return;
    }
    lapic_mmio_write(machine_borrow_lapic(m, cpu), gpa % LAPIC_PAGE, size, value);
    machine_return_lapic(m, cpu);
}

static int world_irq_ack(void *ctx, struct cpu *cpu)
{
    struct machine *m = ctx;
    struct lapic *l = &m->pc->lapics[cpu->index];
    bus_lock(m->bus);
    /* An engine that has local APICs asks only for the 8259s' interrupt. */
    int vector = !l->asleep                 ? lapic_ack(l)
                 : pic_pending(&m->pc->pic) ? pic_ack(&m->pc->pic)
                                            : -1;
    bus_unlock(m->bus);
    return vector;
}

static bool world_apic_msr_read(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    struct machine *m = ctx;
    bool ok = lapic_msr_read(machine_borrow_lapic(m, cpu), msr, value);
    machine_return_lapic(m, cpu);
    return ok;
}

static bool world_apic_msr_write(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t value)
{
    struct machine *m = ctx;
    bool ok = lapic_msr_write(machine_borrow_lapic(m, cpu), msr, value);
    machine_return_lapic(m, cpu);
    return ok;
}

static uint8_t world_cr8_get(void *ctx, struct cpu *cpu)
{
    struct machine *m = ctx;
    uint8_t tpr = lapic_get_tpr(machine_borrow_lapic(m, cpu));
    machine_return_lapic(m, cpu);
    return tpr;
}

static void world_cr8_set(void *ctx, struct cpu *cpu, uint8_t tpr)
{
    struct machine *m = ctx;
    lapic_set_tpr(machine_borrow_lapic(m, cpu), tpr);
    machine_return_lapic(m, cpu);
}

static void world_tsc_moved(void *ctx, struct cpu *cpu)
{
    struct machine *m = ctx;
    lapic_tsc_changed(machine_borrow_lapic(m, cpu));
    machine_return_lapic(m, cpu);
}

static void world_apic_eoi(void *ctx, struct cpu *cpu, uint8_t vector)
{
    (void)cpu;
    struct machine *m = ctx;
    bus_lock(m->bus);
    apic_bus_eoi(&m->pc->apics, vector);
    bus_unlock(m->bus);
}

static uint64_t world_tsc(void *ctx)
{
    struct machine *m = ctx;
    return machine_tsc(&m->time);
}

static uint64_t world_tsc_offset(void *ctx)
{
    struct machine *m = ctx;
    return machine_tsc_offset(&m->time);
}

static uint64_t world_wall_ns(void *ctx)
{
    struct machine *m = ctx;
    return machine_wall_ns(&m->time);
}

static uint64_t world_now_ns(void *ctx)
{
    struct machine *m = ctx;
    return clock_now_ns(m->clock);
}

static void world_code_written(void *ctx, struct cpu *by, gpa_t gpa, uint64_t len)
{
    (void)by;
    machine_code_written(ctx, gpa, len);
}

static void world_ferr(void *ctx, struct cpu *cpu, int level)
{
    (void)cpu;
    struct machine *m = ctx;
    bus_lock(m->bus);
    struct irq irq = irq_or_input(&m->pc->isa[IRQ_COPROCESSOR], 0);
    irq_set(&irq, level);
    bus_unlock(m->bus);
}

static bool world_a20_masked(void *ctx)
{
    struct machine *m = ctx;
    return m->pc->a20.high == 0;
}

void machine_fill_world(struct machine *m)
{
    m->world = (struct cpu_world){
        .ctx = m,
        .port_in = world_port_in,
        .port_out = world_port_out,
        .mmio_read = world_mmio_read,
        .mmio_write = world_mmio_write,
        .irq_ack = world_irq_ack,
        .apic_msr_read = world_apic_msr_read,
        .apic_msr_write = world_apic_msr_write,
        .apic_eoi = world_apic_eoi,
        .cr8_get = world_cr8_get,
        .cr8_set = world_cr8_set,
        .tsc = world_tsc,
        .tsc_offset = world_tsc_offset,
        .tsc_moved = world_tsc_moved,
        .wall_ns = world_wall_ns,
        .now_ns = world_now_ns,
        .code_written = world_code_written,
        .ferr = world_ferr,
        .a20_masked = world_a20_masked,
        .smm_enter = machine_smm_enter,
        .smm_left = machine_smm_left,
    };
}

/* [any]: gmem's hook, and processors' stores. */
void machine_code_written(void *ctx, gpa_t gpa, uint64_t len)
{
    struct machine *m = ctx;
    if (m->engine != NULL) {
        m->engine_class->invalidate(m->engine, gpa, len);
    }
}

void machine_map_changed(void *ctx)
{
    struct machine *m = ctx;
    for (unsigned i = 0; i < m->cpu_count; i++) {
        if (m->cpus[i] != NULL) {
            cpu_raise_event(m->cpus[i], CPU_EV_TLB | CPU_EV_CODE);
        }
    }
}
