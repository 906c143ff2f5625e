/* SPDX-License-Identifier: Apache-2.0
 *
 * What carries interrupt messages between IOAPICs, MSI sources and the local APICs (SDM 3 11.1).
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_APIC_BUS_H
#define SOSIA_DEV_PC_APIC_BUS_H

#include "bus/bus.h"

struct ioapic;
struct lapic;

enum apic_delivery {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7
};

struct apic_msg {
    uint32_t dest; /* APIC id, or logical address */
    bool logical;
    bool broadcast;   /* to all, whatever dest says */
    bool level;       /* level-triggered: its EOI goes back to the IOAPICs */
    uint8_t delivery; /* enum apic_delivery */
    uint8_t vector;
};

struct apic_bus {
    struct dev dev;
    struct lapic **lapic; /* owned array of borrowed APICs */
    unsigned lapic_count;
    struct ioapic **ioapic;
    unsigned ioapic_count;
    /* While the local APICs are an engine's own: who brings messages to those. NULL: they are here.
     */
    bool (*divert)(void *ctx, const struct apic_msg *m, const struct lapic *except);
    void *divert_ctx;
    uint32_t turn; /* who looks first when a lowest-priority message finds equals */
};

void apic_bus_init(struct apic_bus *a, struct bus *b);
void apic_bus_fini(struct apic_bus *a);
void apic_bus_add_lapic(struct apic_bus *a, struct lapic *l);
void apic_bus_add_ioapic(struct apic_bus *a, struct ioapic *io);

/* An 8-bit destination, as IOAPICs, MSIs and the xAPIC's ICR have it: 0xff is everybody. */
void apic_msg_set_dest8(struct apic_msg *m, uint8_t dest, bool logical);

/* True when somebody took it. except: not to this one; may be NULL. */
bool apic_bus_deliver(struct apic_bus *a, const struct apic_msg *m, const struct lapic *except);

/* A local APIC ended a level-triggered interrupt. */
void apic_bus_eoi(struct apic_bus *a, uint8_t vector);

#endif
