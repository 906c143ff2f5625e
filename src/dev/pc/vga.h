/* SPDX-License-Identifier: Apache-2.0
 *
 * A VGA with the Bochs VBE extensions, as a PCI function (1234:1111): what vgabios-stdvga, OVMF and
 * operating systems' drivers for virtual machines know.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_VGA_H
#define SOSIA_DEV_PC_VGA_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/pci.h"
#include "display/surface.h"

#define VGA_RAM_BYTES 0x1000000u
#define VGA_CRTC_REGS 0x19u
#define VGA_ATTR_REGS 0x15u
#define VGA_COLUMNS 80u /* of the text mode that a BIOS sets */
#define VGA_ROWS 25u

enum vbe_reg {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_REGS
};

enum vbe_enable {
    VBE_ENABLED = 0x01,
    VBE_GETCAPS = 0x02,
    VBE_8BIT_DAC = 0x20,
    VBE_LINEAR = 0x40,
    VBE_NOCLEAR = 0x80
};

struct vga {
    struct pci_func pci; /* first */
    /* State: registers by their indices */
    uint8_t misc, feature;
    uint8_t seq_index, seq[8];
    uint8_t crtc_index, crtc[VGA_CRTC_REGS];
    uint8_t gfx_index, gfx[9];
    uint8_t attr_index, attr[VGA_ATTR_REGS];
    bool attr_data; /* the next write to 0x3c0 is data */
    uint8_t dac[768], dac_mask, dac_state;
    uint16_t dac_read, dac_write; /* of dac[] */
    uint8_t latch[4];
    uint16_t vbe_index, vbe[VBE_REGS];
    /* Not state: */
    struct gmem *mem;
    struct clock *clock;
    uint64_t page; /* of the video memory in gmem */
    gpa_t shown;   /* where BAR 0 shows it; 0: nowhere */
};

/* rom: the VGA BIOS; NULL: none. */
MUST_CHECK int vga_init(struct vga *v, struct bus *b, struct pci_bus *pci, uint8_t devfn,
                        struct clock *clock, const void *rom, size_t rom_size, struct err *e);
void vga_fini(struct vga *v);

/* vga_setup.c: what a VGA BIOS would do. The linear frame buffer is BAR 0, a line follows the other
 * without a gap; false: there is no such mode. */
void vga_set_text_mode(struct vga *v);
bool vga_set_linear_mode(struct vga *v, unsigned width, unsigned height, unsigned bpp);

/* vga_render.c: what the screen shows. */
void vga_render(const struct vga *v, struct surface *s);
/* The characters of a text mode, a line each, blanks at their ends left out; like snprintf. 0 in
 * graphics modes. */
size_t vga_text(const struct vga *v, char *buf, size_t size);

/* -- Private to vga*.c */
uint8_t *vga_ram(const struct vga *v);
void vga_vbe_write(struct vga *v, unsigned n, uint16_t value);
static inline bool vga_vbe_on(const struct vga *v) { return v->vbe[VBE_ENABLE] & VBE_ENABLED; }
extern const struct region_ops vga_memory_ops; /* 0xa0000, vga_memory.c */

#endif
