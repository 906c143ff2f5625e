/* SPDX-License-Identifier: Apache-2.0 -- which helper does which operation */
#include "cpu/except.h"
#include "cpu/sem_decls.h"

#define SEM_C(op, helper) [OP_##op] = sem_##helper,
#define SEM_HOST(op, helper) [OP_##op] = sem_host,
sem_fn *const sem_table[OP_COUNT] = {
    [OP_INVALID] = sem_undefined,
    INSN_OP_LIST_C(SEM_C)
    INSN_OP_LIST_HOST(SEM_HOST)
};

void sem_undefined(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_raise(cpu, EXC_UD);
}
