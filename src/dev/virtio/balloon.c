/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-balloon (virtio 1.2, 5.5): pages that the guest does not need go back to the host, when we
 * ask for them (inflate) or as they become free (reporting). They read as zeroes afterwards.
 *
 * UNIMPL: free page hints, page poison.
 */
#include "dev/virtio/balloon.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define BALLOON_F_MUST_TELL_HOST BIT(0)
#define BALLOON_F_STATS_VQ BIT(1)
#define BALLOON_F_DEFLATE_ON_OOM BIT(2)
#define BALLOON_F_REPORTING BIT(5)

enum balloon_config { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_SIZE = 16 };

#define QUEUE_INFLATE 0u
#define QUEUE_DEFLATE 1u
#define QUEUE_STATS 2u
#define PFNS_AT_ONCE 1024u
#define STAT_BYTES 10u

static struct virtio_balloon *balloon_of(struct virtio *v)
{
    return container_of(v, struct virtio_balloon, v);
}

static struct gmem *mem_of(struct virtio *v) { return bus_mem(v->pci.dev.bus); }

/* Queues that were not negotiated take no number (as drivers count them). */
static unsigned reporting_queue(const struct virtio *v)
{
    return virtio_has(v, BALLOON_F_STATS_VQ) ? 3 : 2;
}

/* -- Inflate ----------------------------------------------------------------------------------- */
/* Runs of neighbours go in one piece: each costs a system call. */
static void discard_pfns(struct virtio *v, const uint8_t *raw, unsigned count)
{
    uint64_t start = 0;
    uint64_t len = 0;
    for (unsigned i = 0; i <= count; i++) {
        uint64_t gpa = i < count ? (uint64_t)load_le32(raw + 4 * i) << 12 : 0;
        if (i < count && len != 0 && gpa == start + len) {
            len += GMEM_PAGE_SIZE;
        } else if (i < count && len != 0 && gpa + GMEM_PAGE_SIZE == start) {
            start = gpa; /* Linux fills its balloon downwards */
            len += GMEM_PAGE_SIZE;
        } else {
            gmem_discard(mem_of(v), start, len);
            start = gpa;
            len = GMEM_PAGE_SIZE;
        }
    }
}

static void inflate(struct virtio *v)
{
    uint8_t raw[4 * PFNS_AT_ONCE];
    do {
        while (virtio_next(v, QUEUE_INFLATE)) {
            uint32_t total = v->chain->out_len & ~3u;
            for (uint32_t at = 0; at < total;) {
                uint32_t part = total - at < sizeof raw ? total - at : (uint32_t)sizeof raw;
                if (virtq_read(&v->queue[QUEUE_INFLATE], v->chain, at, raw, part) < 0) {
                    virtio_break(v, "page numbers outside of memory");
                    return;
                }
                discard_pfns(v, raw, part / 4);
                at += part;
            }
            virtio_push(v, QUEUE_INFLATE, 0);
        }
    } while (!virtio_await(v, QUEUE_INFLATE));
    virtio_interrupt(v, QUEUE_INFLATE);
}

/* Pages come back by being touched. */
static void deflate(struct virtio *v)
{
    do {
        while (virtio_next(v, QUEUE_DEFLATE)) {
            virtio_push(v, QUEUE_DEFLATE, 0);
        }
    } while (!virtio_await(v, QUEUE_DEFLATE));
    virtio_interrupt(v, QUEUE_DEFLATE);
}

/* -- Reporting: the segments are the free pages themselves ------------------------------------- */
static void report(struct virtio *v, unsigned n)
{
    do {
        while (virtio_next(v, n)) {
            const struct virtq_chain *c = v->chain;
            for (unsigned i = c->outs; i < (unsigned)c->outs + c->ins; i++) {
                gmem_discard(mem_of(v), c->seg[i].gpa, c->seg[i].len);
            }
            virtio_push(v, n, 0);
        }
    } while (!virtio_await(v, n));
    virtio_interrupt(v, n);
}

/* -- Statistics: one buffer goes to and fro ---------------------------------------------------- */
static void give_stats_back(struct virtio_balloon *d)
{
    if (d->stats_held) {
        const struct virtq_used used = { d->stats_id, d->stats_descs, 0 };
        d->stats_held = false;
        virtio_push_all(&d->v, QUEUE_STATS, &used, 1);
        virtio_interrupt(&d->v, QUEUE_STATS);
    }
}

static void take_stats(struct virtio_balloon *d)
{
    struct virtio *v = &d->v;
    do {
        while (virtio_next(v, QUEUE_STATS)) {
            give_stats_back(d); /* a driver that sends two gets the first */
            uint32_t count = v->chain->out_len / STAT_BYTES;
            for (uint32_t i = 0; i < count && i < 4 * VIRTIO_BALLOON_STATS; i++) {
                uint8_t raw[STAT_BYTES];
                if (virtq_read(&v->queue[QUEUE_STATS], v->chain, i * STAT_BYTES, raw, sizeof raw) <
                    0) {
                    virtio_break(v, "statistics outside of memory");
                    return;
                }
                unsigned tag = load_le16(raw);
                if (tag < VIRTIO_BALLOON_STATS) {
                    d->stats[tag] = load_le64(raw + 2);
                }
            }
            d->stats_held = true;
            d->stats_id = v->chain->id;
            d->stats_descs = v->chain->descs;
        }
    } while (!virtio_await(v, QUEUE_STATS));
}

void virtio_balloon_ask_stats(struct virtio_balloon *d)
{
    if (virtio_running(&d->v)) {
        give_stats_back(d);
    }
}

static void balloon_notify(struct virtio *v, unsigned n)
{
    if (n == QUEUE_INFLATE) {
        inflate(v);
    } else if (n == QUEUE_DEFLATE) {
        deflate(v);
    } else if (virtio_has(v, BALLOON_F_STATS_VQ) && n == QUEUE_STATS) {
        take_stats(balloon_of(v));
    } else if (virtio_has(v, BALLOON_F_REPORTING) && n == reporting_queue(v)) {
        report(v, n);
    }
}

/* -- Configuration ----------------------------------------------------------------------------- */
static void balloon_config_fill(struct virtio *v)
{
    const struct virtio_balloon *d = balloon_of(v);
    store_le32(v->config + CONFIG_TARGET, d->target_pages);
    store_le32(v->config + CONFIG_ACTUAL, d->actual_pages);
}

static void balloon_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_balloon *d = balloon_of(v);
    if (offset >= CONFIG_ACTUAL && offset + size <= CONFIG_ACTUAL + 4) {
        unsigned shift = 8 * (offset - CONFIG_ACTUAL);
        uint32_t mask = (uint32_t)MASK64(8 * size) << shift;
        d->actual_pages = (d->actual_pages & ~mask) | (value << shift & mask);
    }
}

void virtio_balloon_set_target(struct virtio_balloon *d, uint64_t bytes)
{
    uint64_t ram = gmem_ram_size(mem_of(&d->v));
    d->target_pages = (uint32_t)(bytes < ram ? (ram - bytes) >> GMEM_PAGE_BITS : 0);
    virtio_config_changed(&d->v);
}

uint64_t virtio_balloon_actual(const struct virtio_balloon *d)
{
    uint64_t ram = gmem_ram_size(bus_mem(d->v.pci.dev.bus));
    uint64_t given = (uint64_t)d->actual_pages << GMEM_PAGE_BITS;
    return given < ram ? ram - given : 0;
}

static void balloon_stop(struct virtio *v)
{
    struct virtio_balloon *d = balloon_of(v);
    d->actual_pages = 0;
    d->stats_held = false;
    memset(d->stats, 0xff, sizeof d->stats);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field balloon_state[] = {
    STATE_STRUCT(struct virtio_balloon, v, virtio_state),
    STATE(struct virtio_balloon, target_pages),
    STATE(struct virtio_balloon, actual_pages),
    STATE(struct virtio_balloon, stats_held),
    STATE(struct virtio_balloon, stats_id),
    STATE(struct virtio_balloon, stats_descs),
    STATE_ARRAY(struct virtio_balloon, stats),
    STATE_END,
};

static int balloon_post_load(void *dev, struct err *e)
{
    struct virtio_balloon *d = dev;
    if (d->stats_descs > VIRTQ_SIZE_MAX) {
        return err_set(e, -EINVAL, "state has a buffer of %u descriptors", d->stats_descs);
    }
    return virtio_post_load(dev, e);
}

static const struct dev_class balloon_dev_class = {
    .name = "virtio-balloon",
    .version = 1,
    .state = balloon_state,
    .size = sizeof(struct virtio_balloon),
    .reset = virtio_hard_reset,
    .post_load = balloon_post_load,
};

static const struct virtio_class balloon_class = {
    .dev = &balloon_dev_class,
    .type = 5,
    .transitional_id = 0x1002,
    .pci_class = 0x00ff00,
    .config_size = CONFIG_SIZE,
    .config_fill = balloon_config_fill,
    .config_write = balloon_config_write,
    .notify = balloon_notify,
    .stop = balloon_stop,
};

void virtio_balloon_init(struct virtio_balloon *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                         const struct virtio_options *o)
{
    *d = (struct virtio_balloon){ 0 };
    memset(d->stats, 0xff, sizeof d->stats);
    virtio_init(&d->v, &balloon_class, "virtio-balloon", p, b, devfn, o,
                BALLOON_F_MUST_TELL_HOST | BALLOON_F_STATS_VQ | BALLOON_F_DEFLATE_ON_OOM |
                    BALLOON_F_REPORTING,
                4);
}

void virtio_balloon_fini(struct virtio_balloon *d) { virtio_fini(&d->v); }
