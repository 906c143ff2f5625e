/* SPDX-License-Identifier: Apache-2.0
 *
 * An 82077AA floppy disk controller in AT mode with up to two drives, on DMA channel 2.
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_FDC_H
#define SOSIA_DEV_PC_FDC_H

#include "base/clock.h"
#include "block/queue.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pc/i8237.h"

#define FDC_DRIVES 2u   /* that can be there */
#define FDC_SELECTS 4u  /* that the controller can name */
#define FDC_SECTOR 512u
#define FDC_PARAMS 9u
#define FDC_RESULTS 10u

/* What an image's size says of the disk and of the drive that takes it. */
struct fdc_geometry {
    uint16_t kib;      /* of a full disk */
    uint8_t cylinders, heads, sectors; /* sectors of a track */
    uint8_t drive;     /* as in CMOS 0x10: 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M */
    uint8_t rates;     /* bit r: the data rate r of CCR reads it */
};

struct fdc_drive {
    /* State: */
    uint8_t cylinder; /* where the head is */
    bool changed;     /* since the last step pulse with a disk in */
    bool ejected;     /* the disk that is described below is out */
    /* Not state: */
    uint8_t type; /* as in CMOS 0x10; 0: no drive */
    /* The disk: */
    const struct fdc_geometry *geometry;
    struct block_queue *queue;           /* borrowed */
    uint64_t bytes;                      /* of the image, which may be a part of a disk */
    bool readonly;
};

/* A command while it goes over sectors. */
struct fdc_course {
    uint8_t head, c, h, r; /* c, h, r: the address looked for, and shown in the result */
    uint8_t st1, st2;
    uint8_t passed; /* sectors */
    bool ended;     /* DMA's count ran out */
};

struct fdc {
    struct dev dev;
    /* State: */
    uint8_t dor, tdr, rate; /* rate: written to DSR or CCR */
    bool powered_down;
    uint8_t phase;  /* enum fdc_phase */
    uint8_t step;   /* enum fdc_step: what a command in execution waits for */
    uint8_t param[FDC_PARAMS], params, params_wanted; /* the command itself is param[0] */
    uint8_t result[FDC_RESULTS], result_at, results;
    bool irq;
    /* What SPECIFY, CONFIGURE, PERPENDICULAR MODE and LOCK set. */
    uint8_t specify[2], configure, pretrack, perpendicular;
    bool locked;
    uint8_t last_eot; /* or SC: for DUMPREG */
    uint8_t pcn[FDC_SELECTS];
    uint8_t sense[FDC_SELECTS]; /* ST0 for SENSE INTERRUPT STATUS, where bit n of sensed says so */
    uint8_t sensed;
    uint8_t seeking;                  /* bit n: drive n steps, until */
    uint64_t seek_ends[FDC_SELECTS];
    uint64_t step_ends;               /* of what is in execution, or of a reset; TIMER_NEVER */
    struct fdc_course course;
    uint8_t data[FDC_SECTOR]; /* of the disk */
    uint8_t host[FDC_SECTOR]; /* SCAN: what it is compared with */
    uint32_t at;              /* of those, what came from or went to the host */
    struct fdc_drive drive[FDC_DRIVES];
    /* Not state: */
    struct clock *clock; /* borrowed */
    struct timer timer;
    struct irq irq_line;
    struct dma *dma; /* borrowed */
    unsigned dma_channel;
    struct block_request rq; /* one at a time */
    struct block_queue *in_flight; /* where rq is, NULL: nowhere */
    bool cancelled;          /* its result is for nobody any more */
    void (*then)(struct fdc *f, int result);
};

struct fdc_config {
    struct clock *clock;
    struct irq irq;
    struct dma *dma;
    unsigned dma_channel;
    struct {
        struct block_queue *queue; /* borrowed; NULL: no drive */
        bool readonly;
    } drive[FDC_DRIVES];
};

/* Ports 0x3f0 to 0x3f5 and 0x3f7. Images have been looked at: fdc_geometry_of. */
void fdc_init(struct fdc *f, struct bus *b, const struct fdc_config *cfg);
void fdc_fini(struct fdc *f);

/* Take the disk of a drive out, or put another one in, which fdc_fits. No request of the disk's
 * queue is under way afterwards. */
void fdc_eject(struct fdc *f, unsigned n);
void fdc_insert(struct fdc *f, unsigned n, struct block_queue *queue, bool readonly);
/* Does the drive take disks of this kind? A drive reads what older ones of its size wrote. */
bool fdc_fits(const struct fdc_drive *d, const struct fdc_geometry *g);

/* The disk that an image of so many bytes is. One of no usual size is the beginning of a 1.44M or
 * 2.88M disk; NULL: it is larger than any. */
const struct fdc_geometry *fdc_geometry_of(uint64_t bytes);

#endif
