/* SPDX-License-Identifier: Apache-2.0 -- see support/vm.h */
#include "support/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"

#define PTE_PWU 7ull

/* -- World ---------------------------------------------------------------------------------------
 */
static uint32_t port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)ctx, (void)cpu, (void)port, (void)size;
    return ~0u;
}

static void port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    (void)ctx, (void)cpu, (void)port, (void)size, (void)value;
}

static void remember(struct vm *vm, struct vm_mmio m)
{
    if (vm->mmio_count < ARRAY_LEN(vm->mmio)) {
        vm->mmio[vm->mmio_count++] = m;
    }
}

static uint64_t mmio_read(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size)
{
    (void)cpu;
    remember(ctx, (struct vm_mmio){ gpa, size, false, 0 });
    return 0x8877665544332211ull & MASK64(size * 8);
}

static void mmio_write(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
    (void)cpu;
    remember(ctx, (struct vm_mmio){ gpa, size, true, value });
}

static int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return -1;
}

static bool msr_read(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    (void)ctx, (void)cpu, (void)msr, (void)value;
    return false;
}

static bool msr_write(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t value)
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
    struct vm *vm = ctx;
    (void)by;
    vm->code_writes++;
    if (vm->engine != NULL) {
        vm->cls->invalidate(vm->engine, gpa, len);
    }
}

static void code_hook(void *ctx, gpa_t gpa, uint64_t len) { code_written(ctx, NULL, gpa, len); }

static void ferr(void *ctx, struct cpu *cpu, int level) { (void)ctx, (void)cpu, (void)level; }

static bool a20_masked(void *ctx)
{
    (void)ctx;
    return false;
}

static const struct cpu_world world = {
    .port_in = port_in,
    .port_out = port_out,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .irq_ack = irq_ack,
    .apic_msr_read = msr_read,
    .apic_msr_write = msr_write,
    .cr8_get = cr8_get,
    .cr8_set = cr8_set,
    .tsc = no_time,
    .wall_ns = no_time,
    .now_ns = no_time,
    .code_written = code_written,
    .ferr = ferr,
    .a20_masked = a20_masked,
};

/* -- Life -------------------------------------------------------------------------------------- */
static void die(const struct err *e)
{
    fprintf(stderr, "vm: %s\n", e->msg);
    abort();
}

struct vm *vm_new(unsigned cpus, const struct engine_class *cls)
{
    return vm_new_config(cpus, cls, &(struct engine_config){ 0 });
}

struct vm *vm_new_config(unsigned cpus, const struct engine_class *cls,
                         const struct engine_config *extra)
{
    struct err e = { "" };
    struct vm *vm = xzalloc(sizeof *vm);
    vm->cls = cls;
    vm->cpus = cpus;
    vm->world = world;
    vm->world.ctx = vm;
    if (gmem_new(&vm->mem, VM_RAM, GIB(3), &e) < 0 ||
        cpu_model_parse(&vm->model, "host", cpus, 1000000, cls != NULL ? cls->limit : NULL,
                        &e) < 0) {
        die(&e);
    }
    vm->ram = gmem_ram_host(vm->mem);
    gmem_set_code_hook(vm->mem, code_hook, vm);
    for (unsigned i = 0; i < cpus; i++) {
        vm->cpu[i] = aligned_alloc(64, align_up(sizeof *vm->cpu[i], 64));
        memset(vm->cpu[i], 0, sizeof *vm->cpu[i]);
        if (cpu_init(vm->cpu[i], i, &vm->model, &vm->world, vm->mem, &e) < 0) {
            die(&e);
        }
    }
    struct engine_config config = *extra;
    config.mem = vm->mem;
    config.cpus = vm->cpu;
    config.cpu_count = cpus;
    if (cls != NULL && cls->create(&vm->engine, &config, &e) < 0) {
        die(&e);
    }
    return vm;
}

void vm_free(struct vm *vm)
{
    if (vm->engine != NULL) {
        vm->cls->destroy(vm->engine);
    }
    for (unsigned i = 0; i < vm->cpus; i++) {
        cpu_fini(vm->cpu[i]);
        free(vm->cpu[i]);
    }
    gmem_free(vm->mem);
    free(vm);
}

/* -- Memory ------------------------------------------------------------------------------------ */
void vm_poke(struct vm *vm, gpa_t gpa, const void *bytes, size_t len)
{
    if (gmem_write(vm->mem, gpa, bytes, len) < 0) {
        abort();
    }
}

void vm_poke64(struct vm *vm, gpa_t gpa, uint64_t v) { vm_poke(vm, gpa, &v, 8); }

uint64_t vm_peek64(const struct vm *vm, gpa_t gpa)
{
    uint64_t v;
    memcpy(&v, vm->ram + gpa, 8);
    return v;
}

uint64_t vm_counter(struct vm *vm, const char *name)
{
    char buf[8192];
    char line[64];
    vm->cls->stats(vm->engine, buf, sizeof buf);
    snprintf(line, sizeof line, "%s ", name);
    const char *at = strstr(buf, line);
    if (at == NULL) {
        fprintf(stderr, "vm: no counter %s\n", name);
        abort();
    }
    return strtoull(at + strlen(line), NULL, 10);
}

void vm_map(struct vm *vm, unsigned page, uint64_t pte) { vm_poke64(vm, VM_PT + 8 * page, pte); }

void vm_map_other(struct vm *vm, unsigned page, uint64_t pte)
{
    vm_poke64(vm, VM_PT_OTHER + 8 * page, pte);
}

/* Three tables in a row from `at`: PML4, PDPT, PD, and the PD of VM_PAGES at `pages`. */
static void build_tables(struct vm *vm, gpa_t at, gpa_t pages, gpa_t pt)
{
    vm_poke64(vm, at, (at + 0x1000) | PTE_PWU);
    vm_poke64(vm, at + 0x1000, (at + 0x2000) | PTE_PWU);
    vm_poke64(vm, at + 0x1000 + 8 * (VM_PAGES >> 30), pages | PTE_PWU);
    vm_poke64(vm, pages, pt | PTE_PWU);
    for (unsigned i = 0; i < 8; i++) {
        vm_poke64(vm, at + 0x2000 + 8 * i, (uint64_t)i << 21 | PTE_PS | PTE_PWU);
    }
}

static void build_idt(struct vm *vm)
{
    vm_poke64(vm, VM_GDT + 8, 0x00af9b000000ffff);
    vm_poke64(vm, VM_GDT + 16, 0x00cf93000000ffff);
    for (unsigned v = 0; v < 256; v++) {
        uint64_t to = VM_HANDLERS + 16 * v;
        vm_poke64(vm, VM_IDT + 16 * v,
                  (to & 0xffff) | 8ull << 16 | 0x8eull << 40 | (to >> 16) << 48);
        vm_poke64(vm, VM_IDT + 16 * v + 8, 0);
        memset(vm->ram + to, 0xf4, 16);
    }
}

static void set_segment(struct cpu_seg *s, unsigned sel, unsigned attr, uint32_t limit)
{
    *s = (struct cpu_seg){ .limit = limit, .attr = attr, .sel = (uint16_t)sel };
}

void vm_mode(struct vm *vm, unsigned index, unsigned bits)
{
    struct cpu *c = vm->cpu[index];
    cpu_reset(c);
    c->activity = CPU_ACTIVE;
    memset(c->gpr, 0, sizeof c->gpr);
    for (unsigned i = 0; i < SEG_COUNT && bits != 16; i++) {
        set_segment(&c->seg[i], 16, 0xc093, 0xffffffff);
    }
    if (bits == 16) {
        set_segment(&c->seg[SEG_CS], 0, 0x9b, 0xffff);
        c->seg[SEG_CS].base = VM_CODE;
        c->seg[SEG_CS].sel = VM_CODE >> 4;
        c->seg[SEG_SS].base = VM_STACK - 0x10000;
    } else {
        c->cr0 |= CR0_PE | CR0_NE;
        set_segment(&c->seg[SEG_CS], 8, bits == 64 ? 0xa09b : 0xc09b, 0xffffffff);
    }
    if (bits == 64) {
        build_tables(vm, VM_PML4, VM_PD_PAGES, VM_PT);
        build_tables(vm, VM_PML4_OTHER, VM_PD_PAGES_OTHER, VM_PT_OTHER);
        build_idt(vm);
        c->cr3 = VM_PML4;
        c->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE;
        c->efer = EFER_LME | EFER_LMA | EFER_NXE;
        c->cr0 |= CR0_PG | CR0_WP;
        c->idtr = (struct cpu_dtable){ VM_IDT, 0xfff };
        c->gdtr = (struct cpu_dtable){ VM_GDT, 0x1f };
    }
    c->rip = bits == 16 ? 0 : VM_CODE;
    c->gpr[R_SP] = bits == 16 ? 0xfff0 : VM_STACK;
    c->icount = 0;
    cpu_update_mode(c);
    tlb_flush_all(c);
}

/* -- Running ----------------------------------------------------------------------------------- */
enum engine_exit vm_run(struct vm *vm, unsigned index)
{
    struct cpu *c = vm->cpu[index];
    if (c->activity == CPU_HALTED) {
        c->activity = CPU_ACTIVE;
    }
    cpu_clear_event(c, CPU_EV_KICK);
    return vm->cls->run(vm->engine, c);
}

int vm_vector(const struct vm *vm, unsigned index)
{
    uint64_t rip = vm->cpu[index]->rip;
    if (rip <= VM_HANDLERS || rip > VM_HANDLERS + 0x1000) {
        return -1;
    }
    return (int)((rip - 1 - VM_HANDLERS) / 16);
}
