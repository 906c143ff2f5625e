/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the floppy controller share (Intel 82077AA, data sheet 290166).
 */
#ifndef SOSIA_DEV_PC_FDC_INT_H
#define SOSIA_DEV_PC_FDC_INT_H

#include "dev/pc/fdc.h"

enum fdc_phase {
    PHASE_RESET, /* held by DOR, or coming out of it */
    PHASE_COMMAND,
    PHASE_EXECUTION,
    PHASE_RESULT,
    PHASES
};

enum fdc_step {
    STEP_NONE,   /* for ever: no disk turns */
    STEP_SECTOR, /* the next one comes under the head at step_ends */
    STEP_IMAGE,  /* the image is at work */
    STEP_TO_HOST, /* without DMA: data goes byte by byte */
    STEP_FROM_HOST,
};

enum fdc_dor {
    DOR_SELECT = 0x03,
    DOR_RUN = 0x04, /* 0: reset */
    DOR_DMA = 0x08, /* interrupts and DMA requests get out */
    DOR_MOTOR0 = 0x10,
};

enum fdc_st0 {
    ST0_HEAD = 0x04,
    ST0_FAULT = 0x10, /* equipment check */
    ST0_SEEK_END = 0x20,
    ST0_ABNORMAL = 0x40,
    ST0_INVALID = 0x80,
    ST0_POLLED = 0xc0,
};
enum fdc_st1 {
    ST1_NO_MARK = 0x01, /* missing address mark */
    ST1_PROTECTED = 0x02,
    ST1_NO_DATA = 0x04,
    ST1_OVERRUN = 0x10,
    ST1_CRC = 0x20,
    ST1_END = 0x80, /* end of cylinder */
};
enum fdc_st2 {
    ST2_BAD_CYLINDER = 0x02,
    ST2_SCAN_FAILED = 0x04,
    ST2_SCAN_EQUAL = 0x08,
    ST2_WRONG_CYLINDER = 0x10,
    ST2_CRC_DATA = 0x20,
    ST2_OTHER_MARK = 0x40, /* control mark */
};

enum fdc_command {
    CMD_READ_TRACK = 0x02,
    CMD_SPECIFY = 0x03,
    CMD_SENSE_DRIVE = 0x04,
    CMD_WRITE = 0x05,
    CMD_READ = 0x06,
    CMD_RECALIBRATE = 0x07,
    CMD_SENSE_INTERRUPT = 0x08,
    CMD_WRITE_DELETED = 0x09,
    CMD_READ_ID = 0x0a,
    CMD_READ_DELETED = 0x0c,
    CMD_FORMAT = 0x0d,
    CMD_DUMPREG = 0x0e,
    CMD_SEEK = 0x0f,
    CMD_VERSION = 0x10,
    CMD_SCAN_EQUAL = 0x11,
    CMD_PERPENDICULAR = 0x12,
    CMD_CONFIGURE = 0x13,
    CMD_LOCK = 0x14,
    CMD_VERIFY = 0x16,
    CMD_SCAN_LOW = 0x19,
    CMD_SCAN_HIGH = 0x1d,
};
#define CMD_CODE 0x1fu
#define CMD_MT 0x80u  /* both heads; SEEK: relative; LOCK: lock */
#define CMD_MFM 0x40u /* SEEK, relative: towards higher cylinders */
#define CMD_SK 0x20u

#define CONFIGURE_IMPLIED_SEEK 0x40u
#define CONFIGURE_NO_FIFO 0x20u
#define SPECIFY_NO_DMA 0x01u /* of the second byte */
#define SIZE_512 2u          /* N: 128 << N bytes */

/* DEVIATION: a disk turns and a head steps faster than they did, but not in no time. */
#define SECTOR_NS 100000u
#define STEP_NS 50000u
#define RESET_NS 20000u

/* -- fdc.c */
static inline enum fdc_command fdc_code(const struct fdc *f)
{
    return (enum fdc_command)(f->param[0] & CMD_CODE);
}
/* The drive that the command names, NULL: there is none. */
struct fdc_drive *fdc_drive(struct fdc *f);
void fdc_raise(struct fdc *f);
void fdc_lower(struct fdc *f);
void fdc_arm(struct fdc *f);
/* Results are in f->result. */
void fdc_show_results(struct fdc *f, unsigned count);
void fdc_idle(struct fdc *f);
/* Moves the head as the controller believes; returns how long that takes. */
uint64_t fdc_move_head(struct fdc *f, unsigned select, int cylinders);

/* -- fdc_command.c: all parameters are there. */
unsigned fdc_params_of(uint8_t command);
void fdc_command(struct fdc *f);

/* -- fdc_data.c: the commands that go over sectors. */
void fdc_start_data(struct fdc *f);
void fdc_step_over(struct fdc *f); /* step_ends has come */
/* Without DMA, a byte to or from the data register. */
uint8_t fdc_read_data(struct fdc *f);
void fdc_write_data(struct fdc *f, uint8_t v);
bool fdc_data_fits(struct fdc *f); /* A saved state in execution can be. */
/* The request under way: wait, and forget its result; or wait, and go on as far as it goes. */
void fdc_forget(struct fdc *f);
void fdc_drain(struct fdc *f);

#endif
