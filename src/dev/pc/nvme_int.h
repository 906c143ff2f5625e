/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the NVMe controller share. Numbers in brackets are sections of NVM Express 1.4.
 */
#ifndef SOSIA_DEV_PC_NVME_INT_H
#define SOSIA_DEV_PC_NVME_INT_H

#include "base/bits.h"
#include "dev/pc/nvme.h"

#define NVME_PAGE 4096u
#define NVME_SECTOR 512u
#define NVME_ENTRIES_MAX 1024u /* of a queue */
#define NVME_TRANSFER_PAGES_LOG 9u
#define NVME_TRANSFER_MAX (NVME_PAGE << NVME_TRANSFER_PAGES_LOG)
#define NVME_SQE_LOG 6u
#define NVME_CQE_LOG 4u
#define NVME_NSID 1u
#define NVME_NSID_ALL 0xffffffffu
#define NVME_VENDOR 0x15adu

enum nvme_cc {
    CC_EN = 1u << 0,
    CC_CSS_SHIFT = 4,
    CC_MPS_SHIFT = 7,
    CC_AMS_SHIFT = 11,
    CC_SHN_SHIFT = 14,
    CC_IOSQES_SHIFT = 16,
    CC_IOCQES_SHIFT = 20,
};
enum nvme_csts {
    CSTS_RDY = 1u << 0,
    CSTS_CFS = 1u << 1,
    CSTS_SHST_BUSY = 1u << 2,
    CSTS_SHST_DONE = 2u << 2,
    CSTS_SHST = 3u << 2,
};

/* Status codes (4.6.1): type in bits 10..8, code below. */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_SEQUENCE_ERROR = 0x00c,
    NVME_INVALID_PRP_OFFSET = 0x013,
    NVME_WRITE_PROTECTED = 0x020,
    NVME_OUT_OF_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_CQ_INVALID = 0x100,
    NVME_INVALID_QUEUE = 0x101,
    NVME_INVALID_QUEUE_SIZE = 0x102,
    NVME_TOO_MANY_EVENTS = 0x105,
    NVME_INVALID_VECTOR = 0x108,
    NVME_INVALID_LOG = 0x109,
    NVME_INVALID_DELETION = 0x10c,
    NVME_NOT_SAVEABLE = 0x10d,
    NVME_WRITE_FAULT = 0x280,
    NVME_UNRECOVERED_READ = 0x281,
    NVME_COMPARE_FAILURE = 0x285,
    NVME_LATER = 0x8000, /* not a status: the command ends later, or never */
};

enum nvme_feature {
    FEATURE_ARBITRATION = 0x01,
    FEATURE_POWER = 0x02,
    FEATURE_TEMPERATURE = 0x04,
    FEATURE_ERROR_RECOVERY = 0x05,
    FEATURE_WRITE_CACHE = 0x06,
    FEATURE_QUEUES = 0x07,
    FEATURE_COALESCING = 0x08,
    FEATURE_VECTOR = 0x09,
    FEATURE_ATOMICITY = 0x0a,
    FEATURE_EVENTS = 0x0b,
};

/* Asynchronous events of the error type, by their information code (5.2). */
enum nvme_event { EVENT_BAD_DOORBELL, EVENT_BAD_DOORBELL_VALUE, NVME_EVENT_KINDS };

#define NVME_WARM_KELVIN 343u
#define NVME_HOT_KELVIN 373u

/* A command as copied in (4.2). */
struct nvme_command {
    uint16_t sq, cid;
    uint8_t opcode;
    uint32_t nsid;
    uint64_t prp[2];
    uint32_t dw[16]; /* all of them, in host order */
};

enum nvme_direction { NVME_TO_GUEST, NVME_FROM_GUEST };

/* -- nvme.c */
/* A fatal error: nothing more is done until the guest resets the controller. */
void nvme_fatal(struct nvme *n, const char *why);

/* -- nvme_queue.c */
/* Take what is in the submission queues, in turns, as far as that goes now. Interrupts follow. */
void nvme_serve(struct nvme *n);
void nvme_update_irq(struct nvme *n);
/* The end of a command; interrupts follow with nvme_update_irq. */
void nvme_complete(struct nvme *n, const struct nvme_command *c, unsigned status, uint32_t result);
bool nvme_cq_has_room(const struct nvme_cq *q);
void nvme_cq_post(struct nvme *n, unsigned sq, uint16_t cid, unsigned status, uint32_t result);
/* Copy along the two PRPs of a command (4.3): 0 or a status. */
unsigned nvme_copy(struct nvme *n, const uint64_t prp[2], uint8_t *data, uint32_t len,
                   enum nvme_direction direction);
/* The same memory for a transfer without a copy. */
unsigned nvme_view(struct nvme *n, const uint64_t prp[2], uint32_t len,
                   enum nvme_direction direction, struct gmem_views *views);

/* -- nvme_admin.c: a status, or NVME_LATER */
unsigned nvme_admin(struct nvme *n, const struct nvme_command *c, uint32_t *result);
void nvme_default_features(struct nvme *n);
void nvme_event(struct nvme *n, enum nvme_event event);
void nvme_tell_events(struct nvme *n);

/* -- nvme_log.c */
unsigned nvme_identify(struct nvme *n, const struct nvme_command *c);
unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c);
void nvme_note_error(struct nvme *n, const struct nvme_command *c, unsigned status);

/* -- nvme_io.c */
unsigned nvme_io(struct nvme *n, const struct nvme_command *c);
bool nvme_may_start(const struct nvme *n); /* there is memory for another command */
/* Shutdown: the write cache goes out, then SHST says so. */
void nvme_start_shutdown(struct nvme *n);

#endif
