/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/chips.h"

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/msi.h"
#include "machine/pc.h"

static const struct engine_chips *chips_of(struct machine *m)
{
    const struct engine_class *cls = m->engine_class;
    return cls->chips != NULL ? cls->chips(m->engine) : NULL;
}

static void check(struct machine *m, int r)
{
    if (r < 0) {
        machine_request_end(m, MACHINE_FAILED, 1, "the %s engine failed", m->engine_class->name);
    }
}

/* -- To the engine's --------------------------------------------------------------------------- */

static bool send(struct machine *m, const struct apic_msg *msg)
{
    uint64_t address;
    uint32_t data;
    msi_compose(msg, &address, &data);
    return chips_of(m)->message(m->engine, address, data);
}

/* Also what a local APIC of ours sends while it is borrowed. */
static bool divert_message(void *ctx, const struct apic_msg *msg, const struct lapic *except)
{
    struct machine *m = ctx;
    bool taken = false;
    if (except == NULL) {
        return send(m, msg);
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        struct apic_msg one = *msg;
        one.dest = m->cpus[i]->apic_id;
        one.broadcast = one.logical = false;
        if (&m->pc->lapics[i] != except) {
            taken |= send(m, &one);
        }
    }
    return taken;
}

static void divert_pic(void *ctx, unsigned n, int level)
{
    struct machine *m = ctx;
    chips_of(m)->pic_line(m->engine, n, level);
}

static void divert_ioapic(void *ctx, unsigned pin, int level)
{
    struct machine *m = ctx;
    chips_of(m)->ioapic_line(m->engine, pin, level);
}

static void routed(void *ctx)
{
    struct machine *m = ctx;
    check(m, chips_of(m)->route(m->engine, m->pc->ioapic.redir));
}

static int give_lapic(struct machine *m, unsigned i)
{
    struct chip_lapic regs;
    lapic_give(&m->pc->lapics[i], &regs);
    return chips_of(m)->set_lapic(m->engine, m->cpus[i], &regs);
}

static int give_board(struct machine *m)
{
    struct pc *p = m->pc;
    const struct engine_chips *chips = chips_of(m);
    struct chip_board board;
    if (chips->set_board == NULL) {
        p->ioapic.routed = routed;
        p->ioapic.ctx = m;
        return chips->route(m->engine, p->ioapic.redir);
    }
    pic_give(&p->pic, board.pic);
    ioapic_give(&p->ioapic, &board.ioapic);
    p->pic.divert = divert_pic;
    p->ioapic.divert = divert_ioapic;
    p->pic.ctx = p->ioapic.ctx = m;
    return chips->set_board(m->engine, &board);
}

void machine_give_chips(struct machine *m)
{
    int r = 0;
    if (likely(atomic_load(&m->chips_given)) || chips_of(m) == NULL ||
        atomic_load(&m->debugger) != NULL) {
        return;
    }
    bus_lock(m->bus);
    if (!atomic_load(&m->chips_given)) {
        for (unsigned i = 0; i < m->cpu_count && r == 0; i++) {
            r = give_lapic(m, i);
        }
        r = r == 0 ? give_board(m) : r;
        m->pc->apics.divert = divert_message;
        m->pc->apics.divert_ctx = m;
        chips_of(m)->given(m->engine, true);
        atomic_store(&m->chips_given, true);
        machine_chips_intr(m, pic_pending(&m->pc->pic));
        check(m, r);
    }
    bus_unlock(m->bus);
}

/* -- And back ---------------------------------------------------------------------------------- */

static int take_lapic(struct machine *m, unsigned i)
{
    struct chip_lapic regs;
    int r = chips_of(m)->get_lapic(m->engine, m->cpus[i], &regs);
    if (r == 0) {
        lapic_take(&m->pc->lapics[i], &regs);
    }
    return r;
}

static int take_board(struct machine *m)
{
    struct pc *p = m->pc;
    struct chip_board board;
    p->pic.divert = NULL;
    p->ioapic.divert = NULL;
    p->ioapic.routed = NULL;
    if (chips_of(m)->get_board == NULL) {
        return 0;
    }
    int r = chips_of(m)->get_board(m->engine, &board);
    if (r == 0) {
        pic_take(&p->pic, board.pic);
        ioapic_take(&p->ioapic, &board.ioapic);
    }
    return r;
}

void machine_take_chips(struct machine *m)
{
    int r = 0;
    if (!atomic_load(&m->chips_given)) {
        return;
    }
    m->pc->apics.divert = NULL;
    chips_of(m)->given(m->engine, false);
    atomic_store(&m->chips_given, false);
    for (unsigned i = 0; i < m->cpu_count && r == 0; i++) {
        r = take_lapic(m, i);
    }
    check(m, r == 0 ? take_board(m) : r);
    machine_chips_intr(m, pic_pending(&m->pc->pic));
}

/* -- In between -------------------------------------------------------------------------------- */

struct lapic *machine_borrow_lapic(struct machine *m, struct cpu *cpu)
{
    bus_lock(m->bus);
    if (unlikely(atomic_load(&m->chips_given))) {
        check(m, take_lapic(m, cpu->index));
    }
    return &m->pc->lapics[cpu->index];
}

void machine_return_lapic(struct machine *m, struct cpu *cpu)
{
    if (unlikely(atomic_load(&m->chips_given))) {
        check(m, give_lapic(m, cpu->index));
    }
    bus_unlock(m->bus);
}

/* To processor 0's LINT0, in the virtual-wire way (MP 1.4 3.6.2). An APIC of the engine's has no
 * such pin: its processor asks for the vector when it lets one in. */
void machine_chips_intr(struct machine *m, int level)
{
    struct irq lint0 = lapic_lint(&m->pc->lapics[0], 0);
    irq_set(&lint0, level);
    if (atomic_load(&m->chips_given) && chips_of(m)->get_board == NULL) {
        if (level) {
            cpu_raise_event(m->cpus[0], CPU_EV_INTR);
        } else {
            cpu_clear_event(m->cpus[0], CPU_EV_INTR);
        }
    }
}
