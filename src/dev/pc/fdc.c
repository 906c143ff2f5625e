/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82077AA (data sheet 290166): registers, phases, reset, interrupts, state. In AT mode status
 * registers A and B are not there.
 *
 * DEVIATION: motors are at speed at once. UNIMPL: a tape drive, write precompensation, FM.
 */
#include "dev/pc/fdc_int.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/ticks.h"

enum fdc_reg { REG_DOR = 2, REG_TDR = 3, REG_MSR = 4 /* written: DSR */, REG_FIFO = 5 };

enum fdc_msr {
    MSR_BUSY = 0x10,
    MSR_NO_DMA = 0x20,
    MSR_TO_HOST = 0x40,
    MSR_REQUEST = 0x80,
};
enum fdc_dsr { DSR_RATE = 0x03, DSR_POWER_DOWN = 0x40, DSR_RESET = 0x80 };
#define DIR_CHANGED 0x80u
#define RATE_250K 2u
#define FLOATING 0xffu /* what nobody drives */

#define TYPE_360K 1u /* drives, as in CMOS 0x10; the others are for 3.5" disks */
#define TYPE_1200K 2u

/* -- Disks ------------------------------------------------------------------------------------- */
#define RATE_500 0x01u
#define RATE_300 0x02u
#define RATE_250 0x04u
#define RATE_1000 0x08u

static const struct fdc_geometry geometries[] = {
    { 160, 40, 1, 8, 1, RATE_250 | RATE_300 },  { 180, 40, 1, 9, 1, RATE_250 | RATE_300 },
    { 320, 40, 2, 8, 1, RATE_250 | RATE_300 },  { 360, 40, 2, 9, 1, RATE_250 | RATE_300 },
    { 720, 80, 2, 9, 3, RATE_250 },             { 820, 82, 2, 10, 3, RATE_250 },
    { 1200, 80, 2, 15, 2, RATE_500 },           { 1440, 80, 2, 18, 4, RATE_500 },
    { 1476, 82, 2, 18, 4, RATE_500 },           { 1600, 80, 2, 20, 4, RATE_500 },
    { 1640, 82, 2, 20, 4, RATE_500 },           { 1680, 80, 2, 21, 4, RATE_500 },
    { 1722, 82, 2, 21, 4, RATE_500 },           { 1743, 83, 2, 21, 4, RATE_500 },
    { 2880, 80, 2, 36, 5, RATE_1000 },
};

const struct fdc_geometry *fdc_geometry_of(uint64_t bytes)
{
    const struct fdc_geometry *part = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(geometries); i++) {
        const struct fdc_geometry *g = &geometries[i];
        if (bytes == KIB(g->kib)) {
            return g;
        }
        if (part == NULL && bytes < KIB(g->kib) && (g->kib == 1440 || g->kib == 2880)) {
            part = g;
        }
    }
    return part;
}

struct fdc_drive *fdc_drive(struct fdc *f)
{
    unsigned n = f->param[1] & DOR_SELECT;
    return n < FDC_DRIVES && f->drive[n].type != 0 ? &f->drive[n] : NULL;
}

bool fdc_fits(const struct fdc_drive *d, const struct fdc_geometry *g)
{
    bool wide = d->type == TYPE_360K || d->type == TYPE_1200K;
    bool is_wide = g->drive == TYPE_360K || g->drive == TYPE_1200K;
    return wide == is_wide && g->drive <= d->type;
}

/* Heads go a little further than disks have cylinders. */
static unsigned last_cylinder(const struct fdc_drive *d)
{
    return d->type == 0 ? 0 : d->type == TYPE_360K ? 43 : 86;
}

/* One step pulse is enough for a drive to look whether a disk is in. */
uint64_t fdc_move_head(struct fdc *f, unsigned select, int cylinders)
{
    unsigned steps = (unsigned)(cylinders < 0 ? -cylinders : cylinders);
    if (select < FDC_DRIVES && f->drive[select].type != 0 && steps != 0) {
        struct fdc_drive *d = &f->drive[select];
        int last = (int)last_cylinder(d);
        int to = d->cylinder + cylinders;
        d->cylinder = (uint8_t)(to < 0 ? 0 : to > last ? last : to);
        d->changed = d->ejected;
    }
    return (uint64_t)(steps + 1) * STEP_NS;
}

/* -- Interrupts and time ----------------------------------------------------------------------- */
static void update_irq(struct fdc *f) { irq_set(&f->irq_line, f->irq && (f->dor & DOR_DMA)); }

void fdc_raise(struct fdc *f)
{
    f->irq = true;
    update_irq(f);
}

void fdc_lower(struct fdc *f)
{
    f->irq = false;
    update_irq(f);
}

void fdc_arm(struct fdc *f)
{
    uint64_t next = f->step_ends;
    for (unsigned n = 0; n < FDC_SELECTS; n++) {
        if ((f->seeking & BIT(n)) && f->seek_ends[n] < next) {
            next = f->seek_ends[n];
        }
    }
    timer_arm(&f->timer, next);
}

void fdc_idle(struct fdc *f)
{
    f->phase = PHASE_COMMAND;
    f->step = STEP_NONE;
    f->params = 0;
    f->params_wanted = 1;
}

void fdc_show_results(struct fdc *f, unsigned count)
{
    f->phase = PHASE_RESULT;
    f->step = STEP_NONE;
    f->result_at = 0;
    f->results = (uint8_t)count;
}

/* Out of reset: it looks at four drives, and finds that each is now ready (5.2.4, 6.1). */
static void reset_over(struct fdc *f)
{
    fdc_idle(f);
    for (unsigned n = 0; n < FDC_SELECTS; n++) {
        f->sense[n] = (uint8_t)(ST0_POLLED | n);
    }
    f->sensed = (1u << FDC_SELECTS) - 1;
    fdc_raise(f);
}

static void fdc_timer(void *ctx, uint64_t now_ns)
{
    struct fdc *f = ctx;
    for (unsigned n = 0; n < FDC_SELECTS; n++) {
        if ((f->seeking & BIT(n)) && f->seek_ends[n] <= now_ns) {
            f->seeking &= (uint8_t)~BIT(n);
            f->sensed |= (uint8_t)BIT(n);
            fdc_raise(f);
        }
    }
    if (f->step_ends <= now_ns) {
        f->step_ends = TIMER_NEVER;
        if (f->phase == PHASE_RESET) {
            reset_over(f);
        } else {
            fdc_step_over(f);
        }
    }
    fdc_arm(f);
}

/* -- Reset ------------------------------------------------------------------------------------- */
/* What a software reset leaves: SPECIFY, the data rate and who is perpendicular stay, and so does
 * what LOCK protects. */
static void software_reset(struct fdc *f)
{
    fdc_forget(f);
    fdc_idle(f);
    f->phase = PHASE_RESET;
    f->powered_down = false;
    f->results = f->result_at = 0;
    f->seeking = f->sensed = 0;
    f->step_ends = TIMER_NEVER;
    f->at = 0;
    memset(f->pcn, 0, sizeof f->pcn);
    memset(&f->course, 0, sizeof f->course);
    if (!f->locked) {
        f->configure = CONFIGURE_NO_FIFO;
        f->pretrack = 0;
    }
    f->configure &= CONFIGURE_NO_FIFO | 0x0f; /* neither implied seeks nor POLL */
    f->perpendicular &= 0x3c;
    fdc_lower(f);
}

static void leave_reset(struct fdc *f)
{
    f->step_ends = clock_now_ns(f->clock) + RESET_NS;
    fdc_arm(f);
}

static void write_dor(struct fdc *f, uint8_t v)
{
    uint8_t old = f->dor;
    f->dor = v;
    if (old & ~v & DOR_RUN) {
        software_reset(f);
        fdc_arm(f);
    } else if (~old & v & DOR_RUN) {
        leave_reset(f);
    }
    update_irq(f);
}

static void write_dsr(struct fdc *f, uint8_t v)
{
    f->rate = v & DSR_RATE;
    if (v & DSR_RESET) {
        software_reset(f);
        if (f->dor & DOR_RUN) {
            leave_reset(f);
        } else {
            fdc_arm(f);
        }
    }
    f->powered_down = v & DSR_POWER_DOWN;
}

/* -- The data register ------------------------------------------------------------------------- */
static bool listening(const struct fdc *f) { return !f->powered_down && (f->dor & DOR_RUN); }

static uint8_t read_fifo(struct fdc *f)
{
    if (!listening(f)) {
        return FLOATING;
    }
    if (f->phase == PHASE_EXECUTION && f->step == STEP_TO_HOST) {
        return fdc_read_data(f);
    }
    if (f->phase != PHASE_RESULT) {
        log_guest("fdc", "read of the data register in phase %u", f->phase);
        return FLOATING;
    }
    uint8_t v = f->result[f->result_at++];
    bool was_sense = fdc_code(f) == CMD_SENSE_INTERRUPT;
    if (!was_sense) {
        fdc_lower(f);
    }
    if (f->result_at == f->results) {
        fdc_idle(f);
        /* A seek that ended meanwhile has not been heard of. */
        for (unsigned n = 0; n < FDC_SELECTS && !f->irq; n++) {
            if ((f->sensed & BIT(n)) && (f->sense[n] & ST0_POLLED) != ST0_POLLED) {
                fdc_raise(f);
            }
        }
    }
    return v;
}

static void write_fifo(struct fdc *f, uint8_t v)
{
    if (!listening(f)) {
        return;
    }
    if (f->phase == PHASE_EXECUTION && f->step == STEP_FROM_HOST) {
        fdc_write_data(f, v);
        return;
    }
    if (f->phase != PHASE_COMMAND) {
        log_guest("fdc", "%#x written to the data register in phase %u", v, f->phase);
        return;
    }
    f->param[f->params++] = v;
    if (f->params == 1) {
        f->params_wanted = (uint8_t)fdc_params_of(v);
    }
    if (f->params == f->params_wanted) {
        fdc_command(f);
        fdc_arm(f);
    }
}

static uint8_t main_status(const struct fdc *f)
{
    uint8_t v = f->seeking;
    if (f->phase == PHASE_RESET || f->powered_down) {
        return 0;
    }
    switch (f->phase) {
    case PHASE_COMMAND:
        return (uint8_t)(v | MSR_REQUEST | (f->params != 0 ? MSR_BUSY : 0));
    case PHASE_RESULT:
        return v | MSR_REQUEST | MSR_TO_HOST | MSR_BUSY;
    default:
        v |= MSR_BUSY | (f->specify[1] & SPECIFY_NO_DMA ? MSR_NO_DMA : 0);
        return (uint8_t)(v | (f->step == STEP_TO_HOST ? MSR_REQUEST | MSR_TO_HOST : 0) |
                         (f->step == STEP_FROM_HOST ? MSR_REQUEST : 0));
    }
}

/* The selected drive drives DSKCHG while its motor is on. The other bits are the hard disk's. */
static uint8_t digital_input(const struct fdc *f)
{
    unsigned n = f->dor & DOR_SELECT;
    bool on = n < FDC_DRIVES && f->drive[n].type != 0 && (f->dor & DOR_MOTOR0 << n);
    return on && f->drive[n].changed ? DIR_CHANGED : 0;
}

static uint64_t fdc_read(void *dev, uint64_t offset, unsigned size)
{
    struct fdc *f = dev;
    (void)size;
    switch (offset) {
    case REG_DOR:
        return f->dor;
    case REG_TDR:
        return f->tdr | 0xfcu;
    case REG_MSR:
        return main_status(f);
    case REG_FIFO:
        return read_fifo(f);
    default:
        return FLOATING;
    }
}

static void fdc_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fdc *f = dev;
    uint8_t v = (uint8_t)value;
    (void)size;
    switch (offset) {
    case REG_DOR:
        write_dor(f, v);
        break;
    case REG_TDR:
        f->tdr = v & 3;
        break;
    case REG_MSR:
        write_dsr(f, v);
        break;
    case REG_FIFO:
        write_fifo(f, v);
        break;
    default:
        break;
    }
}

static uint64_t dir_read(void *dev, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return digital_input(dev);
}

static void ccr_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fdc *f = dev;
    (void)offset;
    (void)size;
    f->rate = value & DSR_RATE;
}

static const struct region_ops fdc_ops = { .read = fdc_read,
                                           .write = fdc_write,
                                           .sizes = ACCESS_1 };
static const struct region_ops dir_ops = { .read = dir_read,
                                           .write = ccr_write,
                                           .sizes = ACCESS_1 };

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field drive_state[] = {
    STATE(struct fdc_drive, cylinder),
    STATE(struct fdc_drive, changed),
    STATE_SINCE(2, struct fdc_drive, ejected),
    STATE_END,
};

static const struct state_field course_state[] = {
    STATE(struct fdc_course, head),  STATE(struct fdc_course, c),   STATE(struct fdc_course, h),
    STATE(struct fdc_course, r),     STATE(struct fdc_course, st1), STATE(struct fdc_course, st2),
    STATE(struct fdc_course, passed), STATE(struct fdc_course, ended), STATE_END,
};

static const struct state_field fdc_state[] = {
    STATE(struct fdc, dor),
    STATE(struct fdc, tdr),
    STATE(struct fdc, rate),
    STATE(struct fdc, powered_down),
    STATE(struct fdc, phase),
    STATE(struct fdc, step),
    STATE_BYTES(struct fdc, param),
    STATE(struct fdc, params),
    STATE(struct fdc, params_wanted),
    STATE_BYTES(struct fdc, result),
    STATE(struct fdc, result_at),
    STATE(struct fdc, results),
    STATE(struct fdc, irq),
    STATE_BYTES(struct fdc, specify),
    STATE(struct fdc, configure),
    STATE(struct fdc, pretrack),
    STATE(struct fdc, perpendicular),
    STATE(struct fdc, locked),
    STATE(struct fdc, last_eot),
    STATE_BYTES(struct fdc, pcn),
    STATE_BYTES(struct fdc, sense),
    STATE(struct fdc, sensed),
    STATE(struct fdc, seeking),
    STATE_ARRAY(struct fdc, seek_ends),
    STATE(struct fdc, step_ends),
    STATE_STRUCT(struct fdc, course, course_state),
    STATE_BYTES(struct fdc, data),
    STATE_BYTES(struct fdc, host),
    STATE(struct fdc, at),
    STATE_STRUCTS(struct fdc, drive, drive_state),
    STATE_END,
};

static void fdc_reset(void *dev)
{
    struct fdc *f = dev;
    f->locked = false;
    software_reset(f);
    f->dor = f->tdr = 0;
    f->rate = RATE_250K;
    f->last_eot = 0;
    f->perpendicular = 0;
    memset(f->specify, 0, sizeof f->specify);
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        f->drive[n].changed = true;
    }
    fdc_lower(f);
    fdc_arm(f);
}

static void fdc_quiesce(void *dev) { fdc_drain(dev); }

static bool step_fits(struct fdc *f)
{
    bool waits = f->step_ends != TIMER_NEVER;
    switch (f->phase) {
    case PHASE_RESET:
        return f->step == STEP_NONE && waits == !!(f->dor & DOR_RUN);
    case PHASE_COMMAND:
        return f->step == STEP_NONE && !waits && f->params < f->params_wanted &&
               f->params_wanted <= FDC_PARAMS &&
               (f->params == 0 || f->params_wanted == fdc_params_of(f->param[0]));
    case PHASE_RESULT:
        return f->step == STEP_NONE && !waits && f->result_at < f->results &&
               f->results <= FDC_RESULTS;
    default:
        return fdc_data_fits(f);
    }
}

static int fdc_post_load(void *dev, struct err *e)
{
    struct fdc *f = dev;
    fdc_forget(f); /* the request of the life before */
    bool fits = f->phase < PHASES && step_fits(f) && f->at < FDC_SECTOR && f->tdr <= 3 &&
                f->rate <= DSR_RATE && (f->sensed | f->seeking) < 1u << FDC_SELECTS &&
                f->course.head <= 1;
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        const struct fdc_drive *d = &f->drive[n];
        fits = fits && d->cylinder <= last_cylinder(d);
    }
    if (!fits) {
        return err_set(e, -EINVAL, "impossible state of the floppy controller");
    }
    update_irq(f);
    fdc_arm(f);
    return 0;
}

static const struct dev_class fdc_class = {
    .name = "fdc",
    .version = 2,
    .state = fdc_state,
    .size = sizeof(struct fdc),
    .reset = fdc_reset,
    .post_load = fdc_post_load,
    .quiesce = fdc_quiesce,
};

/* -- Disks that come and go -------------------------------------------------------------------- */
void fdc_eject(struct fdc *f, unsigned n)
{
    fdc_drain(f);
    f->drive[n].ejected = f->drive[n].changed = true;
    if (f->phase == PHASE_EXECUTION && (f->param[1] & DOR_SELECT) == n) {
        f->step = STEP_NONE; /* no mark and no index hole comes by any more */
        f->step_ends = TIMER_NEVER;
        fdc_arm(f);
    }
}

static void put_in(struct fdc_drive *d, struct block_queue *queue, bool readonly)
{
    d->queue = queue;
    d->readonly = readonly;
    d->bytes = block_size(block_queue_block(queue));
    d->geometry = fdc_geometry_of(d->bytes);
    d->ejected = false;
}

void fdc_insert(struct fdc *f, unsigned n, struct block_queue *queue, bool readonly)
{
    fdc_eject(f, n);
    put_in(&f->drive[n], queue, readonly);
}

void fdc_init(struct fdc *f, struct bus *b, const struct fdc_config *cfg)
{
    *f = (struct fdc){
        .clock = cfg->clock,
        .irq_line = cfg->irq,
        .dma = cfg->dma,
        .dma_channel = cfg->dma_channel,
    };
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        struct fdc_drive *d = &f->drive[n];
        if (cfg->drive[n].queue != NULL) {
            put_in(d, cfg->drive[n].queue, cfg->drive[n].readonly);
            d->type = d->geometry->drive;
        }
    }
    timer_init(&f->timer, cfg->clock, fdc_timer, f);
    dev_register(b, &f->dev, &fdc_class, "fdc");
    bus_add_port(b, 0x3f0, 6, &fdc_ops, f);
    bus_add_port(b, 0x3f7, 1, &dir_ops, f);
    fdc_reset(f);
}

void fdc_fini(struct fdc *f)
{
    fdc_forget(f);
    timer_cancel(&f->timer);
    dev_unregister(&f->dev);
}
