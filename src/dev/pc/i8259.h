/* SPDX-License-Identifier: Apache-2.0
 *
 * The two cascaded 8259A interrupt controllers of a PC, with the edge/level registers of the PIIX.
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_I8259_H
#define SOSIA_DEV_PC_I8259_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "state/chips.h"

#define PIC_LINES 16

struct pic_chip {
    uint8_t lines; /* levels of IR0..IR7 */
    uint8_t irr;
    uint8_t imr;
    uint8_t isr;
    uint8_t elcr;     /* 1: level-triggered */
    uint8_t base;     /* vector of IR0: ICW2 */
    uint8_t lowest;   /* the IR of lowest priority: 7 until rotated */
    uint8_t icw_next; /* 2..4: ICW that the next write to A0=1 is; 0: initialised */
    bool icw4_wanted; /* ICW1 IC4 */
    bool single;      /* ICW1 SNGL: no ICW3, no cascade */
    bool auto_eoi;
    bool rotate_auto_eoi;
    bool nested; /* ICW4 SFNM: special fully nested mode */
    bool special_mask;
    bool read_isr; /* OCW3 RIS: A0=0 reads ISR, not IRR */
    bool poll;     /* OCW3 P: the next read acknowledges */
    /* Not state: */
    struct pic *pic; /* the pair that this is half of */
    bool slave;
};

struct pic {
    struct dev dev;
    struct pic_chip chip[2]; /* master, slave on its IR2 */
    struct irq intr;         /* INT of the master */
    /* Not state, may be NULL: while another does the chips' work, who gets their inputs. */
    void (*divert)(void *ctx, unsigned n, int level);
    void *ctx;
};

/* Ports 0x20 and 0xa0 (two each), 0x4d0 and 0x4d1. intr is copied. */
void pic_init(struct pic *p, struct bus *b, const struct irq *intr);
void pic_fini(struct pic *p);

/* Input 0..15; IRQ2 is the cascade and not connected. */
struct irq pic_irq(struct pic *p, int n);

/* The processor's two INTA cycles: the vector, which is IR7's when the request is gone. */
int pic_ack(struct pic *p);

/* Level of INT. */
bool pic_pending(const struct pic *p);

/* Out of these two, into those of an engine's, and back. */
void pic_give(const struct pic *p, struct chip_pic out[2]);
void pic_take(struct pic *p, const struct chip_pic in[2]);

#endif
