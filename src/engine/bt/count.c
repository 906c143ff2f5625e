/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual time: instructions are counted, and a vCPU stops at an exact number of them. A block is
 * entered only when all of it may run; it counts what it has done where it may be left: before
 * branches and at its end. In between, cpu->icount lags, and a site knows by how much.
 */
#include "engine/bt/translate.h"

/* At a block's entry, flags in memory: leave when its last instruction lies beyond the limit. The
 * run loop goes the rest of the way step by step. */
void bt_count_limit(struct translation *t, uint32_t exit)
{
    struct emit *e = &t->e;
    if (!t->counts)
        return;
    emit_rg(e, 0x8b, true, T0, CPU_OFF(icount));
    emit_ri(e, 0, true, T0, (int32_t)t->count);
    emit_rg(e, 0x3b, true, T0, CPU_OFF(icount_limit)); /* cmp T0, [icount_limit] */
    bt_cold_new(t, COLD_EXIT, emit_jcc_fwd(e, CC_A))->exit = exit;
}

/* Without touching flags. */
void bt_count_add(struct translation *t, int n)
{
    struct emit *e = &t->e;
    if (n == 0)
        return;
    emit_rg(e, 0x8b, true, T0, CPU_OFF(icount));
    emit_lea(e, true, T0, (struct host_mem){ T0, H_NONE, 0, n });
    emit_rg(e, 0x89, true, T0, CPU_OFF(icount));
}

/* What the count lacks before instruction i. */
int bt_uncounted(const struct translation *t, unsigned i)
{
    return t->counts ? (int)i - (int)t->counted : 0;
}

void bt_count_up_to(struct translation *t, unsigned i)
{
    int n = bt_uncounted(t, i);
    if (n == 0)
        return;
    bt_count_add(t, n);
    t->in_t0 = NULL;
    t->counted = i;
}
