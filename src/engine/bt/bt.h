/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary translation, private parts: x86 guest code becomes x86-64 host code.
 *
 * While translated code runs, the guest's general registers are in host registers, the stack
 * pointer points into the vCPU's struct cpu (see reg.h), and the guest's vector registers are on
 * the host's when bt_hot.fp_loaded says so. Between blocks the arithmetic flags are in
 * bt_hot.flags; inside a block they stay in the host's flags as long as nothing of ours destroys
 * them. Everything rare is the shared semantic helper, called with the whole state put back into
 * struct cpu.
 *
 * Threads: a struct bt_vcpu belongs to its vCPU thread. Blocks, links and code memory are shared
 * and change under bt.lock; running code is only ever changed by one aligned 8-byte store.
 */
#ifndef SOSIA_ENGINE_BT_BT_H
#define SOSIA_ENGINE_BT_BT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/bits.h"
#include "cpu/insn.h"
#include "cpu/sem.h"
#include "engine/engine.h"

#define BT_GROUPS 2u
#define BT_BLOCK_INSNS 64u

/* -- What is addressed by translated code, at fixed places of struct cpu.engine_hot; the first of
 * these by short displacements. */
struct bt_hot {
    uint16_t flags;        /* LAHF in the high byte (AH), SETO in the low one (AL) */
    uint8_t fp_loaded;     /* the guest's vector registers and MXCSR are on the host's */
    uint8_t intr_deferred; /* CPU_EV_INTR is out of events while the guest masks interrupts */
    uint8_t pad[4];
    uint64_t stack_page;   /* linear page of the stack, writable without ado; low bits set: none */
    uint64_t stack_addend; /* its TLB addend */
    uint64_t tmp;          /* RAX while flags move */
    uint64_t tmp2;         /* target of an indirect call while its return address is pushed */
    uint64_t slide;        /* of the sliding block that runs, see slide.c */
    uint64_t group[BT_GROUPS]; /* addends of accesses that were checked together */
    uint64_t jump_cache;       /* struct bt_jump *, */
    uint64_t exec;             /* and what its entries' code counts from */
    uint64_t ram;              /* where gmem's page 0 is; code knows pages by their distance */
    uint32_t key; /* who may use a jump-cache entry: address space generation and mode */
    uint32_t pad1;
    uint64_t resume;
    uint64_t host_rsp;
    uint32_t host_mxcsr;
    uint32_t pad2;
    uint64_t no_stack_addend;
};
_Static_assert(sizeof(struct bt_hot) <= sizeof((struct cpu *)0)->engine_hot, "hot area");

static inline struct bt_hot *bt_hot(struct cpu *cpu) { return (struct bt_hot *)cpu->engine_hot; }

/* -- Jump cache: guest linear address to host code, per vCPU; index is a hash of the address. */
#define BT_JUMP_BITS 15u
#define BT_JUMP_SIZE (1u << BT_JUMP_BITS)
struct bt_jump {
    uint64_t va;
    uint32_t key;
    uint32_t code; /* offset in the executable view */
};
/* A key is a mode and, above it, a number for the generation of address translation. When numbers
 * run out, the cache is cleared and they begin again. */
#define BT_KEY_MODE_BITS 14u
#define BT_KEY_MODE ((1u << BT_KEY_MODE_BITS) - 1)

/* -- Return cache, per vCPU, in cpu.engine_table: a call leaves its return address and where the
 * code for that is; a return to an address that is still there needs no look-up. Index: low bits
 * of the address. Emptied by whatever makes an entry wrong: see bt_update_key, bt_page_flushed. */
#define BT_RETURN_SIZE 512u
struct bt_return {
    uint64_t va;
    const uint8_t *code;
};
_Static_assert(sizeof(struct bt_return) * BT_RETURN_SIZE == sizeof((struct cpu *)0)->engine_table,
               "return cache");

/* -- What a block's code depends on, besides the bytes: part of its identity. */
enum bt_mode {
    BT_MODE_WIDTH = 3u << 0,   /* enum insn_mode */
    BT_MODE_STACK32 = 1u << 2, /* SS.B (legacy modes) */
    BT_MODE_USER = 1u << 3,    /* CPL 3 */
    BT_MODE_FLAT = 1u << 4,    /* CS, DS, ES, SS: base 0, no limit (always in 64-bit mode) */
    BT_MODE_FS = 1u << 5,      /* FS: no limit; base is added */
    BT_MODE_SSE = 1u << 6,     /* SSE instructions are enabled and cannot trap */
    BT_MODE_AVX = 1u << 7,
    BT_MODE_FPEXC = 1u << 8, /* MXCSR has unmasked exceptions: arithmetic goes to helpers */
    BT_MODE_VM = 1u << 9,    /* virtual-8086 or real mode: segment arithmetic differs */
    BT_MODE_AVX512 = 1u << 10,
    BT_MODE_SMAP = 1u << 11,
    BT_MODE_GS = 1u << 13, /* GS likewise */
    BT_MODE_RING12 =
        1u << 12, /* CPL 1 or 2: supervisor to memory, not to privileged instructions */
    /* No state of the processor, and in no key: this block checks each access alone. */
    BT_MODE_SINGLE = 1u << 14,
    /* Likewise: this block is for whatever address its page is mapped to. See slide.c. */
    BT_MODE_SLIDING = 1u << 15,
};

/* -- Records of what is in the code cache. There are many: they hold numbers instead of addresses.
 * A place in the code is its distance from bt_cache.exec, a block its index, 0 none; a page of
 * memory is the one of gmem's RAM or ROM, a guest-physical page is its address >> 12. */
struct bt_block {
    uint64_t pc; /* linear address of the first instruction, less the slide of a sliding block */
    uint32_t cs_base;
    uint32_t gpa_page;
    uint32_t page;      /* that its bytes are in: the map may show another there later */
    uint32_t gpa_page2; /* split: that its instruction ends in */
    uint32_t page2;
    uint32_t code;    /* entry */
    uint32_t cold;    /* what is off the straight path; first: leave with rip = pc */
    uint32_t checked; /* entry for other pages, see link.c; 0 until somebody links so */
    uint32_t hash_next;
    uint32_t page_next[2];
    uint32_t mode;       /* enum bt_mode */
    uint16_t size;       /* guest bytes */
    uint16_t seen_first; /* offsets in the page of the bytes that were looked at: its own, */
    uint16_t seen_end;   /* and what follows, for the liveness of flags */
    uint8_t landing;     /* bytes before the entry, where those go who come from a look-up, with
                            rip in T1 */
    bool dead : 1;
    bool split : 1; /* its one instruction crosses a page */
};
_Static_assert(sizeof(struct bt_block) == 64, "there are many");

/* One place where translated code needs C: a helper call, or a memory access that missed. Its
 * number is its place in bt_cache.sites. What is seldom needed is made of it: struct bt_call. */
struct bt_site {
    uint32_t block;
    uint32_t resume;  /* memory sites: host code after the whole instruction */
    uint16_t at;      /* where the instruction is in the block */
    uint8_t size;     /* memory sites: bytes accessed */
    uint8_t len : 4;  /* 0: it is none, and if size is not 0, for its length */
    bool aligned : 1; /* memory sites: must be */
    bool fp_live : 1; /* vector registers must be loaded again before going on */
    bool leaves : 1;  /* what the code behind it relies on may be gone: see group.c */
    bool x87_clear : 1; /* it begins sixteen instructions that are one helper: see x87.c */
    uint8_t uncounted; /* virtual time: what cpu->icount lacks, this instruction included */
    uint8_t bytes[];
};

/* A site with its instruction decoded, for its helper. */
struct bt_call {
    uint32_t site;   /* 0: none */
    uint32_t resume; /* the site's */
    uint64_t ip;     /* offset in CS of the instruction, and of the next, less the slide */
    uint64_t next;
    sem_fn *fn;
    uint32_t mode; /* of the block */
    uint8_t uncounted;
    bool fp_live, leaves;
    bool ends_block; /* may change mode or mapping: see bt_call_helper */
    bool branch;     /* always leaves: rip is the helper's */
    struct insn insn;
};
#define BT_CALLS 1024u

/* One place where translated code leaves its block for a known guest address. */
struct bt_exit {
    uint64_t target; /* offset in CS, less the slide of a sliding block */
    uint32_t patch;  /* the jump's rel32, within eight aligned bytes; 0: there is none */
    uint32_t block : 29;
    bool entry : 1;     /* this is the exit at the entry of the block, taken on events */
    bool single : 1;    /* goes on in the variant of the block that checks each access alone */
    bool same_page : 1; /* the target is in the page that the block is in */
};
_Static_assert(sizeof(struct bt_exit) == 16, "there are many");

enum bt_exit_reason {
    BT_LEFT_INDIRECT, /* target not in the jump cache */
    BT_LEFT_DIRECT,   /* exit not linked yet */
    BT_LEFT_ENTRY,    /* at the entry of a block: an event, or the block is dead */
    BT_LEFT_STATE,    /* a helper changed mode, or an event came up in it */
    BT_LEFT_REASONS
};

/* Why a memory access was done by the helper of its instruction. */
enum bt_slow_reason {
    BT_SLOW_CROSSING, /* or unaligned where it must be aligned */
    BT_SLOW_FAULT,    /* or no table yet, or alignment checks are on */
    BT_SLOW_SPECIAL,  /* MMIO, a page with code, a watched or traced page */
    BT_SLOW_REASONS
};

/* Those of translation are in struct bt under its lock, the others with each vCPU. */
struct bt_stats {
    uint64_t blocks, sliding_blocks, inherited_blocks, insns, links, flushes, invalidations;
    uint64_t lookups, finds, fills_read, fills_write, steps, jump_clears;
    uint64_t left[BT_LEFT_REASONS];
    uint64_t slow[BT_SLOW_REASONS];
    uint64_t helpers[OP_COUNT];
};

/* Code memory: the same pages mapped twice, so that no page is ever writable and executable. Of an
 * heir (heir.c), pages of exec may be another's, which are not in `write`. */
struct bt_cache {
    uint8_t *exec;
    uint8_t *write;
    uint64_t *foreign;      /* owned: a bit for each such page; NULL: none */
    uint32_t foreign_taken; /* pages that were copied to be changed; after so many, all are */
    uint32_t foreign_max;
    size_t size;
    size_t used;      /* the straight paths of blocks grow up to cold_first, */
    size_t cold_used; /* what is rarely executed up to size */
    size_t cold_first;
    size_t stubs_end; /* what a flush keeps */
    uint32_t *sites;  /* struct bt_site one behind the other; words */
    uint32_t site_used, site_max;
    struct bt_exit *exits;
    uint32_t exit_count, exit_max;
    struct bt_block *blocks;
    uint32_t block_count, block_max;
    uint32_t *hash;
    uint32_t hash_mask;
    const uint8_t *ram;  /* gmem's page 0 */
    uint32_t *page_head; /* by page */
    uint64_t page_count;
    uint64_t *page_at;   /* likewise: see slide.c */
    uint32_t generation; /* counts resets: sites, exits and code of another one are gone */
};

struct bt_stubs {
    const uint8_t *enter;  /* uint64_t (struct cpu *, const uint8_t *code): exit index */
    const uint8_t *leave;  /* r14d: exit index; registers go back to struct cpu */
    const uint8_t *helper; /* called with r14d: site */
    const uint8_t *fill;   /* called with r14d: site, r15: address; returns the addend in r14 */
    const uint8_t *stack;  /* as fill, for stack_page: tries the TLB first */
    const uint8_t *group;  /* called with r14d: bytes, and BT_SITE_WRITE; r15: address; returns the
                               addend in r14, or returns 5 bytes further when it cannot be had */
    const uint8_t *group_stack; /* the same, and makes the page the stack page */
    const uint8_t *fp_load;     /* called: puts the vector registers on the host's */
    const uint8_t *fp_load_c;   /* the same as a C function, void (struct cpu *), */
    const uint8_t *fp_save;     /* and back */
    const uint8_t *lookup;      /* called with r15: rip, kept; returns its code in r14, or leaves:
                               the branch's site is 3 bytes behind the return address */
    const uint8_t *go;          /* r15: rip, kept; goes to its code, or leaves */
};

struct bt {
    struct engine_base base;
    struct engine_config config;
    pthread_mutex_t lock; /* guards cache, stats of translation */
    struct bt_cache cache;
    struct bt_stubs stubs;
    struct bt_stats stats;
    bool host_avx;
    bool host_avx512;
    bool host_bmi2;
    struct cpu_exclusive *exclusive;
    struct bt_vcpu *vcpus; /* config.cpu_count of them */
    FILE *dump;            /* NULL: not wanted */
    FILE *perf_map;
};

struct bt_vcpu {
    struct bt *bt;
    struct cpu *cpu;
    struct bt_jump *jumps;
    struct bt_call *calls; /* BT_CALLS of them, by number of the site */
    uint64_t super_epoch;  /* counts changes of what supervisor code may be mapped to */
    uint64_t seen_global;  /* the TLB generations of the last look */
    uint64_t seen_local;
    uint64_t first_gen[2];  /* generations that keys count from: supervisor's, user's */
    uint64_t return_gen[2]; /* what the entries of the return cache are good for */
    uint32_t return_mode[2];
    bool in_code;              /* between entering translated code and leaving it */
    bool counted;              /* cpu->icount has an instruction that may fault yet */
    bool super_local;          /* supervisor code was met on pages that are not global */
    uint64_t exec_pages[1024]; /* hash set of pages that the jump cache has addresses in, */
    uint64_t exec_large[16];   /* and of the 2 MiB units where those are parts of large pages; */
    bool exec_huge;            /* there are some in larger ones */
    struct {
        uint64_t window;
        uint64_t slide;
    } slides[8]; /* last seen in a piece of the address space: see slide.c */
    struct bt_stats stats;
    struct insn step_insn; /* for single-step, breakpoints and code that cannot be translated */
    uint8_t scratch[2 * GMEM_PAGE_SIZE];
};

/* No stack page known. An address that the check still takes for a match is not canonical and not
 * aligned; it reaches bt_vcpu.scratch. */
#define BT_NO_STACK 0x8000000000000fffull
void bt_stack_forget(struct cpu *cpu);

#define BT_EXIT_INDIRECT 0u /* rip is in struct cpu already; upper half: site of the branch */
#define BT_EXIT_STATE 1u    /* a helper changed rip or mode: struct cpu is whole */

/* heir.c: the engine's verbs; and what is to be done before code is changed, or thrown away. */
int bt_bequeath(struct engine *en, int fd, struct err *e);
bool bt_inherit(struct engine *en, int fd);
void bt_heir_take_page(struct bt_cache *c, uint32_t code);
void bt_heir_drop(struct bt_cache *c);
/* The place of eight aligned bytes of code where they may be changed. */
static inline uint64_t *bt_code_word(struct bt_cache *c, uint32_t code)
{
    if (unlikely(c->foreign != NULL))
        bt_heir_take_page(c, code);
    return (uint64_t *)(void *)(c->write + (code & ~7u));
}

/* cache.c */
MUST_CHECK int bt_cache_init(struct bt *bt, struct err *e);
void bt_cache_fini(struct bt *bt);
void bt_cache_reset(struct bt *bt);
bool bt_cache_room(const struct bt *bt); /* enough for one more block of any size */
/* With bt->lock or without: then what it returns may be dying, its code is safe to go to as long as
 * this vCPU counts as being in code. */
struct bt_code_at;
struct bt_block *bt_cache_find(struct bt *bt, const struct bt_code_at *at, uint64_t cs_base);
void bt_cache_add(struct bt *bt, struct bt_block *b);
void bt_cache_forget_breaks(struct bt *bt);
void bt_cache_invalidate(struct bt *bt, gpa_t gpa, uint64_t len);
static inline uint32_t bt_page_of(const struct bt_cache *c, const uint8_t *host)
{
    return (uint32_t)((host - c->ram) >> GMEM_PAGE_BITS);
}
static inline uint32_t bt_number(const struct bt_cache *c, const struct bt_block *b)
{
    return (uint32_t)(b - c->blocks);
}
static inline const uint8_t *bt_landing(const struct bt_cache *c, const struct bt_block *b)
{
    return c->exec + b->code - b->landing;
}
static inline struct bt_site *bt_site_at(const struct bt_cache *c, uint32_t site)
{
    return (struct bt_site *)(void *)&c->sites[site];
}
/* enum bt_mode of the block that an exit leads to */
static inline uint32_t bt_exit_mode(const struct bt_cache *c, const struct bt_exit *x)
{
    uint32_t mode = c->blocks[x->block].mode;
    return x->entry ? mode : (mode & ~(uint32_t)BT_MODE_SINGLE) | (x->single ? BT_MODE_SINGLE : 0);
}

/* stubs.c */
void bt_make_stubs(struct bt *bt);

/* translate.c: under bt->lock, with bt_cache_room. */
struct bt_code_at {
    uint64_t pc; /* linear */
    gpa_t gpa;
    const uint8_t *bytes; /* at pc, up to the end of its page */
    uint32_t mode;
    uint64_t slide; /* when the mode has BT_MODE_SLIDING */
    bool split;     /* the first instruction crosses into the next page: */
    gpa_t gpa2;
    const uint8_t *bytes2; /* of that page */
    uint8_t split_bytes[INSN_MAX_LEN];
    uint8_t split_count;
};
struct bt_block *bt_translate(struct bt *bt, struct cpu *cpu, const struct bt_code_at *at);

/* slide.c: under bt->lock. */
void bt_slide(struct bt_vcpu *v, struct bt_code_at *at);
void bt_slide_forget(struct bt *bt, uint64_t page);
/* Linear address of what an exit leaves for. */
static inline uint64_t bt_exit_rip(const struct bt *bt, struct cpu *cpu, const struct bt_exit *x)
{
    bool sliding = (bt->cache.blocks[x->block].mode & BT_MODE_SLIDING) != 0;
    return x->target + (sliding ? bt_hot(cpu)->slide : 0);
}

/* site.c */
const struct bt_call *bt_call_of(struct bt_vcpu *v, uint32_t site);
void bt_calls_forget(struct bt_vcpu *v);

/* mode.c */
uint32_t bt_mode_of(const struct cpu *cpu);
void bt_update_key(struct cpu *cpu, uint32_t mode);
bool bt_jumps_usable(uint32_t mode); /* an offset in CS is a linear address */
void bt_jump_add(struct cpu *cpu, uint64_t pc, const uint8_t *code, bool global, bool split);
const uint8_t *bt_jump_find(struct cpu *cpu, uint64_t pc);
void bt_jumps_clear(struct bt_vcpu *v); /* and the return cache */
void bt_page_flushed(struct cpu *cpu, gva_t va);

/* helper.c: called from stubs. 0: go on; 1: leave translated code; 2: go to bt_hot.resume */
uint64_t bt_call_helper(struct cpu *cpu, uint32_t site);
struct bt_fill_result {
    uint64_t addend;
    uint64_t hit;
};
#define BT_SITE_WRITE 0x80000000u /* with the site's number, for bt_fill: the access is a write */
struct bt_fill_result bt_fill(struct cpu *cpu, uint64_t va, uint32_t site);
/* All of len bytes in one page of plain memory. */
#define BT_GROUP_STACK 0x40000000u
struct bt_fill_result bt_fill_group(struct cpu *cpu, uint64_t va, uint32_t what);
/* The code at rip, which the jump cache does not have; NULL: leave. Puts it into the cache. */
const uint8_t *bt_find_code(struct cpu *cpu, uint64_t rip);
void bt_intr_undefer(struct cpu *cpu); /* put CPU_EV_INTR back when the guest can take it */
void bt_flags_to_cpu(struct cpu *cpu);
void bt_flags_from_cpu(struct cpu *cpu);
void bt_fp_save(struct cpu *cpu); /* when it is loaded */

/* stats.c: the engine's verb. */
size_t bt_stats(struct engine *en, char *buf, size_t size);

/* dump.c, perfmap.c: under bt->lock, when bt->dump, bt->perf_map are open; of the block that was
 * made last. */
MUST_CHECK int bt_dump_open(struct bt *bt, struct err *e);
void bt_dump_block(struct bt *bt, const struct bt_block *b, const struct insn *insn,
                   unsigned count);
MUST_CHECK int bt_perf_map_open(struct bt *bt, struct err *e);
void bt_perf_map_block(struct bt *bt, const struct bt_block *b);
void bt_perf_map_restart(struct bt *bt); /* the cache was emptied */

/* link.c: under bt->lock. Let the exit go straight to b from now on; send a block's entry
 * elsewhere. */
void bt_link_exit(struct bt *bt, struct cpu *cpu, uint32_t exit, struct bt_block *b);
void bt_patch_entry(struct bt *bt, struct bt_block *b, const uint8_t *to);

#endif
