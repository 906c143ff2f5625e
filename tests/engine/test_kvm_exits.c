/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine's exits, from a struct kvm_run that the test fills: no /dev/kvm is needed.
 */
// LAYERS: engine/kvm engine cpu mem state base
#include "engine/kvmtest.h"
#include "support/vm.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exit_io, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(exit_mmio, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(exit_msr, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(exits_without_data, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(exits_that_fail, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(dump_of_a_lost_processor, fake_up, fake_down),
        cmocka_unit_test_setup_teardown(software_runs_one_instruction, fake_up, fake_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
