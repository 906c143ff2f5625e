/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtqueues, split and packed (virtio 1.2, 2.7 and 2.8), with indirect descriptors and event
 * indices. Everything in a ring is the guest's and may change under our eyes: a descriptor is
 * copied, checked, and only the copy is used. What breaks the rules is reported once; the transport
 * then asks for a reset. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_QUEUE_H
#define SOSIA_DEV_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/gmem.h"
#include "state/state.h"

#define VIRTQ_SIZE_MAX 256u /* what firmware drivers can take */
#define VIRTQ_SEGS_MAX 512u /* of one chain, indirect ones counted */
#define VIRTQ_NO_VECTOR 0xffffu

struct virtq {
    struct gmem *mem; /* borrowed */
    /* What the driver set up */
    uint16_t size; /* entries */
    uint16_t size_max;
    uint16_t vector; /* MSI-X, or VIRTQ_NO_VECTOR */
    bool enabled;
    uint64_t desc;   /* descriptor table or packed ring */
    uint64_t driver; /* available ring or driver event suppression */
    uint64_t device; /* used ring or device event suppression */
    /* How far we are. Split: free-running indices; packed: places in the ring. */
    uint16_t next_avail;
    uint16_t next_used;
    bool avail_wrap; /* packed: the wrap counters */
    bool used_wrap;
    uint16_t unsignalled; /* entries used since the driver was last considered for an interrupt */
    /* What was negotiated */
    bool packed;
    bool event_idx;
    bool indirect;
};

struct virtq_seg {
    gpa_t gpa;
    uint32_t len;
};

/* One buffer of the driver: `outs` segments for the device to read, then `ins` to write. */
struct virtq_chain {
    uint16_t id;    /* what the used entry names */
    uint16_t descs; /* places it takes in a packed ring */
    uint16_t outs;
    uint16_t ins;
    uint32_t out_len; /* bytes */
    uint32_t in_len;
    struct virtq_seg seg[VIRTQ_SEGS_MAX];
};

void virtq_init(struct virtq *q, struct gmem *mem, unsigned size_max);
void virtq_reset(struct virtq *q);
/* The driver says that it is ready: false when its numbers make no queue. */
bool virtq_enable(struct virtq *q);
/* A legacy driver gives one page number for all three parts. */
void virtq_set_legacy_page(struct virtq *q, uint32_t page);
/* -EINVAL with one line: no driver could have brought the queue into this state. */
MUST_CHECK int virtq_post_load(struct virtq *q, struct err *e);

/* The next available buffer: 1 and *c, 0 none. -EINVAL: the ring is malformed, *why says how. */
MUST_CHECK int virtq_pop(struct virtq *q, struct virtq_chain *c, const char **why);
/* Undo the last pop that was not undone; no entry was used since. */
void virtq_unpop(struct virtq *q, const struct virtq_chain *c);
/* Give a buffer back with `written` bytes in it. -EFAULT: the ring is not in RAM. */
MUST_CHECK int virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);
/* Several at once, seen by the driver together. */
struct virtq_used {
    uint16_t id;
    uint16_t descs;
    uint32_t written;
};
MUST_CHECK int virtq_push_all(struct virtq *q, const struct virtq_used *used, unsigned count);
/* After pushes: does the driver want an interrupt for them? */
bool virtq_wants_interrupt(struct virtq *q);
/* Ask the driver for a notification of the next buffer, or to spare us. Nothing may be lost: after
 * asking, look for buffers once more. */
void virtq_ask_notify(struct virtq *q, bool on);

/* Bytes [offset, offset + len) of what the device may read, or write. -EINVAL: the chain is
 * shorter; -EFAULT: not RAM. */
MUST_CHECK int virtq_read(const struct virtq *q, const struct virtq_chain *c, uint32_t offset,
                          void *buf, size_t len);
MUST_CHECK int virtq_write(const struct virtq *q, const struct virtq_chain *c, uint32_t offset,
                           const void *buf, size_t len);
MUST_CHECK int virtq_zero(const struct virtq *q, const struct virtq_chain *c, uint32_t offset,
                          size_t len);
/* The same for a device that kept a copy of the segments to write. */
MUST_CHECK int virtq_write_segs(const struct virtq *q, const struct virtq_seg *seg, unsigned count,
                                uint32_t offset, const void *buf, size_t len);
/* Such bytes as the host's memory, for a transfer without a copy; errors as of gmem_view, too. */
MUST_CHECK int virtq_view(const struct virtq *q, const struct virtq_chain *c, enum gmem_use use,
                          uint32_t offset, size_t len, struct gmem_views *v);

extern const struct state_field virtq_state[];

#endif
