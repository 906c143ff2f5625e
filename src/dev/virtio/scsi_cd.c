/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI commands of CD/DVD-ROM drives (MMC-5).
 */
#include "base/bytes.h"
#include "dev/virtio/scsi_internal.h"

/* -- CD ---------------------------------------------------------------------------------------- */
static void put_msf(uint8_t *b, uint32_t lba, bool msf)
{
    if (msf) {
        uint32_t frames = lba + 150;
        b[0] = 0;
        b[1] = (uint8_t)(frames / (75 * 60));
        b[2] = (uint8_t)(frames / 75 % 60);
        b[3] = (uint8_t)(frames % 75);
    } else {
        store_be32(b, lba);
    }
}

static void read_toc(struct scsi_command *c)
{
    uint8_t b[20] = { 0 };
    bool msf = c->cdb[1] & 2;
    uint32_t asked = load_be16(c->cdb + 7);
    unsigned format = c->cdb[2] & 15;
    format = format != 0 ? format : c->cdb[9] >> 6;
    b[2] = b[3] = 1; /* one track, one session */
    if (format == 1) {
        b[1] = 10;
        b[5] = 0x14;
        b[6] = 1;
        put_msf(b + 8, 0, msf);
        scsi_answer(c, b, 12, asked);
        return;
    }
    if (format != 0) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    b[1] = 18;
    b[5] = 0x14; /* data */
    b[6] = 1;
    put_msf(b + 8, 0, msf);
    b[13] = 0x14;
    b[14] = 0xaa; /* lead-out */
    put_msf(b + 16, (uint32_t)c->unit->blocks, msf);
    scsi_answer(c, b, sizeof b, asked);
}

static void get_configuration(struct scsi_command *c)
{
    uint8_t b[32] = { 0 };
    bool dvd = c->unit->blocks > 80u * 60 * 75; /* more than a CD holds */
    store_be32(b, 20);
    store_be16(b + 6, c->unit->ejected ? 0 : dvd ? 0x10 : 0x08);
    store_be16(b + 8, 0); /* profile list: both */
    b[10] = 3;
    b[11] = 8;
    store_be16(b + 12, 0x10);
    b[14] = dvd;
    store_be16(b + 16, 0x08);
    b[18] = !dvd;
    scsi_answer(c, b, 20, load_be16(c->cdb + 7));
}

static void get_event(struct scsi_command *c)
{
    uint8_t b[8] = { 0 };
    if (!(c->cdb[1] & 1)) {
        scsi_illegal(c, ASC_BAD_CDB); /* not polled */
        return;
    }
    store_be16(b, 6);
    b[2] = c->cdb[4] & 0x10 ? 4 : 0x80; /* media events, or none of what was asked for */
    b[3] = 0x10;
    b[5] = c->unit->ejected ? 1 : 2; /* open, or a medium is there */
    scsi_answer(c, b, c->cdb[4] & 0x10 ? 8 : 4, load_be16(c->cdb + 7));
}

void scsi_start_stop(struct scsi_command *c)
{
    struct scsi_unit *u = c->unit;
    if (u->cdrom && (c->cdb[4] & 2)) {
        bool eject = !(c->cdb[4] & 1);
        if (eject && u->locked) {
            scsi_illegal(c, ASC_LOCKED);
            return;
        }
        u->ejected = eject;
    }
    scsi_good(c);
}

void scsi_cd_command(struct scsi_command *c)
{
    static const uint8_t disc[34] = { 0, 32, 0x0e, 1, 1, 1, 1, 0x20 };
    static const uint8_t mechanism[8] = { 0, 0, 0, 0, 0, 1 };
    switch (c->cdb[0]) {
    case OP_READ_TOC:
        read_toc(c);
        break;
    case OP_GET_CONFIGURATION:
        get_configuration(c);
        break;
    case OP_GET_EVENT:
        get_event(c);
        break;
    case OP_READ_DISC:
        scsi_answer(c, disc, sizeof disc, load_be16(c->cdb + 7));
        break;
    case OP_MECHANISM:
        scsi_answer(c, mechanism, sizeof mechanism, load_be16(c->cdb + 8));
        break;
    default:
        scsi_illegal(c, ASC_BAD_OPCODE);
    }
}
