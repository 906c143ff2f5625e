/* SPDX-License-Identifier: Apache-2.0
 *
 * Text about a machine for people.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/info.h"
#include "machine/machine.h"
#include "machine/pc.h"

void text_add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bool room = t->len < t->size;
    int n = vsnprintf(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0, fmt, ap);
    va_end(ap);
    t->len += n > 0 ? (size_t)n : 0;
}

static void add_seg(struct text *t, const char *name, const struct cpu_seg *s)
{
    text_add(t, "%-4s%04x %016" PRIx64 " %08x %05x\n", name, s->sel, s->base, s->limit, s->attr);
}

static void add_cpu(struct text *t, const struct cpu *cpu)
{
    static const char *const gpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const seg[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const char *const activity[] = {"active", "halted", "waits for SIPI", "shut down"};
    static const char *const mode[] = {"16-bit", "32-bit", "64-bit"};
    text_add(t, "cpu %u: %s, %s, cpl %u, events %#x, %" PRIu64 " instructions\n", cpu->index,
        cpu->activity < 4 ? activity[cpu->activity] : "?", cpu->mode < 3 ? mode[cpu->mode] : "?",
        cpu->cpl, atomic_load(&cpu->events), cpu->icount);
    for (unsigned i = 0; i < 16; i++) {
        text_add(t, "%s %016" PRIx64 "%s", gpr[i], cpu->gpr[i], i % 4 == 3 ? "\n" : "  ");
    }
    text_add(t, "rip %016" PRIx64 "  rflags %08" PRIx64 "\n", cpu->rip, cpu->rflags);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        add_seg(t, seg[i], &cpu->seg[i]);
    }
    add_seg(t, "ldt", &cpu->ldtr);
    add_seg(t, "tr", &cpu->tr);
    text_add(t, "gdt %016" PRIx64 " %04x  idt %016" PRIx64 " %04x\n", cpu->gdtr.base,
             cpu->gdtr.limit, cpu->idtr.base, cpu->idtr.limit);
    text_add(t, "cr0 %08" PRIx64 "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %08" PRIx64 "\n",
        cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4);
    text_add(t, "efer %04" PRIx64 "  xcr0 %" PRIx64 "  dr6 %08" PRIx64 "  dr7 %08" PRIx64 "\n",
        cpu->efer, cpu->xcr0, cpu->dr[6], cpu->dr[7]);
    text_add(t, "fcw %04x  fsw %04x  mxcsr %08x\n", load_le16(cpu->fpu.fx + FX_FCW),
        load_le16(cpu->fpu.fx + FX_FSW), load_le32(cpu->fpu.fx + FX_MXCSR));
    text_add(t, "exceptions %" PRIu64 ", interrupts %" PRIu64 ", tlb misses %" PRIu64
           ", tlb flushes %" PRIu64 "\n",
        cpu->exceptions, cpu->interrupts, cpu->tlb_misses, cpu->tlb_flushes);
}

static void registers(struct machine *m, void *ctx)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        add_cpu(ctx, m->cpus[i]);
    }
}

static void devices(struct machine *m, void *ctx)
{
    struct text *t = ctx;
    for (const struct dev *d = bus_first_dev(m->bus); d != NULL; d = d->next) {
        text_add(t, "%s:\n", d->name);
        if (d->cls->state != NULL) {
            bool room = t->len < t->size;
            t->len += state_dump(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0,
                                 d->cls->state, d);
        }
    }
}

static void engine(struct machine *m, void *ctx)
{
    struct text *t = ctx;
    text_add(t, "engine %s\n", m->engine_class->name);
    if (m->engine_class->stats != NULL) {
        bool room = t->len < t->size;
        t->len += m->engine_class->stats(m->engine, room ? t->buf + t->len : NULL,
                                         room ? t->size - t->len : 0);
    }
}

static void memory(struct machine *m, void *ctx)
{
    struct gmem_range r;
    static const char *const kind[] = {"hole", "ram", "rom"};
    text_add(ctx, "%" PRIu64 " MiB of RAM\n", gmem_ram_size(m->mem) >> 20);
    for (gpa_t at = 0; gmem_find_next(m->mem, at, &r); at = r.gpa + r.size) {
        text_add(ctx, "%012" PRIx64 "-%012" PRIx64 " %s\n", r.gpa, r.gpa + r.size, kind[r.kind]);
    }
}

static void screen(struct machine *m, void *ctx)
{
    struct text *t = ctx;
    bool room = t->len < t->size;
    if (m->pc->has_vga) {
        t->len += vga_text(&m->pc->vga, room ? t->buf + t->len : NULL, room ? t->size - t->len : 0);
    }
}

long machine_info(struct machine *m, const char *topic, char *buf, size_t size)
{
    static const struct {
        const char *name;
        void (*fn)(struct machine *m, void *ctx);
    } topics[] = {
        {"registers", registers}, {"devices", devices}, {"engine", engine}, {"memory", memory},
        {"screen", screen}, {"tlb", info_tlb}, {"mem", info_mem}, {"mtree", info_mtree},
        {"pci", info_pci}};
    struct text t = {.buf = buf, .size = size};
    if (size != 0) {
        buf[0] = '\0';
    }
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (strcmp(topic, topics[i].name) == 0) {
            machine_look(m, topics[i].fn, &t);
            return (long)t.len;
        }
    }
    return -EINVAL;
}
