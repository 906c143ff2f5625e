/* SPDX-License-Identifier: Apache-2.0
 *
 * VGA registers (IBM PS/2 Hardware Interface Technical Reference, Video Subsystem) and those of the
 * Bochs VBE interface, in ports and in BAR 2. BAR 0 is the video memory, mapped for the processor
 * like RAM.
 * UNIMPL: the vertical interrupt, smooth scrolling, the cursor's skew, EDID.
 */
#include "dev/pc/vga.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define PORT_FIRST 0x3b0u
#define PORT_COUNT 0x30u
#define FRAME_NS 16666667u /* 60 Hz */
#define LINES 525u         /* of a frame, with those that are not seen */
#define LINES_SEEN 480u
#define VBE_NEWEST 0xb0c5u
#define BAR_PORTS 0x400u /* in BAR 2: 0x3c0 and up */
#define BAR_VBE 0x500u
#define BAR_BYTES 0x1000u
#define BAR_LIMIT 0xfec00000u /* nothing of the board's own is to be hidden */

enum vga_port {
    PORT_ATTR = 0x3c0,
    PORT_ATTR_READ = 0x3c1,
    PORT_MISC = 0x3c2, /* read: status 0 */
    PORT_SEQ = 0x3c4,
    PORT_SEQ_DATA = 0x3c5,
    PORT_DAC_MASK = 0x3c6,
    PORT_DAC_READ = 0x3c7, /* read: state */
    PORT_DAC_WRITE = 0x3c8,
    PORT_DAC_DATA = 0x3c9,
    PORT_FEATURE_READ = 0x3ca,
    PORT_MISC_READ = 0x3cc,
    PORT_GFX = 0x3ce,
    PORT_GFX_DATA = 0x3cf,
    PORT_CRTC = 0x3d4,
    PORT_CRTC_DATA = 0x3d5,
    PORT_STATUS = 0x3da,
};

#define MISC_COLOUR 0x01u /* CRTC and status at 0x3dx, not 0x3bx */
#define ATTR_SCREEN_ON 0x20u
#define CRTC_PROTECT 0x80u /* of register 0x11 */

uint8_t *vga_ram(const struct vga *v)
{
    return gmem_ram_host(v->mem) + (v->page << GMEM_PAGE_BITS);
}

/* -- VBE --------------------------------------------------------------------------------------- */
static uint32_t bytes_of_line(const struct vga *v)
{
    uint32_t width = v->vbe[VBE_VIRT_WIDTH];
    return v->vbe[VBE_BPP] == 4 ? width / 2 : width * ((v->vbe[VBE_BPP] + 7u) / 8);
}

static bool bpp_known(uint16_t bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Whatever the guest asks for, what the registers hold afterwards fits into the memory. */
static void limit_mode(struct vga *v)
{
    uint16_t *r = v->vbe;
    if (!bpp_known(r[VBE_BPP])) {
        r[VBE_BPP] = 8;
    }
    r[VBE_XRES] = r[VBE_XRES] < 8 ? 8 : r[VBE_XRES] > SURFACE_MAX ? SURFACE_MAX : r[VBE_XRES];
    r[VBE_YRES] = r[VBE_YRES] < 1 ? 1 : r[VBE_YRES] > SURFACE_MAX ? SURFACE_MAX : r[VBE_YRES];
    if (r[VBE_VIRT_WIDTH] < r[VBE_XRES]) {
        r[VBE_VIRT_WIDTH] = r[VBE_XRES];
    }
    uint32_t lines = VGA_RAM_BYTES / bytes_of_line(v);
    if (lines == 0) {
        r[VBE_VIRT_WIDTH] = r[VBE_XRES];
        lines = VGA_RAM_BYTES / bytes_of_line(v);
    }
    r[VBE_VIRT_HEIGHT] = lines < 0xffff ? (uint16_t)lines : 0xffff;
    if (r[VBE_YRES] > r[VBE_VIRT_HEIGHT]) {
        r[VBE_YRES] = r[VBE_VIRT_HEIGHT];
    }
}

static void enable_vbe(struct vga *v, uint16_t value)
{
    bool was = vga_vbe_on(v);
    v->vbe[VBE_ENABLE] = value;
    if (!vga_vbe_on(v)) {
        v->vbe[VBE_BANK] = 0;
        return;
    }
    if (was) {
        return;
    }
    v->vbe[VBE_VIRT_WIDTH] = v->vbe[VBE_XRES];
    v->vbe[VBE_X_OFFSET] = v->vbe[VBE_Y_OFFSET] = 0;
    limit_mode(v);
    if (!(value & VBE_NOCLEAR)) {
        memset(vga_ram(v), 0, (size_t)v->vbe[VBE_YRES] * bytes_of_line(v));
    }
}

static uint16_t vbe_read(const struct vga *v, unsigned n)
{
    if (n >= VBE_REGS) {
        return 0;
    }
    if (v->vbe[VBE_ENABLE] & VBE_GETCAPS) {
        switch (n) {
        case VBE_XRES:
        case VBE_YRES:
            return SURFACE_MAX;
        case VBE_BPP:
            return 32;
        }
    }
    return v->vbe[n];
}

void vga_vbe_write(struct vga *v, unsigned n, uint16_t value)
{
    switch (n) {
    case VBE_ID:
        if (value >= 0xb0c0 && value <= VBE_NEWEST) {
            v->vbe[VBE_ID] = value;
        }
        break;
    case VBE_XRES:
    case VBE_YRES:
    case VBE_BPP:
        v->vbe[n] = value;
        if (vga_vbe_on(v)) {
            limit_mode(v);
        }
        break;
    case VBE_BANK:
        v->vbe[n] = value % (VGA_RAM_BYTES >> 16);
        break;
    case VBE_VIRT_WIDTH:
        v->vbe[n] = value;
        limit_mode(v);
        break;
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        v->vbe[n] = value;
        break;
    case VBE_ENABLE:
        enable_vbe(v, value);
        break;
    default:
        break; /* read-only, or not there */
    }
}

/* -- Status: where the beam is, by the clock --------------------------------------------------- */
static uint8_t status(struct vga *v)
{
    uint64_t in_frame = clock_now_ns(v->clock) % FRAME_NS;
    uint64_t line = in_frame * LINES / FRAME_NS;
    uint64_t in_line = in_frame * LINES % FRAME_NS;
    bool vertical = line >= LINES_SEEN;
    bool blank = vertical || in_line > FRAME_NS / 5 * 4;
    v->attr_data = false; /* reading has this side effect */
    return (uint8_t)((blank ? 1 : 0) | (vertical ? 8 : 0));
}

/* -- DAC --------------------------------------------------------------------------------------- */
static uint8_t dac_read(struct vga *v)
{
    uint8_t value = v->dac[v->dac_read];
    v->dac_read = (uint16_t)((v->dac_read + 1) % sizeof v->dac);
    return value;
}

static void dac_write(struct vga *v, uint8_t value)
{
    bool wide = vga_vbe_on(v) && (v->vbe[VBE_ENABLE] & VBE_8BIT_DAC);
    v->dac[v->dac_write] = wide ? value : value & 0x3f;
    v->dac_write = (uint16_t)((v->dac_write + 1) % sizeof v->dac);
}

/* -- Ports ------------------------------------------------------------------------------------- */
static void write_attr(struct vga *v, uint8_t value)
{
    if (!v->attr_data) {
        v->attr_index = value & 0x3f;
    } else if ((v->attr_index & 0x1f) < VGA_ATTR_REGS) {
        unsigned n = v->attr_index & 0x1f;
        v->attr[n] = n < 16 ? value & 0x3f : value;
    }
    v->attr_data = !v->attr_data;
}

static void write_crtc(struct vga *v, uint8_t value)
{
    unsigned n = v->crtc_index;
    if (n >= VGA_CRTC_REGS) {
        return;
    }
    if ((v->crtc[0x11] & CRTC_PROTECT) && n <= 7) {
        if (n == 7) { /* the line compare bit is free */
            v->crtc[7] = (uint8_t)((v->crtc[7] & ~0x10) | (value & 0x10));
        }
        return;
    }
    v->crtc[n] = value;
}

static void write_port(struct vga *v, unsigned port, uint8_t value)
{
    static const uint8_t seq_bits[8] = { 3, 0x3d, 0x0f, 0x3f, 0x0e };
    static const uint8_t gfx_bits[9] = { 0xf, 0xf, 0xf, 0x1f, 3, 0x7b, 0xf, 0xf, 0xff };
    switch (port) {
    case PORT_ATTR:
        write_attr(v, value);
        break;
    case PORT_MISC:
        v->misc = value & 0xef;
        break;
    case PORT_SEQ:
        v->seq_index = value & 7;
        break;
    case PORT_SEQ_DATA:
        v->seq[v->seq_index] = value & seq_bits[v->seq_index];
        break;
    case PORT_DAC_MASK:
        v->dac_mask = value;
        break;
    case PORT_DAC_READ:
        v->dac_read = (uint16_t)(value * 3);
        v->dac_state = 3;
        break;
    case PORT_DAC_WRITE:
        v->dac_write = (uint16_t)(value * 3);
        v->dac_state = 0;
        break;
    case PORT_DAC_DATA:
        dac_write(v, value);
        break;
    case PORT_GFX:
        v->gfx_index = value & 0xf;
        break;
    case PORT_GFX_DATA:
        if (v->gfx_index < sizeof v->gfx) {
            v->gfx[v->gfx_index] = value & gfx_bits[v->gfx_index];
        }
        break;
    case PORT_CRTC:
        v->crtc_index = value & 0x1f;
        break;
    case PORT_CRTC_DATA:
        write_crtc(v, value);
        break;
    case PORT_STATUS:
        v->feature = value;
        break;
    default:
        break;
    }
}

static uint8_t read_port(struct vga *v, unsigned port)
{
    switch (port) {
    case PORT_ATTR:
        return v->attr_data ? 0 : v->attr_index;
    case PORT_ATTR_READ:
        return (v->attr_index & 0x1f) < VGA_ATTR_REGS ? v->attr[v->attr_index & 0x1f] : 0;
    case PORT_MISC:
        return 0x10; /* a colour monitor; no interrupt */
    case PORT_SEQ:
        return v->seq_index;
    case PORT_SEQ_DATA:
        return v->seq[v->seq_index];
    case PORT_DAC_MASK:
        return v->dac_mask;
    case PORT_DAC_READ:
        return v->dac_state;
    case PORT_DAC_WRITE:
        return (uint8_t)(v->dac_write / 3);
    case PORT_DAC_DATA:
        return dac_read(v);
    case PORT_FEATURE_READ:
        return v->feature;
    case PORT_MISC_READ:
        return v->misc;
    case PORT_GFX:
        return v->gfx_index;
    case PORT_GFX_DATA:
        return v->gfx_index < sizeof v->gfx ? v->gfx[v->gfx_index] : 0;
    case PORT_CRTC:
        return v->crtc_index;
    case PORT_CRTC_DATA:
        return v->crtc_index < VGA_CRTC_REGS ? v->crtc[v->crtc_index] : 0;
    case PORT_STATUS:
        return status(v);
    default:
        return 0xff;
    }
}

/* 0x3bx and 0x3dx: of the two, one answers. 0: nobody does. */
static unsigned decode_port(const struct vga *v, uint64_t offset)
{
    unsigned port = PORT_FIRST + (unsigned)offset;
    if (port >= PORT_ATTR && port < 0x3d0) {
        return port;
    }
    bool colour = port >= 0x3d0;
    if (colour != ((v->misc & MISC_COLOUR) != 0)) {
        return 0;
    }
    return (port & 0xf) | 0x3d0;
}

static uint64_t ports_read(void *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned port = decode_port(dev, offset + i);
        value |= (uint64_t)(port != 0 ? read_port(dev, port) : 0xff) << 8 * i;
    }
    return value;
}

static void ports_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned port = decode_port(dev, offset + i);
        if (port != 0) {
            write_port(dev, port, (uint8_t)(value >> 8 * i));
        }
    }
}

static uint64_t vbe_port_read(void *dev, uint64_t offset, unsigned size)
{
    struct vga *v = dev;
    (void)size;
    return offset == 0 ? v->vbe_index : vbe_read(v, v->vbe_index);
}

/* The data register is at 0x1cf, and at 0x1d0 for those who cannot do unaligned accesses. */
static void vbe_port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *v = dev;
    (void)size;
    if (offset == 0) {
        v->vbe_index = (uint16_t)value;
    } else {
        vga_vbe_write(v, v->vbe_index, (uint16_t)value);
    }
}

static uint64_t bar_read(void *dev, uint64_t offset, unsigned size)
{
    struct vga *v = dev;
    if (offset >= BAR_VBE && offset < BAR_VBE + 2 * VBE_REGS) {
        uint64_t value = vbe_read(v, (unsigned)(offset - BAR_VBE) / 2);
        return size == 1 && (offset & 1) ? value >> 8 : value & MASK64(8 * size);
    }
    if (offset >= BAR_PORTS && offset < BAR_PORTS + 0x20) {
        uint64_t value = read_port(v, PORT_ATTR + (unsigned)(offset - BAR_PORTS));
        if (size == 2) {
            value |= (uint64_t)read_port(v, PORT_ATTR + (unsigned)(offset + 1 - BAR_PORTS)) << 8;
        }
        return value;
    }
    return 0;
}

static void bar_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *v = dev;
    if (offset >= BAR_VBE && offset < BAR_VBE + 2 * VBE_REGS) {
        if (size == 2) {
            vga_vbe_write(v, (unsigned)(offset - BAR_VBE) / 2, (uint16_t)value);
        }
    } else if (offset >= BAR_PORTS && offset < BAR_PORTS + 0x20) {
        for (unsigned i = 0; i < size; i++) {
            write_port(v, PORT_ATTR + (unsigned)(offset + i - BAR_PORTS),
                       (uint8_t)(value >> 8 * i));
        }
    }
}

static const struct region_ops ports_ops = { .read = ports_read,
                                             .write = ports_write,
                                             .sizes = ACCESS_1 | ACCESS_2 };
static const struct region_ops vbe_ops = { .read = vbe_port_read,
                                           .write = vbe_port_write,
                                           .sizes = ACCESS_2,
                                           .unaligned = true };
static const struct region_ops bar_ops = { .read = bar_read,
                                           .write = bar_write,
                                           .sizes = ACCESS_1 | ACCESS_2 };

/* BAR 0's accesses come here only while it lies where the memory cannot be shown. */
static uint64_t hidden_read(void *dev, uint64_t offset, unsigned size)
{
    const struct vga *v = dev;
    uint64_t value = 0;
    memcpy(&value, vga_ram(v) + offset, size);
    return value;
}

static void hidden_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct vga *v = dev;
    memcpy(vga_ram(v) + offset, &value, size);
}

static const struct region_ops hidden_ops = { .read = hidden_read,
                                              .write = hidden_write,
                                              .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 |
                                                       ACCESS_8 };

/* -- Life -------------------------------------------------------------------------------------- */
/* The video memory follows BAR 0, as far as it stays clear of RAM and of the board's own chips. */
static void update_mapping(struct vga *v)
{
    gpa_t at = load_le32(v->pci.config + PCI_BAR0) & ~0xfu;
    bool on = load_le16(v->pci.config + PCI_COMMAND) & PCI_COMMAND_MEMORY;
    if (!on || at < gmem_ram_below_4g(v->mem) || at < MIB(1) || at + VGA_RAM_BYTES > BAR_LIMIT) {
        at = 0;
    }
    if (at == v->shown) {
        return;
    }
    if (v->shown != 0) {
        gmem_map_hole(v->mem, v->shown, VGA_RAM_BYTES);
    }
    if (at != 0) {
        gmem_show_device_ram(v->mem, at, v->page, VGA_RAM_BYTES);
    }
    v->shown = at;
}

static void config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    update_mapping(container_of(f, struct vga, pci));
}

static const struct state_field vga_state[] = {
    STATE_STRUCT(struct vga, pci, pci_func_state),
    STATE(struct vga, misc),
    STATE(struct vga, feature),
    STATE(struct vga, seq_index),
    STATE_ARRAY(struct vga, seq),
    STATE(struct vga, crtc_index),
    STATE_ARRAY(struct vga, crtc),
    STATE(struct vga, gfx_index),
    STATE_ARRAY(struct vga, gfx),
    STATE(struct vga, attr_index),
    STATE_ARRAY(struct vga, attr),
    STATE(struct vga, attr_data),
    STATE_BYTES(struct vga, dac),
    STATE(struct vga, dac_mask),
    STATE(struct vga, dac_state),
    STATE(struct vga, dac_read),
    STATE(struct vga, dac_write),
    STATE_ARRAY(struct vga, latch),
    STATE(struct vga, vbe_index),
    STATE_ARRAY(struct vga, vbe),
    STATE_END,
};

static void vga_reset(void *dev)
{
    struct vga *v = dev;
    pci_func_reset(&v->pci);
    v->misc = v->feature = 0;
    v->seq_index = v->crtc_index = v->gfx_index = v->attr_index = 0;
    memset(v->seq, 0, sizeof v->seq);
    memset(v->crtc, 0, sizeof v->crtc);
    memset(v->gfx, 0, sizeof v->gfx);
    memset(v->attr, 0, sizeof v->attr);
    memset(v->dac, 0, sizeof v->dac);
    memset(v->latch, 0, sizeof v->latch);
    memset(v->vbe, 0, sizeof v->vbe);
    v->attr_data = false;
    v->dac_mask = 0xff;
    v->dac_state = 0;
    v->dac_read = v->dac_write = 0;
    v->vbe_index = 0;
    v->vbe[VBE_ID] = VBE_NEWEST;
    v->vbe[VBE_BPP] = 8;
    v->vbe[VBE_MEMORY_64K] = VGA_RAM_BYTES >> 16;
    update_mapping(v);
}

static int vga_post_load(void *dev, struct err *e)
{
    struct vga *v = dev;
    int r = pci_post_load(&v->pci, e);
    if (r < 0) {
        return r;
    }
    if (v->seq_index > 7 || v->crtc_index > 0x1f || v->gfx_index > 0xf ||
        v->dac_read >= sizeof v->dac || v->dac_write >= sizeof v->dac) {
        return err_set(e, -EINVAL, "impossible state");
    }
    if (vga_vbe_on(v)) {
        limit_mode(v);
    }
    v->vbe[VBE_BANK] %= VGA_RAM_BYTES >> 16;
    update_mapping(v);
    return 0;
}

static const struct dev_class vga_class = {
    .name = "vga",
    .version = 1,
    .state = vga_state,
    .size = sizeof(struct vga),
    .reset = vga_reset,
    .post_load = vga_post_load,
};

int vga_init(struct vga *v, struct bus *b, struct pci_bus *pci, uint8_t devfn, struct clock *clock,
             const void *rom, size_t rom_size, struct err *e)
{
    memset(v, 0, sizeof *v);
    v->mem = bus_mem(b);
    v->clock = clock;
    int r = gmem_add_rom(v->mem, NULL, VGA_RAM_BYTES, &v->page, e);
    if (r < 0) {
        return r;
    }
    pci_func_init(&v->pci, pci, devfn, 0x1234, 0x1111, 0x030000, 2);
    v->pci.config_written = config_written;
    dev_register(b, &v->pci.dev, &vga_class, "vga");
    pci_add_bar(&v->pci, 0, PCI_BAR_MEM32_PREF, VGA_RAM_BYTES, &hidden_ops, v);
    pci_add_bar(&v->pci, 2, PCI_BAR_MEM32, BAR_BYTES, &bar_ops, v);
    if (rom != NULL) {
        r = pci_add_rom(&v->pci, rom, rom_size);
        if (r < 0) {
            vga_fini(v);
            return err_set(e, r, "the VGA BIOS is too large");
        }
    }
    bus_add_port(b, PORT_FIRST, PORT_COUNT, &ports_ops, v);
    bus_add_port(b, 0x1ce, 4, &vbe_ops, v);
    bus_add_mmio(b, 0xa0000, 0x20000, &vga_memory_ops, v);
    vga_reset(v);
    return 0;
}

void vga_fini(struct vga *v)
{
    pci_func_fini(&v->pci);
    dev_unregister(&v->pci.dev);
}
