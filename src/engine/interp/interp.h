/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the interpreter.
 *
 * Code is predecoded into basic blocks, kept per vCPU and found by the host address of their first
 * byte and the decoding mode. An instruction is a struct op: a handler chosen when it is decoded,
 * and its operands in 32 bytes. Handlers call each other in tail position, so that a block runs as
 * one chain of jumps. A near branch goes on to the next block in the same way when nothing waits;
 * other ends of blocks return to the run loop.
 *
 * Between handlers the guest's arithmetic flags travel in an argument in the form of cpu/alu.h;
 * cpu->rflags has stale ones meanwhile and is made whole before anything outside of the handlers
 * can look: semantic helpers, slow memory paths, the run loop's events. Likewise cpu->rip and
 * insn_ip: `base` is the address of the block, each op knows its offset.
 */
#ifndef SOSIA_ENGINE_INTERP_INTERP_H
#define SOSIA_ENGINE_INTERP_INTERP_H

#include <pthread.h>

#include "base/bits.h"
#include "cpu/access_fast.h"
#include "cpu/alu.h"
#include "cpu/sem.h"
#include "engine/engine.h"

struct op;
struct block;
typedef uint32_t op_fn(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl);

struct op {
    op_fn *fn;
    union {
        int64_t disp;          /* address displacement, branch displacement, 64-bit immediate */
        const struct insn *in; /* generic handlers */
        struct block *onward;  /* conditional branches and ends of blocks: like taken */
    };
    union {
        struct {
            int32_t imm;
            uint8_t dst; /* register number; of byte registers the offset in gpr[] */
            uint8_t src;
            uint8_t areg; /* address: base register, INSN_REG_RIP, INSN_NO_REG */
            uint8_t xreg; /* address: index register, INSN_NO_REG */
        };
        sem_fn *sem;
        const void *bound;   /* struct hostexec_op */
        struct block *taken; /* direct branches: what was last there, in the same page */
    };
    union {
        struct {
            uint8_t scale;
            uint8_t seg;
            uint8_t adsize;
            uint8_t unused;
        };
        int32_t rel; /* direct branches: the target counted from the block's first byte */
    };
    uint16_t ip; /* offset of this instruction in the block, of the next one */
    uint16_t next;
};

#define BLOCK_OPS 48u
#define BLOCK_BYTES 480u /* code bytes at most */

struct block {
    uint64_t key;                    /* block_key() */
    uint64_t epoch;                  /* of the vCPU when this was last known to be good */
    const _Atomic uint32_t *gen_now; /* generation of its page ... */
    uint32_t gen;   /* ... when it was decoded, or with BLOCK_UNSURE: look closer each time */
    uint16_t count; /* instructions */
    uint16_t bytes;
    struct op op[]; /* count, one more that ends the block; then block_more, struct insn, bytes */
};

#define BLOCK_UNSURE 0x80000000u

/* Behind the ops of every block, for those that are UNSURE. */
struct block_more {
    const uint8_t *host2; /* the instruction crosses into this page, NULL: it does not */
    const _Atomic uint32_t *gen2_now;
    uint32_t gen2;
    const uint8_t *host;
    const uint8_t *code; /* as decoded */
};

/* Code in one page of RAM, by page number. */
struct page_code {
    _Atomic uint64_t map; /* bit n: bytes 64n..64n+63 have been decoded by somebody */
    _Atomic uint32_t gen; /* goes up when such bytes are written; 31 bits */
};

#define HASH_BITS 15u
#define ARENA_BYTES (12u << 20)

struct interp;

struct interp_cpu {
    struct interp *engine;
    struct cpu *cpu;
    struct block *running; /* NULL between blocks */
    uint64_t base;         /* its address */
    uint64_t epoch; /* the engine's, as last seen: a block of another one is looked at closer */
    uint64_t limit; /* cpu->icount from which on the run loop gets control */
    uint8_t *arena;
    size_t used;
    struct block *single; /* room for a block of one instruction that is not kept */
    uint64_t decoded;     /* statistics: instructions, arena resets, blocks */
    uint64_t resets;
    uint64_t blocks;
    struct block *hash[1u << HASH_BITS]; /* never NULL: ic->none where nothing is */
    struct block none;
};

struct interp {
    struct engine_base base;
    struct gmem *mem;
    struct cpu_exclusive *exclusive;
    struct page_code *code;
    uint64_t pages;
    unsigned block_ops; /* virtual time: 1, so that cpu->icount is right at every instruction */
    pthread_mutex_t code_lock; /* guards setting and clearing of GMEM_PAGE_CODE with map and gen */
    _Atomic uint64_t epoch; /* goes up with every write to decoded code, then CPU_EV_CODE is set */
    unsigned count;
    struct interp_cpu *vcpu[];
};

static inline uint64_t block_key(const void *host, unsigned mode)
{
    return (uint64_t)(uintptr_t)host ^ (uint64_t)(mode + 1) << 60;
}

static inline unsigned block_hash(uint64_t key)
{
    return (unsigned)((key ^ key >> HASH_BITS) & ((1u << HASH_BITS) - 1));
}

/* -- block.c */
/* The block at cpu->rip when the run loop's own look-up fails. Raises fetch faults. */
struct block *block_find_slow(struct interp_cpu *ic);
/* One instruction at cpu->rip, not to be kept. */
struct block *block_single(struct interp_cpu *ic);
void block_reset(struct interp_cpu *ic);
/* The running block's own code was written: leave it after the instruction in flight. */
void block_leave(struct interp_cpu *ic);

/* What the instruction just done has brought about, by a device or in code, comes before the next
 * one: its block is left. Other events wait for the block's end. */
static inline bool block_must_leave(const struct cpu *cpu)
{
    uint32_t ev = atomic_load_explicit(&cpu->events, memory_order_relaxed);
    if (likely(ev == 0)) {
        return false;
    }
    return (ev & CPU_EV_CODE) || ((ev & CPU_EV_NMI) && !cpu->nmi_blocked) ||
           ((ev & (CPU_EV_SMI | CPU_EV_INIT)) && !cpu->in_smm) ||
           ((ev & CPU_EV_INTR) && (cpu->rflags & FLAG_IF));
}
void interp_invalidate(struct engine *en, gpa_t gpa, uint64_t len);

/* The run loop gets control after so many instructions even when nothing waits: an unoptimised
 * build makes real calls of what should be jumps. */
#define CHAIN_INSNS 4096u
/* Where a branch is to be looked up: of no epoch. */
extern const struct block block_nowhere;

/* -- bind.c: choose a handler; a generic one always fits. in is copied to *keep, and *keep
 * advanced, when the handler needs it. */
void bind_op(struct cpu *cpu, struct op *op, const struct insn *in, struct insn **keep,
             enum insn_mode mode);
/* Nothing may follow it in a block: branches, changes of mode or mapping, repeated strings. */
bool insn_ends_block(const struct insn *in);
void bind_block_end(struct op *op, enum insn_mode mode); /* the op after the last instruction */
op_fn *bind_alu(struct op *op, const struct insn *in, enum insn_mode mode);
op_fn *bind_move(struct op *op, const struct insn *in, enum insn_mode mode);
op_fn *bind_shift(struct op *op, const struct insn *in, enum insn_mode mode);
op_fn *bind_flow(struct op *op, const struct insn *in, enum insn_mode mode);
op_fn op_leave;

/* How an op addresses memory. FLAT kinds are for 64-bit mode with 64-bit addresses and no FS or GS:
 * offset is linear, no limits. */
enum ea_kind { EA_BASE, EA_BASE_INDEX, EA_RIP, EA_ANY, EA_KINDS };
/* Fill the address fields. */
enum ea_kind bind_address(struct op *op, const struct insn *in, enum insn_mode mode);
uint8_t bind_reg(const struct opnd *o); /* register number, byte registers as offset */

/* -- slow.c: make state whole, then the access. Handlers reach these through the stubs of stubs.S.
 */
uint64_t op_read_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                      unsigned size);
void op_write_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                   uint64_t v, unsigned size);
void op_push_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                  uint64_t v, unsigned size);
void *op_rmw_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                  unsigned size);
void op_target_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl,
                    uint64_t target);
gva_t op_linear_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, uint64_t off,
                     uint32_t what);
#define LINEAR_WHAT(seg, size, access) ((seg) | (size) << 8 | (uint32_t)(access) << 16)

/* Call a stub: to the compiler an instruction that changes only its result, so that a handler
 * needs no stack frame for a path that it hardly ever takes. The stub saves everything and aligns
 * the stack; the red zone is stepped over here. */
#define OP_STUB(name, result, five, six)                                                           \
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tcall " name "\n\tlea 128(%%rsp), %%rsp"            \
                     : "=a"(result)                                                                \
                     : "D"(cpu), "S"(op), "d"(base), "c"(fl), "r"(five), "r"(six)                  \
                     : "cc", "memory")

/* -- In handlers ------------------------------------------------------------------------------- */
#define OP_ARGS struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl
#define OP_NEXT return op[1].fn(cpu, op + 1, base, fl)
#define OP_INLINE static inline __attribute__((always_inline))

OP_INLINE uint64_t op_offset(const struct cpu *cpu, const struct op *op, uint64_t base,
                             enum ea_kind kind)
{
    switch (kind) {
    case EA_BASE:
        return cpu->gpr[op->areg] + (uint64_t)op->disp;
    case EA_BASE_INDEX:
        return cpu->gpr[op->areg] + (cpu->gpr[op->xreg] << op->scale) + (uint64_t)op->disp;
    case EA_RIP:
        return base + (uint64_t)op->disp; /* op->next is in disp already */
    default: {
        uint64_t a = (uint64_t)op->disp;
        if (op->areg == INSN_REG_RIP) {
            a += base;
        } else if (op->areg != INSN_NO_REG) {
            a += cpu->gpr[op->areg];
        }
        if (op->xreg != INSN_NO_REG) {
            a += cpu->gpr[op->xreg] << op->scale;
        }
        return op->adsize == 8 ? a : op->adsize == 4 ? (uint32_t)a : (uint16_t)a;
    }
    }
}

OP_INLINE uint64_t op_call_read(OP_ARGS, gva_t va, unsigned size)
{
    register gva_t five __asm__("r8") = va;
    register uint64_t six __asm__("r9") = size;
    uint64_t v;
    OP_STUB("interp_stub_read", v, five, six);
    return v;
}

OP_INLINE void op_call_write(OP_ARGS, gva_t va, unsigned size, uint64_t v)
{
    register gva_t five __asm__("r8") = va;
    register uint64_t six __asm__("r9") = v;
    uint64_t ignored;
    switch (size) {
    case 1:
        OP_STUB("interp_stub_write_1", ignored, five, six);
        break;
    case 2:
        OP_STUB("interp_stub_write_2", ignored, five, six);
        break;
    case 4:
        OP_STUB("interp_stub_write_4", ignored, five, six);
        break;
    default:
        OP_STUB("interp_stub_write_8", ignored, five, six);
        break;
    }
}

OP_INLINE void op_call_push(OP_ARGS, gva_t va, unsigned size, uint64_t v)
{
    register gva_t five __asm__("r8") = va;
    register uint64_t six __asm__("r9") = v;
    uint64_t ignored;
    if (size == 4) {
        OP_STUB("interp_stub_push_4", ignored, five, six);
    } else {
        OP_STUB("interp_stub_push_8", ignored, five, six);
    }
}

OP_INLINE void *op_call_rmw(OP_ARGS, gva_t va, unsigned size)
{
    register gva_t five __asm__("r8") = va;
    register uint64_t six __asm__("r9") = size;
    void *p;
    OP_STUB("interp_stub_rmw", p, five, six);
    return p;
}

OP_INLINE void op_call_target(OP_ARGS, uint64_t target)
{
    register uint64_t five __asm__("r8") = target;
    register uint64_t six __asm__("r9") = 0;
    uint64_t ignored;
    OP_STUB("interp_stub_target", ignored, five, six);
}

OP_INLINE gva_t op_seg_linear(OP_ARGS, unsigned seg, uint64_t off, unsigned size,
                              enum mmu_access access)
{
    const struct cpu_seg *s = &cpu->seg[seg];
    if (likely(cpu->mode == INSN_MODE_64)) {
        return seg >= SEG_FS ? s->base + off : off;
    }
    if (likely((s->attr & (SEG_ATTR_NULL | SEG_ATTR_S | 0xe)) == (SEG_ATTR_S | 2) &&
               off + (size - 1) <= s->limit)) {
        return (uint32_t)(s->base + off);
    }
    register uint64_t five __asm__("r8") = off;
    register uint64_t six __asm__("r9") = LINEAR_WHAT(seg, size, access);
    gva_t va;
    OP_STUB("interp_stub_linear", va, five, six);
    return va;
}

OP_INLINE gva_t op_linear(OP_ARGS, enum ea_kind kind, unsigned size, enum mmu_access access)
{
    uint64_t off = op_offset(cpu, op, base, kind);
    return kind == EA_ANY ? op_seg_linear(cpu, op, base, fl, op->seg, off, size, access) : off;
}

OP_INLINE uint64_t op_load_at(OP_ARGS, gva_t va, unsigned size)
{
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_read)) {
        return access_load((const void *)(uintptr_t)(va + e->addend), size);
    }
    return op_call_read(cpu, op, base, fl, va, size);
}

OP_INLINE void op_store_at(OP_ARGS, gva_t va, unsigned size, uint64_t v)
{
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_write)) {
        access_store((void *)(uintptr_t)(va + e->addend), size, v);
        return;
    }
    op_call_write(cpu, op, base, fl, va, size, v);
}

OP_INLINE uint64_t op_load(OP_ARGS, enum ea_kind kind, unsigned size)
{
    return op_load_at(cpu, op, base, fl, op_linear(cpu, op, base, fl, kind, size, MMU_READ), size);
}

OP_INLINE void op_store(OP_ARGS, enum ea_kind kind, unsigned size, uint64_t v)
{
    op_store_at(cpu, op, base, fl, op_linear(cpu, op, base, fl, kind, size, MMU_WRITE), size, v);
}

/* Where to read and write in place; NULL: op_rmw_slow says it is not plain memory, load and store.
 */
OP_INLINE void *op_rmw_at(OP_ARGS, gva_t va, unsigned size)
{
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_write)) {
        return (void *)(uintptr_t)(va + e->addend);
    }
    return op_call_rmw(cpu, op, base, fl, va, size);
}

/* Registers by size; reg from bind_reg. */
OP_INLINE uint64_t op_get(const struct cpu *cpu, unsigned reg, unsigned size)
{
    switch (size) {
    case 1:
        return ((const uint8_t *)cpu->gpr)[reg];
    case 2:
        return (uint16_t)cpu->gpr[reg];
    case 4:
        return (uint32_t)cpu->gpr[reg];
    default:
        return cpu->gpr[reg];
    }
}

OP_INLINE void op_set(struct cpu *cpu, unsigned reg, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        ((uint8_t *)cpu->gpr)[reg] = (uint8_t)v;
        break;
    case 2:
        *(uint16_t *)&cpu->gpr[reg] = (uint16_t)v;
        break;
    case 4:
        cpu->gpr[reg] = (uint32_t)v;
        break;
    default:
        cpu->gpr[reg] = v;
        break;
    }
}

/* -- From block to block ----------------------------------------------------------------------- */
static inline __attribute__((always_inline)) uint32_t block_enter(struct interp_cpu *ic,
                                                                  struct cpu *cpu, struct block *b,
                                                                  uint64_t rip, uint32_t fl)
{
    ic->running = b;
    ic->base = rip;
    return b->op[0].fn(cpu, b->op, rip, fl);
}

/* The block at rip when nothing unusual is about it: mapped, decoded, not written since. */
static inline __attribute__((always_inline)) struct block *block_find(struct interp_cpu *ic,
                                                                      struct cpu *cpu, uint64_t rip,
                                                                      enum insn_mode mode)
{
    gva_t va = mode == INSN_MODE_64 ? rip : (uint32_t)(rip + cpu->seg[SEG_CS].base);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (unlikely((va & ACCESS_PAGE_MASK) != e->tag_exec)) {
        return NULL;
    }
    uint64_t key = block_key((const void *)(uintptr_t)(va + e->addend), mode);
    struct block *b = ic->hash[block_hash(key)];
    if (unlikely(b->key != key || b->epoch != ic->epoch)) {
        return NULL;
    }
    if (mode != INSN_MODE_64 && unlikely(rip + b->bytes - 1 > cpu->seg[SEG_CS].limit)) {
        return NULL;
    }
    return b;
}

/* A near branch went to rip: on with the block there, or back to the run loop. cache: where to
 * remember the block if it is in the page of this one, so that it needs no look-up next time. */
uint32_t chain_64(struct cpu *cpu, uint64_t rip, struct block **cache, uint32_t fl);
uint32_t chain_32(struct cpu *cpu, uint64_t rip, struct block **cache, uint32_t fl);

static inline __attribute__((always_inline)) uint32_t chain_known(struct cpu *cpu, uint64_t rip,
                                                                  struct block *const *cache,
                                                                  uint32_t fl)
{
    struct interp_cpu *ic = cpu->engine;
    struct block *b = *cache;
    if (likely(b->epoch == ic->epoch && cpu->icount < ic->limit &&
               atomic_load_explicit(&cpu->events, memory_order_acquire) == 0)) {
        cpu->icount += b->count;
        return block_enter(ic, cpu, b, rip, fl);
    }
    return chain_64(cpu, rip, (struct block **)(uintptr_t)cache, fl);
}

#endif
