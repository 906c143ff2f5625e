/* SPDX-License-Identifier: Apache-2.0
 *
 * x87 instructions are helpers, which load and save the host's FPU for each. Programs that were
 * built to clear registers at the end of every function (gcc -fzero-call-used-regs: sshd is one)
 * execute FLDZ eight times, then FSTP ST(0) eight times, more often than all other x87 code. Those
 * sixteen are one helper.
 */
#include "cpu/fpu.h"
#include "engine/bt/translate.h"

#define HALF 8u
#define BYTES 2u /* of each */
static const uint8_t fldz[BYTES] = { 0xd9, 0xee };
static const uint8_t fstp[BYTES] = { 0xdd, 0xd8 };

#define FSW_C1 0x200u
#define FSW_TOP (7u << FSW_TOP_SHIFT)

static bool is(const struct insn *in, const uint8_t bytes[BYTES])
{
    return in->len == BYTES && memcmp(in->bytes, bytes, BYTES) == 0;
}

/* BT_MODE_SSE: x87 instructions raise no #NM either. Where instructions are counted, each is. */
static bool begins_clear(const struct translation *t)
{
    if (t->count - t->i < 2 * HALF || !(t->mode & BT_MODE_SSE) || t->counts)
        return false;
    for (unsigned k = 0; k < HALF; k++) {
        if (!is(&t->insn[t->i + k], fldz) || !is(&t->insn[t->i + HALF + k], fstp))
            return false;
    }
    return true;
}

bool bt_emit_x87(struct translation *t)
{
    if (!begins_clear(t))
        return false;
    bt_site_at(&t->bt->cache, bt_emit_helper(t))->x87_clear = true;
    t->i += 2 * HALF - 1;
    return true;
}

/* As a processor that does one at a time. */
static void one_by_one(struct cpu *cpu, const struct insn *last, uint64_t first, uint64_t next)
{
    struct insn load;
    if (insn_decode(&load, fldz, BYTES, (enum insn_mode)cpu->mode, &cpu->features) != INSN_OK)
        return; /* no such processor */
    for (unsigned k = 0; k < 2 * HALF; k++) {
        cpu->insn = k < HALF ? &load : last;
        cpu->insn_ip = first + BYTES * k;
        cpu->rip = k + 1 < 2 * HALF ? cpu->insn_ip + BYTES : next;
        sem_table[cpu->insn->op](cpu, cpu->insn);
    }
}

/* Registers that are all empty are all zero after it, and as empty. The last FSTP is done as such,
 * because it says where it was. */
static void sem_x87_clear(struct cpu *cpu, const struct insn *last)
{
    uint64_t first = cpu->insn_ip;
    uint16_t fsw = fx_get16(cpu, FX_FSW);
    if (cpu->fpu.fx[FX_FTW] != 0 || (fsw & FSW_ES)) {
        one_by_one(cpu, last, first, cpu->rip);
        return;
    }
    unsigned top = ((fsw >> FSW_TOP_SHIFT) - 1) & 7;
    memset(cpu->fpu.fx + FX_ST, 0, 8 * 16);
    fx_put16(cpu, FX_FSW, (uint16_t)((fsw & ~(FSW_TOP | FSW_C1)) | top << FSW_TOP_SHIFT));
    cpu->fpu.fx[FX_FTW] = (uint8_t)(1u << top);
    cpu->insn_ip = first + BYTES * (2 * HALF - 1);
    sem_table[last->op](cpu, last);
}

/* call: of the first FLDZ. */
void bt_call_x87_clear(const struct bt_vcpu *v, struct bt_call *call)
{
    enum insn_mode width = call->mode & BT_MODE_WIDTH;
    if (insn_decode(&call->insn, fstp, BYTES, width, &v->cpu->features) != INSN_OK)
        return;
    call->next += BYTES * (2 * HALF - 1);
    call->fn = sem_x87_clear;
}
