/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters as text: one "name value" line each. Read without stopping the vCPUs, so sums may be
 * off by what happens meanwhile.
 */
#include <stdio.h>

#include "engine/bt/bt.h"

#define TOP_HELPERS 16u

struct text {
    char *buf;
    size_t size;
    size_t len; /* of what there would be, had buf room */
};

static void line(struct text *t, const char *name, const char *more, uint64_t value)
{
    bool room = t->len < t->size;
    int n = snprintf(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0, "bt.%s%s %llu\n",
                     name, more, (unsigned long long)value);
    t->len += n > 0 ? (size_t)n : 0;
}

static void add(struct bt_stats *sum, const struct bt_stats *s)
{
    sum->lookups += s->lookups;
    sum->finds += s->finds;
    sum->fills_read += s->fills_read;
    sum->fills_write += s->fills_write;
    sum->steps += s->steps;
    sum->jump_clears += s->jump_clears;
    for (unsigned i = 0; i < BT_LEFT_REASONS; i++)
        sum->left[i] += s->left[i];
    for (unsigned i = 0; i < BT_SLOW_REASONS; i++)
        sum->slow[i] += s->slow[i];
    for (unsigned i = 0; i < OP_COUNT; i++)
        sum->helpers[i] += s->helpers[i];
}

static uint64_t total(const uint64_t *v, unsigned n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum += v[i];
    return sum;
}

/* The operations whose helpers are called most; those taken are cleared. */
static void top_helpers(struct text *t, uint64_t helpers[OP_COUNT])
{
    for (unsigned n = 0; n < TOP_HELPERS; n++) {
        unsigned best = 0;
        for (unsigned i = 1; i < OP_COUNT; i++)
            best = helpers[i] > helpers[best] ? i : best;
        if (helpers[best] == 0)
            return;
        line(t, "helper.", insn_op_name[best], helpers[best]);
        helpers[best] = 0;
    }
}

size_t bt_stats(struct engine *en, char *buf, size_t size)
{
    struct bt *bt = (struct bt *)en;
    struct text t = { buf, size, 0 };
    struct bt_stats s = bt->stats;
    uint64_t misses = 0;
    for (unsigned i = 0; i < bt->config.cpu_count; i++) {
        add(&s, &bt->vcpus[i].stats);
        misses += bt->config.cpus[i]->tlb_misses;
    }
    line(&t, "blocks", "", s.blocks);
    line(&t, "sliding_blocks", "", s.sliding_blocks);
    if (s.inherited_blocks != 0) {
        line(&t, "inherited_blocks", "", s.inherited_blocks);
        line(&t, "inherited_pages_changed", "", bt->cache.foreign_taken);
    }
    line(&t, "insns", "", s.insns);
    line(&t, "code_bytes", "", bt->cache.used);
    line(&t, "cold_bytes", "", bt->cache.cold_used - bt->cache.cold_first);
    const struct bt_cache *c = &bt->cache;
    line(&t, "record_bytes", "",
         c->site_used * sizeof *c->sites + c->exit_count * sizeof *c->exits +
             c->block_count * sizeof *c->blocks);
    line(&t, "cache_flushes", "", s.flushes);
    line(&t, "invalidated_blocks", "", s.invalidations);
    line(&t, "links", "", s.links);
    line(&t, "lookups", "", s.lookups);
    line(&t, "jump_cache_refills", "", s.finds);
    line(&t, "jump_cache_clears", "", s.jump_clears);
    line(&t, "exits", "", total(s.left, BT_LEFT_REASONS));
    line(&t, "exits.", "indirect", s.left[BT_LEFT_INDIRECT]);
    line(&t, "exits.", "unlinked", s.left[BT_LEFT_DIRECT]);
    line(&t, "exits.", "event_or_dead", s.left[BT_LEFT_ENTRY]);
    line(&t, "exits.", "helper", s.left[BT_LEFT_STATE]);
    line(&t, "steps", "", s.steps);
    line(&t, "tlb_walks", "", misses);
    line(&t, "tlb_fills.", "read", s.fills_read);
    line(&t, "tlb_fills.", "write", s.fills_write);
    line(&t, "slow_accesses.", "crossing", s.slow[BT_SLOW_CROSSING]);
    line(&t, "slow_accesses.", "fault", s.slow[BT_SLOW_FAULT]);
    line(&t, "slow_accesses.", "special", s.slow[BT_SLOW_SPECIAL]);
    line(&t, "helpers", "", total(s.helpers, OP_COUNT));
    top_helpers(&t, s.helpers);
    return t.len;
}
