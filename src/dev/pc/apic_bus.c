/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery of APIC messages, SDM 3 11.6.2. Lowest priority goes by the processor priority and takes
 * turns among equals; there is no focus processor, as in every processor since the Pentium 4.
 */
#include "dev/pc/apic_bus.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/lapic.h"

void apic_msg_set_dest8(struct apic_msg *m, uint8_t dest, bool logical)
{
    m->dest = dest;
    m->logical = logical;
    m->broadcast = dest == 0xff;
}

static bool deliver_lowest(struct apic_bus *a, const struct apic_msg *m, const struct lapic *except)
{
    struct lapic *best = NULL;
    unsigned best_at = 0;
    for (unsigned n = 0; n < a->lapic_count; n++) {
        unsigned at = (a->turn + n) % a->lapic_count;
        struct lapic *l = a->lapic[at];
        if (l != except && lapic_accepts_fixed(l) && lapic_matches(l, m) &&
            (best == NULL || lapic_priority(l) < lapic_priority(best))) {
            best = l;
            best_at = at;
        }
    }
    if (best == NULL) {
        return false;
    }
    a->turn = (best_at + 1) % a->lapic_count;
    return lapic_accept(best, m);
}

bool apic_bus_deliver(struct apic_bus *a, const struct apic_msg *m, const struct lapic *except)
{
    if (a->divert != NULL) {
        return a->divert(a->divert_ctx, m, except);
    }
    if (m->delivery == APIC_LOWEST) {
        return deliver_lowest(a, m, except);
    }
    bool taken = false;
    for (unsigned i = 0; i < a->lapic_count; i++) {
        struct lapic *l = a->lapic[i];
        if (l != except && lapic_matches(l, m)) {
            taken |= lapic_accept(l, m);
        }
    }
    return taken;
}

void apic_bus_eoi(struct apic_bus *a, uint8_t vector)
{
    for (unsigned i = 0; i < a->ioapic_count; i++) {
        ioapic_eoi(a->ioapic[i], vector);
    }
}

void apic_bus_add_lapic(struct apic_bus *a, struct lapic *l)
{
    a->lapic = xrealloc(a->lapic, (a->lapic_count + 1) * sizeof *a->lapic);
    a->lapic[a->lapic_count++] = l;
}

void apic_bus_add_ioapic(struct apic_bus *a, struct ioapic *io)
{
    a->ioapic = xrealloc(a->ioapic, (a->ioapic_count + 1) * sizeof *a->ioapic);
    a->ioapic[a->ioapic_count++] = io;
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field apic_bus_state[] = {
    STATE(struct apic_bus, turn),
    STATE_END,
};

static void apic_bus_reset(void *dev)
{
    struct apic_bus *a = dev;
    a->turn = 0;
}

static int apic_bus_post_load(void *dev, struct err *e)
{
    struct apic_bus *a = dev;
    (void)e;
    a->turn = a->lapic_count != 0 ? a->turn % a->lapic_count : 0;
    return 0;
}

static const struct dev_class apic_bus_class = {
    .name = "apic_bus",
    .version = 1,
    .state = apic_bus_state,
    .size = sizeof(struct apic_bus),
    .reset = apic_bus_reset,
    .post_load = apic_bus_post_load,
};

void apic_bus_init(struct apic_bus *a, struct bus *b)
{
    *a = (struct apic_bus){ .turn = 0 };
    dev_register(b, &a->dev, &apic_bus_class, "apic_bus");
}

void apic_bus_fini(struct apic_bus *a)
{
    dev_unregister(&a->dev);
    free(a->lapic);
    free(a->ioapic);
}
