/* SPDX-License-Identifier: Apache-2.0 -- the first processor's state when a kernel is entered */
#include "base/bits.h"
#include "base/bytes.h"
#include "boot/internal.h"

enum {
    ATTR_CODE32 = 0xc09b, /* G D, present, execute/read, accessed (SDM 3 3.4.5) */
    ATTR_CODE64 = 0xa09b, /* G L */
    ATTR_DATA = 0xc093,
    ATTR_TSS32 = 0x008b,
    TSS32_LIMIT = 0x67,
    CR0_PE_ET = 0x11,
    CR4_PAE = 0x20,
    EFER_LME_LMA = 0x500,
    RFLAGS_FIXED = 0x2,
    PAGE_TABLES = 6, /* PML4, PDPT, four page directories of 2 MiB pages: 4 GiB */
    PTE_TABLE = 0x3, /* present, writable */
    PTE_2M = 0x83,
};
#define CR0_PG 0x80000000u

/* A flat descriptor of this kind: base 0, limit 4 GiB. */
static uint64_t flat_descriptor(uint32_t attr)
{
    return 0xffffull | (uint64_t)(attr | 0xf00u) << 40;
}

static struct boot_segment flat_segment(uint16_t selector, uint32_t attr)
{
    return (struct boot_segment){ .selector = selector, .attr = attr, .limit = 0xffffffffu };
}

static int common(struct boot_ctx *c, uint16_t code, uint32_t code_attr, struct err *e)
{
    uint16_t data = (uint16_t)(code + 8);
    uint8_t gdt[5 * 8] = { 0 };
    store_le64(gdt + code, flat_descriptor(code_attr));
    store_le64(gdt + data, flat_descriptor(ATTR_DATA));
    uint64_t at;
    int r = boot_put(c, gdt, sizeof gdt, 16, &at, e);
    if (r < 0) {
        return r;
    }
    *c->cpu = (struct boot_cpu){
        .rflags = RFLAGS_FIXED,
        .cr0 = CR0_PE_ET,
        .cs = flat_segment(code, code_attr),
        .data = flat_segment(data, ATTR_DATA),
        .tr = { .attr = ATTR_TSS32, .limit = TSS32_LIMIT },
        .gdt_base = at,
        .gdt_limit = sizeof gdt - 1,
    };
    return 0;
}

int entry_prot32(struct boot_ctx *c, uint16_t code, uint32_t eip, struct err *e)
{
    int r = common(c, code, ATTR_CODE32, e);
    c->cpu->mode = BOOT_CPU_PROT32;
    c->cpu->rip = eip;
    return r;
}

static int identity_map(struct boot_ctx *c, uint64_t *at, struct err *e)
{
    int r = boot_low(c, PAGE_TABLES * GMEM_PAGE_SIZE, GMEM_PAGE_SIZE, at, e);
    if (r < 0) {
        return r;
    }
    uint8_t entry[8];
    uint64_t pdpt = *at + GMEM_PAGE_SIZE;
    store_le64(entry, pdpt | PTE_TABLE);
    r = boot_write(c, *at, entry, sizeof entry, e);
    for (uint64_t i = 0; r == 0 && i < 4; i++) {
        uint8_t directory[GMEM_PAGE_SIZE];
        uint64_t pd = pdpt + (i + 1) * GMEM_PAGE_SIZE;
        for (uint64_t n = 0; n < 512; n++) {
            store_le64(directory + n * 8, (GIB(i) + MIB(2 * n)) | PTE_2M);
        }
        store_le64(entry, pd | PTE_TABLE);
        r = boot_write(c, pdpt + i * 8, entry, sizeof entry, e);
        if (r == 0) {
            r = boot_write(c, pd, directory, sizeof directory, e);
        }
    }
    return r;
}

int entry_long64(struct boot_ctx *c, uint16_t code, uint64_t rip, struct err *e)
{
    uint64_t tables;
    int r = common(c, code, ATTR_CODE64, e);
    if (r == 0) {
        r = identity_map(c, &tables, e);
    }
    if (r < 0) {
        return r;
    }
    c->cpu->mode = BOOT_CPU_LONG64;
    c->cpu->rip = rip;
    c->cpu->cr0 |= CR0_PG;
    c->cpu->cr3 = tables;
    c->cpu->cr4 = CR4_PAE;
    c->cpu->efer = EFER_LME_LMA;
    return 0;
}
