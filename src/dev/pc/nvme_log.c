/* SPDX-License-Identifier: Apache-2.0
 *
 * What the controller says of itself: IDENTIFY (NVM Express 1.4, 5.15) and the log pages (5.14).
 */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/nvme_int.h"

#define OUI_HIGH 0x005056u
#define ROOM_TEMPERATURE 300u /* kelvin */

enum identify_cns { CNS_NAMESPACE = 0, CNS_CONTROLLER = 1, CNS_LIST = 2, CNS_DESCRIPTORS = 3 };
enum log_page { LOG_ERROR = 1, LOG_HEALTH = 2, LOG_FIRMWARE = 3 };
#define LOG_RETAIN_EVENT (1u << 15)
#define ERROR_BYTES 64u
#define LOG_BYTES 512u

/* -- Names ------------------------------------------------------------------------------------- */
static void text(uint8_t *p, size_t size, const char *s)
{
    size_t len = strlen(s);
    memset(p, ' ', size);
    memcpy(p, s, len < size ? len : size);
}

/* A number that stays the disk's as long as its serial number does (FNV-1a). */
static uint64_t unique(const struct nvme *n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (const char *s = n->serial; *s != '\0'; s++) {
        h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
    }
    return h;
}

static void put_eui64(const struct nvme *n, uint8_t *p)
{
    store_be64(p, (uint64_t)OUI_HIGH << 40 | (unique(n) & MASK64(40)));
}

/* -- Identify ---------------------------------------------------------------------------------- */
static void identify_controller(const struct nvme *n, uint8_t *p)
{
    store_le16(p, NVME_VENDOR);
    store_le16(p + 2, NVME_VENDOR);
    text(p + 4, 20, n->serial);
    text(p + 24, 40, "SOSIA NVME DISK");
    text(p + 64, 8, "1.0");
    p[73] = OUI_HIGH & 0xff; /* little-endian, as numbers are here */
    p[74] = OUI_HIGH >> 8 & 0xff;
    p[75] = OUI_HIGH >> 16;
    p[77] = NVME_TRANSFER_PAGES_LOG;
    store_le32(p + 80, 0x00010400);
    p[111] = 1; /* an I/O controller */
    p[258] = 3; /* aborts at a time - 1 */
    p[259] = NVME_EVENTS_MAX - 1;
    p[260] = 3; /* one firmware slot, read-only */
    p[261] = 4; /* long and offset log reads */
    p[262] = NVME_ERRORS - 1;
    store_le16(p + 266, NVME_WARM_KELVIN);
    store_le16(p + 268, NVME_HOT_KELVIN);
    p[512] = NVME_SQE_LOG << 4 | NVME_SQE_LOG;
    p[513] = NVME_CQE_LOG << 4 | NVME_CQE_LOG;
    store_le32(p + 516, NVME_NSID); /* namespaces */
    store_le16(p + 520, 0x000d);    /* compare, dataset management, write zeroes */
    p[525] = 7;                     /* a write cache; flush of all namespaces */
    memcpy(p + 768, "nqn.2014-08.org.nvmexpress:sosia:", 33);
    memcpy(p + 768 + 33, n->serial, strlen(n->serial));
    store_le16(p + 2048, 900); /* power state 0: 9 W */
}

static void identify_namespace(const struct nvme *n, uint8_t *p)
{
    store_le64(p, n->sectors);
    store_le64(p + 8, n->sectors);
    store_le64(p + 16, n->sectors);
    p[33] = 8; /* WRITE ZEROES may deallocate */
    p[99] = n->readonly;
    put_eui64(n, p + 120);
    p[130] = 9; /* format 0: 2^9 bytes */
}

/* 5.15.2.4 */
static void identify_descriptors(const struct nvme *n, uint8_t *p)
{
    p[0] = 1; /* EUI64 */
    p[1] = 8;
    put_eui64(n, p + 4);
}

unsigned nvme_identify(struct nvme *n, const struct nvme_command *c)
{
    uint8_t page[NVME_PAGE] = { 0 };
    bool known = c->nsid == NVME_NSID;
    switch (c->dw[10] & 0xff) {
    case CNS_CONTROLLER:
        identify_controller(n, page);
        break;
    case CNS_NAMESPACE:
        if (!known && c->nsid != NVME_NSID_ALL) {
            return NVME_INVALID_NAMESPACE;
        }
        identify_namespace(n, page);
        break;
    case CNS_LIST: /* of those with larger numbers */
        if (c->nsid >= 0xfffffffe) {
            return NVME_INVALID_NAMESPACE;
        }
        store_le32(page, c->nsid < NVME_NSID ? NVME_NSID : 0);
        break;
    case CNS_DESCRIPTORS:
        if (!known) {
            return NVME_INVALID_NAMESPACE;
        }
        identify_descriptors(n, page);
        break;
    default:
        return NVME_INVALID_FIELD;
    }
    return nvme_copy(n, c->prp, page, sizeof page, NVME_TO_GUEST);
}

/* -- Logs -------------------------------------------------------------------------------------- */
void nvme_note_error(struct nvme *n, const struct nvme_command *c, unsigned status)
{
    memmove(n->error + 1, n->error, (NVME_ERRORS - 1) * sizeof n->error[0]);
    n->error[0] = (struct nvme_error){ .count = ++n->errors,
                                       .lba = c->dw[10] | (uint64_t)c->dw[11] << 32,
                                       .nsid = c->nsid,
                                       .sq = c->sq,
                                       .cid = c->cid,
                                       .status = (uint16_t)status };
}

static void error_log(const struct nvme *n, uint8_t *p)
{
    for (unsigned i = 0; i < NVME_ERRORS && n->error[i].count != 0; i++, p += ERROR_BYTES) {
        const struct nvme_error *e = &n->error[i];
        store_le64(p, e->count);
        store_le16(p + 8, e->sq);
        store_le16(p + 10, e->cid);
        store_le16(p + 12, (uint16_t)(e->status << 1));
        store_le16(p + 14, 0xffff); /* the parameter in error: not said */
        store_le64(p + 16, e->lba);
        store_le32(p + 24, e->nsid);
    }
}

/* In thousands of sectors, rounded up. */
static uint64_t data_units(uint64_t sectors) { return sectors / 1000 + (sectors % 1000 != 0); }

static void health_log(const struct nvme *n, uint8_t *p)
{
    store_le16(p + 1, ROOM_TEMPERATURE);
    p[3] = 100; /* per cent of spares left, */
    p[4] = 10;  /* and when that is too little */
    store_le64(p + 32, data_units(n->sectors_read));
    store_le64(p + 48, data_units(n->sectors_written));
    store_le64(p + 64, n->reads);
    store_le64(p + 80, n->writes);
    store_le64(p + 112, 1); /* power cycles */
    store_le64(p + 176, n->errors);
}

static void firmware_log(uint8_t *p)
{
    p[0] = 1; /* slot 1 is active */
    text(p + 8, 8, "1.0");
}

unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c)
{
    uint8_t page[LOG_BYTES] = { 0 };
    uint64_t offset = c->dw[12] | (uint64_t)c->dw[13] << 32;
    uint64_t len = ((c->dw[10] >> 16 | (uint64_t)(c->dw[11] & 0xffff) << 16) + 1) * 4;
    uint32_t size = LOG_BYTES;
    switch (c->dw[10] & 0xff) {
    case LOG_ERROR:
        error_log(n, page);
        size = NVME_ERRORS * ERROR_BYTES;
        n->events_masked &= (c->dw[10] & LOG_RETAIN_EVENT) != 0;
        break;
    case LOG_HEALTH:
        health_log(n, page);
        break;
    case LOG_FIRMWARE:
        firmware_log(page);
        break;
    default:
        return NVME_INVALID_LOG;
    }
    if (offset > size || offset % 4 != 0) {
        return NVME_INVALID_FIELD;
    }
    uint32_t n_bytes = len < size - offset ? (uint32_t)len : (uint32_t)(size - offset);
    return nvme_copy(n, c->prp, page + offset, n_bytes, NVME_TO_GUEST);
}
