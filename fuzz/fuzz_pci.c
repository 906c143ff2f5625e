/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: the host bridge with the ISA bridge and power management function, by configuration
 * accesses, resets and saved states. Whatever the attributes say, memory below 640 KiB and above
 * 1 MiB stays.
 */
// LAYERS: dev/pc bus mem state base
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "bus/bus.h"
#include "dev/pc/i440fx.h"
#include "dev/pc/piix3.h"

#define RAM MIB(2)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct board {
    struct bus *bus;
    struct i440fx host;
    struct piix3 isa;
    struct piix4_pm pm;
    unsigned level[PIIX3_ISA_IRQS];
};

static void isa_line(void *ctx, int n, int level)
{
    struct board *b = ctx;
    b->level[n] = (unsigned)level;
}

static void pm_moved(void *ctx, uint16_t base, bool on)
{
    (void)ctx;
    if (base % 64 != 0 || (on && base == 0)) {
        abort();
    }
}

static void roundtrip(struct board *b)
{
    struct state_out *out[2] = { state_out_new(), state_out_new() };
    const uint8_t *data[2];
    size_t len[2];
    struct state_in *in;
    struct err e;
    bus_save(b->bus, out[0]);
    data[0] = state_out_data(out[0], &len[0]);
    bus_reset(b->bus);
    if (state_in_new(&in, data[0], len[0], &e) < 0 || bus_load(b->bus, in, &e) < 0) {
        abort();
    }
    bus_save(b->bus, out[1]);
    data[1] = state_out_data(out[1], &len[1]);
    if (len[0] != len[1] || memcmp(data[0], data[1], len[0]) != 0) {
        abort();
    }
    state_in_free(in);
    state_out_free(out[0]);
    state_out_free(out[1]);
}

static void step(struct board *b, const uint8_t *d)
{
    struct irq pirq = piix3_pirq(&b->isa, d[0] & 3);
    uint16_t port = (uint16_t)(0xcf8 + (d[1] & 7));
    unsigned size = 1u << d[2] % 3;
    switch (d[0] >> 5) {
    case 0:
        bus_port_write(b->bus, port, size, load_le32(d + 3));
        return;
    case 1:
        bus_port_read(b->bus, port, size);
        return;
    case 2:
    case 3:
    case 4: /* a register of one of the three functions */
        bus_port_write(b->bus, 0xcf8, 4,
                       0x80000000u | (uint32_t)(d[1] & 1 ? PCI_DEVFN(1, d[1] & 3) : 0) << 8 | d[2]);
        bus_port_write(b->bus, 0xcfc, 4, load_le32(d + 3));
        return;
    default:
        break;
    }
    bus_lock(b->bus);
    if (d[0] >> 5 == 5) {
        irq_set(&pirq, d[0] >> 2 & 1);
    } else if (d[0] >> 5 == 6) {
        roundtrip(b);
    } else {
        bus_reset(b->bus);
    }
    bus_unlock(b->bus);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gmem *mem;
    struct err e;
    struct board b = { 0 };
    struct irq pirq[4];
    struct irq isa[PIIX3_ISA_IRQS];
    struct irq none = { 0 };
    uint8_t byte = 0;
    if (gmem_new(&mem, RAM, 0xc0000000, &e) < 0) {
        abort();
    }
    b.bus = bus_new(mem);
    for (int n = 0; n < 4; n++) {
        pirq[n] = piix3_pirq(&b.isa, (unsigned)n);
    }
    for (int n = 0; n < PIIX3_ISA_IRQS; n++) {
        isa[n] = (struct irq){ isa_line, &b, n };
    }
    i440fx_init(&b.host, b.bus, pirq, NULL, NULL);
    piix3_init(&b.isa, b.bus, i440fx_pci(&b.host), isa, &none);
    piix4_pm_init(&b.pm, b.bus, i440fx_pci(&b.host), pm_moved, NULL, NULL);
    for (unsigned n = 0; size >= 7 && n < 500; data += 7, size -= 7, n++) {
        step(&b, data);
    }
    if (gmem_write(mem, 0x9ffff, &byte, 1) < 0 || gmem_write(mem, 0x100000, &byte, 1) < 0 ||
        b.level[0] || b.level[1] || b.level[2] || b.level[8] || b.level[13]) {
        abort();
    }
    piix4_pm_fini(&b.pm);
    piix3_fini(&b.isa);
    i440fx_fini(&b.host);
    bus_free(b.bus);
    gmem_free(mem);
    return 0;
}
