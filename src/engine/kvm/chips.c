/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's interrupt controllers: local APICs alone (split), or also the 8259s and the I/O APIC
 * (full). api.rst: KVM_CREATE_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP, KVM_GET_LAPIC, KVM_GET_IRQCHIP,
 * KVM_SET_GSI_ROUTING, KVM_IRQ_LINE, KVM_SIGNAL_MSI, KVM_CAP_X2APIC_API. The 8254 stays ours: the
 * HPET takes its place on the interrupt line, and port 0x61 reads its third counter.
 *
 * The announced rate of the APIC's timer must be the kernel's, too, which can be told since Linux
 * 6.11; before, the machine's own local APICs are used.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bits.h"
#include "base/log.h"
#include "cpu/model.h"
#include "cpu/msr.h"
#include "engine/kvm/kvm.h"

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif
#define NS_PER_S 1000000000u
_Static_assert(NS_PER_S % CPU_APIC_TIMER_HZ == 0, "whole nanoseconds");

/* Numbers of interrupt lines (GSI), ours to choose: the 8259s', then the I/O APIC's. Split: the I/O
 * APIC's entries, from 0. */
#define GSI_PIC 0u
#define PIC_LINES 16u
#define GSI_IOAPIC PIC_LINES

#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_LOGICAL (1ull << 11)

static int failed(const char *what)
{
    int r = -errno;
    log_err("kvm: %s: %s", what, strerror(-r));
    return r;
}

/* -- Local APICs ------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct kvm_lapic_state) == 64 * 16, "registers of struct chip_lapic");

static int get_lapic(struct engine *en, struct cpu *cpu, struct chip_lapic *out)
{
    struct kvm_vcpu *v = cpu->engine;
    struct kvm_lapic_state page;
    struct kvm_mp_state mp;
    union kvm_msr_room m = { .nmsrs = 2,
                             .entry = { { .index = MSR_APIC_BASE },
                                        { .index = MSR_TSC_DEADLINE } } };
    (void)en;
    /* Asked first for what it does: an INIT or SIPI that has come takes effect. */
    if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0 || ioctl(v->fd, KVM_GET_LAPIC, &page) < 0) {
        return failed("KVM_GET_LAPIC");
    }
    unsigned wanted = cpu_has(&cpu->features, CPU_FEATURE_TSC_DEADLINE) ? 2 : 1;
    m.nmsrs = wanted;
    if (ioctl(v->fd, KVM_GET_MSRS, &m) != (int)wanted) {
        return failed("KVM_GET_MSRS of the local APIC");
    }
    *out = (struct chip_lapic){ .base = m.entry[0].data, .tsc_deadline = m.entry[1].data };
    for (unsigned i = 0; i < ARRAY_LEN(out->reg); i++) {
        memcpy(&out->reg[i], page.regs + i * 16, sizeof out->reg[i]);
    }
    return 0;
}

static int set_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    union kvm_msr_room m = { .nmsrs = 1, .entry = { { .index = index, .data = value } } };
    return ioctl(v->fd, KVM_SET_MSRS, &m) == 1 ? 0 : failed("KVM_SET_MSRS of the local APIC");
}

/* The mode that the base says comes first, the registers start the timer, and the deadline counts
 * only in the mode that they say, by the counter as it is then. */
static int set_lapic(struct engine *en, struct cpu *cpu, const struct chip_lapic *in)
{
    struct kvm_vcpu *v = cpu->engine;
    struct kvm_lapic_state page = { { 0 } };
    (void)en;
    for (unsigned i = 0; i < ARRAY_LEN(in->reg); i++) {
        memcpy(page.regs + i * 16, &in->reg[i], sizeof in->reg[i]);
    }
    int r = kvm_tsc_push(v);
    r = r < 0 ? r : set_msr(v, MSR_APIC_BASE, in->base);
    if (r == 0 && ioctl(v->fd, KVM_SET_LAPIC, &page) < 0) {
        r = failed("KVM_SET_LAPIC");
    }
    if (r == 0 && cpu_has(&cpu->features, CPU_FEATURE_TSC_DEADLINE)) {
        r = set_msr(v, MSR_TSC_DEADLINE, in->tsc_deadline);
    }
    v->apic_base = in->base;
    v->cr8 = (uint8_t)(in->reg[8] >> 4 & 15);
    return r;
}

static void given(struct engine *en, bool yes) { ((struct kvm *)en)->chips_given = yes; }

static bool message(struct engine *en, uint64_t address, uint32_t data)
{
    const struct kvm_msi msi = { .address_lo = (uint32_t)address,
                                 .address_hi = (uint32_t)(address >> 32),
                                 .data = data };
    return ioctl(((struct kvm *)en)->vm_fd, KVM_SIGNAL_MSI, &msi) > 0;
}

/* -- Lines ------------------------------------------------------------------------------------- */

union routes {
    struct kvm_irq_routing head;
    struct {
        uint32_t nr, flags;
        struct kvm_irq_routing_entry entry[PIC_LINES + CHIP_IOAPIC_PINS];
    };
};

static int set_routes(const struct kvm *kvm, union routes *t)
{
    return ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, t) < 0 ? failed("KVM_SET_GSI_ROUTING") : 0;
}

/* What an entry sends, as a message: the kernel compares it with what is in service. */
static int route(struct engine *en, const uint64_t redir[CHIP_IOAPIC_PINS])
{
    union routes t = { .nr = CHIP_IOAPIC_PINS };
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        uint64_t rte = redir[pin];
        t.entry[pin] = (struct kvm_irq_routing_entry){
            .gsi = pin,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi.address_lo = 0xfee00000 | (uint32_t)(rte >> 56) << 12 |
                                (rte & RTE_LOGICAL ? 1u << 2 : 0),
            .u.msi.data = (uint32_t)rte & (0x7ff | (uint32_t)RTE_LEVEL),
        };
    }
    return set_routes((struct kvm *)en, &t);
}

static void set_line(const struct kvm *kvm, unsigned gsi, int level)
{
    const struct kvm_irq_level line = { .irq = gsi, .level = level != 0 };
    if (ioctl(kvm->vm_fd, KVM_IRQ_LINE, &line) < 0) {
        log_err("kvm: interrupt line %u: %s", gsi, strerror(errno));
    }
}

static void pic_line(struct engine *en, unsigned n, int level)
{
    set_line((struct kvm *)en, GSI_PIC + n, level);
}

static void ioapic_line(struct engine *en, unsigned pin, int level)
{
    set_line((struct kvm *)en, GSI_IOAPIC + pin, level);
}

static int own_lines(const struct kvm *kvm)
{
    union routes t = { .nr = PIC_LINES + CHIP_IOAPIC_PINS };
    for (unsigned n = 0; n < t.nr; n++) {
        bool pic = n < PIC_LINES;
        t.entry[n] = (struct kvm_irq_routing_entry){
            .gsi = n,
            .type = KVM_IRQ_ROUTING_IRQCHIP,
            .u.irqchip.irqchip = !pic    ? KVM_IRQCHIP_IOAPIC
                                 : n < 8 ? KVM_IRQCHIP_PIC_MASTER
                                         : KVM_IRQCHIP_PIC_SLAVE,
            .u.irqchip.pin = pic ? n % 8 : n - GSI_IOAPIC,
        };
    }
    return set_routes(kvm, &t);
}

/* -- The board's chips ------------------------------------------------------------------------- */

static const uint8_t elcr_mask[2] = { 0xf8, 0xde };

static struct chip_pic pic_get(const struct kvm_pic_state *s)
{
    return (struct chip_pic){
        .lines = s->last_irr,
        .irr = s->irr,
        .imr = s->imr,
        .isr = s->isr,
        .elcr = s->elcr,
        .base = s->irq_base,
        .lowest = (s->priority_add + 7) & 7,
        .icw_next = s->init_state != 0 ? (uint8_t)(s->init_state + 1) : 0,
        .icw4_wanted = s->init4 != 0,
        .auto_eoi = s->auto_eoi != 0,
        .rotate_auto_eoi = s->rotate_on_auto_eoi != 0,
        .nested = s->special_fully_nested_mode != 0,
        .special_mask = s->special_mask != 0,
        .read_isr = s->read_reg_select != 0,
        .poll = s->poll != 0,
    };
}

static struct kvm_pic_state pic_put(const struct chip_pic *c, unsigned chip)
{
    return (struct kvm_pic_state){
        .last_irr = c->lines,
        .irr = c->irr,
        .imr = c->imr,
        .isr = c->isr,
        .elcr = c->elcr,
        .elcr_mask = elcr_mask[chip],
        .irq_base = c->base,
        .priority_add = (c->lowest + 1) & 7,
        .init_state = c->icw_next != 0 ? (uint8_t)(c->icw_next - 1) : 0,
        .init4 = c->icw4_wanted,
        .auto_eoi = c->auto_eoi,
        .rotate_on_auto_eoi = c->rotate_auto_eoi,
        .special_fully_nested_mode = c->nested,
        .special_mask = c->special_mask,
        .read_reg_select = c->read_isr,
        .poll = c->poll,
    };
}

static int get_board(struct engine *en, struct chip_board *out)
{
    const struct kvm *kvm = (struct kvm *)en;
    struct kvm_irqchip chip[3];
    for (unsigned id = 0; id < ARRAY_LEN(chip); id++) {
        chip[id] = (struct kvm_irqchip){ .chip_id = id };
        if (ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &chip[id]) < 0) {
            return failed("KVM_GET_IRQCHIP");
        }
    }
    const struct kvm_ioapic_state *io = &chip[KVM_IRQCHIP_IOAPIC].chip.ioapic;
    out->pic[0] = pic_get(&chip[KVM_IRQCHIP_PIC_MASTER].chip.pic);
    out->pic[1] = pic_get(&chip[KVM_IRQCHIP_PIC_SLAVE].chip.pic);
    out->ioapic = (struct chip_ioapic){
        .select = (uint8_t)io->ioregsel, .id = (uint8_t)io->id, .lines = io->irr
    };
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        out->ioapic.redir[pin] = io->redirtbl[pin].bits;
    }
    return 0;
}

/* The kernel remembers its inputs beside the registers. They are low before those come, so that
 * nothing happens by them, and told afterwards: to an I/O APIC's entry that takes edges it would be
 * one, so that it hears of a high input when that has fallen and rises again. */
static int set_board(struct engine *en, const struct chip_board *in)
{
    const struct kvm *kvm = (struct kvm *)en;
    struct kvm_irqchip pic[2] = { { .chip_id = KVM_IRQCHIP_PIC_MASTER },
                                  { .chip_id = KVM_IRQCHIP_PIC_SLAVE } };
    struct kvm_irqchip ioapic = { .chip_id = KVM_IRQCHIP_IOAPIC };
    struct kvm_ioapic_state *io = &ioapic.chip.ioapic;
    for (unsigned gsi = 0; gsi < GSI_IOAPIC + CHIP_IOAPIC_PINS; gsi++) {
        set_line(kvm, gsi, 0);
    }
    pic[0].chip.pic = pic_put(&in->pic[0], 0);
    pic[1].chip.pic = pic_put(&in->pic[1], 1);
    io->base_address = 0xfec00000;
    io->ioregsel = in->ioapic.select;
    io->id = in->ioapic.id;
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        io->redirtbl[pin].bits = in->ioapic.redir[pin];
    }
    if (ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &pic[0]) < 0 ||
        ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &pic[1]) < 0 ||
        ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &ioapic) < 0) {
        return failed("KVM_SET_IRQCHIP");
    }
    for (unsigned n = 0; n < PIC_LINES; n++) {
        if (n != 2 && (in->pic[n / 8].lines >> n % 8 & 1)) {
            set_line(kvm, GSI_PIC + n, 1);
        }
    }
    for (unsigned pin = 0; pin < CHIP_IOAPIC_PINS; pin++) {
        if ((in->ioapic.lines >> pin & 1) && (in->ioapic.redir[pin] & (RTE_LEVEL | RTE_MASKED))) {
            set_line(kvm, GSI_IOAPIC + pin, 1);
        }
    }
    return 0;
}

/* -- Having them ------------------------------------------------------------------------------- */

static const struct engine_chips split_chips = { .given = given,
                                                 .get_lapic = get_lapic,
                                                 .set_lapic = set_lapic,
                                                 .message = message,
                                                 .route = route };
static const struct engine_chips full_chips = { .given = given,
                                                .get_lapic = get_lapic,
                                                .set_lapic = set_lapic,
                                                .message = message,
                                                .get_board = get_board,
                                                .set_board = set_board,
                                                .pic_line = pic_line,
                                                .ioapic_line = ioapic_line };

const struct engine_chips *kvm_engine_chips(struct engine *en)
{
    switch (((struct kvm *)en)->irqchip) {
    case ENGINE_IRQCHIP_SPLIT:
        return &split_chips;
    case ENGINE_IRQCHIP_FULL:
        return &full_chips;
    default:
        return NULL;
    }
}

static const struct {
    unsigned cap;
    const char *name;
} needed[] = {
    { KVM_CAP_X86_APIC_BUS_CYCLES_NS, "KVM_CAP_X86_APIC_BUS_CYCLES_NS (Linux 6.11)" },
    { KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
    { KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP" },
    { KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API" },
    { KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING" },
    { KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
    { KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER" },
    { KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
};

/* NULL: nothing is missing. */
static const char *missing(const struct kvm *kvm)
{
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++) {
        if (ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].cap) <= 0) {
            return needed[i].name;
        }
    }
    return NULL;
}

static int enable(const struct kvm *kvm, uint32_t cap, uint64_t arg)
{
    const struct kvm_enable_cap e = { .cap = cap, .args[0] = arg };
    return ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &e);
}

/* Where guest code is emulated, so that an exit is nothing beside it, the machine's own are as
 * fast. */
int kvm_chips_create(struct kvm *kvm, struct err *e)
{
    enum engine_irqchip wanted = kvm->config.irqchip;
    const char *lacks = missing(kvm);
    if (wanted == ENGINE_IRQCHIP_AUTO) {
        wanted = kvm_hardware() && lacks == NULL ? ENGINE_IRQCHIP_SPLIT : ENGINE_IRQCHIP_NONE;
    }
    if (wanted == ENGINE_IRQCHIP_NONE) {
        return 0;
    }
    if (lacks != NULL) {
        return err_set(e, -ENOTSUP, "no interrupt controllers in the kernel: it lacks %s", lacks);
    }
    int r = wanted == ENGINE_IRQCHIP_FULL
                ? ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0)
                : enable(kvm, KVM_CAP_SPLIT_IRQCHIP, CHIP_IOAPIC_PINS);
    if (r < 0 || enable(kvm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS) < 0 ||
        enable(kvm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, NS_PER_S / CPU_APIC_TIMER_HZ) < 0) {
        return err_set(e, -errno, "interrupt controllers in the kernel: %s", strerror(errno));
    }
    kvm->irqchip = wanted;
    if (wanted == ENGINE_IRQCHIP_FULL && own_lines(kvm) < 0) {
        return err_set(e, -EIO, "interrupt lines in the kernel cannot be set up");
    }
    return 0;
}
