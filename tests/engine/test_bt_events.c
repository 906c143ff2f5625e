/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary translation and what comes from outside: kicks, interrupts put aside while they are
 * masked, single step, breakpoints.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpu/except.h"
#include "support/vm.h"

#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

#define VECTOR 0x40

/* The interrupt controller: one line, vector 0x40. */
static int take_interrupt(void *ctx, struct cpu *cpu)
{
    (void)ctx;
    if (!(cpu->events & CPU_EV_INTR))
        return -1;
    cpu_clear_event(cpu, CPU_EV_INTR);
    return VECTOR;
}

static int set_up(void **state)
{
    struct vm *vm = vm_new(1, &bt_engine);
    vm->world.irq_ack = take_interrupt;
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* Word n of the frame of an event without error code: rip, cs, rflags, rsp, ss. */
static uint64_t frame(struct vm *vm, unsigned n)
{
    uint64_t v;
    memcpy(&v, vm->ram + vm->cpu[0]->gpr[R_SP] + 8 * n, 8);
    return v;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* -- From another thread ----------------------------------------------------------------------- */
struct sender {
    struct vm *vm;
    uint32_t event;
    double sent;
};

static void *send_later(void *arg)
{
    struct sender *s = arg;
    usleep(20000);
    s->sent = now();
    cpu_raise_event(s->vm->cpu[0], s->event);
    s->vm->cls->kick(s->vm->engine, s->vm->cpu[0]);
    return NULL;
}

/* Run until the event takes it out; it must be soon. */
static enum engine_exit run_and_send(struct vm *vm, uint32_t event)
{
    struct sender s = { .vm = vm, .event = event };
    pthread_t t;
    pthread_create(&t, NULL, send_later, &s);
    enum engine_exit r = vm_run(vm, 0);
    double end = now();
    pthread_join(t, NULL);
    assert_true(end - s.sent < 0.5); /* a busy machine; usually microseconds */
    return r;
}

CODE(tight, "1: jmp 1b");
CODE(calls, "1: call 2f\n jmp 1b\n 2: inc %rax\n ret");
CODE(pages, "1: lea 2f(%rip), %rdx\n jmp *%rdx\n .balign 4096\n 2: inc %eax\n jmp 1b");
CODE(strings, "1: mov $0x300000, %edi\n mov $0x100000, %ecx\n rep stosb\n jmp 1b");
CODE(real_loop, ".code16\n 1: inc %ax\n jmp 1b");

static void kicks(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, tight);
    assert_int_equal(run_and_send(vm, CPU_EV_KICK), ENGINE_EXIT_KICK);
    assert_int_equal(vm->cpu[0]->rip, VM_CODE);
    LOAD(vm, VM_CODE, calls);
    vm->cpu[0]->rip = VM_CODE;
    assert_int_equal(run_and_send(vm, CPU_EV_KICK), ENGINE_EXIT_KICK);
    LOAD(vm, VM_CODE, pages);
    vm->cpu[0]->rip = VM_CODE;
    assert_int_equal(run_and_send(vm, CPU_EV_KICK), ENGINE_EXIT_KICK);
    LOAD(vm, VM_CODE, strings);
    vm->cpu[0]->rip = VM_CODE;
    assert_int_equal(run_and_send(vm, CPU_EV_KICK), ENGINE_EXIT_KICK);
    vm_mode(vm, 0, 16);
    LOAD(vm, VM_CODE, real_loop);
    assert_int_equal(run_and_send(vm, CPU_EV_KICK), ENGINE_EXIT_KICK);
}

static void interrupts_a_loop(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, calls);
    vm->cpu[0]->rflags |= FLAG_IF;
    assert_int_equal(run_and_send(vm, CPU_EV_INTR), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), VECTOR);
}

/* -- Masked for a while ------------------------------------------------------------------------ */
#define LONG_LOOP "mov $100000, %ecx\n 9: dec %ecx\n jnz 9b\n"
CODE(with_sti, LONG_LOOP "sti\n inc %eax\n inc %eax\n inc %eax\n ud2");
CODE(with_popf, "pushfq\n orl $0x200, (%rsp)\n" LONG_LOOP "popfq\n inc %eax\n inc %eax\n ud2");
CODE(with_iret,
     "mov %rsp, %rbx\n push $16\n push %rbx\n push $0x202\n push $8\n lea 1f(%rip), %rdx\n"
     "push %rdx\n" LONG_LOOP "iretq\n nop\n 1: inc %eax\n ud2");
CODE(sti_cli, LONG_LOOP "sti\n cli\n mov $7, %eax\n hlt");

static void check_deferred(struct vm *vm, uint64_t eax)
{
    vm->cpu[0]->events = 0;
    cpu_raise_event(vm->cpu[0], CPU_EV_INTR);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), VECTOR);
    assert_int_equal(vm->cpu[0]->gpr[R_AX], eax);
    assert_true(frame(vm, 2) & FLAG_IF);
}

static void masked_interrupts(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, with_sti);
    check_deferred(vm, 1); /* one instruction after STI */
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, with_popf);
    check_deferred(vm, 0);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, with_iret);
    check_deferred(vm, 0);
    /* STI CLI lets nothing in; what waits is still there when we leave. */
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, sti_cli);
    cpu_raise_event(vm->cpu[0], CPU_EV_INTR);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), -1);
    assert_int_equal(vm->cpu[0]->gpr[R_AX], 7);
    assert_true(vm->cpu[0]->events & CPU_EV_INTR);
    cpu_clear_event(vm->cpu[0], CPU_EV_INTR);
}

/* -- Debugging --------------------------------------------------------------------------------- */
CODE(step,
     "mov $1, %eax\n pushfq\n orl $0x100, (%rsp)\n popfq\n 1: mov $2, %eax\n mov $3, %eax\n hlt");
CODE(plain, "mov $1, %eax\n mov $2, %eax\n 1: mov $3, %eax\n mov $4, %eax\n mov %eax, 0x300000\n"
            "2: mov $5, %eax\n hlt");

static void single_step(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, step);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 1);
    assert_int_equal(vm->cpu[0]->gpr[R_AX], 2);
    assert_true(vm->cpu[0]->dr[6] & 0x4000);
}

static void breakpoints(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    for (unsigned data = 0; data < 2; data++) {
        vm_mode(vm, 0, 64);
        LOAD(vm, VM_CODE, plain);
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT); /* translated, page in the TLB */
        assert_int_equal(c->gpr[R_AX], 5);
        c->rip = VM_CODE;
        c->gpr[R_AX] = 0;
        c->dr[0] = data ? 0x300000 : VM_CODE + 10;
        c->dr[7] = data ? 0x400 | 2 | 0xdu << 16 : 0x402; /* 4 bytes written, or executed */
        tlb_flush_all(c);
        cpu_update_trap(c);
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(vm_vector(vm, 0), 1);
        assert_int_equal(c->gpr[R_AX], data ? 4 : 2);
        assert_true(c->dr[6] & 1);
        c->dr[7] = 0x400;
        cpu_update_trap(c);
    }
}

/* An NMI is taken once, the next after IRET. */
CODE(nmi_handler, "inc %ebx\n iretq");
CODE(loop_forever, "1: inc %rax\n cmp $2, %ebx\n jb 1b\n hlt");

static void nmi(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, loop_forever);
    LOAD(vm, VM_HANDLERS + 16 * 2, nmi_handler);
    cpu_raise_event(vm->cpu[0], CPU_EV_NMI);
    assert_int_equal(run_and_send(vm, CPU_EV_NMI), ENGINE_EXIT_HALT);
    assert_int_equal(vm->cpu[0]->gpr[R_BX], 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kicks),       TEST(interrupts_a_loop), TEST(masked_interrupts),
        TEST(single_step), TEST(breakpoints),       TEST(nmi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
