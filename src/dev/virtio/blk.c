/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-blk (virtio 1.2, 5.2): reads, writes, flush, discard, write zeroes, identification; many
 * queues; a write cache that the driver may switch off. Data goes between the image and the guest's
 * memory without a copy of ours where the image's format allows.
 *
 * UNIMPL: secure erase, lifetime, zoned devices, the legacy SCSI passthrough.
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/queue.h"

#define SECTOR 512u
#define SEG_MAX (VIRTQ_SIZE_MAX - 2) /* apart from header and status */

/* Feature bits (5.2.3) */
#define BLK_F_SEG_MAX BIT(2)
#define BLK_F_RO BIT(5)
#define BLK_F_BLK_SIZE BIT(6)
#define BLK_F_FLUSH BIT(9)
#define BLK_F_TOPOLOGY BIT(10)
#define BLK_F_CONFIG_WCE BIT(11)
#define BLK_F_MQ BIT(12)
#define BLK_F_DISCARD BIT(13)
#define BLK_F_WRITE_ZEROES BIT(14)

/* Device configuration (5.2.4) */
enum blk_config {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_EXP = 24,
    CONFIG_MIN_IO = 26,
    CONFIG_OPT_IO = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGS = 40,
    CONFIG_DISCARD_ALIGN = 44,
    CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEGS = 52,
    CONFIG_ZEROES_UNMAP = 56,
    CONFIG_SIZE = 60,
};

enum blk_type { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum blk_status { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

#define HEADER_BYTES 16u
#define RANGE_BYTES 16u
#define RANGE_UNMAP 1u
#define RANGE_SECTORS_MAX (1u << 21) /* of one discard or write-zeroes: 1 GiB */

#define UNDER_WAY_MAX 1024u /* requests; a ring that is as long as it may be has them four times */

struct blk_request {
    struct block_request io;
    struct virtio_blk *d;
    struct virtq_used used;
    unsigned queue;
    gpa_t status; /* where its byte goes */
    struct blk_request *next;
    struct iovec iov[VIRTQ_SEGS_MAX]; /* the data in the guest's memory */
};

/* -- Requests as objects ----------------------------------------------------------------------- */
static struct blk_request *request_new(struct virtio_blk *d)
{
    struct blk_request *r = d->idle;
    if (r != NULL) {
        d->idle = r->next;
    } else {
        r = malloc(sizeof *r); /* its 8 KiB of vector need no zeroes */
    }
    if (r != NULL) {
        r->io = (struct block_request){ 0 };
        r->d = d;
    }
    return r;
}

static void request_free(struct blk_request *r)
{
    r->next = r->d->idle;
    r->d->idle = r;
}

/* -- The end of a request ---------------------------------------------------------------------- */
static void finish(struct virtio_blk *d, struct blk_request *r, enum blk_status status)
{
    uint8_t byte = (uint8_t)status;
    bool read = r->io.op == BLOCK_OP_READ && r->io.iov != NULL;
    if (read) {
        gmem_mark_views(d->v.queue[r->queue].mem, r->iov, r->io.iov_count);
    }
    if (gmem_write(d->v.queue[r->queue].mem, r->status, &byte, 1) < 0) {
        virtio_break(&d->v, "a request's buffers are outside of memory");
    } else {
        r->used.written += (read && status == S_OK ? (uint32_t)r->io.len : 0) + 1;
        virtio_push_all(&d->v, r->queue, &r->used, 1);
        virtio_interrupt(&d->v, r->queue);
    }
    request_free(r);
}

static void io_done(struct block_request *io)
{
    struct blk_request *r = container_of(io, struct blk_request, io);
    struct virtio_blk *d = r->d;
    d->under_way--;
    finish(d, r, io->result == 0 ? S_OK : S_IOERR);
    uint64_t stalled = d->stalled;
    for (d->stalled = 0; stalled != 0; stalled &= stalled - 1) {
        virtio_kick(&d->v, (unsigned)__builtin_ctzll(stalled));
    }
}

/* -- The beginning ----------------------------------------------------------------------------- */
static bool in_range(const struct virtio_blk *d, uint64_t sector, uint64_t sectors)
{
    return sector <= d->capacity && sectors <= d->capacity - sector;
}

/* Writes are to be on the medium when they end if the driver cannot flush, or wants it so. */
static bool writes_through(const struct virtio_blk *d)
{
    return !virtio_has(&d->v, BLK_F_FLUSH) ||
           (virtio_has(&d->v, BLK_F_CONFIG_WCE) && !d->write_cache);
}

static int start_transfer(struct virtio_blk *d, struct blk_request *r, bool write, uint64_t sector,
                          uint32_t len)
{
    if (len == 0 || len % SECTOR != 0 || len > BLOCK_REQUEST_MAX ||
        !in_range(d, sector, len / SECTOR) || (write && d->readonly)) {
        return S_IOERR;
    }
    r->io.op = write ? BLOCK_OP_WRITE : BLOCK_OP_READ;
    r->io.fua = write && writes_through(d);
    r->io.offset = sector * SECTOR;
    r->io.len = len;
    r->io.iov = r->iov;
    struct gmem_views v = { r->iov, ARRAY_LEN(r->iov), 0 };
    int s = virtq_view(&d->v.queue[r->queue], d->v.chain, write ? GMEM_TO_FILE : GMEM_FROM_FILE,
                       write ? HEADER_BYTES : 0, len, &v);
    r->io.iov_count = v.count;
    return s;
}

static int start_range(struct virtio_blk *d, struct blk_request *r, bool zeroes, uint32_t len)
{
    uint8_t raw[RANGE_BYTES];
    if (len != RANGE_BYTES) {
        return len % RANGE_BYTES == 0 && len != 0 ? S_UNSUPP : S_IOERR; /* we said one at a time */
    }
    if (virtq_read(&d->v.queue[r->queue], d->v.chain, HEADER_BYTES, raw, sizeof raw) < 0) {
        return -EFAULT;
    }
    uint64_t sector = load_le64(raw);
    uint32_t sectors = load_le32(raw + 8);
    uint32_t flags = load_le32(raw + 12);
    if (flags & ~(zeroes ? RANGE_UNMAP : 0)) {
        return S_UNSUPP;
    }
    if (d->readonly || sectors > RANGE_SECTORS_MAX || !in_range(d, sector, sectors)) {
        return S_IOERR;
    }
    r->io.op = zeroes ? BLOCK_OP_ZERO : BLOCK_OP_DISCARD;
    r->io.may_unmap = flags & RANGE_UNMAP;
    r->io.fua = writes_through(d);
    r->io.offset = sector * SECTOR;
    r->io.len = (uint64_t)sectors * SECTOR;
    return 0;
}

static int get_id(struct virtio_blk *d, struct blk_request *r)
{
    uint32_t room = d->v.chain->in_len - 1;
    r->used.written = room < VIRTIO_BLK_ID_BYTES ? room : VIRTIO_BLK_ID_BYTES;
    return virtq_write(&d->v.queue[r->queue], d->v.chain, 0, d->serial, r->used.written);
}

/* 0: to be submitted. Else an enum blk_status + 1, or -EFAULT. */
#define ENDS(status) ((status) + 1)

static int start(struct virtio_blk *d, struct blk_request *r, uint32_t type, uint64_t sector)
{
    const struct virtq_chain *c = d->v.chain;
    uint32_t out_data = c->out_len - HEADER_BYTES;
    int s;
    switch (type) {
    case T_IN:
        s = start_transfer(d, r, false, sector, c->in_len - 1);
        return s > 0 ? ENDS(s) : s;
    case T_OUT:
        s = start_transfer(d, r, true, sector, out_data);
        return s > 0 ? ENDS(s) : s;
    case T_FLUSH:
        r->io.op = BLOCK_OP_FLUSH;
        return 0;
    case T_DISCARD:
    case T_ZEROES:
        s = start_range(d, r, type == T_ZEROES, out_data);
        return s > 0 ? ENDS(s) : s;
    case T_GET_ID:
        s = get_id(d, r);
        return s < 0 ? s : ENDS(S_OK);
    default:
        return ENDS(S_UNSUPP);
    }
}

static gpa_t last_byte(const struct virtq_chain *c)
{
    const struct virtq_seg *seg = &c->seg[c->outs + c->ins - 1];
    while (seg->len == 0) {
        seg--;
    }
    return seg->gpa + seg->len - 1;
}

/* False: the device is broken. */
static bool take_request(struct virtio_blk *d, unsigned n)
{
    struct virtio *v = &d->v;
    const struct virtq_chain *c = v->chain;
    uint8_t header[HEADER_BYTES];
    if (c->out_len < HEADER_BYTES || c->in_len < 1 ||
        virtq_read(&v->queue[n], c, 0, header, sizeof header) < 0) {
        virtio_break(v, "a request without header or status");
        return false;
    }
    struct blk_request *r = request_new(d);
    if (r == NULL) {
        virtio_break(v, "no memory for a request");
        return false;
    }
    r->queue = n;
    r->used = (struct virtq_used){ c->id, c->descs, 0 };
    r->status = last_byte(c);
    r->io.done = io_done;
    int s = start(d, r, load_le32(header), load_le64(header + 8));
    if (s < 0) {
        virtio_break(v, "a request's buffers are outside of memory");
        request_free(r);
        return false;
    }
    if (s > 0) {
        finish(d, r, (enum blk_status)(s - 1));
    } else if (block_try(d->disk, &r->io)) {
        finish(d, r, S_OK);
    } else {
        d->under_way++;
        block_submit(d->disk, &r->io);
    }
    return true;
}

static void blk_notify(struct virtio *v, unsigned n)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, v);
    do {
        virtq_ask_notify(&v->queue[n], false);
        for (;;) {
            if (d->under_way >= UNDER_WAY_MAX) {
                d->stalled |= BIT(n);
                return;
            }
            if (!virtio_next(v, n)) {
                break;
            }
            if (!take_request(d, n)) {
                return;
            }
        }
    } while (!virtio_await(v, n));
}

/* -- Configuration ----------------------------------------------------------------------------- */
static void blk_config_fill(struct virtio *v)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, v);
    uint8_t *c = v->config;
    store_le64(c + CONFIG_CAPACITY, d->capacity);
    store_le32(c + CONFIG_SEG_MAX, SEG_MAX);
    store_le32(c + CONFIG_BLK_SIZE, SECTOR);
    c[CONFIG_PHYSICAL_EXP] = 3; /* 4 KiB */
    store_le16(c + CONFIG_MIN_IO, 1);
    store_le32(c + CONFIG_OPT_IO, 0);
    c[CONFIG_WRITEBACK] = d->write_cache;
    store_le16(c + CONFIG_QUEUES, (uint16_t)v->queue_count);
    store_le32(c + CONFIG_DISCARD_SECTORS, RANGE_SECTORS_MAX);
    store_le32(c + CONFIG_DISCARD_SEGS, 1);
    store_le32(c + CONFIG_DISCARD_ALIGN, 8);
    store_le32(c + CONFIG_ZEROES_SECTORS, RANGE_SECTORS_MAX);
    store_le32(c + CONFIG_ZEROES_SEGS, 1);
    c[CONFIG_ZEROES_UNMAP] = 1;
}

static void blk_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, v);
    if (offset == CONFIG_WRITEBACK && size == 1 && virtio_has(v, BLK_F_CONFIG_WCE)) {
        d->write_cache = value & 1;
    }
}

static void blk_start(struct virtio *v)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, v);
    if (!virtio_has(v, BLK_F_CONFIG_WCE)) {
        d->write_cache = virtio_has(v, BLK_F_FLUSH);
    }
}

static void blk_stop(struct virtio *v)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, v);
    block_queue_drain(d->disk);
    d->stalled = 0;
    d->write_cache = true;
}

void virtio_blk_resized(struct virtio_blk *d)
{
    d->capacity = block_size(block_queue_block(d->disk)) / SECTOR;
    virtio_config_changed(&d->v);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field blk_state[] = {
    STATE_STRUCT(struct virtio_blk, v, virtio_state),
    STATE(struct virtio_blk, write_cache),
    STATE_END,
};

/* What a stalled queue had not taken is still in its ring. */
static void blk_quiesce(void *dev)
{
    struct virtio_blk *d = dev;
    do {
        block_queue_drain(d->disk);
    } while (d->under_way != 0);
}

static const struct dev_class blk_dev_class = {
    .name = "virtio-blk",
    .version = 1,
    .state = blk_state,
    .size = sizeof(struct virtio_blk),
    .reset = virtio_hard_reset,
    .post_load = virtio_post_load,
    .quiesce = blk_quiesce,
};

static const struct virtio_class blk_class = {
    .dev = &blk_dev_class,
    .type = 2,
    .transitional_id = 0x1001,
    .pci_class = 0x010000,
    .config_size = CONFIG_SIZE,
    .config_fill = blk_config_fill,
    .config_write = blk_config_write,
    .notify = blk_notify,
    .start = blk_start,
    .stop = blk_stop,
};

void virtio_blk_init(struct virtio_blk *d, const char *name, struct pci_bus *p, struct bus *b,
                     uint8_t devfn, const struct virtio_blk_config *c)
{
    *d = (struct virtio_blk){ .disk = c->queue, .readonly = c->readonly, .write_cache = true };
    d->capacity = block_size(block_queue_block(c->queue)) / SECTOR;
    if (c->serial != NULL) {
        size_t len = strlen(c->serial);
        memcpy(d->serial, c->serial, len < sizeof d->serial ? len : sizeof d->serial);
    }
    uint64_t features = BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_TOPOLOGY |
                        BLK_F_CONFIG_WCE | (c->queues > 1 ? BLK_F_MQ : 0) |
                        (c->readonly ? BLK_F_RO : BLK_F_DISCARD | BLK_F_WRITE_ZEROES);
    virtio_init(&d->v, &blk_class, name, p, b, devfn, &c->virtio, features, c->queues);
}

void virtio_blk_fini(struct virtio_blk *d)
{
    if (d->v.chain == NULL) {
        return;
    }
    block_queue_drain(d->disk);
    while (d->idle != NULL) {
        struct blk_request *r = d->idle;
        d->idle = r->next;
        free(r);
    }
    virtio_fini(&d->v);
}
