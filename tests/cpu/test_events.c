/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens between two instructions: order of traps, NMI and interrupts, shadows, HLT, INIT and
 * start-up, kicks; and faults during delivery. No engine: the test is one.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <string.h>

#include "cpu/debug.h"
#include "cpu/except.h"
#include "support/vm.h"

static int vector_waiting; /* of the interrupt controller; -1 none */
static unsigned acks;

static int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx;
    int v = vector_waiting;
    acks++;
    vector_waiting = -1;
    cpu_clear_event(cpu, CPU_EV_INTR);
    return v;
}

static int set_up(void **state)
{
    struct vm *vm = vm_new(2, NULL);
    vm->world.irq_ack = irq_ack;
    vm_mode(vm, 0, 64);
    vector_waiting = -1;
    acks = 0;
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* As an engine does: deliver what polling raised, and poll again. */
static enum cpu_poll poll(struct cpu *c)
{
    if (setjmp(c->unwind) != 0) {
        cpu_deliver_exception(c);
    }
    return cpu_poll_events(c);
}

static void interrupt(struct cpu *c, int vector)
{
    vector_waiting = vector;
    cpu_raise_event(c, CPU_EV_INTR);
}

static uint64_t handler(unsigned vector) { return VM_HANDLERS + 16 * vector; }

static void interrupts(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    interrupt(c, 0x31);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, VM_CODE); /* IF is clear */
    assert_int_equal(acks, 0);
    c->rflags |= FLAG_IF;
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(0x31));
    assert_false(c->rflags & FLAG_IF);
    assert_int_equal(c->gpr[R_SP], VM_STACK - 40);
    /* the frame: RIP CS RFLAGS RSP SS */
    uint64_t *frame = (uint64_t *)(vm->ram + VM_STACK - 40);
    assert_int_equal(frame[0], VM_CODE);
    assert_int_equal(frame[1], 8);
    assert_int_equal(frame[2], FLAG_FIXED | FLAG_IF);
    assert_int_equal(frame[3], VM_STACK);
    assert_int_equal(frame[4], 16);
    /* an acknowledge that finds nothing */
    c->rflags |= FLAG_IF;
    cpu_raise_event(c, CPU_EV_INTR);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(0x31));
}

static void order(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    c->rflags |= FLAG_IF;
    c->pending_dr6 = DR6_BS;
    cpu_update_trap(c);
    cpu_raise_event(c, CPU_EV_NMI);
    interrupt(c, 0x40);
    /* #DB first, then the NMI on top of its first instruction; IF is clear then */
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(2));
    uint64_t *frame = (uint64_t *)(vm->ram + c->gpr[R_SP]);
    assert_int_equal(frame[0], handler(1));
    assert_int_equal(acks, 0);
    assert_int_equal(c->dr[6], 0xffff4ff0);
    /* NMIs wait for IRET */
    cpu_raise_event(c, CPU_EV_NMI);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(2));
    c->nmi_blocked = false;
    assert_int_equal(poll(c), CPU_POLL_RUN);
    frame = (uint64_t *)(vm->ram + c->gpr[R_SP]);
    assert_int_equal(frame[0], handler(2));
}

/* Two that come before the first is taken are two; while one is handled, those that come are one.
 */
static void nmis_in_number(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    for (int i = 0; i < 3; i++) {
        cpu_raise_nmi(c);
    }
    for (int i = 0; i < 2; i++) {
        c->rip = VM_CODE;
        assert_int_equal(poll(c), CPU_POLL_RUN);
        assert_int_equal(c->rip, handler(2));
        cpu_raise_nmi(c);
        assert_int_equal(poll(c), CPU_POLL_RUN);
        assert_int_equal(c->rip, handler(2));
        c->nmi_blocked = false;
        c->rip = VM_CODE;
    }
    assert_int_equal(poll(c), CPU_POLL_RUN); /* the one of the second handler */
    assert_int_equal(c->rip, handler(2));
    c->nmi_blocked = false;
    c->rip = VM_CODE;
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, VM_CODE);
    assert_false(c->events & (CPU_EV_NMI | CPU_EV_NMI_2));
}

static void shadows(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    c->rflags |= FLAG_IF;
    c->int_shadow = CPU_SHADOW_STI;
    cpu_update_trap(c);
    interrupt(c, 0x41);
    assert_int_equal(poll(c), CPU_POLL_STEP);
    assert_int_equal(c->rip, VM_CODE);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(0x41));

    vm_mode(vm, 0, 64);
    c->rflags |= FLAG_IF | FLAG_TF;
    c->int_shadow = CPU_SHADOW_SS;
    c->step_armed = true;
    c->pending_dr6 = 1;
    cpu_update_trap(c);
    cpu_raise_event(c, CPU_EV_NMI);
    assert_int_equal(poll(c), CPU_POLL_STEP); /* nothing at all after MOV SS */
    assert_int_equal(c->rip, VM_CODE);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    /* the next one has both its own step and the breakpoint that MOV SS met */
    assert_int_equal(c->dr[6], 0xffff4ff1);
}

static void halting(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    c->activity = CPU_HALTED;
    assert_int_equal(poll(c), CPU_POLL_HALT);
    interrupt(c, 0x50);
    assert_int_equal(poll(c), CPU_POLL_HALT); /* masked */
    c->rflags |= FLAG_IF;
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->activity, CPU_ACTIVE);
    c->activity = CPU_HALTED;
    cpu_raise_event(c, CPU_EV_NMI);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    /* a trap wakes it as well */
    c->activity = CPU_HALTED;
    c->rflags |= FLAG_TF;
    c->step_armed = true;
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(1));
    /* asleep, no event is left that would keep the machine awake */
    c->activity = CPU_HALTED;
    c->rflags = FLAG_FIXED;
    cpu_update_trap(c);
    assert_int_equal(poll(c), CPU_POLL_HALT);
    assert_int_equal(c->events, 0);
}

static void startup(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[1];
    assert_int_equal(poll(c), CPU_POLL_HALT);
    c->sipi_vector = 0x9a;
    cpu_raise_event(c, CPU_EV_SIPI);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->seg[SEG_CS].sel, 0x9a00);
    assert_int_equal(c->seg[SEG_CS].base, 0x9a000);
    assert_int_equal(c->rip, 0);
    c->rip = 5;
    cpu_raise_event(c, CPU_EV_SIPI); /* a second one is nothing */
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, 5);
    cpu_raise_event(c, CPU_EV_INIT);
    assert_int_equal(poll(c), CPU_POLL_HALT);
    assert_int_equal(c->activity, CPU_WAIT_SIPI);
    /* the first processor goes to the reset vector */
    c = vm->cpu[0];
    cpu_raise_event(c, CPU_EV_INIT);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, 0xfff0);
}

static void kicks(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    c->rflags |= FLAG_IF;
    interrupt(c, 0x60);
    cpu_raise_event(c, CPU_EV_KICK | CPU_EV_TLB);
    assert_int_equal(poll(c), CPU_POLL_KICK);
    assert_int_equal(c->rip, VM_CODE);
    assert_int_equal(c->events, CPU_EV_KICK | CPU_EV_INTR);
    cpu_clear_event(c, CPU_EV_KICK);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(0x60));
}

static void breakpoints(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    c->dr[0] = VM_CODE;
    c->dr[7] = 0x402;
    cpu_update_trap(c);
    c->rflags |= FLAG_RF;
    assert_int_equal(poll(c), CPU_POLL_STEP); /* RF: not now */
    assert_false(c->rflags & FLAG_RF);
    assert_int_equal(c->rip, VM_CODE);
    assert_int_equal(poll(c), CPU_POLL_STEP);
    assert_int_equal(c->rip, handler(1));
    assert_int_equal(c->dr[6], 0xffff0ff1);
    assert_false(cpu_watch_page(c, VM_CODE)); /* instruction breakpoints are not data's */
    c->dr[7] = 0x402 | 1 << 16;
    assert_true(cpu_watch_page(c, VM_CODE + 5));
    assert_false(cpu_watch_page(c, VM_CODE + 4096));
    c->dr[0] = VM_CODE + 4096;
    c->dr[7] = 0x402 | 0xf << 16;
    assert_true(cpu_watch_page(c, VM_CODE + 4096));
    assert_false(cpu_watch_page(c, VM_CODE));
}

/* -- Faults during delivery ------------------------------------------------------------------ */
static void raise_during(struct cpu *c, enum cpu_vector v)
{
    if (setjmp(c->unwind) == 0) {
        cpu_raise(c, v);
    }
    if (setjmp(c->unwind) != 0) {
        if (!c->exc_pending) {
            return;
        }
    }
    cpu_deliver_exception(c);
}

static void no_gate(struct vm *vm, unsigned v) { memset(vm->ram + VM_IDT + 16 * v, 0, 16); }

static void double_faults(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    no_gate(vm, EXC_UD);
    raise_during(c, EXC_UD); /* benign, then #GP: served */
    assert_int_equal(c->rip, handler(EXC_GP));
    assert_int_equal(*(uint64_t *)(vm->ram + c->gpr[R_SP]), EXC_UD * 8 + 3);

    vm_mode(vm, 0, 64);
    no_gate(vm, EXC_DE);
    raise_during(c, EXC_DE);
    assert_int_equal(c->rip, handler(EXC_DF));
    assert_int_equal(*(uint64_t *)(vm->ram + c->gpr[R_SP]), 0);

    vm_mode(vm, 0, 64);
    no_gate(vm, EXC_DE);
    no_gate(vm, EXC_DF);
    raise_during(c, EXC_DE);
    assert_int_equal(c->activity, CPU_SHUTDOWN);
    assert_int_equal(poll(c), CPU_POLL_SHUTDOWN);

    /* a stack that is not there: page fault while delivering a page fault */
    vm_mode(vm, 0, 64);
    c->gpr[R_SP] = 0x20000000;
    if (setjmp(c->unwind) == 0) {
        cpu_raise_pf(c, 0x1234, 0);
    }
    setjmp(c->unwind);
    if (c->exc_pending && c->activity == CPU_ACTIVE) {
        cpu_deliver_exception(c);
    }
    assert_int_equal(c->activity, CPU_SHUTDOWN); /* #DF finds no stack either */
    assert_int_equal(c->cr2, 0x20000000 - 8);
}

/* An interrupt whose handler's stack faults: the fault has EXT, and the instruction is not lost. */
static void fault_of_an_interrupt(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    no_gate(vm, 0x70);
    c->rflags |= FLAG_IF;
    c->insn_ip = 0x999;
    interrupt(c, 0x70);
    assert_int_equal(poll(c), CPU_POLL_RUN);
    assert_int_equal(c->rip, handler(EXC_GP));
    uint64_t *frame = (uint64_t *)(vm->ram + c->gpr[R_SP]);
    assert_int_equal(frame[0], 0x70 * 8 + 3);
    assert_int_equal(frame[1], VM_CODE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(interrupts),  T(order),         T(shadows), T(nmis_in_number),
        T(halting),     T(startup),       T(kicks),
        T(breakpoints), T(double_faults), T(fault_of_an_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
