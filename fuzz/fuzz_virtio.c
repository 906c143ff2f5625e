/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a hostile driver on every virtio device, and on the e1000. The first byte chooses
 * the device; then come register writes, ring contents, notifications, frames and turns of the
 * host's loop. States are saved and loaded in between.
 */
// LAYERS: dev/virtio dev/pc bus mem state block net base
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
#include "block/queue.h"
#include "bus/pci.h"
#include "dev/pc/e1000.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/input.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/scsi.h"
#include "dev/virtio/vsock.h"
#include "program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM MIB(1)
#define BAR 0xe0000000ull
#define DEVFN PCI_DEVFN(3, 0)

struct rig {
    struct gmem *mem;
    struct bus *bus;
    struct clock *clock;
    struct loop *loop;
    struct pci_bus *pci;
    struct net net;
    struct block *block;
    struct block_queue *queue;
    union {
        struct virtio v;
        struct virtio_blk blk;
        struct virtio_scsi scsi;
        struct virtio_net net;
        struct virtio_rng rng;
        struct virtio_balloon balloon;
        struct virtio_console console;
        struct virtio_vsock vsock;
        struct virtio_input input;
        struct e1000 e1000;
    } d;
};

static void net_sink(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len)
{
    struct net_offload copy = *o;
    if (copy.gso_type == NET_GSO_NONE) {
        net_finish_csum(&copy, frame, len);
    }
    net_deliver(n, &copy, frame, len); /* echoed */
}

static void net_nothing(struct net *n) { (void)n; }

static const struct net_class net_class = {
    .name = "fuzz",
    .caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6,
    .send = net_sink,
    .free = net_nothing,
};

static void console_sink(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void make_disk(struct rig *r)
{
    struct err e;
    char path[40];
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, 256 * 1024) < 0) {
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

#define KINDS 9u

static void make(struct rig *r, unsigned kind)
{
    const struct virtio_options o = { .packed = true };
    const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };
    const struct virtio_console_backend console[2] = { { console_sink, NULL, NULL, "a" },
                                                       { console_sink, NULL, NULL, "b" } };
    struct err e;
    char path[64];
    switch (kind) {
    case 0: {
        make_disk(r);
        const struct virtio_blk_config c = { .queue = r->queue, .queues = 2, .virtio = o };
        virtio_blk_init(&r->d.blk, "dev", r->pci, r->bus, DEVFN, &c);
        break;
    }
    case 1:
        make_disk(r);
        virtio_scsi_init(&r->d.scsi, r->pci, r->bus, DEVFN, 2, &o);
        virtio_scsi_add(&r->d.scsi, r->queue, false, false, "d");
        virtio_scsi_add(&r->d.scsi, r->queue, true, true, "c");
        break;
    case 2: {
        const struct virtio_net_config c = { .net = &r->net, .pairs = 2, .virtio = o };
        virtio_net_init(&r->d.net, "dev", r->pci, r->bus, DEVFN, &c);
        break;
    }
    case 3:
        virtio_rng_init(&r->d.rng, r->pci, r->bus, DEVFN, &o);
        break;
    case 4:
        virtio_balloon_init(&r->d.balloon, r->pci, r->bus, DEVFN, &o);
        break;
    case 5:
        virtio_console_init(&r->d.console, r->pci, r->bus, DEVFN, console, 2, &o);
        break;
    case 6:
        snprintf(path, sizeof path, "/tmp/sosia-fuzz-%d", (int)getpid());
        unlink(path);
        if (virtio_vsock_init(&r->d.vsock, r->pci, r->bus, DEVFN, r->loop, path, 3, &o, &e) < 0) {
            abort();
        }
        break;
    case 8:
        virtio_input_init(&r->d.input, r->pci, r->bus, DEVFN, &o);
        break;
    default:
        e1000_init(&r->d.e1000, "dev", r->pci, r->bus, DEVFN, &r->net, mac);
    }
}

static void unmake(struct rig *r, unsigned kind)
{
    switch (kind) {
    case 0:
        virtio_blk_fini(&r->d.blk);
        break;
    case 1:
        virtio_scsi_fini(&r->d.scsi);
        break;
    case 2:
        virtio_net_fini(&r->d.net);
        break;
    case 6:
        virtio_vsock_fini(&r->d.vsock);
        break;
    case 7:
        e1000_fini(&r->d.e1000);
        break;
    default:
        virtio_fini(&r->d.v);
    }
    if (r->block != NULL) {
        block_queue_free(r->queue);
        block_close(r->block);
    }
}

/* A driver that has got as far as DRIVER_OK, with rings where the program writes. */
static void start(struct rig *r, struct program *p)
{
    struct virtio *v = &r->d.v;
    uint64_t features = take(p, 5) | VIRTIO_F_VERSION_1;
    features &= v->offered;
    bus_mmio_write(r->bus, BAR + 0x14, 1, 0);
    bus_mmio_write(r->bus, BAR + 0x14, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        bus_mmio_write(r->bus, BAR + 8, 4, i);
        bus_mmio_write(r->bus, BAR + 12, 4, features >> 32 * i);
    }
    bus_mmio_write(r->bus, BAR + 0x14, 1, 11);
    for (unsigned n = 0; n < v->queue_count && n < 6; n++) {
        bus_mmio_write(r->bus, BAR + 0x16, 2, n);
        bus_mmio_write(r->bus, BAR + 0x18, 2, 8);
        bus_mmio_write(r->bus, BAR + 0x20, 4, 0x1000 * (n + 1));
        bus_mmio_write(r->bus, BAR + 0x28, 4, 0x1000 * (n + 1) + 0x400);
        bus_mmio_write(r->bus, BAR + 0x30, 4, 0x1000 * (n + 1) + 0x800);
        bus_mmio_write(r->bus, BAR + 0x1c, 2, 1);
    }
    bus_mmio_write(r->bus, BAR + 0x14, 1, 15);
}

/* A chain of up to four descriptors in queue n, and a kick. */
static void buffer(struct rig *r, struct program *p)
{
    struct virtio *v = &r->d.v;
    unsigned n = (unsigned)take(p, 1) % 6;
    unsigned how = (unsigned)take(p, 1);
    gpa_t ring = 0x1000 * (n + 1);
    const struct virtq *q = &v->queue[n];
    unsigned place = q->packed ? q->next_avail : 0;
    unsigned count = 1 + (how & 3);
    for (unsigned i = 0; i < count; i++) {
        uint8_t raw[16];
        uint16_t flags = (uint16_t)((i + 1 < count) | (how >> (2 + i) & 1) << 1);
        uint64_t at = 0x10000 + 0x400 * take(p, 1);
        if (q->packed) {
            flags |= q->avail_wrap ? 0x80 : 0x8000;
        }
        if (i == 0 && how & 0x40) {
            flags |= (uint16_t)(take(p, 2) & 0x8087);
        }
        store_le64(raw, how & 0x80 && i == 0 ? take(p, 8) : at);
        store_le32(raw + 8, (uint32_t)take(p, how & 0x80 ? 4 : 1));
        store_le16(raw + (q->packed ? 14 : 12), flags);
        store_le16(raw + (q->packed ? 12 : 14), (uint16_t)(i + 1));
        (void)!gmem_write(r->mem, ring + 16 * ((place + i) % 8), raw, 16);
    }
    if (!q->packed) {
        uint16_t head = 0, index = (uint16_t)(q->next_avail + 1);
        (void)!gmem_write(r->mem, ring + 0x404 + 2 * (q->next_avail % 8), &head, 2);
        (void)!gmem_write(r->mem, ring + 0x402, &index, 2);
    }
    bus_mmio_write(r->bus, BAR + 0x3000 + 4 * n, 2, n);
}

static void step(struct rig *r, unsigned kind, struct program *p)
{
    unsigned op = (unsigned)take(p, 1);
    static const struct net_offload none;
    uint8_t bytes[400] = { 0 };
    switch (op % 10) {
    case 0:
        bus_mmio_write(r->bus, BAR + take(p, 2), 1u << op / 10 % 3, take(p, 4));
        break;
    case 1:
        bus_mmio_read(r->bus, BAR + take(p, 2), 1u << op / 10 % 3);
        break;
    case 2:
        bus_port_write(r->bus, (uint16_t)(0xc000 + take(p, 1) % 128), 1u << op / 10 % 3,
                       (uint32_t)take(p, 4));
        break;
    case 3:
        for (unsigned i = 0; i < 16; i++) {
            bytes[i] = (uint8_t)take(p, 1);
        }
        (void)!gmem_write(r->mem, take(p, 2) << (op / 10 % 2 * 4) & (RAM - 64), bytes, 16);
        break;
    case 4:
        if (kind != 7) {
            start(r, p);
        }
        break;
    case 5:
    case 6:
    case 7:
        if (kind != 7) {
            buffer(r, p);
        } else { /* e1000: its hot registers */
            static const uint16_t regs[] = { 0x2800, 0x2808, 0x2810, 0x2818, 0x3800, 0x3808,
                                             0x3810, 0x3818, 0x100,  0x400,  0,      0x5400 };
            bus_mmio_write(r->bus, BAR + regs[op / 10 % 12], 4, take(p, 4));
        }
        break;
    case 8:
        loop_turn(r->loop, 0);
        bus_lock(r->bus);
        if (kind == 8) {
            const struct virtio_input_place to = { (uint16_t)take(p, 2), (uint16_t)take(p, 2),
                                                   (uint8_t)take(p, 1) };
            virtio_input_put(&r->d.input, &to, (int)take(p, 4));
        }
        net_deliver(&r->net, &none, bytes, 60 + op);
        bus_unlock(r->bus);
        break;
    default:
        if (op > 240) {
            bus_lock(r->bus);
            roundtrip(r->bus);
            bus_unlock(r->bus);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program p = { data, size };
    struct rig *r = calloc(1, sizeof *r);
    struct err e;
    const struct irq none[4] = { { 0 } };
    unsigned kind = (unsigned)take(&p, 1) % KINDS;
    if (r == NULL || gmem_new(&r->mem, RAM, 0xc0000000, &e) < 0) {
        abort();
    }
    r->bus = bus_new(r->mem);
    r->clock = clock_new_fake();
    if (loop_new(&r->loop, r->clock, bus_lock_of(r->bus)) < 0) {
        abort();
    }
    r->pci = pci_bus_new(r->bus, none, NULL, NULL);
    net_init(&r->net, &net_class);
    make(r, kind);
    pci_config_write(r->pci, 0, DEVFN, PCI_BAR0, 4, kind == 7 ? BAR : 0xc000);
    pci_config_write(r->pci, 0, DEVFN, PCI_BAR0 + 16, 4, BAR);
    pci_config_write(r->pci, 0, DEVFN, PCI_COMMAND, 2, 7);
    while (p.left > 0) {
        step(r, kind, &p);
    }
    bus_lock(r->bus);
    unmake(r, kind);
    bus_unlock(r->bus);
    net_free(&r->net);
    pci_bus_free(r->pci);
    loop_free(r->loop);
    clock_free(r->clock);
    bus_free(r->bus);
    gmem_free(r->mem);
    free(r);
    return 0;
}
