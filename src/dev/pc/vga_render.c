/* SPDX-License-Identifier: Apache-2.0
 *
 * What a VGA's registers and memory look like on the screen: text with the guest's fonts, 16 and
 * 256 colours, CGA's layouts, and the linear modes of VBE. Everything is read with bounds: the
 * guest may have put anything into the registers.
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/vga.h"

enum gfx_reg { GFX_MODE = 5, GFX_MISC = 6 };
enum attr_reg {
    ATTR_MODE = 0x10,
    ATTR_PLANES = 0x12,
    ATTR_PANNING = 0x13,
    ATTR_COLOUR_SELECT = 0x14,
};
enum attr_mode { MODE_LINES = 0x04, MODE_BLINK = 0x08, MODE_SPLIT_STAYS = 0x20 };
enum crtc_reg {
    CRTC_COLUMNS = 1,
    CRTC_OVERFLOW = 7,
    CRTC_PRESET_ROW = 8,
    CRTC_ROW_SCANS = 9,
    CRTC_CURSOR_START = 0xa,
    CRTC_CURSOR_END = 0xb,
    CRTC_START = 0xc,
    CRTC_CURSOR = 0xe,
    CRTC_LAST_LINE = 0x12,
    CRTC_OFFSET = 0x13,
    CRTC_UNDERLINE = 0x14,
    CRTC_MODE = 0x17,
    CRTC_COMPARE = 0x18,
};

#define BLANK_WIDTH 640u
#define BLANK_HEIGHT 400u
#define FONT_HEIGHT 32u /* bytes of a character in plane 2 */
#define FRAME_NS 14268000u
#define CURSOR_FRAMES 8u /* that it is seen, and then not */
#define BLINK_FRAMES 16u

/* -- Registers --------------------------------------------------------------------------------- */
static unsigned lines_of(const struct vga *v)
{
    unsigned overflow = v->crtc[CRTC_OVERFLOW];
    return v->crtc[CRTC_LAST_LINE] + ((overflow & 0x02) << 7) + ((overflow & 0x40) << 3) + 1u;
}

static unsigned compare_line(const struct vga *v)
{
    return v->crtc[CRTC_COMPARE] | (v->crtc[CRTC_OVERFLOW] & 0x10u) << 4 |
           (v->crtc[CRTC_ROW_SCANS] & 0x40u) << 3;
}

/* Byte panning moves it by whole cells. */
static uint32_t start_of(const struct vga *v)
{
    return ((uint32_t)v->crtc[CRTC_START] << 8 | v->crtc[CRTC_START + 1]) +
           (v->crtc[CRTC_PRESET_ROW] >> 5 & 3);
}

/* Lines of the frame for one of memory. */
static unsigned doubling(const struct vga *v) { return v->crtc[CRTC_ROW_SCANS] & 0x80 ? 2 : 1; }

/* Below the split the picture begins anew, at address 0: true, and *y counts from there. scans: of
 * the frame for one y. */
static bool below_split(const struct vga *v, unsigned scans, unsigned *y)
{
    unsigned split = (compare_line(v) + scans) / scans;
    bool below = *y >= split;
    *y -= below ? split : 0;
    return below;
}

enum dots { DOTS_8, DOTS_9, DOTS_256_COLOURS };

/* By how many pixels the picture is moved to the left. */
static unsigned panning(const struct vga *v, enum dots dots, bool below)
{
    unsigned n = v->attr[ATTR_PANNING] & 15;
    if (below && (v->attr[ATTR_MODE] & MODE_SPLIT_STAYS)) {
        return 0;
    }
    switch (dots) {
    case DOTS_9:
        return n < 8 ? n + 1 : 0;
    case DOTS_256_COLOURS:
        return (n & 7) / 2;
    default:
        return n & 7;
    }
}

/* Frames on and off in turn, on to begin with. */
static bool blink_on(const struct vga *v, unsigned frames)
{
    return clock_now_ns(v->clock) / ((uint64_t)FRAME_NS * frames) % 2 == 0;
}

/* Addresses from one row of characters, or line, to the next. */
static uint32_t row_offset(const struct vga *v) { return v->crtc[CRTC_OFFSET] * 2u; }

static bool graphics(const struct vga *v) { return v->gfx[GFX_MISC] & 1; }

static bool screen_off(const struct vga *v)
{
    return !(v->attr_index & 0x20) || (v->seq[1] & 0x20) || v->crtc[CRTC_COLUMNS] == 0;
}

/* -- Colours ----------------------------------------------------------------------------------- */
static uint32_t dac_colour(const struct vga *v, unsigned index)
{
    const uint8_t *rgb = v->dac + 3 * (index & v->dac_mask);
    uint32_t colour = 0;
    bool wide = vga_vbe_on(v) && (v->vbe[VBE_ENABLE] & VBE_8BIT_DAC);
    for (unsigned i = 0; i < 3; i++) {
        unsigned c = wide ? rgb[i] : (rgb[i] & 0x3fu) << 2 | (rgb[i] & 0x3fu) >> 4;
        colour = colour << 8 | c;
    }
    return colour;
}

static void palette16(const struct vga *v, uint32_t out[16])
{
    unsigned select = v->attr[ATTR_COLOUR_SELECT];
    for (unsigned i = 0; i < 16; i++) {
        unsigned c = v->attr[i];
        c = v->attr[ATTR_MODE] & 0x80 ? (c & 0x0f) | (select & 0x0f) << 4
                                      : (c & 0x3f) | (select & 0x0c) << 4;
        out[i] = dac_colour(v, c);
    }
}

/* -- Text -------------------------------------------------------------------------------------- */
struct text {
    unsigned columns, rows, height, width; /* of a character: height, width */
    uint32_t start, offset;
};

static bool text_of(const struct vga *v, struct text *t)
{
    t->columns = v->crtc[CRTC_COLUMNS] + 1u;
    t->height = (v->crtc[CRTC_ROW_SCANS] & 0x1fu) + 1;
    t->rows = lines_of(v) / (t->height * doubling(v));
    t->width = v->seq[1] & 1 ? 8 : 9;
    t->start = start_of(v);
    t->offset = row_offset(v);
    return !graphics(v) && !vga_vbe_on(v) && !screen_off(v) && t->rows != 0;
}

/* Character and attribute, bytes of planes 0 and 1. */
static const uint8_t *cell_at(const struct vga *v, const struct text *t, unsigned x, unsigned y)
{
    return vga_ram(v) + 4 * (size_t)((t->start + y * t->offset + x) & 0xffff);
}

static uint32_t font_of(const struct vga *v, bool second)
{
    static const uint16_t fonts[8] = { 0x0000, 0x4000, 0x8000, 0xc000,
                                       0x2000, 0x6000, 0xa000, 0xe000 };
    unsigned map = v->seq[3];
    unsigned a = (map >> 2 & 3) | (map >> 3 & 4), b = (map & 3) | (map >> 2 & 4);
    return fonts[second ? a : b];
}

static uint8_t glyph_row(const struct vga *v, const uint8_t *cell, unsigned row)
{
    uint32_t font = font_of(v, (cell[1] & 8) != 0 && (v->seq[3] & 0x3f) != 0);
    return vga_ram(v)[4 * (size_t)((font + cell[0] * FONT_HEIGHT + row) & 0xffff) + 2];
}

static bool cursor_on(const struct vga *v, unsigned row)
{
    unsigned first = v->crtc[CRTC_CURSOR_START] & 0x1f, last = v->crtc[CRTC_CURSOR_END] & 0x1f;
    return !(v->crtc[CRTC_CURSOR_START] & 0x20) && row >= first && row <= last;
}

/* One row of a character's pixels, the leftmost in bit 8. */
static unsigned dots_of(const struct vga *v, const uint8_t *cell, unsigned scan, bool cursor)
{
    unsigned bits = glyph_row(v, cell, scan);
    bool underlined = (cell[1] & 7) == 1 && scan == (v->crtc[CRTC_UNDERLINE] & 0x1fu);
    if (cursor || underlined) {
        return 0x1ff;
    }
    /* The ninth column repeats the eighth in 0xc0..0xdf. */
    bool ninth = (v->attr[ATTR_MODE] & MODE_LINES) && cell[0] >= 0xc0 && cell[0] <= 0xdf;
    return bits << 1 | (ninth ? bits & 1 : 0);
}

static void render_text(const struct vga *v, const struct text *t, struct surface *s)
{
    uint32_t palette[16];
    palette16(v, palette);
    bool blinks = v->attr[ATTR_MODE] & MODE_BLINK;
    bool hidden = blinks && !blink_on(v, BLINK_FRAMES);
    bool cursor_lit = blink_on(v, CURSOR_FRAMES);
    uint32_t cursor = (uint32_t)v->crtc[CRTC_CURSOR] << 8 | v->crtc[CRTC_CURSOR + 1];
    for (unsigned y = 0; y < s->height; y++) {
        unsigned line = y;
        bool below = below_split(v, doubling(v), &line);
        line += below ? 0 : v->crtc[CRTC_PRESET_ROW] & 0x1fu;
        unsigned row = line / t->height, scan = line % t->height;
        struct text part = *t;
        part.start = below ? 0 : t->start;
        bool cursor_here = cursor_lit && cursor_on(v, scan);
        unsigned pan = panning(v, t->width == 9 ? DOTS_9 : DOTS_8, below);
        uint32_t *out = s->pixels + (size_t)y * s->width;
        uint32_t ink = 0, paper = 0;
        unsigned dots = 0;
        for (unsigned x = 0; x < s->width; x++) {
            unsigned column = (x + pan) / t->width, i = (x + pan) % t->width;
            if (i == 0 || x == 0) {
                const uint8_t *cell = cell_at(v, &part, column, row);
                uint32_t address = (part.start + row * t->offset + column) & 0xffff;
                ink = palette[cell[1] & 15];
                paper = palette[cell[1] >> 4 & (blinks ? 7 : 15)];
                ink = hidden && (cell[1] & 0x80) ? paper : ink;
                dots = dots_of(v, cell, scan, cursor_here && address == cursor);
            }
            out[x] = dots << i & 0x100 ? ink : paper;
        }
    }
}

size_t vga_text(const struct vga *v, char *buf, size_t size)
{
    struct text t;
    size_t n = 0;
    if (!text_of(v, &t)) {
        if (size != 0) {
            buf[0] = '\0';
        }
        return 0;
    }
    for (unsigned y = 0; y < t.rows; y++) {
        unsigned last = t.columns;
        while (last > 0 && (cell_at(v, &t, last - 1, y)[0] & 0xdf) == 0) {
            last--;
        }
        for (unsigned x = 0; x <= last; x++, n++) {
            uint8_t c = x < last ? cell_at(v, &t, x, y)[0] : '\n';
            c = c >= 0x20 && c < 0x7f ? c : c == '\n' && x == last ? c : c == 0 ? ' ' : '?';
            if (n + 1 < size) {
                buf[n] = (char)c;
            }
        }
    }
    if (size != 0) {
        buf[n < size ? n : size - 1] = '\0';
    }
    return n;
}

/* -- Graphics ---------------------------------------------------------------------------------- */
enum format { PLANAR_16, CGA_4, BYTES_256 };

struct picture {
    enum format format;
    unsigned width, height, scans; /* lines of the frame for one of ours */
    uint32_t palette[256];
};

static void picture_of(const struct vga *v, struct picture *p)
{
    unsigned cells = v->crtc[CRTC_COLUMNS] + 1u;
    unsigned row_scans = (v->crtc[CRTC_ROW_SCANS] & 0x1fu) + 1;
    bool interleaved = (v->crtc[CRTC_MODE] & 3) != 3; /* CGA, Hercules: lines in banks */
    p->format = v->gfx[GFX_MODE] & 0x40   ? BYTES_256
                : v->gfx[GFX_MODE] & 0x20 ? CGA_4
                                          : PLANAR_16;
    p->width = p->format == BYTES_256 ? cells * 4 : cells * 8;
    p->scans = doubling(v) * (interleaved ? 1 : row_scans);
    p->height = lines_of(v) / p->scans;
    p->height = p->height != 0 ? p->height : 1;
    if (p->format == BYTES_256) {
        for (unsigned i = 0; i < 256; i++) {
            p->palette[i] = dac_colour(v, i);
        }
    } else {
        palette16(v, p->palette);
    }
}

/* Address of the first cell of line y from start, with the row scan counter where the CRTC puts
 * it. */
static uint32_t line_address(const struct vga *v, uint32_t start, unsigned y)
{
    unsigned row_scans = (v->crtc[CRTC_ROW_SCANS] & 0x1fu) + 1;
    if ((v->crtc[CRTC_MODE] & 3) == 3) {
        return start + y * row_offset(v);
    }
    unsigned scan = y % row_scans;
    uint32_t at = start + y / row_scans * row_offset(v);
    unsigned bank = v->crtc[CRTC_MODE] & 0x40 ? 13 : 12; /* words: one address for two bytes */
    if (!(v->crtc[CRTC_MODE] & 1)) {
        at = (at & ~(1u << bank)) | (scan & 1) << bank;
    }
    if (!(v->crtc[CRTC_MODE] & 2)) {
        at = (at & ~(2u << bank)) | (scan >> 1 & 1) << (bank + 1);
    }
    return at;
}

/* pan: the first pixel of the line that is seen. */
static void planar_line(const struct vga *v, const struct picture *p, uint32_t at, unsigned pan,
                        uint32_t *out)
{
    unsigned planes = v->attr[ATTR_PLANES] & 15;
    for (unsigned x = pan; x < p->width + pan; x++) {
        const uint8_t *b = vga_ram(v) + 4 * (size_t)((at + x / 8) & 0x3fffff);
        unsigned shift = 7 - x % 8;
        unsigned c = (b[0] >> shift & 1) | (b[1] >> shift & 1) << 1 | (b[2] >> shift & 1) << 2 |
                     (b[3] >> shift & 1) << 3;
        out[x - pan] = p->palette[c & planes];
    }
}

/* Two bits a pixel, from planes 0 and 1 in turn; planes 2 and 3 are the higher two. */
static void cga_line(const struct vga *v, const struct picture *p, uint32_t at, unsigned pan,
                     uint32_t *out)
{
    unsigned planes = v->attr[ATTR_PLANES] & 15;
    for (unsigned x = pan; x < p->width + pan; x++) {
        const uint8_t *b = vga_ram(v) + 4 * (size_t)((at + x / 8) & 0x3fffff);
        unsigned odd = x / 4 % 2, shift = 6 - 2 * (x % 4);
        unsigned c = (b[odd] >> shift & 3) | (b[odd + 2] >> shift & 3) << 2;
        out[x - pan] = p->palette[c & planes];
    }
}

static void render_graphics(const struct vga *v, const struct picture *p, struct surface *s)
{
    for (unsigned y = 0; y < s->height; y++) {
        unsigned line = y;
        bool below = below_split(v, p->scans, &line);
        uint32_t at = line_address(v, below ? 0 : start_of(v), line);
        unsigned pan = panning(v, p->format == BYTES_256 ? DOTS_256_COLOURS : DOTS_8, below);
        uint32_t *out = s->pixels + (size_t)y * s->width;
        if (p->format == PLANAR_16) {
            planar_line(v, p, at, pan, out);
        } else if (p->format == CGA_4) {
            cga_line(v, p, at, pan, out);
        } else {
            for (unsigned x = 0; x < p->width; x++) {
                out[x] = p->palette[vga_ram(v)[(4 * (size_t)at + pan + x) % VGA_RAM_BYTES]];
            }
        }
    }
}

/* -- VBE --------------------------------------------------------------------------------------- */
static uint32_t direct_colour(const uint8_t *p, unsigned bpp)
{
    uint32_t c = bpp <= 16 ? load_le16(p) : p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
    if (bpp > 16) {
        return c;
    }
    uint32_t r = bpp == 16 ? c >> 11 & 31 : c >> 10 & 31;
    uint32_t g = bpp == 16 ? c >> 5 & 63 : (c >> 5 & 31) << 1;
    uint32_t b = c & 31;
    return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

static void render_vbe(const struct vga *v, struct surface *s)
{
    unsigned bpp = v->vbe[VBE_BPP], bytes = (bpp + 7) / 8;
    uint64_t pitch = (uint64_t)v->vbe[VBE_VIRT_WIDTH] * bytes;
    struct picture p = { .width = s->width };
    if (bpp == 4) {
        palette16(v, p.palette);
    }
    for (unsigned y = 0; y < s->height; y++) {
        uint32_t *out = s->pixels + (size_t)y * s->width;
        uint64_t line = y + v->vbe[VBE_Y_OFFSET];
        if (bpp == 4) {
            uint64_t at = line * (v->vbe[VBE_VIRT_WIDTH] / 8u) + v->vbe[VBE_X_OFFSET] / 8u;
            planar_line(v, &p, (uint32_t)at, 0, out);
            continue;
        }
        for (unsigned x = 0; x < s->width; x++) {
            uint64_t at = line * pitch + (x + (uint64_t)v->vbe[VBE_X_OFFSET]) * bytes;
            if (at + bytes > VGA_RAM_BYTES) {
                out[x] = 0;
            } else if (bpp == 8) {
                out[x] = dac_colour(v, vga_ram(v)[at]);
            } else {
                out[x] = direct_colour(vga_ram(v) + at, bpp);
            }
        }
    }
}

static unsigned limited(unsigned n) { return n < 1 ? 1 : n > SURFACE_MAX ? SURFACE_MAX : n; }

void vga_render(const struct vga *v, struct surface *s)
{
    struct text t;
    if (vga_vbe_on(v)) {
        surface_resize(s, limited(v->vbe[VBE_XRES]), limited(v->vbe[VBE_YRES]));
        render_vbe(v, s);
    } else if (screen_off(v)) {
        surface_resize(s, BLANK_WIDTH, BLANK_HEIGHT);
        memset(s->pixels, 0, (size_t)s->width * s->height * sizeof *s->pixels);
    } else if (text_of(v, &t)) {
        surface_resize(s, limited(t.columns * t.width), limited(t.rows * t.height));
        render_text(v, &t, s);
    } else if (graphics(v)) {
        struct picture p;
        picture_of(v, &p);
        surface_resize(s, limited(p.width), limited(p.height));
        render_graphics(v, &p, s);
    }
}
