/* SPDX-License-Identifier: Apache-2.0
 *
 * The controller: registers (NVM Express 1.4, chapter 3), doorbells, enabling, reset and shutdown
 * (7.3, 7.6), the PCI function.
 * UNIMPL: SGLs, memory buffers of the controller, namespace management, firmware download, format,
 * metadata, pages larger than 4 KiB.
 */
#include "dev/pc/nvme.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "dev/pc/nvme_int.h"

#define BAR_BYTES KIB(8)
#define DOORBELLS 0x1000u
#define MSIX_BAR 4u
#define NVME_ADMIN_ENTRIES_MAX 4096u

enum nvme_reg {
    REG_CAP = 0x00,
    REG_CAP_HIGH = 0x04,
    REG_VS = 0x08,
    REG_INTMS = 0x0c,
    REG_INTMC = 0x10,
    REG_CC = 0x14,
    REG_CSTS = 0x1c,
    REG_AQA = 0x24,
    REG_ASQ = 0x28,
    REG_ASQ_HIGH = 0x2c,
    REG_ACQ = 0x30,
    REG_ACQ_HIGH = 0x34,
};
#define CAP_CONTIGUOUS (1u << 16)
#define CAP_TIMEOUT (10u << 24) /* 5 s */
#define CAP_HIGH_NVM_COMMANDS (1u << 5)
#define VERSION_1_4 0x00010400u
#define CC_BITS 0x00fffff1u
#define AQA_BITS 0x0fff0fffu
#define QUEUE_BASE_BITS (~(uint64_t)(NVME_PAGE - 1))

/* -- Life of the controller -------------------------------------------------------------------- */
void nvme_fatal(struct nvme *n, const char *why)
{
    log_guest("nvme", "%s", why);
    n->csts |= CSTS_CFS;
}

static void forget(struct nvme *n)
{
    n->forgetting = true;
    while (n->in_flight != 0) {
        block_queue_drain(n->disk);
    }
    n->forgetting = false;
}

/* What EN at 0 does: the admin queue's registers stay (7.3.2). */
static void controller_reset(struct nvme *n)
{
    forget(n);
    memset(n->sq, 0, sizeof n->sq);
    memset(n->cq, 0, sizeof n->cq);
    n->csts = 0;
    n->intms = 0;
    n->event_requests = n->events = 0;
    n->events_masked = false;
    nvme_default_features(n);
    nvme_update_irq(n);
}

static void enable(struct nvme *n)
{
    unsigned sq_size = (n->aqa & 0xfff) + 1, cq_size = (n->aqa >> 16 & 0xfff) + 1;
    bool nvm = (n->cc >> CC_CSS_SHIFT & 7) == 0, round_robin = (n->cc >> CC_AMS_SHIFT & 7) == 0;
    bool small_pages = (n->cc >> CC_MPS_SHIFT & 0xf) == 0;
    if (!nvm || !round_robin || !small_pages || sq_size < 2 || cq_size < 2) {
        nvme_fatal(n, "enabled with a configuration that it does not have");
        return;
    }
    n->sq[0] = (struct nvme_sq){ .base = n->asq, .size = (uint16_t)sq_size };
    n->cq[0] = (struct nvme_cq){
        .base = n->acq, .size = (uint16_t)cq_size, .interrupts = true, .phase = true
    };
    n->csts |= CSTS_RDY;
}

static void write_cc(struct nvme *n, uint32_t v)
{
    uint32_t before = n->cc;
    n->cc = v & CC_BITS;
    if (~before & v & CC_EN) {
        enable(n);
    } else if (before & ~v & CC_EN) {
        controller_reset(n);
    }
    bool shut = (v >> CC_SHN_SHIFT & 3) != 0, was_shut = (before >> CC_SHN_SHIFT & 3) != 0;
    if (shut && !was_shut && (n->csts & CSTS_SHST) == 0) {
        nvme_start_shutdown(n);
    }
}

/* -- Doorbells (3.1.24, 3.1.25) ---------------------------------------------------------------- */
static bool move_tail(struct nvme_sq *q, uint32_t v)
{
    if (v >= q->size) {
        return false;
    }
    q->tail = (uint16_t)v;
    return true;
}

/* No further than entries have been posted. */
static bool move_head(struct nvme_cq *q, uint32_t v)
{
    unsigned filled = (unsigned)(q->tail + q->size - q->head) % q->size;
    if (v >= q->size || (v + q->size - q->head) % q->size > filled) {
        return false;
    }
    q->head = (uint16_t)v;
    return true;
}

static void ring(struct nvme *n, uint64_t offset, uint32_t v)
{
    uint64_t q = offset / 8;
    bool completion = offset & 4;
    if (!(n->csts & CSTS_RDY) || (n->csts & CSTS_CFS)) {
        return;
    }
    if (q >= NVME_QUEUES || (completion ? n->cq[q].size : n->sq[q].size) == 0) {
        nvme_event(n, EVENT_BAD_DOORBELL);
    } else if (!(completion ? move_head(&n->cq[q], v) : move_tail(&n->sq[q], v))) {
        nvme_event(n, EVENT_BAD_DOORBELL_VALUE);
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static uint64_t mmio_read(void *dev, uint64_t offset, unsigned size)
{
    const struct nvme *n = dev;
    (void)size;
    switch (offset) {
    case REG_CAP:
        return (NVME_ENTRIES_MAX - 1) | CAP_CONTIGUOUS | CAP_TIMEOUT;
    case REG_CAP_HIGH:
        return CAP_HIGH_NVM_COMMANDS;
    case REG_VS:
        return VERSION_1_4;
    case REG_INTMS:
    case REG_INTMC:
        return n->intms;
    case REG_CC:
        return n->cc;
    case REG_CSTS:
        return n->csts;
    case REG_AQA:
        return n->aqa;
    case REG_ASQ:
        return (uint32_t)n->asq;
    case REG_ASQ_HIGH:
        return n->asq >> 32;
    case REG_ACQ:
        return (uint32_t)n->acq;
    case REG_ACQ_HIGH:
        return n->acq >> 32;
    default:
        return 0;
    }
}

static void write_base(uint64_t *base, bool high, uint32_t v)
{
    uint64_t kept = *base & (high ? MASK64(32) : ~MASK64(32));
    *base = (kept | (high ? (uint64_t)v << 32 : v)) & QUEUE_BASE_BITS;
}

static void mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *n = dev;
    uint32_t v = (uint32_t)value;
    (void)size;
    if (offset >= DOORBELLS) {
        ring(n, offset - DOORBELLS, v);
        nvme_serve(n);
        return;
    }
    switch (offset) {
    case REG_INTMS:
        n->intms |= v;
        nvme_update_irq(n);
        break;
    case REG_INTMC:
        n->intms &= ~v;
        nvme_update_irq(n);
        break;
    case REG_CC:
        write_cc(n, v);
        break;
    case REG_AQA:
        n->aqa = v & AQA_BITS;
        break;
    case REG_ASQ:
    case REG_ASQ_HIGH:
        write_base(&n->asq, offset == REG_ASQ_HIGH, v);
        break;
    case REG_ACQ:
    case REG_ACQ_HIGH:
        write_base(&n->acq, offset == REG_ACQ_HIGH, v);
        break;
    default:
        break;
    }
}

static const struct region_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .sizes = ACCESS_4,
};

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field sq_state[] = {
    STATE(struct nvme_sq, base), STATE(struct nvme_sq, size), STATE(struct nvme_sq, head),
    STATE(struct nvme_sq, tail), STATE(struct nvme_sq, cq),   STATE_END,
};

static const struct state_field cq_state[] = {
    STATE(struct nvme_cq, base),   STATE(struct nvme_cq, size),
    STATE(struct nvme_cq, head),   STATE(struct nvme_cq, tail),
    STATE(struct nvme_cq, vector), STATE(struct nvme_cq, interrupts),
    STATE(struct nvme_cq, phase),  STATE_END,
};

static const struct state_field error_state[] = {
    STATE(struct nvme_error, count),
    STATE(struct nvme_error, lba),
    STATE(struct nvme_error, nsid),
    STATE(struct nvme_error, sq),
    STATE(struct nvme_error, cid),
    STATE(struct nvme_error, status),
    STATE_END,
};

static const struct state_field nvme_state[] = {
    STATE_STRUCT(struct nvme, pci, pci_func_state),
    STATE_STRUCT(struct nvme, msix, pci_msix_state),
    STATE(struct nvme, intms),
    STATE(struct nvme, cc),
    STATE(struct nvme, csts),
    STATE(struct nvme, aqa),
    STATE(struct nvme, asq),
    STATE(struct nvme, acq),
    STATE_STRUCTS(struct nvme, sq, sq_state),
    STATE_STRUCTS(struct nvme, cq, cq_state),
    STATE_ARRAY(struct nvme, feature),
    STATE_ARRAY(struct nvme, vector_feature),
    STATE_ARRAY(struct nvme, event_cid),
    STATE(struct nvme, event_requests),
    STATE(struct nvme, events),
    STATE(struct nvme, events_masked),
    STATE_STRUCTS(struct nvme, error, error_state),
    STATE(struct nvme, errors),
    STATE(struct nvme, reads),
    STATE(struct nvme, writes),
    STATE(struct nvme, sectors_read),
    STATE(struct nvme, sectors_written),
    STATE_END,
};

static void nvme_reset(void *dev)
{
    struct nvme *n = dev;
    pci_func_reset(&n->pci);
    n->cc = n->aqa = 0;
    n->asq = n->acq = 0;
    controller_reset(n);
}

static void nvme_quiesce(void *dev)
{
    struct nvme *n = dev;
    while (n->in_flight != 0) {
        block_queue_drain(n->disk);
    }
}

static bool queues_valid(const struct nvme *n)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct nvme_sq *s = &n->sq[i];
        const struct nvme_cq *c = &n->cq[i];
        unsigned max = i == 0 ? NVME_ADMIN_ENTRIES_MAX : NVME_ENTRIES_MAX;
        if (s->size > max || c->size > max || s->size == 1 || c->size == 1 ||
            c->vector >= NVME_QUEUES ||
            (s->size != 0 && (s->head >= s->size || s->tail >= s->size || s->cq >= NVME_QUEUES ||
                              n->cq[s->cq].size == 0)) ||
            (c->size != 0 && (c->head >= c->size || c->tail >= c->size)) ||
            ((s->base | c->base) & ~QUEUE_BASE_BITS) != 0) {
            return false;
        }
    }
    return true;
}

static int nvme_post_load(void *dev, struct err *e)
{
    struct nvme *n = dev;
    forget(n); /* commands of the life before */
    int r = pci_post_load(&n->pci, e);
    if (r < 0) {
        return r;
    }
    bool ready = n->csts & CSTS_RDY;
    if (!queues_valid(n) || n->event_requests > NVME_EVENTS_MAX ||
        n->events >> NVME_EVENT_KINDS != 0 || (ready && n->sq[0].size == 0) ||
        (n->csts & CSTS_SHST) == CSTS_SHST_BUSY) {
        return err_set(e, -EINVAL, "impossible state");
    }
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        n->cq[i].owed = 0;
        n->cq[i].told = false;
    }
    nvme_update_irq(n);
    return 0;
}

static const struct dev_class nvme_class = {
    .name = "nvme",
    .version = 1,
    .state = nvme_state,
    .size = sizeof(struct nvme),
    .reset = nvme_reset,
    .post_load = nvme_post_load,
    .quiesce = nvme_quiesce,
};

void nvme_init(struct nvme *n, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
               const struct nvme_config *c)
{
    memset(n, 0, sizeof *n);
    n->mem = bus_mem(b);
    n->disk = c->queue;
    n->readonly = c->readonly;
    n->sectors = block_size(block_queue_block(c->queue)) / NVME_SECTOR;
    size_t len = c->serial != NULL ? strnlen(c->serial, NVME_SERIAL_BYTES) : 0;
    memcpy(n->serial, len != 0 ? c->serial : "", len);
    pci_func_init(&n->pci, p, devfn, NVME_VENDOR, 0x07f0, 0x010802, 0);
    store_le16(n->pci.config + PCI_SUBSYSTEM_VENDOR, NVME_VENDOR);
    store_le16(n->pci.config + PCI_SUBSYSTEM, 0x07f0);
    n->pci.config[PCI_INTERRUPT_PIN] = 1;
    pci_add_bar(&n->pci, 0, PCI_BAR_MEM64, BAR_BYTES, &mmio_ops, n);
    pci_add_msix(&n->pci, &n->msix, NVME_QUEUES, MSIX_BAR);
    dev_register(b, &n->pci.dev, &nvme_class, name);
    nvme_reset(n);
}

void nvme_fini(struct nvme *n)
{
    forget(n);
    pci_func_fini(&n->pci);
    dev_unregister(&n->pci.dev);
}
