/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of the 82077AA that go over sectors (data sheet 290166, 5.1). Every sector takes its
 * turn: it comes under the head, meets the image, meets the host; then the next one does.
 *
 * An image holds the data of 512-byte sectors in the usual order and nothing else. DEVIATION: all
 * of them have the normal data mark, also where one was written as deleted; FORMAT can lay out no
 * other track than the image's.
 */
#include <string.h>

#include "base/bits.h"
#include "dev/pc/fdc_int.h"

#define VERIFY_COUNT 0x80u /* EC: stop after as many sectors as the last parameter says */
#define ID_BYTES 4u        /* C, H, R, N: of a sector to be formatted */
#define ANY_BYTE 0xffu     /* SCAN: the host's byte that equals all */

static bool is_scan(const struct fdc *f)
{
    enum fdc_command code = fdc_code(f);
    return code == CMD_SCAN_EQUAL || code == CMD_SCAN_LOW || code == CMD_SCAN_HIGH;
}

static bool is_write(const struct fdc *f)
{
    enum fdc_command code = fdc_code(f);
    return code == CMD_WRITE || code == CMD_WRITE_DELETED || code == CMD_FORMAT;
}

static bool is_read(const struct fdc *f)
{
    enum fdc_command code = fdc_code(f);
    return code == CMD_READ || code == CMD_READ_DELETED || code == CMD_READ_TRACK;
}

/* What the host gives for a sector. */
static uint32_t host_bytes(const struct fdc *f)
{
    return fdc_code(f) == CMD_FORMAT ? ID_BYTES : FDC_SECTOR;
}

static uint8_t *host_buffer(struct fdc *f) { return is_scan(f) ? f->host : f->data; }

/* -- The end ----------------------------------------------------------------------------------- */
static void finish(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    const struct fdc_course *c = &f->course;
    st1 |= c->st1;
    st2 |= c->st2;
    st0 |= st1 != 0 ? ST0_ABNORMAL : 0;
    f->result[0] = (uint8_t)(st0 | (c->head ? ST0_HEAD : 0) | (f->param[1] & DOR_SELECT));
    f->result[1] = st1;
    f->result[2] = st2;
    f->result[3] = c->c;
    f->result[4] = c->h;
    f->result[5] = c->r;
    f->result[6] = SIZE_512;
    fdc_show_results(f, 7);
    fdc_raise(f);
}

static void next_sector(struct fdc *f, uint64_t wait_ns)
{
    f->step = STEP_SECTOR;
    f->step_ends = clock_now_ns(f->clock) + wait_ns;
    fdc_arm(f);
}

/* On to the address after this one, as results show it; false: the last was EOT (table 5-6). */
static bool advance(struct fdc *f)
{
    struct fdc_course *c = &f->course;
    uint8_t eot = f->param[6];
    uint8_t by = is_scan(f) && f->param[8] == 2 ? 2 : 1;
    if (c->r != eot && !(by == 2 && c->r + 1 == eot)) {
        c->r += by;
        return true;
    }
    c->r = 1;
    bool first = c->head == 0;
    if (f->param[0] & CMD_MT) {
        c->h ^= 1;
        c->head ^= 1;
        if (first) {
            return true;
        }
    }
    c->c++;
    return false;
}

/* Read beyond EOT without a terminal count is an error, but not for those that look for no end. */
static void ran_out(struct fdc *f)
{
    if (is_scan(f)) {
        finish(f, 0, 0, ST2_SCAN_FAILED);
    } else if (fdc_code(f) == CMD_VERIFY && !(f->param[1] & VERIFY_COUNT)) {
        finish(f, 0, 0, 0);
    } else {
        finish(f, 0, ST1_END, 0);
    }
}

static void sector_done(struct fdc *f)
{
    struct fdc_course *c = &f->course;
    bool last = c->ended;
    c->passed++;
    switch (fdc_code(f)) {
    case CMD_FORMAT:
        if (last || c->passed >= f->param[3]) {
            finish(f, 0, 0, 0);
        } else {
            next_sector(f, SECTOR_NS);
        }
        return;
    case CMD_READ_TRACK:
        c->r++;
        if (last || c->passed == f->param[6]) {
            finish(f, 0, 0, 0);
        } else {
            next_sector(f, SECTOR_NS);
        }
        return;
    case CMD_VERIFY:
        last = (f->param[1] & VERIFY_COUNT) && c->passed == f->param[8];
        break;
    case CMD_READ_DELETED: /* the first with the other mark is the last, unless they are skipped */
        last = last || !(f->param[0] & CMD_SK);
        break;
    default:
        break;
    }
    bool more = advance(f);
    if (last) {
        finish(f, 0, 0, 0);
    } else if (more) {
        next_sector(f, SECTOR_NS);
    } else {
        ran_out(f);
    }
}

/* -- The image --------------------------------------------------------------------------------- */
static void request_done(struct block_request *r)
{
    struct fdc *f = r->ctx;
    f->in_flight = NULL;
    if (!f->cancelled) {
        f->then(f, r->result);
        fdc_arm(f);
    }
}

static void submit(struct fdc *f, enum block_op op, uint64_t offset, uint32_t bytes,
                   void (*then)(struct fdc *f, int result))
{
    f->step = STEP_IMAGE;
    f->then = then;
    f->cancelled = false;
    f->in_flight = fdc_drive(f)->queue;
    f->rq = (struct block_request){
        .op = op,
        .offset = offset,
        .len = bytes,
        .buf = f->data,
        .done = request_done,
        .ctx = f,
    };
    block_submit(f->in_flight, &f->rq);
}

void fdc_forget(struct fdc *f)
{
    f->cancelled = true;
    fdc_drain(f);
}

void fdc_drain(struct fdc *f)
{
    while (f->in_flight != NULL) {
        block_queue_drain(f->in_flight);
    }
}

/* r counts from 1. */
static uint64_t offset_of(struct fdc *f, uint8_t r)
{
    const struct fdc_drive *d = fdc_drive(f);
    const struct fdc_geometry *g = d->geometry;
    uint64_t track = (uint64_t)d->cylinder * g->heads + f->course.head;
    return (track * g->sectors + r - 1u) * FDC_SECTOR;
}

static void write_done(struct fdc *f, int result)
{
    if (result < 0) {
        finish(f, ST0_ABNORMAL | ST0_FAULT, 0, 0);
    } else {
        sector_done(f);
    }
}

/* Nothing is where the image ends before the disk does. */
static void write_sector(struct fdc *f, uint8_t r)
{
    uint64_t offset = offset_of(f, r);
    if (r == 0 || offset + FDC_SECTOR > fdc_drive(f)->bytes) {
        finish(f, 0, ST1_NO_DATA, 0);
    } else {
        submit(f, BLOCK_OP_WRITE, offset, FDC_SECTOR, write_done);
    }
}

/* -- The host ---------------------------------------------------------------------------------- */
static bool by_dma(const struct fdc *f) { return !(f->specify[1] & SPECIFY_NO_DMA); }

/* All that a sector needs goes over, or the end of the count comes, or the controller was not
 * served: false. */
static bool dma_cycles(struct fdc *f, enum dma_cycle cycle, uint8_t *data, uint32_t len)
{
    if (!(f->dor & DOR_DMA)) {
        return false;
    }
    dma_set_request(f->dma, f->dma_channel, true);
    uint32_t n = dma_transfer(f->dma, f->dma_channel, cycle, data, len, &f->course.ended);
    dma_set_request(f->dma, f->dma_channel, false);
    return n == len || f->course.ended;
}

static void to_host(struct fdc *f)
{
    f->at = 0;
    if (!by_dma(f)) {
        f->step = STEP_TO_HOST;
        fdc_raise(f);
    } else if (dma_cycles(f, DMA_TO_MEMORY, f->data, FDC_SECTOR)) {
        sector_done(f);
    } else {
        finish(f, 0, ST1_OVERRUN, 0);
    }
}

static void format_sector(struct fdc *f)
{
    uint8_t id[ID_BYTES];
    memcpy(id, f->data, sizeof id);
    const struct fdc_drive *d = fdc_drive(f);
    if (id[0] != d->cylinder || id[1] != f->course.head || id[2] > d->geometry->sectors ||
        id[3] != SIZE_512 || f->param[2] != SIZE_512) {
        finish(f, 0, ST1_NO_DATA, 0);
        return;
    }
    f->course.c = id[0];
    f->course.h = id[1];
    f->course.r = id[2];
    memset(f->data, f->param[5], FDC_SECTOR);
    write_sector(f, id[2]);
}

/* Bytes are compared until they differ (5.1.8): the first difference says which is more. */
static void scan_sector(struct fdc *f)
{
    int order = 0; /* of the disk's data to the host's */
    for (uint32_t i = 0; i < FDC_SECTOR && order == 0; i++) {
        if (f->host[i] != ANY_BYTE && f->data[i] != ANY_BYTE) {
            order = f->data[i] - f->host[i];
        }
    }
    bool met = order == 0 || (order < 0 && fdc_code(f) == CMD_SCAN_LOW) ||
               (order > 0 && fdc_code(f) == CMD_SCAN_HIGH);
    if (met) {
        finish(f, 0, 0, order == 0 ? ST2_SCAN_EQUAL : 0);
    } else if (f->course.ended) {
        finish(f, 0, 0, ST2_SCAN_FAILED);
    } else {
        sector_done(f);
    }
}

static void host_gave(struct fdc *f)
{
    switch (fdc_code(f)) {
    case CMD_FORMAT:
        format_sector(f);
        break;
    case CMD_WRITE:
    case CMD_WRITE_DELETED:
        write_sector(f, f->course.r);
        break;
    default:
        scan_sector(f);
        break;
    }
}

/* Where the count ends within a sector, the rest of it is zeroes. */
static void from_host(struct fdc *f)
{
    f->at = 0;
    memset(host_buffer(f), 0, host_bytes(f));
    if (!by_dma(f)) {
        f->step = STEP_FROM_HOST;
        fdc_raise(f);
    } else if (dma_cycles(f, DMA_FROM_MEMORY, host_buffer(f), host_bytes(f))) {
        host_gave(f);
    } else {
        finish(f, 0, ST1_OVERRUN, 0);
    }
}

uint8_t fdc_read_data(struct fdc *f)
{
    uint8_t v = f->data[f->at++];
    fdc_lower(f);
    if (f->at == FDC_SECTOR) {
        sector_done(f);
    } else {
        fdc_raise(f);
    }
    return v;
}

void fdc_write_data(struct fdc *f, uint8_t v)
{
    host_buffer(f)[f->at++] = v;
    fdc_lower(f);
    if (f->at == host_bytes(f)) {
        host_gave(f);
    } else {
        fdc_raise(f);
    }
}

/* -- Sectors under the head -------------------------------------------------------------------- */
static void read_done(struct fdc *f, int result)
{
    if (result < 0) {
        finish(f, 0, ST1_CRC, ST2_CRC_DATA);
    } else if (fdc_code(f) == CMD_VERIFY) {
        sector_done(f);
    } else if (is_scan(f)) {
        from_host(f);
    } else {
        to_host(f);
    }
}

static void read_sector(struct fdc *f, uint8_t r)
{
    uint64_t offset = offset_of(f, r), bytes = fdc_drive(f)->bytes;
    uint32_t there = offset >= bytes              ? 0
                     : bytes - offset > FDC_SECTOR ? FDC_SECTOR
                                                   : (uint32_t)(bytes - offset);
    memset(f->data, 0, FDC_SECTOR);
    if (there == 0) {
        read_done(f, 0);
    } else {
        submit(f, BLOCK_OP_READ, offset, there, read_done);
    }
}

/* Does the head see address marks at all? */
static bool has_marks(struct fdc *f)
{
    const struct fdc_drive *d = fdc_drive(f);
    const struct fdc_geometry *g = d->geometry;
    return (f->param[0] & CMD_MFM) && (g->rates & BIT(f->rate)) && f->course.head < g->heads &&
           d->cylinder < g->cylinders;
}

/* The sector that the command asks for is on this track; else a whole turn went by in vain. */
static bool found(struct fdc *f)
{
    const struct fdc_drive *d = fdc_drive(f);
    struct fdc_course *c = &f->course;
    if (c->c == d->cylinder && c->h == c->head && c->r >= 1 && c->r <= d->geometry->sectors &&
        f->param[5] == SIZE_512) {
        return true;
    }
    uint8_t st2 = c->c == d->cylinder ? 0 : c->c == 0xff ? ST2_BAD_CYLINDER : ST2_WRONG_CYLINDER;
    finish(f, 0, ST1_NO_DATA, st2);
    return false;
}

/* The disk turns on while nobody looks. */
static void read_id(struct fdc *f)
{
    const struct fdc_drive *d = fdc_drive(f);
    f->course.c = d->cylinder;
    f->course.h = f->course.head;
    f->course.r = (uint8_t)(clock_now_ns(f->clock) / SECTOR_NS % d->geometry->sectors + 1);
    finish(f, 0, 0, 0);
}

/* Sector by sector from the index hole on, whatever they are called. */
static void read_track(struct fdc *f)
{
    struct fdc_course *c = &f->course;
    const struct fdc_drive *d = fdc_drive(f);
    uint8_t r = (uint8_t)(c->passed + 1);
    if (r > d->geometry->sectors) {
        finish(f, 0, ST1_END, 0);
        return;
    }
    if (c->c != d->cylinder || c->h != c->head || c->r != r || f->param[5] != SIZE_512) {
        c->st1 |= ST1_NO_DATA;
    }
    read_sector(f, r);
}

void fdc_step_over(struct fdc *f)
{
    if (!has_marks(f)) {
        finish(f, 0, ST1_NO_MARK, 0);
    } else if (is_write(f) && fdc_drive(f)->readonly) {
        finish(f, 0, ST1_PROTECTED, 0);
    } else if (fdc_code(f) == CMD_READ_ID) {
        read_id(f);
    } else if (fdc_code(f) == CMD_READ_TRACK) {
        read_track(f);
    } else if (fdc_code(f) == CMD_FORMAT) {
        from_host(f);
    } else if (found(f)) {
        if (is_write(f)) {
            from_host(f);
            return;
        }
        if (fdc_code(f) == CMD_READ_DELETED) {
            f->course.st2 |= ST2_OTHER_MARK;
            if (f->param[0] & CMD_SK) {
                sector_done(f);
                return;
            }
        }
        read_sector(f, f->course.r);
    }
}

/* -- The beginning ----------------------------------------------------------------------------- */
/* Without a drive or a disk, or with the motor off, no index pulse ever tells the controller to
 * give up. */
static bool turns(struct fdc *f)
{
    const struct fdc_drive *d = fdc_drive(f);
    return d != NULL && !d->ejected && (f->dor & DOR_MOTOR0 << (f->param[1] & DOR_SELECT));
}

void fdc_start_data(struct fdc *f)
{
    unsigned n = f->param[1] & DOR_SELECT;
    uint64_t wait = SECTOR_NS;
    f->course = (struct fdc_course){ .head = (f->param[1] & ST0_HEAD) != 0 };
    f->phase = PHASE_EXECUTION;
    f->at = 0;
    if (fdc_code(f) == CMD_FORMAT) {
        f->last_eot = f->param[3];
    } else if (fdc_code(f) != CMD_READ_ID) {
        f->course.c = f->param[2];
        f->course.h = f->param[3];
        f->course.r = f->param[4];
        f->last_eot = f->param[6];
        if (f->configure & CONFIGURE_IMPLIED_SEEK) {
            wait += fdc_move_head(f, n, f->param[2] - f->pcn[n]);
            f->pcn[n] = f->param[2];
        }
    }
    f->step = STEP_NONE;
    if (turns(f)) {
        next_sector(f, wait);
    }
}

bool fdc_data_fits(struct fdc *f)
{
    enum fdc_command code = fdc_code(f);
    unsigned bytes = fdc_params_of(f->param[0]);
    if (code != CMD_READ_ID && code != CMD_FORMAT && bytes != FDC_PARAMS) {
        return false;
    }
    bool waits = f->step_ends != TIMER_NEVER;
    bool disk = fdc_drive(f) != NULL && !fdc_drive(f)->ejected;
    switch (f->step) {
    case STEP_NONE:
        return !waits;
    case STEP_SECTOR:
        return waits && disk;
    case STEP_TO_HOST:
        return !waits && disk && is_read(f) && f->at < FDC_SECTOR;
    case STEP_FROM_HOST:
        return !waits && disk && (is_write(f) || is_scan(f)) && f->at < host_bytes(f);
    default:
        return false;
    }
}
