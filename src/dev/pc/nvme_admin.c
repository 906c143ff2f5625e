/* SPDX-License-Identifier: Apache-2.0
 *
 * Admin commands (NVM Express 1.4, chapter 5): queues, features, asynchronous events.
 */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/nvme_int.h"

enum nvme_admin_opcode {
    ADMIN_DELETE_SQ = 0x00,
    ADMIN_CREATE_SQ = 0x01,
    ADMIN_GET_LOG = 0x02,
    ADMIN_DELETE_CQ = 0x04,
    ADMIN_CREATE_CQ = 0x05,
    ADMIN_IDENTIFY = 0x06,
    ADMIN_ABORT = 0x08,
    ADMIN_SET_FEATURES = 0x09,
    ADMIN_GET_FEATURES = 0x0a,
    ADMIN_EVENT_REQUEST = 0x0c,
};
#define QUEUE_CONTIGUOUS 1u
#define QUEUE_INTERRUPTS 2u
#define ABORT_FAILED 1u
#define FEATURE_SAVE (1u << 31)
#define THRESHOLD_UNDER (1u << 20)
#define LOG_PAGE_ERROR 1u

/* -- Queues ------------------------------------------------------------------------------------ */
/* What the creation of either kind checks: number, size, memory. */
static unsigned check_queue(const struct nvme_command *c, bool taken)
{
    unsigned id = c->dw[10] & 0xffff, last = c->dw[10] >> 16;
    if (id == 0 || id >= NVME_QUEUES || taken) {
        return NVME_INVALID_QUEUE;
    }
    if (last == 0 || last >= NVME_ENTRIES_MAX) {
        return NVME_INVALID_QUEUE_SIZE;
    }
    if (!(c->dw[11] & QUEUE_CONTIGUOUS)) {
        return NVME_INVALID_FIELD;
    }
    return c->prp[0] & (NVME_PAGE - 1) ? NVME_INVALID_PRP_OFFSET : NVME_OK;
}

static bool there(unsigned id, const uint16_t *size) { return id < NVME_QUEUES && *size != 0; }

static unsigned create_cq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = c->dw[10] & 0xffff, vector = c->dw[11] >> 16;
    struct nvme_cq *q = &n->cq[id < NVME_QUEUES ? id : 0];
    unsigned status = check_queue(c, there(id, &q->size));
    if (status != NVME_OK) {
        return status;
    }
    if (vector >= NVME_QUEUES || (vector != 0 && !pci_msix_enabled(&n->pci))) {
        return NVME_INVALID_VECTOR;
    }
    if ((n->cc >> CC_IOCQES_SHIFT & 0xf) != NVME_CQE_LOG) {
        return NVME_INVALID_FIELD;
    }
    *q = (struct nvme_cq){ .base = c->prp[0],
                           .size = (uint16_t)((c->dw[10] >> 16) + 1),
                           .vector = (uint16_t)vector,
                           .interrupts = c->dw[11] & QUEUE_INTERRUPTS,
                           .phase = true };
    return NVME_OK;
}

static unsigned create_sq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = c->dw[10] & 0xffff, cq = c->dw[11] >> 16;
    struct nvme_sq *q = &n->sq[id < NVME_QUEUES ? id : 0];
    unsigned status = check_queue(c, there(id, &q->size));
    if (status != NVME_OK) {
        return status;
    }
    if (cq == 0 || cq >= NVME_QUEUES || n->cq[cq].size == 0) {
        return NVME_CQ_INVALID;
    }
    if ((n->cc >> CC_IOSQES_SHIFT & 0xf) != NVME_SQE_LOG) {
        return NVME_INVALID_FIELD;
    }
    *q = (struct nvme_sq){ .base = c->prp[0],
                           .size = (uint16_t)((c->dw[10] >> 16) + 1),
                           .cq = (uint16_t)cq };
    return NVME_OK;
}

/* What was taken from the queue ends first. */
static unsigned delete_sq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = c->dw[10] & 0xffff;
    if (id == 0 || id >= NVME_QUEUES || n->sq[id].size == 0) {
        return NVME_INVALID_QUEUE;
    }
    while (n->in_flight != 0) {
        block_queue_drain(n->disk);
    }
    n->sq[id] = (struct nvme_sq){ 0 };
    return NVME_OK;
}

static unsigned delete_cq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = c->dw[10] & 0xffff;
    if (id == 0 || id >= NVME_QUEUES || n->cq[id].size == 0) {
        return NVME_INVALID_QUEUE;
    }
    for (unsigned i = 1; i < NVME_QUEUES; i++) {
        if (n->sq[i].size != 0 && n->sq[i].cq == id) {
            return NVME_INVALID_DELETION;
        }
    }
    n->cq[id] = (struct nvme_cq){ 0 };
    return NVME_OK;
}

static bool has_io_queues(const struct nvme *n)
{
    for (unsigned i = 1; i < NVME_QUEUES; i++) {
        if (n->sq[i].size != 0 || n->cq[i].size != 0) {
            return true;
        }
    }
    return false;
}

/* -- Features (5.21) --------------------------------------------------------------------------- */
void nvme_default_features(struct nvme *n)
{
    memset(n->feature, 0, sizeof n->feature);
    n->feature[FEATURE_ARBITRATION] = 7; /* bursts as we like */
    n->feature[FEATURE_TEMPERATURE] = NVME_WARM_KELVIN;
    n->feature[FEATURE_WRITE_CACHE] = 1;
    n->feature[FEATURE_QUEUES] = (NVME_IO_QUEUES - 1) << 16 | (NVME_IO_QUEUES - 1);
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        n->vector_feature[i] = i;
    }
}

/* The bits of a feature that can be set; 0: there is no such feature. */
static uint32_t feature_bits(unsigned id)
{
    switch (id) {
    case FEATURE_ARBITRATION:
        return 0xffffff07;
    case FEATURE_POWER:
        return 0x1f;
    case FEATURE_TEMPERATURE:
        return 0x3fffff;
    case FEATURE_ERROR_RECOVERY:
        return 0x1ffff;
    case FEATURE_WRITE_CACHE:
    case FEATURE_ATOMICITY:
        return 1;
    case FEATURE_QUEUES:
        return 0xffffffff;
    case FEATURE_COALESCING:
        return 0xffff;
    case FEATURE_VECTOR:
        return 0x1ffff;
    case FEATURE_EVENTS:
        return 0xffff;
    default:
        return 0;
    }
}

static unsigned set_queues(struct nvme *n, uint32_t v, uint32_t *result)
{
    uint32_t sq = v & 0xffff, cq = v >> 16;
    if (sq == 0xffff || cq == 0xffff) {
        return NVME_INVALID_FIELD;
    }
    if (has_io_queues(n)) {
        return NVME_SEQUENCE_ERROR;
    }
    *result = n->feature[FEATURE_QUEUES]; /* there are never fewer */
    return NVME_OK;
}

static unsigned set_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    unsigned id = c->dw[10] & 0xff;
    uint32_t v = c->dw[11] & feature_bits(id);
    if (feature_bits(id) == 0) {
        return NVME_INVALID_FIELD;
    }
    if (c->dw[10] & FEATURE_SAVE) {
        return NVME_NOT_SAVEABLE;
    }
    switch (id) {
    case FEATURE_QUEUES:
        return set_queues(n, v, result);
    case FEATURE_VECTOR:
        if ((v & 0xffff) >= NVME_QUEUES) {
            return NVME_INVALID_FIELD;
        }
        n->vector_feature[v & 0xffff] = v;
        return NVME_OK;
    case FEATURE_POWER: /* there is one state */
        if (v != 0) {
            return NVME_INVALID_FIELD;
        }
        return NVME_OK;
    case FEATURE_TEMPERATURE: /* it is never too cold */
        if (!(v & THRESHOLD_UNDER)) {
            n->feature[id] = v & 0xffff;
        }
        return NVME_OK;
    default:
        n->feature[id] = v;
        return NVME_OK;
    }
}

static unsigned get_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    unsigned id = c->dw[10] & 0xff;
    if (feature_bits(id) == 0) {
        return NVME_INVALID_FIELD;
    }
    if (id == FEATURE_VECTOR) {
        unsigned vector = c->dw[11] & 0xffff;
        if (vector >= NVME_QUEUES) {
            return NVME_INVALID_FIELD;
        }
        *result = n->vector_feature[vector];
    } else if (id == FEATURE_TEMPERATURE && (c->dw[11] & THRESHOLD_UNDER)) {
        *result = 0;
    } else {
        *result = n->feature[id];
    }
    return NVME_OK;
}

/* -- Asynchronous events (5.2) ----------------------------------------------------------------- */
/* After one, the next of its type waits until the guest has read the error log. */
void nvme_tell_events(struct nvme *n)
{
    if (n->events == 0 || n->events_masked || n->event_requests == 0 || n->sq[0].size == 0 ||
        !nvme_cq_has_room(&n->cq[0])) {
        return;
    }
    unsigned event = (unsigned)__builtin_ctz(n->events);
    n->events = (uint8_t)(n->events & ~(1u << event));
    n->events_masked = true;
    uint16_t cid = n->event_cid[--n->event_requests];
    nvme_cq_post(n, 0, cid, NVME_OK, event << 8 | LOG_PAGE_ERROR << 16);
}

void nvme_event(struct nvme *n, enum nvme_event event)
{
    n->events |= (uint8_t)(1u << event);
    nvme_tell_events(n);
}

static unsigned event_request(struct nvme *n, const struct nvme_command *c)
{
    if (n->event_requests == NVME_EVENTS_MAX) {
        return NVME_TOO_MANY_EVENTS;
    }
    n->event_cid[n->event_requests++] = c->cid;
    return NVME_LATER;
}

/* -- All --------------------------------------------------------------------------------------- */
unsigned nvme_admin(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    switch (c->opcode) {
    case ADMIN_DELETE_SQ:
        return delete_sq(n, c);
    case ADMIN_CREATE_SQ:
        return create_sq(n, c);
    case ADMIN_GET_LOG:
        return nvme_get_log(n, c);
    case ADMIN_DELETE_CQ:
        return delete_cq(n, c);
    case ADMIN_CREATE_CQ:
        return create_cq(n, c);
    case ADMIN_IDENTIFY:
        return nvme_identify(n, c);
    case ADMIN_ABORT: /* it is with the image, and ends soon */
        *result = ABORT_FAILED;
        return NVME_OK;
    case ADMIN_SET_FEATURES:
        return set_features(n, c, result);
    case ADMIN_GET_FEATURES:
        return get_features(n, c, result);
    case ADMIN_EVENT_REQUEST:
        return event_request(n, c);
    default:
        return NVME_INVALID_OPCODE;
    }
}
