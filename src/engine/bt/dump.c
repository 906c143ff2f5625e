/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest and host code of blocks as text, for people. Host code is disassembled by the guest's own
 * decoder: it is x86, too.
 */
#include <errno.h>
#include <string.h>

#include "engine/bt/bt.h"

int bt_dump_open(struct bt *bt, struct err *e)
{
    bt->dump = fopen(bt->config.dump_path, "we");
    if (bt->dump == NULL)
        return err_set(e, -errno, "bt: cannot write %s: %s", bt->config.dump_path, strerror(errno));
    return 0;
}

static void print_insn(FILE *f, const struct insn *in, uint64_t ip)
{
    char hex[2 * INSN_MAX_LEN + 1] = "";
    char text[128];
    for (unsigned i = 0; i < in->len; i++)
        snprintf(hex + 2 * i, 3, "%02x", in->bytes[i]);
    insn_format(text, sizeof text, in, ip);
    fprintf(f, "  %16llx  %-30s  %s\n", (unsigned long long)ip, hex, text);
}

static void print_host(FILE *f, const uint8_t *code, size_t len)
{
    struct cpu_features all;
    memset(&all, 0xff, sizeof all);
    for (size_t at = 0; at < len;) {
        struct insn in;
        uint64_t ip = (uintptr_t)(code + at);
        if (insn_decode(&in, code + at, len - at, INSN_MODE_64, &all) == INSN_OK) {
            print_insn(f, &in, ip);
            at += in.len;
        } else {
            fprintf(f, "  %16llx  %02x\n", (unsigned long long)ip, code[at]);
            at++;
        }
    }
}

void bt_dump_block(struct bt *bt, const struct bt_block *b, const struct insn *insn, unsigned count)
{
    const struct bt_cache *k = &bt->cache;
    size_t code = k->used - b->code, cold = k->cold_used - b->cold;
    const struct engine_config *c = &bt->config;
    if ((c->dump_first | c->dump_last) != 0 && (b->pc < c->dump_first || b->pc > c->dump_last))
        return;
    gpa_t gpa = (gpa_t)b->gpa_page << GMEM_PAGE_BITS | (b->pc & (GMEM_PAGE_SIZE - 1));
    fprintf(bt->dump,
            "block %llx gpa %llx mode %x%s: %u instructions, %u bytes, %zu of host code\n",
            (unsigned long long)b->pc, (unsigned long long)gpa, b->mode, b->split ? " split" : "",
            count, b->size, code + cold);
    uint64_t ip = b->pc;
    for (unsigned i = 0; i < count; i++) {
        if (insn[i].op == OP_INVALID)
            fprintf(bt->dump, "  %16llx  (invalid)\n", (unsigned long long)ip);
        else
            print_insn(bt->dump, &insn[i], ip);
        ip += insn[i].len;
    }
    fprintf(bt->dump, " host\n");
    print_host(bt->dump, k->exec + b->code, code);
    fprintf(bt->dump, " off the path\n");
    print_host(bt->dump, k->exec + b->cold, cold);
    fflush(bt->dump);
}
