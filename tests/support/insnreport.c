/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparison and report of two outcomes of an instruction case (insncase.h).
 */
#include <inttypes.h>
#include <string.h>

#include "support/insncase.h"

/* RFLAGS bits compared: all that exist. RF, too: faults push it set. */
#define FLAGS_COMPARED 0x3f7fd5ull

static enum insn_mode decode_mode(enum is_mode mode)
{
    return mode == IS_MODE_64 ? INSN_MODE_64 : mode == IS_MODE_32 ? INSN_MODE_32 : INSN_MODE_16;
}

static unsigned gpr_count(const struct insn_case *c) { return c->mode == IS_MODE_64 ? 16 : 8; }

/* FXSAVE bytes compared; the rest is reserved. Outside 64-bit mode 32 bits of FIP and FDP. */
static bool fx_byte_matters(const struct insn_case *c, unsigned i)
{
    if (i == 5 || (i >= 28 && i < 32))
        return false;
    if (c->mode != IS_MODE_64 && ((i >= 12 && i < 16) || (i >= 20 && i < 24)))
        return false;
    return i < 32 || i % 16 < 10;
}

/* a is the host's. */
static bool fx_equal(const struct insn_case *c, const struct insn_case_env *env, const uint8_t *a,
                     const uint8_t *b)
{
    if (memcmp(a, b, 160) == 0)
        return true;
    bool no_pointers = env->hides_x87_pointers && !(a[2] & 0x80);
    for (unsigned i = 0; i < 160; i++) {
        bool pointer = (i >= 6 && i < 24);
        if (a[i] != b[i] && fx_byte_matters(c, i) && !(pointer && no_pointers))
            return false;
    }
    return true;
}

/* What may differ after a fault, because the manuals leave it to the implementation. */
enum leeway {
    LEEWAY_AREA = 1,    /* which byte of a long operand is reported, and whether read or written, or
                          as a segment violation: state areas are accessed piece by piece */
    LEEWAY_CR2_LOW = 2, /* which byte of the page: masked stores across two pages */
    LEEWAY_FPU = 4,     /* XRSTOR and FXRSTOR may have loaded some components (SDM 1 13.8) */
    LEEWAY_MEMORY = 8,  /* the first of several stores may have been done: MOVBE across two pages,
                          PUSHA, the return address of a CALL that goes nowhere (AMD looks first,
                          Intel and bt store first) */
    LEEWAY_GPR = 16,    /* POPA may have loaded some registers */
    LEEWAY_UNUSED = 32, /* XSAVEOPT and XSAVEC may fault for components that they do not write */
};

static unsigned leeway_of(unsigned op)
{
    switch (op) {
    case OP_FXSAVE:
    case OP_FNSTENV:
    case OP_FNSAVE:
    case OP_FLDENV:
    case OP_FRSTOR:
    case OP_XSAVE:
        return LEEWAY_AREA;
    case OP_XSAVEOPT:
    case OP_XSAVEC:
        return LEEWAY_AREA | LEEWAY_UNUSED;
    case OP_FXRSTOR:
    case OP_XRSTOR:
        return LEEWAY_AREA | LEEWAY_FPU;
    case OP_VMASKMOVPS:
    case OP_VMASKMOVPD:
    case OP_VPMASKMOVD:
    case OP_VPMASKMOVQ:
        return LEEWAY_CR2_LOW;
    case OP_MOVBE:
    case OP_PUSHA:
    case OP_CALL:
    case OP_CALL_IND:
        return LEEWAY_MEMORY;
    case OP_POPA:
        return LEEWAY_GPR;
    default:
        return 0;
    }
}

/* Leeway of the instruction that the outcome's rip is at. */
static unsigned leeway(const struct insn_case *c, const struct insn_case_env *env,
                       const struct insn_outcome *o)
{
    uint64_t at = o->state.rip - (is_code_base(c->mode) + c->offset);
    struct insn in;
    if (at >= c->len || o->vector == 3)
        return 0;
    if (insn_decode(&in, c->code + at, c->len - at, decode_mode(c->mode), &env->features) !=
        INSN_OK)
        return 0;
    return leeway_of(in.op);
}

/* Linux reports user faults on its half of the address space as protection faults. A data access of
 * ours never lands in memory of the process itself, a wild jump may. */
static bool error_equal(const struct insn_outcome *a, const struct insn_outcome *b)
{
    uint32_t ignore = a->vector == 14 && a->cr2 >= IS_HOST_OWN ? 1 : 0;
    return ((a->error ^ b->error) & ~ignore) == 0;
}

/* OF after RCL and RCR by more than 1 is undefined, and on the host depends on what ran before. */
static uint64_t flags_compared(const struct insn_case *c, const struct insn_case_env *env)
{
    struct insn in;
    if (insn_decode(&in, c->code, c->len, decode_mode(c->mode), &env->features) == INSN_OK &&
        (in.op == OP_RCL || in.op == OP_RCR) && (in.opnd[1].kind != OPND_IMM || in.imm != 1))
        return FLAGS_COMPARED & ~0x800ull;
    return FLAGS_COMPARED;
}

static bool fault_equal(const struct insn_outcome *a, const struct insn_outcome *b, unsigned lee)
{
    if ((lee & LEEWAY_AREA) && a->vector >= 12 && a->vector <= 14)
        return b->vector >= 12 && b->vector <= 14;
    if (a->vector != b->vector)
        return false;
    uint64_t ignore = lee & LEEWAY_CR2_LOW ? 0xfff : 0;
    return error_equal(a, b) && ((a->cr2 ^ b->cr2) & ~ignore) == 0;
}

/* An undefined encoding that is too long as well: #UD here, #GP where the length is looked at
 * first. The prefixes alone must leave no room. */
static bool undefined_and_long(const struct insn_case *c, const struct insn_case_env *env,
                               const struct insn_outcome *a, const struct insn_outcome *b)
{
    struct insn in;
    return a->vector == 13 && a->error == 0 && b->vector == 6 && c->len == INSN_MAX_LEN &&
           insn_decode(&in, c->code, c->len, decode_mode(c->mode), &env->features) == INSN_UD &&
           in.len > 4;
}

bool insn_outcome_equal(const struct insn_case *c, const struct insn_case_env *env,
                        const struct insn_outcome *a, const struct insn_outcome *b)
{
    const struct insn_state *x = &a->state;
    const struct insn_state *y = &b->state;
    if (a->timeout || b->timeout)
        return a->timeout == b->timeout;
    if (undefined_and_long(c, env, a, b))
        return a->state.rip == b->state.rip;
    unsigned lee = a->vector == 3 ? 0 : leeway(c, env, a);
    if ((lee & LEEWAY_UNUSED) && a->vector >= 12 && a->vector <= 14 && b->vector == 3)
        return true;
    return fault_equal(a, b, lee) &&
           ((lee & LEEWAY_GPR) || memcmp(x->gpr, y->gpr, gpr_count(c) * sizeof x->gpr[0]) == 0) &&
           x->rip == y->rip && ((x->rflags ^ y->rflags) & flags_compared(c, env)) == 0 &&
           ((lee & LEEWAY_FPU) || (memcmp(x->zmm, y->zmm, sizeof x->zmm) == 0 &&
                                   memcmp(x->k, y->k, sizeof x->k) == 0 &&
                                   fx_equal(c, env, x->fx, y->fx)));
}

/* Where a saved x87 state has FCS and FDS: offsets, 0 if it has none. They are 0 here
 * (ZERO_FCS_FDS); not every host announces that. */
static void selector_offsets(const struct insn_case *c, const struct insn *in, unsigned at[2])
{
    bool wide = c->mode == IS_MODE_64 && (in->flags & INSN_W);
    at[0] = at[1] = 0;
    switch (in->op) {
    case OP_FNSTENV:
    case OP_FNSAVE:
        at[0] = in->opsize == 2 ? 8 : 16;
        at[1] = in->opsize == 2 ? 12 : 24;
        break;
    case OP_FXSAVE:
    case OP_XSAVE:
    case OP_XSAVEOPT:
    case OP_XSAVEC:
        at[0] = wide ? 0 : 12;
        at[1] = wide ? 0 : 20;
        break;
    default:
        break;
    }
}

/* Is va in a selector that an instruction of the case may have saved? */
static bool saved_selector(const struct insn_case *c, const struct insn_case_env *env, uint64_t va)
{
    struct insn in;
    for (size_t pos = 0; pos < c->len; pos += in.len) {
        unsigned at[2];
        if (insn_decode(&in, c->code + pos, c->len - pos, decode_mode(c->mode), &env->features) !=
            INSN_OK)
            return false;
        selector_offsets(c, &in, at);
        uint64_t base = insn_case_address(c, env, &in, pos);
        for (unsigned i = 0; i < 2; i++) {
            if (at[i] != 0 && va - (base + at[i]) < 2)
                return true;
        }
    }
    return false;
}

/* Linear address of byte i of the image. */
static uint64_t image_address(unsigned i)
{
    return i < 0x2000   ? IS_DATA + i
           : i < 0x3000 ? IS_DATA_RDONLY + i - 0x2000
                        : IS_STACK + i - 0x3000;
}

bool insn_memory_equal(const struct insn_case *c, const struct insn_case_env *env,
                       const struct insn_outcome *a, const uint8_t *mem_a, const uint8_t *mem_b)
{
    if (memcmp(mem_a, mem_b, IS_MEM_SIZE) == 0)
        return true;
    bool equal = true;
    for (unsigned i = 0; i < IS_MEM_SIZE && equal; i++) {
        equal = mem_a[i] == mem_b[i] || (mem_b[i] == 0 && saved_selector(c, env, image_address(i)));
    }
    return equal || (leeway(c, env, a) & (LEEWAY_MEMORY | LEEWAY_UNUSED));
}

static void put_bytes(FILE *f, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "%02x", p[i]);
    }
}

/* One line: what, input if any, a, b. */
static void line64(FILE *f, const char *what, uint64_t in, uint64_t a, uint64_t b)
{
    fprintf(f, "  %-7s in %016" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "\n", what, in, a, b);
}

static void line_bytes(FILE *f, const char *what, const uint8_t *in, const uint8_t *a,
                       const uint8_t *b, size_t n)
{
    fprintf(f, "  %s\n    in ", what);
    put_bytes(f, in, n);
    fprintf(f, "\n       ");
    put_bytes(f, a, n);
    fprintf(f, "\n       ");
    put_bytes(f, b, n);
    fprintf(f, "\n");
}

/* Offset of the first instruction's memory operand, before the segment base. */
static void put_address(FILE *f, const struct insn_case *c, const struct insn *in)
{
    uint64_t a = (uint64_t)in->mem.disp;
    if (in->mem.base == INSN_REG_RIP)
        a += c->in.rip + in->len;
    else if (in->mem.base != INSN_NO_REG)
        a += c->in.gpr[in->mem.base & 15];
    if (in->mem.index != INSN_NO_REG && !(insn_info[in->row].attr & IA_VSIB))
        a += c->in.gpr[in->mem.index & 15] << in->mem.scale;
    fprintf(f, "  memory operand at %" PRIx64 "\n", in->adsize == 4 ? (uint32_t)a : a);
}

static void put_code(FILE *f, const struct insn_case *c, const struct insn_case_env *env)
{
    size_t at = 0;
    while (at < c->len) {
        struct insn in;
        char text[128] = "(undefined)";
        size_t n = c->len - at;
        if (insn_decode(&in, c->code + at, n, decode_mode(c->mode), &env->features) == INSN_OK) {
            insn_format(text, sizeof text, &in, IS_CODE + c->offset + at);
            n = in.len;
        }
        fprintf(f, "  %8x: ", (unsigned)(IS_CODE + c->offset + at));
        put_bytes(f, c->code + at, n);
        fprintf(f, "  %s\n", text);
        if (at == 0 && in.nopnd > 0)
            put_address(f, c, &in);
        at += n;
    }
}

static void put_memory(FILE *f, const struct insn_case *c, const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < IS_MEM_SIZE; i += 16) {
        if (memcmp(a + i, b + i, 16) == 0)
            continue;
        char what[32];
        snprintf(what, sizeof what, "memory %08x", (unsigned)image_address(i));
        line_bytes(f, what, c->mem + i, a + i, b + i, 16);
    }
}

static void put_fx(FILE *f, const struct insn_case *c, const uint8_t *a, const uint8_t *b)
{
    static const struct {
        const char *name;
        uint8_t off, len;
    } part[] = { { "FCW", 0, 2 }, { "FSW", 2, 2 },  { "FTW", 4, 1 },   { "FOP", 6, 2 },
                 { "FIP", 8, 8 }, { "FDP", 16, 8 }, { "MXCSR", 24, 4 } };
    for (unsigned i = 0; i < sizeof part / sizeof part[0]; i++) {
        uint64_t v[3] = { 0 };
        memcpy(&v[0], c->in.fx + part[i].off, part[i].len);
        memcpy(&v[1], a + part[i].off, part[i].len);
        memcpy(&v[2], b + part[i].off, part[i].len);
        if (v[1] != v[2])
            line64(f, part[i].name, v[0], v[1], v[2]);
    }
    for (unsigned i = 0; i < 8; i++) {
        char what[8];
        snprintf(what, sizeof what, "ST%u", i);
        if (memcmp(a + 32 + 16 * i, b + 32 + 16 * i, 10) != 0)
            line_bytes(f, what, c->in.fx + 32 + 16 * i, a + 32 + 16 * i, b + 32 + 16 * i, 10);
    }
}

void insn_case_report(FILE *f, const struct insn_case *c, const struct insn_case_env *env,
                      const char *name_a, const struct insn_outcome *a, const uint8_t *mem_a,
                      const char *name_b, const struct insn_outcome *b, const uint8_t *mem_b)
{
    static const char gpr_name[16][4] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
    fprintf(f, "mismatch: mode %u seed %" PRIu64 " code ",
            c->mode == IS_MODE_64   ? 64
            : c->mode == IS_MODE_32 ? 32
                                    : 16,
            c->seed);
    put_bytes(f, c->code, c->len);
    fprintf(f, "\n");
    put_code(f, c, env);
    fprintf(
        f, "  %s: vector %u error %x cr2 %" PRIx64 "%s; %s: vector %u error %x cr2 %" PRIx64 "%s\n",
        name_a, a->vector, a->error, a->cr2, a->timeout ? " TIMEOUT" : "", name_b, b->vector,
        b->error, b->cr2, b->timeout ? " TIMEOUT" : "");
    for (unsigned i = 0; i < gpr_count(c); i++) {
        if (a->state.gpr[i] != b->state.gpr[i])
            line64(f, gpr_name[i], c->in.gpr[i], a->state.gpr[i], b->state.gpr[i]);
    }
    if (a->state.rip != b->state.rip)
        line64(f, "rip", c->in.rip, a->state.rip, b->state.rip);
    if ((a->state.rflags ^ b->state.rflags) & FLAGS_COMPARED)
        line64(f, "rflags", c->in.rflags, a->state.rflags, b->state.rflags);
    for (unsigned i = 0; i < 32; i++) {
        char what[8];
        snprintf(what, sizeof what, "zmm%u", i);
        if (memcmp(a->state.zmm[i], b->state.zmm[i], 64) != 0)
            line_bytes(f, what, c->in.zmm[i], a->state.zmm[i], b->state.zmm[i], 64);
    }
    for (unsigned i = 0; i < 8; i++) {
        char what[8];
        snprintf(what, sizeof what, "k%u", i);
        if (a->state.k[i] != b->state.k[i])
            line64(f, what, c->in.k[i], a->state.k[i], b->state.k[i]);
    }
    put_fx(f, c, a->state.fx, b->state.fx);
    put_memory(f, c, mem_a, mem_b);
}
