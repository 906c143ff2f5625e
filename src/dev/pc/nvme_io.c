/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands on the namespace (NVM Express 1.4, chapter 6). Data passes through buffers of ours, as a
 * guest may change its memory and its map while the host works.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/nvme_int.h"

enum nvme_io_opcode {
    IO_FLUSH = 0x00,
    IO_WRITE = 0x01,
    IO_READ = 0x02,
    IO_COMPARE = 0x05,
    IO_WRITE_ZEROES = 0x08,
    IO_DATASET_MANAGEMENT = 0x09,
};
#define DW12_FUA (1u << 30)
#define DW12_DEALLOCATE (1u << 25)
#define DW11_DEALLOCATE (1u << 2)
#define RANGE_BYTES 16u

#define BYTES_MAX MIB(64) /* of requests under way; a single one may always go */

struct request {
    struct block_request io;
    struct nvme *n;
    struct nvme_command c;
    uint64_t cost;
    uint32_t at, ranges; /* of DATASET MANAGEMENT */
    /* Of a read or a write the guest's memory as a vector; of others what they look at. */
    _Alignas(struct iovec) uint8_t data[];
};

bool nvme_may_start(const struct nvme *n) { return n->bytes < BYTES_MAX; }

/* -- Requests to the image --------------------------------------------------------------------- */
static unsigned status_of(const struct block_request *io)
{
    if (io->result == 0) {
        return NVME_OK;
    }
    if (io->result == -ENOSPC) {
        return NVME_CAPACITY_EXCEEDED;
    }
    return io->op == BLOCK_OP_READ ? NVME_UNRECOVERED_READ : NVME_WRITE_FAULT;
}

static unsigned next_range(struct request *r);

/* The image did its part. */
static unsigned conclude(struct request *r)
{
    struct nvme *n = r->n;
    unsigned status = status_of(&r->io);
    uint32_t len = (uint32_t)r->io.len;
    if (status != NVME_OK) {
        return status;
    }
    switch (r->c.opcode) {
    case IO_READ:
        n->reads++;
        n->sectors_read += len / NVME_SECTOR;
        return NVME_OK;
    case IO_WRITE:
        n->writes++;
        n->sectors_written += len / NVME_SECTOR;
        return NVME_OK;
    case IO_COMPARE:
        status = nvme_copy(n, r->c.prp, r->data + len, len, NVME_FROM_GUEST);
        return status == NVME_OK && memcmp(r->data, r->data + len, len) != 0 ? NVME_COMPARE_FAILURE
                                                                             : status;
    case IO_DATASET_MANAGEMENT:
        return next_range(r);
    default:
        return NVME_OK;
    }
}

/* Also of a read that failed: some of it may be there. */
static void tell_written(const struct request *r)
{
    if (r->c.opcode == IO_READ) {
        gmem_mark_views(r->n->mem, r->io.iov, r->io.iov_count);
    }
}

static void end(struct request *r, unsigned status)
{
    nvme_complete(r->n, &r->c, status, 0);
    free(r);
}

static void done(struct block_request *io)
{
    struct request *r = container_of(io, struct request, io);
    struct nvme *n = r->n;
    n->in_flight--;
    n->bytes -= r->cost;
    n->cq[n->sq[r->c.sq].cq].owed--;
    tell_written(r);
    if (n->forgetting) {
        free(r);
        return;
    }
    unsigned status = conclude(r);
    if (status != NVME_LATER) {
        end(r, status);
    }
    nvme_serve(n);
}

/* The completion queue keeps a place for it. */
static unsigned submit(struct request *r)
{
    struct nvme *n = r->n;
    n->in_flight++;
    n->bytes += r->cost;
    n->cq[n->sq[r->c.sq].cq].owed++;
    block_submit(n->disk, &r->io);
    return NVME_LATER;
}

/* A request on len bytes from the command's first sector on, and room for data. */
static struct request *request_new(struct nvme *n, const struct nvme_command *c, enum block_op op,
                                   uint64_t len, uint64_t room)
{
    struct request *r = malloc(sizeof *r + room);
    if (r == NULL) {
        return NULL;
    }
    r->n = n;
    r->c = *c;
    r->cost = sizeof *r + room;
    r->io = (struct block_request){
        .op = op,
        .fua = n->feature[FEATURE_WRITE_CACHE] == 0 || (c->dw[12] & DW12_FUA),
        .offset = (c->dw[10] | (uint64_t)c->dw[11] << 32) * NVME_SECTOR,
        .len = len,
        .buf = r->data,
        .done = done,
    };
    return r;
}

/* -- Commands ---------------------------------------------------------------------------------- */
static unsigned check(const struct nvme *n, uint64_t lba, uint64_t sectors, bool writes)
{
    if (lba > n->sectors || sectors > n->sectors - lba) {
        return NVME_OUT_OF_RANGE;
    }
    return writes && n->readonly ? NVME_WRITE_PROTECTED : NVME_OK;
}

static unsigned transfer(struct nvme *n, const struct nvme_command *c, uint32_t len)
{
    bool write = c->opcode == IO_WRITE;
    unsigned pages = len / NVME_PAGE + 2; /* that it may touch */
    struct request *r = request_new(n, c, write ? BLOCK_OP_WRITE : BLOCK_OP_READ, len,
                                    pages * sizeof(struct iovec));
    if (r == NULL) {
        return NVME_INTERNAL_ERROR;
    }
    struct gmem_views views = { (struct iovec *)r->data, pages, 0 };
    unsigned status = nvme_view(n, c->prp, len, write ? NVME_FROM_GUEST : NVME_TO_GUEST, &views);
    r->io.iov = views.iov;
    r->io.iov_count = views.count;
    if (status != NVME_OK) {
        free(r);
        return status;
    }
    if (block_try(n->disk, &r->io)) {
        tell_written(r);
        status = conclude(r);
        free(r);
        return status;
    }
    return submit(r);
}

static unsigned compare(struct nvme *n, const struct nvme_command *c, uint32_t len)
{
    struct request *r = request_new(n, c, BLOCK_OP_READ, len, 2ull * len);
    return r == NULL ? NVME_INTERNAL_ERROR : submit(r);
}

static unsigned without_data(struct nvme *n, const struct nvme_command *c, enum block_op op,
                             uint64_t len)
{
    struct request *r = request_new(n, c, op, len, 0);
    if (r == NULL) {
        return NVME_INTERNAL_ERROR;
    }
    r->io.may_unmap = c->dw[12] & DW12_DEALLOCATE;
    return submit(r);
}

/* Ranges one after the other: context, length, first sector (6.7). */
static unsigned next_range(struct request *r)
{
    while (r->at < r->ranges) {
        const uint8_t *range = r->data + RANGE_BYTES * r->at++;
        uint64_t lba = load_le64(range + 8), sectors = load_le32(range + 4);
        if (sectors != 0) {
            r->io.offset = lba * NVME_SECTOR;
            r->io.len = sectors * NVME_SECTOR;
            return submit(r);
        }
    }
    return NVME_OK;
}

static unsigned dataset_management(struct nvme *n, const struct nvme_command *c)
{
    uint32_t ranges = (c->dw[10] & 0xff) + 1;
    struct request *r = request_new(n, c, BLOCK_OP_DISCARD, 0, (uint64_t)ranges * RANGE_BYTES);
    if (r == NULL) {
        return NVME_INTERNAL_ERROR;
    }
    r->io.fua = false;
    r->io.result = 0;
    r->at = 0;
    r->ranges = ranges;
    unsigned status = nvme_copy(n, c->prp, r->data, ranges * RANGE_BYTES, NVME_FROM_GUEST);
    for (uint32_t i = 0; i < ranges && status == NVME_OK; i++) {
        const uint8_t *range = r->data + RANGE_BYTES * i;
        status = check(n, load_le64(range + 8), load_le32(range + 4), true);
    }
    if (status == NVME_OK && (c->dw[11] & DW11_DEALLOCATE)) { /* else only hints */
        status = next_range(r);
    }
    if (status != NVME_LATER) {
        free(r);
    }
    return status;
}

unsigned nvme_io(struct nvme *n, const struct nvme_command *c)
{
    bool flush = c->opcode == IO_FLUSH;
    if (c->nsid != NVME_NSID && !(flush && c->nsid == NVME_NSID_ALL)) {
        return NVME_INVALID_NAMESPACE;
    }
    uint64_t sectors = (c->dw[12] & 0xffff) + 1ull;
    uint64_t lba = c->dw[10] | (uint64_t)c->dw[11] << 32;
    bool moves = c->opcode == IO_READ || c->opcode == IO_WRITE || c->opcode == IO_COMPARE;
    bool writes = c->opcode == IO_WRITE || c->opcode == IO_WRITE_ZEROES;
    bool ranged = moves || writes;
    unsigned status = ranged ? check(n, lba, sectors, writes) : NVME_OK;
    if (status != NVME_OK) {
        return status;
    }
    if (moves && sectors > NVME_TRANSFER_MAX / NVME_SECTOR) {
        return NVME_INVALID_FIELD;
    }
    switch (c->opcode) {
    case IO_READ:
    case IO_WRITE:
        return transfer(n, c, (uint32_t)sectors * NVME_SECTOR);
    case IO_COMPARE:
        return compare(n, c, (uint32_t)sectors * NVME_SECTOR);
    case IO_WRITE_ZEROES:
        return without_data(n, c, BLOCK_OP_ZERO, sectors * NVME_SECTOR);
    case IO_FLUSH:
        return without_data(n, c, BLOCK_OP_FLUSH, 0);
    case IO_DATASET_MANAGEMENT:
        return dataset_management(n, c);
    default:
        return NVME_INVALID_OPCODE;
    }
}

/* -- Shutdown (7.6.2) -------------------------------------------------------------------------- */
static void shut_down(struct block_request *io)
{
    struct nvme *n = io->ctx;
    n->in_flight--;
    if (!n->forgetting) {
        n->csts = (n->csts & ~(uint32_t)CSTS_SHST) | CSTS_SHST_DONE;
    }
    free(io);
}

void nvme_start_shutdown(struct nvme *n)
{
    struct block_request *io = malloc(sizeof *io);
    if (io == NULL) {
        nvme_fatal(n, "no memory for the last flush");
        return;
    }
    *io = (struct block_request){ .op = BLOCK_OP_FLUSH, .done = shut_down, .ctx = n };
    n->csts |= CSTS_SHST_BUSY;
    n->in_flight++;
    block_submit(n->disk, io);
}
