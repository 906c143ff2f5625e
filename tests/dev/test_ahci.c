/* SPDX-License-Identifier: Apache-2.0
 *
 * The AHCI controller over the bus, as a driver sees it: a disk on port 0, a CD-ROM on port 1.
 */
// LAYERS: dev/pc bus block mem state base
#include "dev/disks.h"

#include "base/bytes.h"
#include "dev/pc/ahci.h"
#include "dev/pc/ahci_int.h"

#define SECTORS 4096u
#define CD_SECTORS 64u
#define DEVFN PCI_DEVFN(3, 0)
#define ABAR 0xe0000000u
#define LIST 0x10000u /* and 0x800 further for port 1 */
#define FISES 0x12000u
#define TABLES 0x20000u
#define DATA 0x100000u

struct fix {
    struct disk_board board;
    struct disk_image image[2];
    struct ahci *ahci;
};

/* -- A little driver --------------------------------------------------------------------------- */
static uint32_t port_reg(unsigned port, unsigned reg) { return ABAR + 0x100 + 0x80 * port + reg; }

static uint32_t get(struct fix *f, unsigned port, unsigned reg)
{
    return (uint32_t)bus_mmio_read(f->board.rig.bus, port_reg(port, reg), 4);
}

static void set(struct fix *f, unsigned port, unsigned reg, uint32_t v)
{
    bus_mmio_write(f->board.rig.bus, port_reg(port, reg), 4, v);
}

enum {
    CLB = 0,
    FB = 8,
    IS = 0x10,
    IE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38
};

static void start(struct fix *f, unsigned port)
{
    set(f, port, CLB, LIST + 0x800 * port);
    set(f, port, FB, FISES + 0x100 * port);
    set(f, port, CMD, CMD_FRE);
    set(f, port, CMD, CMD_FRE | CMD_ST);
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    disk_board_init(&f->board);
    disk_image_make(&f->image[0], &f->board, SECTORS, 512);
    disk_image_make(&f->image[1], &f->board, CD_SECTORS, 2048);
    const struct ide_drive_config drives[AHCI_PORTS] = {
        { .kind = IDE_DISK, .queue = f->image[0].queue, .serial = "disk1" },
        { .kind = IDE_CD, .queue = f->image[1].queue },
    };
    f->ahci = calloc(1, sizeof *f->ahci);
    ahci_init(f->ahci, "ahci", i440fx_pci(&f->board.host), f->board.rig.bus, DEVFN, drives);
    disk_config_out(&f->board, DEVFN, PCI_BAR0 + 20, ABAR);
    disk_config_out(&f->board, DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    start(f, 0);
    start(f, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    bus_lock(f->board.rig.bus);
    ahci_fini(f->ahci);
    bus_unlock(f->board.rig.bus);
    disk_image_fini(&f->image[0], &f->board);
    disk_image_fini(&f->image[1], &f->board);
    disk_board_fini(&f->board);
    free(f->ahci);
    free(f);
    return 0;
}

/* A command in a slot, with one region of memory for each pair of address and length. */
static void prepare(struct fix *f, unsigned port, unsigned slot, const uint8_t fis[20],
                    const uint32_t *regions, unsigned count)
{
    uint8_t header[32] = { 5 }, table[0x80] = { 0 };
    gpa_t at = TABLES + 0x1000 * slot;
    store_le16(header + 2, (uint16_t)count);
    store_le32(header + 8, (uint32_t)at);
    memcpy(table, fis, 20);
    disk_poke(&f->board, LIST + 0x800 * port + 32 * slot, header, sizeof header);
    disk_poke(&f->board, at, table, sizeof table);
    for (unsigned i = 0; i < count; i++) {
        uint8_t prd[16] = { 0 };
        store_le32(prd, regions[2 * i]);
        store_le32(prd + 12, regions[2 * i + 1] - 1);
        disk_poke(&f->board, at + 0x80 + 16 * i, prd, sizeof prd);
    }
}

static void fill_fis(uint8_t fis[20], uint8_t command, uint64_t lba, uint16_t count)
{
    memset(fis, 0, 20);
    fis[0] = FIS_H2D;
    fis[1] = 0x80;
    fis[2] = command;
    fis[7] = 0x40;
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(lba >> 8 * i);
        fis[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    store_le16(fis + 12, count);
}

static void ata(struct fix *f, uint8_t command, uint64_t lba, uint16_t count, uint32_t bytes)
{
    uint8_t fis[20];
    const uint32_t region[] = { DATA, bytes };
    fill_fis(fis, command, lba, count);
    prepare(f, 0, 3, fis, region, bytes != 0);
    set(f, 0, CI, 1u << 3);
    disk_settle(&f->board);
}

/* READ or WRITE FPDMA QUEUED, one region of a data page of the slot's own. */
static void queue(struct fix *f, unsigned slot, bool write, uint64_t lba, uint16_t count)
{
    uint8_t fis[20];
    const uint32_t region[] = { DATA + 0x4000 * slot, 512u * count };
    fill_fis(fis, write ? 0x61 : 0x60, lba, 0);
    fis[3] = (uint8_t)count;
    fis[11] = (uint8_t)(count >> 8);
    fis[12] = (uint8_t)(slot << 3);
    prepare(f, 0, slot, fis, region, 1);
    set(f, 0, SACT, 1u << slot);
}

static void data_of(struct fix *f, gpa_t at, uint8_t *data, size_t len)
{
    disk_peek(&f->board, at, data, len);
}

/* -- Registers and resets ---------------------------------------------------------------------- */
static void test_registers(void **state)
{
    struct fix *f = *state;
    struct bus *b = f->board.rig.bus;
    assert_int_equal(bus_mmio_read(b, ABAR + 0x0c, 4), 0x3f);
    assert_int_equal(bus_mmio_read(b, ABAR + 0x10, 4), 0x10301);
    assert_int_equal(bus_mmio_read(b, ABAR, 4) & 0x1f, 5);
    assert_int_equal(get(f, 0, SSTS), 0x133);
    assert_int_equal(get(f, 2, SSTS), 0);
    assert_int_equal(get(f, 0, SIG), 0x101);
    assert_int_equal(get(f, 1, SIG), 0xeb140101);
    assert_int_equal(get(f, 2, SIG), 0xffffffff);
    assert_int_equal(get(f, 0, TFD), 0x150);
    assert_int_equal(get(f, 2, TFD), 0x7f);
    set(f, 0, CLB, 0xffffffff);
    assert_int_equal(get(f, 0, CLB), 0xfffffc00);
    assert_int_equal(bus_mmio_read(b, ABAR + 0xffc, 4), 0);
    uint8_t fis[20];
    data_of(f, FISES + 0x40, fis, sizeof fis);
    assert_int_equal(fis[0], FIS_D2H);
    assert_int_equal(fis[2], 0x50);
}

static void test_comreset(void **state)
{
    struct fix *f = *state;
    set(f, 0, CMD, CMD_FRE);
    set(f, 0, SCTL, 1);
    assert_int_equal(get(f, 0, SSTS), 0);
    assert_int_equal(get(f, 0, TFD), 0x7f);
    set(f, 0, SCTL, 0);
    assert_int_equal(get(f, 0, SSTS), 0x133);
    assert_int_equal(get(f, 0, SERR), 1u << 26 | 1u << 16);
    assert_int_equal(get(f, 0, IS) & IS_PCS, IS_PCS);
    set(f, 0, SERR, 0xffffffff);
    assert_int_equal(get(f, 0, IS) & IS_PCS, 0);
    assert_int_equal(get(f, 0, TFD), 0x150);
    set(f, 0, SCTL, 4); /* offline */
    assert_int_equal(get(f, 0, SSTS), 4);
    /* The whole controller: the signature waits for FIS reception. */
    bus_mmio_write(f->board.rig.bus, ABAR + 4, 4, 1);
    assert_int_equal(bus_mmio_read(f->board.rig.bus, ABAR + 4, 4), 0x80000000);
    assert_int_equal(get(f, 0, SIG), 0xffffffff);
    set(f, 0, CMD, CMD_FRE);
    assert_int_equal(get(f, 0, SIG), 0x101);
}

static void test_soft_reset(void **state)
{
    struct fix *f = *state;
    uint8_t fis[20] = { FIS_H2D };
    fis[15] = 4;
    prepare(f, 0, 0, fis, NULL, 0);
    set(f, 0, CI, 1);
    assert_int_equal(get(f, 0, CI), 0);
    assert_int_equal(get(f, 0, TFD) & 0x80, 0x80);
    fis[15] = 0;
    prepare(f, 0, 0, fis, NULL, 0);
    set(f, 0, CI, 1);
    assert_int_equal(get(f, 0, TFD), 0x150);
    assert_int_equal(get(f, 0, SIG), 0x101);
}

/* -- Unqueued commands ------------------------------------------------------------------------- */
static void test_identify(void **state)
{
    struct fix *f = *state;
    uint8_t id[512], fis[20];
    ata(f, 0xec, 0, 0, 512);
    assert_int_equal(get(f, 0, CI), 0);
    assert_int_equal(get(f, 0, TFD), 0x50);
    assert_int_equal(get(f, 0, IS), IS_PSS); /* no register FIS after data to the host */
    data_of(f, DATA, id, sizeof id);
    assert_int_equal(load_le64(id + 200), SECTORS);
    assert_int_equal(load_le16(id + 150), 31);
    assert_true(load_le16(id + 152) & 0x100);
    data_of(f, FISES + 0x20, fis, sizeof fis);
    assert_int_equal(fis[0], FIS_PIO_SETUP);
    assert_int_equal(fis[1], 0x60);
    assert_int_equal(fis[2], 0x58);
    assert_int_equal(fis[15], 0x50);
    assert_int_equal(load_le16(fis + 16), 512);
}

static void test_dma(void **state)
{
    struct fix *f = *state;
    uint8_t data[300 * 512], back[300 * 512], header[32];
    ata(f, 0x25, 100, 300, sizeof data); /* three rounds of the drive's buffer */
    assert_int_equal(get(f, 0, IS), IS_DHRS);
    data_of(f, DATA, data, sizeof data);
    assert_pattern(data, 100, 512, 300);
    data_of(f, LIST + 32 * 3, header, sizeof header);
    assert_int_equal(load_le32(header + 4), sizeof data);
    for (unsigned i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 11);
    }
    disk_poke(&f->board, DATA, data, sizeof data);
    ata(f, 0x35, 7, 300, sizeof data);
    assert_int_equal(get(f, 0, TFD), 0x50);
    assert_int_equal(block_read(f->image[0].block, 7 * 512, back, sizeof back), 0);
    assert_memory_equal(back, data, sizeof data);
    ata(f, 0xea, 0, 0, 0);
    assert_int_equal(get(f, 0, TFD), 0x50);
}

static void test_pio(void **state)
{
    struct fix *f = *state;
    uint8_t data[3 * 512], back[3 * 512];
    ata(f, 0x20, 9, 3, sizeof data);
    assert_int_equal(get(f, 0, TFD), 0x50);
    data_of(f, DATA, data, sizeof data);
    assert_pattern(data, 9, 512, 3);
    memset(data, 0x5a, sizeof data);
    disk_poke(&f->board, DATA, data, sizeof data);
    set(f, 0, IS, 0xffffffff);
    ata(f, 0x30, 20, 3, sizeof data);
    assert_int_equal(get(f, 0, IS), IS_PSS | IS_DHRS);
    assert_int_equal(block_read(f->image[0].block, 20 * 512, back, sizeof back), 0);
    assert_memory_equal(back, data, sizeof data);
}

/* Scattered over odd places, and more regions than needed. */
static void test_regions(void **state)
{
    struct fix *f = *state;
    uint8_t fis[20], data[2 * 512];
    const uint32_t regions[] = { DATA,          2,   DATA + 0x1002, 510, DATA + 0x3000, 100,
                                 DATA + 0x4000, 412, DATA + 0x5000, 4096 };
    fill_fis(fis, 0x25, 50, 2);
    prepare(f, 0, 31, fis, regions, 5);
    set(f, 0, CI, 1u << 31);
    disk_settle(&f->board);
    assert_int_equal(get(f, 0, TFD), 0x50);
    unsigned at = 0;
    for (unsigned i = 0; i < 4; i++) {
        data_of(f, regions[2 * i], data + at, regions[2 * i + 1]);
        at += regions[2 * i + 1];
    }
    assert_int_equal(at, sizeof data);
    assert_pattern(data, 50, 512, 2);
}

static void test_errors(void **state)
{
    struct fix *f = *state;
    uint8_t fis[20];
    ata(f, 0x25, SECTORS - 1, 2, 1024);
    assert_int_equal(get(f, 0, TFD), 0x1451);
    assert_int_equal(get(f, 0, IS), IS_TFES | IS_DHRS);
    assert_int_equal(get(f, 0, CI), 1u << 3); /* says which it was */
    assert_int_equal(get(f, 0, CMD) >> CMD_CCS_SHIFT & 31, 3);
    set(f, 0, CI, 1); /* nothing goes on */
    assert_int_equal(get(f, 0, CI), 1u << 3 | 1);
    set(f, 0, CMD, CMD_FRE);
    assert_int_equal(get(f, 0, CI), 0);
    set(f, 0, IS, 0xffffffff);
    set(f, 0, CMD, CMD_FRE | CMD_ST);
    ata(f, 0x25, 0, 2, 512); /* one region, too short */
    assert_true(get(f, 0, IS) & IS_OFS);
    assert_true(get(f, 0, IS) & IS_TFES);
    set(f, 0, CMD, CMD_FRE);
    set(f, 0, IS, 0xffffffff);
    set(f, 0, CMD, CMD_FRE | CMD_ST);
    const uint32_t nowhere[] = { 0xd0000000, 512 };
    fill_fis(fis, 0x25, 0, 1);
    prepare(f, 0, 0, fis, nowhere, 1);
    set(f, 0, CI, 1);
    disk_settle(&f->board);
    assert_true(get(f, 0, IS) & IS_HBFS);
    set(f, 0, CMD, CMD_FRE);
    set(f, 0, IS, 0xffffffff);
    set(f, 0, CLB, 0xf0000000);
    set(f, 0, CMD, CMD_FRE | CMD_ST);
    set(f, 0, CI, 1);
    assert_int_equal(get(f, 0, IS), IS_HBFS);
}

static void test_trim(void **state)
{
    struct fix *f = *state;
    uint8_t ranges[512] = { 0 };
    store_le64(ranges, 16 | (uint64_t)8 << 48);
    disk_poke(&f->board, DATA, ranges, sizeof ranges);
    uint8_t fis[20];
    const uint32_t region[] = { DATA, 512 };
    fill_fis(fis, 0x06, 0, 1);
    fis[3] = 1;
    prepare(f, 0, 3, fis, region, 1);
    set(f, 0, CI, 1u << 3);
    disk_settle(&f->board);
    assert_int_equal(get(f, 0, TFD), 0x50);
    assert_int_equal(get(f, 0, CI), 0);
}

/* -- Queued commands --------------------------------------------------------------------------- */
static void test_queue(void **state)
{
    struct fix *f = *state;
    uint8_t data[4 * 512], back[512], fis[8];
    memset(back, 0x77, sizeof back);
    disk_poke(&f->board, DATA + 0x4000 * 31, back, sizeof back);
    for (unsigned slot = 0; slot < 31; slot++) {
        queue(f, slot, false, 10 * slot, 4);
    }
    queue(f, 31, true, 4000, 1);
    set(f, 0, CI, 0xffffffff);
    assert_int_equal(get(f, 0, CI), 0); /* all taken, */
    disk_settle(&f->board);
    assert_int_equal(get(f, 0, SACT), 0); /* and done */
    assert_true(get(f, 0, IS) & IS_SDBS);
    for (unsigned slot = 0; slot < 31; slot++) {
        data_of(f, DATA + 0x4000 * slot, data, sizeof data);
        assert_pattern(data, 10 * slot, 512, 4);
    }
    assert_int_equal(block_read(f->image[0].block, 4000 * 512, data, 512), 0);
    assert_memory_equal(data, back, 512);
    data_of(f, FISES + 0x58, fis, sizeof fis);
    assert_int_equal(fis[0], FIS_SET_BITS);
}

static void test_queue_error(void **state)
{
    struct fix *f = *state;
    uint8_t log[512], sum = 0;
    queue(f, 5, false, SECTORS, 1);
    set(f, 0, CI, 1u << 5);
    disk_settle(&f->board);
    assert_true(get(f, 0, IS) & IS_TFES);
    assert_int_equal(get(f, 0, SACT), 1u << 5);
    assert_int_equal(get(f, 0, TFD), 0x1451);
    set(f, 0, CMD, CMD_FRE);
    set(f, 0, IS, 0xffffffff);
    set(f, 0, CMD, CMD_FRE | CMD_ST);
    assert_int_equal(get(f, 0, SACT), 0);
    ata(f, 0x2f, 0x10, 1, 512); /* READ LOG EXT */
    assert_int_equal(get(f, 0, TFD), 0x50);
    data_of(f, DATA, log, sizeof log);
    assert_int_equal(log[0], 5);
    assert_int_equal(log[3], 0x14);
    assert_int_equal(load_le16(log + 4), SECTORS);
    for (unsigned i = 0; i < sizeof log; i++) {
        sum = (uint8_t)(sum + log[i]);
    }
    assert_int_equal(sum, 0);
}

/* -- A CD-ROM ---------------------------------------------------------------------------------- */
static void test_packet(void **state)
{
    struct fix *f = *state;
    const uint8_t read_10[16] = { 0x28, 0, 0, 0, 0, 5, 0, 0, 2 };
    uint8_t fis[20], data[4096];
    for (unsigned dma = 0; dma < 2; dma++) {
        const uint32_t region[] = { DATA, sizeof data };
        fill_fis(fis, 0xa0, 0, 0);
        fis[3] = (uint8_t)dma;
        fis[6] = 0x08; /* at most 2048 bytes at a time without DMA */
        prepare(f, 1, 2, fis, region, 1);
        disk_poke(&f->board, TABLES + 0x1000 * 2 + 0x40, read_10, sizeof read_10);
        set(f, 1, CI, 1u << 2);
        disk_settle(&f->board);
        assert_int_equal(get(f, 1, CI), 0);
        assert_int_equal(get(f, 1, TFD), 0x50);
        assert_true(get(f, 1, IS) & IS_DHRS);
        data_of(f, DATA, data, sizeof data);
        assert_pattern(data, 5, 2048, 2);
        memset(data, 0, sizeof data);
        disk_poke(&f->board, DATA, data, sizeof data);
    }
}

/* -- Interrupts, state ------------------------------------------------------------------------- */
static void test_interrupts(void **state)
{
    struct fix *f = *state;
    struct bus *b = f->board.rig.bus;
    set(f, 0, IE, 0xffffffff);
    ata(f, 0xec, 0, 0, 512);
    assert_int_equal(f->ahci->pci.intx_level, 0);
    bus_mmio_write(b, ABAR + 4, 4, 2);
    assert_int_equal(f->ahci->pci.intx_level, 1);
    bus_mmio_write(b, ABAR + 8, 4, 1); /* IS follows the port */
    assert_int_equal(bus_mmio_read(b, ABAR + 8, 4), 1);
    set(f, 0, IS, 0xffffffff);
    bus_mmio_write(b, ABAR + 8, 4, 1);
    assert_int_equal(f->ahci->pci.intx_level, 0);
    uint8_t cap = f->ahci->pci.msi_cap;
    disk_config_out(&f->board, DEVFN, cap + 4u, 0xfee00000);
    disk_config_out(&f->board, DEVFN, cap + 12u, 0x41);
    disk_config_out(&f->board, DEVFN, cap, disk_config_in(&f->board, DEVFN, cap) | 1u << 16);
    ata(f, 0xec, 0, 0, 512);
    assert_int_equal(f->board.messages, 1);
    assert_int_equal(f->board.message, 0x41);
    assert_int_equal(f->ahci->pci.intx_level, 0);
    ata(f, 0xec, 0, 0, 512); /* IS is up already */
    assert_int_equal(f->board.messages, 1);
}

static void test_save(void **state)
{
    struct fix *f = *state;
    uint8_t data[512];
    for (unsigned slot = 0; slot < 8; slot++) {
        queue(f, slot, false, slot, 1);
    }
    set(f, 0, CI, 0xff);
    disk_settle(&f->board); /* as a save does first */
    dev_roundtrip(f->board.rig.bus, f->board.rig.clock);
    assert_int_equal(get(f, 0, SACT), 0);
    data_of(f, DATA + 0x4000 * 7, data, sizeof data);
    assert_pattern(data, 7, 512, 1);
    ata(f, 0x25, 77, 1, 512);
    data_of(f, DATA, data, sizeof data);
    assert_pattern(data, 77, 512, 1);
}

/* A load, and a reset, in the middle of commands of the life before. */
static void test_load_over(void **state)
{
    struct fix *f = *state;
    size_t len;
    struct err e = { 0 };
    uint8_t *saved = dev_save(f->board.rig.bus, &len);
    queue(f, 1, false, 0, 32);
    set(f, 0, CI, 2);
    assert_int_equal(dev_load(f->board.rig.bus, saved, len, &e), 0);
    disk_settle(&f->board);
    assert_int_equal(get(f, 0, SACT), 0);
    assert_int_equal(get(f, 0, IS), 0);
    free(saved);
    queue(f, 1, false, 0, 32);
    set(f, 0, CI, 2);
    bus_lock(f->board.rig.bus);
    bus_reset(f->board.rig.bus);
    bus_unlock(f->board.rig.bus);
    assert_int_equal(f->ahci->port[0].queued, 0);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 11;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = test_random(&seed);
        unsigned port = x >> 8 & 1, slot = x >> 16 & 31;
        uint8_t fis[20];
        const uint32_t region[] = { DATA + ((uint32_t)(x >> 24) & 0xfff), 1 + (x >> 36 & 0x3fff) };
        switch (x & 7) {
        case 0:
            set(f, port, 4 * (x >> 16 & 31), (uint32_t)(x >> 32));
            break;
        case 1:
            start(f, port);
            break;
        default:
            fill_fis(fis, (uint8_t)(x >> 32), x >> 40 & 0xfff, x >> 52 & 0x1f);
            prepare(f, port, slot, fis, region, 1);
            set(f, port, SACT, 1u << slot);
            set(f, port, CI, 1u << slot);
            break;
        }
        if (i % 512 == 0) {
            disk_settle(&f->board);
            dev_roundtrip(f->board.rig.bus, f->board.rig.clock);
        }
    }
    disk_settle(&f->board);
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_registers),  T(test_comreset), T(test_soft_reset),  T(test_identify),
        T(test_dma),        T(test_pio),      T(test_regions),     T(test_errors),
        T(test_trim),       T(test_queue),    T(test_queue_error), T(test_packet),
        T(test_interrupts), T(test_save),     T(test_load_over),   T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
