/* SPDX-License-Identifier: Apache-2.0
 *
 * See guestrun.h. The guest's supervisor half (tables, stack, one HLT per vector) is at the bottom
 * of the upper half of the address space; below lie the test regions only.
 */
#include "support/guestrun.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/except.h"
#include "cpu/model.h"
#include "mem/gmem.h"

#define RAM_SIZE MIB(2)
#define TSC_KHZ 2000000u

enum guest_page {
    GPA_PML4 = 0x10000,
    GPA_PDPT_LOW = 0x11000,
    GPA_PD_LOW = 0x12000,
    GPA_PT_CODE = 0x13000,
    GPA_PT_DATA = 0x14000,
    GPA_PT_STACK = 0x15000,
    GPA_PDPT_HIGH = 0x16000,
    GPA_PD_HIGH = 0x17000,
    GPA_PT_HIGH = 0x18000,
    GPA_GDT = 0x20000,
    GPA_IDT = 0x21000,
    GPA_TSS = 0x22000,
    GPA_KSTACK = 0x23000,
    GPA_HANDLERS = 0x24000,
    GPA_CODE = 0x30000,
    GPA_MEM = 0x40000, /* data pages 0, 1, 3 and the stack, as in the image */
};
#define SUPER_BASE 0xffff800000000000ull
#define SUPER(gpa) (SUPER_BASE + (gpa))

/* Linux's selectors, since code can read them. */
enum {
    SEL_KCS = 0x10,
    SEL_KDS = 0x18,
    SEL_UCS32 = 0x23,
    SEL_UDS = 0x2b,
    SEL_UCS = 0x33,
    SEL_TSS = 0x40
};

struct guestrun {
    const struct engine_class *cls;
    struct engine *engine;
    struct gmem *mem;
    struct cpu *cpu;
    struct cpu_model model;
    struct cpu_world world;
    uint8_t *ram;
    uint64_t fs_base;
    bool timed_out;
};

/* -- World: nothing is there. */

static uint32_t port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)ctx, (void)cpu, (void)port, (void)size;
    return ~0u;
}
static void port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    (void)ctx, (void)cpu, (void)port, (void)size, (void)value;
}
static uint64_t mmio_read(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size)
{
    (void)ctx, (void)cpu, (void)gpa, (void)size;
    return ~0ull;
}
static void mmio_write(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
    (void)ctx, (void)cpu, (void)gpa, (void)size, (void)value;
}
static int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return -1;
}
static bool apic_msr_read(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    (void)ctx, (void)cpu, (void)msr, (void)value;
    return false;
}
static bool apic_msr_write(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t value)
{
    (void)ctx, (void)cpu, (void)msr, (void)value;
    return false;
}
static uint8_t cr8_get(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return 0;
}
static void cr8_set(void *ctx, struct cpu *cpu, uint8_t tpr) { (void)ctx, (void)cpu, (void)tpr; }
static uint64_t no_time(void *ctx)
{
    (void)ctx;
    return 0;
}
static void code_written(void *ctx, struct cpu *by, gpa_t gpa, uint64_t len)
{
    struct guestrun *g = ctx;
    (void)by;
    if (g->engine != NULL)
        g->cls->invalidate(g->engine, gpa, len);
}
static void code_hook(void *ctx, gpa_t gpa, uint64_t len) { code_written(ctx, NULL, gpa, len); }
static void ferr(void *ctx, struct cpu *cpu, int level) { (void)ctx, (void)cpu, (void)level; }
static bool a20_masked(void *ctx)
{
    (void)ctx;
    return false;
}

static void fill_world(struct guestrun *g)
{
    g->world = (struct cpu_world){
        .ctx = g,
        .port_in = port_in,
        .port_out = port_out,
        .mmio_read = mmio_read,
        .mmio_write = mmio_write,
        .irq_ack = irq_ack,
        .apic_msr_read = apic_msr_read,
        .apic_msr_write = apic_msr_write,
        .cr8_get = cr8_get,
        .cr8_set = cr8_set,
        .tsc = no_time,
        .wall_ns = no_time,
        .now_ns = no_time,
        .code_written = code_written,
        .ferr = ferr,
        .a20_masked = a20_masked,
    };
}

/* -- Tables */

static void put64(struct guestrun *g, uint64_t gpa, uint64_t v)
{
    memcpy(g->ram + gpa, &v, sizeof v);
}

static void build_paging(struct guestrun *g)
{
    const uint64_t user = PTE_P | PTE_W | PTE_U;
    put64(g, GPA_PML4, GPA_PDPT_LOW | user);
    put64(g, GPA_PML4 + 8 * 256, GPA_PDPT_HIGH | PTE_P | PTE_W);
    put64(g, GPA_PDPT_LOW, GPA_PD_LOW | user);
    put64(g, GPA_PD_LOW + 8 * (IS_CODE >> 21), GPA_PT_CODE | user);
    put64(g, GPA_PD_LOW + 8 * (IS_DATA >> 21), GPA_PT_DATA | user);
    put64(g, GPA_PD_LOW + 8 * (IS_STACK >> 21), GPA_PT_STACK | user);
    for (unsigned i = 0; i < IS_CODE_SIZE / 4096; i++) {
        put64(g, GPA_PT_CODE + 8 * i, (GPA_CODE + 4096 * i) | user);
    }
    put64(g, GPA_PT_DATA, GPA_MEM | user | PTE_NX);
    put64(g, GPA_PT_DATA + 8, (GPA_MEM + 0x1000) | user | PTE_NX);
    put64(g, GPA_PT_DATA + 24, (GPA_MEM + 0x2000) | PTE_P | PTE_U | PTE_NX);
    put64(g, GPA_PT_STACK, (GPA_MEM + 0x3000) | user | PTE_NX);
    put64(g, GPA_PDPT_HIGH, GPA_PD_HIGH | PTE_P | PTE_W);
    put64(g, GPA_PD_HIGH, GPA_PT_HIGH | PTE_P | PTE_W);
    for (unsigned gpa = GPA_GDT; gpa <= GPA_HANDLERS; gpa += 4096) {
        put64(g, GPA_PT_HIGH + 8 * (gpa >> 12), gpa | PTE_P | PTE_W);
    }
}

/* 64-bit interrupt gate to the vector's HLT. */
static void build_idt(struct guestrun *g)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t to = SUPER(GPA_HANDLERS) + 16 * v;
        uint64_t dpl = v == 3 || v == 4 ? 3 : 0;
        put64(g, GPA_IDT + 16 * v,
              (to & 0xffff) | (uint64_t)SEL_KCS << 16 | (0x8eull | dpl << 5) << 40 |
                  (to >> 16 & 0xffff) << 48);
        put64(g, GPA_IDT + 16 * v + 8, to >> 32);
        memset(g->ram + GPA_HANDLERS + 16 * v, 0xf4, 16);
    }
}

static void build_gdt(struct guestrun *g)
{
    uint64_t tss = SUPER(GPA_TSS);
    put64(g, GPA_GDT + SEL_KCS, 0x00af9b000000ffff);
    put64(g, GPA_GDT + SEL_KDS, 0x00cf93000000ffff);
    put64(g, GPA_GDT + (SEL_UCS32 & ~7), 0x00cffb000000ffff);
    put64(g, GPA_GDT + (SEL_UDS & ~7), 0x00cff3000000ffff);
    put64(g, GPA_GDT + (SEL_UCS & ~7), 0x00affb000000ffff);
    put64(g, GPA_GDT + SEL_TSS,
          0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
    put64(g, GPA_GDT + SEL_TSS + 8, tss >> 32);
    put64(g, GPA_TSS + 4, SUPER(GPA_KSTACK) + 4096); /* RSP0 */
    g->ram[GPA_TSS + 102] = 0x68;                    /* no I/O bitmap */
}

static void set_segment(struct cpu_seg *s, unsigned sel, unsigned attr, uint64_t base)
{
    *s = (struct cpu_seg){ .base = base, .limit = 0xffffffff, .attr = attr, .sel = (uint16_t)sel };
}

/* Attributes in the layout of descriptor bits 40..55. */
#define ATTR_UCS64 0xa0fbu
#define ATTR_UCS32 0xc0fbu
#define ATTR_UDS 0xc0f3u
#define ATTR_CS16 0x00fbu
#define ATTR_DS16 0x00f3u

static void load_segments16(struct cpu *c)
{
    const struct cpu_seg ds = { IS_DATA, IS_LIMIT_DS16, ATTR_DS16, IS_SEL_DS16 };
    c->seg[SEG_CS] = (struct cpu_seg){ IS_CODE, IS_LIMIT_CS16, ATTR_CS16, IS_SEL_CS16 };
    c->seg[SEG_SS] = (struct cpu_seg){ IS_STACK, IS_LIMIT_SS16, ATTR_DS16, IS_SEL_SS16 };
    c->seg[SEG_DS] = ds;
    c->seg[SEG_ES] = ds;
}

static void load_segments(struct guestrun *g, enum is_mode mode)
{
    struct cpu *c = g->cpu;
    if (mode == IS_MODE_64)
        set_segment(&c->seg[SEG_CS], SEL_UCS, ATTR_UCS64, 0);
    else
        set_segment(&c->seg[SEG_CS], SEL_UCS32, ATTR_UCS32, 0);
    set_segment(&c->seg[SEG_SS], SEL_UDS, ATTR_UDS, 0);
    set_segment(&c->seg[SEG_DS], SEL_UDS, ATTR_UDS, 0);
    set_segment(&c->seg[SEG_ES], SEL_UDS, ATTR_UDS, 0);
    set_segment(&c->seg[SEG_FS], 0, SEG_ATTR_NULL, g->fs_base);
    set_segment(&c->seg[SEG_GS], 0, SEG_ATTR_NULL, 0);
    if (mode == IS_MODE_16)
        load_segments16(c);
}

static void load_system(struct guestrun *g)
{
    struct cpu *c = g->cpu;
    c->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    c->cr3 = GPA_PML4;
    c->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP;
    c->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    c->xcr0 = g->model.xcr0_mask & 0xe7;
    c->gdtr = (struct cpu_dtable){ .base = SUPER(GPA_GDT), .limit = SEL_TSS + 15 };
    c->idtr = (struct cpu_dtable){ .base = SUPER(GPA_IDT), .limit = 0xfff };
    c->tr = (struct cpu_seg){ .base = SUPER(GPA_TSS), .limit = 0x67, .attr = 0x8b, .sel = SEL_TSS };
    c->ldtr = (struct cpu_seg){ .attr = SEG_ATTR_NULL };
    load_segments(g, IS_MODE_64);
    cpu_update_mode(c);
    tlb_flush_all(c);
}

/* -- Life */

static int start(struct guestrun *g, struct err *e)
{
    int r = gmem_new(&g->mem, RAM_SIZE, GIB(3), e);
    if (r < 0)
        return r;
    g->ram = gmem_ram_host(g->mem);
    gmem_set_code_hook(g->mem, code_hook, g);
    r = cpu_model_parse(&g->model, "host", 1, TSC_KHZ, NULL, e);
    if (r < 0)
        return r;
    fill_world(g);
    r = cpu_init(g->cpu, 0, &g->model, &g->world, g->mem, e);
    if (r < 0)
        return r;
    struct engine_config config = { .mem = g->mem, .cpus = &g->cpu, .cpu_count = 1 };
    return g->cls->create(&g->engine, &config, e);
}

struct guestrun *guestrun_new(const struct engine_class *cls, uint64_t fs_base, struct err *e)
{
    struct guestrun *g = xzalloc(sizeof *g);
    g->cls = cls;
    g->fs_base = fs_base;
    g->cpu = aligned_alloc(64, align_up(sizeof *g->cpu, 64));
    if (g->cpu == NULL)
        abort();
    memset(g->cpu, 0, sizeof *g->cpu);
    if (start(g, e) < 0) {
        guestrun_free(g);
        return NULL;
    }
    build_paging(g);
    build_gdt(g);
    build_idt(g);
    memset(g->ram + GPA_CODE, 0xcc, IS_CODE_SIZE);
    load_system(g);
    return g;
}

void guestrun_free(struct guestrun *g)
{
    if (g->engine != NULL)
        g->cls->destroy(g->engine);
    if (g->cpu->mem != NULL)
        cpu_fini(g->cpu);
    free(g->cpu);
    gmem_free(g->mem);
    free(g);
}

struct cpu *guestrun_cpu(struct guestrun *g) { return g->cpu; }

void guestrun_set_code(struct guestrun *g, unsigned offset, const uint8_t *code, size_t len)
{
    unsigned from = offset & ~63u;
    memset(g->ram + GPA_CODE + from, 0xcc, 192);
    memcpy(g->ram + GPA_CODE + offset, code, len);
    gmem_mark_written(g->mem, GPA_CODE + from, 192);
}

void guestrun_set_memory(struct guestrun *g, const uint8_t image[IS_MEM_SIZE])
{
    memcpy(g->ram + GPA_MEM, image, IS_MEM_SIZE);
}

const uint8_t *guestrun_memory(struct guestrun *g) { return g->ram + GPA_MEM; }

void guestrun_kick(struct guestrun *g)
{
    cpu_raise_event(g->cpu, CPU_EV_KICK);
    g->cls->kick(g->engine, g->cpu);
}

static void load_state(struct guestrun *g, enum is_mode mode, const struct insn_state *in)
{
    struct cpu *c = g->cpu;
    g->cls->sync(g->engine, c, CPU_GROUP_ALL, true);
    load_segments(g, mode);
    memcpy(c->gpr, in->gpr, sizeof c->gpr);
    c->rip = in->rip;
    c->rflags = in->rflags;
    memcpy(c->fpu.fx, in->fx, sizeof in->fx);
    memcpy(c->fpu.zmm, in->zmm, sizeof in->zmm);
    memcpy(c->fpu.k, in->k, sizeof in->k);
    c->cr2 = 0;
    c->activity = CPU_ACTIVE;
    cpu_clear_event(c, CPU_EV_KICK);
    cpu_update_mode(c);
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void read_outcome(struct guestrun *g, struct insn_outcome *out)
{
    const struct cpu *c = g->cpu;
    uint64_t frame[6]; /* error, rip, cs, rflags, rsp, ss */
    out->vector = (unsigned)((c->rip - 1 - SUPER(GPA_HANDLERS)) / 16);
    memcpy(frame, g->ram + GPA_KSTACK + 4096 - sizeof frame, sizeof frame);
    out->error = has_error_code(out->vector) ? (uint32_t)frame[0] : 0;
    out->cr2 = out->vector == 14 ? c->cr2 : 0;
    memcpy(out->state.gpr, c->gpr, sizeof out->state.gpr);
    out->state.gpr[R_SP] = frame[4];
    out->state.rip = frame[1];
    out->state.rflags = frame[3];
    memcpy(out->state.fx, c->fpu.fx, sizeof out->state.fx);
    memcpy(out->state.zmm, c->fpu.zmm, sizeof out->state.zmm);
    memcpy(out->state.k, c->fpu.k, sizeof out->state.k);
}

void guestrun_run(struct guestrun *g, enum is_mode mode, const struct insn_state *in,
                  struct insn_outcome *out)
{
    memset(out, 0, sizeof *out);
    load_state(g, mode, in);
    enum engine_exit x = g->cls->run(g->engine, g->cpu);
    g->cls->sync(g->engine, g->cpu, CPU_GROUP_ALL, false);
    if (x != ENGINE_EXIT_HALT) {
        out->timeout = true;
        if (x == ENGINE_EXIT_SHUTDOWN)
            out->vector = 256;
        return;
    }
    read_outcome(g, out);
}

void guestrun_warm_up(struct guestrun *g)
{
    static const uint8_t fld1[] = { 0xd9, 0xe8 };
    struct insn_state in;
    struct insn_outcome out;
    memset(&in, 0, sizeof in);
    in.fx[24] = 0x80; /* MXCSR 1f80h */
    in.fx[25] = 0x1f;
    in.rip = IS_CODE + 0x100;
    in.rflags = 0x202;
    guestrun_set_code(g, 0x100, fld1, sizeof fld1);
    guestrun_run(g, IS_MODE_64, &in, &out);
}
