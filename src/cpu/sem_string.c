/* SPDX-License-Identifier: Apache-2.0
 *
 * MOVS STOS LODS CMPS SCAS with their REP prefixes (SDM 2, REP). INS and OUTS are with the ports.
 *
 * A repeated instruction works element by element, registers advanced after each, so that a fault
 * finds them as the manual wants. Forward MOVS and STOS do a whole run at once where both sides
 * are plain pages. After a chunk of work, and after every element once something waits, control
 * goes back to the engine with rip on the instruction itself. */
#include <string.h>

#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

#define CHUNK_ELEMENTS 16384u

struct string_op {
    unsigned size; /* of an element */
    unsigned adsize;
    int64_t step; /* +size or -size by DF */
    bool repeated;
};

/* With a 32-bit address size in 64-bit mode these registers lose their upper halves at once, be the
 * count 0 or the first element one that faults: so do Intel's processors. */
static void truncate_registers(struct cpu *cpu, const struct insn *in)
{
    cpu->gpr[R_CX] = (uint32_t)cpu->gpr[R_CX];
    if (in->op == OP_MOVS) {
        cpu->gpr[R_SI] = (uint32_t)cpu->gpr[R_SI];
    }
    if (in->op == OP_MOVS || in->op == OP_STOS) {
        cpu->gpr[R_DI] = (uint32_t)cpu->gpr[R_DI];
    }
}

static struct string_op string_op(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    bool repeated = in->flags & (INSN_REP | INSN_REPNE);
    if (unlikely(repeated && in->adsize == 4 && cpu->mode == INSN_MODE_64) && !cpu_is_amd(cpu)) {
        truncate_registers(cpu, in);
    }
    return (struct string_op){
        .size = size,
        .adsize = in->adsize,
        .step = cpu->rflags & FLAG_DF ? -(int64_t)size : (int64_t)size,
        .repeated = repeated,
    };
}

static uint64_t index_of(const struct cpu *cpu, unsigned reg, const struct string_op *s)
{
    return mask_size(cpu->gpr[reg], s->adsize);
}

static void advance(struct cpu *cpu, unsigned reg, const struct string_op *s, uint64_t elements)
{
    gpr_write(cpu, reg, s->adsize, cpu->gpr[reg] + (uint64_t)s->step * elements);
}

static void count_down(struct cpu *cpu, const struct string_op *s, uint64_t elements)
{
    if (s->repeated) {
        gpr_write(cpu, R_CX, s->adsize, cpu->gpr[R_CX] - elements);
    }
}

/* Elements left to do, at most a chunk; an unrepeated instruction has one. */
static uint64_t elements_now(const struct cpu *cpu, const struct string_op *s)
{
    if (!s->repeated) {
        return 1;
    }
    uint64_t n = index_of(cpu, R_CX, s);
    if (atomic_load_explicit(&cpu->events, memory_order_relaxed) & CPU_EV_TRAP) {
        return n < 1 ? n : 1; /* each iteration is an instruction (except.h) */
    }
    return n < CHUNK_ELEMENTS ? n : CHUNK_ELEMENTS;
}

/* The chunk is done: carry on later if the count is not 0. */
static void finish(struct cpu *cpu, const struct string_op *s)
{
    if (s->repeated && index_of(cpu, R_CX, s) != 0) {
        cpu->rip = cpu->insn_ip;
        cpu->rflags |= FLAG_RF; /* between iterations, as interrupt handlers see (SDM 3 17.3.1.1) */
    } else {
        cpu->rflags &= ~FLAG_RF;
    }
}

/* How many elements from seg:off on, going up, lie in one plain page within limit and address
 * size, for reading or writing without further checks; *host is where. 0: go by the element. */
static uint64_t run_length(struct cpu *cpu, const struct string_op *s, unsigned seg, uint64_t off,
                           enum mmu_access access, uint8_t **host)
{
    const struct cpu_seg *sr = &cpu->seg[seg];
    uint64_t room = GMEM_PAGE_SIZE;
    gva_t va = off;
    if (cpu->mode == INSN_MODE_64) {
        va += seg >= SEG_FS ? sr->base : 0;
    } else {
        if ((sr->attr & (SEG_ATTR_NULL | SEG_ATTR_S | 0xe)) != (SEG_ATTR_S | 2) ||
            off > sr->limit) {
            return 0;
        }
        room = sr->limit - off + 1ull;
        va = (uint32_t)(sr->base + off);
    }
    uint64_t wrap = MASK64(s->adsize * 8) - off; /* 64-bit: never in reach of one page */
    uint64_t page_left = GMEM_PAGE_SIZE - va % GMEM_PAGE_SIZE;
    room = room < page_left ? room : page_left;
    room = wrap < room ? wrap : room;
    const struct tlb_entry *e = access_entry(cpu, va);
    gva_t page = va & ACCESS_PAGE_MASK;
    /* Source and destination may share an entry: fill here, or each element would do it twice. */
    if (page != (access == MMU_READ ? e->tag_read : e->tag_write) &&
        (!tlb_fill_quiet(cpu, va, access) ||
         page != (access == MMU_READ ? e->tag_read : e->tag_write))) {
        return 0;
    }
    *host = (uint8_t *)(uintptr_t)(va + e->addend);
    return room / s->size;
}

static uint64_t min3(uint64_t a, uint64_t b, uint64_t c)
{
    a = a < b ? a : b;
    return a < c ? a : c;
}

/* Element by element upwards, as the instruction is defined, when the destination starts inside the
 * source; copies of any other overlap are the same as memmove. */
static void copy_up(uint8_t *to, const uint8_t *from, uint64_t n, unsigned size)
{
    if (to > from && to < from + n * size) {
        for (uint64_t i = 0; i < n; i++) {
            access_store(to + i * size, size, access_load(from + i * size, size));
        }
    } else {
        memmove(to, from, n * size);
    }
}

void sem_movs(struct cpu *cpu, const struct insn *in)
{
    struct string_op s = string_op(cpu, in);
    uint64_t left = elements_now(cpu, &s);
    while (left != 0) {
        uint64_t si = index_of(cpu, R_SI, &s);
        uint64_t di = index_of(cpu, R_DI, &s);
        uint64_t n = 1;
        uint8_t *from, *to;
        if (s.repeated && s.step > 0 &&
            (n = min3(left, run_length(cpu, &s, in->mem.seg, si, MMU_READ, &from),
                      run_length(cpu, &s, SEG_ES, di, MMU_WRITE, &to))) > 1) {
            copy_up(to, from, n, s.size);
        } else {
            n = 1;
            cpu_write(cpu, SEG_ES, di, s.size, cpu_read(cpu, in->mem.seg, si, s.size));
        }
        advance(cpu, R_SI, &s, n);
        advance(cpu, R_DI, &s, n);
        count_down(cpu, &s, n);
        left -= n;
        if (access_must_poll(cpu)) {
            break;
        }
    }
    finish(cpu, &s);
}

static void fill_up(uint8_t *to, uint64_t v, uint64_t n, unsigned size)
{
    if (size == 1 || v == 0) {
        memset(to, (int)(v & 0xff), n * size);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        access_store(to + i * size, size, v);
    }
}

void sem_stos(struct cpu *cpu, const struct insn *in)
{
    struct string_op s = string_op(cpu, in);
    uint64_t v = gpr_read(cpu, R_AX, s.size);
    uint64_t left = elements_now(cpu, &s);
    while (left != 0) {
        uint64_t di = index_of(cpu, R_DI, &s);
        uint64_t n = 1;
        uint8_t *to;
        if (s.repeated && s.step > 0 &&
            (n = min3(left, left, run_length(cpu, &s, SEG_ES, di, MMU_WRITE, &to))) > 1) {
            fill_up(to, v, n, s.size);
        } else {
            n = 1;
            cpu_write(cpu, SEG_ES, di, s.size, v);
        }
        advance(cpu, R_DI, &s, n);
        count_down(cpu, &s, n);
        left -= n;
        if (access_must_poll(cpu)) {
            break;
        }
    }
    finish(cpu, &s);
}

void sem_lods(struct cpu *cpu, const struct insn *in)
{
    struct string_op s = string_op(cpu, in);
    for (uint64_t left = elements_now(cpu, &s); left != 0; left--) {
        uint64_t v = cpu_read(cpu, in->mem.seg, index_of(cpu, R_SI, &s), s.size);
        gpr_write(cpu, R_AX, s.size, v);
        advance(cpu, R_SI, &s, 1);
        count_down(cpu, &s, 1);
        if (access_must_poll(cpu)) {
            break;
        }
    }
    finish(cpu, &s);
}

/* -- Comparisons: a fault in the middle leaves the flags of before the instruction (SDM 2, REP), or
 * with AMD those of the last comparison */
enum compare_next { COMPARE_MORE, COMPARE_DONE };

static enum compare_next compare_next(const struct insn *in, uint64_t fl)
{
    bool equal = fl & ALU_ZF;
    if (in->flags & INSN_REPNE) {
        return equal ? COMPARE_DONE : COMPARE_MORE;
    }
    return equal ? COMPARE_MORE : COMPARE_DONE;
}

void sem_cmps(struct cpu *cpu, const struct insn *in)
{
    struct string_op s = string_op(cpu, in);
    uint32_t fl = alu_pack(cpu->rflags);
    bool si_first = cpu_is_amd(cpu) && s.size == 1 && (in->flags & INSN_REP);
    for (uint64_t left = elements_now(cpu, &s); left != 0; left--) {
        /* rDI first, but for AMD's REPE CMPSB: which of two faults is raised shows it. */
        uint64_t a = 0;
        if (si_first) {
            a = cpu_read(cpu, in->mem.seg, index_of(cpu, R_SI, &s), s.size);
        }
        uint64_t b = cpu_read(cpu, SEG_ES, index_of(cpu, R_DI, &s), s.size);
        if (!si_first) {
            a = cpu_read(cpu, in->mem.seg, index_of(cpu, R_SI, &s), s.size);
        }
        ALU_BY_SIZE(s.size, alu_cmp, a, b, &fl);
        advance(cpu, R_SI, &s, 1);
        advance(cpu, R_DI, &s, 1);
        count_down(cpu, &s, 1);
        if (cpu_is_amd(cpu)) {
            cpu->rflags = alu_merge(cpu->rflags, fl);
        }
        if (compare_next(in, fl) == COMPARE_DONE) {
            cpu->rflags = alu_merge(cpu->rflags, fl) & ~FLAG_RF;
            return;
        }
        if (access_must_poll(cpu)) {
            break;
        }
    }
    cpu->rflags = alu_merge(cpu->rflags, fl);
    finish(cpu, &s);
}

void sem_scas(struct cpu *cpu, const struct insn *in)
{
    struct string_op s = string_op(cpu, in);
    uint32_t fl = alu_pack(cpu->rflags);
    uint64_t a = gpr_read(cpu, R_AX, s.size);
    for (uint64_t left = elements_now(cpu, &s); left != 0; left--) {
        uint64_t b = cpu_read(cpu, SEG_ES, index_of(cpu, R_DI, &s), s.size);
        ALU_BY_SIZE(s.size, alu_cmp, a, b, &fl);
        advance(cpu, R_DI, &s, 1);
        count_down(cpu, &s, 1);
        if (cpu_is_amd(cpu)) {
            cpu->rflags = alu_merge(cpu->rflags, fl);
        }
        if (compare_next(in, fl) == COMPARE_DONE) {
            cpu->rflags = alu_merge(cpu->rflags, fl) & ~FLAG_RF;
            return;
        }
        if (access_must_poll(cpu)) {
            break;
        }
    }
    cpu->rflags = alu_merge(cpu->rflags, fl);
    finish(cpu, &s);
}
