/* SPDX-License-Identifier: Apache-2.0
 *
 * The IDE function over the bus, with a disk and a CD-ROM in files of their own.
 */
// LAYERS: dev/pc bus block mem state base
#include "dev/disks.h"

#include <errno.h>

#include "base/bytes.h"
#include "dev/pc/ide.h"
#include "dev/pc/ide_int.h"

#define SECTORS 4096u
#define CD_SECTORS 300u
#define BM 0xc000u /* where the test puts BAR 4 */
#define PRD 0x1000u

struct fix {
    struct disk_board board;
    struct ide *ide;
    struct dev_line irq[2];
    struct disk_image image[2];
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    disk_board_init(&f->board);
    disk_image_make(&f->image[0], &f->board, SECTORS, IDE_SECTOR);
    disk_image_make(&f->image[1], &f->board, CD_SECTORS, IDE_CD_SECTOR);
    const struct irq irq[2] = { dev_line_irq(&f->irq[0]), dev_line_irq(&f->irq[1]) };
    const struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES] = {
        { { .kind = IDE_DISK, .queue = f->image[0].queue, .serial = "disk1" } },
        { { .kind = IDE_CD, .queue = f->image[1].queue, .serial = "cd1" } },
    };
    f->ide = calloc(1, sizeof *f->ide);
    ide_init(f->ide, f->board.rig.bus, i440fx_pci(&f->board.host), irq, drives);
    disk_config_out(&f->board, PCI_DEVFN(1, 1), PCI_BAR0 + 16, BM);
    disk_config_out(&f->board, PCI_DEVFN(1, 1), PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    bus_lock(f->board.rig.bus);
    ide_fini(f->ide);
    bus_unlock(f->board.rig.bus);
    disk_image_fini(&f->image[0], &f->board);
    disk_image_fini(&f->image[1], &f->board);
    disk_board_fini(&f->board);
    free(f->ide);
    free(f);
    return 0;
}

/* -- A little driver --------------------------------------------------------------------------- */
static uint16_t base_of(unsigned channel) { return channel == 0 ? 0x1f0 : 0x170; }

static uint8_t reg(struct fix *f, unsigned channel, unsigned n)
{
    return dev_in8(&f->board.rig, (uint16_t)(base_of(channel) + n));
}

static void set_reg(struct fix *f, unsigned channel, unsigned n, uint8_t v)
{
    dev_out8(&f->board.rig, (uint16_t)(base_of(channel) + n), v);
}

static void command28(struct fix *f, uint8_t command, uint32_t lba, uint8_t count)
{
    set_reg(f, 0, 6, (uint8_t)(0xe0 | lba >> 24));
    set_reg(f, 0, 2, count);
    set_reg(f, 0, 3, (uint8_t)lba);
    set_reg(f, 0, 4, (uint8_t)(lba >> 8));
    set_reg(f, 0, 5, (uint8_t)(lba >> 16));
    set_reg(f, 0, 7, command);
    disk_settle(&f->board);
}

static void command48(struct fix *f, uint8_t command, uint64_t lba, uint16_t count)
{
    set_reg(f, 0, 6, 0xe0);
    set_reg(f, 0, 2, (uint8_t)(count >> 8));
    set_reg(f, 0, 3, (uint8_t)(lba >> 24));
    set_reg(f, 0, 4, (uint8_t)(lba >> 32));
    set_reg(f, 0, 5, (uint8_t)(lba >> 40));
    set_reg(f, 0, 2, (uint8_t)count);
    set_reg(f, 0, 3, (uint8_t)lba);
    set_reg(f, 0, 4, (uint8_t)(lba >> 8));
    set_reg(f, 0, 5, (uint8_t)(lba >> 16));
    set_reg(f, 0, 7, command);
    disk_settle(&f->board);
}

static void data_in(struct fix *f, unsigned channel, uint8_t *to, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2) {
        store_le16(to + i, dev_in16(&f->board.rig, base_of(channel)));
    }
}

static void data_out(struct fix *f, unsigned channel, const uint8_t *from, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 4) {
        dev_out32(&f->board.rig, base_of(channel), load_le32(from + i));
    }
}

static void put_prd(struct fix *f, unsigned n, uint32_t address, uint32_t count)
{
    uint8_t prd[8];
    store_le32(prd, address);
    store_le32(prd + 4, count);
    assert_int_equal(gmem_write(f->board.mem, PRD + 8 * n, prd, sizeof prd), 0);
}

static void bm_start(struct fix *f, unsigned channel, uint8_t direction)
{
    uint16_t at = (uint16_t)(BM + 8 * channel);
    dev_out32(&f->board.rig, at + 4, PRD);
    dev_out8(&f->board.rig, at + 2, 0x06);
    dev_out8(&f->board.rig, at, direction | 1);
    disk_settle(&f->board);
}

static uint8_t bm_stop(struct fix *f, unsigned channel)
{
    uint16_t at = (uint16_t)(BM + 8 * channel);
    uint8_t status = dev_in8(&f->board.rig, at + 2);
    dev_out8(&f->board.rig, at, 0);
    return status;
}

static void packet(struct fix *f, const uint8_t cdb[12], uint16_t limit, bool dma)
{
    set_reg(f, 1, 6, 0xa0);
    set_reg(f, 1, 1, dma);
    set_reg(f, 1, 4, (uint8_t)limit);
    set_reg(f, 1, 5, (uint8_t)(limit >> 8));
    set_reg(f, 1, 7, 0xa0);
    assert_int_equal(reg(f, 1, 7) & 0x88, 0x08);
    assert_int_equal(reg(f, 1, 2), 1);
    data_out(f, 1, cdb, 12);
    disk_settle(&f->board);
}

/* -- Disks ------------------------------------------------------------------------------------- */
static void test_signatures(void **state)
{
    struct fix *f = *state;
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_int_equal(reg(f, 0, 4), 0);
    assert_int_equal(reg(f, 1, 4), 0x14);
    assert_int_equal(reg(f, 1, 5), 0xeb);
    set_reg(f, 0, 6, 0xb0); /* there is no slave */
    assert_int_equal(reg(f, 0, 7), 0);
    set_reg(f, 0, 7, 0xec);
    assert_int_equal(f->irq[0].rises, 0);
    set_reg(f, 0, 6, 0xa0);
    dev_out8(&f->board.rig, 0x3f6, 0x04);
    assert_int_equal(reg(f, 0, 7), 0x80);
    dev_out8(&f->board.rig, 0x3f6, 0x00);
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_int_equal(reg(f, 0, 1), 1);
}

static void test_identify(void **state)
{
    struct fix *f = *state;
    uint8_t id[512];
    command28(f, 0xec, 0, 0);
    assert_int_equal(f->irq[0].level, 1);
    assert_int_equal(reg(f, 0, 7), 0x58);
    assert_int_equal(f->irq[0].level, 0);
    data_in(f, 0, id, sizeof id);
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_int_equal(load_le32(id + 120), SECTORS);
    assert_int_equal(load_le64(id + 200), SECTORS);
    assert_int_equal(load_le16(id + 2 * 169), 1); /* TRIM, without a word of what is read then */
    assert_int_equal(load_le16(id + 2 * 69), 0);
    assert_memory_equal(id + 20, "idks 1", 6); /* bytes of words are swapped */
    set_reg(f, 1, 7, 0xec);                    /* a CD says what it is */
    assert_int_equal(reg(f, 1, 7) & 1, 1);
    assert_int_equal(reg(f, 1, 5), 0xeb);
    set_reg(f, 1, 7, 0xa1);
    data_in(f, 1, id, sizeof id);
    assert_int_equal(load_le16(id), 0x8580);
    assert_int_equal(reg(f, 1, 7) & 0x89, 0);
}

static void test_pio(void **state)
{
    struct fix *f = *state;
    uint8_t data[300 * 512];
    command28(f, 0x20, 5, 3);
    for (unsigned i = 0; i < 3; i++) { /* an interrupt for each sector */
        assert_int_equal(f->irq[0].rises, i + 1);
        assert_int_equal(reg(f, 0, 7), 0x58);
        data_in(f, 0, data + i * 512, 512);
    }
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_pattern(data, 5, 512, 3);
    command28(f, 0xc6, 0, 8);
    command28(f, 0xc4, 1000, 20); /* two blocks of eight, one of four */
    data_in(f, 0, data, 20 * 512);
    assert_pattern(data, 1000, 512, 20);
    command48(f, 0x24, 17, 300);
    for (unsigned i = 0; i < 300; i++) {
        disk_settle(&f->board);
        data_in(f, 0, data + i * 512, 512);
    }
    assert_pattern(data, 17, 512, 300);
    assert_int_equal(reg(f, 0, 7), 0x50);
}

static void test_chs(void **state)
{
    struct fix *f = *state;
    uint8_t data[512];
    set_reg(f, 0, 6, 0xa3); /* head 3 */
    set_reg(f, 0, 2, 1);
    set_reg(f, 0, 3, 7);
    set_reg(f, 0, 4, 2);
    set_reg(f, 0, 5, 0);
    set_reg(f, 0, 7, 0x20);
    disk_settle(&f->board);
    data_in(f, 0, data, sizeof data);
    assert_pattern(data, (2 * 16 + 3) * 63 + 6, 512, 1);
    set_reg(f, 0, 3, 0); /* there is no sector 0 */
    set_reg(f, 0, 7, 0x20);
    assert_int_equal(reg(f, 0, 7) & 1, 1);
    assert_int_equal(reg(f, 0, 1) & ER_IDNF, ER_IDNF);
}

static void test_write(void **state)
{
    struct fix *f = *state;
    uint8_t data[1024], back[1024];
    for (unsigned i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i ^ 0xa5);
    }
    command28(f, 0x30, 9, 2);
    assert_int_equal(f->irq[0].rises, 0); /* not for the first block */
    data_out(f, 0, data, 512);
    disk_settle(&f->board);
    assert_int_equal(f->irq[0].rises, 1);
    assert_int_equal(reg(f, 0, 7), 0x58);
    data_out(f, 0, data + 512, 512);
    disk_settle(&f->board);
    assert_int_equal(reg(f, 0, 7), 0x50);
    command28(f, 0xe7, 0, 0);
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_int_equal(block_read(f->image[0].block, 9 * 512, back, sizeof back), 0);
    assert_memory_equal(back, data, sizeof data);
}

static void test_bounds(void **state)
{
    struct fix *f = *state;
    command28(f, 0x20, SECTORS - 1, 2);
    assert_int_equal(reg(f, 0, 7), 0x51);
    assert_int_equal(reg(f, 0, 1), ER_IDNF | ER_ABRT);
    command48(f, 0x25, 0xffffffffffff, 1);
    assert_int_equal(reg(f, 0, 7), 0x51);
    command28(f, 0xf8, 0, 0);
    assert_int_equal(reg(f, 0, 3) | reg(f, 0, 4) << 8, SECTORS - 1);
    command28(f, 0x77 + 0x20, 0, 0); /* unknown, or idle: no harm */
    command28(f, 0xf6, 0, 0);
    assert_int_equal(reg(f, 0, 1), ER_ABRT);
}

static void test_dma(void **state)
{
    struct fix *f = *state;
    uint8_t data[200 * 512];
    put_prd(f, 0, 0x10000, 0x1000);
    put_prd(f, 1, 0x40000, 0x0000); /* 64 KiB */
    put_prd(f, 2, 0x60000, 0x80000000u | (200 * 512 - 0x11000));
    command28(f, 0xc8, 33, 200);
    assert_int_equal(f->irq[0].rises, 0);
    bm_start(f, 0, 8);
    assert_int_equal(f->irq[0].level, 1);
    assert_int_equal(bm_stop(f, 0) & 7, 4);
    assert_int_equal(reg(f, 0, 7), 0x50);
    assert_int_equal(gmem_read(f->board.mem, 0x10000, data, 0x1000), 0);
    assert_int_equal(gmem_read(f->board.mem, 0x40000, data + 0x1000, 0x10000), 0);
    assert_int_equal(gmem_read(f->board.mem, 0x60000, data + 0x11000, sizeof data - 0x11000), 0);
    assert_pattern(data, 33, 512, 200);

    memset(data, 0x77, 1024);
    assert_int_equal(gmem_write(f->board.mem, 0x10000, data, 1024), 0);
    put_prd(f, 0, 0x10000, 0x80000400u);
    command48(f, 0x35, 70, 2);
    bm_start(f, 0, 0);
    assert_int_equal(bm_stop(f, 0) & 7, 4);
    memset(data, 0, 1024);
    assert_int_equal(block_read(f->image[0].block, 70 * 512, data, 1024), 0);
    assert_int_equal(data[0], 0x77);
    assert_int_equal(data[1023], 0x77);
}

static void test_dma_errors(void **state)
{
    struct fix *f = *state;
    put_prd(f, 0, 0x10000, 0x80000200u); /* one sector of two */
    command28(f, 0xc8, 33, 2);
    bm_start(f, 0, 8);
    assert_int_equal(bm_stop(f, 0) & 1, 0);
    assert_int_equal(reg(f, 0, 7) & 1, 1);
    put_prd(f, 0, 0xf0000000, 0x80000200u); /* no RAM there: lost */
    command28(f, 0xc8, 33, 1);
    bm_start(f, 0, 8);
    assert_int_equal(reg(f, 0, 7), 0x50);
    bm_stop(f, 0);
    disk_config_out(&f->board, PCI_DEVFN(1, 1), PCI_COMMAND,
                    PCI_COMMAND_IO); /* not allowed to: it waits */
    command28(f, 0xc8, 33, 1);
    bm_start(f, 0, 8);
    assert_int_equal(reg(f, 0, 7), 0x58);
    dev_out8(&f->board.rig, 0x3f6, 0x04);
    dev_out8(&f->board.rig, 0x3f6, 0x00);
    assert_int_equal(reg(f, 0, 7), 0x50);
}

static void test_trim(void **state)
{
    struct fix *f = *state;
    uint8_t ranges[512] = { 0 }, data[512];
    store_le64(ranges, 100 | 8ull << 48);
    store_le64(ranges + 8, 200 | 1ull << 48);
    assert_int_equal(gmem_write(f->board.mem, 0x10000, ranges, sizeof ranges), 0);
    put_prd(f, 0, 0x10000, 0x80000200u);
    set_reg(f, 0, 1, 1);
    command28(f, 0x06, 0, 1);
    bm_start(f, 0, 0);
    assert_int_equal(reg(f, 0, 7), 0x50);
    bm_stop(f, 0);
    assert_int_equal(block_read(f->image[0].block, 108 * 512, data, 512), 0);
    assert_pattern(data, 108, 512, 1);
    store_le64(ranges, SECTORS | 8ull << 48);
    assert_int_equal(gmem_write(f->board.mem, 0x10000, ranges, sizeof ranges), 0);
    command28(f, 0x06, 0, 1);
    bm_start(f, 0, 0);
    assert_int_equal(reg(f, 0, 7) & 1, 1);
}

static void test_no_interrupts(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->board.rig, 0x3f6, 0x02);
    command28(f, 0xe5, 0, 0);
    assert_int_equal(f->irq[0].rises, 0);
    assert_int_equal(reg(f, 0, 2), 0xff);
}

/* -- CD-ROM ------------------------------------------------------------------------------------ */
static void test_inquiry(void **state)
{
    struct fix *f = *state;
    const uint8_t cdb[12] = { 0x12, 0, 0, 0, 36 };
    uint8_t data[36];
    packet(f, cdb, 0xfffe, false);
    assert_int_equal(f->irq[1].level, 1);
    assert_int_equal(reg(f, 1, 2), 2);
    assert_int_equal(reg(f, 1, 4) | reg(f, 1, 5) << 8, 36);
    data_in(f, 1, data, sizeof data);
    assert_int_equal(data[0], 5);
    assert_memory_equal(data + 8, "SOSIA ", 6);
    assert_int_equal(reg(f, 1, 2), 3);
    assert_int_equal(reg(f, 1, 7), 0x50);
}

static void test_cd_read(void **state)
{
    struct fix *f = *state;
    const uint8_t cdb[12] = { 0x28, 0, 0, 0, 0, 40, 0, 0, 50 };
    uint8_t *data = malloc(50 * 2048);
    packet(f, cdb, 4096, false);
    for (unsigned at = 0; at < 50 * 2048;) {
        disk_settle(&f->board);
        unsigned n = reg(f, 1, 4) | reg(f, 1, 5) << 8;
        assert_in_range(n, 2, 4096);
        data_in(f, 1, data + at, n);
        at += n;
    }
    assert_pattern(data, 40, 2048, 50);
    disk_settle(&f->board);
    assert_int_equal(reg(f, 1, 7), 0x50);
    put_prd(f, 0, 0x20000, 0x0000);
    put_prd(f, 1, 0x30000, 0x80000000u | (50 * 2048 - 0x10000));
    packet(f, cdb, 0, true);
    bm_start(f, 1, 8);
    assert_int_equal(bm_stop(f, 1) & 7, 4);
    assert_int_equal(gmem_read(f->board.mem, 0x20000, data, 50 * 2048), 0);
    assert_pattern(data, 40, 2048, 50);
    free(data);
}

static void test_cd_errors(void **state)
{
    struct fix *f = *state;
    const uint8_t beyond[12] = { 0x28, 0, 0, 0, 1, 40, 0, 0, 50 };
    const uint8_t unknown[12] = { 0xee };
    const uint8_t sense[12] = { 0x03, 0, 0, 0, 18 };
    const uint8_t toc[12] = { 0x43, 2, 0, 0, 0, 0, 0, 0, 64 };
    uint8_t data[20];
    packet(f, beyond, 0xfffe, false);
    assert_int_equal(reg(f, 1, 7), 0x51);
    assert_int_equal(reg(f, 1, 1) >> 4, 5);
    packet(f, sense, 0xfffe, false);
    data_in(f, 1, data, 18);
    assert_int_equal(data[2], 5);
    assert_int_equal(data[12], 0x21);
    packet(f, unknown, 0xfffe, false);
    packet(f, sense, 0xfffe, false);
    data_in(f, 1, data, 18);
    assert_int_equal(data[12], 0x20);
    packet(f, toc, 0xfffe, false);
    data_in(f, 1, data, 20);
    assert_int_equal(load_be16(data), 18);
    assert_int_equal(data[9], 0); /* 300 sectors and 2 seconds: 00:06.00 */
    assert_int_equal(data[14], 0xaa);
    assert_int_equal(data[18], 6);
}

/* Another disc: the guest is told once, and reads it. An open tray reads nothing. */
static void test_disc_change(void **state)
{
    struct fix *f = *state;
    const uint8_t ready[12] = { 0x00 };
    const uint8_t sense[12] = { 0x03, 0, 0, 0, 18 };
    const uint8_t lock[12] = { 0x1e, 0, 0, 0, 1 };
    const uint8_t capacity[12] = { 0x25 };
    struct ide_drive *cd = &f->ide->channel[1].drive[0];
    struct disk_image other;
    uint8_t data[20];
    disk_image_make(&other, &f->board, 77, IDE_CD_SECTOR);
    assert_int_equal(ide_drive_open_tray(cd, false), 0);
    packet(f, ready, 0xfffe, false);
    assert_int_equal(reg(f, 1, 1) >> 4, 2); /* not ready */
    ide_drive_change_disc(cd, other.queue);
    packet(f, ready, 0xfffe, false);
    assert_int_equal(reg(f, 1, 1) >> 4, 6); /* unit attention */
    packet(f, sense, 0xfffe, false);
    data_in(f, 1, data, 18);
    assert_int_equal(data[2], 6);
    assert_int_equal(data[12], 0x28);
    packet(f, ready, 0xfffe, false);
    assert_int_equal(reg(f, 1, 7), 0x50);
    packet(f, capacity, 0xfffe, false);
    data_in(f, 1, data, 8);
    assert_int_equal(load_be32(data), 76);
    packet(f, lock, 0xfffe, false);
    assert_int_equal(ide_drive_open_tray(cd, false), -EBUSY);
    assert_int_equal(ide_drive_open_tray(cd, true), 0);
    ide_drive_change_disc(cd, f->image[1].queue);
    disk_image_fini(&other, &f->board);
}

/* -- State ------------------------------------------------------------------------------------- */
static void test_save_in_the_middle(void **state)
{
    struct fix *f = *state;
    uint8_t data[1024];
    command28(f, 0x20, 8, 2);
    data_in(f, 0, data, 100);
    dev_roundtrip(f->board.rig.bus, f->board.rig.clock);
    data_in(f, 0, data + 100, 1024 - 100);
    assert_pattern(data, 8, 512, 2);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 5;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = test_random(&seed);
        unsigned channel = x & 1;
        uint8_t v = (uint8_t)(x >> 8);
        switch (x >> 1 & 7) {
        case 0:
            (void)dev_in16(&f->board.rig, base_of(channel));
            break;
        case 1:
            dev_out32(&f->board.rig, base_of(channel), (uint32_t)(x >> 16));
            break;
        case 2:
            dev_out8(&f->board.rig, (uint16_t)(BM + (x >> 16) % 16), v);
            break;
        case 3:
            dev_out8(&f->board.rig, channel ? 0x376 : 0x3f6, v & 6);
            break;
        default:
            set_reg(f, channel, 1 + (x >> 16) % 7, v);
            break;
        }
        (void)reg(f, channel, (x >> 24) % 7 + 1);
        if (i % 1024 == 0) {
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
        T(test_signatures),
        T(test_identify),
        T(test_pio),
        T(test_chs),
        T(test_write),
        T(test_bounds),
        T(test_dma),
        T(test_dma_errors),
        T(test_trim),
        T(test_inquiry),
        T(test_no_interrupts),
        T(test_cd_read),
        T(test_cd_errors),
        T(test_disc_change),
        T(test_random_traffic),
        T(test_save_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
