/* SPDX-License-Identifier: Apache-2.0
 *
 * The bt engine: run loop, block lookup, the five verbs.
 */
#include <errno.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/exclusive.h"
#include "cpu/mmu.h"
#include "cpu/step.h"
#include "cpu/stop.h"
#include "engine/bt/bt.h"

/* -- Finding and making blocks ----------------------------------------------------------------- */

/* No vCPU's TLB may let stores into this page pass unseen from now on. */
static _Atomic uint8_t *page_flags(struct bt *bt, gpa_t gpa)
{
    struct gmem_range r;
    if (!gmem_find(bt->config.mem, gpa, &r))
        return NULL;
    return &gmem_page_flags(bt->config.mem)[r.ram_page + ((gpa - r.gpa) >> GMEM_PAGE_BITS)];
}

static bool is_protected(struct bt *bt, gpa_t gpa)
{
    _Atomic uint8_t *flags = page_flags(bt, gpa);
    return flags != NULL && (atomic_load(flags) & GMEM_PAGE_CODE);
}

static void protect_page(struct bt *bt, struct cpu *cpu, gpa_t gpa)
{
    _Atomic uint8_t *flags = page_flags(bt, gpa);
    if (flags == NULL || (atomic_load(flags) & GMEM_PAGE_CODE))
        return;
    if (bt->config.cpu_count == 1) {
        atomic_fetch_or(flags, GMEM_PAGE_CODE);
        tlb_protect_code(cpu, gpa);
        return;
    }
    cpu_exclusive_begin(cpu);
    atomic_fetch_or(flags, GMEM_PAGE_CODE);
    for (unsigned i = 0; i < bt->config.cpu_count; i++)
        tlb_protect_code(bt->config.cpus[i], gpa);
    cpu_exclusive_end(cpu);
}

/* Not while another vCPU waits inside a helper (to be alone itself): it goes back to its code. */
static bool others_in_code(const struct bt *bt, const struct cpu *cpu)
{
    for (unsigned i = 0; i < bt->config.cpu_count; i++) {
        if (bt->vcpus[i].cpu != cpu && bt->vcpus[i].in_code)
            return true;
    }
    return false;
}

static void forget_code(struct bt_vcpu *v)
{
    bt_jumps_clear(v);
    bt_calls_forget(v);
}

static void reset_cache(struct bt *bt, struct cpu *cpu)
{
    cpu_exclusive_begin(cpu);
    pthread_mutex_lock(&bt->lock);
    if (!bt_cache_room(bt) && !others_in_code(bt, cpu)) {
        bt_cache_reset(bt);
        bt->stats.flushes++;
        if (bt->perf_map != NULL)
            bt_perf_map_restart(bt);
        for (unsigned i = 0; i < bt->config.cpu_count; i++)
            forget_code(&bt->vcpus[i]);
    }
    pthread_mutex_unlock(&bt->lock);
    cpu_exclusive_end(cpu);
}

/* Where rip is, physically; false: not in memory. Raises #PF. */
static bool locate(struct cpu *cpu, uint32_t mode, struct bt_code_at *at)
{
    uint64_t pc = cpu_begin_instruction(cpu);
    at->pc = pc;
    at->mode = mode;
    at->slide = bt_hot(cpu)->slide;
    at->split = false;
    at->bytes = cpu_fetch_page(cpu, pc, &at->gpa);
    return at->bytes != NULL;
}

/* Does the first instruction reach into the next page? Then fetch it whole. false: not
 * translatable. */
static bool fetch_split(struct cpu *cpu, struct bt_code_at *at)
{
    struct insn in;
    size_t avail = GMEM_PAGE_SIZE - (at->pc & (GMEM_PAGE_SIZE - 1));
    if (avail >= INSN_MAX_LEN || insn_decode(&in, at->bytes, avail, at->mode & BT_MODE_WIDTH,
                                             &cpu->features) != INSN_NEED_MORE)
        return true;
    at->split = true;
    at->split_count = (uint8_t)cpu_fetch(cpu, at->pc, at->split_bytes, INSN_MAX_LEN);
    if (at->split_count <= avail)
        return false; /* cpu_do_instruction takes the fault */
    uint64_t next = (at->pc | (GMEM_PAGE_SIZE - 1)) + 1;
    at->bytes2 = cpu_fetch_page(cpu, cpu->mode == INSN_MODE_64 ? next : (uint32_t)next, &at->gpa2);
    return at->bytes2 != NULL;
}

/* Nothing changes code on a protected page without coming to bt_invalidate, which waits for the
 * lock: what is read now is what is translated. A page loses its protection when it is written. */
static bool settle_locked(struct bt *bt, struct bt_code_at *at)
{
    if (!is_protected(bt, at->gpa) || (at->split && !is_protected(bt, at->gpa2)))
        return false;
    if (at->split) {
        size_t first = GMEM_PAGE_SIZE - (at->pc & (GMEM_PAGE_SIZE - 1));
        memcpy(at->split_bytes, at->bytes, first);
        memcpy(at->split_bytes + first, at->bytes2, at->split_count - first);
    }
    return true;
}

/* The whole block lies within CS? Its limit is not part of a block's identity. */
static bool in_limit(const struct cpu *cpu, const struct bt_block *b)
{
    return cpu->mode == INSN_MODE_64 || cpu->rip + b->size - 1 <= cpu->seg[SEG_CS].limit;
}

/* With bt->lock. */
static struct bt_block *find_made(struct bt_vcpu *v, struct bt_code_at *at, uint64_t cs_base)
{
    if (!(at->mode & BT_MODE_SLIDING)) {
        struct bt_block *b = bt_cache_find(v->bt, at, cs_base);
        if (b != NULL)
            return b;
    }
    bt_slide(v, at);
    return at->mode & BT_MODE_SLIDING ? bt_cache_find(v->bt, at, cs_base) : NULL;
}

/* The block at rip, made when missing; NULL: do one step instead. The mode may say of what kind the
 * block is that leads here. Returns with bt->lock held. */
static struct bt_block *find_block(struct bt *bt, struct cpu *cpu, uint32_t mode)
{
    struct bt_code_at at;
    struct bt_vcpu *v = cpu->engine;
    if (!locate(cpu, mode, &at) || unlikely(cpu_break_here(cpu))) {
        pthread_mutex_lock(&bt->lock);
        return NULL;
    }
    uint64_t cs_base = cpu->mode == INSN_MODE_64 ? 0 : cpu->seg[SEG_CS].base;
    v->stats.lookups++;
    pthread_mutex_lock(&bt->lock);
    struct bt_block *b = find_made(v, &at, cs_base);
    if (b != NULL && !b->split)
        return b;
    bool room = bt_cache_room(bt);
    pthread_mutex_unlock(&bt->lock);
    if (!fetch_split(cpu, &at)) {
        pthread_mutex_lock(&bt->lock);
        return NULL;
    }
    if (at.split) /* depends on two mappings */
        at.mode &= ~(uint32_t)BT_MODE_SLIDING;
    if (!room)
        reset_cache(bt, cpu);
    protect_page(bt, cpu, at.gpa);
    if (at.split)
        protect_page(bt, cpu, at.gpa2);
    pthread_mutex_lock(&bt->lock);
    b = bt_cache_find(bt, &at, cs_base);
    if (b != NULL && b->split &&
        (!at.split || b->gpa_page2 != at.gpa2 >> GMEM_PAGE_BITS ||
         b->page2 != bt_page_of(&bt->cache, at.bytes2)))
        b = NULL; /* its second page is mapped elsewhere now: shadowed by a newer block */
    if (b != NULL)
        return b;
    if (!bt_cache_room(bt) || !settle_locked(bt, &at))
        return NULL; /* others filled it or wrote there meanwhile: step, and come again */
    return bt_translate(bt, cpu, &at);
}

/* -- Running ----------------------------------------------------------------------------------- */

static const uint8_t *code_at_rip(struct bt *bt, struct cpu *cpu, uint32_t exit)
{
    uint32_t mode = bt_mode_of(cpu);
    const struct bt_cache *c = &bt->cache;
    uint32_t kind = exit >= 2 ? bt_exit_mode(c, &c->exits[exit]) & ~BT_KEY_MODE : 0;
    bt_update_key(cpu, mode);
    bool jumps = bt_jumps_usable(mode);
    if (exit < 2 && jumps) {
        const uint8_t *code = bt_jump_find(cpu, cpu->rip);
        if (code != NULL)
            return code;
    }
    uint32_t generation = c->generation; /* of exit: nobody is alone before find_block */
    struct bt_block *b = find_block(bt, cpu, mode | kind);
    const uint8_t *code = NULL;
    if (b != NULL && in_limit(cpu, b)) {
        code = bt_landing(c, b);
        if (jumps && exit >= 2 && generation == c->generation)
            bt_link_exit(bt, cpu, exit, b);
        if (jumps && !(kind & BT_MODE_SINGLE)) {
            bool global = tlb_page_global(cpu, cpu->rip) &&
                          (!b->split || tlb_page_global(cpu, cpu->rip + GMEM_PAGE_SIZE));
            bt_jump_add(cpu, cpu->rip, code, global, b->split);
        }
    }
    pthread_mutex_unlock(&bt->lock);
    return code;
}

/* An indirect branch was done whose target is no address: the fault is the branch's own, and it has
 * changed nothing then (but what it pushed lies below the stack). */
static void check_target(struct cpu *cpu, uint32_t site)
{
    struct bt_vcpu *v = cpu->engine;
    if (likely(cpu->mode != INSN_MODE_64 || mmu_canonical(cpu, cpu->rip)))
        return;
    const struct bt_call *call = bt_call_of(cpu->engine, site);
    const struct insn *in = &call->insn;
    if (insn_info[in->row].branch == BR_RET)
        cpu->gpr[R_SP] -= 8 + (in->nopnd ? (uint16_t)in->imm : 0);
    else if (insn_info[in->row].branch == BR_CALL_IND)
        cpu->gpr[R_SP] += 8;
    cpu->insn_ip = call->ip + (call->mode & BT_MODE_SLIDING ? bt_hot(cpu)->slide : 0);
    v->counted = v->bt->config.virtual_time;
    cpu_raise_error(cpu, EXC_GP, 0);
}

static enum bt_exit_reason reason_of(const struct bt *bt, uint32_t exit)
{
    return exit == BT_EXIT_INDIRECT      ? BT_LEFT_INDIRECT
           : exit == BT_EXIT_STATE       ? BT_LEFT_STATE
           : bt->cache.exits[exit].entry ? BT_LEFT_ENTRY
                                         : BT_LEFT_DIRECT;
}

/* Until an exit; unwinds to bt_run on guest faults. */
static enum engine_exit run_loop(struct bt *bt, struct cpu *cpu)
{
    uint64_t (*enter)(struct cpu *, const uint8_t *) = (uint64_t(*)(struct cpu *, const uint8_t *))(
                                                           uintptr_t)bt->stubs.enter;
    struct bt_vcpu *v = cpu->engine;
    uint32_t exit = BT_EXIT_STATE;
    bool stepped = false;
    for (;;) {
        if (unlikely(cpu->icount >= cpu->icount_limit))
            return ENGINE_EXIT_LIMIT;
        bool near_limit = cpu->icount_limit - cpu->icount < BT_BLOCK_INSNS;
        bt_intr_undefer(cpu);
        uint32_t events = atomic_load_explicit(&cpu->events, memory_order_acquire);
        const uint8_t *code = NULL;
        if (likely(events == 0 && cpu->activity == CPU_ACTIVE && !stepped && !near_limit)) {
            code = code_at_rip(bt, cpu, exit);
        } else {
            exit = BT_EXIT_STATE;
            stepped = false;
            switch (cpu_poll_events(cpu)) {
            case CPU_POLL_RUN:
                /* Blocks leave while any event stands: put a masked interrupt aside. */
                if (!(cpu->rflags & FLAG_IF) &&
                    atomic_load_explicit(&cpu->events, memory_order_relaxed) == CPU_EV_INTR) {
                    bt_hot(cpu)->intr_deferred = 1;
                    cpu_clear_event(cpu, CPU_EV_INTR);
                }
                if (near_limit)
                    stepped = true;
                else if (atomic_load_explicit(&cpu->events, memory_order_relaxed) == 0)
                    code = code_at_rip(bt, cpu, exit);
                break;
            case CPU_POLL_STEP:
                stepped = true;
                break;
            case CPU_POLL_KICK:
                return ENGINE_EXIT_KICK;
            case CPU_POLL_HALT:
                return ENGINE_EXIT_HALT;
            case CPU_POLL_SHUTDOWN:
                return ENGINE_EXIT_SHUTDOWN;
            case CPU_POLL_DEBUG:
                return ENGINE_EXIT_DEBUG;
            }
        }
        if (unlikely(code == NULL)) {
            exit = BT_EXIT_STATE;
            if (!stepped && cpu_break_here(cpu)) {
                stepped = true; /* it decides whether we stop */
            } else {
                v->stats.steps++;
                v->counted = true;
                cpu_do_instruction(cpu, &v->step_insn);
                v->counted = false;
            }
            continue;
        }
        bt_stack_forget(cpu);
        bt_flags_from_cpu(cpu);
        v->in_code = true;
        uint64_t left = enter(cpu, code);
        exit = (uint32_t)left;
        v->in_code = false;
        bt_fp_save(cpu);
        bt_flags_to_cpu(cpu);
        v->stats.left[reason_of(bt, exit)]++;
        if (exit >= 2)
            cpu->rip = bt_exit_rip(bt, cpu, &bt->cache.exits[exit]);
        else if (exit == BT_EXIT_INDIRECT)
            check_target(cpu, (uint32_t)(left >> 32));
    }
}

static enum engine_exit bt_run(struct engine *en, struct cpu *cpu)
{
    struct bt *bt = (struct bt *)en;
    struct bt_vcpu *v = cpu->engine;
    struct bt_hot *hot = bt_hot(cpu);
    memset(hot, 0, sizeof *hot);
    hot->jump_cache = (uintptr_t)v->jumps;
    hot->exec = (uintptr_t)bt->cache.exec;
    hot->ram = (uintptr_t)bt->cache.ram;
    hot->host_mxcsr = _mm_getcsr();
    hot->no_stack_addend = (uintptr_t)v->scratch - (BT_NO_STACK & ~0xfffull);
    cpu_exclusive_enter(cpu);
    if (_setjmp(cpu->unwind) != 0) {
        v->in_code = false;
        cpu->icount -= v->counted; /* it has not retired */
        v->counted = false;
        bt_fp_save(cpu);
        cpu_exclusive_abandon(cpu);
        cpu_deliver_exception(cpu); /* may unwind to here again */
    }
    enum engine_exit r = run_loop(bt, cpu);
    cpu_exclusive_leave(cpu);
    if (hot->intr_deferred) {
        hot->intr_deferred = 0;
        cpu_raise_event(cpu, CPU_EV_INTR);
    }
    return r;
}

/* -- The other verbs --------------------------------------------------------------------------- */

static void bt_probe(struct engine_probe *out)
{
    out->usable = true;
    snprintf(out->text, sizeof out->text, "binary translation of x86 to x86-64 in this process");
}

static void bt_destroy(struct engine *en)
{
    struct bt *bt = (struct bt *)en;
    for (unsigned i = 0; bt->vcpus != NULL && i < bt->config.cpu_count; i++) {
        bt->config.cpus[i]->engine = NULL;
        bt->config.cpus[i]->page_flushed = NULL;
        free(bt->vcpus[i].jumps);
        free(bt->vcpus[i].calls);
    }
    free(bt->vcpus);
    if (bt->dump != NULL)
        fclose(bt->dump);
    if (bt->perf_map != NULL)
        fclose(bt->perf_map);
    cpu_exclusive_free(bt->exclusive);
    bt_cache_fini(bt);
    pthread_mutex_destroy(&bt->lock);
    free(bt);
}

static int bt_create(struct engine **out, const struct engine_config *config, struct err *e)
{
    struct bt *bt = xzalloc(sizeof *bt);
    bt->base.cls = &bt_engine;
    bt->config = *config;
    pthread_mutex_init(&bt->lock, NULL);
    bt->host_avx = __builtin_cpu_supports("avx");
    bt->host_bmi2 = __builtin_cpu_supports("bmi2");
    /* What AVX does to the upper halves: keep them on the host when the guest has them. */
    bt->host_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      cpu_has(&config->cpus[0]->features, CPU_FEATURE_AVX512F);
    int r = bt_cache_init(bt, e);
    if (r == 0 && config->dump_path != NULL)
        r = bt_dump_open(bt, e);
    if (r == 0 && config->perf_map)
        r = bt_perf_map_open(bt, e);
    if (r < 0) {
        bt_destroy((struct engine *)bt);
        return r;
    }
    bt->vcpus = xcalloc(config->cpu_count, sizeof *bt->vcpus);
    for (unsigned i = 0; i < config->cpu_count; i++) {
        struct cpu *cpu = config->cpus[i];
        struct bt_vcpu *v = &bt->vcpus[i];
        v->bt = bt;
        v->cpu = cpu;
        v->jumps = xcalloc(BT_JUMP_SIZE, sizeof *v->jumps);
        v->calls = xcalloc(BT_CALLS, sizeof *v->calls);
        cpu->engine = v;
        cpu->page_flushed = bt_page_flushed;
    }
    bt->exclusive = cpu_exclusive_new(config->cpus, config->cpu_count);
    *out = (struct engine *)bt;
    return 0;
}

static void bt_kick(struct engine *en, struct cpu *cpu)
{
    (void)en; /* every block polls cpu->events */
    (void)cpu;
}

static void bt_sync(struct engine *en, struct cpu *cpu, unsigned groups, bool written)
{
    (void)en; /* outside run() everything is in struct cpu */
    (void)cpu;
    (void)groups;
    (void)written;
}

static void bt_invalidate(struct engine *en, gpa_t gpa, uint64_t len)
{
    struct bt *bt = (struct bt *)en;
    pthread_mutex_lock(&bt->lock);
    uint64_t before = bt->stats.invalidations;
    bt_cache_invalidate(bt, gpa, len);
    bool some = bt->stats.invalidations != before;
    pthread_mutex_unlock(&bt->lock);
    for (unsigned i = 0; some && i < bt->config.cpu_count; i++)
        cpu_raise_event(bt->config.cpus[i], CPU_EV_CODE);
}

static void bt_stops_changed(struct engine *en)
{
    struct bt *bt = (struct bt *)en;
    pthread_mutex_lock(&bt->lock);
    bt_cache_forget_breaks(bt);
    pthread_mutex_unlock(&bt->lock);
}

const struct engine_class bt_engine = {
    .name = "bt",
    .probe = bt_probe,
    .create = bt_create,
    .destroy = bt_destroy,
    .run = bt_run,
    .kick = bt_kick,
    .sync = bt_sync,
    .invalidate = bt_invalidate,
    .stops_changed = bt_stops_changed,
    .stats = bt_stats,
    .bequeath = bt_bequeath,
    .inherit = bt_inherit,
};
