/* SPDX-License-Identifier: Apache-2.0
 *
 * Instructions executed by the host CPU itself: x87, MMX, SSE to AVX-512, FMA, F16C, AES, SHA.
 *
 * For each distinct encoding a thunk is generated once: it loads the guest's registers that the
 * instruction names into the host's registers of the same numbers, executes the same instruction
 * with its memory operand redirected to [rsi] and its general registers to rax and rcx, and stores
 * what was written. Results, NaN payloads, rounding and exception flags are therefore the host's
 * by construction. What is not thunked (masked stores, gathers, plain moves) is C.
 *
 * Thread: [vcpu] of the cpu passed. The vCPU thread must not block SIGFPE.
 */
#ifndef SOSIA_CPU_HOSTEXEC_H
#define SOSIA_CPU_HOSTEXEC_H

#include "cpu/sem.h"

/* What a thunk works on besides struct cpu. */
struct hostexec_io {
    _Alignas(64) uint8_t mem[64]; /* memory operand */
    _Alignas(64) uint8_t fx[512]; /* FXSAVE64 image: x87 and MMX instructions run on this copy */
    uint64_t flags;               /* arithmetic flags, in and out */
    uint32_t host_mxcsr;          /* what C code runs with */
};

/* Returns 0, or the host vector (16 #MF, 19 #XM) of the exception that the instruction raised; the
 * guest's registers are then unchanged but for MXCSR. unused keep rdx and rcx free. */
typedef int hostexec_fn(struct cpu *cpu, const void *mem, uint64_t unused1, uint64_t unused2,
                        struct hostexec_io *io);

/* One instruction, bound: what sem_host looks up each time. Lives as long as the cpu. */
struct hostexec_op {
    hostexec_fn *fn; /* thunk; NULL: not generated (arena full), or done by `direct` */
    sem_fn *direct;  /* C helper that does the whole operation, checks included, else NULL */
    uint32_t attr;   /* enum insn_attr of the row */
    uint32_t flags_written;
    uint32_t flags_read;
    uint16_t host_fop;  /* x87: last opcode as the thunk's instruction has it */
    uint8_t mem_size;   /* bytes of the memory operand, 0 none */
    uint8_t mem_access; /* enum opnd_access */
    bool masked;        /* an opmask selects elements of it */
};

/* Bind `in` (an IA_HOST row) once, so that the engine can skip the look-up: the result is good for
 * every instruction with the same bytes in the same mode, until cpu_fini. NULL when the arena is
 * full: use sem_host. */
const struct hostexec_op *hostexec_bind(struct cpu *cpu, const struct insn *in);

/* sem_host with the look-up done. */
void hostexec_run(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op);

/* A C helper that does this very encoding without a thunk (moves, logic), or NULL. Engines may put
 * it in place of sem_host. */
sem_fn *hostexec_direct(const struct insn *in);

/* Free cpu->hostexec; called by cpu_fini. */
void hostexec_fini(struct cpu *cpu);

/* How much of the arena is used, for statistics. */
size_t hostexec_arena_used(const struct cpu *cpu);

#endif
