/* SPDX-License-Identifier: Apache-2.0
 *
 * The floppy controller over the bus, with the DMA controller behind it and disks in files.
 */
// LAYERS: dev/pc bus block mem state base
#include "support/dev.h"

#include <stdio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/loop.h"
#include "dev/pc/fdc.h"

#define RAM (2u << 20)
#define BUFFER 0x20000u
#define SECOND_NS 1000000000u

enum { DOR = 0x3f2, TDR = 0x3f3, MSR = 0x3f4, FIFO = 0x3f5, DIR = 0x3f7 };
enum { TO_MEMORY = 0x46, FROM_MEMORY = 0x4a };

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct loop *loop;
    struct dma dma;
    struct fdc *fdc;
    struct dev_line irq;
    struct block *block[2];
    struct block_queue *queue[2];
    char path[2][32];
    uint8_t result[16];
    unsigned results;
};

static uint8_t pattern(unsigned sector, unsigned i) { return (uint8_t)(sector * 5 + i * 3 + 1); }

static void make_image(struct fix *f, unsigned n, unsigned bytes)
{
    strcpy(f->path[n], "/tmp/sosia-fdc-XXXXXX");
    int fd = mkstemp(f->path[n]);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "wb");
    for (unsigned i = 0; i < bytes; i++) {
        fputc(pattern(i / FDC_SECTOR, i % FDC_SECTOR), file);
    }
    fclose(file);
    struct err e = { 0 };
    const struct block_options o = { .path = f->path[n], .format = "raw" };
    assert_int_equal(block_open(&f->block[n], &o, &e), 0);
    assert_int_equal(block_queue_new(&f->queue[n], f->block[n], f->loop, &e), 0);
}

/* Passes time and lets the images work, until nothing is to come. */
static void settle(struct fix *f)
{
    for (unsigned i = 0; i < 200; i++) {
        dev_step(&f->rig, SECOND_NS / 1000);
        bus_lock(f->rig.bus);
        bus_quiesce(f->rig.bus);
        bus_unlock(f->rig.bus);
    }
}

static void start(struct fix *f, unsigned a, unsigned b)
{
    struct err e = { 0 };
    assert_int_equal(gmem_new(&f->mem, RAM, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    assert_int_equal(loop_new(&f->loop, f->rig.clock, bus_lock_of(f->rig.bus)), 0);
    make_image(f, 0, a);
    make_image(f, 1, b);
    dma_init(&f->dma, f->rig.bus);
    const struct fdc_config c = {
        .clock = f->rig.clock,
        .irq = dev_line_irq(&f->irq),
        .dma = &f->dma,
        .dma_channel = 2,
        .drive = { { f->queue[0], false }, { f->queue[1], true } },
    };
    f->fdc = calloc(1, sizeof *f->fdc);
    fdc_init(f->fdc, f->rig.bus, &c);
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    start(f, 1440 << 10, 720 << 10);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    bus_lock(f->rig.bus);
    fdc_fini(f->fdc);
    dma_fini(&f->dma);
    for (unsigned n = 0; n < 2; n++) {
        block_queue_free(f->queue[n]);
        block_close(f->block[n]);
        unlink(f->path[n]);
    }
    bus_unlock(f->rig.bus);
    loop_free(f->loop);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f->fdc);
    free(f);
    return 0;
}

/* -- A little driver --------------------------------------------------------------------------- */
static void put(struct fix *f, uint8_t v)
{
    assert_int_equal(dev_in8(&f->rig, MSR) & 0xc0, 0x80);
    dev_out8(&f->rig, FIFO, v);
}

#define COMMAND(f, ...)                                                                            \
    command(f, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void command(struct fix *f, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put(f, bytes[i]);
    }
}

static void results(struct fix *f)
{
    f->results = 0;
    while ((dev_in8(&f->rig, MSR) & 0xd0) == 0xd0) {
        assert_true(f->results < sizeof f->result);
        f->result[f->results++] = dev_in8(&f->rig, FIFO);
    }
    assert_int_equal(dev_in8(&f->rig, MSR) & 0xd0, 0x80);
}

/* A command to its end, with its results. */
#define RUN(f, ...)                                                                                \
    do {                                                                                           \
        COMMAND(f, __VA_ARGS__);                                                                   \
        settle(f);                                                                                 \
        results(f);                                                                                \
    } while (0)

#define EXPECT(f, ...)                                                                             \
    do {                                                                                           \
        const uint8_t want[] = { __VA_ARGS__ };                                                    \
        assert_int_equal((f)->results, sizeof want);                                               \
        assert_memory_equal((f)->result, want, sizeof want);                                       \
    } while (0)

static void dma_program(struct fix *f, uint8_t mode, uint32_t bytes)
{
    struct dev_rig *r = &f->rig;
    dev_out8(r, 0x0a, 0x06);
    dev_out8(r, 0x0c, 0);
    dev_out8(r, 0x0b, mode);
    dev_out8(r, 0x04, (uint8_t)BUFFER);
    dev_out8(r, 0x04, (uint8_t)(BUFFER >> 8));
    dev_out8(r, 0x05, (uint8_t)(bytes - 1));
    dev_out8(r, 0x05, (uint8_t)((bytes - 1) >> 8));
    dev_out8(r, 0x81, BUFFER >> 16);
    dev_out8(r, 0x0a, 0x02);
}

/* Out of reset, motors on, at track 0, the disk's rate, with DMA. */
static void prepare(struct fix *f, unsigned drive, uint8_t rate)
{
    dev_out8(&f->rig, DOR, (uint8_t)(0x3c | drive));
    settle(f);
    for (unsigned i = 0; i < 4; i++) {
        RUN(f, 0x08);
        EXPECT(f, (uint8_t)(0xc0 | i), 0);
    }
    dev_out8(&f->rig, DIR, rate);
    COMMAND(f, 0x03, 0xdf, 0x02);
    COMMAND(f, 0x07, (uint8_t)drive);
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, (uint8_t)(0x20 | drive), 0);
}

static void seek(struct fix *f, uint8_t drive, uint8_t cylinder)
{
    COMMAND(f, 0x0f, drive, cylinder);
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, 0x20 | drive, cylinder);
}

static void expect_sector(struct fix *f, unsigned index, unsigned sector)
{
    uint8_t data[FDC_SECTOR];
    assert_int_equal(gmem_read(f->mem, BUFFER + index * FDC_SECTOR, data, sizeof data), 0);
    for (unsigned i = 0; i < FDC_SECTOR; i++) {
        assert_int_equal(data[i], pattern(sector, i));
    }
}

static uint8_t image_byte(struct fix *f, unsigned sector, unsigned i)
{
    uint8_t v;
    assert_int_equal(block_read(f->block[0], (uint64_t)sector * FDC_SECTOR + i, &v, 1), 0);
    return v;
}

/* -- Reset, status, settings ------------------------------------------------------------------- */
static void test_reset(void **state)
{
    struct fix *f = *state;
    assert_int_equal(dev_in8(&f->rig, MSR), 0); /* held by DOR */
    assert_int_equal(dev_in8(&f->rig, DOR), 0);
    dev_out8(&f->rig, DOR, 0x0c);
    assert_int_equal(dev_in8(&f->rig, MSR), 0); /* it takes a little while */
    assert_int_equal(f->irq.level, 0);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x80);
    assert_int_equal(f->irq.level, 1);
    for (unsigned i = 0; i < 4; i++) {
        RUN(f, 0x08);
        EXPECT(f, (uint8_t)(0xc0 | i), 0);
        assert_int_equal(f->irq.level, 0);
    }
    RUN(f, 0x08);
    EXPECT(f, 0x80);
    dev_out8(&f->rig, MSR, 0x80); /* DSR: a reset that ends by itself */
    assert_int_equal(dev_in8(&f->rig, MSR), 0);
    settle(f);
    assert_int_equal(f->irq.level, 1);
    dev_out8(&f->rig, DOR, 0x04); /* the DMA gate holds back interrupts */
    assert_int_equal(f->irq.level, 0);
    dev_out8(&f->rig, DOR, 0x0c);
    assert_int_equal(f->irq.level, 1);
    dev_out8(&f->rig, MSR, 0x40); /* power down, until the next reset */
    assert_int_equal(dev_in8(&f->rig, MSR), 0);
    dev_out8(&f->rig, FIFO, 0x10);
    dev_out8(&f->rig, MSR, 0x80);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x80);
    assert_int_equal(dev_in8(&f->rig, 0x3f0), 0xff); /* AT mode */
    assert_int_equal(dev_in8(&f->rig, 0x3f1), 0xff);
    dev_out8(&f->rig, TDR, 0xff);
    assert_int_equal(dev_in8(&f->rig, TDR), 0xff);
}

static void test_settings(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    RUN(f, 0x10);
    EXPECT(f, 0x90);
    COMMAND(f, 0x13, 0, 0x57, 0x21);
    COMMAND(f, 0x12, 0x94); /* drive 0 perpendicular */
    COMMAND(f, 0x12, 0x03);
    RUN(f, 0x94);
    EXPECT(f, 0x10);
    RUN(f, 0x0e);
    EXPECT(f, 0, 0, 0, 0, 0xdf, 0x02, 0, 0x97, 0x57, 0x21);
    dev_out8(&f->rig, MSR, 0x80);
    settle(f);
    RUN(f, 0x0e); /* what is locked stays, and who is perpendicular */
    EXPECT(f, 0, 0, 0, 0, 0xdf, 0x02, 0, 0x94, 0x07, 0x21);
    RUN(f, 0x14);
    EXPECT(f, 0);
    dev_out8(&f->rig, DOR, 0x38);
    dev_out8(&f->rig, DOR, 0x3c);
    settle(f);
    RUN(f, 0x0e);
    EXPECT(f, 0, 0, 0, 0, 0xdf, 0x02, 0, 0x14, 0x20, 0);
}

static void test_invalid(void **state)
{
    struct fix *f = *state;
    static const uint8_t codes[] = { 0x00, 0x01, 0x0b, 0x15, 0x17, 0x18, 0x1f, 0x33, 0x88, 0x4f,
                                     0x86 | 0x08, 0xad, 0x34 };
    prepare(f, 0, 0);
    for (unsigned i = 0; i < ARRAY_LEN(codes); i++) {
        RUN(f, codes[i]);
        EXPECT(f, 0x80);
        assert_int_equal(f->irq.level, 0);
    }
}

static void test_seek(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    RUN(f, 0x04, 0x04);
    EXPECT(f, 0x3c); /* track 0, head 1, not protected */
    RUN(f, 0x04, 0x01);
    EXPECT(f, 0x79); /* protected */
    assert_int_equal(dev_in8(&f->rig, DIR), 0x80); /* no step yet */
    COMMAND(f, 0x0f, 0x00, 40);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x81); /* it is on its way, and listens */
    assert_int_equal(f->irq.level, 0);
    COMMAND(f, 0x0f, 0x01, 20); /* so does the other */
    assert_int_equal(dev_in8(&f->rig, MSR), 0x83);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x80);
    assert_int_equal(f->irq.level, 1);
    RUN(f, 0x08);
    EXPECT(f, 0x20, 40);
    assert_int_equal(f->irq.level, 1); /* of the other */
    RUN(f, 0x08);
    EXPECT(f, 0x21, 20);
    assert_int_equal(f->irq.level, 0);
    assert_int_equal(dev_in8(&f->rig, DIR), 0);
    COMMAND(f, 0xcf, 0x04, 5); /* relative, inwards */
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, 0x24, 45);
    COMMAND(f, 0x8f, 0x00, 44);
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, 0x20, 1);
    RUN(f, 0x4a, 0x00);
    assert_int_equal(f->result[3], 1);
    COMMAND(f, 0x07, 0x03); /* a drive that is not there */
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, 0x73, 0);
}

/* -- Reading ----------------------------------------------------------------------------------- */
static void test_read(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    seek(f, 0, 3);
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    COMMAND(f, 0x46, 0x04, 3, 1, 5, 2, 18, 0x1b, 0xff);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x10);
    assert_int_equal(f->irq.level, 0);
    settle(f);
    assert_int_equal(f->irq.level, 1);
    results(f);
    assert_int_equal(f->irq.level, 0);
    EXPECT(f, 0x04, 0, 0, 3, 1, 7, 2);
    expect_sector(f, 0, (3 * 2 + 1) * 18 + 4);
    expect_sector(f, 1, (3 * 2 + 1) * 18 + 5);
    /* Both heads: from the last sector of one to the first of the other, and off the cylinder. */
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    RUN(f, 0xc6, 0x00, 3, 0, 18, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x04, 0, 0, 3, 1, 2, 2);
    expect_sector(f, 1, (3 * 2 + 1) * 18);
    dma_program(f, TO_MEMORY, FDC_SECTOR);
    RUN(f, 0xc6, 0x04, 3, 1, 18, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 4, 0, 1, 2);
    /* The count ends within a sector. */
    dma_program(f, TO_MEMORY, 100);
    RUN(f, 0x46, 0x00, 3, 0, 1, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 3, 0, 2, 2);
    /* It is longer than the track. */
    dma_program(f, TO_MEMORY, 4 * FDC_SECTOR);
    RUN(f, 0x46, 0x00, 3, 0, 17, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x40, 0x80, 0, 4, 0, 1, 2);
}

static void test_read_errors(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    RUN(f, 0x46, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff); /* nobody serves DMA */
    EXPECT(f, 0x40, 0x10, 0, 0, 0, 1, 2);
    dma_program(f, TO_MEMORY, FDC_SECTOR);
    RUN(f, 0x46, 0x00, 0, 0, 19, 2, 20, 0x1b, 0xff); /* no such sector, */
    EXPECT(f, 0x40, 0x04, 0, 0, 0, 19, 2);
    RUN(f, 0x46, 0x00, 5, 0, 1, 2, 18, 0x1b, 0xff); /* cylinder, */
    EXPECT(f, 0x40, 0x04, 0x10, 5, 0, 1, 2);
    RUN(f, 0x46, 0x00, 0, 1, 1, 2, 18, 0x1b, 0xff); /* head, */
    EXPECT(f, 0x40, 0x04, 0, 0, 1, 1, 2);
    RUN(f, 0x46, 0x00, 0, 0, 1, 3, 18, 0x1b, 0xff); /* size */
    assert_int_equal(f->result[1], 0x04);
    RUN(f, 0x06, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff); /* FM */
    EXPECT(f, 0x40, 0x01, 0, 0, 0, 1, 2);
    dev_out8(&f->rig, DIR, 2); /* the rate of another disk */
    RUN(f, 0x4a, 0x00);
    EXPECT(f, 0x40, 0x01, 0, 0, 0, 0, 2);
    dev_out8(&f->rig, DIR, 0);
    RUN(f, 0x4a, 0x04);
    assert_int_equal(f->result[0], 0x04);
    assert_in_range(f->result[5], 1, 18);
    /* Nothing turns: it waits until it is reset. */
    dev_out8(&f->rig, DOR, 0x0c);
    COMMAND(f, 0x4a, 0x00);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x10);
    dev_out8(&f->rig, DOR, 0x38);
    prepare(f, 0, 0);
}

static void test_deleted_track_verify(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    RUN(f, 0x4c, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff); /* the other mark ends it */
    EXPECT(f, 0x00, 0, 0x40, 0, 0, 2, 2);
    RUN(f, 0x6c, 0x00, 0, 0, 17, 2, 18, 0x1b, 0xff); /* or is skipped */
    EXPECT(f, 0x40, 0x80, 0x40, 1, 0, 1, 2);
    dma_program(f, TO_MEMORY, 3 * FDC_SECTOR);
    RUN(f, 0x42, 0x00, 0, 0, 1, 2, 3, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 0, 0, 4, 2);
    expect_sector(f, 2, 2);
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    RUN(f, 0x42, 0x00, 0, 0, 7, 2, 18, 0x1b, 0xff); /* from the index hole all the same */
    EXPECT(f, 0x40, 0x04, 0, 0, 0, 9, 2);
    expect_sector(f, 0, 0);
    RUN(f, 0x56, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff); /* VERIFY needs no DMA */
    EXPECT(f, 0x00, 0, 0, 1, 0, 1, 2);
    RUN(f, 0x56, 0x80, 0, 0, 1, 2, 18, 0x1b, 4);
    EXPECT(f, 0x00, 0, 0, 0, 0, 5, 2);
    RUN(f, 0x56, 0x80, 0, 0, 17, 2, 18, 0x1b, 4);
    EXPECT(f, 0x40, 0x80, 0, 1, 0, 1, 2);
}

static void test_implied_seek(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    COMMAND(f, 0x13, 0, 0x60, 0);
    dma_program(f, TO_MEMORY, FDC_SECTOR);
    RUN(f, 0x46, 0x00, 70, 0, 1, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 70, 0, 2, 2);
    expect_sector(f, 0, 70 * 36);
    RUN(f, 0x08);
    EXPECT(f, 0x80);
}

static void test_drive_b(void **state)
{
    struct fix *f = *state;
    prepare(f, 1, 2);
    seek(f, 1, 79);
    dma_program(f, TO_MEMORY, FDC_SECTOR);
    RUN(f, 0x46, 0x05, 79, 1, 9, 2, 9, 0x1b, 0xff);
    EXPECT(f, 0x05, 0, 0, 80, 1, 1, 2);
    assert_int_equal(image_byte(f, 0, 0), pattern(0, 0));
    expect_sector(f, 0, 1439);
    dma_program(f, FROM_MEMORY, FDC_SECTOR);
    RUN(f, 0x45, 0x05, 79, 1, 9, 2, 9, 0x1b, 0xff); /* protected */
    EXPECT(f, 0x45, 0x02, 0, 79, 1, 9, 2);
}

/* -- Writing ----------------------------------------------------------------------------------- */
static void fill(struct fix *f, uint8_t v, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        assert_int_equal(gmem_write(f->mem, BUFFER + i, &v, 1), 0);
    }
}

static void test_write(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    seek(f, 0, 1);
    fill(f, 0xaa, 2 * FDC_SECTOR);
    dma_program(f, FROM_MEMORY, FDC_SECTOR + 10);
    RUN(f, 0xc5, 0x00, 1, 0, 18, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x04, 0, 0, 1, 1, 2, 2);
    assert_int_equal(image_byte(f, 53, 511), 0xaa);
    assert_int_equal(image_byte(f, 54, 9), 0xaa);
    assert_int_equal(image_byte(f, 54, 10), 0); /* the rest of the sector */
    assert_int_equal(image_byte(f, 55, 0), pattern(55, 0));
    fill(f, 0xbb, FDC_SECTOR);
    dma_program(f, FROM_MEMORY, FDC_SECTOR);
    RUN(f, 0x49, 0x00, 1, 0, 1, 2, 18, 0x1b, 0xff); /* deleted */
    EXPECT(f, 0x00, 0, 0, 1, 0, 2, 2);
    assert_int_equal(image_byte(f, 36, 0), 0xbb);
}

static void test_format(void **state)
{
    struct fix *f = *state;
    uint8_t ids[18 * 4];
    prepare(f, 0, 0);
    seek(f, 0, 2);
    for (unsigned i = 0; i < 18; i++) {
        const uint8_t id[4] = { 2, 1, (uint8_t)(i / 2 + i % 2 * 9 + 1), 2 }; /* interleaved */
        memcpy(ids + 4 * i, id, 4);
    }
    assert_int_equal(gmem_write(f->mem, BUFFER, ids, sizeof ids), 0);
    dma_program(f, FROM_MEMORY, sizeof ids);
    RUN(f, 0x4d, 0x04, 2, 18, 0x54, 0xf6);
    assert_int_equal(f->results, 7);
    assert_int_equal(f->result[0], 0x04);
    for (unsigned s = 0; s < 18; s++) {
        assert_int_equal(image_byte(f, 90 + s, s), 0xf6);
    }
    assert_int_equal(image_byte(f, 89, 0), pattern(89, 0));
    assert_int_equal(image_byte(f, 108, 0), pattern(108, 0));
    ids[2] = 19; /* a track that the image has no room for */
    assert_int_equal(gmem_write(f->mem, BUFFER, ids, sizeof ids), 0);
    dma_program(f, FROM_MEMORY, sizeof ids);
    RUN(f, 0x4d, 0x04, 2, 18, 0x54, 0xf6);
    assert_int_equal(f->result[0], 0x44);
    assert_int_equal(f->result[1], 0x04);
}

static void test_scan(void **state)
{
    struct fix *f = *state;
    uint8_t data[FDC_SECTOR];
    prepare(f, 0, 0);
    for (unsigned i = 0; i < FDC_SECTOR; i++) {
        data[i] = pattern(2, i);
    }
    data[100] = 0xff; /* equals all */
    assert_int_equal(gmem_write(f->mem, BUFFER, data, sizeof data), 0);
    dma_program(f, FROM_MEMORY | 0x10, FDC_SECTOR); /* again and again: auto-init ends it, too */
    RUN(f, 0x51, 0x00, 0, 0, 3, 2, 18, 0x1b, 1);
    EXPECT(f, 0x00, 0, 0x08, 0, 0, 3, 2);
    RUN(f, 0x51, 0x00, 0, 0, 4, 2, 18, 0x1b, 1);
    EXPECT(f, 0x00, 0, 0x04, 0, 0, 4, 2);
    RUN(f, 0x5d, 0x00, 0, 0, 4, 2, 18, 0x1b, 1); /* sector 4 holds more */
    EXPECT(f, 0x00, 0, 0, 0, 0, 4, 2);
    RUN(f, 0x59, 0x00, 0, 0, 2, 2, 18, 0x1b, 1); /* sector 2 less */
    EXPECT(f, 0x00, 0, 0, 0, 0, 2, 2);
    fill(f, 0xfe, 8 * FDC_SECTOR);
    dma_program(f, FROM_MEMORY, 8 * FDC_SECTOR);
    RUN(f, 0x51, 0x00, 0, 0, 15, 2, 18, 0x1b, 2); /* every other, to the end */
    EXPECT(f, 0x00, 0, 0x04, 1, 0, 1, 2);
}

/* -- Without DMA ------------------------------------------------------------------------------- */
static void test_no_dma(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    COMMAND(f, 0x03, 0xdf, 0x03);
    COMMAND(f, 0x46, 0x00, 0, 0, 2, 2, 2, 0x1b, 0xff);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x30);
    settle(f);
    for (unsigned i = 0; i < FDC_SECTOR; i++) {
        assert_int_equal(dev_in8(&f->rig, MSR), 0xf0);
        assert_int_equal(f->irq.level, 1);
        assert_int_equal(dev_in8(&f->rig, FIFO), pattern(1, i));
    }
    results(f);
    EXPECT(f, 0x40, 0x80, 0, 1, 0, 1, 2); /* there is no terminal count */
    COMMAND(f, 0x45, 0x00, 0, 0, 3, 2, 3, 0x1b, 0xff);
    settle(f);
    for (unsigned i = 0; i < FDC_SECTOR; i++) {
        assert_int_equal(dev_in8(&f->rig, MSR), 0xb0);
        dev_out8(&f->rig, FIFO, (uint8_t)(i ^ 0x55));
        if (i == 99) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
    settle(f);
    results(f);
    EXPECT(f, 0x40, 0x80, 0, 1, 0, 1, 2);
    assert_int_equal(image_byte(f, 2, 300), (uint8_t)(300 ^ 0x55));
}

/* -- Disks, state ------------------------------------------------------------------------------ */
static void test_geometry(void **state)
{
    static const struct {
        unsigned bytes, cylinders, heads, sectors, drive;
    } disks[] = {
        { 163840, 40, 1, 8, 1 },  { 184320, 40, 1, 9, 1 },   { 327680, 40, 2, 8, 1 },
        { 368640, 40, 2, 9, 1 },  { 737280, 80, 2, 9, 3 },   { 1228800, 80, 2, 15, 2 },
        { 1474560, 80, 2, 18, 4 }, { 1720320, 80, 2, 21, 4 }, { 2949120, 80, 2, 36, 5 },
        { 512, 80, 2, 18, 4 },    { 1474561, 80, 2, 36, 5 },
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(disks); i++) {
        const struct fdc_geometry *g = fdc_geometry_of(disks[i].bytes);
        assert_non_null(g);
        assert_int_equal(g->cylinders, disks[i].cylinders);
        assert_int_equal(g->heads, disks[i].heads);
        assert_int_equal(g->sectors, disks[i].sectors);
        assert_int_equal(g->drive, disks[i].drive);
    }
    assert_null(fdc_geometry_of(2949121));
}

static void eject(struct fix *f, unsigned n)
{
    bus_lock(f->rig.bus);
    fdc_eject(f->fdc, n);
    bus_unlock(f->rig.bus);
}

/* Drive A: is of 1.44M, and takes the disk of 720K that drive B: has. */
static void test_change(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    seek(f, 0, 3);
    assert_int_equal(dev_in8(&f->rig, DIR) & 0x80, 0);
    eject(f, 0);
    assert_int_equal(dev_in8(&f->rig, DIR) & 0x80, 0x80);
    COMMAND(f, 0x0f, 0x00, 7);
    settle(f);
    RUN(f, 0x08);
    EXPECT(f, 0x20, 7);
    assert_int_equal(dev_in8(&f->rig, DIR) & 0x80, 0x80); /* a step finds no disk */
    RUN(f, 0x04, 0x00);
    EXPECT(f, 0x68); /* nothing is in the way of the light that looks for the notch */
    COMMAND(f, 0x4a, 0x00);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x10); /* no index hole comes by */
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_true(f->fdc->drive[0].ejected);

    const struct fdc_drive *a = &f->fdc->drive[0];
    assert_true(fdc_fits(a, fdc_geometry_of(720 << 10)));
    assert_true(fdc_fits(a, fdc_geometry_of(1440 << 10)));
    assert_false(fdc_fits(a, fdc_geometry_of(2880 << 10)));
    assert_false(fdc_fits(a, fdc_geometry_of(1200 << 10)));
    bus_lock(f->rig.bus);
    fdc_insert(f->fdc, 0, f->queue[1], true);
    bus_unlock(f->rig.bus);
    dev_out8(&f->rig, DOR, 0);
    prepare(f, 0, 2);
    assert_int_equal(dev_in8(&f->rig, DIR) & 0x80, 0);
    dma_program(f, TO_MEMORY, FDC_SECTOR);
    RUN(f, 0x46, 0x00, 0, 0, 1, 2, 9, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 0, 0, 2, 2);
    expect_sector(f, 0, 0);
    RUN(f, 0x04, 0x00);
    EXPECT(f, 0x78);
}

/* A disk that is taken out while the other drive reads, and while its own does. */
static void test_eject_busy(void **state)
{
    struct fix *f = *state;
    prepare(f, 0, 0);
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    COMMAND(f, 0x46, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    dev_step(&f->rig, SECOND_NS / 1000);
    eject(f, 1);
    settle(f);
    results(f);
    EXPECT(f, 0x00, 0, 0, 0, 0, 3, 2);
    expect_sector(f, 1, 1);
    dma_program(f, TO_MEMORY, 2 * FDC_SECTOR);
    COMMAND(f, 0x46, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    dev_step(&f->rig, SECOND_NS / 1000);
    eject(f, 0);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x10);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    dev_out8(&f->rig, DOR, 0);
    dev_out8(&f->rig, DOR, 0x1c);
    settle(f);
    assert_int_equal(dev_in8(&f->rig, MSR), 0x80);
}

static int setup_short(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    start(f, 1000, 160 << 10);
    *state = f;
    return 0;
}

/* An image that ends before its disk does; a disk with one side. */
static void test_short(void **state)
{
    struct fix *f = *state;
    uint8_t v;
    prepare(f, 0, 0);
    dma_program(f, TO_MEMORY, 3 * FDC_SECTOR);
    RUN(f, 0x46, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x00, 0, 0, 0, 0, 4, 2);
    expect_sector(f, 0, 0);
    assert_int_equal(gmem_read(f->mem, BUFFER + 999, &v, 1), 0);
    assert_int_equal(v, pattern(1, 999 - FDC_SECTOR));
    assert_int_equal(gmem_read(f->mem, BUFFER + 1000, &v, 1), 0);
    assert_int_equal(v, 0);
    dma_program(f, FROM_MEMORY, FDC_SECTOR);
    RUN(f, 0x45, 0x00, 0, 0, 2, 2, 18, 0x1b, 0xff);
    EXPECT(f, 0x40, 0x04, 0, 0, 0, 2, 2);
    dev_out8(&f->rig, DIR, 2);
    RUN(f, 0x4a, 0x05);
    EXPECT(f, 0x45, 0x01, 0, 0, 0, 0, 2);
    RUN(f, 0x4a, 0x01);
    assert_int_equal(f->result[0], 0x01);
}

static void test_save(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, DOR, 0x1c);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* coming out of reset */
    settle(f);
    prepare(f, 0, 0);
    put(f, 0x46);
    put(f, 0x00);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* within a command */
    dma_program(f, TO_MEMORY, 18 * FDC_SECTOR);
    COMMAND(f, 0, 0, 1, 2, 18, 0x1b, 0xff);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* before the first sector */
    dev_step(&f->rig, SECOND_NS / 1000);
    bus_lock(f->rig.bus);
    bus_quiesce(f->rig.bus);
    bus_unlock(f->rig.bus);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* before the second */
    settle(f);
    assert_int_equal(f->irq.level, 1);
    f->result[0] = dev_in8(&f->rig, FIFO);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* within results */
    results(f);
    assert_int_equal(f->results, 6);
    for (unsigned s = 0; s < 18; s++) {
        expect_sector(f, s, s);
    }
    COMMAND(f, 0x0f, 0x00, 9);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* on the way */
    settle(f);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* there */
    RUN(f, 0x08);
    EXPECT(f, 0x20, 9);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_reset),
        T(test_settings),
        T(test_invalid),
        T(test_seek),
        T(test_read),
        T(test_read_errors),
        T(test_deleted_track_verify),
        T(test_implied_seek),
        T(test_drive_b),
        T(test_write),
        T(test_format),
        T(test_scan),
        T(test_no_dma),
        T(test_change),
        T(test_eject_busy),
        cmocka_unit_test(test_geometry),
        cmocka_unit_test_setup_teardown(test_short, setup_short, teardown),
        T(test_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
