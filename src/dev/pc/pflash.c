/* SPDX-License-Identifier: Apache-2.0
 *
 * NOR flash with the Intel command set (Intel 28F640J3, 290667; JEDEC CFI, JESD68.01), one byte
 * wide. While it reads as an array the guest reads ROM pages; any command takes them away, so that
 * reads come here.
 * DEVIATION: CLEAR STATUS clears the ready bit, too, by which firmware knows an emulated flash.
 * UNIMPL: lock bits and suspend, as programming and erasing take no time.
 */
#include "dev/pc/pflash.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

enum pflash_mode {
    MODE_ARRAY,
    MODE_STATUS,
    MODE_ID,
    MODE_QUERY,
    MODE_PROGRAM,      /* the next write is the byte */
    MODE_ERASE,        /* the next write confirms */
    MODE_BUFFER_COUNT, /* the next write is the number of bytes less one */
    MODE_BUFFER_DATA,
    MODE_BUFFER_CONFIRM,
    MODE_LOCK,
    MODES
};

enum pflash_command {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_ALSO = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_LOCK = 0x60,
    CMD_READ_STATUS = 0x70,
    CMD_READ_ID = 0x90,
    CMD_QUERY = 0x98,
    CMD_CONFIRM = 0xd0,
    CMD_BUFFER = 0xe8,
    CMD_READ_ARRAY = 0xff,
};

#define STATUS_READY 0x80u
#define STATUS_ERASE_ERROR 0x20u
#define STATUS_PROGRAM_ERROR 0x10u
#define BUFFER_MAX 32u
#define MANUFACTURER 0x89u
#define DEVICE 0x18u

static uint8_t *contents(const struct pflash *f)
{
    return gmem_ram_host(f->mem) + (f->page << GMEM_PAGE_BITS);
}

/* -- What the guest sees ----------------------------------------------------------------------- */
static void show(struct pflash *f, bool array)
{
    if (array == f->shown) {
        return;
    }
    f->shown = array;
    if (array) {
        gmem_show_rom(f->mem, f->base, f->page, f->size);
    } else {
        gmem_map_hole(f->mem, f->base, f->size);
    }
}

static void write_back(struct pflash *f)
{
    if (f->dirty_first < f->dirty_end && f->changed != NULL) {
        f->changed(f->ctx, f->dirty_first, contents(f) + f->dirty_first,
                   f->dirty_end - f->dirty_first);
    }
    f->dirty_first = f->size;
    f->dirty_end = 0;
}

static void set_mode(struct pflash *f, enum pflash_mode mode)
{
    f->mode = (uint8_t)mode;
    if (mode == MODE_ARRAY) {
        write_back(f);
    }
    show(f, mode == MODE_ARRAY);
}

/* JESD68.01: identification string, size, one erase region. Offsets count bytes. */
static uint8_t query(const struct pflash *f, uint64_t offset)
{
    const uint32_t blocks = f->size / PFLASH_BLOCK - 1;
    const uint8_t table[] = {
        [0x10] = 'Q', 'R', 'Y', 1, 0, 0x31, 0, /* the Intel command set, its table at 0x31 */
        [0x1b] = 0x45, 0x55,                   /* volts */
        [0x1f] = 7, 7, 10, 0, 4, 4, 4, 0,      /* typical and longest times */
        [0x27] = (uint8_t)(32 - __builtin_clz(f->size - 1)),
        [0x2a] = 5, 0, /* buffer of 32 bytes */
        [0x2c] = 1,    (uint8_t)blocks, (uint8_t)(blocks >> 8), PFLASH_BLOCK >> 8 & 0xff, 0,
        [0x31] = 'P', 'R', 'I', '1', '0',
    };
    return offset < sizeof table ? table[offset] : 0;
}

static uint64_t pflash_read(void *dev, uint64_t offset, unsigned size)
{
    const struct pflash *f = dev;
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = f->status;
        if (f->mode == MODE_ARRAY) {
            byte = contents(f)[offset + i];
        } else if (f->mode == MODE_ID) {
            byte = (offset + i) % 4 == 0 ? MANUFACTURER : (offset + i) % 4 == 1 ? DEVICE : 0;
        } else if (f->mode == MODE_QUERY) {
            byte = query(f, offset + i);
        }
        v |= (uint64_t)byte << 8 * i;
    }
    return v;
}

/* -- Programming ------------------------------------------------------------------------------- */
static void touched(struct pflash *f, uint32_t first, uint32_t end)
{
    f->dirty_first = first < f->dirty_first ? first : f->dirty_first;
    f->dirty_end = end > f->dirty_end ? end : f->dirty_end;
}

/* Programming only clears bits. */
static void program(struct pflash *f, uint32_t offset, uint8_t value)
{
    contents(f)[offset] &= value;
    touched(f, offset, offset + 1);
    f->status |= STATUS_READY;
}

static void erase(struct pflash *f, uint32_t offset)
{
    uint32_t first = offset & ~(PFLASH_BLOCK - 1);
    memset(contents(f) + first, 0xff, PFLASH_BLOCK);
    touched(f, first, first + PFLASH_BLOCK);
    f->status |= STATUS_READY;
}

static void command(struct pflash *f, uint8_t v)
{
    switch (v) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_ALSO:
        set_mode(f, MODE_PROGRAM);
        break;
    case CMD_ERASE:
        set_mode(f, MODE_ERASE);
        break;
    case CMD_CLEAR_STATUS:
        f->status = 0;
        set_mode(f, MODE_ARRAY);
        break;
    case CMD_LOCK:
        set_mode(f, MODE_LOCK);
        break;
    case CMD_READ_STATUS:
        set_mode(f, MODE_STATUS);
        break;
    case CMD_READ_ID:
        set_mode(f, MODE_ID);
        break;
    case CMD_QUERY:
        set_mode(f, MODE_QUERY);
        break;
    case CMD_BUFFER:
        f->status |= STATUS_READY;
        set_mode(f, MODE_BUFFER_COUNT);
        break;
    default:
        if (v != CMD_READ_ARRAY && v != 0xf0 && v != 0) {
            log_guest("pflash", "command %#x", v);
        }
        set_mode(f, MODE_ARRAY);
        break;
    }
}

static void write_byte(struct pflash *f, uint32_t offset, uint8_t v)
{
    switch (f->mode) {
    case MODE_PROGRAM:
        program(f, offset, v);
        set_mode(f, MODE_STATUS);
        break;
    case MODE_ERASE:
        if (v == CMD_CONFIRM) {
            erase(f, offset);
        } else {
            f->status |= STATUS_READY | STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
        }
        set_mode(f, MODE_STATUS);
        break;
    case MODE_BUFFER_COUNT:
        f->buffer_left = v < BUFFER_MAX ? v + 1u : BUFFER_MAX;
        set_mode(f, MODE_BUFFER_DATA);
        break;
    case MODE_BUFFER_DATA:
        program(f, offset, v);
        if (--f->buffer_left == 0) {
            set_mode(f, MODE_BUFFER_CONFIRM);
        }
        break;
    case MODE_BUFFER_CONFIRM:
    case MODE_LOCK:
        f->status |= STATUS_READY;
        set_mode(f, MODE_STATUS);
        break;
    default:
        command(f, v);
        break;
    }
}

static void pflash_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        write_byte(dev, (uint32_t)offset + i, (uint8_t)(value >> 8 * i));
    }
}

static const struct region_ops pflash_ops = {
    .read = pflash_read,
    .write = pflash_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
};

/* -- Life -------------------------------------------------------------------------------------- */
static const struct state_field pflash_state[] = {
    STATE(struct pflash, mode),
    STATE(struct pflash, status),
    STATE(struct pflash, buffer_left),
    STATE_BYTES(struct pflash, bytes),
    STATE_END,
};

static void pflash_reset(void *dev)
{
    struct pflash *f = dev;
    f->status = STATUS_READY;
    f->buffer_left = 0;
    set_mode(f, MODE_ARRAY);
}

static void pflash_pre_save(void *dev)
{
    struct pflash *f = dev;
    memcpy(f->bytes, contents(f), f->size);
}

static int pflash_post_load(void *dev, struct err *e)
{
    struct pflash *f = dev;
    if (f->mode >= MODES || f->buffer_left > BUFFER_MAX ||
        (f->mode == MODE_BUFFER_DATA && f->buffer_left == 0)) {
        return err_set(e, -EINVAL, "impossible state");
    }
    memcpy(contents(f), f->bytes, f->size);
    touched(f, 0, f->size);
    set_mode(f, (enum pflash_mode)f->mode);
    return 0;
}

static const struct dev_class pflash_class = {
    .name = "pflash",
    .version = 1,
    .state = pflash_state,
    .size = sizeof(struct pflash),
    .reset = pflash_reset,
    .post_load = pflash_post_load,
    .pre_save = pflash_pre_save,
};

int pflash_init(struct pflash *f, struct bus *b, gpa_t base, const uint8_t *data, uint32_t size,
                struct err *e)
{
    if (size == 0 || size > PFLASH_MAX || size % PFLASH_BLOCK != 0) {
        return err_set(e, -EINVAL, "%u bytes of flash: not 4 KiB to 1 MiB in blocks of 4 KiB",
                       size);
    }
    memset(f, 0, sizeof *f);
    f->mem = bus_mem(b);
    f->base = base;
    f->size = f->dirty_first = size;
    int r = gmem_add_rom(f->mem, data, size, &f->page, e);
    if (r < 0) {
        return r;
    }
    dev_register(b, &f->dev, &pflash_class, "pflash");
    bus_add_mmio(b, base, size, &pflash_ops, f);
    pflash_reset(f);
    return 0;
}

void pflash_fini(struct pflash *f)
{
    write_back(f);
    dev_unregister(&f->dev);
}
