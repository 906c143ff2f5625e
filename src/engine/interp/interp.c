/* SPDX-License-Identifier: Apache-2.0
 *
 * The interpreter's engine interface and its run loop (the protocol is in cpu/except.h). */
#include "engine/interp/interp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "cpu/except.h"
#include "cpu/exclusive.h"
#include "cpu/stop.h"

/* -- Life -------------------------------------------------------------------------------------- */
static void interp_probe(struct engine_probe *out)
{
    out->usable = true;
    snprintf(out->text, sizeof out->text, "interpreter, runs everywhere");
}

/* Address space that is given memory when touched. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    madvise(p, bytes, MADV_DONTFORK); /* the child that writes a snapshot has no use for it */
    return p;
}

static struct interp_cpu *vcpu_new(struct interp *en, struct cpu *cpu)
{
    struct interp_cpu *ic = xzalloc(sizeof *ic);
    ic->engine = en;
    ic->cpu = cpu;
    block_reset(ic);
    ic->single = xzalloc(sizeof(struct block) + 2 * sizeof(struct op) + sizeof(struct block_more) +
                         sizeof(struct insn));
    ic->arena = reserve(ARENA_BYTES);
    cpu->engine = ic;
    return ic;
}

static void vcpu_free(struct interp_cpu *ic)
{
    if (ic == NULL) {
        return;
    }
    ic->cpu->engine = NULL;
    if (ic->arena != NULL) {
        munmap(ic->arena, ARENA_BYTES);
    }
    free(ic->single);
    free(ic);
}

static void interp_destroy(struct engine *engine)
{
    struct interp *en = (struct interp *)engine;
    if (en == NULL) {
        return;
    }
    for (unsigned i = 0; i < en->count; i++) {
        vcpu_free(en->vcpu[i]);
    }
    cpu_exclusive_free(en->exclusive);
    if (en->code != NULL) {
        munmap(en->code, en->pages * sizeof en->code[0]);
    }
    pthread_mutex_destroy(&en->code_lock);
    free(en);
}

static int interp_create(struct engine **out, const struct engine_config *config, struct err *e)
{
    struct interp *en = xzalloc(sizeof *en + config->cpu_count * sizeof en->vcpu[0]);
    en->base.cls = &interp_engine;
    en->mem = config->mem;
    en->block_ops = config->virtual_time ? 1 : BLOCK_OPS;
    en->pages = gmem_page_count(config->mem);
    pthread_mutex_init(&en->code_lock, NULL);
    atomic_store(&en->epoch, 1); /* 0: never */
    en->exclusive = cpu_exclusive_new(config->cpus, config->cpu_count);
    en->code = reserve(en->pages * sizeof en->code[0]);
    bool ok = en->code != NULL;
    for (; ok && en->count < config->cpu_count; en->count++) {
        en->vcpu[en->count] = vcpu_new(en, config->cpus[en->count]);
        ok = en->vcpu[en->count]->arena != NULL;
    }
    if (!ok) {
        interp_destroy((struct engine *)en);
        return err_set(e, -ENOMEM, "interp: no address space for the code cache");
    }
    *out = (struct engine *)en;
    return 0;
}

/* -- Running ----------------------------------------------------------------------------------- */
/* An instruction of the running block faulted: it and those after it have not retired. */
static void account_fault(struct interp_cpu *ic)
{
    const struct block *b = ic->running;
    if (b == NULL) {
        return;
    }
    ic->running = NULL;
    uint64_t offset = ic->cpu->insn_ip - ic->base;
    for (unsigned i = 0; i < b->count; i++) {
        if (b->op[i].ip == offset) {
            ic->cpu->icount -= b->count - i;
            return;
        }
    }
    ic->cpu->icount--; /* it switched tasks, and faulted in the other one */
}

/* One block, which is progress whatever waits, then others until something does. */
static __attribute__((noinline)) void run_blocks(struct interp_cpu *ic, struct cpu *cpu)
{
    uint32_t fl = alu_pack(cpu->rflags);
    do {
        struct block *b = block_find(ic, cpu, cpu->rip, (enum insn_mode)cpu->mode);
        if (unlikely(b == NULL)) {
            cpu->rflags = alu_merge(cpu->rflags, fl); /* the fetch may fault */
            if (unlikely(cpu_break_here(cpu))) {
                return;
            }
            b = block_find_slow(ic);
        }
        cpu->icount += b->count;
        ic->limit = cpu->icount + CHAIN_INSNS;
        if (unlikely(ic->limit > cpu->icount_limit)) {
            ic->limit = cpu->icount_limit;
        }
        fl = block_enter(ic, cpu, b, cpu->rip, fl);
        ic->running = NULL;
    } while (likely(!access_must_poll(cpu) && cpu->activity == CPU_ACTIVE &&
                    cpu->icount < cpu->icount_limit));
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

static void run_one(struct interp_cpu *ic, struct cpu *cpu)
{
    uint32_t fl = alu_pack(cpu->rflags);
    struct block *b = block_single(ic);
    cpu->icount++;
    ic->limit = 0;
    fl = block_enter(ic, cpu, b, cpu->rip, fl);
    ic->running = NULL;
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

static enum engine_exit run(struct interp_cpu *ic, struct cpu *cpu)
{
    if (setjmp(cpu->unwind) != 0) {
        account_fault(ic);
        cpu_exclusive_abandon(cpu);
        cpu_deliver_exception(cpu);
    }
    for (;;) {
        if (unlikely(cpu->icount >= cpu->icount_limit)) {
            return ENGINE_EXIT_LIMIT;
        }
        enum cpu_poll what = cpu_poll_events(cpu);
        /* After CPU_EV_CODE is cleared: a write that is not in this epoch sets it again. */
        ic->epoch = atomic_load(&ic->engine->epoch);
        switch (what) {
        case CPU_POLL_RUN: run_blocks(ic, cpu); break;
        case CPU_POLL_STEP: run_one(ic, cpu); break;
        case CPU_POLL_KICK: return ENGINE_EXIT_KICK;
        case CPU_POLL_HALT: return ENGINE_EXIT_HALT;
        case CPU_POLL_SHUTDOWN: return ENGINE_EXIT_SHUTDOWN;
        case CPU_POLL_DEBUG: return ENGINE_EXIT_DEBUG;
        }
    }
}

static enum engine_exit interp_run(struct engine *engine, struct cpu *cpu)
{
    (void)engine;
    cpu_exclusive_enter(cpu);
    enum engine_exit why = run(cpu->engine, cpu);
    cpu_exclusive_leave(cpu);
    return why;
}

/* run() looks at cpu->events between any two blocks. */
static void interp_kick(struct engine *engine, struct cpu *cpu)
{
    (void)engine;
    (void)cpu;
}

/* struct cpu is where the interpreter keeps everything. */
static void interp_sync(struct engine *engine, struct cpu *cpu, unsigned groups, bool written)
{
    (void)engine;
    (void)cpu;
    (void)groups;
    (void)written;
}

static size_t interp_stats(struct engine *engine, char *buf, size_t size)
{
    const struct interp *en = (const struct interp *)engine;
    size_t n = 0;
    for (unsigned i = 0; i < en->count; i++) {
        const struct interp_cpu *ic = en->vcpu[i];
        int r = snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0,
                         "cpu%u.blocks %llu\ncpu%u.decoded %llu\ncpu%u.resets %llu\n", i,
                         (unsigned long long)ic->blocks, i, (unsigned long long)ic->decoded, i,
                         (unsigned long long)ic->resets);
        n += r > 0 ? (size_t)r : 0;
    }
    return n;
}

const struct engine_class interp_engine = {
    .name = "interp",
    .probe = interp_probe,
    .create = interp_create,
    .destroy = interp_destroy,
    .run = interp_run,
    .kick = interp_kick,
    .sync = interp_sync,
    .invalidate = interp_invalidate,
    .stats = interp_stats,
};
