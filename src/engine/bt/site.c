/* SPDX-License-Identifier: Apache-2.0
 *
 * Sites: instructions of a block that may need C. There is one for each memory access, few of them
 * are ever used, and those often. So a site is as small as can be, and what its helper needs, the
 * decoded instruction above all, is made when it is called and kept in a table of the vCPU.
 *
 * The instruction's bytes are in the site: the guest may have changed its own meanwhile.
 */
#include <stdlib.h>

#include "cpu/except.h"
#include "engine/bt/translate.h"

bool bt_ends_block(uint32_t mode, const struct insn *in)
{
    if (bt_system_op(mode, in))
        return false;
    switch (in->op) {
    case OP_LDMXCSR: /* unmasked exceptions are a mode: BT_MODE_FPEXC */
    case OP_VLDMXCSR:
    case OP_FXRSTOR:
    case OP_XRSTOR:
    case OP_XRSTORS:
        return true;
    case OP_MOV_SREG: /* BT_MODE_FLAT, BT_MODE_FS, BT_MODE_GS */
    case OP_POP_SREG:
    case OP_LDS:
    case OP_LES:
    case OP_LFS:
    case OP_LGS:
    case OP_LSS:
        return (mode & BT_MODE_WIDTH) != INSN_MODE_64 && !(mode & BT_MODE_VM);
    default:
        return (insn_info[in->row].attr & IA_ENDS_BLOCK) != 0;
    }
}

void bt_make_invalid(struct insn *in, bool too_long)
{
    *in = (struct insn){ .op = OP_INVALID, .len = 1, .imm2 = too_long };
}

uint32_t bt_site_new(struct translation *t)
{
    struct bt_cache *c = &t->bt->cache;
    const struct insn *in = &t->insn[t->i];
    uint32_t n = c->site_used;
    struct bt_site *s = bt_site_at(c, n);
    *s = (struct bt_site){ .block = bt_number(c, t->block),
                           .at = (uint16_t)(t->ip[t->i] - t->pc),
                           .fp_live = t->fp_known,
                           .uncounted = (uint8_t)bt_uncounted(t, t->i + 1) };
    if (in->op == OP_INVALID) {
        s->size = in->imm2 != 0;
    } else {
        s->len = in->len;
        memcpy(s->bytes, in->bytes, in->len);
    }
    c->site_used += bt_site_words(s);
    return n;
}

void bt_site_end(struct translation *t, uint32_t site)
{
    bt_site_at(&t->bt->cache, site)->resume = (uint32_t)(t->e.p - t->bt->cache.write);
}

static void sem_too_long(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_raise_error(cpu, EXC_GP, 0);
}

/* 16-bit code, too, does not wrap at its segment's end: the next fetch is #GP. */
static uint64_t ip_mask(uint32_t mode)
{
    return (mode & BT_MODE_WIDTH) == INSN_MODE_64 ? ~0ull : 0xffffffff;
}

static void make_call(const struct bt_vcpu *v, const struct bt_site *s, struct bt_call *out)
{
    const struct bt_block *b = &v->bt->cache.blocks[s->block];
    struct insn *in = &out->insn;
    if (s->len == 0 ||
        insn_decode(in, s->bytes, s->len, b->mode & BT_MODE_WIDTH, &v->cpu->features) != INSN_OK)
        bt_make_invalid(in, s->size != 0);
    out->resume = s->resume;
    out->ip = (b->pc + s->at - b->cs_base) & ip_mask(b->mode);
    out->next = (out->ip + in->len) & ip_mask(b->mode);
    out->fn = in->op != OP_INVALID ? sem_table[in->op] : in->imm2 ? sem_too_long : sem_undefined;
    out->mode = b->mode;
    out->fp_live = s->fp_live;
    out->leaves = s->leaves;
    out->uncounted = s->uncounted;
    out->ends_block = bt_ends_block(b->mode, in);
    out->branch = insn_info[in->row].branch != BR_NONE;
    if (s->x87_clear)
        bt_call_x87_clear(v, out);
}

const struct bt_call *bt_call_of(struct bt_vcpu *v, uint32_t site)
{
    struct bt_call *call = &v->calls[site * 0x9e3779b1u >> 22];
    if (unlikely(call->site != site)) {
        make_call(v, bt_site_at(&v->bt->cache, site), call);
        call->site = site;
    }
    return call;
}
_Static_assert(BT_CALLS == 1u << 10, "index shift");

/* Numbers of sites are given out anew. */
void bt_calls_forget(struct bt_vcpu *v)
{
    for (unsigned i = 0; i < BT_CALLS; i++)
        v->calls[i].site = 0;
}
