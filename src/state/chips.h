/* SPDX-License-Identifier: Apache-2.0
 *
 * Interrupt controllers as their registers: what passes between the machine's own chips and an
 * engine that has such chips itself (kvm, in the kernel). Whoever takes them up checks them.
 */
#ifndef SOSIA_STATE_CHIPS_H
#define SOSIA_STATE_CHIPS_H

#include <stdbool.h>
#include <stdint.h>

#define CHIP_IOAPIC_PINS 24u

/* Local APIC (SDM 3 11.4.1): register n is at offset 16 n. In x2APIC mode number 2 is the whole id,
 * and 0x31 bits 63:32 of ICR. */
struct chip_lapic {
    uint32_t reg[64];
    uint64_t base;         /* IA32_APIC_BASE */
    uint64_t tsc_deadline; /* 0: none */
};

/* One 8259A. */
struct chip_pic {
    uint8_t lines, irr, imr, isr, elcr;
    uint8_t base;     /* vector of IR0 */
    uint8_t lowest;   /* the IR of lowest priority */
    uint8_t icw_next; /* 2..4, 0: initialised */
    bool icw4_wanted, auto_eoi, rotate_auto_eoi, nested, special_mask, read_isr, poll;
};

struct chip_ioapic {
    uint8_t select, id;
    uint32_t lines;
    uint64_t redir[CHIP_IOAPIC_PINS];
};

/* What of a PC's board hangs on lines. */
struct chip_board {
    struct chip_pic pic[2];
    struct chip_ioapic ioapic;
};

#endif
