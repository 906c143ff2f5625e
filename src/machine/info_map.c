/* SPDX-License-Identifier: Apache-2.0
 *
 * Text for people: what is at which address, for processor 0 (by its page tables), on the bus, in
 * the PCI slots. The forms of `tlb`, `mem` and `pci` are those of QEMU's monitor.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "cpu/mmu.h"
#include "machine/info.h"
#include "machine/machine.h"
#include "machine/pc.h"

/* -- Page tables (SDM 3 chapter 4) ------------------------------------------------------------- */
/* A guest's tables may point to one another in circles: so many are looked at, and no more. */
#define TABLES_MAX 16384u

struct tables {
    struct machine *m;
    const struct cpu *cpu;
    unsigned left;
    unsigned entry_bytes; /* 4, or 8 with PAE */
    /* A page. rights: what every level grants of PTE_W and PTE_U, PTE_NX where any denies. */
    void (*page)(struct tables *t, gva_t va, uint64_t size, uint64_t entry, uint64_t rights);
    struct text *text;
    /* mem: what is being joined */
    gva_t start, end;
    uint64_t rights;
};

static gva_t canonical(const struct tables *t, gva_t va)
{
    unsigned bits = t->entry_bytes == 4 || !(t->cpu->efer & EFER_LMA) ? 64
                    : t->cpu->cr4 & CR4_LA57                           ? 57
                                                                       : 48;
    return bits == 64 ? va : (gva_t)((int64_t)(va << (64 - bits)) >> (64 - bits));
}

static uint64_t entry_at(const struct tables *t, const uint8_t *table, unsigned n)
{
    return t->entry_bytes == 4 ? load_le32(table + 4 * n) : load_le64(table + 8 * n);
}

/* level: 1 is the page table. shift: what an entry of it maps, as a power of two. */
static void walk(struct tables *t, gpa_t at, unsigned level, gva_t va, uint64_t rights)
{
    uint8_t table[GMEM_PAGE_SIZE];
    unsigned entries = GMEM_PAGE_SIZE / t->entry_bytes;
    unsigned shift = 12 + (level - 1) * (t->entry_bytes == 4 ? 10 : 9);
    if (t->left == 0 || gmem_read(t->m->mem, at, table, sizeof table) < 0) {
        return;
    }
    t->left--;
    for (unsigned n = 0; n < entries; n++) {
        uint64_t e = entry_at(t, table, n);
        uint64_t now = (rights & e & (PTE_W | PTE_U)) | ((rights | e) & PTE_NX);
        gva_t here = va + ((gva_t)n << shift);
        bool big = level > 1 && level <= 3 && (e & PTE_PS) &&
                   (t->entry_bytes == 8 || (t->cpu->cr4 & CR4_PSE));
        if (!(e & PTE_P)) {
            continue;
        }
        if (level == 1 || big) {
            t->page(t, canonical(t, here), 1ull << shift, e, now);
        } else {
            walk(t, e & (t->entry_bytes == 4 ? 0xfffff000u : PTE_ADDR), level - 1, here, now);
        }
    }
}

static void walk_all(struct tables *t)
{
    const struct cpu *cpu = t->cpu;
    const uint64_t all = PTE_W | PTE_U;
    t->left = TABLES_MAX;
    t->entry_bytes = cpu->cr4 & CR4_PAE ? 8 : 4;
    if (!(cpu->cr0 & CR0_PG)) {
        text_add(t->text, "PG disabled\n");
    } else if (t->entry_bytes == 4) {
        walk(t, cpu->cr3 & 0xfffff000, 2, 0, all);
    } else if (cpu->efer & EFER_LMA) {
        walk(t, cpu->cr3 & PTE_ADDR, cpu->cr4 & CR4_LA57 ? 5 : 4, 0, all);
    } else {
        for (unsigned n = 0; n < 4; n++) {
            if (cpu->pdpte[n] & PTE_P) {
                walk(t, cpu->pdpte[n] & PTE_ADDR, 2, (gva_t)n << 30, all);
            }
        }
    }
}

static void tlb_page(struct tables *t, gva_t va, uint64_t size, uint64_t e, uint64_t rights)
{
    (void)rights;
    gpa_t gpa = e & (t->entry_bytes == 4 ? 0xfffff000u : PTE_ADDR) & ~(size - 1);
    text_add(t->text, "%016" PRIx64 ": %016" PRIx64 " %c%c%c%c%c%c%c%c%c\n", va, gpa,
             e & PTE_NX ? 'X' : '-', e & PTE_G ? 'G' : '-', size > GMEM_PAGE_SIZE ? 'P' : '-',
             e & PTE_D ? 'D' : '-', e & PTE_A ? 'A' : '-', e & PTE_PCD ? 'C' : '-',
             e & PTE_PWT ? 'T' : '-', e & PTE_U ? 'U' : '-', e & PTE_W ? 'W' : '-');
}

static void end_run(struct tables *t)
{
    if (t->end != t->start) {
        text_add(t->text, "%016" PRIx64 "-%016" PRIx64 " %016" PRIx64 " %cr%c\n", t->start, t->end,
                 t->end - t->start, t->rights & PTE_U ? 'u' : '-', t->rights & PTE_W ? 'w' : '-');
    }
}

static void mem_page(struct tables *t, gva_t va, uint64_t size, uint64_t e, uint64_t rights)
{
    (void)e;
    rights &= PTE_U | PTE_W;
    if (va != t->end || rights != t->rights) {
        end_run(t);
        t->start = va;
        t->rights = rights;
    }
    t->end = va + size;
}

static void say_if_more(const struct tables *t)
{
    if (t->left == 0) {
        text_add(t->text, "... and more: %u tables were looked at\n", TABLES_MAX);
    }
}

void info_tlb(struct machine *m, void *ctx)
{
    struct tables t = { .m = m, .cpu = m->cpus[0], .page = tlb_page, .text = ctx };
    walk_all(&t);
    say_if_more(&t);
}

void info_mem(struct machine *m, void *ctx)
{
    struct tables t = { .m = m, .cpu = m->cpus[0], .page = mem_page, .text = ctx };
    walk_all(&t);
    end_run(&t);
    say_if_more(&t);
}

/* -- The bus ----------------------------------------------------------------------------------- */
/* The device whose object the handlers' argument lies in. */
static const char *owner(struct machine *m, const void *p)
{
    for (const struct dev *d = bus_first_dev(m->bus); d != NULL; d = d->next) {
        if ((uintptr_t)p - (uintptr_t)d < d->cls->size) {
            return d->name;
        }
    }
    return "-";
}

void info_mtree(struct machine *m, void *ctx)
{
    static const char *const kind[] = { "hole", "ram", "rom" };
    struct gmem_range range;
    struct region_place r;
    text_add(ctx, "memory\n");
    for (gpa_t at = 0; gmem_find_next(m->mem, at, &range); at = range.gpa + range.size) {
        text_add(ctx, "  %016" PRIx64 "-%016" PRIx64 " %s\n", range.gpa,
                 range.gpa + range.size - 1, kind[range.kind]);
    }
    for (unsigned ports = 0; ports < 2; ports++) {
        text_add(ctx, ports ? "I/O\n" : "devices in memory, the later over the earlier\n");
        for (size_t n = 0; bus_region(m->bus, n, &r); n++) {
            if (r.is_port == ports) {
                text_add(ctx, "  %016" PRIx64 "-%016" PRIx64 " %s%s\n", r.base,
                         r.base + (r.size - 1), owner(m, r.dev), r.enabled ? "" : " [disabled]");
            }
        }
    }
}

/* -- PCI --------------------------------------------------------------------------------------- */
static void add_bar(struct text *t, const struct pci_func *f, unsigned n)
{
    const struct pci_bar *bar = &f->bar[n];
    uint64_t base = pci_bar_base(f, n);
    if (bar->kind != PCI_BAR_NONE) {
        text_add(t, "      BAR%u: %s at 0x%" PRIx64 " [0x%" PRIx64 "].\n", n,
                 bar->kind == PCI_BAR_IO ? "I/O" : "memory", base, base + bar->size - 1);
    }
}

void info_pci(struct machine *m, void *ctx)
{
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        const struct pci_func *f = pci_func_at(m->pc->cards.pci, (uint8_t)devfn);
        if (f == NULL) {
            continue;
        }
        text_add(ctx, "  Bus  0, device %3u, function %u:\n", devfn / 8, devfn % 8);
        text_add(ctx, "    %s: PCI device %04x:%04x, class %02x%02x\n", f->dev.name, f->id & 0xffff,
                 f->id >> 16, f->config[PCI_CLASS + 2], f->config[PCI_CLASS + 1]);
        if (f->config[PCI_INTERRUPT_PIN] != 0) {
            text_add(ctx, "      IRQ %u, pin %c\n", f->config[PCI_INTERRUPT_LINE],
                     '@' + f->config[PCI_INTERRUPT_PIN]);
        }
        for (unsigned n = 0; n < PCI_BAR_COUNT; n++) {
            add_bar(ctx, f, n);
        }
    }
}
