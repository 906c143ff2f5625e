/* SPDX-License-Identifier: Apache-2.0
 *
 * 82093AA I/O APIC with 24 pins and the EOI register of version 0x20. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_IOAPIC_H
#define SOSIA_DEV_PC_IOAPIC_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "state/chips.h"

#define IOAPIC_PINS ((int)CHIP_IOAPIC_PINS)

struct apic_bus;

struct ioapic {
    struct dev dev;
    uint8_t select; /* IOREGSEL */
    uint8_t id;     /* 0..15 */
    uint32_t lines; /* levels of the pins; high is active, whatever the polarity bit says */
    uint64_t redir[IOAPIC_PINS];
    struct apic_bus *apics; /* borrowed */
    /* Not state, and may be NULL: who is told that an entry has other than its mask changed, and,
     * while another does the chip's work, who gets its inputs. */
    void (*routed)(void *ctx);
    void (*divert)(void *ctx, unsigned pin, int level);
    void *ctx;
};

/* At base, usually 0xfec00000. Joins apics. */
void ioapic_init(struct ioapic *io, struct bus *b, gpa_t base, struct apic_bus *apics);
void ioapic_fini(struct ioapic *io);

struct irq ioapic_irq(struct ioapic *io, int pin);

/* Out of this one, into one of an engine's, and back. */
void ioapic_give(const struct ioapic *io, struct chip_ioapic *out);
void ioapic_take(struct ioapic *io, const struct chip_ioapic *in);

/* From the local APICs: the level-triggered interrupt has been served. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

#endif
