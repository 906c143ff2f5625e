/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest accesses to the VGA, the flash and an IDE channel with an empty CD-ROM drive: four bytes
 * choose an operation, a place and a value; the screen is rendered now and then.
 */
// LAYERS: dev/pc bus block display mem state base
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/pc/i440fx.h"
#include "dev/pc/ide.h"
#include "dev/pc/pflash.h"
#include "dev/pc/vga.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLASH 0xffc00000u
#define FLASH_BYTES 0x4000u

static void access_one(struct bus *b, struct vga *v, struct surface *s, const uint8_t op[4])
{
    static const uint16_t ports[] = { 0x3b0, 0x3c0, 0x3d0, 0x1ce, 0x170, 0x376, 0xc000, 0xc008 };
    unsigned n = 1u << (op[0] >> 3 & 1);
    uint32_t value = op[2] | (uint32_t)op[3] << 8;
    uint16_t port = (uint16_t)(ports[op[1] >> 4 & 7] + (op[1] & 15));
    uint32_t memory = 0xa0000 + (op[1] << 9 | op[3]);
    switch (op[0] & 7) {
    case 0:
        bus_port_write(b, port, n, value);
        break;
    case 1:
        (void)bus_port_read(b, port, n);
        break;
    case 2:
        bus_mmio_write(b, memory, n, value);
        break;
    case 3:
        (void)bus_mmio_read(b, memory, n);
        break;
    case 4:
        bus_mmio_write(b, FLASH + (op[1] << 6), n, value);
        break;
    case 5: /* configuration of the VGA or of the IDE function */
        bus_port_write(b, 0xcf8, 4,
                       0x80000000u | (op[1] & 1 ? PCI_DEVFN(2, 0) : PCI_DEVFN(1, 1)) << 8 |
                           (op[1] & 0xfc));
        bus_port_write(b, 0xcfc, 4, value << 16 | value);
        break;
    case 6:
        bus_port_write(b, 0x1ce, 2, op[1] % 12);
        bus_port_write(b, 0x1cf, 2, value);
        break;
    default:
        if (op[1] < 8) {
            vga_render(v, s);
            (void)vga_text(v, NULL, 0);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t contents[FLASH_BYTES];
    const struct irq none[4] = { { 0 } };
    const struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES] = {
        { { .kind = IDE_NONE } }, { { .kind = IDE_CD } }
    };
    struct err e = { 0 };
    struct gmem *mem;
    if (size > 4096 || gmem_new(&mem, 1 << 20, 0xc0000000, &e) < 0) {
        return 0;
    }
    struct bus *b = bus_new(mem);
    struct clock *clock = clock_new_fake();
    struct surface s = { 0 };
    struct i440fx host;
    struct vga *v = calloc(1, sizeof *v);
    struct ide *i = calloc(1, sizeof *i);
    struct pflash *f = calloc(1, sizeof *f);
    i440fx_init(&host, b, none, NULL, NULL);
    ide_init(i, b, i440fx_pci(&host), none, drives);
    if (vga_init(v, b, i440fx_pci(&host), PCI_DEVFN(2, 0), clock, NULL, 0, &e) < 0 ||
        pflash_init(f, b, FLASH, contents, sizeof contents, &e) < 0) {
        abort();
    }
    for (; size >= 4; data += 4, size -= 4) {
        access_one(b, v, &s, data);
    }
    pflash_fini(f);
    vga_fini(v);
    ide_fini(i);
    i440fx_fini(&host);
    surface_free(&s);
    free(f);
    free(i);
    free(v);
    bus_free(b);
    clock_free(clock);
    gmem_free(mem);
    return 0;
}
