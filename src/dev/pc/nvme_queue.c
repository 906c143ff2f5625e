/* SPDX-License-Identifier: Apache-2.0
 *
 * Queues in memory (NVM Express 1.4, chapter 4): commands are taken from the submission queues in
 * turns, results go to the completion queues, data along physical region pages.
 */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/nvme_int.h"

#define SQE_BYTES (1u << NVME_SQE_LOG)
#define CQE_BYTES (1u << NVME_CQE_LOG)
#define BURST 16u /* commands of a queue before the next has its turn */
#define PRP_ENTRIES (NVME_PAGE / 8)

/* -- Interrupts -------------------------------------------------------------------------------- */
/* Without MSI-X the line is up while an entry of a queue is not consumed (7.5.1.1). */
void nvme_update_irq(struct nvme *n)
{
    bool msix = pci_msix_enabled(&n->pci), line = false;
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        struct nvme_cq *q = &n->cq[i];
        if (q->told && msix) {
            pci_msix_notify(&n->pci, q->vector);
        }
        q->told = false;
        line |= q->size != 0 && q->interrupts && q->head != q->tail &&
                !(q->vector < 32 && (n->intms >> q->vector & 1));
    }
    pci_set_intx(&n->pci, line && !msix);
}

/* -- Completion -------------------------------------------------------------------------------- */
bool nvme_cq_has_room(const struct nvme_cq *q)
{
    unsigned filled = (unsigned)(q->tail + q->size - q->head) % q->size;
    return filled + q->owed < q->size - 1u;
}

void nvme_cq_post(struct nvme *n, unsigned sq, uint16_t cid, unsigned status, uint32_t result)
{
    const struct nvme_sq *s = &n->sq[sq];
    struct nvme_cq *q = &n->cq[s->cq];
    uint8_t entry[CQE_BYTES] = { 0 };
    gpa_t at = q->base + (gpa_t)q->tail * CQE_BYTES;
    store_le32(entry, result);
    store_le16(entry + 8, s->head);
    store_le16(entry + 10, (uint16_t)sq);
    store_le16(entry + 12, cid);
    store_le16(entry + 14, (uint16_t)(status << 1 | q->phase));
    /* The phase tag is what the guest polls: the rest is there before it. */
    if (gmem_write(n->mem, at, entry, 12) < 0 || gmem_write(n->mem, at + 12, entry + 12, 4) < 0) {
        nvme_fatal(n, "a completion queue is not in memory");
        return;
    }
    q->tail++;
    if (q->tail == q->size) {
        q->tail = 0;
        q->phase = !q->phase;
    }
    q->told |= q->interrupts;
}

void nvme_complete(struct nvme *n, const struct nvme_command *c, unsigned status, uint32_t result)
{
    if (status != NVME_OK) {
        nvme_note_error(n, c, status);
    }
    nvme_cq_post(n, c->sq, c->cid, status, result);
}

/* -- Submission -------------------------------------------------------------------------------- */
static bool fetch(struct nvme *n, unsigned sq, struct nvme_command *c)
{
    struct nvme_sq *q = &n->sq[sq];
    uint8_t raw[SQE_BYTES];
    if (gmem_read(n->mem, q->base + (gpa_t)q->head * SQE_BYTES, raw, sizeof raw) < 0) {
        nvme_fatal(n, "a submission queue is not in memory");
        return false;
    }
    q->head = (uint16_t)((q->head + 1u) % q->size);
    for (unsigned i = 0; i < SQE_BYTES / 4; i++) {
        c->dw[i] = load_le32(raw + 4 * i);
    }
    c->sq = (uint16_t)sq;
    c->cid = (uint16_t)(c->dw[0] >> 16);
    c->opcode = (uint8_t)c->dw[0];
    c->nsid = c->dw[1];
    c->prp[0] = load_le64(raw + 24);
    c->prp[1] = load_le64(raw + 32);
    return true;
}

static void execute(struct nvme *n, const struct nvme_command *c)
{
    uint32_t result = 0;
    unsigned status = NVME_INVALID_FIELD;
    if ((c->dw[0] & 0xc300) == 0) { /* neither fused nor with SGLs */
        status = c->sq == 0 ? nvme_admin(n, c, &result) : nvme_io(n, c);
    }
    if (status != NVME_LATER) {
        nvme_complete(n, c, status, result);
    }
}

static bool may_take(const struct nvme *n, const struct nvme_sq *q)
{
    return (n->csts & CSTS_RDY) && !(n->csts & CSTS_CFS) && q->size != 0 && q->head != q->tail &&
           nvme_cq_has_room(&n->cq[q->cq]) && nvme_may_start(n);
}

static bool serve_one(struct nvme *n, unsigned sq)
{
    struct nvme_command c;
    bool any = false;
    for (unsigned i = 0; i < BURST && may_take(n, &n->sq[sq]) && fetch(n, sq, &c); i++) {
        execute(n, &c);
        any = true;
    }
    return any;
}

/* Commands that end at once may come back here: the loop below goes on then. */
void nvme_serve(struct nvme *n)
{
    if (n->serving || !pci_bus_master(&n->pci)) {
        return;
    }
    n->serving = true;
    for (unsigned idle = 0; idle < NVME_QUEUES;) {
        idle = serve_one(n, n->turn) ? 0 : idle + 1;
        n->turn = (n->turn + 1) % NVME_QUEUES;
    }
    nvme_tell_events(n);
    n->serving = false;
    nvme_update_irq(n);
}

/* -- Data (4.3) -------------------------------------------------------------------------------- */
struct prp_walk {
    gpa_t list; /* where the next entry is; 0: no list */
    unsigned at, have;
    uint8_t entry[NVME_PAGE];
};

/* The list's entries up to the end of its page; the last there leads to the next page if the
 * transfer needs more pages than that. */
static bool next_page(struct nvme *n, struct prp_walk *w, uint32_t left, gpa_t *page)
{
    uint32_t pages = (left + NVME_PAGE - 1) / NVME_PAGE;
    if (w->at + 1 == w->have && pages > 1 && (w->list & (NVME_PAGE - 1)) == 0) {
        w->list = load_le64(w->entry + 8 * w->at);
        w->at = w->have = 0;
        if (w->list & (NVME_PAGE - 1)) {
            return false;
        }
    }
    if (w->at == w->have) {
        uint32_t room = PRP_ENTRIES - (uint32_t)(w->list & (NVME_PAGE - 1)) / 8;
        w->have = pages < room ? pages : room;
        w->at = 0;
        if (gmem_read(n->mem, w->list, w->entry, 8 * w->have) < 0) {
            return false;
        }
        w->list += 8 * w->have;
    }
    *page = load_le64(w->entry + 8 * w->at++);
    return true;
}

/* What is done with each part. */
struct prp_use {
    enum nvme_direction direction;
    uint8_t *data;            /* it is copied to here or from here, unless */
    struct gmem_views *views; /* it is listed here */
};

static bool use_part(struct nvme *n, gpa_t gpa, uint32_t at, uint32_t len, const struct prp_use *u)
{
    bool to_guest = u->direction == NVME_TO_GUEST;
    int r = u->views != NULL
                ? gmem_view(n->mem, gpa, len, to_guest ? GMEM_FROM_FILE : GMEM_TO_FILE, u->views)
            : to_guest ? gmem_write(n->mem, gpa, u->data + at, len)
                       : gmem_read(n->mem, gpa, u->data + at, len);
    return r == 0;
}

static unsigned walk(struct nvme *n, const uint64_t prp[2], uint32_t len, const struct prp_use *u)
{
    struct prp_walk w;
    uint32_t offset = prp[0] & (NVME_PAGE - 1);
    uint32_t at = NVME_PAGE - offset < len ? NVME_PAGE - offset : len;
    bool has_list = len - at > NVME_PAGE;
    if (prp[0] & 3 || (at < len && prp[1] & (has_list ? 7 : NVME_PAGE - 1))) {
        return NVME_INVALID_PRP_OFFSET;
    }
    if (!use_part(n, prp[0], 0, at, u)) {
        return NVME_TRANSFER_ERROR;
    }
    w.list = prp[1];
    w.at = w.have = 0;
    while (at < len) {
        gpa_t page = prp[1];
        uint32_t part = len - at < NVME_PAGE ? len - at : NVME_PAGE;
        if (has_list && !next_page(n, &w, len - at, &page)) {
            return NVME_TRANSFER_ERROR;
        }
        if (page & (NVME_PAGE - 1)) {
            return NVME_INVALID_PRP_OFFSET;
        }
        if (!use_part(n, page, at, part, u)) {
            return NVME_TRANSFER_ERROR;
        }
        at += part;
    }
    return NVME_OK;
}

unsigned nvme_copy(struct nvme *n, const uint64_t prp[2], uint8_t *data, uint32_t len,
                   enum nvme_direction direction)
{
    return walk(n, prp, len, &(struct prp_use){ direction, data, NULL });
}

unsigned nvme_view(struct nvme *n, const uint64_t prp[2], uint32_t len,
                   enum nvme_direction direction, struct gmem_views *views)
{
    return walk(n, prp, len, &(struct prp_use){ direction, NULL, views });
}
