/* SPDX-License-Identifier: Apache-2.0 -- what the files of the local APIC share */
#ifndef SOSIA_DEV_PC_LAPIC_INT_H
#define SOSIA_DEV_PC_LAPIC_INT_H

#include "dev/pc/lapic.h"

/* Spurious vector register */
#define SVR_ENABLE (1u << 8)
#define SVR_FOCUS_OFF (1u << 9)
#define SVR_NO_EOI_BROADCAST (1u << 12)
#define SVR_WRITABLE (0xffu | SVR_ENABLE | SVR_FOCUS_OFF | SVR_NO_EOI_BROADCAST)

/* Local vector table */
#define LVT_VECTOR 0xffu
#define LVT_DELIVERY(lvt) ((lvt) >> 8 & 7)
#define LVT_POLARITY (1u << 13)
#define LVT_REMOTE_IRR (1u << 14) /* read-only */
#define LVT_LEVEL (1u << 15)
#define LVT_MASKED (1u << 16)
#define LVT_TIMER_MODE(lvt) ((lvt) >> 17 & 3)

/* Periodic interrupts that one processor may have coming: a second's worth of a fast tick. */
#define LAPIC_TIMER_OWED_MAX 1000u

enum lapic_timer_mode { TIMER_ONE_SHOT = 0, TIMER_PERIODIC = 1, TIMER_TSC_DEADLINE = 2 };

/* Error status, SDM 3 11.5.3 */
enum lapic_error {
    ESR_SEND_ILLEGAL = 1u << 5,
    ESR_RECEIVE_ILLEGAL = 1u << 6,
    ESR_ILLEGAL_REGISTER = 1u << 7
};

static inline bool lapic_on(const struct lapic *l) { return l->base & LAPIC_BASE_EN; }
static inline bool lapic_x2(const struct lapic *l) { return l->base & LAPIC_BASE_X2; }

/* Writable bits of each entry; bits 12 and 14 of what is written are ignored. */
uint32_t lapic_lvt_writable(const struct lapic *l, enum lapic_lvt entry);
uint32_t lapic_logical_id(const struct lapic *l); /* LDR */
uint8_t lapic_ppr(const struct lapic *l);
void lapic_update(struct lapic *l); /* tell the CPU */
void lapic_error(struct lapic *l, enum lapic_error bit);
void lapic_eoi(struct lapic *l);
/* A pin or mask changed: level-triggered LINT entries may ask now. */
void lapic_service_lint(struct lapic *l, unsigned pin);
void lapic_reset_regs(struct lapic *l); /* INIT, and disabling by IA32_APIC_BASE */

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
uint32_t lapic_timer_current(const struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt);
uint64_t lapic_timer_deadline(const struct lapic *l); /* IA32_TSC_DEADLINE */
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
void lapic_timer_reset(struct lapic *l);
/* As another local APIC had it just now; the vector table is loaded. */
void lapic_timer_take(struct lapic *l, uint32_t initial, uint32_t current, uint32_t divide,
                      uint64_t tsc_deadline);
void lapic_timer_arm(struct lapic *l);
void lapic_timer_poll(struct lapic *l);
void lapic_timer_eoi(struct lapic *l, unsigned vector);

#endif
