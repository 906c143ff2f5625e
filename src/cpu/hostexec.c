/* SPDX-License-Identifier: Apache-2.0
 *
 * sem_host: binds an instruction to its thunk or C helper, fetches the memory operand, runs it, and
 * commits. Every fault of memory or alignment comes before a change of guest state; only then do
 * numeric exceptions of the host turn into #XM and #MF. Where the vendors differ about what a store
 * that faults has changed already (VCVTPS2PH: MXCSR, MMX: the x87 state), so do guests.
 */
#include "cpu/hostexec_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cpu/access_fast.h"
#include "cpu/fpu.h"

#define FRONT_BITS 12u /* instructions as fetched */
#define FRONT_SIZE (1u << FRONT_BITS)
#define TABLE_BITS 13u /* distinct encodings */
#define TABLE_SIZE (1u << TABLE_BITS)
#define OPS_PER_CHUNK 256u

/* Direct-mapped: the raw bytes of an instruction and its mode, to what it is bound to. */
struct front_entry {
    uint64_t bytes[2];
    const struct hostexec_op *op;
    uint32_t mode;
};

/* An op with the thunk's code as its key (the generator is a function of the encoding). */
struct bound {
    struct hostexec_op op;
    struct bound *next;
    uint64_t hash;
    uint16_t row;
    uint16_t code_len;
};

struct chunk {
    struct chunk *next;
    unsigned used;
    struct bound bound[OPS_PER_CHUNK];
};

struct hostexec {
    struct hostexec_io io;
    struct front_entry front[FRONT_SIZE];
    struct bound *table[TABLE_SIZE];
    struct chunk *chunks;
    struct hostexec_arena arena;
    struct hostexec_op transient;
    bool amd;
};

static struct hostexec *get(struct cpu *cpu)
{
    if (likely(cpu->hostexec != NULL))
        return cpu->hostexec;
    struct hostexec *h = aligned_alloc(64, sizeof *h);
    if (h == NULL)
        abort(); /* as xzalloc, which does not align */
    memset(h, 0, sizeof *h);
    h->amd = cpu_is_amd(cpu);
    h->io.host_mxcsr = MXCSR_DEFAULT;
    memcpy(h->io.fx + FX_MXCSR, &h->io.host_mxcsr, sizeof h->io.host_mxcsr);
    if (hostexec_arena_init(&h->arena) < 0)
        abort(); /* two mappings and a descriptor: no different from memory */
    cpu->hostexec = h;
    return h;
}

void hostexec_fini(struct cpu *cpu)
{
    struct hostexec *h = cpu->hostexec;
    if (h == NULL)
        return;
    while (h->chunks != NULL) {
        struct chunk *next = h->chunks->next;
        free(h->chunks);
        h->chunks = next;
    }
    hostexec_arena_fini(&h->arena);
    free(h);
    cpu->hostexec = NULL;
}

size_t hostexec_arena_used(const struct cpu *cpu)
{
    const struct hostexec *h = cpu->hostexec;
    return h == NULL ? 0 : h->arena.used;
}

/* -- Binding */

static uint64_t hash_bytes(const uint8_t *p, size_t len, uint64_t h)
{
    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * 0x100000001b3ull;
    }
    return h ^ h >> 29;
}

static bool is_sha(unsigned op)
{
    switch (op) {
    case OP_SHA1NEXTE:
    case OP_SHA1MSG1:
    case OP_SHA1MSG2:
    case OP_SHA1RNDS4:
    case OP_SHA256RNDS2:
    case OP_SHA256MSG1:
    case OP_SHA256MSG2:
        return true;
    default:
        return false;
    }
}

static void describe(const struct hostexec *h, struct hostexec_op *op, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    memset(op, 0, sizeof *op);
    op->attr = hostexec_attr(in);
    if (h->amd && is_sha(in->op)) /* measured; APM 4 says otherwise */
        op->attr &= ~(uint32_t)IA_ALIGN;
    op->flags_read = info->flags_read;
    op->flags_written = info->flags_written;
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == OPND_MEM) {
            op->mem_size = in->opnd[i].size;
            op->mem_access = in->opnd[i].access;
        }
    }
    op->masked = op->mem_size != 0 && in->evex_elem != 0 &&
                 (in->evex_aaa != 0 || in->evex_packed);
    assert(op->mem_size <= sizeof(((struct hostexec_io *)0)->mem));
    op->direct = hostexec_special(in);
    if (op->direct == NULL)
        op->direct = hostexec_direct(in);
}

static struct bound *new_bound(struct hostexec *h)
{
    if (h->chunks == NULL || h->chunks->used == OPS_PER_CHUNK) {
        struct chunk *c = xzalloc(sizeof *c);
        c->next = h->chunks;
        h->chunks = c;
    }
    return &h->chunks->bound[h->chunks->used++];
}

/* The op for `in`, from the table or made; NULL when the arena is full. *code is left generated. */
static const struct hostexec_op *find_or_make(struct hostexec *h, const struct insn *in,
                                              unsigned mode, struct hostexec_code *code)
{
    struct hostexec_op op;
    describe(h, &op, in);
    code->len = 0;
    if (op.direct == NULL)
        hostexec_generate(code, in, mode);
    uint64_t hash = hash_bytes(code->bytes, code->len, 0xcbf29ce484222325ull ^ in->row);
    struct bound **head = &h->table[hash >> 7 & (TABLE_SIZE - 1)];
    for (struct bound *b = *head; b != NULL; b = b->next) {
        /* The memory operand's size follows from the row; equal code means equal encoding. */
        if (b->hash == hash && b->row == in->row && b->code_len == code->len &&
            b->op.direct == op.direct && b->op.mem_size == op.mem_size &&
            (code->len == 0 || memcmp((void *)b->op.fn, code->bytes, code->len) == 0))
            return &b->op;
    }
    if (code->len != 0) {
        op.fn = (hostexec_fn *)hostexec_arena_add(&h->arena, code->bytes, code->len);
        op.host_fop = code->fop;
        if (op.fn == NULL)
            return NULL;
    }
    struct bound *b = new_bound(h);
    b->op = op;
    b->hash = hash;
    b->row = in->row;
    b->code_len = (uint16_t)code->len;
    b->next = *head;
    *head = b;
    return &b->op;
}

const struct hostexec_op *hostexec_bind(struct cpu *cpu, const struct insn *in)
{
    struct hostexec_code code;
    return find_or_make(get(cpu), in, cpu->mode, &code);
}

static const struct hostexec_op *look_up(struct cpu *cpu, struct hostexec *h, const struct insn *in)
{
    uint64_t b[2];
    memcpy(b, in->bytes, sizeof b);
    uint64_t mix = (b[0] ^ (b[1] << 7 | b[1] >> 57) ^ cpu->mode) * 0x9e3779b97f4a7c15ull;
    struct front_entry *e = &h->front[mix >> (64 - FRONT_BITS)];
    if (likely(e->bytes[0] == b[0] && e->bytes[1] == b[1] && e->mode == cpu->mode && e->op != NULL))
        return e->op;
    struct hostexec_code code;
    const struct hostexec_op *op = find_or_make(h, in, cpu->mode, &code);
    if (op == NULL) { /* arena full: run from the transient slot, remember nothing */
        describe(h, &h->transient, in);
        h->transient.fn = (hostexec_fn *)hostexec_arena_add_transient(&h->arena, code.bytes,
                                                                      code.len);
        h->transient.host_fop = code.fop;
        return &h->transient;
    }
    *e = (struct front_entry){ .bytes = { b[0], b[1] }, .op = op, .mode = cpu->mode };
    return op;
}

/* -- Execution */

/* 16-byte and longer operands that must be aligned (SDM 1 4.1.1, 14.9): by linear address. */
static void check_alignment(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size)
{
    uint64_t base = seg >= SEG_FS || cpu->mode != INSN_MODE_64 ? cpu->seg[seg].base : 0;
    if ((base + off) & (size - 1))
        cpu_raise_error(cpu, EXC_GP, 0);
}

/* The operand for the thunk to read: guest RAM itself when the TLB knows the page and the address
 * is aligned (so that no thunk can fault on it), else a copy. */
static const void *read_operand(struct cpu *cpu, const struct insn *in, uint64_t off, uint8_t *buf,
                                unsigned size)
{
    unsigned seg = in->mem.seg;
    gva_t va = access_linear(cpu, seg, off, size, MMU_READ);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely((va & ACCESS_PAGE_MASK) == e->tag_read && (va & (size - 1)) == 0 &&
               (size & (size - 1)) == 0))
        return (const void *)(uintptr_t)(va + e->addend);
    if (size == 1 || size == 2 || size == 4 || size == 8) {
        uint64_t v = cpu_read(cpu, seg, off, size);
        memcpy(buf, &v, sizeof v);
    } else if (size == 10) { /* as the host does it: significand first, checked alone */
        uint64_t v = cpu_read(cpu, seg, off, 8);
        uint64_t e = cpu_read(cpu, seg, hostexec_wrap(in, off + 8), 2);
        memcpy(buf, &v, sizeof v);
        memcpy(buf + 8, &e, 2);
    } else {
        cpu_read_bytes(cpu, seg, off, buf, size);
    }
    return buf;
}

static void write_operand(struct cpu *cpu, const struct insn *in, uint64_t off, const uint8_t *buf,
                          unsigned size)
{
    unsigned seg = in->mem.seg;
    if (size == 1 || size == 2 || size == 4 || size == 8) {
        uint64_t v = 0;
        memcpy(&v, buf, size);
        cpu_write(cpu, seg, off, size, v);
    } else if (size == 10) {
        uint64_t v;
        uint16_t e;
        memcpy(&v, buf, sizeof v);
        memcpy(&e, buf + 8, sizeof e);
        cpu_write(cpu, seg, off, 8, v);
        cpu_write(cpu, seg, hostexec_wrap(in, off + 8), 2, e);
    } else {
        for (unsigned at = 0; size == 64 && cpu_is_amd(cpu) && at < size; at += 32)
            cpu_probe_write(cpu, seg, hostexec_wrap(in, off + at), 32); /* done in halves */
        cpu_write_bytes(cpu, seg, off, buf, size);
    }
}

/* AMD checks all of an x87 store before it does any, be the value stored in the end or not. */
static void probe_operand(struct cpu *cpu, const struct insn *in, uint64_t off, unsigned size)
{
    cpu_probe_write(cpu, in->mem.seg, off, size < 8 ? size : 8);
    if (size == 10)
        cpu_probe_write(cpu, in->mem.seg, hostexec_wrap(in, off + 8), 2);
}

static void take_flags(struct cpu *cpu, const struct hostexec_op *op, const struct hostexec_io *io)
{
    if (op->flags_written)
        cpu->rflags = (cpu->rflags & ~FLAGS_ARITH) | (io->flags & FLAGS_ARITH);
}

/* #XM, or #UD while the OS has not said that it handles #XM (SDM 3 2.5, OSXMMEXCPT). */
static _Noreturn void raise_simd(struct cpu *cpu)
{
    cpu_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

/* The same with an opmask: in plain memory the host's instruction does what the guest's would; else
 * it works on a copy of the elements that are accessed. */
static void run_masked(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                       struct hostexec_io *io)
{
    uint64_t off = cpu_effective_address(cpu, in);
    bool write = op->mem_access & OPND_W;
    /* Without any element AMD does not look at the alignment; Intel's manual knows no exception. */
    if ((op->attr & IA_ALIGN) &&
        (!cpu_is_amd(cpu) || hostexec_any_element(cpu, in, op->mem_size)))
        check_alignment(cpu, in->mem.seg, off, op->mem_size);
    const void *mem = hostexec_plain(cpu, in, off, op->mem_size, write ? MMU_WRITE : MMU_READ);
    bool copy = mem == NULL;
    if (copy) {
        mem = io->mem;
        if (!write)
            hostexec_read_elements(cpu, in, off, io->mem, op->mem_size);
        else if ((op->attr & IA_FP_EXC) && cpu_is_amd(cpu))
            hostexec_probe_elements(cpu, in, off, op->mem_size);
    }
    if (unlikely(op->fn(cpu, mem, 0, 0, io)))
        raise_simd(cpu);
    if (copy && write)
        hostexec_write_elements(cpu, in, off, io->mem, op->mem_size);
    take_flags(cpu, op, io);
}

static void run_simd(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                     struct hostexec_io *io)
{
    if (op->masked) {
        run_masked(cpu, in, op, io);
        return;
    }
    if (op->mem_size == 0) {
        if (unlikely(op->fn(cpu, io->mem, 0, 0, io)))
            raise_simd(cpu);
        take_flags(cpu, op, io);
        return;
    }
    uint64_t off = cpu_effective_address(cpu, in);
    unsigned seg = in->mem.seg;
    if (op->attr & IA_ALIGN)
        check_alignment(cpu, seg, off, op->mem_size);
    const void *mem = io->mem;
    if (op->mem_access & OPND_R)
        mem = read_operand(cpu, in, off, io->mem, op->mem_size);
    else if ((op->attr & IA_FP_EXC) && cpu_is_amd(cpu))
        cpu_probe_write(cpu, seg, off, op->mem_size);
    if (unlikely(op->fn(cpu, mem, 0, 0, io)))
        raise_simd(cpu);
    if (op->mem_access & OPND_W)
        write_operand(cpu, in, off, io->mem, op->mem_size);
    take_flags(cpu, op, io);
}

static uint64_t io_get64(const struct hostexec_io *io, unsigned off)
{
    uint64_t v;
    memcpy(&v, io->fx + off, sizeof v);
    return v;
}
static uint16_t io_get16(const struct hostexec_io *io, unsigned off)
{
    uint16_t v;
    memcpy(&v, io->fx + off, sizeof v);
    return v;
}

/* The image for the host: the guest's, with last-instruction fields that the instruction, if it
 * records itself there at all, is sure to change. */
static void load_image(const struct cpu *cpu, const struct hostexec_op *op, struct hostexec_io *io)
{
    uint64_t zero = 0;
    uint16_t fop = op->host_fop ^ 1;
    memcpy(io->fx, cpu->fpu.fx, FX_MXCSR);
    memcpy(io->fx + FX_ST, cpu->fpu.fx + FX_ST, 128);
    memcpy(io->fx + FX_FOP, &fop, sizeof fop);
    memcpy(io->fx + FX_FIP, &zero, sizeof zero);
    memcpy(io->fx + FX_FDP, &zero, sizeof zero);
}

/* FOP, FIP and FDP by rule, where the host does not show its own: MMX and control instructions
 * leave them. */
static void record_pointers(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                            uint64_t data)
{
    if ((op->attr & (IA_MMX | IA_X87_NOWAIT)) || in->op == OP_FLDCW)
        return;
    fx_put16(cpu, FX_FOP, (uint16_t)((in->opcode & 7) << 8 | in->modrm));
    fx_put64(cpu, FX_FIP, cpu->mode == INSN_MODE_64 ? cpu->insn_ip : (uint32_t)cpu->insn_ip);
    if (op->mem_size != 0)
        fx_put64(cpu, FX_FDP, data);
}

/* What of FOP, FIP, FDP the host's instruction has set becomes the guest's own values; which of
 * them a processor updates when is its own affair (SDM 1 8.1.8, 8.1.9: FOP compatibility,
 * FDP_EXCPTN_ONLY). FCS and FDS are 0 (ZERO_FCS_FDS). */
static void store_image(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                        const struct hostexec_io *io, uint64_t data)
{
    uint64_t mask = cpu->mode == INSN_MODE_64 ? ~0ull : 0xffffffffull;
    memcpy(cpu->fpu.fx, io->fx, FX_FOP);
    memcpy(cpu->fpu.fx + FX_ST, io->fx + FX_ST, 128);
    if (fpu_host_pointers().only_pending && !fpu_summary(cpu)) {
        record_pointers(cpu, in, op, data & mask);
        return;
    }
    if ((io_get16(io, FX_FOP) & 0x7ff) == op->host_fop)
        fx_put16(cpu, FX_FOP, (uint16_t)((in->opcode & 7) << 8 | in->modrm));
    if (io_get64(io, FX_FIP) != 0)
        fx_put64(cpu, FX_FIP, cpu->insn_ip & mask);
    if (io_get64(io, FX_FDP) != 0)
        fx_put64(cpu, FX_FDP, data & mask);
}

/* With an unmasked exception other than inexact an x87 store leaves memory alone (SDM 1 8.7). */
static bool store_suppressed(const struct hostexec_io *io)
{
    return (io_get16(io, FX_FSW) & ~io_get16(io, FX_FCW) & 0x1f) != 0;
}

static void run_x87(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                    struct hostexec_io *io)
{
    uint64_t off = 0;
    unsigned seg = in->mem.seg;
    const void *mem = io->mem;
    if (op->mem_size != 0) {
        off = cpu_effective_address(cpu, in);
        if (op->attr & IA_ALIGN)
            check_alignment(cpu, seg, off, op->mem_size);
        if (op->mem_access & OPND_R)
            mem = read_operand(cpu, in, off, io->mem, op->mem_size);
    }
    load_image(cpu, op, io);
    if (op->flags_read)
        io->flags = (cpu->rflags & FLAGS_ARITH) | FLAG_FIXED;
    int vector = op->fn(cpu, mem, 0, 0, io);
    if (unlikely(vector == EXC_MF))
        cpu_raise(cpu, EXC_MF);
    if (op->attr & IA_MMX) { /* with Intel this state is entered even if a fault follows */
        if (unlikely(vector != 0)) {
            fpu_enter_mmx(cpu);
            raise_simd(cpu);
        }
        if (op->mem_access & OPND_W) {
            if (!cpu_is_amd(cpu))
                fpu_set_top(cpu, 0);
            write_operand(cpu, in, off, io->mem, op->mem_size);
        }
        store_image(cpu, in, op, io, off);
        return;
    }
    if ((op->mem_access & OPND_W) && cpu_is_amd(cpu))
        probe_operand(cpu, in, off, op->mem_size);
    if ((op->mem_access & OPND_W) && ((op->attr & IA_X87_NOWAIT) || !store_suppressed(io)))
        write_operand(cpu, in, off, io->mem, op->mem_size);
    store_image(cpu, in, op, io, off);
    take_flags(cpu, op, io);
}

static void run(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op,
                struct hostexec *h)
{
    if (op->direct != NULL) {
        op->direct(cpu, in);
        return;
    }
    if (unlikely(!fpu_check(cpu, op->attr)))
        return;
    if (op->attr & (IA_X87 | IA_MMX))
        run_x87(cpu, in, op, &h->io);
    else
        run_simd(cpu, in, op, &h->io);
}

void hostexec_run(struct cpu *cpu, const struct insn *in, const struct hostexec_op *op)
{
    run(cpu, in, op, get(cpu));
}

void sem_host(struct cpu *cpu, const struct insn *in)
{
    struct hostexec *h = get(cpu);
    run(cpu, in, look_up(cpu, h, in), h);
}
