/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82371SB (PIIX3): PCI-ISA bridge with interrupt router and reset control, and the power
 * management function of the 82371AB (PIIX4) beside it, as virtual machines usually have them.
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_PIIX3_H
#define SOSIA_DEV_PC_PIIX3_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/pci.h"

#define PIIX3_ISA_IRQS 16
#define PIIX4_PM_BASE 0x600u /* where firmware puts it, and piix3_firmware_setup */

struct piix3 {
    struct pci_func pci; /* first: function 0 */
    struct irq isa_irq[PIIX3_ISA_IRQS];
    struct irq reset;
    uint8_t reset_control; /* port 0xcf9 */
    /* Not state: */
    uint8_t pirq_level; /* what comes in, bit per PIRQ */
    uint16_t isa_level; /* what is driven, bit per IRQ */
};

struct piix4_pm {
    struct pci_func pci; /* first */
    /* The ACPI registers move: base is 0x40-aligned, on says whether they answer. */
    void (*moved)(void *ctx, uint16_t base, bool on);
    /* May a write to the APM control port be an SMI (DEVACTB)? Told with each change. */
    void (*apm_smi)(void *ctx, bool on);
    void *ctx;
    /* Not state: */
    uint16_t base;
    bool on;
    bool smi;
};

/* PIRQA..D come in here; usable before piix3_init, so that the PCI bus can be made first. */
struct irq piix3_pirq(struct piix3 *p, unsigned n);

/* isa_irq[n]: the line that a PIRQ routed to ISA IRQ n drives (level; interrupt controllers or it
 * with what else is there). reset: pulsed by port 0xcf9. Slot 1 function 0. */
void piix3_init(struct piix3 *p, struct bus *b, struct pci_bus *pci,
                const struct irq isa_irq[PIIX3_ISA_IRQS], const struct irq *reset);
void piix3_fini(struct piix3 *p);

/* Slot 1 function 3. moved is called at once, and whenever it changes; so is apm_smi, which may be
 * NULL. */
void piix4_pm_init(struct piix4_pm *p, struct bus *b, struct pci_bus *pci,
                   void (*moved)(void *ctx, uint16_t base, bool on),
                   void (*apm_smi)(void *ctx, bool on), void *ctx);
void piix4_pm_fini(struct piix4_pm *p);

/* What firmware does: PIRQA..D to IRQ 10, 10, 11, 11, the ACPI registers at PIIX4_PM_BASE. The
 * tables of src/boot rely on it. Boot without firmware calls it after each reset; the PIC's
 * edge/level registers for IRQ 10 and 11 (and 9, for SCI) are the caller's to set. */
void piix3_firmware_setup(struct piix3 *p, struct piix4_pm *pm);

#endif
