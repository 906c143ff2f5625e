/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of the 82077AA (data sheet 290166, chapter 5), those that go over sectors apart.
 */
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/fdc_int.h"

#define VERSION_ENHANCED 0x90u
#define ST3_ONES 0x28u
#define ST3_TRACK_0 0x10u
#define ST3_PROTECTED 0x40u
#define RECALIBRATE_STEPS 79
#define PERPENDICULAR_OW 0x80u
#define PERPENDICULAR_DRIVES 0x3cu
#define PERPENDICULAR_MODE 0x03u

static void show_one(struct fdc *f, uint8_t result)
{
    f->result[0] = result;
    fdc_show_results(f, 1);
}

/* -- Moving heads ------------------------------------------------------------------------------ */
/* The command is over at once; that the head is there is heard of later. */
static void start_seek(struct fdc *f, int cylinders, uint8_t st0)
{
    unsigned n = f->param[1] & DOR_SELECT;
    f->seek_ends[n] = clock_now_ns(f->clock) + fdc_move_head(f, n, cylinders);
    f->seeking |= (uint8_t)BIT(n);
    f->sensed &= (uint8_t)~BIT(n);
    f->sense[n] = (uint8_t)(st0 | n);
    fdc_idle(f);
}

static void seek(struct fdc *f)
{
    uint8_t *pcn = &f->pcn[f->param[1] & DOR_SELECT];
    uint8_t st0 = ST0_SEEK_END | (f->param[1] & ST0_HEAD);
    int cylinders = f->param[2] - *pcn;
    if (f->param[0] & CMD_MT) { /* relative */
        cylinders = f->param[0] & CMD_MFM ? f->param[2] : -f->param[2];
    }
    *pcn = (uint8_t)(*pcn + cylinders);
    start_seek(f, cylinders, st0);
}

/* A drive that is not there never says that it is at track 0. */
static void recalibrate(struct fdc *f)
{
    unsigned n = f->param[1] & DOR_SELECT;
    const struct fdc_drive *d = fdc_drive(f);
    bool arrives = d != NULL && d->cylinder <= RECALIBRATE_STEPS;
    int steps = arrives ? d->cylinder : RECALIBRATE_STEPS;
    f->pcn[n] = 0;
    /* At track 0 no pulse is needed, and none is sent. */
    start_seek(f, -steps, arrives ? ST0_SEEK_END : ST0_SEEK_END | ST0_FAULT | ST0_ABNORMAL);
}

/* -- Status ------------------------------------------------------------------------------------ */
static void sense_interrupt(struct fdc *f)
{
    unsigned n = 0;
    while (n < FDC_SELECTS && !(f->sensed & BIT(n))) {
        n++;
    }
    if (n == FDC_SELECTS) {
        show_one(f, ST0_INVALID);
        return;
    }
    f->sensed &= (uint8_t)~BIT(n);
    fdc_lower(f);
    f->result[0] = f->sense[n];
    f->result[1] = f->pcn[n];
    fdc_show_results(f, 2);
}

static void sense_drive(struct fdc *f)
{
    const struct fdc_drive *d = fdc_drive(f);
    uint8_t st3 = ST3_ONES | (f->param[1] & (ST0_HEAD | DOR_SELECT));
    if (d != NULL) {
        st3 |= d->cylinder == 0 ? ST3_TRACK_0 : 0;
        st3 |= d->readonly || d->ejected ? ST3_PROTECTED : 0; /* no disk opens the light's way */
    }
    show_one(f, st3);
}

static void dump_registers(struct fdc *f)
{
    memcpy(f->result, f->pcn, FDC_SELECTS);
    memcpy(f->result + 4, f->specify, sizeof f->specify);
    f->result[6] = f->last_eot;
    f->result[7] = (uint8_t)((f->locked ? 0x80 : 0) | f->perpendicular);
    f->result[8] = f->configure;
    f->result[9] = f->pretrack;
    fdc_show_results(f, 10);
}

/* -- Settings ---------------------------------------------------------------------------------- */
static void specify(struct fdc *f)
{
    memcpy(f->specify, f->param + 1, sizeof f->specify);
    fdc_idle(f);
}

static void configure(struct fdc *f)
{
    f->configure = f->param[2] & 0x7f;
    f->pretrack = f->param[3];
    fdc_idle(f);
}

static void perpendicular(struct fdc *f)
{
    uint8_t v = f->param[1];
    uint8_t drives = v & PERPENDICULAR_OW ? v : f->perpendicular;
    f->perpendicular = (uint8_t)((drives & PERPENDICULAR_DRIVES) | (v & PERPENDICULAR_MODE));
    fdc_idle(f);
}

static void lock(struct fdc *f)
{
    f->locked = f->param[0] & CMD_MT;
    show_one(f, f->locked ? 0x10 : 0);
}

/* -- Which ------------------------------------------------------------------------------------- */
/* Bits above the code that a command may have, and its bytes; the rest is invalid. */
static const struct {
    uint8_t bits, bytes;
    void (*run)(struct fdc *f);
} commands[CMD_CODE + 1] = {
    [CMD_READ_TRACK] = { CMD_MFM, 9, fdc_start_data },
    [CMD_SPECIFY] = { 0, 3, specify },
    [CMD_SENSE_DRIVE] = { 0, 2, sense_drive },
    [CMD_WRITE] = { CMD_MT | CMD_MFM, 9, fdc_start_data },
    [CMD_READ] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
    [CMD_RECALIBRATE] = { 0, 2, recalibrate },
    [CMD_SENSE_INTERRUPT] = { 0, 1, sense_interrupt },
    [CMD_WRITE_DELETED] = { CMD_MT | CMD_MFM, 9, fdc_start_data },
    [CMD_READ_ID] = { CMD_MFM, 2, fdc_start_data },
    [CMD_READ_DELETED] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
    [CMD_FORMAT] = { CMD_MFM, 6, fdc_start_data },
    [CMD_DUMPREG] = { 0, 1, dump_registers },
    [CMD_SEEK] = { CMD_MT | CMD_MFM, 3, seek },
    [CMD_VERSION] = { 0, 1, NULL },
    [CMD_SCAN_EQUAL] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
    [CMD_PERPENDICULAR] = { 0, 2, perpendicular },
    [CMD_CONFIGURE] = { 0, 4, configure },
    [CMD_LOCK] = { CMD_MT, 1, lock },
    [CMD_VERIFY] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
    [CMD_SCAN_LOW] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
    [CMD_SCAN_HIGH] = { CMD_MT | CMD_MFM | CMD_SK, 9, fdc_start_data },
};

static bool valid(uint8_t command)
{
    uint8_t code = command & CMD_CODE;
    bool relative = !(command & CMD_MFM) || (command & CMD_MT) || code != CMD_SEEK;
    return commands[code].bytes != 0 && !(command & ~CMD_CODE & ~commands[code].bits) && relative;
}

unsigned fdc_params_of(uint8_t command)
{
    return valid(command) ? commands[command & CMD_CODE].bytes : 1;
}

void fdc_command(struct fdc *f)
{
    if (!valid(f->param[0])) {
        log_guest("fdc", "invalid command %#x", f->param[0]);
        show_one(f, ST0_INVALID);
    } else if (fdc_code(f) == CMD_VERSION) {
        show_one(f, VERSION_ENHANCED);
    } else {
        commands[fdc_code(f)].run(f);
    }
}
