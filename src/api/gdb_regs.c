/* SPDX-License-Identifier: Apache-2.0
 *
 * Registers for GDB. Names and order within a feature are what GDB asks for (GDB manual, G.5.7);
 * "sosia.system" is ours: GDB shows it as it finds it.
 */
#include "api/gdb_regs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "cpu/except.h"
#include "cpu/fpu.h"
#include "cpu/mmu.h"

enum kind {
    REG_GPR,
    REG_IP,
    REG_FLAGS,
    REG_SEL,
    REG_ST,
    REG_FPCTL, /* index: enum fpctl */
    REG_XMM,
    REG_MXCSR,
    REG_YMMH,
    REG_SYS, /* index: of system_regs */
};

enum fpctl { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP, FPCTL_COUNT };

#define CORE "org.gnu.gdb.i386.core"
#define SSE "org.gnu.gdb.i386.sse"
#define AVX "org.gnu.gdb.i386.avx"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define PKEYS "org.gnu.gdb.i386.pkeys"
#define SYSTEM "sosia.system"

/* Where in struct cpu. CR8 is the local APIC's. */
#define FIELD(m) offsetof(struct cpu, m), sizeof((struct cpu *)0)->m
static const struct system_reg {
    const char *name;
    const char *type;
    const char *feature;
    size_t offset, size;
    bool writable;
} system_regs[] = {
    { "fs_base", "uint64", SEGMENTS, FIELD(seg[SEG_FS].base), true },
    { "gs_base", "uint64", SEGMENTS, FIELD(seg[SEG_GS].base), true },
    { "pkru", "uint32", PKEYS, FIELD(pkru), false },
    { "k_gs_base", "uint64", SYSTEM, FIELD(kernel_gs_base), true },
    { "cs_base", "uint64", SYSTEM, FIELD(seg[SEG_CS].base), false },
    { "ss_base", "uint64", SYSTEM, FIELD(seg[SEG_SS].base), false },
    { "ds_base", "uint64", SYSTEM, FIELD(seg[SEG_DS].base), false },
    { "es_base", "uint64", SYSTEM, FIELD(seg[SEG_ES].base), false },
    { "cr0", "cr0", SYSTEM, FIELD(cr0), false },
    { "cr2", "uint64", SYSTEM, FIELD(cr2), false },
    { "cr3", "uint64", SYSTEM, FIELD(cr3), false },
    { "cr4", "cr4", SYSTEM, FIELD(cr4), false },
    { "cr8", "uint64", SYSTEM, 0, 8, false },
    { "efer", "efer", SYSTEM, FIELD(efer), false },
    { "xcr0", "uint64", SYSTEM, FIELD(xcr0), false },
    { "gdt_base", "uint64", SYSTEM, FIELD(gdtr.base), false },
    { "gdt_limit", "uint16", SYSTEM, FIELD(gdtr.limit), false },
    { "idt_base", "uint64", SYSTEM, FIELD(idtr.base), false },
    { "idt_limit", "uint16", SYSTEM, FIELD(idtr.limit), false },
    { "ldt", "uint16", SYSTEM, FIELD(ldtr.sel), false },
    { "ldt_base", "uint64", SYSTEM, FIELD(ldtr.base), false },
    { "tr", "uint16", SYSTEM, FIELD(tr.sel), false },
    { "tr_base", "uint64", SYSTEM, FIELD(tr.base), false },
    { "dr0", "uint64", SYSTEM, FIELD(dr[0]), false },
    { "dr1", "uint64", SYSTEM, FIELD(dr[1]), false },
    { "dr2", "uint64", SYSTEM, FIELD(dr[2]), false },
    { "dr3", "uint64", SYSTEM, FIELD(dr[3]), false },
    { "dr6", "uint64", SYSTEM, FIELD(dr[6]), false },
    { "dr7", "uint64", SYSTEM, FIELD(dr[7]), false },
};

/* -- The list ---------------------------------------------------------------------------------- */

static void add(struct gdb_regs *r, const char *feature, const char *name, const char *type,
                unsigned bits, enum kind kind, unsigned index)
{
    struct gdb_reg *g = &r->reg[r->count++];
    *g = (struct gdb_reg){ .bits = (uint16_t)bits,
                           .kind = (uint8_t)kind,
                           .index = (uint8_t)index,
                           .type = type,
                           .feature = feature };
    snprintf(g->name, sizeof g->name, "%s", name);
}

static void add_numbered(struct gdb_regs *r, const char *feature, const char *pattern, unsigned n,
                         const char *type, unsigned bits, enum kind kind)
{
    const char *percent = strchr(pattern, '%');
    for (unsigned i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%.*s%u%s", (int)(percent - pattern), pattern, i, percent + 1);
        add(r, feature, name, type, bits, kind, i);
    }
}

static void add_core(struct gdb_regs *r)
{
    static const struct {
        const char *name;
        uint8_t gpr;
    } order[] = { { "ax", R_AX }, { "bx", R_BX }, { "cx", R_CX }, { "dx", R_DX },
                  { "si", R_SI }, { "di", R_DI }, { "bp", R_BP }, { "sp", R_SP } };
    /* GDB's order of the two architectures differs. */
    static const uint8_t order32[] = { 0, 2, 3, 1, 7, 6, 4, 5 };
    static const struct {
        const char *name;
        uint8_t seg;
    } segs[] = { { "cs", SEG_CS }, { "ss", SEG_SS }, { "ds", SEG_DS },
                 { "es", SEG_ES }, { "fs", SEG_FS }, { "gs", SEG_GS } };
    static const char *const fpctl[FPCTL_COUNT] = { "fctrl", "fstat", "ftag",  "fiseg",
                                                    "fioff", "foseg", "fooff", "fop" };
    bool wide = r->arch == GDB_AMD64;
    unsigned bits = wide ? 64 : 32;
    for (unsigned i = 0; i < 8; i++) {
        unsigned k = wide ? i : order32[i];
        char name[8];
        snprintf(name, sizeof name, "%c%s", wide ? 'r' : 'e', order[k].name);
        bool pointer = order[k].gpr == R_BP || order[k].gpr == R_SP;
        add(r, CORE, name,
            pointer ? "data_ptr"
            : wide  ? "int64"
                    : "int32",
            bits, REG_GPR, order[k].gpr);
    }
    for (unsigned i = 8; wide && i < 16; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%u", i);
        add(r, CORE, name, "int64", bits, REG_GPR, i);
    }
    add(r, CORE, wide ? "rip" : "eip", "code_ptr", bits, REG_IP, 0);
    add(r, CORE, "eflags", "eflags", 32, REG_FLAGS, 0);
    for (unsigned i = 0; i < ARRAY_LEN(segs); i++) {
        add(r, CORE, segs[i].name, "int32", 32, REG_SEL, segs[i].seg);
    }
    add_numbered(r, CORE, "st%", 8, "i387_ext", 80, REG_ST);
    for (unsigned i = 0; i < FPCTL_COUNT; i++) {
        add(r, CORE, fpctl[i], "int", 32, REG_FPCTL, i);
    }
}

static void add_system(struct gdb_regs *r, const char *feature)
{
    for (unsigned i = 0; i < ARRAY_LEN(system_regs); i++) {
        const struct system_reg *s = &system_regs[i];
        if (strcmp(s->feature, feature) == 0) {
            add(r, feature, s->name, s->type, (unsigned)s->size * 8, REG_SYS, i);
        }
    }
}

void gdb_regs_init(struct gdb_regs *r, const struct cpu *cpu, enum gdb_arch arch)
{
    unsigned vectors = arch == GDB_AMD64 ? 16 : 8;
    memset(r, 0, sizeof *r);
    r->arch = arch;
    add_core(r);
    add_numbered(r, SSE, "xmm%", vectors, "vec128", 128, REG_XMM);
    add(r, SSE, "mxcsr", "mxcsr", 32, REG_MXCSR, 0);
    if (arch == GDB_AMD64) {
        add_system(r, SEGMENTS);
    }
    if (cpu_has(&cpu->features, CPU_FEATURE_AVX)) {
        add_numbered(r, AVX, "ymm%h", vectors, "uint128", 128, REG_YMMH);
    }
    if (cpu_has(&cpu->features, CPU_FEATURE_PKU)) {
        add_system(r, PKEYS);
    }
    add_system(r, SYSTEM);
}

/* -- The description --------------------------------------------------------------------------- */

struct flag {
    uint8_t bit;
    const char *name;
};

static const struct flags {
    const char *id;
    unsigned bytes;
    struct flag flag[20];
} flag_types[] = {
    { "eflags",
      4,
      { { 0, "CF" },
        { 1, "" },
        { 2, "PF" },
        { 4, "AF" },
        { 6, "ZF" },
        { 7, "SF" },
        { 8, "TF" },
        { 9, "IF" },
        { 10, "DF" },
        { 11, "OF" },
        { 14, "NT" },
        { 16, "RF" },
        { 17, "VM" },
        { 18, "AC" },
        { 19, "VIF" },
        { 20, "VIP" },
        { 21, "ID" } } },
    { "mxcsr",
      4,
      { { 0, "IE" },
        { 1, "DE" },
        { 2, "ZE" },
        { 3, "OE" },
        { 4, "UE" },
        { 5, "PE" },
        { 6, "DAZ" },
        { 7, "IM" },
        { 8, "DM" },
        { 9, "ZM" },
        { 10, "OM" },
        { 11, "UM" },
        { 12, "PM" },
        { 15, "FZ" } } },
    { "cr0",
      8,
      { { 0, "PE" },
        { 1, "MP" },
        { 2, "EM" },
        { 3, "TS" },
        { 4, "ET" },
        { 5, "NE" },
        { 16, "WP" },
        { 18, "AM" },
        { 29, "NW" },
        { 30, "CD" },
        { 31, "PG" } } },
    { "cr4",
      8,
      { { 0, "VME" },
        { 1, "PVI" },
        { 2, "TSD" },
        { 3, "DE" },
        { 4, "PSE" },
        { 5, "PAE" },
        { 6, "MCE" },
        { 7, "PGE" },
        { 8, "PCE" },
        { 9, "OSFXSR" },
        { 10, "OSXMMEXCPT" },
        { 11, "UMIP" },
        { 12, "LA57" },
        { 16, "FSGSBASE" },
        { 17, "PCIDE" },
        { 18, "OSXSAVE" },
        { 20, "SMEP" },
        { 21, "SMAP" },
        { 22, "PKE" } } },
    { "efer", 8, { { 0, "SCE" }, { 8, "LME" }, { 10, "LMA" }, { 11, "NXE" } } },
};

static void describe_flags(FILE *f, const char *id)
{
    for (size_t i = 0; i < ARRAY_LEN(flag_types); i++) {
        const struct flags *t = &flag_types[i];
        if (strcmp(t->id, id) != 0) {
            continue;
        }
        fprintf(f, "<flags id=\"%s\" size=\"%u\">\n", t->id, t->bytes);
        for (const struct flag *b = t->flag; b->name != NULL; b++) {
            fprintf(f, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>\n", b->name, b->bit, b->bit);
        }
        fprintf(f, "</flags>\n");
    }
}

/* Types that registers of this feature have, before the first of them. */
static void describe_types(FILE *f, const char *feature)
{
    static const char vec128[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\n"
                                 "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\n"
                                 "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\n"
                                 "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\n"
                                 "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\n"
                                 "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\n"
                                 "<union id=\"vec128\">\n"
                                 "<field name=\"v4_float\" type=\"v4f\"/>\n"
                                 "<field name=\"v2_double\" type=\"v2d\"/>\n"
                                 "<field name=\"v16_int8\" type=\"v16i8\"/>\n"
                                 "<field name=\"v8_int16\" type=\"v8i16\"/>\n"
                                 "<field name=\"v4_int32\" type=\"v4i32\"/>\n"
                                 "<field name=\"v2_int64\" type=\"v2i64\"/>\n"
                                 "<field name=\"uint128\" type=\"uint128\"/>\n"
                                 "</union>\n";
    if (strcmp(feature, CORE) == 0) {
        describe_flags(f, "eflags");
    } else if (strcmp(feature, SSE) == 0) {
        fputs(vec128, f);
        describe_flags(f, "mxcsr");
    } else if (strcmp(feature, SYSTEM) == 0) {
        describe_flags(f, "cr0");
        describe_flags(f, "cr4");
        describe_flags(f, "efer");
    }
}

char *gdb_regs_describe(const struct gdb_regs *r, size_t *len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    if (f == NULL) {
        return NULL;
    }
    fprintf(f,
            "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n"
            "<architecture>%s</architecture>\n",
            r->arch == GDB_AMD64 ? "i386:x86-64" : "i386");
    const char *feature = NULL;
    for (unsigned i = 0; i < r->count; i++) {
        const struct gdb_reg *g = &r->reg[i];
        if (g->feature != feature) {
            fprintf(f, "%s<feature name=\"%s\">\n", feature != NULL ? "</feature>\n" : "",
                    g->feature);
            feature = g->feature;
            describe_types(f, feature);
        }
        const char *group = g->kind == REG_FPCTL ? " group=\"float\""
                            : g->kind == REG_SYS ? " group=\"system\""
                                                 : "";
        fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s regnum=\"%u\"/>\n", g->name,
                g->bits, g->type, group, i);
    }
    fprintf(f, "</feature>\n</target>\n");
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* -- Values ------------------------------------------------------------------------------------ */

static uint32_t fpctl_read(const struct cpu *cpu, enum fpctl which)
{
    switch (which) {
    case FCTRL:
        return fx_get16(cpu, FX_FCW);
    case FSTAT:
        return fx_get16(cpu, FX_FSW);
    case FTAG:
        return fpu_full_tags(cpu);
    case FIOFF:
        return fx_get32(cpu, FX_FIP);
    case FOOFF:
        return fx_get32(cpu, FX_FDP);
    case FOP:
        return fx_get16(cpu, FX_FOP);
    default:
        return 0; /* of the selectors, which processors of today do not save (ZERO_FCS_FDS) */
    }
}

static uint64_t system_read(struct cpu *cpu, unsigned index)
{
    const struct system_reg *s = &system_regs[index];
    if (s->offset == 0) {
        return cpu->world->cr8_get(cpu->world->ctx, cpu);
    }
    uint64_t v = 0;
    memcpy(&v, (const uint8_t *)cpu + s->offset, s->size);
    return v;
}

static uint64_t width_mask(const struct cpu *cpu) { return cpu_code64(cpu) ? ~0ull : 0xffffffff; }

void gdb_reg_read(const struct gdb_regs *r, unsigned n, struct cpu *cpu,
                  uint8_t out[GDB_REG_BYTES_MAX])
{
    const struct gdb_reg *g = &r->reg[n];
    uint64_t v = 0;
    memset(out, 0, GDB_REG_BYTES_MAX);
    switch ((enum kind)g->kind) {
    case REG_GPR:
        v = cpu->gpr[g->index] & width_mask(cpu);
        break;
    case REG_IP:
        v = cpu->rip & width_mask(cpu);
        break;
    case REG_FLAGS:
        v = cpu->rflags;
        break;
    case REG_SEL:
        v = cpu->seg[g->index].sel;
        break;
    case REG_ST:
        memcpy(out, cpu->fpu.fx + FX_ST + 16 * g->index, 10);
        return;
    case REG_FPCTL:
        v = fpctl_read(cpu, g->index);
        break;
    case REG_XMM:
        memcpy(out, cpu->fpu.zmm[g->index].u8, 16);
        return;
    case REG_MXCSR:
        v = fx_get32(cpu, FX_MXCSR);
        break;
    case REG_YMMH:
        memcpy(out, cpu->fpu.zmm[g->index].u8 + 16, 16);
        return;
    case REG_SYS:
        v = system_read(cpu, g->index);
        break;
    }
    store_le64(out, v);
}

/* What POPF at CPL 0 could change. */
#define FLAGS_WRITABLE                                                                             \
    (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)

static bool fpctl_write(struct cpu *cpu, enum fpctl which, uint32_t v)
{
    switch (which) {
    case FCTRL:
        fx_put16(cpu, FX_FCW, (uint16_t)v);
        return true;
    case FSTAT:
        /* TOP says which register is which: another one would move them all. */
        fx_put16(cpu, FX_FSW,
                 (uint16_t)((v & ~(7u << FSW_TOP_SHIFT)) |
                            (fx_get16(cpu, FX_FSW) & 7u << FSW_TOP_SHIFT)));
        return true;
    default:
        return v == fpctl_read(cpu, which);
    }
}

static bool system_write(struct cpu *cpu, unsigned index, uint64_t v)
{
    const struct system_reg *s = &system_regs[index];
    if (!s->writable || !mmu_canonical_reg(cpu, v)) {
        return v == system_read(cpu, index);
    }
    memcpy((uint8_t *)cpu + s->offset, &v, s->size);
    return true;
}

bool gdb_reg_write(const struct gdb_regs *r, unsigned n, struct cpu *cpu,
                   const uint8_t in[GDB_REG_BYTES_MAX])
{
    const struct gdb_reg *g = &r->reg[n];
    uint64_t v = load_le64(in);
    switch ((enum kind)g->kind) {
    case REG_GPR:
        cpu->gpr[g->index] = v & width_mask(cpu);
        return true;
    case REG_IP:
        cpu->rip = v & width_mask(cpu);
        return true;
    case REG_FLAGS:
        cpu->rflags = (cpu->rflags & ~FLAGS_WRITABLE) | (v & FLAGS_WRITABLE);
        cpu_update_mode(cpu);
        cpu_update_trap(cpu);
        return true;
    case REG_SEL:
        return (uint32_t)v == cpu->seg[g->index].sel;
    case REG_ST:
        memcpy(cpu->fpu.fx + FX_ST + 16 * g->index, in, 10);
        return true;
    case REG_FPCTL:
        return fpctl_write(cpu, g->index, (uint32_t)v);
    case REG_XMM:
        memcpy(cpu->fpu.zmm[g->index].u8, in, 16);
        return true;
    case REG_MXCSR:
        fx_put32(cpu, FX_MXCSR, (uint32_t)v & fpu_mxcsr_mask());
        return true;
    case REG_YMMH:
        memcpy(cpu->fpu.zmm[g->index].u8 + 16, in, 16);
        return true;
    case REG_SYS:
        return system_write(cpu, g->index, v);
    }
    return false;
}
