/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: the floppy controller and the DMA controllers, with a disk in drive A: and a part of
 * a write-protected one in B:. The input is a program of register accesses, whole commands, passing
 * time, and states of any content.
 */
// LAYERS: dev/pc bus mem state block base
#include <sys/mman.h>
#include <unistd.h>

#include "base/loop.h"
#include "dev/pc/fdc.h"
#include "program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (1u << 20)

struct disk {
    int fd;
    struct block *block;
    struct block_queue *queue;
};

static void open_disk(struct disk *d, struct loop *loop, off_t bytes)
{
    struct err e = { "" };
    char path[32];
    d->fd = memfd_create("disk", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", d->fd);
    const struct block_options o = { .path = path, .format = "raw", .flags = BLOCK_NO_LOCK };
    if (d->fd < 0 || ftruncate(d->fd, bytes) < 0 || block_open(&d->block, &o, &e) < 0 ||
        block_queue_new(&d->queue, d->block, loop, &e) < 0) {
        abort();
    }
}

static void close_disk(struct disk *d)
{
    block_queue_free(d->queue);
    block_close(d->block);
    close(d->fd);
}

static void ignore_irq(void *ctx, int n, int level)
{
    (void)ctx;
    (void)n;
    (void)level;
}

/* Time passes, and the images do what they were asked for. */
static void settle(struct dev_rig *r)
{
    for (unsigned i = 0; i < 40; i++) {
        clock_step(r->clock, 100000);
        bus_quiesce(r->bus);
    }
}

/* A command that has a chance: motors on, DMA ready, all its bytes. */
static void command(struct dev_rig *r, struct program *p)
{
    static const uint16_t dma[] = { 0x0c, 0x0b, 0x04, 0x04, 0x05, 0x05, 0x81, 0x0a };
    uint8_t mode = (uint8_t)(0x42 | (take(p, 1) & 0x3c));
    const uint8_t value[] = { 0, mode, 0, 0x10, (uint8_t)take(p, 1), (uint8_t)take(p, 1), 0, 2 };
    bus_port_write(r->bus, 0x3f2, 1, 0x3c);
    for (unsigned i = 0; i < sizeof value; i++) {
        bus_port_write(r->bus, dma[i], 1, value[i]);
    }
    for (unsigned i = 0; i < 9 && (bus_port_read(r->bus, 0x3f4, 1) & 0xc0) == 0x80; i++) {
        bus_port_write(r->bus, 0x3f5, 1, (uint32_t)take(p, 1));
    }
}

static void step(struct dev_rig *r, struct program *p, bool *own_states)
{
    static const uint16_t ports[] = { 0x3f0, 0x3f0, 0x3f4, 0x00, 0x08, 0xc0, 0xd0, 0x80 };
    unsigned op = (unsigned)take(p, 1);
    unsigned port = ports[op & 7] + (op < 0xa0 ? (unsigned)take(p, 1) % 8 : 0);
    if (op < 0x50) {
        bus_port_write(r->bus, (uint16_t)port, 1, (uint32_t)take(p, 1));
    } else if (op < 0xa0) {
        (void)bus_port_read(r->bus, (uint16_t)port, 1);
    } else if (op < 0xc0) {
        command(r, p);
    } else if (op >= 0xf8 || op < 0xd0) {
        bus_lock(r->bus);
        if (op < 0xd0) {
            settle(r);
        } else if (op < 0xfc && *own_states) {
            roundtrip(r->bus);
        } else if (op < 0xfe) {
            load_any(r, p);
            *own_states = false;
        } else {
            bus_reset(r->bus);
        }
        bus_unlock(r->bus);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program p = { data, size };
    struct dev_rig r;
    struct gmem *mem;
    struct loop *loop;
    struct err e = { "" };
    struct disk disk[2];
    struct dma dma;
    struct fdc *f = calloc(1, sizeof *f);
    if (gmem_new(&mem, RAM, 0xc0000000, &e) < 0) {
        abort();
    }
    r.bus = bus_new(mem);
    r.clock = clock_new_fake();
    if (loop_new(&loop, r.clock, bus_lock_of(r.bus)) < 0) {
        abort();
    }
    open_disk(&disk[0], loop, 1440 << 10);
    open_disk(&disk[1], loop, 5000);
    dma_init(&dma, r.bus);
    const struct fdc_config c = {
        .clock = r.clock,
        .irq = { ignore_irq, NULL, 0 },
        .dma = &dma,
        .dma_channel = 2,
        .drive = { { disk[0].queue, false }, { disk[1].queue, true } },
    };
    fdc_init(f, r.bus, &c);
    bool own_states = true;
    for (unsigned ops = 0; p.left > 0 && ops < 1000; ops++) {
        step(&r, &p, &own_states);
    }
    bus_lock(r.bus);
    fdc_fini(f);
    dma_fini(&dma);
    close_disk(&disk[0]);
    close_disk(&disk[1]);
    bus_unlock(r.bus);
    loop_free(loop);
    dev_rig_fini(&r);
    gmem_free(mem);
    free(f);
    return 0;
}
