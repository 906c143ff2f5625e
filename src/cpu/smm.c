/* SPDX-License-Identifier: Apache-2.0
 *
 * System-management mode: entry, the state save area, RSM. The layout is that of AMD64 processors
 * (AMD APM 2, 10.2.2 and table 10-1), which firmware for virtual machines expects of every vendor;
 * its revision says that SMBASE can be moved and that I/O instructions are not restarted.
 * UNIMPL: I/O restart; the 32-bit layout of processors without long mode, which get this one, too.
 */
#include "cpu/smm.h"

#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/model.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"

#define AREA_FROM_SMBASE 0xfe00u /* what is saved lies here, up to 64 KiB */
#define AREA_BYTES 0x200u
#define ENTRY_FROM_SMBASE 0x8000u
#define REVISION 0x00020064u /* bit 17: SMBASE relocation */

/* Offsets in the area: the manual's, less 0xfe00. */
enum smm_area {
    AREA_SEGMENTS = 0x00, /* ES CS SS DS FS GS, 16 bytes each */
    AREA_GDTR = 0x60,
    AREA_LDTR = 0x70,
    AREA_IDTR = 0x80,
    AREA_TR = 0x90,
    AREA_HALT_RESTART = 0xc9,
    AREA_EFER = 0xd0,
    AREA_REVISION = 0xfc,
    AREA_SMBASE = 0x100,
    AREA_CR4 = 0x148,
    AREA_CR3 = 0x150,
    AREA_CR0 = 0x158,
    AREA_DR7 = 0x160,
    AREA_DR6 = 0x168,
    AREA_RFLAGS = 0x170,
    AREA_RIP = 0x178,
    AREA_GPRS = 0x180, /* R15 first */
};

#define CR0_LEFT (CR0_PE | CR0_EM | CR0_TS | CR0_PG) /* cleared on entry */
#define RFLAGS_KNOWN                                                                               \
    (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM |         \
     FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)
#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

static gpa_t area_of(const struct cpu *cpu) { return (uint32_t)(cpu->smbase + AREA_FROM_SMBASE); }

/* -- The save area -----------------------------------------------------------------------------
 * Attributes are bits 40..47 and 52..55 of a descriptor; a null segment is one not present. */
static void put_seg(uint8_t *p, const struct cpu_seg *s)
{
    uint16_t attr = (uint16_t)((s->attr & 0xff) | (s->attr >> 4 & 0xf00));
    if (s->attr & SEG_ATTR_NULL) {
        attr &= (uint16_t)~SEG_ATTR_P;
    }
    store_le16(p, s->sel);
    store_le16(p + 2, attr);
    store_le32(p + 4, s->limit);
    store_le64(p + 8, s->base);
}

static struct cpu_seg get_seg(const uint8_t *p)
{
    uint16_t attr = load_le16(p + 2);
    return (struct cpu_seg){
        .sel = load_le16(p),
        .attr = (attr & 0xffu) | (attr & 0xf00u) << 4 | (attr & SEG_ATTR_P ? 0 : SEG_ATTR_NULL),
        .limit = load_le32(p + 4),
        .base = load_le64(p + 8),
    };
}

static void put_dtable(uint8_t *p, const struct cpu_dtable *t)
{
    store_le32(p + 4, t->limit);
    store_le64(p + 8, t->base);
}

static struct cpu_dtable get_dtable(const uint8_t *p)
{
    return (struct cpu_dtable){ .limit = (uint16_t)load_le32(p + 4), .base = load_le64(p + 8) };
}

static void put_state(const struct cpu *cpu, uint8_t area[AREA_BYTES])
{
    memset(area, 0, AREA_BYTES);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        put_seg(area + AREA_SEGMENTS + 16 * i, &cpu->seg[i]);
    }
    put_dtable(area + AREA_GDTR, &cpu->gdtr);
    put_seg(area + AREA_LDTR, &cpu->ldtr);
    put_dtable(area + AREA_IDTR, &cpu->idtr);
    put_seg(area + AREA_TR, &cpu->tr);
    area[AREA_HALT_RESTART] = cpu->activity == CPU_HALTED;
    store_le64(area + AREA_EFER, cpu->efer);
    store_le32(area + AREA_REVISION, REVISION);
    store_le32(area + AREA_SMBASE, (uint32_t)cpu->smbase);
    store_le64(area + AREA_CR4, cpu->cr4);
    store_le64(area + AREA_CR3, cpu->cr3);
    store_le64(area + AREA_CR0, cpu->cr0);
    store_le64(area + AREA_DR7, cpu->dr[7]);
    store_le64(area + AREA_DR6, cpu->dr[6]);
    store_le64(area + AREA_RFLAGS, cpu->rflags);
    store_le64(area + AREA_RIP, cpu->rip);
    for (unsigned i = 0; i < 16; i++) {
        store_le64(area + AREA_GPRS + 8 * (15 - i), cpu->gpr[i]);
    }
}

/* -- Entry ------------------------------------------------------------------------------------- */
static void start_handler(struct cpu *cpu)
{
    cpu->rip = cpu->insn_ip = ENTRY_FROM_SMBASE;
    cpu->rflags = FLAG_FIXED;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = (struct cpu_seg){ .limit = 0xffffffff, .attr = SEG_ATTR_REAL | SEG_ATTR_G };
    }
    cpu->seg[SEG_CS].sel = (uint16_t)(cpu->smbase >> 4);
    cpu->seg[SEG_CS].base = (uint32_t)cpu->smbase;
    cpu->cr0 &= ~CR0_LEFT;
    cpu->cr4 = 0;
    cpu->efer = 0;
    cpu->dr[7] = DR7_FIXED;
    cpu->activity = CPU_ACTIVE;
    cpu->int_shadow = CPU_SHADOW_NONE;
    cpu->step_armed = false;
}

void smm_enter(struct cpu *cpu)
{
    uint8_t area[AREA_BYTES];
    put_state(cpu, area);
    cpu->in_smm = true;
    cpu->smm_nmi_blocked = cpu->nmi_blocked;
    cpu->nmi_blocked = true;
    /* An SMBASE without RAM behind it: nothing is kept, as on the bus. */
    int r = gmem_write(cpu->mem, area_of(cpu), area, sizeof area);
    (void)r;
    start_handler(cpu);
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
}

/* -- RSM --------------------------------------------------------------------------------------- */
/* The handler may have written anything: what no instruction could have made is a shutdown (SDM 3
 * 32.4.1.1). */
static bool control_valid(const struct cpu *cpu, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    bool pg = cr0 & CR0_PG;
    bool lma = efer & EFER_LMA;
    if (cr0 >> 32 != 0 || (pg && !(cr0 & CR0_PE)) || ((cr0 & CR0_NW) && !(cr0 & CR0_CD))) {
        return false;
    }
    if ((cr4 & ~cpu_cr4_known(cpu)) || (efer & ~EFER_KNOWN) ||
        (efer != 0 && !cpu_has(&cpu->features, CPU_FEATURE_LM) && (efer & ~EFER_NXE))) {
        return false;
    }
    if (lma != (pg && (efer & EFER_LME)) || (lma && !(cr4 & CR4_PAE))) {
        return false;
    }
    return lma || !(cr4 & (CR4_PCIDE | CR4_LA57));
}

static bool get_system(struct cpu *cpu, const uint8_t *area)
{
    uint64_t cr0 = (load_le64(area + AREA_CR0) & CR0_KNOWN) | CR0_ET;
    uint64_t cr3 = load_le64(area + AREA_CR3);
    uint64_t cr4 = load_le64(area + AREA_CR4);
    uint64_t efer = load_le64(area + AREA_EFER);
    if (load_le64(area + AREA_CR0) >> 32 != 0 || !control_valid(cpu, cr0, cr4, efer) ||
        (cr3 & ~MASK64(cpu->model->phys_bits))) {
        return false;
    }
    cpu->cr0 = cr0;
    cpu->cr3 = cr3;
    cpu->cr4 = cr4;
    cpu->efer = efer;
    return !mmu_pae_paging(cpu) || mmu_load_pdptes(cpu, cr3);
}

static bool get_segments(struct cpu *cpu, const uint8_t *area)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = get_seg(area + AREA_SEGMENTS + 16 * i);
        if (i < SEG_FS) {
            cpu->seg[i].base = (uint32_t)cpu->seg[i].base;
        }
    }
    cpu->gdtr = get_dtable(area + AREA_GDTR);
    cpu->ldtr = get_seg(area + AREA_LDTR);
    cpu->idtr = get_dtable(area + AREA_IDTR);
    cpu->tr = get_seg(area + AREA_TR);
    const uint64_t bases[] = { cpu->gdtr.base,         cpu->idtr.base, cpu->ldtr.base, cpu->tr.base,
                               cpu->seg[SEG_FS].base, cpu->seg[SEG_GS].base };
    for (unsigned i = 0; i < ARRAY_LEN(bases); i++) {
        if (!mmu_canonical_reg(cpu, bases[i])) {
            return false;
        }
    }
    return true;
}

static bool get_state(struct cpu *cpu, const uint8_t *area)
{
    uint64_t flags = (load_le64(area + AREA_RFLAGS) & RFLAGS_KNOWN) | FLAG_FIXED;
    if (!get_system(cpu, area) || !get_segments(cpu, area) ||
        (cpu_long_mode(cpu) && (flags & FLAG_VM))) {
        return false;
    }
    cpu->rflags = flags;
    cpu->rip = load_le64(area + AREA_RIP);
    if (!cpu_code64(cpu)) {
        cpu->rip = (uint32_t)cpu->rip;
    } else if (!mmu_canonical(cpu, cpu->rip)) {
        return false;
    }
    cpu->dr[7] = (load_le64(area + AREA_DR7) & DR7_WRITABLE) | DR7_FIXED;
    cpu->dr[6] = (load_le64(area + AREA_DR6) & DR6_WRITABLE) | DR6_FIXED;
    for (unsigned i = 0; i < 16; i++) {
        cpu->gpr[i] = load_le64(area + AREA_GPRS + 8 * (15 - i));
    }
    cpu->smbase = load_le32(area + AREA_SMBASE);
    cpu->activity = area[AREA_HALT_RESTART] & 1 ? CPU_HALTED : CPU_ACTIVE;
    return true;
}

void smm_return(struct cpu *cpu)
{
    uint8_t area[AREA_BYTES];
    bool good = gmem_read(cpu->mem, area_of(cpu), area, sizeof area) == 0 && get_state(cpu, area);
    cpu->in_smm = false;
    cpu->nmi_blocked = cpu->smm_nmi_blocked;
    cpu->smm_nmi_blocked = false;
    cpu->step_armed = false;
    if (cpu->world->smm_left != NULL) {
        cpu->world->smm_left(cpu->world->ctx, cpu);
    }
    if (!good) {
        cpu->activity = CPU_SHUTDOWN;
    }
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
}

void sem_rsm(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (!cpu->in_smm) {
        cpu_raise(cpu, EXC_UD);
    }
    smm_return(cpu);
}
