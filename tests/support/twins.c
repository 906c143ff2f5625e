/* SPDX-License-Identifier: Apache-2.0
 *
 * See twins.h. A difference is narrowed down from the state of the last checkpoint: bt runs single
 * instructions near a stop, so the first stop at which the machines differ is the end of the block
 * that does wrong.
 */
#include "support/twins.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cpu/insn.h"
#include "cpu/mmu.h"
#include "machine/machine.h"
#include "machine/vm.h"
#include "machine/vtime.h"
#include "mem/gmem.h"

#define BLOCK_INSNS 64u /* no block of any engine has more */
#define DIFFERENCES 20u /* that are told, of each kind */
#define TEXT_BYTES (1u << 20)

static const char *const engines[2] = { "interp", "bt" };

struct pair {
    struct sosia_vm *vm[2];
    struct machine *m[2];
};

static void pair_free(struct pair *p)
{
    for (unsigned i = 0; i < 2; i++) {
        sosia_vm_free(p->vm[i]);
    }
}

static bool pair_new(struct pair *p, const struct sosia_config *config)
{
    char error[SOSIA_ERROR_BYTES];
    *p = (struct pair){ 0 };
    for (unsigned i = 0; i < 2; i++) {
        struct sosia_config c = *config;
        c.engine = engines[i];
        c.virtual_time = true;
        if (sosia_vm_new(&p->vm[i], &c, error) < 0) {
            fprintf(stderr, "%s\n", error);
            pair_free(p);
            return false;
        }
        p->m[i] = sosia_vm_machine(p->vm[i]);
    }
    return true;
}

static void pair_run(struct pair *p, uint64_t until)
{
    struct err e;
    for (unsigned i = 0; i < 2; i++) {
        if (machine_run_until(p->m[i], until, &e) < 0) {
            /* its end, which is compared */
        }
    }
}

/* -- Comparing --------------------------------------------------------------------------------- */

struct bytes {
    void *data;
    size_t len;
};

static struct bytes state_of(struct machine *m, bool ram)
{
    struct bytes b = { 0 };
    struct err e = { 0 };
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->cpus[i]->insn_ip = 0; /* means something inside of an instruction only */
    }
    if (machine_save(m, ram, &b.data, &b.len, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return b;
}

static bool same_end(const struct pair *p)
{
    struct machine_end a = { 0 }, b = { 0 };
    int ra = machine_get_end(p->m[0], &a);
    int rb = machine_get_end(p->m[1], &b);
    return ra == rb && a.reason == b.reason && a.status == b.status;
}

static bool same(struct pair *p)
{
    struct bytes a = state_of(p->m[0], false);
    struct bytes b = state_of(p->m[1], false);
    bool equal = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    free(a.data);
    free(b.data);
    return equal && same_end(p) &&
           memcmp(gmem_ram_host(p->m[0]->mem), gmem_ram_host(p->m[1]->mem),
                  gmem_ram_size(p->m[0]->mem)) == 0;
}

/* -- Telling ----------------------------------------------------------------------------------- */

static char *text_of(struct machine *m)
{
    char *text = xzalloc(TEXT_BYTES);
    size_t n = 0;
    for (unsigned i = 0; i < m->cpu_count; i++) {
        n += state_dump(text + n, TEXT_BYTES - n, cpu_state, m->cpus[i]);
    }
    machine_info(m, "devices", text + n, TEXT_BYTES - n);
    return text;
}

/* Both have the same lines, as far as they go. */
static void tell_state(struct pair *p)
{
    char *text[2] = { text_of(p->m[0]), text_of(p->m[1]) };
    char *rest[2] = { text[0], text[1] };
    char *line[2];
    for (unsigned told = 0; told < DIFFERENCES;) {
        line[0] = strsep(&rest[0], "\n");
        line[1] = strsep(&rest[1], "\n");
        if (line[0] == NULL || line[1] == NULL) {
            break;
        }
        if (strcmp(line[0], line[1]) != 0) {
            fprintf(stderr, "  %s: %.100s\n  %s: %.100s\n", engines[0], line[0], engines[1],
                    line[1]);
            told++;
        }
    }
    free(text[0]);
    free(text[1]);
}

static void tell_memory(struct pair *p)
{
    const uint8_t *a = gmem_ram_host(p->m[0]->mem);
    const uint8_t *b = gmem_ram_host(p->m[1]->mem);
    unsigned told = 0;
    for (uint64_t at = 0; at < gmem_ram_size(p->m[0]->mem) && told < DIFFERENCES; at += 8) {
        uint64_t va, vb;
        memcpy(&va, a + at, 8);
        memcpy(&vb, b + at, 8);
        if (va != vb) {
            fprintf(stderr, "  RAM %#" PRIx64 ": %s %016" PRIx64 ", %s %016" PRIx64 "\n", at,
                    engines[0], va, engines[1], vb);
            told++;
        }
    }
}

static void tell_difference(struct pair *p)
{
    if (!same_end(p)) {
        fprintf(stderr, "  one of them has come to its end: %s, %s\n", p->m[0]->end.text,
                p->m[1]->end.text);
    }
    tell_state(p);
    tell_memory(p);
}

static void tell_instruction(struct cpu *cpu)
{
    uint8_t code[INSN_MAX_LEN];
    char text[128] = "?";
    struct insn in;
    gpa_t gpa;
    size_t n = 0;
    uint64_t va = cpu->rip + (cpu->mode == INSN_MODE_64 ? 0 : cpu->seg[SEG_CS].base);
    while (n < sizeof code && mmu_peek(cpu, va + n, &gpa) == 0 &&
           gmem_read(cpu->mem, gpa, code + n, 1) == 0) {
        n++;
    }
    if (insn_decode(&in, code, n, cpu->mode, &cpu->features) == INSN_OK) {
        insn_format(text, sizeof text, &in, cpu->rip);
    }
    fprintf(stderr, "  cpu%u cpl%u %04x:%016" PRIx64 "  %s\n", cpu->index, cpu->cpl,
            cpu->seg[SEG_CS].sel, cpu->rip, text);
}

/* -- Narrowing down ---------------------------------------------------------------------------- */

static bool pair_load(struct pair *p, const struct bytes *from)
{
    struct err e;
    for (unsigned i = 0; i < 2; i++) {
        if (machine_load(p->m[i], from->data, from->len, &e) < 0) {
            fprintf(stderr, "  cannot go back: %s\n", e.msg);
            return false;
        }
    }
    return true;
}

static bool differs_at(struct pair *p, const struct bytes *from, uint64_t at)
{
    if (!pair_load(p, from)) {
        return false;
    }
    pair_run(p, at);
    return !same(p);
}

/* What ran last, by the interpreter, before instruction number `at` was done. */
static void tell_path(struct pair *p, const struct bytes *from, uint64_t first, uint64_t at)
{
    struct err e;
    if (!pair_load(p, from)) {
        return;
    }
    for (uint64_t n = at - first > BLOCK_INSNS ? at - BLOCK_INSNS : first; n < at; n++) {
        if (machine_run_until(p->m[0], n, &e) < 0) {
            return;
        }
        tell_instruction(p->m[0]->cpus[atomic_load(&p->m[0]->turn)]);
    }
}

/* They are the same at lo, not at hi. */
static void narrow(const struct sosia_config *config, uint64_t lo, uint64_t hi)
{
    struct pair p;
    if (!pair_new(&p, config)) {
        return;
    }
    pair_run(&p, lo);
    struct bytes from = state_of(p.m[0], true);
    uint64_t good = lo, bad = hi;
    if (!differs_at(&p, &from, hi)) {
        fprintf(stderr, "  not when both begin with the interpreter's state at %" PRIu64 "\n", lo);
    } else {
        while (bad - good > 1) {
            uint64_t middle = good + (bad - good) / 2;
            *(differs_at(&p, &from, middle) ? &bad : &good) = middle;
        }
        fprintf(stderr, "first difference after %" PRIu64 " instructions, at the end of:\n", bad);
        tell_path(&p, &from, lo, bad);
        differs_at(&p, &from, bad);
        tell_difference(&p);
    }
    free(from.data);
    pair_free(&p);
}

/* -- Running ----------------------------------------------------------------------------------- */

bool twins_run(struct twins *t)
{
    struct pair p;
    uint64_t good = 0;
    bool equal = true;
    if (!pair_new(&p, t->config)) {
        return false;
    }
    t->ended = t->sleeps = false;
    t->checkpoints = 0;
    while (!t->ended && !t->sleeps && good < t->end) {
        uint64_t at = good + t->gap < t->end ? good + t->gap : t->end;
        pair_run(&p, at);
        equal = same(&p);
        if (!equal) {
            fprintf(stderr, "%s and %s differ between %" PRIu64 " and %" PRIu64 " instructions\n",
                    engines[0], engines[1], good, at);
            tell_difference(&p);
            break;
        }
        good = at;
        t->checkpoints++;
        t->ended = sosia_vm_end(p.vm[0], &t->how) == 0;
        t->sleeps = !t->ended && machine_instructions(p.m[0]) < at;
    }
    t->instructions = machine_instructions(p.m[0]);
    pair_free(&p);
    if (!equal) {
        narrow(t->config, good, good + t->gap);
    }
    return equal;
}
