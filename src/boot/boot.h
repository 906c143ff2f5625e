/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting a guest without firmware: put a kernel, its modules and the tables it looks for into
 * RAM, and say how the first processor begins. Kernels are recognised by content: Linux bzImage,
 * multiboot 1, ELF with a PVH entry. Everything in a kernel file is hostile.
 *
 * The caller has RAM (writable) from 0xc0000 to 1 MiB (i440fx_open_shadow) and runs no vCPU.
 */
#ifndef SOSIA_BOOT_BOOT_H
#define SOSIA_BOOT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "boot/file.h"
#include "mem/gmem.h"

#define BOOT_MAX_CPUS 1024u

/* -- What the machine is: for e820, ACPI, MP and SMBIOS tables. -------------------------------
 *
 * What the tables take for granted: the i440FX board. IOAPIC at 0xfec00000 with 24 inputs, HPET at
 * 0xfed00000, local APICs at 0xfee00000, ISA IRQ n on IOAPIC input n but IRQ 0 on input 2, SMI
 * command port 0xb2 (0xf1 ACPI on, 0xf0 off), reset register 0xcf9 with 6, century in CMOS 0x32.
 * INTA..D of PCI slot s meet PIRQ (s - 1 + pin) & 3, pin 0..3, as pci_intx_route has it. PIRQA..D
 * are routed by PIIX3 registers 0x60..0x63 at 00:01.0, which must have been set to ISA IRQs 10, 10,
 * 11, 11 (piix3_firmware_setup). */
struct boot_machine {
    unsigned cpus;            /* 1..BOOT_MAX_CPUS */
    const uint32_t *apic_ids; /* one per CPU, CPU 0 first; NULL: 0, 1, 2... */
    uint8_t ioapic_id;
    uint16_t pm_base;     /* ACPI registers: PM1a event +0, control +4, timer +8; 64 ports */
    bool pm_timer_32bit;  /* else 24 bits */
    uint16_t gpe0_base;   /* 0: no general purpose events */
    uint8_t gpe0_len;     /* bytes of status and enable registers together, even */
    uint16_t hotplug_base; /* registers of PCI hot-plug; 0: none */
    uint8_t hotplug_gpe;   /* the general purpose event of it */
    uint32_t vmgenid;      /* address of the VM generation ID; 0: none */
    uint8_t vmgenid_gpe;
    uint8_t sci_irq;      /* level, active high */
    uint8_t s5_type;      /* SLP_TYP value of soft-off */
    uint8_t serial_ports; /* bit n: COM(n+1) at the usual place */
    /* First of four IOAPIC inputs that PIRQA..D are wired to as well (16): the tables say so for
     * APIC mode. 0: in both modes PIRQs arrive as the ISA IRQs that the PIIX3 routes them to. */
    uint8_t pirq_gsi;
    bool hpet;
    bool i8042;
    /* Drives on a controller at 0x3f0, IRQ 6, DMA 2, as CMOS 0x10 has them: 1 360K, 2 1.2M, 3 720K,
     * 4 1.44M, 5 2.88M. Without A: there is no controller. */
    uint8_t floppy[2];
    bool vga;                /* else FADT says that there is none */
    uint64_t pci_high_start; /* 64-bit window for BARs; size 0: none */
    uint64_t pci_high_size;
    uint8_t uuid[16];
    const char *serial_number; /* NULL: none */
};

/* What the screen shows when the kernel starts. base 0: there is none. */
struct boot_screen {
    uint32_t base;  /* guest physical: of the frame buffer, or of the characters */
    uint32_t pitch; /* bytes from one line to the next */
    uint32_t width, height; /* pixels, or characters */
    uint8_t bpp;
    bool text; /* a VGA's text mode */
};

/* -- What to start ----------------------------------------------------------------------------- */
#define BOOT_MAX_MODULES 64u

struct boot_module {
    struct boot_file *file; /* borrowed */
    const char *args;       /* multiboot: its command line, name and all; else NULL */
};

struct boot_params {
    struct boot_file *kernel;          /* borrowed; its name begins a multiboot command line */
    const struct boot_module *modules; /* Linux takes one: the initrd */
    size_t module_count;
    const char *cmdline; /* NULL: empty */
    bool no_long_mode;   /* the CPU model has none: use the 32-bit protocol */
    const struct boot_machine *machine;
    struct boot_screen screen;
};

/* -- How the first processor begins ------------------------------------------------------------ */
enum boot_cpu_mode {
    BOOT_CPU_PROT32, /* protected mode, paging off */
    BOOT_CPU_LONG64, /* 64-bit mode, paging on */
};

struct boot_segment {
    uint16_t selector;
    uint32_t attr; /* descriptor bits 40..55, as struct cpu_seg */
    uint64_t base;
    uint32_t limit;
};

/* Everything not here is as after reset; interrupts are off, A20 is open. What firmware would have
 * done on every processor is the machine's: local APIC on, LINT0 ExtINT and LINT1 NMI, memory
 * write-back (IA32_MTRR_DEF_TYPE 0x806, no ranges). */
struct boot_cpu {
    enum boot_cpu_mode mode;
    uint64_t rip;
    uint64_t rflags;
    uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15, the encoding's order */
    uint64_t cr0, cr3, cr4, efer;
    struct boot_segment cs;
    struct boot_segment data; /* DS, ES, SS, FS, GS */
    struct boot_segment tr;
    uint64_t gdt_base;
    uint16_t gdt_limit;
};

enum boot_kind { BOOT_UNKNOWN, BOOT_LINUX, BOOT_MULTIBOOT, BOOT_PVH };

/* What a file is, by content; BOOT_UNKNOWN with a reason in e. -errno: cannot be read. */
MUST_CHECK int boot_recognise(struct boot_file *kernel, enum boot_kind *kind, struct err *e);
const char *boot_kind_name(enum boot_kind kind);
/* The mode that a kernel asks for: width, height and bpp, 0 for what it does not care about. 1; 0:
 * it asks for none. */
MUST_CHECK int boot_wanted_screen(struct boot_file *kernel, struct boot_screen *want,
                                  struct err *e);

/* Load everything. On error RAM holds whatever was written so far. */
MUST_CHECK int boot_load(struct gmem *mem, const struct boot_params *p, struct boot_cpu *cpu,
                         struct err *e);

#endif
