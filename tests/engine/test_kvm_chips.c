/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's interrupt controllers: registers go there and come back as they were, and a guest's
 * interrupts come by them.
 */
// LAYERS: engine/kvm engine cpu mem state base
#include "engine/kvmtest.h"
#include "support/vm.h"

static struct {
    unsigned eois;
    uint8_t vector;
} ended;

static void apic_eoi(void *ctx, struct cpu *cpu, uint8_t vector)
{
    (void)ctx, (void)cpu;
    ended.eois++;
    ended.vector = vector;
}

static int chips_up(void **state, enum engine_irqchip kind)
{
    struct engine_probe probe = { 0 };
    *state = NULL;
    kvm_engine.probe(&probe);
    if (probe.usable) {
        struct vm *vm = vm_new_config(2, &kvm_engine, &(struct engine_config){ .irqchip = kind });
        fill_world(vm);
        memset(&ended, 0, sizeof ended);
        vm->world.apic_eoi = apic_eoi;
        *state = vm;
    }
    return 0;
}

static int split_up(void **state) { return chips_up(state, ENGINE_IRQCHIP_SPLIT); }
static int full_up(void **state) { return chips_up(state, ENGINE_IRQCHIP_FULL); }

/* -- Registers --------------------------------------------------------------------------------- */

enum { ID = 2, VERSION = 3, TPR = 8, PPR = 0xa, LDR = 0xd, DFR = 0xe, SVR = 0xf, ISR = 0x10,
       IRR = 0x20, ICR = 0x30, ICR_HIGH = 0x31, LVT_TIMER = 0x32, LVT_LINT0 = 0x35,
       LVT_ERROR = 0x37, INITIAL = 0x38, CURRENT = 0x39, DIVIDE = 0x3e };
#define BASE_ON 0xfee00800u
#define BASE_X2 (1u << 10)
#define BSP (1u << 8)
#define MASKED 0x10000u

static struct chip_lapic lapic_of(const struct cpu *c, bool x2)
{
    struct chip_lapic l = { .base = BASE_ON | (x2 ? BASE_X2 : 0) | (c->index == 0 ? BSP : 0) };
    l.reg[ID] = x2 ? c->apic_id : c->apic_id << 24;
    l.reg[LDR] = x2 ? 1u << c->apic_id : 0;
    l.reg[DFR] = 0xffffffff;
    l.reg[SVR] = 0x1ff;
    for (unsigned n = LVT_TIMER; n <= LVT_ERROR; n++) {
        l.reg[n] = MASKED;
    }
    return l;
}

static void give(struct vm *vm, const struct chip_lapic *l)
{
    const struct engine_chips *chips = vm->cls->chips(vm->engine);
    chips->given(vm->engine, true);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct chip_lapic plain = lapic_of(vm->cpu[i], false);
        assert_int_equal(chips->set_lapic(vm->engine, vm->cpu[i], i == 0 ? l : &plain), 0);
    }
}

static void lapic_round_trip(void **state)
{
    NEED_GUESTS(state);
    const struct engine_chips *chips = vm->cls->chips(vm->engine);
    for (unsigned x2 = 0; x2 < 2; x2++) {
        struct chip_lapic in = lapic_of(c, x2), out;
        in.reg[TPR] = 0x50;
        in.reg[SVR] = 0x1ee;
        in.reg[ISR + 2] = 1u << 5; /* 0x45 */
        in.reg[IRR + 7] = 1u << 1; /* 0xe1 */
        in.reg[LVT_LINT0] = 0x700;
        in.reg[ICR] = 0x000840f1;
        in.reg[ICR_HIGH] = x2 ? 1 : 1u << 24;
        in.reg[LVT_TIMER] = 0x20000 | MASKED | 0xef; /* periodic */
        in.reg[DIVIDE] = 0xb;
        in.reg[INITIAL] = in.reg[CURRENT] = 0x7fffffff; /* nearly a minute and a half */
        give(vm, &in);
        assert_int_equal(chips->get_lapic(vm->engine, c, &out), 0);
        assert_int_equal(out.base, in.base);
        static const unsigned same[] = { ID, TPR, LDR, SVR, ISR + 2, IRR + 7, LVT_LINT0,
                                         ICR_HIGH, LVT_TIMER, DIVIDE, INITIAL };
        for (unsigned i = 0; i < ARRAY_LEN(same); i++) {
            assert_int_equal(out.reg[same[i]], in.reg[same[i]]);
        }
        assert_int_equal(out.reg[ICR] & 0xff, 0xf1);
        assert_int_equal(out.reg[VERSION] & 0xff00ff, 0x050014);
        assert_in_range(out.reg[CURRENT], 0x7fffffff - 10 * CPU_APIC_TIMER_HZ, 0x7fffffff);
    }
    struct chip_lapic in = lapic_of(c, false), out;
    in.reg[LVT_TIMER] = 0x40000 | MASKED | 0xef; /* TSC deadline */
    in.tsc_deadline = vm->world.tsc(vm) + (1ull << 50);
    give(vm, &in);
    assert_int_equal(chips->get_lapic(vm->engine, c, &out), 0);
    assert_int_equal(out.tsc_deadline, in.tsc_deadline);
}

static void board_round_trip(void **state)
{
    NEED_GUESTS(state);
    (void)c;
    const struct engine_chips *chips = vm->cls->chips(vm->engine);
    struct chip_board in = { .pic = { { .imr = 0xfe, .base = 0x20, .lowest = 7 },
                                      { .lines = 0x40,
                                        .irr = 0x40,
                                        .imr = 0x5f,
                                        .isr = 0x02,
                                        .elcr = 0x0e,
                                        .base = 0x28,
                                        .lowest = 2,
                                        .icw_next = 3,
                                        .icw4_wanted = true,
                                        .auto_eoi = true,
                                        .rotate_auto_eoi = true,
                                        .nested = true,
                                        .special_mask = true,
                                        .read_isr = true,
                                        .poll = true } },
                             .ioapic = { .select = 0x12, .id = 3, .lines = 1u << 20 } };
    struct chip_board out;
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        in.ioapic.redir[pin] = MASKED | (0x40 + pin) | (uint64_t)pin << 56;
    }
    in.ioapic.redir[20] = MASKED | 0x8000 | 0x4000 | 0x66; /* in service */
    assert_int_equal(chips->set_board(vm->engine, &in), 0);
    assert_int_equal(chips->get_board(vm->engine, &out), 0);
    assert_memory_equal(&out.pic[1], &in.pic[1], sizeof in.pic[1]);
    assert_memory_equal(&out.pic[0], &in.pic[0], sizeof in.pic[0]);
    assert_memory_equal(out.ioapic.redir, in.ioapic.redir, sizeof in.ioapic.redir);
    assert_int_equal(out.ioapic.select, 0x12);
    assert_int_equal(out.ioapic.id, 3);
    assert_int_equal(out.ioapic.lines, 1u << 20);
}

/* -- Guests ------------------------------------------------------------------------------------ */

/* The handlers of vm_mode() only halt: the count of instructions is in where it stands. */
CODE(waits, "sti\n 1: jmp 1b");
CODE(halts, "sti\n 1: hlt\n jmp 1b");

struct later {
    struct vm *vm;
    void (*fn)(struct vm *vm);
};

static void nothing(struct vm *vm) { (void)vm; }

static void *call_later(void *arg)
{
    struct later *l = arg;
    usleep(50000);
    l->fn(l->vm);
    usleep(300000);
    cpu_raise_event(l->vm->cpu[0], CPU_EV_KICK);
    return NULL;
}

/* Runs until fn has been called and had its effect. */
static void run_while(struct vm *vm, void (*fn)(struct vm *vm))
{
    struct later l = { vm, fn };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_later, &l), 0);
    assert_int_equal(go(vm, 0), ENGINE_EXIT_KICK);
    pthread_join(thread, NULL);
    cpu_clear_event(vm->cpu[0], CPU_EV_KICK);
}

static void send_71(struct vm *vm)
{
    assert_true(vm->cls->chips(vm->engine)->message(vm->engine, 0xfee00000, 0x4071));
}

static void message_wakes_a_halted_processor(void **state)
{
    NEED_GUESTS(state);
    struct chip_lapic l = lapic_of(c, false);
    begin(vm, 64);
    LOAD(vm, VM_CODE, halts);
    give(vm, &l);
    run_while(vm, send_71);
    assert_in_range(c->rip, VM_HANDLERS + 16 * 0x71, VM_HANDLERS + 16 * 0x71 + 15);
    assert_int_equal(vm->cls->chips(vm->engine)->get_lapic(vm->engine, c, &l), 0);
    assert_int_equal(l.reg[IRR + 3], 0); /* taken */
    assert_int_equal(c->activity, CPU_HALTED);
}

static void raise_pin_5(struct vm *vm)
{
    const struct engine_chips *chips = vm->cls->chips(vm->engine);
    chips->ioapic_line(vm->engine, 5, 1);
    chips->ioapic_line(vm->engine, 5, 0);
}

static void pin_interrupts(void **state)
{
    NEED_GUESTS(state);
    struct chip_lapic l = lapic_of(c, false);
    struct chip_board b = { .pic = { { .imr = 0xff }, { .imr = 0xff } } };
    begin(vm, 64);
    LOAD(vm, VM_CODE, waits);
    give(vm, &l);
    b.ioapic.redir[5] = 0x72;
    assert_int_equal(vm->cls->chips(vm->engine)->set_board(vm->engine, &b), 0);
    run_while(vm, raise_pin_5);
    assert_in_range(c->rip, VM_HANDLERS + 16 * 0x72, VM_HANDLERS + 16 * 0x72 + 15);
}

/* The 8259's, while they are the machine's: by cpu_world.irq_ack, past the local APIC. */
static void raise_extint(struct vm *vm)
{
    seen.vector = 0x73;
    cpu_raise_event(vm->cpu[0], CPU_EV_INTR);
}

static void extint(void **state)
{
    NEED_GUESTS(state);
    struct chip_lapic l = lapic_of(c, false);
    l.reg[LVT_LINT0] = 0x700;
    begin(vm, 64);
    LOAD(vm, VM_CODE, halts);
    give(vm, &l);
    run_while(vm, raise_extint);
    assert_in_range(c->rip, VM_HANDLERS + 16 * 0x73, VM_HANDLERS + 16 * 0x73 + 15);
    assert_int_equal(vm->cls->chips(vm->engine)->get_lapic(vm->engine, c, &l), 0);
    assert_int_equal(l.reg[ISR + 3], 0);
}

/* The end of a level-triggered one comes back, when an entry of the I/O APIC may have made it. */
CODE(ends, ".code32\n movl $0, 0xfee000b0\n 1: jmp 1b");

static void end_of_level(void **state)
{
    NEED_GUESTS(state);
    const struct engine_chips *chips = vm->cls->chips(vm->engine);
    uint64_t redir[CHIP_IOAPIC_PINS] = { 0 };
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        redir[pin] = MASKED;
    }
    redir[9] = 0x8000 | 0x74;
    struct chip_lapic l = lapic_of(c, false);
    l.reg[ISR + 3] = 1u << 20;
    l.reg[0x18 + 3] = 1u << 20; /* TMR */
    begin(vm, 32);
    LOAD(vm, VM_CODE, ends);
    give(vm, &l);
    assert_int_equal(chips->route(vm->engine, redir), 0);
    run_while(vm, nothing);
    assert_int_equal(ended.eois, 1);
    assert_int_equal(ended.vector, 0x74);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lapic_round_trip, split_up, guest_down),
        cmocka_unit_test_setup_teardown(lapic_round_trip, full_up, guest_down),
        cmocka_unit_test_setup_teardown(board_round_trip, full_up, guest_down),
        cmocka_unit_test_setup_teardown(message_wakes_a_halted_processor, split_up, guest_down),
        cmocka_unit_test_setup_teardown(message_wakes_a_halted_processor, full_up, guest_down),
        cmocka_unit_test_setup_teardown(pin_interrupts, full_up, guest_down),
        cmocka_unit_test_setup_teardown(extint, split_up, guest_down),
        cmocka_unit_test_setup_teardown(end_of_level, split_up, guest_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
