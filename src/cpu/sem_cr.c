/* SPDX-License-Identifier: Apache-2.0
 *
 * Control and debug registers: MOV CR, MOV DR, LMSW, SMSW, CLTS, and the consistency rules among
 * CR0, CR3, CR4 and EFER (SDM 3 2.5, 4.1, 10.8.5). */
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/model.h"
#include "cpu/opnd.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"
#include "cpu/umip.h"

#define CR3_NO_FLUSH (1ull << 63)

static _Noreturn void gp(struct cpu *cpu) { cpu_raise_error(cpu, EXC_GP, 0); }

/* -- CR0
 * -----------------------------------------------------------------------------------------------
 */
static void check_paging_on(struct cpu *cpu)
{
    if (!(cpu->efer & EFER_LME)) {
        return;
    }
    if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attr & SEG_ATTR_L) ||
        (seg_type(&cpu->tr) & 8) == 0) { /* a 16-bit TSS does not go with long mode */
        gp(cpu);
    }
}

static void check_paging_off(struct cpu *cpu)
{
    if (cpu->mode == INSN_MODE_64 || (cpu->cr4 & CR4_PCIDE)) {
        gp(cpu);
    }
}

static void write_cr0(struct cpu *cpu, uint64_t v)
{
    if (v >> 32 != 0 || ((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD))) {
        gp(cpu);
    }
    v = (v & CR0_KNOWN) | CR0_ET;
    uint64_t changed = v ^ cpu->cr0;
    if (changed & v & CR0_PG) {
        check_paging_on(cpu);
    } else if (changed & CR0_PG) {
        check_paging_off(cpu);
    }
    bool pae = (v & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LME);
    if (pae && (changed & (CR0_PG | CR0_CD | CR0_NW)) && !mmu_load_pdptes(cpu, cpu->cr3)) {
        gp(cpu);
    }
    cpu->cr0 = v;
    if (changed & CR0_PG) {
        bool lma = (v & CR0_PG) && (cpu->efer & EFER_LME);
        cpu->efer = lma ? cpu->efer | EFER_LMA : cpu->efer & ~EFER_LMA;
    }
    if (changed & (CR0_PG | CR0_WP)) {
        tlb_flush_all(cpu);
    }
    cpu_update_mode(cpu);
}

/* -- CR3
 * -----------------------------------------------------------------------------------------------
 */
static void write_cr3(struct cpu *cpu, uint64_t v)
{
    bool pcid = cpu->cr4 & CR4_PCIDE;
    bool keep = pcid && (v & CR3_NO_FLUSH);
    if (pcid) {
        v &= ~CR3_NO_FLUSH;
    }
    if (cpu_long_mode(cpu) ? v & ~MASK64(cpu->model->phys_bits) : 0) {
        gp(cpu);
    }
    if (mmu_pae_paging(cpu) && !mmu_load_pdptes(cpu, v)) {
        gp(cpu);
    }
    cpu->cr3 = v;
    if (!pcid) {
        tlb_flush_local(cpu);
        return;
    }
    if (!keep) {
        tlb_flush_asid(cpu, v & 0xfff);
    }
    tlb_switch(cpu);
}

/* -- CR4
 * -----------------------------------------------------------------------------------------------
 */
uint64_t cpu_cr4_known(const struct cpu *cpu)
{
    static const struct {
        uint8_t feature;
        uint32_t bits;
    } by_feature[] = {
        { CPU_FEATURE_VME, CR4_VME | CR4_PVI }, { CPU_FEATURE_DE, CR4_DE },
        { CPU_FEATURE_PSE, CR4_PSE },           { CPU_FEATURE_PAE, CR4_PAE },
        { CPU_FEATURE_MCE, CR4_MCE },           { CPU_FEATURE_PGE, CR4_PGE },
        { CPU_FEATURE_UMIP, CR4_UMIP },         { CPU_FEATURE_LA57, CR4_LA57 },
        { CPU_FEATURE_FSGSBASE, CR4_FSGSBASE }, { CPU_FEATURE_PCID, CR4_PCIDE },
        { CPU_FEATURE_XSAVE, CR4_OSXSAVE },     { CPU_FEATURE_SMEP, CR4_SMEP },
        { CPU_FEATURE_SMAP, CR4_SMAP },         { CPU_FEATURE_PKU, CR4_PKE },
    };
    uint64_t known = CR4_TSD | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    for (unsigned i = 0; i < ARRAY_LEN(by_feature); i++) {
        if (cpu_has(&cpu->features, by_feature[i].feature)) {
            known |= by_feature[i].bits;
        }
    }
    return known;
}

static void write_cr4(struct cpu *cpu, uint64_t v)
{
    uint64_t changed = v ^ cpu->cr4;
    if (v & ~cpu_cr4_known(cpu)) {
        gp(cpu);
    }
    if (cpu_long_mode(cpu) && ((changed & CR4_LA57) || !(v & CR4_PAE))) {
        gp(cpu);
    }
    if ((changed & v & CR4_PCIDE) && (!cpu_long_mode(cpu) || (cpu->cr3 & 0xfff) != 0)) {
        gp(cpu);
    }
    bool pae = (cpu->cr0 & CR0_PG) && (v & CR4_PAE) && !cpu_long_mode(cpu);
    if (pae && (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)) &&
        !mmu_load_pdptes(cpu, cpu->cr3)) {
        gp(cpu);
    }
    cpu->cr4 = v;
    if (changed &
        (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_LA57)) {
        tlb_flush_all(cpu);
    }
    cpu_update_mode(cpu);
}

/* -- Instructions ------------------------------------------------------------------------------ */
static void read_cr(struct cpu *cpu, const struct insn *in)
{
    const struct cpu_world *w = cpu->world;
    uint64_t v;
    switch (in->opnd[1].reg) {
    case 0:
        v = cpu->cr0;
        break;
    case 2:
        v = cpu->cr2;
        break;
    case 3:
        v = cpu->cr3;
        break;
    case 4:
        v = cpu->cr4;
        break;
    default:
        v = w->cr8_get(w->ctx, cpu);
        break;
    }
    gpr_write(cpu, in->opnd[0].reg, in->opnd[0].size, v);
}

static void write_cr8(struct cpu *cpu, uint64_t v)
{
    const struct cpu_world *w = cpu->world;
    if (v > 15) {
        gp(cpu);
    }
    w->cr8_set(w->ctx, cpu, (uint8_t)v);
}

void sem_mov_cr(struct cpu *cpu, const struct insn *in)
{
    cpu_need_cpl0(cpu);
    if (in->opnd[0].kind != OPND_CREG) {
        read_cr(cpu, in);
        return;
    }
    uint64_t v = gpr_read(cpu, in->opnd[1].reg, in->opnd[1].size);
    switch (in->opnd[0].reg) {
    case 0:
        write_cr0(cpu, v);
        break;
    case 2:
        cpu->cr2 = v;
        break;
    case 3:
        write_cr3(cpu, v);
        break;
    case 4:
        write_cr4(cpu, v);
        break;
    default:
        write_cr8(cpu, v);
        break;
    }
}

/* PE can be set but not cleared. */
void sem_lmsw(struct cpu *cpu, const struct insn *in)
{
    cpu_need_cpl0(cpu);
    uint64_t v = opnd_read(cpu, in, 0) & 0xf;
    write_cr0(cpu, (cpu->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | v);
}

void sem_smsw(struct cpu *cpu, const struct insn *in)
{
    umip_check(cpu);
    opnd_write(cpu, in, 0, cpu->cr0);
}

void sem_clts(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_need_cpl0(cpu);
    cpu->cr0 &= ~CR0_TS;
}

/* -- Debug registers --------------------------------------------------------------------------- */
/* DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE takes them away. */
static unsigned debug_register(struct cpu *cpu, unsigned reg)
{
    if (reg == 4 || reg == 5) {
        if (cpu->cr4 & CR4_DE) {
            cpu_raise(cpu, EXC_UD);
        }
        reg += 2;
    }
    return reg;
}

static void write_dr(struct cpu *cpu, unsigned reg, uint64_t v)
{
    if (reg >= 6 && v >> 32 != 0) {
        gp(cpu);
    }
    if (reg == 6) {
        cpu->dr[6] = (v & DR6_WRITABLE) | DR6_FIXED;
        return;
    }
    if (reg == 7) {
        v = (v & DR7_WRITABLE) | DR7_FIXED;
    }
    bool active = cpu_debug_active(cpu);
    cpu->dr[reg] = v;
    if (active || cpu_debug_active(cpu)) {
        tlb_flush_all(cpu); /* which pages are watched is in the TLB */
    }
    cpu_update_trap(cpu);
}

void sem_mov_dr(struct cpu *cpu, const struct insn *in)
{
    bool write = in->opnd[0].kind == OPND_DREG;
    unsigned reg = debug_register(cpu, in->opnd[write ? 0 : 1].reg);
    cpu_need_cpl0(cpu);
    if (cpu->dr[7] & DR7_GD) {
        cpu_raise_db(cpu, DR6_BD);
    }
    if (write) {
        write_dr(cpu, reg, gpr_read(cpu, in->opnd[1].reg, in->opnd[1].size));
    } else {
        gpr_write(cpu, in->opnd[0].reg, in->opnd[0].size, cpu->dr[reg]);
    }
}
