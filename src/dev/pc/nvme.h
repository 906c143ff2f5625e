/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk behind NVM Express 1.4: a controller with one namespace, sixteen pairs of I/O queues,
 * MSI-X.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_NVME_H
#define SOSIA_DEV_PC_NVME_H

#include "block/queue.h"
#include "bus/bus.h"
#include "bus/pci.h"

#define NVME_IO_QUEUES 16u
#define NVME_QUEUES (NVME_IO_QUEUES + 1) /* 0: admin */
#define NVME_EVENTS_MAX 4u               /* asynchronous event requests waiting */
#define NVME_ERRORS 4u                   /* entries of the error log */
#define NVME_FEATURES 0x0cu              /* features 0 to 0xb */
#define NVME_SERIAL_BYTES 20u

struct nvme_sq {
    gpa_t base;
    uint16_t size; /* entries; 0: there is no such queue */
    uint16_t head, tail;
    uint16_t cq;
};

struct nvme_cq {
    /* State: */
    gpa_t base;
    uint16_t size;
    uint16_t head, tail;
    uint16_t vector;
    bool interrupts;
    bool phase; /* of entries written now */
    /* Not state: */
    uint16_t owed; /* entries that commands under way will need */
    bool told;     /* an interrupt is due */
};

/* An error log entry (5.14.1.1). */
struct nvme_error {
    uint64_t count; /* 0: empty */
    uint64_t lba;
    uint32_t nsid;
    uint16_t sq, cid, status;
};

struct nvme {
    struct pci_func pci; /* first */
    struct pci_msix msix;
    /* State; registers keep their names: */
    uint32_t intms, cc, csts, aqa;
    uint64_t asq, acq;
    struct nvme_sq sq[NVME_QUEUES];
    struct nvme_cq cq[NVME_QUEUES];
    uint32_t feature[NVME_FEATURES];
    uint32_t vector_feature[NVME_QUEUES];
    uint16_t event_cid[NVME_EVENTS_MAX];
    uint8_t event_requests;
    uint8_t events;                       /* that nobody was told of, bit n: enum nvme_event n */
    bool events_masked;                   /* until the guest reads the log */
    struct nvme_error error[NVME_ERRORS]; /* newest first */
    uint64_t errors;
    uint64_t reads, writes, sectors_read, sectors_written; /* for the health log */
    /* Not state: */
    struct gmem *mem;         /* borrowed */
    struct block_queue *disk; /* borrowed */
    uint64_t sectors;
    bool readonly;
    char serial[NVME_SERIAL_BYTES + 1];
    uint64_t bytes;     /* in buffers of requests under way */
    unsigned in_flight; /* requests */
    unsigned turn;      /* the submission queue that is served next */
    bool serving;
    bool forgetting; /* what ends now is for nobody any more */
};

struct nvme_config {
    struct block_queue *queue; /* borrowed, outlives the device */
    bool readonly;
    const char *serial; /* at most 20 bytes are seen */
};

void nvme_init(struct nvme *n, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
               const struct nvme_config *c);
void nvme_fini(struct nvme *n);

#endif
