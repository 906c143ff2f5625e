/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of hostexec: arena, thunk generator, C operations.
 */
#ifndef SOSIA_CPU_HOSTEXEC_INT_H
#define SOSIA_CPU_HOSTEXEC_INT_H

#include "cpu/hostexec.h"
#include "cpu/insn.h"
#include "cpu/mmu.h"

/* -- Arena: memory never writable and executable at one address. One memfd, mapped twice. */
#define HOSTEXEC_ARENA_SIZE (4u << 20) /* sparse: pages are taken as they are used */
#define HOSTEXEC_THUNK_MAX 512u

struct hostexec_arena {
    uint8_t *write; /* owned mappings */
    uint8_t *exec;
    size_t used;
    size_t transient; /* offset of the slot for thunks that are not kept */
    unsigned slot;    /* in the registry of the SIGFPE handler */
};

MUST_CHECK int hostexec_arena_init(struct hostexec_arena *a);
void hostexec_arena_fini(struct hostexec_arena *a);
/* Copy code in; NULL when full. The code is executable at the result. */
void *hostexec_arena_add(struct hostexec_arena *a, const uint8_t *code, size_t len);
/* Copy code over the previous transient one. */
void *hostexec_arena_add_transient(struct hostexec_arena *a, const uint8_t *code, size_t len);

/* Offsets of the arena's two common exits: SIMD fault (saves MXCSR), x87 fault. The handler puts
 * the vector in eax. */
#define HOSTEXEC_EXIT_SIMD 0u
#define HOSTEXEC_EXIT_X87 64u
#define HOSTEXEC_FIRST_THUNK 128u

/* The row's attributes, corrected for this encoding. */
uint32_t hostexec_attr(const struct insn *in);

/* -- Generator */
struct hostexec_code {
    uint8_t bytes[HOSTEXEC_THUNK_MAX];
    size_t len;
    uint16_t fop;
};
/* The thunk of `in`; mode: enum insn_mode it was decoded in. */
void hostexec_generate(struct hostexec_code *c, const struct insn *in, unsigned mode);
/* The arena's exits, at HOSTEXEC_EXIT_*; out has HOSTEXEC_FIRST_THUNK bytes. */
void hostexec_generate_exits(uint8_t *out);

/* Offsets wrap at the address size. */
static inline uint64_t hostexec_wrap(const struct insn *in, uint64_t off)
{
    return in->adsize == 8 ? off : in->adsize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* -- Memory operands under an opmask (hostexec_evex.c): only the elements that it selects. */
bool hostexec_any_element(const struct cpu *cpu, const struct insn *in, unsigned size);
/* The whole operand in one page of RAM that the TLB knows: masked elements cannot fault there. NULL
 * otherwise. */
void *hostexec_plain(struct cpu *cpu, const struct insn *in, uint64_t off, unsigned size,
                     enum mmu_access access);
void hostexec_read_elements(struct cpu *cpu, const struct insn *in, uint64_t off, uint8_t *buf,
                            unsigned size);
void hostexec_probe_elements(struct cpu *cpu, const struct insn *in, uint64_t off, unsigned size);
void hostexec_write_elements(struct cpu *cpu, const struct insn *in, uint64_t off,
                             const uint8_t *buf, unsigned size);
/* Index elements of isize bytes, data of dsize; the caller has done fpu_check. */
void hostexec_gather(struct cpu *cpu, const struct insn *in, unsigned isize, unsigned dsize);
/* The helper of a scatter, NULL for other operations. */
sem_fn *hostexec_scatter(const struct insn *in);

/* -- C operations (hostexec_mem.c, hostexec_mov.c): the helper of an op that is never thunked. */
sem_fn *hostexec_special(const struct insn *in);

#endif
