/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of disk controllers share: a board with memory, a PCI bus and a loop, and images in
 * files of their own, each byte of which tells where it is.
 */
#ifndef SOSIA_TESTS_DEV_DISKS_H
#define SOSIA_TESTS_DEV_DISKS_H

#include "support/dev.h"

#include <stdio.h>
#include <unistd.h>

#include "base/loop.h"
#include "block/queue.h"
#include "bus/pci.h"
#include "dev/pc/i440fx.h"

struct disk_board {
    struct dev_rig rig;
    struct gmem *mem;
    struct loop *loop;
    struct i440fx host;
    unsigned messages; /* MSIs so far */
    uint32_t message;  /* data of the last */
};

struct disk_image {
    char path[32];
    struct block *block;
    struct block_queue *queue;
};

static inline void disk_board_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct disk_board *b = ctx;
    (void)address;
    b->messages++;
    b->message = data;
}

static inline void disk_board_init(struct disk_board *b)
{
    struct err e = { 0 };
    const struct irq none[4] = { { 0 } };
    assert_int_equal(gmem_new(&b->mem, 4 << 20, 0xc0000000, &e), 0);
    b->rig.bus = bus_new(b->mem);
    b->rig.clock = clock_new_fake();
    assert_int_equal(loop_new(&b->loop, b->rig.clock, bus_lock_of(b->rig.bus)), 0);
    i440fx_init(&b->host, b->rig.bus, none, disk_board_msi, b);
}

/* After the controllers. */
static inline void disk_board_fini(struct disk_board *b)
{
    i440fx_fini(&b->host);
    loop_free(b->loop);
    dev_rig_fini(&b->rig);
    gmem_free(b->mem);
}

static inline uint8_t disk_pattern(uint64_t sector, unsigned i)
{
    return (uint8_t)(sector * 7 + i * 3 + 1);
}

static inline void assert_pattern(const uint8_t *data, uint64_t sector, unsigned size,
                                  unsigned count)
{
    for (unsigned i = 0; i < size * count; i++) {
        assert_int_equal(data[i], disk_pattern(sector + i / size, i % size));
    }
}

static inline void disk_image_make(struct disk_image *d, struct disk_board *b, unsigned sectors,
                                   unsigned size)
{
    strcpy(d->path, "/tmp/sosia-disk-XXXXXX");
    int fd = mkstemp(d->path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "wb");
    for (unsigned s = 0; s < sectors; s++) {
        for (unsigned i = 0; i < size; i++) {
            fputc(disk_pattern(s, i), file);
        }
    }
    fclose(file);
    struct err e = { 0 };
    const struct block_options o = { .path = d->path, .format = "raw" };
    assert_int_equal(block_open(&d->block, &o, &e), 0);
    assert_int_equal(block_queue_new(&d->queue, d->block, b->loop, &e), 0);
}

static inline void disk_image_fini(struct disk_image *d, struct disk_board *b)
{
    bus_lock(b->rig.bus);
    block_queue_free(d->queue);
    block_close(d->block);
    bus_unlock(b->rig.bus);
    unlink(d->path);
}

/* What is under way ends. */
static inline void disk_settle(struct disk_board *b)
{
    bus_lock(b->rig.bus);
    bus_quiesce(b->rig.bus);
    bus_unlock(b->rig.bus);
}

static inline void disk_config_out(struct disk_board *b, uint8_t devfn, unsigned reg, uint32_t v)
{
    dev_out32(&b->rig, 0xcf8, 0x80000000u | (uint32_t)devfn << 8 | reg);
    dev_out32(&b->rig, 0xcfc, v);
}

static inline uint32_t disk_config_in(struct disk_board *b, uint8_t devfn, unsigned reg)
{
    dev_out32(&b->rig, 0xcf8, 0x80000000u | (uint32_t)devfn << 8 | reg);
    return dev_in32(&b->rig, 0xcfc);
}

static inline void disk_poke(struct disk_board *b, gpa_t at, const void *data, size_t len)
{
    assert_int_equal(gmem_write(b->mem, at, data, len), 0);
}

static inline void disk_peek(struct disk_board *b, gpa_t at, void *data, size_t len)
{
    assert_int_equal(gmem_read(b->mem, at, data, len), 0);
}

#endif
