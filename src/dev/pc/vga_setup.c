/* SPDX-License-Identifier: Apache-2.0
 *
 * What a VGA BIOS leaves behind: mode 3, 80 columns and 25 rows of 9 by 16 dots, with the registers
 * of the table in the IBM PS/2 Hardware Interface Technical Reference (Video Subsystem). For
 * kernels that are booted without firmware and find text at 0xb8000, or a frame buffer.
 */
#include <string.h>

#include "base/bits.h"
#include "dev/pc/vga.h"

#define GLYPHS 256u
#define GLYPH_LINES 16u
#define GLYPH_ROOM 32u /* of a character in plane 2 */
#define TEXT_WINDOW 0x18000u /* 0xb8000, in the window */
#define ATTR_SCREEN_ON 0x20u

static const uint8_t mode3_seq[5] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
static const uint8_t mode3_crtc[VGA_CRTC_REGS] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf,
                                                   0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00,
                                                   0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f,
                                                   0x96, 0xb9, 0xa3, 0xff };
static const uint8_t mode3_gfx[9] = { 0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff };
static const uint8_t mode3_attr[VGA_ATTR_REGS] = { 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14,
                                                   0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
                                                   0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 };
#define MODE3_MISC 0x67u

/* The first 64 colours are the EGA's: two bits for each of red, green and blue, rgbRGB. */
static void load_palette(struct vga *v)
{
    for (unsigned n = 0; n < 64; n++) {
        for (unsigned c = 0; c < 3; c++) {
            bool strong = n & BIT(2 - c), weak = n & BIT(5 - c);
            v->dac[3 * n + c] = (uint8_t)((strong ? 0x2a : 0) + (weak ? 0x15 : 0));
        }
    }
}

/* The font is in the VGA BIOS, known by the dots of its characters 0, nothing, and 1, a face. */
static const uint8_t *find_font(const struct vga *v)
{
    static const uint8_t face[2 * GLYPH_LINES] = { [18] = 0x7e, 0x81, 0xa5, 0x81, 0x81,
                                                   0xbd,        0x99, 0x81, 0x81, 0x7e };
    uint64_t room = GLYPHS * GLYPH_LINES;
    for (uint64_t at = 0; at + room <= v->pci.rom_size; at++) {
        if (memcmp(v->pci.rom + at, face, sizeof face) == 0) {
            return v->pci.rom + at;
        }
    }
    return NULL;
}

void vga_set_text_mode(struct vga *v)
{
    uint8_t *ram = vga_ram(v);
    const uint8_t *font = find_font(v);
    v->vbe[VBE_ENABLE] = 0;
    v->misc = MODE3_MISC;
    memcpy(v->seq, mode3_seq, sizeof mode3_seq);
    memcpy(v->crtc, mode3_crtc, sizeof v->crtc);
    memcpy(v->gfx, mode3_gfx, sizeof v->gfx);
    memcpy(v->attr, mode3_attr, sizeof v->attr);
    v->attr_index = ATTR_SCREEN_ON;
    load_palette(v);
    for (unsigned n = 0; font != NULL && n < GLYPHS * GLYPH_LINES; n++) {
        ram[4 * (n / GLYPH_LINES * GLYPH_ROOM + n % GLYPH_LINES) + 2] = font[n];
    }
    for (unsigned at = 0; at < VGA_COLUMNS * VGA_ROWS * 2; at += 2) {
        vga_memory_ops.write(v, TEXT_WINDOW + at, 2, 0x0720); /* blanks, grey on black */
    }
}

bool vga_set_linear_mode(struct vga *v, unsigned width, unsigned height, unsigned bpp)
{
    uint64_t bytes = (uint64_t)width * height * ((bpp + 7) / 8);
    bool direct = bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32; /* no palette */
    if (width < 8 || width > SURFACE_MAX || height == 0 || height > SURFACE_MAX || !direct ||
        bytes > VGA_RAM_BYTES) {
        return false;
    }
    const uint16_t values[] = { [VBE_XRES] = (uint16_t)width,
                                [VBE_YRES] = (uint16_t)height,
                                [VBE_BPP] = (uint16_t)bpp,
                                [VBE_ENABLE] = VBE_ENABLED | VBE_LINEAR };
    for (unsigned n = VBE_XRES; n <= VBE_ENABLE; n++) {
        vga_vbe_write(v, n, values[n]);
    }
    return true;
}
