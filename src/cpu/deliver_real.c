/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery through the interrupt vector table: real mode (SDM 3 20.1.4), and INT n of a
 * virtual-8086 task by its own handlers (SDM 3 20.3.3). */
#include "cpu/deliver.h"

/* Entry of the vector table: offset, segment. */
static void enter(struct cpu *cpu, struct new_stack *s, uint32_t vector_entry, uint64_t flags)
{
    uint16_t ip = (uint16_t)vector_entry;
    uint16_t cs = (uint16_t)(vector_entry >> 16);
    new_stack_push(cpu, s, 2, flags);
    new_stack_push(cpu, s, 2, cpu->seg[SEG_CS].sel);
    new_stack_push(cpu, s, 2, cpu->rip);
    if (ip > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    new_stack_commit(cpu, s);
    if (cpu_v86(cpu)) {
        seg_set_v86(cpu, SEG_CS, cs);
    } else {
        seg_load_real(cpu, SEG_CS, cs);
    }
    cpu->rip = ip;
}

void deliver_real(struct cpu *cpu)
{
    unsigned off = cpu->exc.vector * 4u;
    if (off + 3 > cpu->idtr.limit) {
        cpu_raise_error(cpu, EXC_GP, 0); /* of which real mode pushes no error code */
    }
    uint32_t entry = (uint32_t)cpu_sys_read(cpu, (uint32_t)(cpu->idtr.base + off), 4);
    struct new_stack s = new_stack_current(cpu);
    enter(cpu, &s, entry, except_flags(cpu));
    deliver_finish(cpu, DELIVER_CLEARS | FLAG_IF | FLAG_AC);
}

/* The map of 32 bytes lies below the I/O map; a set bit means the protected-mode handler. */
static bool redirected(struct cpu *cpu, uint8_t vector)
{
    if (cpu->tr.limit < 0x67 || !(seg_type(&cpu->tr) & 8)) {
        return false;
    }
    uint32_t io_map = (uint32_t)cpu_sys_read(cpu, (uint32_t)(cpu->tr.base + 0x66), 2);
    uint32_t at = io_map - 32 + vector / 8;
    if (io_map < 32 || at > cpu->tr.limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint8_t map = (uint8_t)cpu_sys_read(cpu, (uint32_t)(cpu->tr.base + at), 1);
    return !(map >> (vector % 8) & 1);
}

bool deliver_v86_redirected(struct cpu *cpu, uint8_t vector)
{
    if (!redirected(cpu, vector)) {
        return false;
    }
    uint32_t entry = (uint32_t)cpu_sys_read(cpu, vector * 4u, 4);
    bool iopl3 = (cpu->rflags & FLAG_IOPL) == FLAG_IOPL;
    uint64_t flags = cpu->rflags;
    if (!iopl3) {
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    }
    struct new_stack s = new_stack_current(cpu);
    enter(cpu, &s, entry, flags);
    deliver_finish(cpu, DELIVER_CLEARS | (iopl3 ? FLAG_IF : FLAG_VIF));
    return true;
}
