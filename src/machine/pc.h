/* SPDX-License-Identifier: Apache-2.0
 *
 * The board: which chips there are and how they are wired. Thread: machine lock held, or set-up.
 */
#ifndef SOSIA_MACHINE_PC_H
#define SOSIA_MACHINE_PC_H

#include "boot/boot.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/apic_bus.h"
#include "dev/pc/debug_port.h"
#include "dev/pc/fdc.h"
#include "dev/pc/fw_cfg.h"
#include "dev/pc/hpet.h"
#include "dev/pc/i440fx.h"
#include "dev/pc/i8042.h"
#include "dev/pc/i8237.h"
#include "dev/pc/i8254.h"
#include "dev/pc/i8259.h"
#include "dev/pc/ide.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/irq_or.h"
#include "dev/pc/lapic.h"
#include "dev/pc/mc146818.h"
#include "dev/pc/pci_hotplug.h"
#include "dev/pc/pflash.h"
#include "dev/pc/piix3.h"
#include "dev/pc/port61.h"
#include "dev/pc/port92.h"
#include "dev/pc/test_dev.h"
#include "dev/pc/uart16550.h"
#include "dev/pc/vga.h"
#include "dev/pc/vmgenid.h"
#include "machine/cards.h"
#include "machine/config.h"
#include "machine/disks.h"
#include "machine/screen.h"
#include "machine/serial.h"

struct machine;

#define PC_ISA_IRQS 16
#define PC_SCI_IRQ 9
#define PC_HOTPLUG_BASE 0xae00
#define PC_HOTPLUG_GPE 1
#define PC_VMGENID_BASE 0xfef00000u
#define PC_VMGENID_GPE 2
#define PC_PIRQ_PIN 16 /* of the I/O APIC: PIRQA..D past the router */

struct pc {
    struct machine *machine;
    /* Interrupts: what drives an ISA line, and where it goes. */
    struct irq_or isa[PC_ISA_IRQS];
    struct pic pic;
    struct apic_bus apics;
    struct ioapic ioapic;
    struct lapic *lapics; /* owned, one per processor */
    bool nmi_level;       /* port 0x61's sources */
    bool nmi_masked;      /* port 0x70 bit 7 */
    /* Bridges */
    struct i440fx host;
    struct piix3 isa_bridge;
    struct piix4_pm pm_function;
    struct acpi_pm pm;
    struct disks disks;
    struct ide ide;
    bool has_ide;
    struct dma dma;
    struct fdc fdc;
    bool has_fdc;
    struct netdevs netdevs;
    struct cards cards; /* in the PCI slots */
    struct pci_hotplug hotplug;
    struct vmgenid vmgenid;
    /* Time */
    struct pit pit;
    struct rtc rtc;
    struct hpet hpet;
    /* The rest */
    struct port61 port61;
    struct port92 port92;
    struct irq_or a20; /* high: address line 20 passes; inputs: keyboard controller, port 0x92 */
    struct i8042 kbc;
    struct typing typing; /* keys for it, from outside */
    struct uart uart[MACHINE_SERIAL_PORTS];
    struct serial serial[MACHINE_SERIAL_PORTS];
    struct fw_cfg fw_cfg;
    struct post_port post;
    struct debugcon debugcon[2];
    struct exit_port exit_port;
    struct test_dev test_dev;
    struct vga vga;
    bool has_vga;
    struct pflash flash; /* UEFI's variables */
    bool has_flash;
    int vars_fd;        /* file behind it, -1: none */
    bool has_firmware;  /* the processors start at the reset vector */
    uint16_t pm_base;   /* where the ACPI registers are */
    bool has_exit_port; /* and the test device: a machine for test kernels */
};

MUST_CHECK int pc_init(struct pc *p, struct machine *m, const struct machine_config *c,
                       struct err *e);
/* Also of one that pc_init gave up on. The loop's thread is gone. */
void pc_fini(struct pc *p);
/* What firmware leaves behind: after power-on and after each reset. */
void pc_firmware_setup(struct pc *p);
/* What the tables of src/boot say of the board. */
void pc_describe(const struct pc *p, struct boot_machine *b);
/* True when the guest listens. */
bool pc_press_power(struct pc *p);
/* The guest goes on in a world where others may have its past: a new generation ID. */
MUST_CHECK int pc_new_generation(struct pc *p, struct err *e);

#endif
