/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest memory operands: effective address, TLB check, host address.
 *
 * The check is the inline software TLB of docs/design.md section 5: index by the first byte's page;
 * its distance from the tag says whether all of the access is in that page. An access that must be
 * aligned compares its low bits along with the page instead. What misses is filled out of line, or,
 * when a plain entry cannot serve it (MMIO, crossing, traced page, fault), the whole instruction is
 * done by its helper.
 */
#include "engine/bt/translate.h"

static int32_t seg_base_off(unsigned seg)
{
    return CPU_OFF(seg) + (int32_t)(seg * sizeof(struct cpu_seg) + offsetof(struct cpu_seg, base));
}

bool bt_ea_of(const struct translation *t, const struct insn *in, struct ea *out)
{
    const struct insn_mem *m = &in->mem;
    bool fsgs = m->seg >= SEG_FS;
    *out = (struct ea){
        .base = m->base, .index = m->index, .scale = m->scale, .disp = (int32_t)m->disp
    };
    out->narrow = in->adsize == 4;
    if (!t->mode64 && m->seg == SEG_CS) /* may not be written */
        return false;
    uint32_t open = m->seg == SEG_FS ? BT_MODE_FS : BT_MODE_GS;
    if (in->adsize == 2 || (fsgs && !t->mode64 && !(t->mode & open)))
        return false;
    if (fsgs)
        out->seg_base = seg_base_off(m->seg);
    if (m->base == INSN_REG_RIP || (m->base == INSN_NO_REG && m->index == INSN_NO_REG)) {
        uint64_t v = (uint64_t)m->disp + (m->base == INSN_REG_RIP ? t->ip[t->i + 1] : 0);
        if (out->narrow)
            v = (uint32_t)v;
        out->base = INSN_NO_REG;
        out->slid = t->sliding && m->base == INSN_REG_RIP;
        if (out->slid && out->narrow)
            return false;
        if (!fsgs && !out->slid) {
            out->constant = true;
            out->value = v;
            return true;
        }
        if ((int64_t)v != (int32_t)v)
            return false;
        out->disp = (int32_t)v;
        return true;
    }
    if (m->disp != (int32_t)m->disp)
        return false;
    out->simple = !out->narrow && !fsgs && m->index == INSN_NO_REG && host_of(m->base) != H_NONE;
    return true;
}

/* Guest register to a host one, loading it into tmp when it lives in memory. */
static unsigned in_host(struct translation *t, unsigned guest, unsigned tmp)
{
    if (guest == INSN_NO_REG)
        return H_NONE;
    unsigned h = host_of(guest);
    if (h != H_NONE)
        return h;
    emit_rg(&t->e, 0x8b, true, tmp, gpr_off(guest));
    return tmp;
}

/* dst is T1; may use T0. Leaves flags alone unless a segment base is added. */
void bt_ea_emit(struct translation *t, const struct ea *ea, unsigned dst)
{
    struct emit *e = &t->e;
    if (ea->constant) {
        emit_mov_imm(e, dst, ea->value);
        return;
    }
    if (ea->slid) {
        emit_slid(e, true, dst, ea->disp);
    } else if (ea->base == INSN_NO_REG && ea->index == INSN_NO_REG) {
        emit_mov_imm(e, dst, (uint64_t)(int64_t)ea->disp);
    } else {
        unsigned base = in_host(t, ea->base, dst);
        unsigned index = H_NONE;
        if (ea->index != INSN_NO_REG) {
            bool both = base == dst && host_of(ea->index) == H_NONE;
            if (both) { /* fold the base into T0's place: T0 is free only before the check */
                index = in_host(t, ea->index, dst);
                emit_lea(e, true, dst,
                         (struct host_mem){ H_NONE, (uint8_t)index, ea->scale, ea->disp });
                emit_rg(e, 0x03, !ea->narrow, dst, gpr_off(ea->base));
                base = H_NONE;
            } else {
                index = in_host(t, ea->index, dst);
            }
            if (both)
                goto segment;
        }
        struct host_mem m = { (uint8_t)base, (uint8_t)index, ea->scale, ea->disp };
        if (base != H_NONE && index == H_NONE && ea->disp == 0) {
            if (base != dst || ea->narrow)
                emit_mov_rr(e, !ea->narrow, dst, base);
        } else {
            emit_lea(e, !ea->narrow, dst, m);
        }
    }
segment:
    if (ea->seg_base)
        emit_rg(e, 0x03, t->mode64, dst, ea->seg_base);
}

static uint32_t tag_offset(enum mmu_access access)
{
    return access == MMU_WRITE ? (uint32_t)offsetof(struct tlb_entry, tag_write)
                               : (uint32_t)offsetof(struct tlb_entry, tag_read);
}
#define ADDEND ((int32_t)offsetof(struct tlb_entry, addend))
#define PAGE_MASK_IMM ((int32_t)-4096)

/* entry: of the TLB, from T0. */
static void finish_check(struct translation *t, const struct ea *ea, uint8_t *miss, int32_t entry,
                         enum mmu_access access, uint32_t site)
{
    struct emit *e = &t->e;
    struct host_mem addend = { T0, H_NONE, 0, entry + ADDEND };
    struct cold *c = bt_cold_new(t, COLD_FILL, miss);
    c->site = site | (access == MMU_WRITE ? BT_SITE_WRITE : 0);
    c->ea = *ea;
    emit_rm(e, 0x8b, true, T0, addend);
    c->back = emit_here(e);
}

static bool check_constant(struct translation *t, const struct ea *ea, unsigned size,
                           enum mmu_access access, bool aligned, uint32_t site)
{
    struct emit *e = &t->e;
    uint64_t page = ea->value & ~0xfffull;
    if (((ea->value + size - 1) & ~0xfffull) != page || (aligned && (ea->value & (size - 1))))
        return false;
    int32_t off = (int32_t)((ea->value >> GMEM_PAGE_BITS & (CPU_TLB_SIZE - 1)) *
                            sizeof(struct tlb_entry));
    struct host_mem entry = { T0, H_NONE, 0, off + (int32_t)tag_offset(access) };
    emit_rg(e, 0x8b, true, T0, CPU_OFF(tlb));
    if ((int64_t)page == (int32_t)page) {
        emit_rm(e, 0x81, true, 7, entry); /* cmp qword [entry], imm32 */
        emit4(e, (uint32_t)page);
    } else {
        emit_mov_imm(e, T1, page);
        emit_rm(e, 0x39, true, T1, entry);
    }
    finish_check(t, ea, emit_jcc_fwd(e, CC_NE), off, access, site);
    return true;
}

/* RSP-relative: the page is nearly always the one of the last stack access. The test takes page and
 * alignment at once. */
static void check_stack(struct translation *t, const struct ea *ea, unsigned size,
                        enum mmu_access access, uint32_t site)
{
    struct emit *e = &t->e;
    if (ea->disp == 0)
        emit_mov_rr(e, true, T1, H_13);
    else
        emit_lea(e, true, T1, (struct host_mem){ H_13, H_NONE, 0, ea->disp });
    emit_rg(e, 0x33, true, T1, HOT_OFF(stack_page));
    emit_rr(e, 0xf7, true, 0, T1); /* test T1, imm32 */
    emit4(e, 0xfffff000u | (size - 1));
    struct cold *c = bt_cold_new(t, COLD_STACK, emit_jcc_fwd(e, CC_NE));
    c->site = site | (access == MMU_WRITE ? BT_SITE_WRITE : 0);
    c->ea = *ea;
    emit_rg(e, 0x8b, true, T0, HOT_OFF(stack_addend));
    c->back = emit_here(e);
}

/* Page and alignment at once; or the distance from the page's start, which tells whether the last
 * byte is in the page, too, and is large in another page. */
uint8_t *bt_tlb_compare(struct translation *t, const struct ea *ea, unsigned size,
                        enum mmu_access access, bool aligned)
{
    struct emit *e = &t->e;
    struct host_mem tag = { T0, H_NONE, 0, (int32_t)tag_offset(access) };
    bt_ea_emit(t, ea, T1);
    emit_tlb_entry(e, t->bt->host_bmi2);
    if (aligned) {
        emit_ri(e, 4, true, T1, PAGE_MASK_IMM | (int32_t)(size - 1));
        emit_rm(e, 0x3b, true, T1, tag);
        return emit_jcc_fwd(e, CC_NE);
    }
    emit_rm(e, 0x33, true, T1, tag); /* xor */
    emit_ri(e, 7, true, T1, (int32_t)(GMEM_PAGE_SIZE - size));
    return emit_jcc_fwd(e, CC_A);
}

bool bt_mem_check(struct translation *t, const struct ea *ea, unsigned size, enum mmu_access access,
                  bool aligned, uint32_t site)
{
    struct bt_site *s = bt_site_at(&t->bt->cache, site);
    s->size = (uint8_t)size;
    s->aligned = aligned;
    if (!aligned && bt_group_check(t, ea, size, access == MMU_WRITE))
        return true;
    t->in_t0 = NULL;
    bt_flags_release(t);
    if (ea->constant)
        return check_constant(t, ea, size, access, aligned, site);
    /* A block that checks alone is there because its frame lies in two pages: each would take the
     * place of the other as the stack's at every turn. */
    if (!(t->mode & BT_MODE_SINGLE) && ea->simple && ea->base == R_SP && size >= 2 && size <= 8 &&
        is_pow2(size)) {
        check_stack(t, ea, size, access, site);
        return true;
    }
    finish_check(t, ea, bt_tlb_compare(t, ea, size, access, aligned), 0, access, site);
    return true;
}

void bt_mem_check_masked(struct translation *t, const struct ea *ea, unsigned size,
                         enum mmu_access access, bool aligned, uint32_t site)
{
    struct emit *e = &t->e;
    t->in_t0 = NULL;
    bt_flags_release(t);
    uint8_t *miss = bt_tlb_compare(t, ea, size, access, aligned);
    bt_cold_new(t, COLD_HELPER, miss)->site = site;
    emit_rm(e, 0x8b, true, T0, (struct host_mem){ T0, H_NONE, 0, ADDEND });
}

struct host_mem bt_mem_operand(struct translation *t, const struct ea *ea, bool t1_free)
{
    struct emit *e = &t->e;
    if (ea->simple)
        return (struct host_mem){ T0, (uint8_t)host_of(ea->base), 0, ea->disp };
    if (ea->constant && (int64_t)ea->value == (int32_t)ea->value)
        return (struct host_mem){ T0, H_NONE, 0, (int32_t)ea->value };
    t->in_t0 = NULL;
    bt_ea_emit(t, ea, T1);
    if (!t1_free)
        return (struct host_mem){ T0, T1, 0, 0 };
    emit_lea(e, true, T0, (struct host_mem){ T0, T1, 0, 0 }); /* flags may be the guest's */
    return (struct host_mem){ T0, H_NONE, 0, 0 };
}
