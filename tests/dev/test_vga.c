/* SPDX-License-Identifier: Apache-2.0
 *
 * VGA: registers, the window's write and read modes, VBE, and what is rendered of it.
 */
// LAYERS: dev/pc bus display mem state base
#include "support/dev.h"

#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "dev/pc/i440fx.h"
#include "dev/pc/vga.h"

#define ROM_FONT 1003 /* nothing aligns it */

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct i440fx host;
    struct vga *vga;
    struct surface shot;
};

static void config_out(struct fix *f, unsigned reg, uint32_t v)
{
    dev_out32(&f->rig, 0xcf8, 0x80000000u | PCI_DEVFN(2, 0) << 8 | reg);
    dev_out32(&f->rig, 0xcfc, v);
}

static int setup(void **state)
{
    static uint8_t rom[8192] = { 0x55, 0xaa, 16 };
    static const uint8_t face[] = { 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e };
    memcpy(rom + ROM_FONT + 18, face, sizeof face);
    memset(rom + ROM_FONT + 'B' * 16, 0xaa, 16);
    struct fix *f = calloc(1, sizeof *f);
    struct err e = { 0 };
    const struct irq none[4] = { { 0 } };
    assert_int_equal(gmem_new(&f->mem, 4 << 20, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    i440fx_init(&f->host, f->rig.bus, none, NULL, NULL);
    f->vga = calloc(1, sizeof *f->vga);
    assert_int_equal(vga_init(f->vga, f->rig.bus, i440fx_pci(&f->host), PCI_DEVFN(2, 0),
                              f->rig.clock, rom, sizeof rom, &e),
                     0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    vga_fini(f->vga);
    i440fx_fini(&f->host);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    surface_free(&f->shot);
    free(f->vga);
    free(f);
    return 0;
}

static void indexed(struct fix *f, uint16_t port, unsigned index, unsigned v)
{
    dev_out16(&f->rig, port, (uint16_t)(v << 8 | index));
}

static void seq(struct fix *f, unsigned i, unsigned v) { indexed(f, 0x3c4, i, v); }
static void gfx(struct fix *f, unsigned i, unsigned v) { indexed(f, 0x3ce, i, v); }
static void crtc(struct fix *f, unsigned i, unsigned v) { indexed(f, 0x3d4, i, v); }

static void attr(struct fix *f, unsigned i, unsigned v)
{
    (void)dev_in8(&f->rig, 0x3da);
    dev_out8(&f->rig, 0x3c0, (uint8_t)i);
    dev_out8(&f->rig, 0x3c0, (uint8_t)v);
}

static void vbe(struct fix *f, unsigned i, unsigned v)
{
    dev_out16(&f->rig, 0x1ce, (uint16_t)i);
    dev_out16(&f->rig, 0x1cf, (uint16_t)v);
}

static void mem(struct fix *f, uint32_t at, uint8_t v) { bus_mmio_write(f->rig.bus, at, 1, v); }
static uint8_t in(struct fix *f, uint32_t at)
{
    return (uint8_t)bus_mmio_read(f->rig.bus, at, 1);
}

/* DAC entry n is grey n (6 bits), the palette one to one, the screen on. */
static void colours(struct fix *f)
{
    dev_out8(&f->rig, 0x3c2, 0x67);
    dev_out8(&f->rig, 0x3c8, 0);
    for (unsigned i = 0; i < 256 * 3; i++) {
        dev_out8(&f->rig, 0x3c9, (uint8_t)(i / 3));
    }
    for (unsigned i = 0; i < 16; i++) {
        attr(f, i, i);
    }
    attr(f, 0x12, 0xf);
    dev_out8(&f->rig, 0x3c0, 0x20);
}

static uint32_t grey(unsigned n)
{
    n = (n & 0x3f) << 2 | (n & 0x3f) >> 4;
    return n << 16 | n << 8 | n;
}

/* 80 by 25, characters of 8 by 16 */
static void text_mode(struct fix *f)
{
    colours(f);
    crtc(f, 0x11, 0);
    crtc(f, 1, 79);
    crtc(f, 7, 0x1f);
    crtc(f, 9, 0x4f);
    crtc(f, 0x12, 0x8f);
    crtc(f, 0x13, 0x28);
    crtc(f, 0x17, 0xa3);
    crtc(f, 0x18, 0xff);
    crtc(f, 0xa, 0x20); /* no cursor */
    seq(f, 1, 1);
    seq(f, 2, 4); /* the font: plane 2, without odd and even */
    seq(f, 4, 6);
    gfx(f, 5, 0);
    gfx(f, 6, 4);
    gfx(f, 8, 0xff);
    for (unsigned i = 0; i < 16; i++) {
        mem(f, 0xa0000 + 'A' * 32 + i, i == 3 ? 0x81 : 0);
    }
    seq(f, 2, 3);
    seq(f, 4, 2);
    gfx(f, 5, 0x10);
    gfx(f, 6, 0xe);
}

static void test_registers(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0x3c2, 0x67);
    assert_int_equal(dev_in8(&f->rig, 0x3cc), 0x67);
    crtc(f, 0x13, 0x28);
    assert_int_equal(dev_in8(&f->rig, 0x3d5), 0x28);
    assert_int_equal(dev_in8(&f->rig, 0x3b5), 0xff); /* the other place */
    crtc(f, 0x11, 0x80);
    crtc(f, 0, 0x55);
    assert_int_equal(dev_in8(&f->rig, 0x3d5), 0); /* protected */
    attr(f, 3, 0x2a);
    (void)dev_in8(&f->rig, 0x3da);
    dev_out8(&f->rig, 0x3c0, 3);
    assert_int_equal(dev_in8(&f->rig, 0x3c1), 0x2a);
    dev_out8(&f->rig, 0x3c8, 5);
    dev_out8(&f->rig, 0x3c9, 1);
    dev_out8(&f->rig, 0x3c9, 2);
    dev_out8(&f->rig, 0x3c9, 0xff);
    dev_out8(&f->rig, 0x3c7, 5);
    assert_int_equal(dev_in8(&f->rig, 0x3c9), 1);
    assert_int_equal(dev_in8(&f->rig, 0x3c9), 2);
    assert_int_equal(dev_in8(&f->rig, 0x3c9), 0x3f);
    unsigned seen = 0;
    for (unsigned i = 0; i < 200; i++) {
        dev_step(&f->rig, 100000);
        seen |= 1u << (dev_in8(&f->rig, 0x3da) & 9);
    }
    assert_int_equal(seen, 1u << 0 | 1u << 1 | 1u << 9); /* lit, between lines, retrace */
}

static void test_text(void **state)
{
    struct fix *f = *state;
    char text[4096];
    text_mode(f);
    mem(f, 0xb8000 + 2 * 81, 'A');
    mem(f, 0xb8000 + 2 * 81 + 1, 0x1e);
    assert_int_equal(in(f, 0xb8000 + 2 * 81), 'A');
    assert_true(vga_text(f->vga, text, sizeof text) > 20);
    assert_memory_equal(text, "\n A\n\n", 5);
    assert_int_equal(vga_text(f->vga, text, 3), vga_text(f->vga, NULL, 0));
    assert_string_equal(text, "\n ");
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 640);
    assert_int_equal(f->shot.height, 400);
    const uint32_t *row = f->shot.pixels + (16 + 3) * 640 + 8;
    assert_int_equal(row[0], grey(14));
    assert_int_equal(row[1], grey(1));
    assert_int_equal(row[7], grey(14));
    assert_int_equal(row[-1], grey(0));
}

static void put_text(struct fix *f, unsigned cell, uint8_t c, uint8_t colours)
{
    mem(f, 0xb8000 + 2 * cell, c);
    mem(f, 0xb8000 + 2 * cell + 1, colours);
}

static uint32_t pixel(struct fix *f, unsigned x, unsigned y)
{
    assert_in_range(x, 0, f->shot.width - 1);
    assert_in_range(y, 0, f->shot.height - 1);
    return f->shot.pixels[y * f->shot.width + x];
}

/* Line 3 of an A is 0x81. */
static void test_text_moves(void **state)
{
    struct fix *f = *state;
    text_mode(f);
    put_text(f, 0, 'A', 0x1e);
    put_text(f, 81, 'A', 0x1e);
    put_text(f, 80, ' ', 0x20);
    attr(f, 0x13, 3); /* three pixels to the left */
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 5, 19), grey(14));
    assert_int_equal(pixel(f, 12, 19), grey(14));
    assert_int_equal(pixel(f, 4, 19), grey(2));
    attr(f, 0x13, 0);
    crtc(f, 8, 0x25); /* five lines up, a character to the left */
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 0, 14), grey(14));
    crtc(f, 8, 0);
    crtc(f, 0xd, 80);   /* from the second row on, and the first one again below */
    crtc(f, 0x18, 200); /* line 200, neither bit 8 nor 9 */
    crtc(f, 7, 0x0f);
    crtc(f, 9, 0x0f);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 8, 3), grey(14));
    assert_int_equal(pixel(f, 0, 201 + 3), grey(14));
    assert_int_equal(pixel(f, 1, 201 + 3), grey(1));
    attr(f, 0x13, 1);
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 7, 3), grey(14));
    assert_int_equal(pixel(f, 6, 201 + 3), grey(14)); /* it moves, too */
    attr(f, 0x10, 0x20);
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 7, 3), grey(14));
    assert_int_equal(pixel(f, 7, 201 + 3), grey(14)); /* or stays */
}

static void test_text_dots(void **state)
{
    struct fix *f = *state;
    text_mode(f);
    put_text(f, 0, 'A', 0x9e);
    put_text(f, 1, ' ', 0x07);
    put_text(f, 2, ' ', 0x01);
    crtc(f, 0x14, 12); /* underline */
    crtc(f, 0xa, 14);
    crtc(f, 0xb, 15);
    crtc(f, 0xf, 1);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 0, 3), grey(14));
    assert_int_equal(pixel(f, 1, 3), grey(9)); /* bright paper, not blinking */
    assert_int_equal(pixel(f, 8, 13), grey(0));
    assert_int_equal(pixel(f, 8, 14), grey(7));
    assert_int_equal(pixel(f, 16, 12), grey(1));
    assert_int_equal(pixel(f, 16, 11), grey(0));
    attr(f, 0x10, 0x08);
    dev_out8(&f->rig, 0x3c0, 0x20);
    dev_step(&f->rig, 120000000); /* eight frames: no cursor, */
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 8, 14), grey(0));
    assert_int_equal(pixel(f, 0, 3), grey(14));
    assert_int_equal(pixel(f, 1, 3), grey(1));
    dev_step(&f->rig, 120000000); /* sixteen: nothing that blinks */
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 8, 14), grey(7));
    assert_int_equal(pixel(f, 0, 3), grey(1));
    /* Nine dots, of which 8 counts as none; the ninth is a copy for line drawings alone. */
    attr(f, 0x10, 0x04);
    attr(f, 0x13, 8);
    dev_out8(&f->rig, 0x3c0, 0x20);
    seq(f, 1, 0);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 720);
    assert_int_equal(pixel(f, 7, 3), grey(14));
    assert_int_equal(pixel(f, 8, 3), grey(9));
    assert_int_equal(pixel(f, 9, 14), grey(7));
    attr(f, 0x13, 0);
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 6, 3), grey(14));
}

static void test_write_modes(void **state)
{
    struct fix *f = *state;
    seq(f, 2, 0xf);
    seq(f, 4, 6);
    gfx(f, 6, 5);
    gfx(f, 8, 0xff);
    mem(f, 0xa0000, 0x0f); /* mode 0: all planes */
    assert_int_equal(load_le32(vga_ram(f->vga)), 0x0f0f0f0f);
    seq(f, 2, 5);
    gfx(f, 3, 4);
    mem(f, 0xa0000, 0xf1); /* rotated, two planes */
    assert_int_equal(load_le32(vga_ram(f->vga)), 0x0f1f0f1f);
    seq(f, 2, 0xf);
    gfx(f, 3, 0);
    gfx(f, 0, 0xa); /* set/reset */
    gfx(f, 1, 0xf);
    gfx(f, 8, 0xf0);
    (void)in(f, 0xa0000); /* latches */
    mem(f, 0xa0000, 0);
    assert_int_equal(load_le32(vga_ram(f->vga)), 0xff0fff0f);
    gfx(f, 1, 0);
    gfx(f, 5, 1); /* mode 1: copies */
    (void)in(f, 0xa0000);
    mem(f, 0xa0001, 0x99);
    assert_int_equal(load_le32(vga_ram(f->vga) + 4), 0xff0fff0f);
    gfx(f, 5, 2); /* mode 2: colour 6 in the bits of the mask */
    gfx(f, 8, 0x80);
    mem(f, 0xa0000, 6);
    assert_int_equal(load_le32(vga_ram(f->vga)), 0x7f8fff0f);
    gfx(f, 5, 3); /* mode 3: the byte is a mask */
    gfx(f, 8, 0xff);
    gfx(f, 0, 1);
    (void)in(f, 0xa0001);
    mem(f, 0xa0001, 0x18);
    assert_int_equal(load_le32(vga_ram(f->vga) + 4), 0xe707e71f);
    gfx(f, 5, 8); /* read mode 1: where the colour is 0 in planes 1 and 3 */
    gfx(f, 2, 0);
    gfx(f, 7, 0xa);
    assert_int_equal(in(f, 0xa0001), 0x18);
}

static void test_256_colours(void **state)
{
    struct fix *f = *state;
    text_mode(f);
    seq(f, 2, 0xf);
    seq(f, 4, 0xe);
    gfx(f, 5, 0x40);
    gfx(f, 6, 5);
    crtc(f, 9, 0x41);
    mem(f, 0xa0000 + 320 * 7 + 5, 33);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 320);
    assert_int_equal(f->shot.height, 200);
    assert_int_equal(f->shot.pixels[7 * 320 + 5], grey(33));
    seq(f, 4, 6); /* mode X: plane 2 of address 10 is pixel 42 */
    seq(f, 2, 4);
    mem(f, 0xa0000 + 10, 44);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[42], grey(44));
    attr(f, 0x13, 4); /* two pixels */
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[40], grey(44));
    crtc(f, 0xd, 80 * 2 + 1); /* two lines and four pixels on; the picture again below line 99 */
    crtc(f, 7, 0x0f);
    crtc(f, 9, 0x01);
    crtc(f, 0x18, 199);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[5 * 320 - 1], grey(33));
    assert_int_equal(f->shot.pixels[100 * 320 + 40], grey(44));
    assert_int_equal(f->shot.pixels[107 * 320 + 3], grey(33));
}

static void test_16_colours(void **state)
{
    struct fix *f = *state;
    text_mode(f);
    seq(f, 2, 0xf);
    seq(f, 4, 6);
    gfx(f, 5, 0);
    gfx(f, 6, 5);
    crtc(f, 7, 0x3e);
    crtc(f, 9, 0x40);
    crtc(f, 0x12, 0xdf);
    crtc(f, 0x17, 0xe3);
    gfx(f, 5, 2);
    gfx(f, 8, 0x01);
    mem(f, 0xa0000 + 80 * 2, 9);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 640);
    assert_int_equal(f->shot.height, 480);
    assert_int_equal(f->shot.pixels[2 * 640 + 7], grey(9));
    assert_int_equal(f->shot.pixels[2 * 640 + 6], grey(0));
    attr(f, 0x13, 7);
    dev_out8(&f->rig, 0x3c0, 0x20);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[2 * 640], grey(9));
}

static void test_vbe(void **state)
{
    struct fix *f = *state;
    uint32_t pixel = 0x123456;
    assert_int_equal((dev_out16(&f->rig, 0x1ce, 0), dev_in16(&f->rig, 0x1cf)), 0xb0c5);
    config_out(f, PCI_BAR0, 0xe0000000);
    config_out(f, PCI_BAR0 + 8, 0xe1000000);
    config_out(f, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    vbe(f, VBE_XRES, 1024);
    vbe(f, VBE_YRES, 768);
    vbe(f, VBE_BPP, 32);
    vbe(f, VBE_ENABLE, 0x41);
    assert_int_equal(gmem_write(f->mem, 0xe0000000 + 4 * (1024 * 10 + 20), &pixel, 4), 0);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 1024);
    assert_int_equal(f->shot.height, 768);
    assert_int_equal(f->shot.pixels[1024 * 10 + 20], 0x123456);
    vbe(f, VBE_Y_OFFSET, 10);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[20], 0x123456);
    assert_int_equal(bus_mmio_read(f->rig.bus, 0xe1000500 + 2 * VBE_YRES, 2), 768);
    vbe(f, VBE_ENABLE, 0);
    vbe(f, VBE_BPP, 16);
    vbe(f, VBE_ENABLE, 0x41); /* cleared */
    vbe(f, VBE_BANK, 1);
    bus_mmio_write(f->rig.bus, 0xa0000, 2, 0xf81f);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.pixels[0x8000], 0xff00ff);
    config_out(f, PCI_COMMAND, 0);
    assert_int_not_equal(gmem_write(f->mem, 0xe0000000, &pixel, 4), 0);
    dev_roundtrip(f->rig.bus, f->rig.clock);
}

static void test_png(void **state)
{
    struct fix *f = *state;
    struct err e = { 0 };
    uint8_t head[8];
    char path[] = "/tmp/sosia-vga-XXXXXX";
    close(mkstemp(path));
    surface_resize(&f->shot, 3, 2);
    assert_int_equal(surface_write_png(&f->shot, path, &e), 0);
    FILE *file = fopen(path, "rb");
    assert_int_equal(fread(head, 1, 8, file), 8);
    fclose(file);
    unlink(path);
    assert_memory_equal(head, "\x89PNG\r\n\x1a\n", 8);
    assert_int_equal(surface_write_png(&f->shot, "/no/such/dir/x.png", &e), -ENOENT);
}

/* Whatever is in the registers: nothing outside of the memory is read or written. */
/* As a BIOS leaves it; and the frame buffer that a kernel asked its loader for. */
static void test_setup(void **state)
{
    struct fix *f = *state;
    char text[64];
    vbe(f, 4, 1);
    vga_set_text_mode(f->vga);
    assert_int_equal(vga_text(f->vga, text, sizeof text), 25);
    mem(f, 0xb8000, 'B');
    assert_int_equal(in(f, 0xb8001), 7);
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 720);
    assert_int_equal(f->shot.height, 400);
    assert_int_equal(pixel(f, 0, 5), 0xaaaaaa);
    assert_int_equal(pixel(f, 1, 5), 0);
    assert_int_equal(pixel(f, 2, 5), 0xaaaaaa);
    mem(f, 0xb8001, 0x1e); /* the EGA's yellow, on its blue */
    vga_render(f->vga, &f->shot);
    assert_int_equal(pixel(f, 0, 5), 0xffff55);
    assert_int_equal(pixel(f, 1, 5), 0x0000aa);

    assert_true(vga_set_linear_mode(f->vga, 800, 600, 32));
    assert_int_equal(vga_text(f->vga, text, sizeof text), 0);
    vga_ram(f->vga)[4 * (800 * 2 + 3) + 2] = 0xff;
    vga_render(f->vga, &f->shot);
    assert_int_equal(f->shot.width, 800);
    assert_int_equal(f->shot.height, 600);
    assert_int_equal(pixel(f, 3, 2), 0xff0000);
    assert_false(vga_set_linear_mode(f->vga, 800, 600, 12));
    assert_false(vga_set_linear_mode(f->vga, 4096, 4096, 32));
    assert_false(vga_set_linear_mode(f->vga, 0x80000000, 2, 32));
    dev_roundtrip(f->rig.bus, f->rig.clock);
}

static void test_random_traffic(void **state)
{
    static const uint16_t ports[] = { 0x3c0, 0x3c2, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4,
                                      0x3d5, 0x3c8, 0x3c9, 0x3da, 0x3c7, 0x3b4, 0x3b5 };
    struct fix *f = *state;
    uint64_t seed = 11;
    for (unsigned i = 0; i < 30000; i++) {
        uint64_t x = test_random(&seed);
        if (x % 4 == 0) {
            mem(f, 0xa0000 + (uint32_t)(x >> 8) % 0x20000, (uint8_t)(x >> 32));
            (void)in(f, 0xa0000 + (uint32_t)(x >> 16) % 0x20000);
        } else if (x % 64 == 1) {
            vbe(f, (x >> 8) % 12, (x >> 16) & (x >> 32 & 1 ? 0xffff : 0x3ff));
        } else {
            uint16_t port = ports[(x >> 8) % (sizeof ports / sizeof ports[0])];
            dev_out8(&f->rig, port, (uint8_t)(x >> 16));
            (void)dev_in8(&f->rig, port);
        }
        if (i % 3000 == 0) {
            vga_render(f->vga, &f->shot);
            (void)vga_text(f->vga, NULL, 0);
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_registers),   T(test_text),        T(test_text_moves), T(test_text_dots),
        T(test_write_modes), T(test_256_colours), T(test_16_colours), T(test_vbe),
        T(test_png),         T(test_setup),       T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
