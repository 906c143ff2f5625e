/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-scsi (virtio 1.2, 5.6): carries commands to the units of scsi_target.c.
 *
 * UNIMPL: hot-plug and change events, T10 protection information. Task management ends commands by
 * waiting for them, as an aborted one may have been done.
 */
#include "dev/virtio/scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"

#define SCSI_F_INOUT BIT(0)
#define QUEUE_CONTROL 0u
#define QUEUE_EVENT 1u
#define QUEUE_REQUEST 2u
#define SENSE_DEFAULT 96u
#define CDB_DEFAULT 32u
#define BYTES_MAX MIB(64)

enum scsi_config {
    CONFIG_QUEUES = 0,
    CONFIG_SEG_MAX = 4,
    CONFIG_MAX_SECTORS = 8,
    CONFIG_CMD_PER_LUN = 12,
    CONFIG_EVENT_SIZE = 16,
    CONFIG_SENSE_SIZE = 20,
    CONFIG_CDB_SIZE = 24,
    CONFIG_MAX_CHANNEL = 28,
    CONFIG_MAX_TARGET = 30,
    CONFIG_MAX_LUN = 32,
    CONFIG_SIZE = 36,
};

/* struct virtio_scsi_req_cmd: lun, id, task_attr, prio, crn, then the CDB */
#define REQ_CDB 19u
/* The answer: sense_len, residual, status qualifier, status, response, then the sense data */
enum response_field {
    RESP_SENSE_LEN = 0,
    RESP_RESIDUAL = 4,
    RESP_STATUS = 10,
    RESP_RESPONSE = 11,
    RESP_SENSE = 12
};
enum response {
    RESPONSE_OK = 0,
    RESPONSE_OVERRUN = 1,
    RESPONSE_BAD_TARGET = 3,
    RESPONSE_FAILURE = 9,
    RESPONSE_BAD_LUN = 12
};

enum control_type { CONTROL_TMF = 0, CONTROL_AN_QUERY = 1, CONTROL_AN_SUBSCRIBE = 2 };
#define TMF_RESETS 0x58u /* subtypes 3, 4, 6: nexus, unit, clear ACA apart */
#define SENSE_MAX 256u
#define CONTROL_BYTES 24u

struct request {
    struct scsi_command c;
    struct virtio_scsi *d;
    struct virtq_used used;
    unsigned queue;
    uint64_t cost;
    uint32_t sense_size;
    uint32_t in_data; /* bytes that the driver has room for behind the answer */
    uint32_t out_data;
    unsigned segs;
    struct virtq_seg seg[]; /* what it lets us write */
};

static struct virtio_scsi *scsi_of(struct virtio *v)
{
    return container_of(v, struct virtio_scsi, v);
}

static void request_free(struct request *r)
{
    free(r->c.data);
    free(r->c.iov);
    free(r);
}

/* -- Ends -------------------------------------------------------------------------------------- */
static void respond(struct request *r, enum response response)
{
    struct virtio_scsi *d = r->d;
    const struct scsi_command *c = &r->c;
    const struct virtq *q = &d->v.queue[r->queue];
    uint8_t answer[RESP_SENSE + SENSE_MAX] = { 0 };
    bool sense = response == RESPONSE_OK && c->status == SCSI_CHECK_CONDITION;
    uint32_t sense_len = sense ? SCSI_SENSE_BYTES : 0;
    sense_len = sense_len < r->sense_size ? sense_len : r->sense_size;
    uint32_t moved = c->in_len != 0 || r->in_data != 0 ? r->in_data - c->in_len : 0;
    store_le32(answer + RESP_SENSE_LEN, sense_len);
    store_le32(answer + RESP_RESIDUAL, sense ? r->in_data + r->out_data : moved);
    answer[RESP_STATUS] = (uint8_t)c->status;
    answer[RESP_RESPONSE] = (uint8_t)response;
    memcpy(answer + RESP_SENSE, c->sense, sense_len);
    uint32_t head = RESP_SENSE + r->sense_size;
    int e = virtq_write_segs(q, r->seg, r->segs, 0, answer, head);
    if (c->io.op == BLOCK_OP_READ && c->io.iov != NULL) { /* failed ones, too */
        gmem_mark_views(q->mem, c->iov, c->iov_count);
    } else if (e == 0 && c->in_len != 0) {
        e = virtq_write_segs(q, r->seg, r->segs, head, c->data, c->in_len);
    }
    if (e < 0) {
        virtio_break(&d->v, "a command's buffers are outside of memory");
    } else {
        r->used.written = head + c->in_len;
        virtio_push_all(&d->v, r->queue, &r->used, 1);
        virtio_interrupt(&d->v, r->queue);
    }
    request_free(r);
}

static void command_done(struct scsi_command *c)
{
    struct request *r = container_of(c, struct request, c);
    struct virtio_scsi *d = r->d;
    d->bytes -= r->cost;
    respond(r, RESPONSE_OK);
    uint64_t stalled = d->stalled;
    for (d->stalled = 0; stalled != 0; stalled &= stalled - 1) {
        virtio_kick(&d->v, (unsigned)__builtin_ctzll(stalled));
    }
}

/* -- Requests ---------------------------------------------------------------------------------- */
/* 5.6.6.1: 1, target, then the unit in flat or peripheral addressing. */
static int target_of(const struct virtio_scsi *d, const uint8_t *lun)
{
    return lun[0] == 1 && lun[1] < d->targets ? lun[1] : -1;
}

static unsigned unit_number(const uint8_t *lun) { return load_be16(lun + 2) & 0x3fff; }

/* A view of the blocks that the command moves, or a copy of what it looks at and room for its
 * answer. */
static int get_data(struct request *r, const struct virtq_chain *ch, uint32_t head_len,
                    uint32_t answer_len)
{
    const struct virtq *q = &r->d->v.queue[r->queue];
    struct scsi_command *c = &r->c;
    enum scsi_motion motion = scsi_motion(c->cdb);
    if (motion != SCSI_MOVES_NOTHING) {
        bool reads = motion == SCSI_READS;
        struct gmem_views v = { .max = reads ? ch->ins : ch->outs };
        r->cost = sizeof *r + v.max * sizeof *v.iov;
        c->iov = v.iov = malloc(v.max * sizeof *v.iov);
        int e = v.iov == NULL ? -ENOMEM
                : reads       ? virtq_view(q, ch, GMEM_FROM_FILE, answer_len, r->in_data, &v)
                              : virtq_view(q, ch, GMEM_TO_FILE, head_len, r->out_data, &v);
        c->iov_count = v.count;
        return e;
    }
    uint32_t len = r->out_data > r->in_data ? r->out_data : r->in_data;
    r->cost = sizeof *r + len;
    c->data = len != 0 ? malloc(len) : NULL;
    if (len != 0 && c->data == NULL) {
        return -ENOMEM;
    }
    return r->out_data != 0 ? virtq_read(q, ch, head_len, c->data, r->out_data) : 0;
}

/* False: the device is broken. */
static bool take_request(struct virtio_scsi *d, unsigned n)
{
    struct virtio *v = &d->v;
    const struct virtq_chain *ch = v->chain;
    uint8_t head[REQ_CDB + 256];
    uint32_t head_len = REQ_CDB + d->cdb_size;
    uint32_t answer_len = RESP_SENSE + d->sense_size;
    if (ch->out_len < head_len || ch->in_len < answer_len ||
        virtq_read(&v->queue[n], ch, 0, head, head_len) < 0) {
        virtio_break(v, "a command without header or answer");
        return false;
    }
    uint32_t out = ch->out_len - head_len;
    uint32_t in = ch->in_len - answer_len;
    struct request *r = malloc(sizeof *r + ch->ins * sizeof *r->seg);
    if (r == NULL) {
        virtio_break(v, "no memory for a command");
        return false;
    }
    *r = (struct request){ .d = d, .queue = n, .sense_size = d->sense_size, .segs = ch->ins };
    r->used = (struct virtq_used){ ch->id, ch->descs, 0 };
    memcpy(r->seg, ch->seg + ch->outs, ch->ins * sizeof *r->seg);
    r->in_data = in;
    r->out_data = out;
    r->c.out_len = out;
    r->c.in_room = in;
    r->c.done = command_done;
    memcpy(r->c.cdb, head + REQ_CDB, d->cdb_size < SCSI_CDB_MAX ? d->cdb_size : SCSI_CDB_MAX);
    int target = target_of(d, head);
    bool too_long = out > SCSI_DATA_MAX || in > SCSI_DATA_MAX;
    if (target < 0 || too_long) {
        respond(r, target < 0 ? RESPONSE_BAD_TARGET : RESPONSE_OVERRUN);
        return true;
    }
    int e = get_data(r, ch, head_len, answer_len);
    if (e < 0) {
        virtio_break(v, e == -ENOMEM ? "no memory for a command"
                                     : "a command's data is outside of memory");
        request_free(r);
        return false;
    }
    d->bytes += r->cost;
    r->c.unit = &d->unit[target];
    if (unit_number(head + 0) != 0) {
        scsi_no_unit(&r->c);
    } else {
        scsi_execute(&r->c);
    }
    return true;
}

static void take_requests(struct virtio_scsi *d, unsigned n)
{
    struct virtio *v = &d->v;
    do {
        virtq_ask_notify(&v->queue[n], false);
        for (;;) {
            if (d->bytes >= BYTES_MAX) {
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

/* -- Control ----------------------------------------------------------------------------------- */
static void drain(struct virtio_scsi *d)
{
    for (unsigned i = 0; i < d->targets; i++) {
        block_queue_drain(d->unit[i].disk);
    }
}

/* Returns the answer's length. */
static uint32_t control_answer(struct virtio_scsi *d, const uint8_t *req, uint8_t *answer)
{
    switch (load_le32(req)) {
    case CONTROL_TMF: {
        int target = target_of(d, req + 8);
        uint32_t subtype = load_le32(req + 4);
        drain(d);
        if (target >= 0 && subtype < 32 && (TMF_RESETS >> subtype & 1)) {
            scsi_unit_reset(&d->unit[target]);
        }
        answer[0] = target >= 0 ? RESPONSE_OK : RESPONSE_BAD_TARGET;
        return 1;
    }
    case CONTROL_AN_QUERY:
    case CONTROL_AN_SUBSCRIBE:
        store_le32(answer, 0); /* no asynchronous notifications */
        answer[4] = RESPONSE_OK;
        return 5;
    default:
        answer[0] = RESPONSE_FAILURE;
        return 1;
    }
}

static void control(struct virtio_scsi *d)
{
    struct virtio *v = &d->v;
    do {
        while (virtio_next(v, QUEUE_CONTROL)) {
            uint8_t req[CONTROL_BYTES] = { 0 };
            uint8_t answer[8];
            const struct virtq_used used = { v->chain->id, v->chain->descs, 0 };
            uint32_t len = v->chain->out_len < sizeof req ? v->chain->out_len : sizeof req;
            if (len < 4 || virtq_read(&v->queue[QUEUE_CONTROL], v->chain, 0, req, len) < 0) {
                virtio_break(v, "a control request without header");
                return;
            }
            /* The drain may take more requests into v->chain. */
            struct virtq_seg seg[8];
            unsigned segs = v->chain->ins < ARRAY_LEN(seg) ? v->chain->ins : ARRAY_LEN(seg);
            memcpy(seg, v->chain->seg + v->chain->outs, segs * sizeof *seg);
            uint32_t answer_len = control_answer(d, req, answer);
            if (virtq_write_segs(&v->queue[QUEUE_CONTROL], seg, segs, 0, answer, answer_len) < 0) {
                virtio_break(v, "a control request without room for the answer");
                return;
            }
            struct virtq_used done = used;
            done.written = answer_len;
            virtio_push_all(v, QUEUE_CONTROL, &done, 1);
        }
    } while (!virtio_await(v, QUEUE_CONTROL));
    virtio_interrupt(v, QUEUE_CONTROL);
}

static void scsi_notify(struct virtio *v, unsigned n)
{
    if (n == QUEUE_CONTROL) {
        control(scsi_of(v));
    } else if (n >= QUEUE_REQUEST) {
        take_requests(scsi_of(v), n);
    }
}

/* -- Configuration ----------------------------------------------------------------------------- */
static void scsi_config_fill(struct virtio *v)
{
    struct virtio_scsi *d = scsi_of(v);
    uint8_t *c = v->config;
    store_le32(c + CONFIG_QUEUES, v->queue_count - QUEUE_REQUEST);
    store_le32(c + CONFIG_SEG_MAX, VIRTQ_SIZE_MAX - 2);
    store_le32(c + CONFIG_MAX_SECTORS, SCSI_DATA_MAX / 512);
    store_le32(c + CONFIG_CMD_PER_LUN, 128);
    store_le32(c + CONFIG_EVENT_SIZE, 16);
    store_le32(c + CONFIG_SENSE_SIZE, d->sense_size);
    store_le32(c + CONFIG_CDB_SIZE, d->cdb_size);
    store_le16(c + CONFIG_MAX_CHANNEL, 0);
    store_le16(c + CONFIG_MAX_TARGET, (uint16_t)(d->targets != 0 ? d->targets - 1 : 0));
    store_le32(c + CONFIG_MAX_LUN, 0);
}

/* The driver chooses the sizes, before it starts. */
static void scsi_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_scsi *d = scsi_of(v);
    if (size != 4 || virtio_running(v)) {
        return;
    }
    if (offset == CONFIG_SENSE_SIZE && value <= SENSE_MAX) {
        d->sense_size = value;
    } else if (offset == CONFIG_CDB_SIZE && value >= 6 && value <= 255) {
        d->cdb_size = value;
    }
}

static void forget(struct virtio_scsi *d)
{
    d->stalled = 0;
    d->sense_size = SENSE_DEFAULT;
    d->cdb_size = CDB_DEFAULT;
    for (unsigned i = 0; i < d->targets; i++) {
        scsi_unit_reset(&d->unit[i]);
    }
}

static void scsi_stop(struct virtio *v)
{
    drain(scsi_of(v));
    forget(scsi_of(v));
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field scsi_state[] = {
    STATE_STRUCT(struct virtio_scsi, v, virtio_state),
    STATE(struct virtio_scsi, sense_size),
    STATE(struct virtio_scsi, cdb_size),
    STATE_STRUCTS(struct virtio_scsi, unit, scsi_unit_state),
    STATE_END,
};

static void scsi_quiesce(void *dev)
{
    struct virtio_scsi *d = dev;
    do {
        drain(d);
    } while (d->bytes != 0);
}

static int scsi_post_load(void *dev, struct err *e)
{
    struct virtio_scsi *d = dev;
    if (d->sense_size > SENSE_MAX || d->cdb_size < 6 || d->cdb_size > 255) {
        return err_set(e, -EINVAL, "state has %u bytes of sense, %u of command", d->sense_size,
                       d->cdb_size);
    }
    return virtio_post_load(dev, e);
}

static const struct dev_class scsi_dev_class = {
    .name = "virtio-scsi",
    .version = 1,
    .state = scsi_state,
    .size = sizeof(struct virtio_scsi),
    .reset = virtio_hard_reset,
    .post_load = scsi_post_load,
    .quiesce = scsi_quiesce,
};

static const struct virtio_class scsi_class = {
    .dev = &scsi_dev_class,
    .type = 8,
    .transitional_id = 0x1004,
    .pci_class = 0x010000,
    .config_size = CONFIG_SIZE,
    .config_fill = scsi_config_fill,
    .config_write = scsi_config_write,
    .notify = scsi_notify,
    .stop = scsi_stop,
};

void virtio_scsi_init(struct virtio_scsi *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                      unsigned queues, const struct virtio_options *o)
{
    memset(d, 0, sizeof *d);
    forget(d);
    virtio_init(&d->v, &scsi_class, "virtio-scsi", p, b, devfn, o, SCSI_F_INOUT,
                QUEUE_REQUEST + queues);
}

void virtio_scsi_add(struct virtio_scsi *d, struct block_queue *disk, bool cdrom, bool readonly,
                     const char *serial)
{
    scsi_unit_init(&d->unit[d->targets++], disk, cdrom, readonly, serial);
}

void virtio_scsi_fini(struct virtio_scsi *d)
{
    if (d->v.chain != NULL) {
        drain(d);
        virtio_fini(&d->v);
    }
}
