/* SPDX-License-Identifier: Apache-2.0
 *
 * Instructions emitted as themselves: same operation, same flags, with registers renumbered and the
 * memory operand redirected. What an operand is comes from the instruction table; the bytes are
 * made in encode.c.
 */
#include "engine/bt/encode.h"

static bool general_op(const struct insn *in)
{
    switch (in->op) {
    case OP_ADD:
    case OP_OR:
    case OP_ADC:
    case OP_SBB:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
    case OP_CMP:
    case OP_TEST:
    case OP_NOT:
    case OP_NEG:
    case OP_MUL:
    case OP_IMUL1:
    case OP_IMUL:
    case OP_INC:
    case OP_DEC:
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_SHLD:
    case OP_SHRD:
    case OP_BSF:
    case OP_BSR:
    case OP_TZCNT:
    case OP_LZCNT:
    case OP_POPCNT:
    case OP_BSWAP:
    case OP_XCHG:
    case OP_XADD:
    case OP_CMPXCHG:
    case OP_MOV:
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
    case OP_CMOVCC:
    case OP_SETCC:
    case OP_MOVBE:
    case OP_CRC32:
    case OP_ADCX:
    case OP_ADOX:
    case OP_ANDN:
    case OP_BEXTR:
    case OP_BLSI:
    case OP_BLSMSK:
    case OP_BLSR:
    case OP_BZHI:
    case OP_MULX:
    case OP_PDEP:
    case OP_PEXT:
    case OP_RORX:
    case OP_SARX:
    case OP_SHLX:
    case OP_SHRX:
    case OP_MOVNTI:
        return true;
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC: /* a register bit offset reaches past the operand */
        return !(in->opnd[0].kind == OPND_MEM && in->opnd[1].kind != OPND_IMM);
    default:
        return false;
    }
}

bool bt_native_vector(const struct translation *t, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    uint32_t a = info->attr;
    if (in->op == OP_VLDMXCSR ||
        in->op == OP_VSTMXCSR) /* checks the value; ends in MXCSR's own place */
        return false;
    if (!(a & IA_HOST) || (a & (IA_X87 | IA_MMX | IA_VSIB)))
        return false;
    if ((a & IA_FP_EXC) && (t->mode & BT_MODE_FPEXC))
        return false;
    if (a & IA_AVX512) /* what is expanded or compressed has a length of its own in memory */
        return t->bt->host_avx512 && (t->mode & BT_MODE_AVX) && (t->mode & BT_MODE_AVX512) &&
               !in->evex_packed;
    if (a & IA_AVX)
        return (t->mode & BT_MODE_AVX) != 0;
    return (a & IA_SSE) && (t->mode & BT_MODE_SSE);
}

/* A host register for a guest one: pinned, or a scratch register with a load and a store planned.
 * */
static bool place(struct bt_plan *p, const struct opnd *o, bool must_load, unsigned *host)
{
    unsigned guest = o->reg;
    if (o->size == 1 && guest >= 16) {
        p->high_byte = true;
        *host = guest - 12; /* AH..BH are 4..7 in an encoding without REX */
        return true;
    }
    *host = host_of(guest);
    if (*host == H_NONE) {
        for (unsigned i = 0; i < p->loads; i++) {
            if (p->load[i].guest == guest) { /* the same register twice */
                *host = p->load[i].host;
                goto placed;
            }
        }
        for (unsigned i = 0; i < p->stores; i++) {
            if (p->store[i].guest == guest) {
                *host = p->store[i].host;
                goto load;
            }
        }
        if ((p->temps & 3) == 3)
            return false;
        unsigned bit = p->temps & 2 ? 1 : 2; /* T1 first: T0 is the address of a memory operand */
        *host = bit == 2 ? T1 : T0;
        p->temps |= (uint8_t)bit;
    load:
        if ((o->access & OPND_R) || must_load) {
            p->load[p->loads].host = (uint8_t)*host;
            p->load[p->loads++].guest = (uint8_t)guest;
        }
    placed:
        if (o->access & OPND_W) {
            for (unsigned i = 0; i < p->stores; i++)
                if (p->store[i].guest == guest)
                    goto stored;
            p->store[p->stores].host = (uint8_t)*host;
            p->store[p->stores++].guest = (uint8_t)guest;
        }
    stored:;
    }
    if (o->size == 1 && *host >= 4 && *host < 8)
        p->rex_needed = true;
    return true;
}

static bool make_plan(struct translation *t, const struct insn *in, struct bt_plan *p)
{
    *p = (struct bt_plan){
        .row = &insn_row[in->row], .mode64 = t->mode64, .z_host = H_NONE, .mem_opnd = -1
    };
    p->reg_host = in->modrm >> 3 & 7;
    p->rm_host = in->modrm & 7;
    for (unsigned k = 0; k < in->nopnd; k++) {
        if (in->opnd[k].kind == OPND_MEM) {
            p->mem_opnd = (int)k;
            p->temps |= 1; /* T0 holds the host address */
        }
    }
    for (unsigned k = 0; k < in->nopnd; k++) {
        const struct opnd *o = &in->opnd[k];
        unsigned how = p->row->opnd[k].how;
        bool gpr = o->kind == OPND_GPR;
        bool load = gpr &&
                    (o->size < 4 || in->op == OP_CMOVCC || in->op == OP_BSF || in->op == OP_BSR);
        unsigned *host;
        switch (how) {
        case OH_E:
        case OH_R:
        case OH_W:
        case OH_U:
        case OH_KE:
            if (o->kind == OPND_MEM)
                continue;
            host = &p->rm_host;
            break;
        case OH_M:
            continue;
        case OH_G:
        case OH_V:
        case OH_K:
            host = &p->reg_host;
            break;
        case OH_B:
        case OH_H:
        case OH_KH:
            host = &p->vvvv_host;
            break;
        case OH_Z:
            host = &p->z_host;
            break;
        case OH_I:
        case OH_IS:
            p->imm_bytes += o->size;
            continue;
        case OH_L:
            p->imm_bytes++;
            p->is4 = true;
            continue;
        case OH_ONE:
        case OH_FIX_VEC:
            continue;
        case OH_FIX_GPR: /* AX, CX, DX keep their number on the host */
            if (o->size == 1 && o->reg >= 16)
                return false;
            if (host_of(o->reg & 15) != (o->reg & 15u))
                return false;
            continue;
        default:
            return false;
        }
        if (o->kind == OPND_VEC || o->kind == OPND_K)
            *host = o->reg;
        else if (!gpr || !place(p, o, load, host))
            return false;
    }
    return true;
}

static void load_temps(struct emit *e, const struct bt_plan *p)
{
    for (unsigned i = 0; i < p->loads; i++)
        emit_rg(e, 0x8b, true, p->load[i].host, gpr_off(p->load[i].guest));
}

static void store_temps(struct emit *e, const struct bt_plan *p)
{
    for (unsigned i = 0; i < p->stores; i++)
        emit_rg(e, 0x89, true, p->store[i].host, gpr_off(p->store[i].guest));
}

/* Arithmetic flags that do not depend on what they were. Some of those that the manual leaves
 * undefined do: processors leave them. */
static uint32_t flags_replaced(const struct translation *t, const struct insn *in)
{
    uint32_t written = insn_flags_written(in) & (uint32_t)FLAGS_ARITH;
    switch (in->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        return (uint32_t)FLAG_CF;
    case OP_MUL:
    case OP_IMUL:
    case OP_IMUL1:
    case OP_DIV:
    case OP_IDIV:
    case OP_BSF:
    case OP_BSR:
    case OP_TZCNT:
    case OP_LZCNT:
        return cpu_is_amd(t->cpu) ? written & ~insn_info[in->row].flags_undefined : written;
    default:
        return written;
    }
}

static void flags_before(struct translation *t, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    uint32_t arith = (uint32_t)FLAGS_ARITH;
    uint32_t written = flags_replaced(t, in);
    uint32_t kept = t->live[t->i + 1] & ~written;
    if ((insn_flags_read(in) & arith) ||
        ((written | (info->flags_undefined & arith)) && (kept & arith)))
        bt_flags_load(t);
}

static void flags_after(struct translation *t, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    if ((info->flags_written | info->flags_undefined) & (uint32_t)FLAGS_ARITH)
        bt_flags_written(t);
}

static void require_fp(struct translation *t)
{
    struct emit *e = &t->e;
    if (t->fp_known)
        return;
    bt_flags_release(t);
    emit_xg(e, 0x80, 7, HOT_OFF(fp_loaded)); /* cmp byte [fp_loaded], 0 */
    emit1(e, 0);
    struct cold *c = bt_cold_new(t, COLD_FP_LOAD, emit_jcc_fwd(e, CC_E));
    c->back = emit_here(e);
    t->fp_known = true;
}

static bool emit_with_memory(struct translation *t, const struct insn *in, struct bt_plan *p)
{
    struct emit *e = &t->e;
    const struct opnd *m = &in->opnd[p->mem_opnd];
    const struct insn_info *info = &insn_info[in->row];
    struct ea ea;
    if (p->high_byte || m->size == 0 || m->size > 64 || !bt_ea_of(t, in, &ea))
        return false;
    bool t1_busy = (p->temps & 2) != 0;
    bool aligned = (info->attr & IA_ALIGN) != 0;
    enum mmu_access access = m->access & OPND_W ? MMU_WRITE : MMU_READ;
    uint32_t site = bt_site_new(t);
    if (bt_masked(in))
        bt_mem_check_masked(t, &ea, m->size, access, aligned, site);
    else if (!bt_mem_check(t, &ea, m->size, access, aligned, site))
        return false;
    struct host_mem mem = bt_mem_operand(t, &ea, t1_busy);
    t->keeps_t0 = true;
    load_temps(e, p);
    flags_before(t, in);
    bt_encode(e, in, p, mem);
    store_temps(e, p);
    bt_site_end(t, site);
    flags_after(t, in);
    return true;
}

static bool emit_planned(struct translation *t, const struct insn *in)
{
    struct bt_plan p;
    if (!make_plan(t, in, &p))
        return false;
    if (insn_info[in->row].attr & IA_HOST)
        require_fp(t);
    if (p.mem_opnd >= 0)
        return emit_with_memory(t, in, &p);
    if (p.high_byte &&
        (p.rex_needed || p.temps || (in->flags & INSN_W) || p.reg_host >= 8 || p.rm_host >= 8))
        return false;
    t->keeps_t0 = !(p.temps & 1);
    load_temps(&t->e, &p);
    flags_before(t, in);
    bt_encode(&t->e, in, &p, (struct host_mem){ 0 });
    store_temps(&t->e, &p);
    flags_after(t, in);
    return true;
}

/* -- Instructions with an emission of their own ------------------------------------------------ */

static bool emit_lea_insn(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    unsigned guest = in->opnd[0].reg;
    unsigned dst = host_of(guest);
    struct insn plain = *in;
    struct ea ea;
    plain.mem.seg = SEG_DS; /* the segment is not looked at */
    if (in->opsize == 2 || !bt_ea_of(t, &plain, &ea))
        return false;
    unsigned to = dst == H_NONE ? T1 : dst;
    bool wide = in->opsize == 8;
    bool spilled = (ea.base < 16 && host_of(ea.base) == H_NONE) ||
                   (ea.index < 16 && host_of(ea.index) == H_NONE);
    if (ea.constant) {
        emit_mov_imm(e, to, wide ? ea.value : (uint32_t)ea.value);
    } else if (ea.slid) {
        emit_slid(e, wide, to, ea.disp);
        t->keeps_t0 = true;
    } else {
        unsigned base = ea.base == INSN_NO_REG ? H_NONE : host_of(ea.base);
        unsigned index = ea.index == INSN_NO_REG ? H_NONE : host_of(ea.index);
        if (spilled && ea.base < 16 && base == H_NONE) {
            base = T0;
            emit_rg(e, 0x8b, true, T0, gpr_off(ea.base));
        }
        if (spilled && ea.index < 16 && index == H_NONE) {
            index = T1;
            emit_rg(e, 0x8b, true, T1, gpr_off(ea.index));
        }
        t->keeps_t0 = !spilled;
        emit_lea(e, wide && !ea.narrow, to,
                 (struct host_mem){ (uint8_t)base, (uint8_t)index, ea.scale, ea.disp });
    }
    if (dst == H_NONE)
        emit_rg(e, 0x89, true, T1, gpr_off(guest));
    return true;
}

/* MOV between AH..BH and memory: no REX goes with them, which the address needs. The register's low
 * bytes change places for the moment; XCHG leaves the flags alone. */
static bool emit_mov_high(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    bool store = in->opnd[0].kind == OPND_MEM;
    uint8_t low = (uint8_t)(in->opnd[store ? 1 : 0].reg - 16);
    const uint8_t swap[2] = { 0x86, (uint8_t)(0xc0 | low << 3 | (low + 4)) };
    struct ea ea;
    if (in->opnd[store ? 0 : 1].size != 1 || !bt_ea_of(t, in, &ea))
        return false;
    uint32_t site = bt_site_new(t);
    if (!bt_mem_check(t, &ea, 1, store ? MMU_WRITE : MMU_READ, false, site))
        return false;
    ea.simple = false; /* its base may be that very register */
    struct host_mem mem = bt_mem_operand(t, &ea, true);
    emit_bytes(e, swap, 2);
    emit_rm(e, store ? 0x88 : 0x8a, false, low, mem);
    emit_bytes(e, swap, 2);
    bt_site_end(t, site);
    return true;
}

/* MOV AL/rAX, moffs and back: as the ModRM forms. */
static bool emit_moffs(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    bool store = in->opnd[0].kind == OPND_MEM;
    const struct opnd *m = &in->opnd[store ? 0 : 1];
    struct ea ea;
    if (!bt_ea_of(t, in, &ea))
        return false;
    uint32_t site = bt_site_new(t);
    if (!bt_mem_check(t, &ea, m->size, store ? MMU_WRITE : MMU_READ, false, site))
        return false;
    struct host_mem mem = bt_mem_operand(t, &ea, false);
    if (m->size == 2)
        emit1(e, 0x66);
    emit_rm(e, (uint8_t)((store ? 0x88 : 0x8a) | (m->size > 1)), m->size == 8, H_AX, mem);
    bt_site_end(t, site);
    return true;
}

static bool emit_mov_z_imm(struct translation *t, const struct insn *in)
{
    const struct opnd *o = &in->opnd[0];
    if (o->size < 4)
        return emit_planned(t, in);
    unsigned h = host_of(o->reg);
    uint64_t v = o->size == 4 ? (uint32_t)in->imm : (uint64_t)in->imm;
    emit_mov_imm(&t->e, h == H_NONE ? T1 : h, v);
    if (h == H_NONE)
        emit_rg(&t->e, 0x89, true, T1, gpr_off(o->reg));
    return true;
}

/* DIV and IDIV raise #DE on the host too: take the helper unless the quotient surely fits. */
static bool emit_div(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    const struct opnd *o = NULL;
    for (unsigned k = 0; k < in->nopnd; k++) {
        if (insn_row[in->row].opnd[k].how == OH_E)
            o = &in->opnd[k];
    }
    if (o == NULL || o->size < 4)
        return false;
    bool w = o->size == 8;
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    if (o->kind == OPND_MEM) {
        struct ea ea;
        if (!bt_ea_of(t, in, &ea) || !bt_mem_check(t, &ea, o->size, MMU_READ, false, site))
            return false;
        emit_rm(e, 0x8b, w, T1, bt_mem_operand(t, &ea, false));
    } else if (host_of(o->reg) == H_NONE) {
        emit_rg(e, 0x8b, w, T1, gpr_off(o->reg));
    } else {
        emit_mov_rr(e, w, T1, host_of(o->reg));
    }
    if (in->op == OP_DIV) {
        emit_rr(e, 0x39, w, T1, H_DX); /* cmp rdx, T1: above or equal does not fit */
        bt_cold_new(t, COLD_HELPER, emit_jcc_fwd(e, CC_AE))->site = site;
    } else {
        emit_mov_rr(e, w, T0, H_AX);
        emit_rr(e, 0xc1, w, 7, T0); /* sar */
        emit1(e, w ? 63 : 31);
        emit_rr(e, 0x39, w, T0, H_DX);
        bt_cold_new(t, COLD_HELPER, emit_jcc_fwd(e, CC_NE))->site = site;
        emit_lea(e, w, T0, (struct host_mem){ T1, H_NONE, 0, 1 }); /* 0 and -1 */
        emit_ri(e, 7, w, T0, 1);
        bt_cold_new(t, COLD_HELPER, emit_jcc_fwd(e, CC_BE))->site = site;
    }
    /* The manual leaves the flags undefined; Intel's processors leave them alone, AMD's do not. */
    bool flags = cpu_is_amd(t->cpu) && t->live[t->i + 1] != 0;
    if (flags)
        bt_flags_load(t);
    emit_rr(e, 0xf7, w, in->op == OP_DIV ? 6 : 7, T1);
    if (flags) {
        bt_flags_written(t);
        bt_flags_save(t);
        t->flags = FLAGS_MEM; /* where the helper leaves them */
    }
    bt_site_end(t, site);
    return true;
}

/* One fixed opcode on fixed registers and flags: the bytes after segment and address prefixes. */
static void emit_plain(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    unsigned imm = 0;
    for (unsigned k = 0; k < in->nopnd; k++)
        imm += in->opnd[k].kind == OPND_IMM ? in->opnd[k].size : 0;
    flags_before(t, in);
    if (in->flags & INSN_OPSIZE)
        emit1(e, 0x66);
    if (in->flags & INSN_W)
        emit1(e, 0x48);
    emit1(e, in->opcode);
    emit_bytes(e, in->bytes + in->len - imm, imm);
    flags_after(t, in);
}

static void emit_inc_dec_short(struct translation *t, const struct insn *in)
{
    flags_before(t, in);
    if (in->flags & INSN_OPSIZE)
        emit1(&t->e, 0x66);
    emit_rr(&t->e, 0xff, false, in->op == OP_DEC, host_of(in->opnd[0].reg));
    flags_after(t, in);
}

bool bt_emit_native(struct translation *t)
{
    const struct insn *in = &t->insn[t->i];
    const struct insn_row *row = &insn_row[in->row];
    if (insn_info[in->row].attr & IA_HOST) {
        if (!bt_native_vector(t, in))
            return false;
        if (in->flags & INSN_HAS_MODRM)
            return emit_planned(t, in);
        if ((in->op != OP_VZEROUPPER && in->op != OP_VZEROALL) || !t->mode64)
            return false; /* outside 64-bit mode registers 8 to 15 stay */
        require_fp(t);
        emit1(&t->e, 0xc5);
        emit1(&t->e, in->op == OP_VZEROALL ? 0xfc : 0xf8);
        emit1(&t->e, 0x77);
        return true;
    }
    switch (in->op) {
    case OP_NOP:
    case OP_LFENCE:
    case OP_SFENCE:
        return true;
    case OP_MFENCE:
        emit_bytes(&t->e, (const uint8_t[]){ 0x0f, 0xae, 0xf0 }, 3);
        return true;
    case OP_LEA:
        return emit_lea_insn(t, in);
    case OP_DIV:
    case OP_IDIV:
        return emit_div(t, in);
    case OP_CBW:
    case OP_CWD:
    case OP_CLC:
    case OP_STC:
    case OP_CMC:
    case OP_LAHF:
    case OP_SAHF:
        emit_plain(t, in);
        return true;
    default:
        break;
    }
    if (!general_op(in))
        return false;
    if (in->op == OP_MOV && in->nopnd == 2 && in->opnd[0].size == 1 &&
        ((in->opnd[0].kind == OPND_MEM && in->opnd[1].kind == OPND_GPR && in->opnd[1].reg >= 16) ||
         (in->opnd[1].kind == OPND_MEM && in->opnd[0].kind == OPND_GPR && in->opnd[0].reg >= 16)))
        return (in->flags & INSN_HAS_MODRM) && emit_mov_high(t, in);
    if (in->flags & INSN_HAS_MODRM)
        return emit_planned(t, in);
    unsigned how = row->opnd[0].how;
    if (row->opnd[0].how == OH_O || row->opnd[1].how == OH_O)
        return emit_moffs(t, in);
    if (how == OH_Z && in->op == OP_MOV)
        return emit_mov_z_imm(t, in);
    if (how == OH_Z && (in->op == OP_INC || in->op == OP_DEC)) {
        emit_inc_dec_short(t, in);
        return true;
    }
    if (how == OH_Z)
        return emit_planned(t, in);
    if (how == OH_FIX_GPR && in->op != OP_XCHG) {
        emit_plain(t, in);
        return true;
    }
    return false;
}
