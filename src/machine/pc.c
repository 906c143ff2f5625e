/* SPDX-License-Identifier: Apache-2.0
 *
 * The schematic of the board: an i440FX/PIIX3 PC with local APICs and an I/O APIC. Every address
 * and every line is here, top to bottom.
 */
#include "machine/pc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "boot/e820.h"
#include "cpu/model.h"
#include "dev/pc/msi.h"
#include "machine/chips.h"
#include "machine/drives.h"
#include "machine/firmware.h"
#include "machine/hotplug.h"
#include "machine/machine.h"

/* -- A processor's pins --------------------------------------------------------------------------
 */

static void cpu_intr(void *ctx, int level)
{
    struct cpu *cpu = ctx;
    if (level) {
        cpu_raise_event(cpu, CPU_EV_INTR);
    } else {
        cpu_clear_event(cpu, CPU_EV_INTR);
    }
}

static void cpu_nmi(void *ctx) { cpu_raise_nmi(ctx); }
static void cpu_smi(void *ctx) { cpu_raise_event(ctx, CPU_EV_SMI); }
static void cpu_init_pin(void *ctx) { cpu_raise_event(ctx, CPU_EV_INIT); }

static void cpu_sipi(void *ctx, uint8_t vector)
{
    struct cpu *cpu = ctx;
    cpu->sipi_vector = vector; /* read after the event that it comes with */
    cpu_raise_event(cpu, CPU_EV_SIPI);
}

static uint64_t cpu_tsc(void *ctx)
{
    const struct cpu *cpu = ctx;
    return cpu->world->tsc(cpu->world->ctx) + cpu->tsc_offset;
}

/* -- Lines ------------------------------------------------------------------------------------- */

/* An ISA interrupt reaches the 8259s and the I/O APIC; the timer's is on pin 2 there (MP 1.4 D.3).
 */
static void isa_out(void *ctx, int n, int level)
{
    struct pc *p = ctx;
    if (n == 2) {
        return; /* the cascade of the 8259s; the I/O APIC's input 2 is the timer's */
    }
    struct irq pic = pic_irq(&p->pic, n);
    struct irq ioapic = ioapic_irq(&p->ioapic, n == 0 ? 2 : n);
    irq_set(&pic, level);
    irq_set(&ioapic, level);
}

/* input: 0 the ISA device, 1 the PCI interrupt router, 2 and 3 what shares the line */
static struct irq isa(struct pc *p, int n, int input) { return irq_or_input(&p->isa[n], input); }

static void intr_out(void *ctx, int n, int level)
{
    (void)n;
    struct pc *p = ctx;
    machine_chips_intr(p->machine, level);
}

static int extint_ack(void *ctx)
{
    struct cpu *cpu = ctx;
    struct machine *m = cpu->world->ctx;
    return pic_ack(&m->pc->pic);
}

/* DEVIATION: while local APICs are the engine's, which have no pins, to processor 0 whatever its
 * LINT1 says, as no operating system changes it. */
static void nmi_update(struct pc *p)
{
    int level = p->nmi_level && !p->nmi_masked;
    if (level && !p->lapics[0].lint[1] && p->lapics[0].asleep) {
        cpu_nmi(p->machine->cpus[0]);
    }
    for (unsigned i = 0; i < p->machine->cpu_count; i++) {
        struct irq lint1 = lapic_lint(&p->lapics[i], 1);
        irq_set(&lint1, level);
    }
}

static void nmi_source(void *ctx, int n, int level)
{
    (void)n;
    struct pc *p = ctx;
    p->nmi_level = level != 0;
    nmi_update(p);
}

static void nmi_mask(void *ctx, int n, int level)
{
    (void)n;
    struct pc *p = ctx;
    p->nmi_masked = level != 0;
    nmi_update(p);
}

/* A PIRQ goes to the router in the ISA bridge and, past it, to an input of the I/O APIC. */
static void pirq_out(void *ctx, int n, int level)
{
    struct pc *p = ctx;
    struct irq router = piix3_pirq(&p->isa_bridge, (unsigned)n);
    struct irq ioapic = ioapic_irq(&p->ioapic, PC_PIRQ_PIN + n);
    irq_set(&router, level);
    irq_set(&ioapic, level);
}

static void pm_moved(void *ctx, uint16_t base, bool on)
{
    struct pc *p = ctx;
    acpi_pm_set_base(&p->pm, base, on);
    if (on && base != p->pm_base) {
        p->pm_base = base;
        struct err e = { 0 };
        if (p->has_firmware && firmware_tables(p, &e) < 0) {
            log_err("%s", e.msg);
        }
    }
}

static void apm_smi(void *ctx, bool on)
{
    struct pc *p = ctx;
    acpi_pm_enable_apm_smi(&p->pm, on);
}

/* SMI# is wired to processor 0 alone: firmware for virtual machines moves only its SMBASE. */
static void smi_out(void *ctx, int n, int level)
{
    (void)n;
    struct pc *p = ctx;
    if (level) {
        cpu_smi(p->machine->cpus[0]);
    }
}

static void power_off(void *ctx)
{
    struct pc *p = ctx;
    machine_request_end(p->machine, MACHINE_POWER_OFF, 0, "the guest switched the machine off");
}

static void slots_changed(void *ctx)
{
    struct pc *p = ctx;
    acpi_pm_raise_gpe(&p->pm, PC_HOTPLUG_GPE);
}

static void slot_ejected(void *ctx, unsigned slot)
{
    struct pc *p = ctx;
    machine_card_ejected(p->machine, slot);
}

static uint32_t slots_removable(void *ctx)
{
    struct pc *p = ctx;
    uint32_t slots = 0;
    for (unsigned slot = 0; slot < CARDS_SLOTS; slot++) {
        slots |= p->cards.card[slot] != NULL ? 1u << slot : 0;
    }
    return slots;
}

static void a20_changed(void *ctx, int n, int level)
{
    (void)n;
    (void)level;
    struct pc *p = ctx;
    machine_map_changed(p->machine);
}

static void reset_line(void *ctx, int n, int level)
{
    (void)n;
    struct pc *p = ctx;
    if (level) {
        machine_guest_reset(p->machine, MACHINE_RESET, "the guest asked for a reset");
    }
}

static uint64_t wall_ns(void *ctx)
{
    struct pc *p = ctx;
    return machine_wall_ns(&p->machine->time);
}

static void exit_written(void *ctx, uint32_t status)
{
    struct pc *p = ctx;
    machine_request_end(p->machine, MACHINE_EXIT_PORT, (int)(status & 0xff),
                        "the guest wrote to the exit port");
}

static void debug_written(void *ctx, const uint8_t *data, size_t len)
{
    struct pc *p = ctx;
    const struct machine_callbacks *cb = &p->machine->callbacks;
    if (cb->debug_output != NULL) {
        cb->debug_output(cb->ctx, data, len);
    }
}

/* -- What firmware leaves in CMOS, as operating systems and test kernels look for it ----------- */

static void fill_cmos(struct pc *p)
{
    const struct machine *m = p->machine;
    uint64_t low = gmem_ram_below_4g(m->mem);
    uint64_t high = gmem_ram_size(m->mem) - low;
    uint64_t ext_kib = low > MIB(1) ? (low - MIB(1)) >> 10 : 0;
    uint64_t above16 = low > MIB(16) ? (low - MIB(16)) >> 16 : 0;
    uint64_t above4g = high >> 16;
    ext_kib = ext_kib < 0xffff ? ext_kib : 0xffff;
    above16 = above16 < 0xffff ? above16 : 0xffff;
    uint8_t equipment = 0x06; /* PS/2 mouse, FPU; how many floppy drives */
    uint8_t floppies = 0;
    for (unsigned n = 0; n < FDC_DRIVES && p->has_fdc && p->fdc.drive[n].type != 0; n++) {
        equipment = (uint8_t)(0x07 | n << 6);
        floppies |= (uint8_t)(p->fdc.drive[n].type << (n == 0 ? 4 : 0));
    }
    rtc_set_cmos(&p->rtc, 0x10, floppies);
    rtc_set_cmos(&p->rtc, 0x14, equipment);
    rtc_set_cmos(&p->rtc, 0x15, 640 & 0xff);
    rtc_set_cmos(&p->rtc, 0x16, 640 >> 8);
    for (unsigned at = 0x17; at <= 0x30; at += 0x19) { /* twice, for two generations of BIOS */
        rtc_set_cmos(&p->rtc, at, (uint8_t)ext_kib);
        rtc_set_cmos(&p->rtc, at + 1, (uint8_t)(ext_kib >> 8));
    }
    rtc_set_cmos(&p->rtc, 0x34, (uint8_t)above16);
    rtc_set_cmos(&p->rtc, 0x35, (uint8_t)(above16 >> 8));
    rtc_set_cmos(&p->rtc, 0x5b, (uint8_t)above4g);
    rtc_set_cmos(&p->rtc, 0x5c, (uint8_t)(above4g >> 8));
    rtc_set_cmos(&p->rtc, 0x5d, (uint8_t)(above4g >> 16));
    rtc_set_cmos(&p->rtc, 0x5f, (uint8_t)(m->cpu_count - 1));
}

static int fill_fw_cfg(struct pc *p, struct err *e)
{
    const struct machine *m = p->machine;
    struct fw_cfg *f = &p->fw_cfg;
    fw_cfg_set_u16(f, FW_CFG_NB_CPUS, (uint16_t)m->cpu_count);
    fw_cfg_set_u16(f, FW_CFG_MAX_CPUS, (uint16_t)m->cpu_count);
    fw_cfg_set_u64(f, FW_CFG_RAM_SIZE, gmem_ram_size(m->mem));
    fw_cfg_set_u16(f, FW_CFG_NOGRAPHIC, 1);
    if (m->append != NULL) {
        fw_cfg_set_u32(f, FW_CFG_CMDLINE_SIZE, (uint32_t)strlen(m->append) + 1);
        fw_cfg_set_string(f, FW_CFG_CMDLINE_DATA, m->append);
    }
    struct e820 map;
    uint8_t table[E820_MAX * E820_ENTRY_BYTES];
    e820_build(&map, m->mem);
    for (size_t i = 0; i < map.count; i++) {
        e820_encode(&map.entry[i], table + i * E820_ENTRY_BYTES);
    }
    int r = fw_cfg_add_file(f, "etc/e820", table, (uint32_t)(map.count * E820_ENTRY_BYTES));
    return r < 0 ? err_set(e, r, "fw_cfg: no room for etc/e820") : 0;
}

static void init_lapic(struct pc *p, unsigned i)
{
    struct machine *m = p->machine;
    const struct lapic_config config = {
        .apic_id = m->cpus[i]->apic_id,
        .bsp = i == 0,
        .x2apic = cpu_has(&m->model.features, CPU_FEATURE_X2APIC),
        .tsc_deadline = cpu_has(&m->model.features, CPU_FEATURE_TSC_DEADLINE),
        .phys_bits = m->model.phys_bits,
        .timer_hz = CPU_APIC_TIMER_HZ,
        .tsc_hz = m->time.tsc_khz * 1000ull,
        .clock = m->clock,
        .apics = &p->apics,
        .out = { .ctx = m->cpus[i],
                 .intr = cpu_intr,
                 .nmi = cpu_nmi,
                 .smi = cpu_smi,
                 .init = cpu_init_pin,
                 .sipi = cpu_sipi,
                 .extint = extint_ack,
                 .tsc = cpu_tsc },
    };
    lapic_init(&p->lapics[i], m->bus, &config);
}

static size_t to_uart(void *dev, unsigned n, const uint8_t *data, size_t len)
{
    (void)n;
    return uart_input(dev, data, len);
}

static int init_serial(struct pc *p, const struct machine_config *c, struct err *e)
{
    static const struct {
        const char *name;
        uint16_t base;
        int irq, input;
    } com[MACHINE_SERIAL_PORTS] = {
        { "uart.0", 0x3f8, 4, 0 },
        { "uart.1", 0x2f8, 3, 0 },
        { "uart.2", 0x3e8, 4, 2 },
        { "uart.3", 0x2e8, 3, 2 },
    };
    struct machine *m = p->machine;
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        struct serial *s = &p->serial[i];
        int r = serial_init(s, i, &c->serial[i], &m->callbacks, m->loop, e);
        if (r < 0) {
            return r;
        }
        if (s->kind != SERIAL_ABSENT) {
            struct irq irq = isa(p, com[i].irq, com[i].input);
            struct char_backend backend = serial_backend(s);
            uart_init(&p->uart[i], m->bus, com[i].name, com[i].base, &irq, m->clock, &backend);
            s->uart = &p->uart[i];
            s->to_guest = to_uart;
            s->dev = &p->uart[i];
        }
    }
    return 0;
}

/* Slot 1 function 1. A kernel booted directly looks for it in vain when it has no drive. */
static int init_ide(struct pc *p, const struct machine_config *c, struct err *e)
{
    struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES];
    int r = drives_assign_ide(drives, &p->disks, e);
    for (unsigned n = 0; n < IDE_CHANNELS * IDE_DRIVES && r == 0; n++) {
        p->has_ide |= drives[n / IDE_DRIVES][n % IDE_DRIVES].kind != IDE_NONE;
    }
    p->has_ide |= c->kernel == NULL;
    if (r == 0 && p->has_ide) {
        const struct irq irq[IDE_CHANNELS] = { isa(p, 14, 0), isa(p, 15, 0) };
        ide_init(&p->ide, p->machine->bus, i440fx_pci(&p->host), irq, drives);
    }
    p->has_ide &= r == 0;
    return r;
}

static int init_fdc(struct pc *p, struct err *e)
{
    struct fdc_config fdc = {
        .clock = p->machine->clock, .irq = isa(p, 6, 0), .dma = &p->dma, .dma_channel = 2
    };
    int r = drives_assign_floppies(&fdc, &p->disks, e);
    p->has_fdc = r == 0 && fdc.drive[0].queue != NULL;
    if (p->has_fdc) {
        fdc_init(&p->fdc, p->machine->bus, &fdc);
    }
    return r;
}

/* In virtual time nothing is random. */
static int new_identity(struct pc *p, struct err *e)
{
    return p->machine->virtual_time ? 0 : vmgenid_renew(&p->vmgenid, e);
}

int pc_init(struct pc *p, struct machine *m, const struct machine_config *c, struct err *e)
{
    struct bus *b = m->bus;
    p->machine = m;
    p->pm_base = PIIX4_PM_BASE;
    p->vars_fd = -1;
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        p->serial[i].fd = p->serial[i].far_fd = p->serial[i].listen_fd = -1;
    }
    const struct irq reset = { reset_line, p, 0 };

    /* Interrupts */
    for (int n = 0; n < PC_ISA_IRQS; n++) {
        const struct irq out = { isa_out, p, n };
        irq_or_init(&p->isa[n], &out);
    }
    apic_bus_init(&p->apics, b);
    p->lapics = xcalloc(m->cpu_count, sizeof *p->lapics);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        init_lapic(p, i);
    }
    const struct irq intr = { intr_out, p, 0 };
    pic_init(&p->pic, b, &intr); /* 0x20 0xa0 0x4d0 */
    ioapic_init(&p->ioapic, b, 0xfec00000, &p->apics);

    /* PCI: host bridge at slot 0, ISA bridge and power management at slot 1 */
    struct irq pirq[4];
    struct irq routed[PIIX3_ISA_IRQS];
    for (int n = 0; n < 4; n++) {
        pirq[n] = (struct irq){ pirq_out, p, n };
    }
    for (int n = 0; n < PIIX3_ISA_IRQS; n++) {
        routed[n] = isa(p, n, 1);
    }
    i440fx_init(&p->host, b, pirq, msi_send, &p->apics);                 /* 0xcf8 0xcfc */
    piix3_init(&p->isa_bridge, b, i440fx_pci(&p->host), routed, &reset); /* 0xcf9 */
    const struct acpi_pm_config pm = { .clock = m->clock,
                                       .sci = isa(p, PC_SCI_IRQ, 2),
                                       .smi = { smi_out, p, 0 },
                                       .base = PIIX4_PM_BASE,
                                       .timer_32bit = true,
                                       .power_off = power_off,
                                       .ctx = p };
    acpi_pm_init(&p->pm, b, &pm); /* 0x600, 0xb2 */
    piix4_pm_init(&p->pm_function, b, i440fx_pci(&p->host), pm_moved, apm_smi, p);
    const struct pci_hotplug_config hotplug = { .changed = slots_changed,
                                                .eject = slot_ejected,
                                                .removable = slots_removable,
                                                .ctx = p };
    pci_hotplug_init(&p->hotplug, b, PC_HOTPLUG_BASE, &hotplug); /* 0xae00 */
    vmgenid_init(&p->vmgenid, b, PC_VMGENID_BASE);

    /* Time: the HPET may take the place of the 8254 and of the RTC's interrupt */
    struct hpet_config hpet = { .clock = m->clock,
                                .legacy = { isa(p, 0, 0), isa(p, 8, 0) },
                                .routes = 0x00f00000,
                                .msi = msi_send,
                                .msi_ctx = &p->apics };
    for (int n = 20; n < HPET_PINS; n++) {
        hpet.pin[n] = ioapic_irq(&p->ioapic, n);
    }
    hpet_init(&p->hpet, b, 0xfed00000, &hpet);
    const struct irq irq0 = hpet_legacy_in(&p->hpet, 0);
    pit_init(&p->pit, b, 0x40, m->clock, &irq0);
    dma_init(&p->dma, b); /* 0x00 0x80 0xc0 */
    const struct rtc_config rtc = { .clock = m->clock,
                                    .wall_ns = wall_ns,
                                    .wall_ctx = p,
                                    .irq8 = hpet_legacy_in(&p->hpet, 1),
                                    .nmi_mask = { nmi_mask, p, 0 } };
    rtc_init(&p->rtc, b, &rtc); /* 0x70 */

    /* The keyboard controller, A20, speaker, NMI sources */
    const struct port61_config port61 = { .pit = &p->pit, .nmi = { nmi_source, p, 0 } };
    port61_init(&p->port61, b, &port61); /* 0x61 */
    const struct irq a20_out = { a20_changed, p, 0 };
    irq_or_init(&p->a20, &a20_out);
    const struct irq a20_keyboard = irq_or_input(&p->a20, 0);
    const struct irq a20_fast = irq_or_input(&p->a20, 1);
    port92_init(&p->port92, b, &a20_fast, &reset); /* 0x92 */
    const struct irq irq1 = isa(p, 1, 0);
    const struct irq irq12 = isa(p, 12, 0);
    i8042_init(&p->kbc, b, &irq1, &irq12, &a20_keyboard, &reset); /* 0x60 0x64 */
    typing_init(&p->typing, m);

    /* COM1 to COM4 */
    int r = init_serial(p, c, e);
    if (r < 0) {
        return r;
    }

    /* Disk images, and what is in the PCI slots from 3 up */
    r = disks_open(&p->disks, c, m->loop, e);
    if (r == 0) {
        r = init_ide(p, c, e); /* 0x1f0 0x170 */
    }
    if (r == 0) {
        r = init_fdc(p, e); /* 0x3f0 */
    }
    if (r == 0) {
        r = cards_init(&p->cards, m, i440fx_pci(&p->host), c, &p->disks, &p->netdevs, e);
    }
    if (r < 0) {
        return r;
    }

    /* For firmware and test kernels */
    const struct char_backend debug = { .write = debug_written, .ctx = p };
    fw_cfg_init(&p->fw_cfg, b);  /* 0x510 */
    post_port_init(&p->post, b); /* 0x80 */
    debugcon_init(&p->debugcon[0], b, 0xe9, &debug);
    debugcon_init(&p->debugcon[1], b, 0x402, &debug);
    p->has_exit_port = c->exit_port >= 0;
    if (p->has_exit_port) {
        exit_port_init(&p->exit_port, b, (uint16_t)c->exit_port, exit_written, p);
        struct irq line[TEST_DEV_LINES];
        for (int n = 0; n < TEST_DEV_LINES; n++) {
            line[n] = isa(p, n, 4);
        }
        test_dev_init(&p->test_dev, b, line); /* 0xe0 0x2000 0xff000000 */
    }
    fill_cmos(p);
    r = new_identity(p, e);
    if (r == 0) {
        r = fill_fw_cfg(p, e);
    }
    if (r == 0 && (c->kernel == NULL || c->screen || c->display.kind != DISPLAY_NONE)) {
        r = firmware_add_vga(p, e); /* slot 2 */
    }
    if (r == 0 && c->kernel == NULL) {
        p->has_firmware = true;
        r = firmware_init(p, c, e);
    }
    return r;
}

void pc_fini(struct pc *p)
{
    typing_fini(&p->typing);
    firmware_fini(p);
    if (p->has_exit_port) {
        test_dev_fini(&p->test_dev);
        exit_port_fini(&p->exit_port);
    }
    bool whole = p->fw_cfg.dev.bus != NULL; /* pc_init came to the end */
    if (whole) {
        debugcon_fini(&p->debugcon[1]);
        debugcon_fini(&p->debugcon[0]);
        post_port_fini(&p->post);
        fw_cfg_fini(&p->fw_cfg);
    }
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        if (p->serial[i].uart != NULL) {
            uart_fini(&p->uart[i]);
        }
        serial_fini(&p->serial[i]);
    }
    cards_fini(&p->cards);
    netdevs_fini(&p->netdevs);
    if (p->has_vga) {
        vga_fini(&p->vga);
    }
    if (p->has_fdc) {
        fdc_fini(&p->fdc);
    }
    if (p->has_ide) {
        ide_fini(&p->ide);
    }
    disks_close(&p->disks);
    i8042_fini(&p->kbc);
    port92_fini(&p->port92);
    port61_fini(&p->port61);
    rtc_fini(&p->rtc);
    dma_fini(&p->dma);
    pit_fini(&p->pit);
    hpet_fini(&p->hpet);
    vmgenid_fini(&p->vmgenid);
    pci_hotplug_fini(&p->hotplug);
    piix4_pm_fini(&p->pm_function);
    acpi_pm_fini(&p->pm);
    piix3_fini(&p->isa_bridge);
    i440fx_fini(&p->host);
    ioapic_fini(&p->ioapic);
    pic_fini(&p->pic);
    for (unsigned i = 0; i < p->machine->cpu_count; i++) {
        lapic_fini(&p->lapics[i]);
    }
    apic_bus_fini(&p->apics);
    free(p->lapics);
}

/* -- Boot without firmware --------------------------------------------------------------------- */

void pc_firmware_setup(struct pc *p)
{
    i440fx_open_shadow(&p->host);
    piix3_firmware_setup(&p->isa_bridge, &p->pm_function);
    if (p->has_ide) {
        ide_firmware_setup(&p->ide);
    }
    p->pic.chip[1].elcr = 1u << (PC_SCI_IRQ - 8) | 1u << (10 - 8) | 1u << (11 - 8);
    lapic_set_virtual_wire(&p->lapics[0]);
}

bool pc_press_power(struct pc *p) { return acpi_pm_press_power_button(&p->pm); }

int pc_new_generation(struct pc *p, struct err *e)
{
    int r = new_identity(p, e);
    if (r == 0) {
        acpi_pm_raise_gpe(&p->pm, PC_VMGENID_GPE);
    }
    return r;
}

void pc_describe(const struct pc *p, struct boot_machine *b)
{
    b->ioapic_id = 0;
    b->pm_base = p->pm_base;
    b->pm_timer_32bit = true;
    b->gpe0_base = p->pm_base + 0xc;
    b->gpe0_len = 2 * ACPI_PM_GPES / 8;
    b->sci_irq = PC_SCI_IRQ;
    b->hotplug_base = PC_HOTPLUG_BASE;
    b->hotplug_gpe = PC_HOTPLUG_GPE;
    b->vmgenid = PC_VMGENID_BASE;
    b->vmgenid_gpe = PC_VMGENID_GPE;
    b->s5_type = ACPI_PM_SLP_TYP_S5;
    b->pirq_gsi = PC_PIRQ_PIN;
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        if (p->serial[i].kind != SERIAL_ABSENT) {
            b->serial_ports |= (uint8_t)(1u << i);
        }
    }
    if (p->has_firmware) { /* which may place BARs above RAM */
        uint64_t high = gmem_ram_size(p->machine->mem) - gmem_ram_below_4g(p->machine->mem);
        b->pci_high_start = GIB(4) + align_up(high, GIB(1));
        b->pci_high_size = (1ull << p->machine->model.phys_bits) - b->pci_high_start;
    }
    b->vga = p->has_vga;
    for (unsigned n = 0; n < FDC_DRIVES && p->has_fdc; n++) {
        b->floppy[n] = p->fdc.drive[n].type;
    }
    b->hpet = true;
    b->i8042 = true;
}
