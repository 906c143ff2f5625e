/* SPDX-License-Identifier: Apache-2.0
 *
 * See insnrun.h.
 */
#include "support/insnrun.h"

#include <asm/prctl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "support/guestrun.h"
#include "support/hostrun.h"
#include "support/insncase.h"

struct insnrun {
    const struct engine_class *cls;
    struct guestrun *guest;
    struct insn_case_env env;
    struct insn_case c;
    struct insn_outcome host, engine;
    uint8_t host_mem[IS_MEM_SIZE];
    uint64_t rng;
    unsigned long cases;
    unsigned long mismatches;
    unsigned long reports;
    const struct engine_class *lazy_flags; /* in blocks, this class' flags are not always kept */
};

static uint64_t next(struct insnrun *r)
{
    r->rng ^= r->rng << 13;
    r->rng ^= r->rng >> 7;
    r->rng ^= r->rng << 17;
    return r->rng;
}

static unsigned long env_number(const char *name, unsigned long otherwise)
{
    const char *s = getenv(name);
    return s != NULL ? strtoul(s, NULL, 0) : otherwise;
}

/* For the signal handler: a guest run that lasts a whole tick hangs. */
static struct {
    struct guestrun *guest;
    volatile bool running;
    volatile unsigned serial;
    unsigned serial_at_tick;
} ticking;

static void on_tick(void)
{
    if (ticking.running && ticking.serial == ticking.serial_at_tick)
        guestrun_kick(ticking.guest);
    ticking.serial_at_tick = ticking.serial;
}

struct insnrun *insnrun_new(const struct engine_class *cls, struct err *e)
{
    struct insnrun *r = xzalloc(sizeof *r);
    r->cls = cls;
    if (hostrun_init() < 0) {
        err_set(e, -1, "cannot map the test regions or install signal handlers");
        free(r);
        return NULL;
    }
    r->env.fs_base = hostrun_fs_base();
    r->guest = guestrun_new(cls, r->env.fs_base, e);
    if (r->guest == NULL) {
        free(r);
        return NULL;
    }
    r->env.hides_x87_pointers = hostrun_hides_x87_pointers();
    r->env.features = guestrun_cpu(r->guest)->features;
    r->rng = env_number("INSN_SEED", 0) * 2 + 88172645463325253ull;
    r->reports = env_number("INSN_REPORTS", 10);
    ticking.guest = r->guest;
    hostrun_on_tick(on_tick);
    guestrun_warm_up(r->guest);
    hostrun_save_handlers();
    return r;
}

void insnrun_free(struct insnrun *r)
{
    hostrun_on_tick(NULL);
    guestrun_free(r->guest);
    free(r);
}

unsigned long insnrun_cases(const struct insnrun *r) { return r->cases; }

/* An engine that drops flags which are overwritten before they are read has others when the code in
 * between faults. Vector 3 is the end of the code. */
static bool flags_may_be_dead(const struct insnrun *r)
{
    return r->cls == r->lazy_flags && r->host.vector != 3 && r->engine.vector == r->host.vector;
}

/* Run r->c on the host; false when it never ends. */
static bool run_host(struct insnrun *r)
{
    const struct insn_case *c = &r->c;
    memset(&r->host, 0, sizeof r->host);
    hostrun_set_code(c->offset, c->code, c->len);
    hostrun_set_memory(c->mem);
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0); /* an engine may use it for its own */
    hostrun_run(c->mode, &c->in, &r->host);
    hostrun_get_memory(r->host_mem);
    return !r->host.timeout;
}

static bool same(struct insnrun *r)
{
    const struct insn_case *c = &r->c;
    if (flags_may_be_dead(r)) {
        uint64_t f = r->host.state.rflags & (uint64_t)FLAGS_ARITH;
        r->engine.state.rflags = (r->engine.state.rflags & ~(uint64_t)FLAGS_ARITH) | f;
    }
    return insn_outcome_equal(c, &r->env, &r->host, &r->engine) &&
           insn_memory_equal(c, &r->env, &r->host, r->host_mem, guestrun_memory(r->guest));
}

/* Run r->c on both sides. On some hosts a switch of tasks loses FOP, FIP and FDP, so that the host
 * is asked again before it is believed. */
static bool run_case(struct insnrun *r)
{
    const struct insn_case *c = &r->c;
    if (!run_host(r)) /* an endless loop is one on both sides */
        return true;
    r->cases++;
    guestrun_set_code(r->guest, c->offset, c->code, c->len);
    guestrun_set_memory(r->guest, c->mem);
    ticking.serial++;
    ticking.running = true;
    guestrun_run(r->guest, c->mode, &c->in, &r->engine);
    ticking.running = false;
    bool equal = same(r);
    for (unsigned i = 0; i < 3 && !equal; i++) {
        equal = run_host(r) && same(r);
    }
    if (equal)
        return true;
    if (r->mismatches++ < r->reports)
        insn_case_report(stderr, c, &r->env, "host", &r->host, r->host_mem, r->cls->name,
                         &r->engine, guestrun_memory(r->guest));
    return false;
}

static enum insn_mode decode_mode(enum is_mode mode)
{
    return mode == IS_MODE_64 ? INSN_MODE_64 : mode == IS_MODE_32 ? INSN_MODE_32 : INSN_MODE_16;
}

/* Half of them 64-bit. */
static enum is_mode random_mode(struct insnrun *r)
{
    unsigned v = next(r) >> 20 & 3;
    return v < 2 ? IS_MODE_64 : v == 2 ? IS_MODE_32 : IS_MODE_16;
}

static unsigned long scaled(unsigned long n)
{
#ifdef __SANITIZE_ADDRESS__
    n /= 20; /* many times slower */
#endif
    return n * env_number("INSN_SCALE", 1);
}

unsigned long insnrun_rows(struct insnrun *r, unsigned per_row)
{
    unsigned long before = r->mismatches;
    hostrun_restore_handlers();
    unsigned long count = scaled(per_row);
    const char *only = getenv("INSN_ROWS");
    for (unsigned row = 0; row < insn_info_count; row++) {
        unsigned long bad = 0;
        if (only != NULL && strstr(insn_info[row].encoding, only) == NULL)
            continue;
        for (unsigned long i = 0; i < IS_MODES * count && bad < 3; i++) {
            enum is_mode mode = (enum is_mode)(i % IS_MODES);
            uint8_t code[INSN_MAX_LEN];
            struct insn in;
            next(r);
            size_t len = insn_sample(row, decode_mode(mode), &r->rng, code);
            if (len == 0 ||
                insn_decode(&in, code, len, decode_mode(mode), &r->env.features) != INSN_OK)
                continue;
            if (insn_case_single(&r->c, &r->env, mode, code, len, next(r) >> 8))
                bad += !run_case(r);
        }
        if (bad)
            fprintf(stderr, "row %u: %s %s: mismatch\n", row, insn_info[row].mnemonic,
                    insn_info[row].encoding);
    }
    return r->mismatches - before;
}

/* Prefixes, a map, an opcode, noise. */
static void random_bytes(struct insnrun *r, uint8_t code[INSN_MAX_LEN])
{
    static const uint8_t prefix[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e,
                                      0x36, 0x3e, 0x26, 0x64, 0x65 };
    uint64_t v = next(r);
    unsigned n = 0;
    for (unsigned i = 0; i < INSN_MAX_LEN; i++) {
        code[i] = (uint8_t)(next(r) >> 24);
    }
    for (unsigned i = v & 7; i < 3; i++) {
        code[n++] = prefix[next(r) % sizeof prefix];
    }
    if (v >> 8 & 1)
        code[n++] = 0x40 | (v >> 9 & 15);
    switch (v >> 16 & 7) {
    case 0:
    case 1:
    case 2:
        code[n] = 0x0f;
        break;
    case 3:
        code[n++] = 0x0f;
        code[n] = v >> 20 & 1 ? 0x38 : 0x3a;
        break;
    case 4:
        code[n] = v >> 20 & 1 ? 0xc4 : 0xc5;
        if (code[n] == 0xc4)
            code[n + 1] = (code[n + 1] & 0xe0) | (1 + next(r) % 3);
        break;
    case 5:
        code[n] = 0x62;
        code[n + 1] = (code[n + 1] & 0xf0) | (1 + next(r) % 3);
        code[n + 2] |= 4;
        break;
    default:
        break;
    }
}

unsigned long insnrun_random(struct insnrun *r, unsigned long count)
{
    unsigned long before = r->mismatches;
    hostrun_restore_handlers();
    count = scaled(count);
    for (unsigned long i = 0; i < count && r->mismatches - before < 1000; i++) {
        uint8_t code[INSN_MAX_LEN];
        random_bytes(r, code);
        if (insn_case_single(&r->c, &r->env, random_mode(r), code, sizeof code, next(r) >> 8))
            run_case(r);
    }
    return r->mismatches - before;
}

unsigned long insnrun_blocks(struct insnrun *r, unsigned long count)
{
    unsigned long before = r->mismatches;
    hostrun_restore_handlers();
    count = scaled(count);
    r->lazy_flags = strcmp(r->cls->name, "bt") == 0 ? r->cls : NULL;
    for (unsigned long i = 0; i < count && r->mismatches - before < 1000; i++) {
        if (insn_case_block(&r->c, &r->env, random_mode(r), 2 + (unsigned)(next(r) >> 30 & 7),
                            next(r) >> 8))
            run_case(r);
    }
    r->lazy_flags = NULL;
    return r->mismatches - before;
}

/* "64 0fa2 17"; false when the text is not that. */
static bool parse_case(const char *text, enum is_mode *mode, uint8_t *code, size_t *len,
                       uint64_t *seed)
{
    unsigned bits;
    char hex[2 * INSN_MAX_LEN + 1];
    *seed = 1;
    if (sscanf(text, "%u %30[0-9a-f] %" SCNu64, &bits, hex, seed) < 2 || strlen(hex) % 2)
        return false;
    *mode = bits == 64 ? IS_MODE_64 : bits == 32 ? IS_MODE_32 : IS_MODE_16;
    *len = strlen(hex) / 2;
    for (size_t i = 0; i < *len; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        code[i] = (uint8_t)byte;
    }
    return true;
}

unsigned long insnrun_selected(struct insnrun *r, bool *any)
{
    const char *text = getenv("INSN_CASE");
    enum is_mode mode;
    uint8_t code[INSN_MAX_LEN];
    size_t len;
    uint64_t seed;
    unsigned long before = r->mismatches;
    hostrun_restore_handlers();
    *any = text != NULL && parse_case(text, &mode, code, &len, &seed);
    if (*any && insn_case_single(&r->c, &r->env, mode, code, len, seed))
        run_case(r);
    return r->mismatches - before;
}

long insnrun_file(struct insnrun *r, const char *path, unsigned each)
{
    unsigned long before = r->mismatches;
    hostrun_restore_handlers();
    char line[256];
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL) {
        enum is_mode mode;
        uint8_t code[INSN_MAX_LEN];
        size_t len;
        uint64_t seed;
        if (line[0] == '#' || !parse_case(line, &mode, code, &len, &seed))
            continue;
        for (unsigned i = 0; i <= each; i++) {
            if (insn_case_single(&r->c, &r->env, mode, code, len, i == 0 ? seed : next(r) >> 8))
                run_case(r);
        }
    }
    fclose(f);
    return (long)(r->mismatches - before);
}
