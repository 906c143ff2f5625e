/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine. Its exits and the layout of vector state need no /dev/kvm: they are called with a
 * struct kvm_run that the test fills. The rest runs guests, and is skipped where none can run. A
 * kernel without VT-x or SVM behind it runs them by an emulator of its own, whose gaps are not
 * ours: pieces of code are such as it does right, too.
 */
// LAYERS: engine/kvm engine cpu mem state base
#include "support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "cpu/fpu.h"
#include "cpu/msr.h"
#include "engine/kvm/kvm.h"
#include "state/state.h"
#include "state/stream.h"
#include "support/vm.h"

/* CODE(name, directives and instructions): bytes name_code[], name_code_end[]. */
#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

/* -- The world that the guests see ------------------------------------------------------------- */

static struct {
    struct {
        uint16_t port;
        unsigned size;
        uint32_t value;
        bool out;
    } io[64];
    unsigned io_count;
    int vector;        /* for irq_ack, -1 none */
    uint8_t tpr;
    bool masked;       /* A20 */
    unsigned kick_at;  /* port 0x10 kicks */
} seen;

static uint32_t port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)ctx, (void)cpu;
    uint32_t value = 0x44332211u + seen.io_count;
    if (seen.io_count < ARRAY_LEN(seen.io)) {
        seen.io[seen.io_count].port = port;
        seen.io[seen.io_count].size = size;
        seen.io[seen.io_count++].out = false;
    }
    return value & (uint32_t)MASK64(size * 8);
}

static void port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    (void)ctx;
    if (seen.io_count < ARRAY_LEN(seen.io)) {
        seen.io[seen.io_count].port = port;
        seen.io[seen.io_count].size = size;
        seen.io[seen.io_count].value = value;
        seen.io[seen.io_count++].out = true;
    }
    if (port == 0x10) {
        cpu_raise_event(cpu, CPU_EV_KICK);
    }
    if (port == 0x11) {
        seen.vector = (int)value;
        cpu_raise_event(cpu, CPU_EV_INTR);
    }
    if (port == 0x12) {
        cpu_raise_nmi(cpu);
    }
    if (port == 0x13) {
        seen.masked = value & 1;
        cpu_raise_event(cpu, CPU_EV_TLB);
    }
}

static int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx;
    int vector = seen.vector;
    seen.vector = -1;
    cpu_clear_event(cpu, CPU_EV_INTR);
    return vector;
}

static uint8_t cr8_get(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return seen.tpr;
}

static void cr8_set(void *ctx, struct cpu *cpu, uint8_t tpr)
{
    (void)ctx, (void)cpu;
    seen.tpr = tpr;
}

static bool a20_masked(void *ctx)
{
    (void)ctx;
    return seen.masked;
}

static void wake(void *ctx, struct cpu *cpu)
{
    struct vm *vm = ctx;
    if (vm->engine != NULL) {
        vm->cls->kick(vm->engine, cpu);
    }
}

static void fill_world(struct vm *vm)
{
    memset(&seen, 0, sizeof seen);
    seen.vector = -1;
    vm->world.port_in = port_in;
    vm->world.port_out = port_out;
    vm->world.irq_ack = irq_ack;
    vm->world.cr8_get = cr8_get;
    vm->world.cr8_set = cr8_set;
    vm->world.a20_masked = a20_masked;
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->cpu[i]->wake = wake;
        vm->cpu[i]->wake_ctx = vm;
    }
}

/* -- Exits, from a kvm_run of the test's ------------------------------------------------------- */

struct fake {
    struct vm *vm;
    struct kvm kvm;
    struct kvm_vcpu v;
    _Alignas(4096) uint8_t run[8192];
};

static struct kvm_run *run_of(struct fake *f) { return (struct kvm_run *)f->run; }

static int fake_up(void **state)
{
    struct fake *f = aligned_alloc(4096, align_up(sizeof *f, 4096));
    memset(f, 0, sizeof *f);
    f->vm = vm_new(1, NULL);
    fill_world(f->vm);
    f->kvm.config = (struct engine_config){
        .mem = f->vm->mem, .cpus = f->vm->cpu, .cpu_count = 1
    };
    f->v.kvm = &f->kvm;
    f->v.cpu = f->vm->cpu[0];
    f->v.fd = -1;
    f->v.run = run_of(f);
    vm_mode(f->vm, 0, 64);
    log_set_level(LOG_ERR);
    *state = f;
    return 0;
}

static int fake_down(void **state)
{
    struct fake *f = *state;
    vm_free(f->vm);
    free(f);
    return 0;
}

static unsigned lines; /* that were logged */
static void count_lines(void *ctx, enum log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
    lines++;
}

static enum kvm_verdict exit_with(struct fake *f, unsigned reason)
{
    run_of(f)->exit_reason = reason;
    f->v.unfinished = false;
    lines = 0;
    log_set_sink(count_lines, NULL);
    enum kvm_verdict verdict = kvm_handle_exit(&f->v);
    log_set_sink(NULL, NULL);
    return verdict;
}

static void exit_io(void **state)
{
    struct fake *f = *state;
    struct kvm_run *run = run_of(f);
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.port = 0x3f8;
    run->io.size = 2;
    run->io.count = 3;
    run->io.data_offset = 4096;
    const uint16_t out[3] = { 0x1111, 0x2222, 0x3333 };
    memcpy(f->run + 4096, out, sizeof out);
    assert_int_equal(exit_with(f, KVM_EXIT_IO), KVM_GO_ON);
    assert_true(f->v.unfinished);
    assert_int_equal(seen.io_count, 3);
    assert_int_equal(seen.io[2].value, 0x3333);
    assert_int_equal(seen.io[2].size, 2);
    run->io.direction = KVM_EXIT_IO_IN;
    run->io.size = 4;
    run->io.count = 2;
    assert_int_equal(exit_with(f, KVM_EXIT_IO), KVM_GO_ON);
    uint32_t in[2];
    memcpy(in, f->run + 4096, sizeof in);
    assert_int_equal(in[0], 0x44332211u + 3);
    assert_int_equal(in[1], 0x44332211u + 4);
}

static void exit_mmio(void **state)
{
    struct fake *f = *state;
    struct kvm_run *run = run_of(f);
    run->mmio.phys_addr = VM_MMIO + 8;
    run->mmio.len = 4;
    run->mmio.is_write = 0;
    assert_int_equal(exit_with(f, KVM_EXIT_MMIO), KVM_GO_ON);
    assert_memory_equal(run->mmio.data, "\x11\x22\x33\x44", 4);
    run->mmio.is_write = 1;
    run->mmio.len = 8;
    memcpy(run->mmio.data, "abcdefgh", 8);
    assert_int_equal(exit_with(f, KVM_EXIT_MMIO), KVM_GO_ON);
    assert_int_equal(f->vm->mmio_count, 2);
    assert_true(f->vm->mmio[1].write && f->vm->mmio[1].value == 0x6867666564636261ull);
    /* A slot that is away for a moment. */
    run->mmio.phys_addr = 0x3000;
    assert_int_equal(exit_with(f, KVM_EXIT_MMIO), KVM_GO_ON);
    assert_int_equal(f->vm->mmio_count, 2);
    assert_memory_equal(f->vm->ram + 0x3000, "abcdefgh", 8);
    /* The same from the second MiB, while A20 is masked. */
    seen.masked = true;
    run->mmio.phys_addr = 0x103000;
    run->mmio.is_write = 0;
    memset(run->mmio.data, 0, 8);
    assert_int_equal(exit_with(f, KVM_EXIT_MMIO), KVM_GO_ON);
    assert_memory_equal(run->mmio.data, "abcdefgh", 8);
}

static void exit_msr(void **state)
{
    struct fake *f = *state;
    struct kvm_run *run = run_of(f);
    run->msr.index = MSR_MTRR_DEF_TYPE;
    run->msr.data = 0x806;
    assert_int_equal(exit_with(f, KVM_EXIT_X86_WRMSR), KVM_GO_ON);
    assert_int_equal(run->msr.error, 0);
    assert_int_equal(f->v.cpu->mtrr_def_type, 0x806);
    run->msr.data = 0;
    assert_int_equal(exit_with(f, KVM_EXIT_X86_RDMSR), KVM_GO_ON);
    assert_int_equal(run->msr.data, 0x806);
    run->msr.index = 0x12345;
    assert_int_equal(exit_with(f, KVM_EXIT_X86_RDMSR), KVM_GO_ON);
    assert_int_equal(run->msr.error, 1);
    /* What the kernel has refused is not for us to grant. */
    uint64_t efer = f->v.cpu->efer;
    run->msr.index = MSR_EFER;
    run->msr.data = EFER_SCE | efer;
    assert_int_equal(exit_with(f, KVM_EXIT_X86_WRMSR), KVM_GO_ON);
    assert_int_equal(run->msr.error, 1);
    assert_true(f->v.cpu->efer == efer);
    assert_true(f->v.unfinished);
}

static void exits_without_data(void **state)
{
    struct fake *f = *state;
    static const unsigned quiet[] = { KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_SET_TPR, KVM_EXIT_INTR,
                                      KVM_EXIT_NMI, KVM_EXIT_X86_BUS_LOCK };
    for (unsigned i = 0; i < ARRAY_LEN(quiet); i++) {
        assert_int_equal(exit_with(f, quiet[i]), KVM_GO_ON);
        assert_false(f->v.unfinished);
        assert_int_equal(lines, 0);
        assert_int_equal(f->v.stats.exits[quiet[i]], 1);
    }
    assert_int_equal(exit_with(f, KVM_EXIT_HYPERCALL), KVM_GO_ON);
    assert_int_equal((int64_t)run_of(f)->hypercall.ret, -1000);
    assert_true(f->v.unfinished);
    assert_int_equal(exit_with(f, KVM_EXIT_HLT), KVM_GO_ON);
    assert_int_equal(f->v.cpu->activity, CPU_HALTED);
    assert_int_equal(exit_with(f, KVM_EXIT_SHUTDOWN), KVM_SHUT_DOWN);
    assert_int_equal(f->v.cpu->activity, CPU_SHUTDOWN);
}

/* Each ends the run with some lines that say why, registers and code among them. */
static void exits_that_fail(void **state)
{
    struct fake *f = *state;
    struct kvm_run *run = run_of(f);
    static const unsigned bad[] = { KVM_EXIT_UNKNOWN,    KVM_EXIT_EXCEPTION,  KVM_EXIT_DEBUG,
                                    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_TPR_ACCESS, KVM_EXIT_WATCHDOG,
                                    KVM_EXIT_IOAPIC_EOI, KVM_EXIT_HYPERV,     39,
                                    4000000000u };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(exit_with(f, bad[i]), KVM_FAILED);
        assert_true(lines >= 10);
    }
    assert_int_equal(f->v.stats.other_exits, 1);
    run->internal.suberror = KVM_INTERNAL_ERROR_SIMUL_EX;
    run->internal.ndata = 1000000; /* more than there is room for */
    assert_int_equal(exit_with(f, KVM_EXIT_INTERNAL_ERROR), KVM_FAILED);
    assert_true(lines >= 10);
    run->system_event.type = KVM_SYSTEM_EVENT_SHUTDOWN;
    assert_int_equal(exit_with(f, KVM_EXIT_SYSTEM_EVENT), KVM_FAILED);
    run->system_event.type = KVM_SYSTEM_EVENT_RESET;
    assert_int_equal(exit_with(f, KVM_EXIT_SYSTEM_EVENT), KVM_SHUT_DOWN);
    /* The kernel's emulator gives up: the instruction is ours. */
    run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    assert_int_equal(exit_with(f, KVM_EXIT_INTERNAL_ERROR), KVM_GO_ON);
    assert_true(f->v.by_software);
    assert_int_equal(f->v.stats.unemulated, 1);
}

/* A dump of a processor whose code cannot be read faults nothing. */
static void dump_of_a_lost_processor(void **state)
{
    struct fake *f = *state;
    f->v.cpu->rip = 0x7fffffff0000;
    assert_int_equal(exit_with(f, KVM_EXIT_FAIL_ENTRY), KVM_FAILED);
    assert_true(lines >= 10);
    assert_false(f->v.cpu->exc_pending);
    assert_int_equal(f->v.cpu->rip, 0x7fffffff0000);
}

static void software_runs_one_instruction(void **state)
{
    struct fake *f = *state;
    enum cpu_poll why;
    vm_poke(f->vm, VM_CODE, "\x48\xff\xc0\x48\xff\xc0", 6); /* inc rax, twice */
    assert_int_equal(kvm_software(&f->v, &why), 0);
    assert_int_equal(f->v.cpu->gpr[R_AX], 1);
    assert_int_equal(f->v.cpu->rip, VM_CODE + 3);
    assert_int_equal(f->v.stats.software, 1);
    /* One that faults is one, too: it comes to its handler. */
    vm_poke(f->vm, VM_CODE + 3, "\x0f\x0b", 2); /* ud2 */
    assert_int_equal(kvm_software(&f->v, &why), 0);
    assert_int_equal(f->v.cpu->rip, VM_HANDLERS + 16 * EXC_UD);
}

/* -- Vector state ------------------------------------------------------------------------------ */

static void vectors_round_trip(void **state)
{
    struct fake *f = *state;
    struct cpu *cpu = f->v.cpu;
    uint64_t rng = 1;
    uint8_t image[KVM_XSAVE_BYTES];
    const bool avx = cpu->model->xcr0_mask & XCOMP_AVX;
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned n = 0; n < (avx ? 4u : 2u); n++) {
            cpu->fpu.zmm[i].u64[n] = test_random(&rng);
        }
    }
    for (unsigned i = FX_ST; i < 160; i++) {
        cpu->fpu.fx[i] = (uint8_t)test_random(&rng);
    }
    fx_put16(cpu, FX_FCW, 0x27f);
    fx_put32(cpu, FX_MXCSR, 0x1fa0);
    const struct cpu_fpu before = cpu->fpu;
    kvm_xsave_put(cpu, image);
    memset(&cpu->fpu, 0xaa, sizeof cpu->fpu);
    kvm_xsave_get(cpu, image);
    assert_memory_equal(cpu->fpu.zmm, before.zmm, sizeof before.zmm);
    assert_memory_equal(cpu->fpu.fx, before.fx, 160);
    assert_memory_equal(cpu->fpu.k, before.k, sizeof before.k);
    /* In their initial state, whatever the bytes say: XSTATE_BV is 0. */
    memset(image + 512, 0, 8);
    kvm_xsave_get(cpu, image);
    assert_int_equal(fx_get16(cpu, FX_FCW), FCW_DEFAULT);
    assert_int_equal(cpu->fpu.zmm[3].u64[0], 0);
    assert_int_equal(fx_get32(cpu, FX_MXCSR), 0x1fa0); /* is never in the initial state */
}

/* -- Guests ------------------------------------------------------------------------------------ */

static bool usable;

static int guest_up(void **state)
{
    *state = NULL;
    if (usable) {
        struct vm *vm = vm_new(2, &kvm_engine);
        fill_world(vm);
        *state = vm;
    }
    return 0;
}

static int guest_down(void **state)
{
    if (*state != NULL) {
        vm_free(*state);
    }
    return 0;
}

#define NEED_GUESTS(state)                                                                         \
    struct vm *vm = *(state);                                                                      \
    if (vm == NULL) {                                                                              \
        skip();                                                                                    \
        return;                                                                                    \
    }                                                                                              \
    struct cpu *c = vm->cpu[0]

static void sync_all(struct vm *vm, bool written)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->cls->sync(vm->engine, vm->cpu[i], CPU_GROUP_ALL, written);
    }
}

static void begin(struct vm *vm, unsigned bits)
{
    sync_all(vm, true);
    vm_mode(vm, 0, bits);
}

static enum engine_exit go(struct vm *vm, unsigned index)
{
    enum engine_exit why = vm_run(vm, index);
    sync_all(vm, false);
    return why;
}

CODE(sum64, "mov $100, %ecx\n xor %eax, %eax\n 1: add %rcx, %rax\n dec %ecx\n jnz 1b\n hlt");
CODE(sum32, ".code32\n"
            "mov $100, %ecx\n xor %eax, %eax\n 1: add %ecx, %eax\n dec %ecx\n jnz 1b\n hlt");
CODE(sum16, ".code16\n mov $100, %cx\n xor %ax, %ax\n 1: add %cx, %ax\n dec %cx\n jnz 1b\n hlt");

static void sums(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, sum64);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 5050);
    begin(vm, 32);
    LOAD(vm, VM_CODE, sum32);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 5050);
    begin(vm, 16);
    LOAD(vm, VM_CODE, sum16);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX] & 0xffff, 5050);
}

CODE(ports, "mov $0x5678, %edx\n mov $0xaabbccdd, %eax\n out %al, %dx\n out %ax, %dx\n"
            "out %eax, %dx\n"
            "in %dx, %eax\n mov %eax, %ebx\n"
            "mov $0x20000, %esi\n mov $3, %ecx\n cld\n rep outsb\n hlt");

static void port_exits(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, ports);
    vm_poke(vm, 0x20000, "xyz", 3);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(seen.io_count, 7);
    assert_int_equal(seen.io[0].value, 0xdd);
    assert_int_equal(seen.io[1].value, 0xccdd);
    assert_int_equal(seen.io[2].value, 0xaabbccddu);
    assert_int_equal(c->gpr[R_BX], 0x44332211u + 3);
    assert_int_equal(seen.io[4].value, 'x');
    assert_int_equal(seen.io[6].value, 'z');
    assert_int_equal(c->gpr[R_SI], 0x20003);
}

CODE(device, "mov $0xa00000, %ebx\n mov 8(%rbx), %eax\n"
             "movq $0x1234, 16(%rbx)\n movb $7, (%rbx)\n hlt");

static void mmio_exits(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, device);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 0x44332211);
    assert_int_equal(vm->mmio_count, 3);
    assert_int_equal(vm->mmio[1].gpa, VM_MMIO + 16);
    assert_int_equal(vm->mmio[1].value, 0x1234);
    assert_int_equal(vm->mmio[2].size, 1);
}

/* WRMSR and RDMSR of IA32_MTRR_DEF_TYPE, and one that is none. */
CODE(msrs, "mov $0x2ff, %ecx\n mov $0x806, %eax\n xor %edx, %edx\n wrmsr\n xor %eax, %eax\n rdmsr\n"
           "mov %eax, %ebx\n mov $0x12345, %ecx\n rdmsr\n hlt");

static void msr_exits(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, msrs);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->mtrr_def_type, 0x806);
    assert_int_equal(c->gpr[R_BX], 0x806);
    assert_int_equal(vm_vector(vm, 0), EXC_GP);
}

CODE(boom, "lidt no_idt(%rip)\n ud2\n no_idt: .fill 10");

static void triple_fault(void **state)
{
    NEED_GUESTS(state);
    (void)c;
    begin(vm, 64);
    LOAD(vm, VM_CODE, boom);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_SHUTDOWN);
}

CODE(faults, "mov 0x60000000, %rax\n hlt");

static void page_fault(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, faults);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), EXC_PF);
    assert_true(c->cr2 == 0x60000000);
}

/* The interrupt comes with interrupts off, and is taken after STI; then an NMI. */
CODE(interrupted, "cli\n mov $0x55, %al\n out %al, $0x11\n nop\n mov $7, %ebx\n sti\n 1: jmp 1b");
CODE(nmi, "out %al, $0x12\n 1: jmp 1b");

static void interrupts(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, interrupted);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 0x55);
    assert_int_equal(c->gpr[R_BX], 7);
    begin(vm, 64);
    LOAD(vm, VM_CODE, nmi);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), EXC_NMI);
    assert_true(c->nmi_blocked);
}

CODE(halts, "sti\n hlt\n mov $9, %ebx\n cli\n hlt");

static void halt_ends_with_an_interrupt(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, halts);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->activity, CPU_HALTED);
    seen.vector = 0x41;
    cpu_raise_event(c, CPU_EV_INTR);
    assert_int_equal(vm->cls->run(vm->engine, c), ENGINE_EXIT_HALT);
    sync_all(vm, false);
    assert_int_equal(vm_vector(vm, 0), 0x41);
    assert_int_equal(c->gpr[R_BX], 0);
}

CODE(tpr, "mov $5, %eax\n mov %rax, %cr8\n mov %cr8, %rbx\n hlt");

static void task_priority(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, tpr);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_BX], 5);
    assert_int_equal(seen.tpr, 5);
}

/* INIT and SIPI start the second processor at 0x10000 (VM_CODE). */
CODE(second, ".code16\n mov $0x1234, %ax\n hlt");

static void startup(void **state)
{
    NEED_GUESTS(state);
    struct cpu *ap = vm->cpu[1];
    (void)c;
    begin(vm, 16);
    cpu_reset(ap);
    assert_int_equal(go(vm, 1), ENGINE_EXIT_HALT);
    assert_int_equal(ap->activity, CPU_WAIT_SIPI);
    LOAD(vm, VM_CODE, second);
    ap->sipi_vector = VM_CODE >> 12;
    cpu_raise_event(ap, CPU_EV_INIT | CPU_EV_SIPI);
    assert_int_equal(go(vm, 1), ENGINE_EXIT_HALT);
    assert_int_equal(ap->gpr[R_AX], 0x1234);
    assert_int_equal(ap->seg[SEG_CS].sel, VM_CODE >> 4);
}

/* Reads 0x103000 with A20 masked and open; the loads are 32-bit ones without paging. */
CODE(wrap, ".code32\n mov 0x103000, %ebx\n xor %eax, %eax\n"
           "out %al, $0x13\n mov 0x103000, %ecx\n hlt");

static void a20(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 32);
    LOAD(vm, VM_CODE, wrap);
    vm_poke(vm, 0x3000, "low!", 4);
    vm_poke(vm, 0x103000, "high", 4);
    seen.masked = true;
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_memory_equal(&c->gpr[R_BX], "low!", 4);
    assert_memory_equal(&c->gpr[R_CX], "high", 4);
}

/* A ROM over RAM: stores are the bus'. */
CODE(rom, ".code32\n mov 0x40000, %ebx\n movl $5, 0x40000\n mov 0x40000, %ecx\n hlt");

static void rom_is_read_only(void **state)
{
    NEED_GUESTS(state);
    struct err e;
    static const uint8_t bytes[4096] = "ROM.";
    begin(vm, 32);
    LOAD(vm, VM_CODE, rom);
    assert_int_equal(gmem_map_rom(vm->mem, 0x40000, bytes, sizeof bytes, &e), 0);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_memory_equal(&c->gpr[R_BX], "ROM.", 4);
    assert_memory_equal(&c->gpr[R_CX], "ROM.", 4);
    assert_int_equal(vm->mmio_count, 1);
    gmem_map_ram(vm->mem, 0x40000, 4096);
    begin(vm, 32);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_CX], 5);
    assert_int_equal(vm->mmio_count, 1);
}

/* -- Kicks ------------------------------------------------------------------------------------- */

CODE(forever, "1: jmp 1b");

static void *kick_later(void *arg)
{
    struct vm *vm = arg;
    usleep(50000);
    cpu_raise_event(vm->cpu[0], CPU_EV_KICK);
    return NULL;
}

static void a_kick_ends_a_loop(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, forever);
    for (unsigned i = 0; i < 5; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, kick_later, vm), 0);
        assert_int_equal(go(vm, 0), ENGINE_EXIT_KICK);
        pthread_join(t, NULL);
        assert_int_equal(c->rip, VM_CODE);
    }
}

/* The instruction that exits is over when run() is. */
CODE(kicks_itself, "mov $1, %ebx\n in $0x20, %al\n out %al, $0x10\n hlt");

static void a_kick_leaves_nothing_unfinished(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, kicks_itself);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_KICK);
    assert_int_equal(c->gpr[R_AX] & 0xff, 0x11);
    assert_int_equal(c->rip, VM_CODE + 5 + 2 + 2);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
}

/* -- State ------------------------------------------------------------------------------------- */

static void scribble(struct cpu *c, uint64_t *rng)
{
    for (unsigned i = 0; i < 16; i++) {
        c->gpr[i] = test_random(rng);
        c->fpu.zmm[i].u64[0] = test_random(rng);
        c->fpu.zmm[i].u64[1] = test_random(rng);
    }
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned n = 0; n < 10; n++) {
            c->fpu.fx[FX_ST + 16 * i + n] = (uint8_t)test_random(rng);
        }
    }
    c->rflags = FLAG_FIXED | (test_random(rng) & FLAGS_ARITH);
    c->cr2 = test_random(rng);
    c->star = test_random(rng);
    c->lstar = test_random(rng) >> 20;
    c->cstar = test_random(rng) >> 20;
    c->sfmask = (uint32_t)test_random(rng);
    c->kernel_gs_base = test_random(rng) >> 20;
    c->sysenter_cs = (uint32_t)test_random(rng);
    c->sysenter_esp = test_random(rng) >> 20;
    c->sysenter_eip = test_random(rng) >> 20;
    c->pat = 0x0007010600070106ull;
    c->seg[SEG_FS].base = test_random(rng) >> 20;
    c->seg[SEG_GS].base = test_random(rng) >> 20;
    c->dr[0] = test_random(rng) >> 20;
    c->dr[3] = test_random(rng) >> 20;
    c->dr[6] = 0xffff0ff1;
    c->nmi_blocked = test_random(rng) & 1;
    c->int_shadow = test_random(rng) & 1 ? CPU_SHADOW_STI : CPU_SHADOW_NONE;
}

static void *saved(struct cpu *c, size_t *len)
{
    struct state_out *o = state_out_new();
    c->tsc_offset = 0;
    cpu_pre_save(c);
    state_save(o, "cpu", CPU_STATE_VERSION, cpu_state, c);
    const uint8_t *data = state_out_data(o, len);
    void *copy = malloc(*len);
    memcpy(copy, data, *len);
    state_out_free(o);
    return copy;
}

static void wipe(struct cpu *c)
{
    memset(c->gpr, 0, sizeof c->gpr);
    memset(c->seg, 0, sizeof c->seg);
    memset(&c->fpu, 0, sizeof c->fpu);
    memset(c->dr, 0, sizeof c->dr);
    c->rip = c->rflags = c->cr0 = c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
    c->gdtr = c->idtr = (struct cpu_dtable){ 0 };
    c->ldtr = c->tr = (struct cpu_seg){ 0 };
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = c->pat = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->nmi_blocked = false;
    c->int_shadow = 0;
}

/* To the kernel and back: nothing is lost, nothing is changed. */
static void state_round_trip(void **state)
{
    NEED_GUESTS(state);
    struct kvm_vcpu *v = c->engine;
    static const unsigned modes[] = { 16, 32, 64 };
    uint64_t rng = 77;
    for (unsigned i = 0; i < 30; i++) {
        begin(vm, modes[i % 3]);
        scribble(c, &rng);
        c->insn_ip = c->rip;
        size_t before_len, after_len;
        void *before = saved(c, &before_len);
        assert_int_equal(kvm_push(v), 0);
        wipe(c);
        assert_int_equal(kvm_pull(v), 0);
        void *after = saved(c, &after_len);
        assert_int_equal(before_len, after_len);
        assert_memory_equal(before, after, before_len);
        free(before);
        free(after);
    }
}

/* What waits in the kernel undelivered is delivered before anybody looks. */
static void events_are_settled(void **state)
{
    NEED_GUESTS(state);
    struct kvm_vcpu *v = c->engine;
    begin(vm, 64);
    c->rflags |= FLAG_IF;
    assert_int_equal(kvm_memory_update(v->kvm, v), 0);
    assert_int_equal(kvm_push(v), 0);
    struct kvm_vcpu_events ev = { .interrupt = { .injected = 1, .nr = 0x33 } };
    if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0) {
        skip();
    }
    assert_int_equal(kvm_settle_events(v), 0);
    assert_int_equal(c->rip, VM_HANDLERS + 16 * 0x33);
    assert_false(c->rflags & FLAG_IF);
    begin(vm, 64);
    assert_int_equal(kvm_push(v), 0);
    ev = (struct kvm_vcpu_events){ .exception = { .injected = 1, .nr = EXC_GP,
                                                  .has_error_code = 1, .error_code = 0x18 } };
    assert_int_equal(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev), 0);
    assert_int_equal(kvm_settle_events(v), 0);
    assert_int_equal(c->rip, VM_HANDLERS + 16 * EXC_GP);
    uint64_t error;
    memcpy(&error, vm->ram + c->gpr[R_SP], sizeof error);
    assert_int_equal(error, 0x18);
    vm_mode(vm, 0, 64);
}

int main(void)
{
    struct engine_probe probe;
    kvm_engine.probe(&probe);
    usable = probe.usable;
    if (!usable) {
        print_message("guests are skipped: %s\n", probe.text);
    }
    const struct CMUnitTest tests[] = {
#define FAKE(fn) cmocka_unit_test_setup_teardown(fn, fake_up, fake_down)
#define GUEST(fn) cmocka_unit_test_setup_teardown(fn, guest_up, guest_down)
        FAKE(exit_io),
        FAKE(exit_mmio),
        FAKE(exit_msr),
        FAKE(exits_without_data),
        FAKE(exits_that_fail),
        FAKE(dump_of_a_lost_processor),
        FAKE(software_runs_one_instruction),
        FAKE(vectors_round_trip),
        GUEST(sums),
        GUEST(port_exits),
        GUEST(mmio_exits),
        GUEST(msr_exits),
        GUEST(triple_fault),
        GUEST(page_fault),
        GUEST(interrupts),
        GUEST(halt_ends_with_an_interrupt),
        GUEST(task_priority),
        GUEST(startup),
        GUEST(a20),
        GUEST(rom_is_read_only),
        GUEST(a_kick_ends_a_loop),
        GUEST(a_kick_leaves_nothing_unfinished),
        GUEST(state_round_trip),
        GUEST(events_are_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
