/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine runs small guests.
 */
// LAYERS: engine/kvm engine cpu mem state base
#include "engine/kvmtest.h"
#include "support/vm.h"

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

CODE(stores, "mov $0x40000, %ebx\n mov %ebx, (%rbx)\n mov %ebx, 0x3000(%rbx)\n hlt");

/* The kernel's log of written pages comes to gmem's flags, what devices write beside it. */
static void written_pages(void **state)
{
    NEED_GUESTS(state);
    (void)c;
    begin(vm, 64);
    LOAD(vm, VM_CODE, stores);
    for (unsigned round = 0; round < 2; round++) {
        begin(vm, 64);
        vm->cls->log_writes(vm->engine, true);
        gmem_track(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0, VM_RAM, true);
        assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(gmem_write(vm->mem, 0x45000, "x", 1), 0);
        vm->cls->log_writes(vm->engine, true);
        for (unsigned page = 0x40; page < 0x48; page++) {
            bool written = page == 0x40 || page == 0x43 || page == 0x45;
            assert_int_equal(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, page), written);
        }
    }
    vm->cls->log_writes(vm->engine, false);
    begin(vm, 64);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
}

CODE(delays, "mov $1, %al\n out %al, $0x80\n mov $2, %al\n out %al, $0x80\n out %al, $0x21\n hlt");

/* Some that the kernel puts aside are made before what comes behind them. */
static void collected_ports(void **state)
{
    NEED_GUESTS(state);
    begin(vm, 64);
    LOAD(vm, VM_CODE, delays);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(seen.io_count, 3);
    assert_int_equal(seen.io[0].port, 0x80);
    assert_int_equal(seen.io[0].value, 1);
    assert_int_equal(seen.io[1].value, 2);
    assert_int_equal(seen.io[2].port, 0x21);
    assert_int_equal(((struct kvm_vcpu *)c->engine)->stats.exits[KVM_EXIT_IO],
                     ((struct kvm *)vm->engine)->caps.coalesced_ports ? 1 : 3);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sums, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(port_exits, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(mmio_exits, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(msr_exits, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(triple_fault, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(page_fault, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(interrupts, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(halt_ends_with_an_interrupt, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(task_priority, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(startup, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(a20, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(rom_is_read_only, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(written_pages, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(collected_ports, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(a_kick_ends_a_loop, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(a_kick_leaves_nothing_unfinished, guest_up, guest_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
