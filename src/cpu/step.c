/* SPDX-License-Identifier: Apache-2.0
 *
 * One instruction, fetched and decoded afresh and done by its helper. */
#include "cpu/step.h"

#include "cpu/access.h"
#include "cpu/except.h"
#include "cpu/mmu.h"
#include "cpu/sem.h"

uint64_t cpu_begin_instruction(struct cpu *cpu)
{
    cpu->insn_ip = cpu->rip;
    if (cpu->mode == INSN_MODE_64) {
        if (!mmu_canonical(cpu, cpu->rip))
            cpu_raise_error(cpu, EXC_GP, 0);
        return cpu->rip;
    }
    if (cpu->rip > cpu->seg[SEG_CS].limit)
        cpu_raise_error(cpu, EXC_GP, 0);
    return (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

/* The instruction goes on beyond n bytes: past CS, or into a page that cannot be fetched. */
static _Noreturn void raise_cut_off(struct cpu *cpu, uint64_t va, unsigned n, unsigned want)
{
    uint8_t byte;
    uint64_t next = cpu->mode == INSN_MODE_64 ? va + n : (uint32_t)(va + n);
    if (n < want && mmu_canonical(cpu, next))
        cpu_fetch(cpu, next, &byte, 1);
    cpu_raise_error(cpu, EXC_GP, 0);
}

void cpu_do_instruction(struct cpu *cpu, struct insn *in)
{
    uint8_t bytes[INSN_MAX_LEN];
    bool wide = cpu->mode == INSN_MODE_64;
    cpu->icount++;
    uint64_t va = cpu_begin_instruction(cpu);
    unsigned want = INSN_MAX_LEN;
    if (!wide && cpu->seg[SEG_CS].limit - cpu->rip < want - 1)
        want = (unsigned)(cpu->seg[SEG_CS].limit - cpu->rip) + 1;
    unsigned n = cpu_fetch(cpu, va, bytes, want);
    enum insn_status s = insn_decode(in, bytes, n, cpu->mode, &cpu->features);
    cpu->insn = in;
    if (s == INSN_NEED_MORE)
        raise_cut_off(cpu, va, n, want);
    if (s == INSN_TOO_LONG)
        cpu_raise_error(cpu, EXC_GP, 0);
    if (s != INSN_OK)
        cpu_raise(cpu, EXC_UD);
    uint64_t next = cpu->rip + in->len;
    cpu->rip = wide ? next : (uint32_t)next;
    sem_table[in->op](cpu, in);
    cpu->icount -= cpu_goes_on(cpu, in);
}
