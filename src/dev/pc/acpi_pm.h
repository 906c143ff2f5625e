/* SPDX-License-Identifier: Apache-2.0
 *
 * ACPI fixed hardware as the PIIX4 has it: power management timer, PM1 events and control, general
 * purpose events, the SMI command port. Thread: machine lock held.
 *
 * For the FADT, from the base: PM1a_EVT +0 (4 bytes), PM1a_CNT +4 (2), PM_TMR +8 (4), GPE0 +12 (4).
 */
#ifndef SOSIA_DEV_PC_ACPI_PM_H
#define SOSIA_DEV_PC_ACPI_PM_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"

#define ACPI_PM_TIMER_HZ 3579545u
#define ACPI_PM_BASE 0x600 /* where firmware puts it */
#define ACPI_PM_IO_SIZE 64
#define ACPI_PM_SMI_CMD 0xb2
#define ACPI_PM_ENABLE 0xf1  /* FADT ACPI_ENABLE */
#define ACPI_PM_DISABLE 0xf0 /* FADT ACPI_DISABLE */
#define ACPI_PM_SLP_TYP_S5 0 /* for the \_S5 package */
#define ACPI_PM_GPES 16

struct acpi_pm_config {
    struct clock *clock;
    struct irq sci;               /* level */
    struct irq smi;               /* pulses */
    uint16_t base;                /* of the registers; acpi_pm_set_base moves them */
    bool timer_32bit;             /* FADT TMR_VAL_EXT; else 24 bits */
    void (*power_off)(void *ctx); /* the guest entered S5 */
    void *ctx;
};

struct acpi_pm {
    struct dev dev;
    uint16_t pm1_status;
    uint16_t pm1_enable;
    uint16_t pm1_control;
    uint16_t gpe_status;
    uint16_t gpe_enable;
    uint8_t apm_control; /* ports 0xb2 and 0xb3 */
    uint8_t apm_status;
    uint32_t global_control; /* GLBCTL (290562 7.2) */
    bool apm_smi;            /* DEVACTB APMC_EN: a write to port 0xb2 is an SMI */
    uint64_t carries_seen; /* changes of the timer's top bit at the last look */

    struct acpi_pm_config cfg;
    struct timer timer; /* next carry, when the guest wants to know */
    struct region *region;
};

void acpi_pm_init(struct acpi_pm *p, struct bus *b, const struct acpi_pm_config *cfg);
void acpi_pm_fini(struct acpi_pm *p);

/* PMBASE and PMREGMISC of the bridge (PIIX4 function 3, 0x40 and 0x80). base is 64-byte aligned. */
void acpi_pm_set_base(struct acpi_pm *p, uint16_t base, bool enabled);

/* DEVACTB bit 25 of the bridge's function 3. */
void acpi_pm_enable_apm_smi(struct acpi_pm *p, bool on);

/* The person presses the button. True when the guest listens. */
bool acpi_pm_press_power_button(struct acpi_pm *p);
/* General purpose event 0..15: its status bit is set. */
void acpi_pm_raise_gpe(struct acpi_pm *p, unsigned gpe);

#endif
