/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a hostile driver on the AHCI and NVMe controllers and on the drives of the IDE
 * function. The first byte chooses the controller; then come register writes, commands and queue
 * entries of any content, images that are slow, and states saved and loaded in between.
 */
// LAYERS: dev/pc bus mem state block base
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/loop.h"
#include "dev/pc/ahci.h"
#include "dev/pc/i440fx.h"
#include "dev/pc/ide.h"
#include "dev/pc/nvme.h"
#include "program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM MIB(1)
#define BAR 0xe0000000u
#define CARD PCI_DEVFN(3, 0)
#define DISK_BYTES KIB(256)

/* Where the driver has its structures: the program writes all over them as well. */
enum { LIST = 0x1000, FISES = 0x1400, TABLE = 0x2000, SQ = 0x4000, CQ = 0x8000, DATA = 0x10000 };

enum kind { AHCI, NVME, IDE, KINDS };

struct rig {
    struct gmem *mem;
    struct bus *bus;
    struct clock *clock;
    struct loop *loop;
    struct i440fx host;
    struct block *block;
    struct block_queue *queue;
    enum kind kind;
    uint16_t tail[2];
    union {
        struct ahci ahci;
        struct nvme nvme;
        struct ide ide;
    } * d;
};

static void make_disk(struct rig *r)
{
    struct err e;
    char path[40];
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const struct block_options o = { .path = path, .format = "raw", .flags = BLOCK_NO_LOCK };
    if (block_open(&r->block, &o, &e) < 0 ||
        block_queue_new(&r->queue, r->block, r->loop, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    close(fd);
}

static void config(struct rig *r, uint8_t devfn, unsigned reg, uint32_t v)
{
    bus_port_write(r->bus, 0xcf8, 4, 0x80000000u | (uint32_t)devfn << 8 | reg);
    bus_port_write(r->bus, 0xcfc, 4, v);
}

static void make(struct rig *r)
{
    const struct irq none[IDE_CHANNELS] = { { 0 } };
    const struct ide_drive_config disk = { .kind = IDE_DISK, .queue = r->queue, .serial = "d" };
    const struct ide_drive_config cd = { .kind = IDE_CD, .queue = r->queue };
    const struct ide_drive_config sata[AHCI_PORTS] = { disk, cd };
    const struct ide_drive_config ide[IDE_CHANNELS][IDE_DRIVES] = { { disk }, { cd } };
    const struct nvme_config nvme = { .queue = r->queue, .serial = "d" };
    struct pci_bus *pci = i440fx_pci(&r->host);
    uint8_t devfn = r->kind == IDE ? PCI_DEVFN(1, 1) : CARD;
    if (r->kind == AHCI) {
        ahci_init(&r->d->ahci, "ahci", pci, r->bus, CARD, sata);
    } else if (r->kind == NVME) {
        nvme_init(&r->d->nvme, "nvme", pci, r->bus, CARD, &nvme);
    } else {
        ide_init(&r->d->ide, r->bus, pci, none, ide);
    }
    config(r, devfn, PCI_BAR0 + (r->kind == AHCI ? 20 : 0), BAR);
    config(r, devfn, PCI_BAR0 + 16, r->kind == IDE ? 0xc000 : BAR + MIB(1));
    config(r, devfn, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void unmake(struct rig *r)
{
    bus_lock(r->bus);
    if (r->kind == AHCI) {
        ahci_fini(&r->d->ahci);
    } else if (r->kind == NVME) {
        nvme_fini(&r->d->nvme);
    } else {
        ide_fini(&r->d->ide);
    }
    bus_unlock(r->bus);
}

/* -- Drivers that mean well, up to the contents of their commands ------------------------------ */
static void mmio(struct rig *r, uint32_t offset, uint32_t v)
{
    bus_mmio_write(r->bus, BAR + offset, 4, v);
}

static void poke(struct rig *r, gpa_t at, const void *data, size_t len)
{
    if (gmem_write(r->mem, at, data, len) < 0) {
        abort();
    }
}

static void ahci_start(struct rig *r)
{
    for (unsigned port = 0; port < 2; port++) {
        uint32_t base = 0x100 + 0x80 * port;
        mmio(r, base + 0x18, 0);
        mmio(r, base, LIST);
        mmio(r, base + 8, FISES + 0x100 * port);
        mmio(r, base + 0x18, 0x10);
        mmio(r, base + 0x18, 0x11);
    }
}

static void ahci_command(struct rig *r, struct program *p)
{
    unsigned how = (unsigned)take(p, 1), slot = how & 3, port = how >> 2 & 1;
    uint8_t header[32] = { 5 }, table[0x80] = { 0x27, 0x80 };
    gpa_t at = TABLE + 0x400 * slot;
    unsigned regions = how >> 3 & 3;
    store_le16(header + 2, (uint16_t)(how == 0xff ? take(p, 2) : regions));
    store_le32(header + 8, (uint32_t)at);
    table[2] = (uint8_t)take(p, 1);
    table[3] = (uint8_t)take(p, 1);
    store_le64(table + 4, take(p, how & 0x40 ? 6 : 2));
    store_le16(table + 12, (uint16_t)(how & 0x80 ? slot << 3 : take(p, 1)));
    for (unsigned i = 0; i < 12; i++) {
        table[0x40 + i] = (uint8_t)take(p, port);
    }
    poke(r, LIST + 32 * slot, header, sizeof header);
    poke(r, at, table, sizeof table);
    for (unsigned i = 0; i < regions; i++) {
        uint8_t prd[16] = { 0 };
        store_le32(prd, DATA + (uint32_t)take(p, 2));
        store_le32(prd + 12, (uint32_t)take(p, 2));
        poke(r, at + 0x80 + 16 * i, prd, sizeof prd);
    }
    mmio(r, 0x100 + 0x80 * port + 0x34, 1u << slot);
    mmio(r, 0x100 + 0x80 * port + 0x38, 1u << slot);
}

#define NVME_ENTRIES 8u

static void nvme_command(struct rig *r, unsigned q, const uint32_t dw[16])
{
    uint8_t raw[64];
    for (unsigned i = 0; i < 16; i++) {
        store_le32(raw + 4 * i, dw[i]);
    }
    poke(r, SQ + 0x1000 * q + 64 * r->tail[q], raw, sizeof raw);
    r->tail[q] = (r->tail[q] + 1) % NVME_ENTRIES;
    mmio(r, 0x1000 + 8 * q, r->tail[q]);
}

static void nvme_start(struct rig *r)
{
    mmio(r, 0x14, 0);
    mmio(r, 0x24, (NVME_ENTRIES - 1) << 16 | (NVME_ENTRIES - 1));
    mmio(r, 0x28, SQ);
    mmio(r, 0x2c, 0);
    mmio(r, 0x30, CQ);
    mmio(r, 0x34, 0);
    mmio(r, 0x14, 0x460001);
    r->tail[0] = r->tail[1] = 0;
    const uint32_t cq[16] = { 5, [6] = CQ + 0x1000, [10] = (NVME_ENTRIES - 1) << 16 | 1, [11] = 3 };
    const uint32_t sq[16] = {
        1, [6] = SQ + 0x1000, [10] = (NVME_ENTRIES - 1) << 16 | 1, [11] = 1u << 16 | 1
    };
    nvme_command(r, 0, cq);
    nvme_command(r, 0, sq);
}

static void nvme_any(struct rig *r, struct program *p)
{
    unsigned how = (unsigned)take(p, 1);
    uint32_t dw[16] = { (uint32_t)take(p, 1) & 0x1f, how >> 1 & 1 };
    dw[6] = DATA + (uint32_t)take(p, 2);
    dw[8] = how & 4 ? TABLE + (uint32_t)take(p, 2) : DATA + 0x1000;
    for (unsigned i = 10; i < 14; i++) {
        dw[i] = (uint32_t)take(p, how & 8 ? 4 : 1);
    }
    nvme_command(r, how & 1, dw);
    if (how & 0x10) {
        mmio(r, 0x1004 + 8 * (how & 1), (uint32_t)take(p, 1) % NVME_ENTRIES);
    }
}

static void ide_command(struct rig *r, struct program *p)
{
    uint16_t base = take(p, 1) & 1 ? 0x1f0 : 0x170;
    for (uint16_t reg = 1; reg < 8; reg++) {
        bus_port_write(r->bus, (uint16_t)(base + reg), 1, (uint32_t)take(p, 1));
    }
    for (unsigned i = 0; i < 6; i++) { /* perhaps a packet */
        bus_port_write(r->bus, base, 2, (uint32_t)take(p, 2));
    }
    bus_port_write(r->bus, base == 0x1f0 ? 0xc004 : 0xc00c, 4, TABLE);
    bus_port_write(r->bus, base == 0x1f0 ? 0xc000 : 0xc008, 1, (uint32_t)take(p, 1));
}

static void step(struct rig *r, struct program *p)
{
    unsigned op = (unsigned)take(p, 1);
    uint8_t bytes[16];
    switch (op % 8) {
    case 0:
        mmio(r, (uint32_t)take(p, 2) % 0x1400, (uint32_t)take(p, 4));
        (void)bus_mmio_read(r->bus, BAR + take(p, 2), 1u << (op >> 3 & 3));
        break;
    case 1:
        for (unsigned i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)take(p, 1);
        }
        poke(r, take(p, 2), bytes, sizeof bytes);
        break;
    case 2:
        bus_lock(r->bus);
        bus_quiesce(r->bus);
        bus_unlock(r->bus);
        break;
    case 3:
        if (op < 0x40) {
            bus_lock(r->bus);
            roundtrip(r->bus);
            bus_unlock(r->bus);
        } else if (op < 0x60) {
            bus_lock(r->bus);
            bus_reset(r->bus);
            bus_unlock(r->bus);
        } else {
            config(r, r->kind == IDE ? PCI_DEVFN(1, 1) : CARD, (unsigned)take(p, 1) & 0xfc,
                   (uint32_t)take(p, 4));
        }
        break;
    case 4:
        if (r->kind == AHCI) {
            ahci_start(r);
        } else if (r->kind == NVME) {
            nvme_start(r);
        }
        break;
    default:
        if (r->kind == AHCI) {
            ahci_command(r, p);
        } else if (r->kind == NVME) {
            nvme_any(r, p);
        } else {
            ide_command(r, p);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program p = { data, size };
    struct rig r = { .kind = (enum kind)(take(&p, 1) % KINDS) };
    const struct irq none[4] = { { 0 } };
    struct err e;
    if (size > 4096 || gmem_new(&r.mem, RAM, 0xc0000000, &e) < 0) {
        return 0;
    }
    r.bus = bus_new(r.mem);
    r.clock = clock_new_fake();
    if (loop_new(&r.loop, r.clock, bus_lock_of(r.bus)) < 0) {
        abort();
    }
    r.d = calloc(1, sizeof *r.d);
    i440fx_init(&r.host, r.bus, none, NULL, NULL);
    make_disk(&r);
    make(&r);
    for (unsigned i = 0; p.left > 0 && i < 300; i++) {
        step(&r, &p);
    }
    unmake(&r);
    bus_lock(r.bus);
    block_queue_free(r.queue);
    block_close(r.block);
    bus_unlock(r.bus);
    i440fx_fini(&r.host);
    free(r.d);
    loop_free(r.loop);
    bus_free(r.bus);
    clock_free(r.clock);
    gmem_free(r.mem);
    return 0;
}
