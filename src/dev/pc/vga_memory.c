/* SPDX-License-Identifier: Apache-2.0
 *
 * The window at 0xa0000: how the graphics controller and the sequencer make bytes of four planes
 * out of what the processor reads and writes (IBM PS/2 Hardware Interface Technical Reference,
 * Video Subsystem; write modes 0 to 3, read modes 0 and 1, odd/even, chain 4).
 *
 * Video memory holds the four planes interleaved: plane k of address n is byte 4n + k, so that a
 * row of a 256-colour mode is a row of bytes.
 */
#include "base/bits.h"
#include "dev/pc/vga.h"

enum gfx_reg {
    GFX_SET_RESET,
    GFX_ENABLE_SR,
    GFX_COMPARE,
    GFX_ROTATE,
    GFX_READ_MAP,
    GFX_MODE,
    GFX_MISC,
    GFX_DONT_CARE,
    GFX_BIT_MASK
};
#define SEQ_MAP_MASK 2
#define SEQ_MEMORY 4
#define MEMORY_CHAIN4 0x08u
#define MEMORY_NO_ODD_EVEN 0x04u
#define MODE_ODD_EVEN 0x10u
#define MODE_READ_COMPARE 0x08u
#define BANK_BYTES 0x10000u

/* The window's offset to that of the memory it shows; false: the window does not reach there. */
static bool decode(const struct vga *v, uint64_t *offset)
{
    static const struct {
        uint32_t first, size;
    } maps[4] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
    unsigned n = v->gfx[GFX_MISC] >> 2 & 3;
    if (vga_vbe_on(v)) {
        *offset = (*offset & (BANK_BYTES - 1)) + (uint64_t)v->vbe[VBE_BANK] * BANK_BYTES;
        return true;
    }
    if (*offset < maps[n].first || *offset - maps[n].first >= maps[n].size) {
        return false;
    }
    *offset -= maps[n].first;
    return true;
}

static bool chained(const struct vga *v)
{
    return (v->seq[SEQ_MEMORY] & MEMORY_CHAIN4) || (vga_vbe_on(v) && v->vbe[VBE_BPP] >= 8);
}

static bool odd_even(const struct vga *v)
{
    return (v->gfx[GFX_MODE] & MODE_ODD_EVEN) && !(v->seq[SEQ_MEMORY] & MEMORY_NO_ODD_EVEN);
}

/* -- Reading ----------------------------------------------------------------------------------- */
static uint8_t compare(const struct vga *v)
{
    uint8_t differ = 0;
    for (unsigned k = 0; k < 4; k++) {
        if (v->gfx[GFX_DONT_CARE] & BIT(k)) {
            uint8_t want = v->gfx[GFX_COMPARE] & BIT(k) ? 0xff : 0;
            differ |= v->latch[k] ^ want;
        }
    }
    return (uint8_t)~differ;
}

static uint8_t read_byte(struct vga *v, uint64_t offset)
{
    const uint8_t *ram = vga_ram(v);
    if (!decode(v, &offset)) {
        return 0xff;
    }
    if (chained(v)) {
        return offset < VGA_RAM_BYTES ? ram[offset] : 0xff;
    }
    if (odd_even(v)) {
        offset = (offset & ~1ull) << 1 | (v->gfx[GFX_READ_MAP] & 2) | (offset & 1);
        return ram[offset]; /* the window is small */
    }
    if (offset >= VGA_RAM_BYTES / 4) {
        return 0xff;
    }
    for (unsigned k = 0; k < 4; k++) {
        v->latch[k] = ram[4 * offset + k];
    }
    return v->gfx[GFX_MODE] & MODE_READ_COMPARE ? compare(v)
                                                : v->latch[v->gfx[GFX_READ_MAP] & 3];
}

/* -- Writing ----------------------------------------------------------------------------------- */
static uint8_t logical(const struct vga *v, uint8_t value, uint8_t latch)
{
    switch (v->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        return value & latch;
    case 2:
        return value | latch;
    case 3:
        return value ^ latch;
    default:
        return value;
    }
}

static uint8_t rotate(const struct vga *v, uint8_t value)
{
    unsigned n = v->gfx[GFX_ROTATE] & 7;
    return (uint8_t)(value >> n | value << (8 - n));
}

/* What write mode and masks make of the processor's byte, for plane k. */
static uint8_t plane_value(const struct vga *v, unsigned k, uint8_t value)
{
    uint8_t mask = v->gfx[GFX_BIT_MASK];
    uint8_t set = v->gfx[GFX_SET_RESET] & BIT(k) ? 0xff : 0;
    switch (v->gfx[GFX_MODE] & 3) {
    case 1:
        return v->latch[k];
    case 2:
        value = value & BIT(k) ? 0xff : 0;
        break;
    case 3:
        mask &= rotate(v, value);
        value = set;
        break;
    default:
        value = v->gfx[GFX_ENABLE_SR] & BIT(k) ? set : rotate(v, value);
        break;
    }
    value = logical(v, value, v->latch[k]);
    return (uint8_t)((value & mask) | (v->latch[k] & ~mask));
}

static void write_byte(struct vga *v, uint64_t offset, uint8_t value)
{
    uint8_t *ram = vga_ram(v);
    if (!decode(v, &offset)) {
        return;
    }
    uint8_t planes = v->seq[SEQ_MAP_MASK];
    if (chained(v)) {
        if (offset < VGA_RAM_BYTES && (vga_vbe_on(v) || (planes & BIT(offset & 3)))) {
            ram[offset] = value;
        }
        return;
    }
    bool pairs = odd_even(v);
    unsigned odd = offset & 1;
    if (pairs) { /* a cell of two bytes in planes 0 and 1, or 2 and 3, of one address */
        offset /= 2;
        planes &= odd ? 0xa : 0x5;
    }
    if (offset >= VGA_RAM_BYTES / 4) {
        return;
    }
    for (unsigned k = 0; k < 4; k++) {
        if (planes & BIT(k)) {
            ram[4 * offset + k] = plane_value(v, k, value);
        }
    }
}

static uint64_t memory_read(void *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)read_byte(dev, offset + i) << 8 * i;
    }
    return value;
}

static void memory_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        write_byte(dev, offset + i, (uint8_t)(value >> 8 * i));
    }
}

const struct region_ops vga_memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
};
