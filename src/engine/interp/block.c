/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding code into blocks, and forgetting it when it is written.
 *
 * A page that holds decoded code has GMEM_PAGE_CODE set, so that stores take the slow path and come
 * to interp_invalidate, which raises the page's generation; a block with another generation is
 * dead.
 *
 * Another vCPU may still have the page writable in its TLB when the flag goes up. It is asked to
 * flush (CPU_EV_TLB) but not waited for: until every running vCPU has done so, new blocks are
 * UNSURE and compared with memory whenever they are entered. So are blocks of one instruction that
 * crosses into another page, whose mapping may change; they are compared by address and generation.
 */
#include <string.h>

#include "cpu/except.h"
#include "cpu/exclusive.h"
#include "cpu/stop.h"
#include "engine/interp/interp.h"

#define PAGE_LEFT(p) (GMEM_PAGE_SIZE - (unsigned)((uintptr_t)(p) % GMEM_PAGE_SIZE))

static enum insn_mode mode_of(const struct cpu *cpu) { return (enum insn_mode)cpu->mode; }

static gva_t next_page(const struct cpu *cpu, gva_t va)
{
    gva_t next = align_down(va, GMEM_PAGE_SIZE) + GMEM_PAGE_SIZE;
    return cpu->mode == INSN_MODE_64 ? next : (uint32_t)next;
}

static uint64_t page_number(const struct interp *en, const uint8_t *host)
{
    return (uint64_t)(host - gmem_ram_host(en->mem)) >> GMEM_PAGE_BITS;
}

static struct page_code *code_of(const struct interp *en, const uint8_t *host)
{
    return &en->code[page_number(en, host)];
}

static struct block_more *more_of(const struct block *b)
{
    return (struct block_more *)(uintptr_t)(b->op + b->count + 1);
}

/* Bits of page_code.map for [off, off+len) of a page. */
static uint64_t granules(unsigned off, unsigned len)
{
    unsigned first = off / 64;
    unsigned last = (off + len - 1) / 64;
    return MASK64(last - first + 1) << first;
}

/* -- Marking and forgetting -------------------------------------------------------------------- */
/* Has every vCPU that may run dropped the writable mappings it had when we last asked? */
static bool all_flushed(const struct interp_cpu *ic)
{
    const struct interp *en = ic->engine;
    for (unsigned i = 0; i < en->count; i++) {
        struct cpu *other = en->vcpu[i]->cpu;
        if (other != ic->cpu &&
            (atomic_load_explicit(&other->events, memory_order_seq_cst) & CPU_EV_TLB) &&
            cpu_exclusive_running(other)) {
            return false;
        }
    }
    return true;
}

/* [host, host+len) is going to be cached as decoded; returns its page's generation. */
static uint32_t mark_code(struct interp_cpu *ic, const uint8_t *host, gpa_t gpa, unsigned len)
{
    struct interp *en = ic->engine;
    struct page_code *pc = code_of(en, host);
    _Atomic uint8_t *flags = &gmem_page_flags(en->mem)[page_number(en, host)];
    pthread_mutex_lock(&en->code_lock);
    atomic_fetch_or(&pc->map, granules((unsigned)((uintptr_t)host % GMEM_PAGE_SIZE), len));
    if (!(atomic_fetch_or(flags, GMEM_PAGE_CODE) & GMEM_PAGE_CODE)) {
        tlb_protect_code(ic->cpu, gpa);
        for (unsigned i = 0; i < en->count; i++) {
            if (en->vcpu[i] != ic) { /* no need to wake it: it looks before it runs */
                atomic_fetch_or(&en->vcpu[i]->cpu->events, CPU_EV_TLB);
            }
        }
    }
    uint32_t gen = atomic_load(&pc->gen);
    pthread_mutex_unlock(&en->code_lock);
    return gen;
}

static void invalidate_page(struct interp *en, uint64_t page, unsigned off, unsigned len)
{
    struct page_code *pc = &en->code[page];
    uint64_t hit = granules(off, len);
    if (!(atomic_load(&pc->map) & hit)) {
        return; /* data beside code */
    }
    pthread_mutex_lock(&en->code_lock);
    if (atomic_load(&pc->map) & hit) {
        atomic_store(&pc->gen, (atomic_load(&pc->gen) + 1) & ~BLOCK_UNSURE);
        atomic_store(&pc->map, 0);
        atomic_fetch_and(&gmem_page_flags(en->mem)[page], (uint8_t)~GMEM_PAGE_CODE);
        atomic_fetch_add(&en->epoch, 1);
        for (unsigned i = 0; i < en->count; i++) {
            atomic_fetch_or(&en->vcpu[i]->cpu->events, CPU_EV_CODE);
        }
    }
    pthread_mutex_unlock(&en->code_lock);
}

void interp_invalidate(struct engine *engine, gpa_t gpa, uint64_t len)
{
    struct interp *en = (struct interp *)engine;
    while (len != 0) {
        unsigned off = (unsigned)(gpa % GMEM_PAGE_SIZE);
        uint64_t part = len < GMEM_PAGE_SIZE - off ? len : GMEM_PAGE_SIZE - off;
        struct gmem_range r;
        if (gmem_find(en->mem, gpa, &r)) {
            invalidate_page(en, r.ram_page + ((gpa - r.gpa) >> GMEM_PAGE_BITS), off,
                            (unsigned)part);
        }
        gpa += part;
        len -= part;
    }
}

void block_leave(struct interp_cpu *ic)
{
    struct block *b = ic->running;
    if (b == NULL) {
        return;
    }
    for (unsigned i = 0; i <= b->count; i++) {
        b->op[i].fn = op_leave;
    }
    b->key = 0; /* never found again */
    b->epoch = 0;
}

/* -- Building ---------------------------------------------------------------------------------- */
void block_reset(struct interp_cpu *ic)
{
    for (unsigned i = 0; i < 1u << HASH_BITS; i++) {
        ic->hash[i] = &ic->none;
    }
    ic->used = 0;
    ic->resets++;
}

#define BLOCK_SPACE                                                                                \
    (sizeof(struct block) + (BLOCK_OPS + 1) * sizeof(struct op) + sizeof(struct block_more) +      \
     BLOCK_OPS * sizeof(struct insn) + BLOCK_BYTES + 64)

static struct block *block_room(struct interp_cpu *ic)
{
    if (ic->used + BLOCK_SPACE > ARENA_BYTES) {
        block_reset(ic);
    }
    return (struct block *)(ic->arena + ic->used);
}

/* Ops of the count instructions in insns, and behind them what they keep. Returns the end. */
static uint8_t *bind_all(struct interp_cpu *ic, struct block *b, const struct insn *insns,
                         unsigned count)
{
    enum insn_mode mode = mode_of(ic->cpu);
    b->count = (uint16_t)count;
    struct insn *keep = (struct insn *)(more_of(b) + 1);
    unsigned pos = 0;
    for (unsigned i = 0; i < count; i++) {
        struct op *op = &b->op[i];
        memset(op, 0, sizeof *op);
        op->ip = (uint16_t)pos;
        pos += insns[i].len;
        op->next = (uint16_t)pos;
        bind_op(ic->cpu, op, &insns[i], &keep, mode);
    }
    struct op *end = &b->op[count];
    memset(end, 0, sizeof *end);
    end->ip = end->next = (uint16_t)pos;
    bind_block_end(end, mode);
    b->bytes = (uint16_t)pos;
    memset(more_of(b), 0, sizeof(struct block_more));
    ic->decoded += count;
    return (uint8_t *)keep;
}

/* Decode up to a branch, the end of the bytes or something odd. */
static unsigned decode_run(const struct interp_cpu *ic, const uint8_t *code, unsigned len,
                           struct insn insns[BLOCK_OPS], unsigned *bytes)
{
    const struct cpu *cpu = ic->cpu;
    unsigned count = 0;
    unsigned pos = 0;
    while (count < ic->engine->block_ops && pos < len) {
        struct insn *in = &insns[count];
        if (insn_decode(in, code + pos, len - pos, mode_of(cpu), &cpu->features) != INSN_OK) {
            break;
        }
        pos += in->len;
        count++;
        if (insn_ends_block(in)) {
            break;
        }
    }
    *bytes = pos;
    return count;
}

static struct block *publish(struct interp_cpu *ic, struct block *b, uint64_t key, uint8_t *end)
{
    b->key = key;
    ic->used = align_up((uint64_t)(end - ic->arena), 64);
    ic->hash[block_hash(key)] = b;
    ic->blocks++;
    return b;
}

static struct block *build(struct interp_cpu *ic, const uint8_t *host, gpa_t gpa)
{
    uint8_t code[BLOCK_BYTES];
    struct insn insns[BLOCK_OPS];
    unsigned bytes;
    unsigned len = PAGE_LEFT(host) < BLOCK_BYTES ? PAGE_LEFT(host) : BLOCK_BYTES;
    memcpy(code, host, len); /* other vCPUs may write it meanwhile: decode one version of it */
    unsigned count = decode_run(ic, code, len, insns, &bytes);
    if (count == 0) {
        return NULL;
    }
    uint32_t gen = mark_code(ic, host, gpa, bytes);
    if (memcmp(code, host, bytes) != 0) {
        return NULL;
    }
    struct block *b = block_room(ic);
    uint8_t *end = bind_all(ic, b, insns, count);
    b->gen_now = &code_of(ic->engine, host)->gen;
    b->gen = gen;
    b->epoch = ic->epoch;
    if (!all_flushed(ic)) {
        b->gen |= BLOCK_UNSURE;
        b->epoch = 0;
        struct block_more *more = more_of(b);
        memcpy(end, code, bytes);
        more->host = host;
        more->code = end;
        end += bytes;
    }
    return publish(ic, b, block_key(host, ic->cpu->mode), end);
}

/* The instruction at host goes on in the next page. */
static struct block *build_crossing(struct interp_cpu *ic, gva_t va, const uint8_t *host, gpa_t gpa)
{
    struct cpu *cpu = ic->cpu;
    uint8_t code[INSN_MAX_LEN];
    struct insn in;
    gpa_t gpa2;
    unsigned first = PAGE_LEFT(host);
    unsigned len = cpu_fetch(cpu, va, code, INSN_MAX_LEN);
    if (len <= first || insn_decode(&in, code, len, mode_of(cpu), &cpu->features) != INSN_OK ||
        in.len <= first) {
        return NULL;
    }
    const uint8_t *host2 = cpu_fetch_page(cpu, next_page(cpu, va), &gpa2);
    if (host2 == NULL) {
        return NULL;
    }
    uint32_t gen = mark_code(ic, host, gpa, first);
    uint32_t gen2 = mark_code(ic, host2, gpa2, in.len - first);
    if (!all_flushed(ic) || memcmp(code, host, first) != 0 ||
        memcmp(code + first, host2, in.len - first) != 0) {
        return NULL;
    }
    struct block *b = block_room(ic);
    uint8_t *end = bind_all(ic, b, &in, 1);
    b->gen_now = &code_of(ic->engine, host)->gen;
    b->gen = gen | BLOCK_UNSURE;
    b->epoch = 0;
    struct block_more *more = more_of(b);
    more->host2 = host2;
    more->gen2_now = &code_of(ic->engine, host2)->gen;
    more->gen2 = gen2;
    return publish(ic, b, block_key(host, cpu->mode), end);
}

/* -- Looking closer ---------------------------------------------------------------------------- */
static bool still_good(struct interp_cpu *ic, struct block *b, gva_t va)
{
    uint32_t now = atomic_load(b->gen_now);
    if (b->gen == now) {
        b->epoch = ic->epoch;
        return true;
    }
    if (b->gen != (now | BLOCK_UNSURE)) {
        return false;
    }
    struct block_more *more = more_of(b);
    if (more->host2 != NULL) {
        gpa_t gpa2;
        return cpu_fetch_page(ic->cpu, next_page(ic->cpu, va), &gpa2) == more->host2 &&
               atomic_load(more->gen2_now) == more->gen2;
    }
    bool sure = all_flushed(ic);
    if (memcmp(more->host, more->code, b->bytes) != 0) {
        return false;
    }
    if (sure) {
        b->gen = now;
        b->epoch = ic->epoch;
    }
    return true;
}

static bool in_limit(const struct cpu *cpu, unsigned bytes)
{
    return cpu->mode == INSN_MODE_64 || cpu->rip + bytes - 1 <= cpu->seg[SEG_CS].limit;
}

/* Linear address of cpu->rip; what is wrong with it is the fetch's fault. */
static gva_t linear_rip(struct cpu *cpu)
{
    cpu->insn_ip = cpu->rip;
    if (cpu->mode == INSN_MODE_64) {
        if (!mmu_canonical(cpu, cpu->rip)) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
        return cpu->rip;
    }
    if (cpu->rip > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    return (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

struct block *block_find_slow(struct interp_cpu *ic)
{
    struct cpu *cpu = ic->cpu;
    gva_t va = linear_rip(cpu);
    gpa_t gpa;
    const uint8_t *host = cpu_fetch_page(cpu, va, &gpa);
    if (host == NULL ||
        (cpu->stops != NULL &&
         cpu_break_in(cpu->stops, align_down(va, GMEM_PAGE_SIZE), GMEM_PAGE_SIZE))) {
        return block_single(ic);
    }
    uint64_t key = block_key(host, cpu->mode);
    struct block *b = ic->hash[block_hash(key)];
    if (b->key != key || !still_good(ic, b, va)) {
        b = build(ic, host, gpa);
        if (b == NULL) {
            b = build_crossing(ic, va, host, gpa);
        }
    }
    return b != NULL && in_limit(cpu, b->bytes) ? b : block_single(ic);
}

/* -- One instruction, not kept: odd places, single step, undefined and faulting encodings ------ */
static enum insn_status fetch_decode(struct cpu *cpu, gva_t va, struct insn *in, unsigned want)
{
    uint8_t code[INSN_MAX_LEN];
    unsigned len = cpu_fetch(cpu, va, code, want);
    return insn_decode(in, code, len, mode_of(cpu), &cpu->features);
}

/* The instruction is cut off after `want` bytes: by the segment's end, or by a page not there,
 * which faults. Returns when the page is there after all. */
static void raise_cut_off(struct cpu *cpu, gva_t va, unsigned want)
{
    uint8_t byte;
    gva_t next = next_page(cpu, va);
    if (want < INSN_MAX_LEN || !mmu_canonical(cpu, next)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    (void)cpu_fetch(cpu, next, &byte, 1);
}

struct block *block_single(struct interp_cpu *ic)
{
    struct cpu *cpu = ic->cpu;
    gva_t va = linear_rip(cpu);
    unsigned want = INSN_MAX_LEN;
    if (cpu->mode != INSN_MODE_64 && cpu->seg[SEG_CS].limit - cpu->rip < want - 1) {
        want = (unsigned)(cpu->seg[SEG_CS].limit - cpu->rip) + 1;
    }
    /* First only what is in the page: what lies beyond may be a device. */
    struct insn in;
    unsigned first = PAGE_LEFT(va) < want ? PAGE_LEFT(va) : want;
    enum insn_status status = fetch_decode(cpu, va, &in, first);
    if (status == INSN_NEED_MORE && first < want) {
        status = fetch_decode(cpu, va, &in, want);
    }
    switch (status) {
    case INSN_OK:
        break;
    case INSN_UD:
        cpu_raise(cpu, EXC_UD);
    case INSN_NEED_MORE:
        raise_cut_off(cpu, va, want);
        return block_single(ic);
    default:
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    (void)bind_all(ic, ic->single, &in, 1);
    ic->single->key = 0;
    return ic->single;
}
