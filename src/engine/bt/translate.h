/* SPDX-License-Identifier: Apache-2.0
 *
 * One block being translated: shared by translate.c (blocks), mem.c (guest memory operands),
 * native.c (instructions emitted as themselves), branch.c (control flow).
 */
#ifndef SOSIA_ENGINE_BT_TRANSLATE_H
#define SOSIA_ENGINE_BT_TRANSLATE_H

#include "base/bits.h"
#include "cpu/decode_tables.h"
#include "cpu/mmu.h"
#include "engine/bt/bt.h"
#include "engine/bt/reg.h"

#define BT_COLD_MAX 256u

/* Where the arithmetic flags are. */
enum flags_at {
    FLAGS_MEM,  /* bt_hot.flags; the host's are free to destroy */
    FLAGS_HOST, /* the host's only */
    FLAGS_BOTH,
};

/* Code off the straight path, emitted after the block. */
enum cold_kind {
    COLD_FILL,
    COLD_STACK,
    COLD_HELPER,
    COLD_FP_LOAD,
    COLD_EXIT,
    COLD_RETURN,
    COLD_GROUP
};

/* A guest memory operand's address. */
struct ea {
    bool constant;
    uint64_t value; /* when constant */
    uint8_t base;   /* guest register or INSN_NO_REG */
    uint8_t index;
    uint8_t scale;
    int32_t disp;
    int32_t seg_base; /* place of a segment base to add, 0 none */
    bool slid;        /* the slide is to be added */
    bool narrow;      /* 32-bit result */
    bool simple;      /* pinned base + disp, 64-bit */
};

/* Accesses by one base register that one check is for: [base + lo, base + hi). */
struct group {
    bool open;
    bool write; /* the page is writable */
    uint8_t base;
    int32_t lo, hi;
};

struct cold {
    enum cold_kind kind;
    uint8_t *from;       /* rel32 to bind here */
    const uint8_t *back; /* where to go on (executable view) */
    uint32_t site;
    uint32_t exit;
    int uncounted; /* COLD_GROUP: see count.c */
    struct ea ea;
};

struct translation {
    struct bt *bt;
    struct cpu *cpu;
    struct bt_block *block;
    struct emit e;
    uint32_t mode;
    bool mode64;
    bool sliding;
    bool counts; /* virtual time: see count.c */
    unsigned counted; /* so many instructions of the block are in cpu->icount here */
    uint64_t pc; /* of the block's first instruction, as all addresses less the slide */
    unsigned count;
    struct insn insn[BT_BLOCK_INSNS];
    uint64_t ip[BT_BLOCK_INSNS + 1];
    uint32_t live[BT_BLOCK_INSNS + 1];   /* flags needed before instruction i */
    uint32_t live_taken[BT_BLOCK_INSNS]; /* of a conditional branch: at its target */
    enum flags_at flags;
    bool fp_known;                     /* vector registers are loaded here */
    struct group group[BT_GROUPS + 1]; /* the last one is the stack's */
    unsigned next_group;
    uint16_t writes[BT_BLOCK_INSNS];    /* general registers an instruction may write */
    uint8_t group_opnd[BT_BLOCK_INSNS]; /* see group.c */
    const struct group *in_t0;          /* whose addend T0 is, NULL: nobody's */
    bool keeps_t0;                      /* the instruction being emitted leaves it alone */
    unsigned cold_count;
    struct cold cold[BT_COLD_MAX];
    const uint8_t *page; /* copy of the guest page of pc; NULL: split */
    unsigned i;          /* instruction being emitted */
    uint8_t bytes[GMEM_PAGE_SIZE];
};

/* flags.c */
void bt_flags_analyse(struct translation *t);
uint32_t bt_flags_live_at(struct translation *t, uint64_t target);
void bt_flags_save(struct translation *t);    /* so that the host's may be destroyed */
void bt_flags_load(struct translation *t);    /* so that the host's are valid */
void bt_flags_release(struct translation *t); /* about to destroy the host's: save what is live */
void bt_flags_written(struct translation *t);

/* mem.c */
bool bt_ea_of(const struct translation *t, const struct insn *in, struct ea *out);
void bt_ea_emit(struct translation *t, const struct ea *ea, unsigned dst);
/* Check the TLB: afterwards T0 is the addend. false: this access is better done by the helper. */
bool bt_mem_check(struct translation *t, const struct ea *ea, unsigned size, enum mmu_access access,
                  bool aligned, uint32_t site);
/* The same for an operand of which an opmask selects elements: what is not in plain memory as a
 * whole goes to the helper, which looks at those elements only. */
void bt_mem_check_masked(struct translation *t, const struct ea *ea, unsigned size,
                         enum mmu_access access, bool aligned, uint32_t site);
static inline bool bt_masked(const struct insn *in)
{
    return in->evex_elem != 0 && in->evex_aaa != 0;
}
/* Host operand after a check; t1_free: T1 must stay free for data. */
struct host_mem bt_mem_operand(struct translation *t, const struct ea *ea, bool t1_free);

/* T0 becomes the page's entry, T1 is compared with its tag. Emits the jump that is taken when it is
 * not the page's, or the access crosses it; returns where the jump is to be bound. */
uint8_t *bt_tlb_compare(struct translation *t, const struct ea *ea, unsigned size,
                        enum mmu_access access, bool aligned);

/* group.c */
void bt_groups_prepare(struct translation *t); /* after decoding */
bool bt_group_check(struct translation *t, const struct ea *ea, unsigned size, bool write);
void bt_group_moved(struct translation *t, unsigned base, int32_t n);
void bt_groups_end(struct translation *t);
/* An instruction was emitted, with the sites from first_site on. */
void bt_groups_after(struct translation *t, uint32_t first_site);

/* site.c */
uint32_t bt_site_new(struct translation *t); /* for the instruction being emitted */
void bt_site_end(struct translation *t, uint32_t site); /* all of it is emitted */
/* Words that a site takes. */
static inline uint32_t bt_site_words(const struct bt_site *s)
{
    return (uint32_t)((offsetof(struct bt_site, bytes) + s->len + 3) / 4);
}
/* After it the mode or the mapping of code may be another. */
bool bt_ends_block(uint32_t mode, const struct insn *in);
/* What is no encoding, or one that is too long, as an instruction that raises its fault. */
void bt_make_invalid(struct insn *in, bool too_long);

/* translate.c */
uint32_t bt_emit_helper(struct translation *t); /* returns its site */
struct cold *bt_cold_new(struct translation *t, enum cold_kind kind, uint8_t *from);

/* count.c: nothing happens unless t->counts */
void bt_count_limit(struct translation *t, uint32_t exit);
void bt_count_add(struct translation *t, int n);
int bt_uncounted(const struct translation *t, unsigned i);
void bt_count_up_to(struct translation *t, unsigned i);

/* native.c: true when emitted */
bool bt_emit_native(struct translation *t);
bool bt_native_vector(const struct translation *t, const struct insn *in);

/* system.c */
bool bt_system_op(uint32_t mode, const struct insn *in); /* is emitted natively in this mode */
bool bt_emit_system(struct translation *t);

/* x87.c: true when emitted, and then t->i is the last instruction of those that were */
bool bt_emit_x87(struct translation *t);
/* Make it the call of the helper for all of them. */
void bt_call_x87_clear(const struct bt_vcpu *v, struct bt_call *call);

/* string.c: true when emitted */
bool bt_emit_string(struct translation *t);

/* branch.c: true when emitted; the block may end there */
bool bt_emit_branch(struct translation *t);
bool bt_emit_stack(struct translation *t);
void bt_emit_push_tmp2(struct translation *t, uint32_t site);
void bt_emit_exit(struct translation *t, uint64_t target);
void bt_emit_cold_exit(struct translation *t, uint32_t exit);
void bt_emit_indirect(struct translation *t, uint32_t site); /* T1: target */
uint32_t bt_exit_new(struct translation *t, uint64_t target);

#endif
