// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/pc bus mem state net block base
/* The 82540EM over the bus: EEPROM, PHY, interrupts, transmitter, receiver. */
#include "dev/netdev.h"
#include "support/dev.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/e1000.h"

#define BAR 0xe0000000ull
#define PORTS 0xc000u
#define RAM MIB(4)
#define TX_RING 0x10000u
#define RX_RING 0x20000u
#define DATA 0x100000u
#define RING 16u

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct pci_bus *pci;
    struct dev_line line[4];
    struct test_net net;
    struct e1000 card;
    uint32_t tdt, rdt;
};

static void put(struct fix *f, gpa_t at, const void *data, size_t len)
{
    assert_int_equal(gmem_write(f->mem, at, data, len), 0);
}
static void get(struct fix *f, gpa_t at, void *data, size_t len)
{
    assert_int_equal(gmem_read(f->mem, at, data, len), 0);
}
static void reg_w(struct fix *f, unsigned reg, uint32_t v)
{
    bus_mmio_write(f->rig.bus, BAR + reg, 4, v);
}
static uint32_t reg_r(struct fix *f, unsigned reg)
{
    return (uint32_t)bus_mmio_read(f->rig.bus, BAR + reg, 4);
}
static int line(struct fix *f) { return f->line[pci_intx_route(PCI_DEVFN(4, 0), 1)].level; }

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e;
    const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
    assert_int_equal(gmem_new(&f->mem, RAM, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    struct irq irq[4];
    for (unsigned i = 0; i < 4; i++) {
        irq[i] = dev_line_irq(&f->line[i]);
    }
    f->pci = pci_bus_new(f->rig.bus, irq, NULL, NULL);
    net_init(&f->net.net, &test_net_class);
    e1000_init(&f->card, "e1000.0", f->pci, f->rig.bus, PCI_DEVFN(4, 0), &f->net.net, mac);
    bus_lock(f->rig.bus);
    pci_config_write(f->pci, 0, PCI_DEVFN(4, 0), PCI_BAR0, 4, BAR);
    pci_config_write(f->pci, 0, PCI_DEVFN(4, 0), PCI_BAR0 + 4, 4, PORTS);
    pci_config_write(f->pci, 0, PCI_DEVFN(4, 0), PCI_COMMAND, 2, 7);
    bus_unlock(f->rig.bus);
    reg_w(f, 0, 0x40); /* link up */
    reg_r(f, 0xc0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    e1000_fini(&f->card);
    pci_bus_free(f->pci);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f);
    return 0;
}

/* -- Serial parts ------------------------------------------------------------------------------ */
static void clock_bit(struct fix *f, bool bit)
{
    uint32_t di = bit ? 4 : 0;
    reg_w(f, 0x10, 0x42 | di);
    reg_w(f, 0x10, 0x43 | di);
    reg_w(f, 0x10, 0x42 | di);
}

static uint16_t eeprom(struct fix *f, unsigned word)
{
    uint16_t v = 0;
    unsigned command = 6u << 6 | word;
    reg_w(f, 0x10, 0x40);
    reg_w(f, 0x10, 0x42);
    for (int i = 8; i >= 0; i--) {
        clock_bit(f, command >> i & 1);
    }
    for (int i = 0; i < 16; i++) {
        reg_w(f, 0x10, 0x43);
        v = (uint16_t)(v << 1 | (reg_r(f, 0x10) >> 3 & 1));
        reg_w(f, 0x10, 0x42);
    }
    reg_w(f, 0x10, 0x40);
    return v;
}

static void test_eeprom(void **state)
{
    struct fix *f = *state;
    uint16_t sum = 0;
    assert_int_equal(reg_r(f, 0x10) & 0x300, 0x100); /* there, 64 words */
    assert_int_equal(eeprom(f, 0), 0x5452);
    assert_int_equal(eeprom(f, 2), 0x5634);
    for (unsigned i = 0; i < 64; i++) {
        sum = (uint16_t)(sum + eeprom(f, i));
    }
    assert_int_equal(sum, 0xbaba);
    reg_w(f, 0x14, 1 << 8 | 1);
    assert_int_equal(reg_r(f, 0x14), 0x12000110);
    reg_w(f, 0x10, 0x42);
    clock_bit(f, 1);
    dev_roundtrip(f->rig.bus, f->rig.clock); /* in the middle of a command */
}

static void test_phy(void **state)
{
    struct fix *f = *state;
    reg_w(f, 0x20, 0x08000000 | 1 << 21 | 2 << 16);
    assert_int_equal(reg_r(f, 0x20) & 0x5000ffff, 0x10000141);
    reg_w(f, 0x20, 0x08000000 | 2 << 21 | 2 << 16); /* nobody there */
    assert_int_equal(reg_r(f, 0x20) & 0x50000000, 0x50000000);
    reg_w(f, 0x20, 0x04000000 | 1 << 21 | 4 << 16 | 0x1234);
    reg_w(f, 0x20, 0x08000000 | 1 << 21 | 4 << 16);
    assert_int_equal(reg_r(f, 0x20) & 0xffff, 0x1234);
    bus_lock(f->rig.bus);
    net_set_link(&f->net.net, false);
    bus_unlock(f->rig.bus);
    assert_int_equal(reg_r(f, 8) & 2, 0);
    reg_w(f, 0x20, 0x08000000 | 1 << 21 | 1 << 16);
    assert_int_equal(reg_r(f, 0x20) & 4, 0);
    assert_true(reg_r(f, 0xc0) & 4);
}

static void test_interrupts(void **state)
{
    struct fix *f = *state;
    reg_w(f, 0xc8, 4);
    assert_int_equal(line(f), 0);
    reg_w(f, 0xd0, 4);
    assert_int_equal(line(f), 1);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(line(f), 1);
    reg_w(f, 0xd8, 4);
    assert_int_equal(line(f), 0);
    reg_w(f, 0xd0, 4);
    assert_int_equal(reg_r(f, 0xc0), 4);
    assert_int_equal(reg_r(f, 0xc0), 0);
    assert_int_equal(line(f), 0);
    dev_out32(&f->rig, PORTS, 0xd0); /* by the ports */
    assert_int_equal(dev_in32(&f->rig, PORTS + 4), 4);
}

/* -- Transmitter ------------------------------------------------------------------------------- */
static void tx_start(struct fix *f)
{
    reg_w(f, 0x3800, TX_RING);
    reg_w(f, 0x3804, 0);
    reg_w(f, 0x3808, RING * 16);
    reg_w(f, 0x3810, 0);
    reg_w(f, 0x3818, 0);
    reg_w(f, 0x400, 2);
    f->tdt = 0;
}

static void tx_desc(struct fix *f, uint64_t low, uint64_t high)
{
    uint8_t raw[16];
    store_le64(raw, low);
    store_le64(raw + 8, high);
    put(f, TX_RING + 16 * f->tdt, raw, 16);
    f->tdt = (f->tdt + 1) % RING;
}

static void tx_go(struct fix *f) { reg_w(f, 0x3818, f->tdt); }

static void test_transmit(void **state)
{
    struct fix *f = *state;
    uint8_t frame[200], status;
    size_t len = test_tcp_frame(frame, 100);
    put(f, DATA, frame, len);
    tx_start(f);
    for (unsigned i = 0; i < 40; i++) {
        unsigned first = f->tdt;
        tx_desc(f, DATA, 50); /* in two pieces */
        tx_desc(f, DATA + 50, (len - 50) | (uint64_t)(1 | 8) << 24);
        tx_go(f);
        assert_int_equal(f->net.sent, i + 1);
        assert_int_equal(f->net.len, len);
        assert_memory_equal(f->net.frame, frame, len);
        get(f, TX_RING + 16 * ((first + 1) % RING) + 12, &status, 1);
        assert_int_equal(status & 1, 1);
        assert_int_equal(reg_r(f, 0x3810), f->tdt);
        assert_int_equal(reg_r(f, 0xc0) & 3, 3);
    }
    assert_int_equal(reg_r(f, 0x4080), 40);
    assert_int_equal(reg_r(f, 0x4080), 0);
    tx_desc(f, DATA, 20 | 1u << 24); /* short frames are padded */
    tx_go(f);
    assert_int_equal(f->net.len, 60);
    dev_roundtrip(f->rig.bus, f->rig.clock);
}

/* Sums that the card inserts: legacy, and by a context. */
static void test_transmit_sums(void **state)
{
    struct fix *f = *state;
    uint8_t frame[200];
    size_t len = test_tcp_frame(frame, 100);
    put(f, DATA, frame, len);
    tx_start(f);
    tx_desc(f, DATA, len | (uint64_t)24 << 16 | (uint64_t)(1 | 4) << 24 | (uint64_t)14 << 40);
    tx_go(f);
    /* From the IP header to the end: adds up to all ones. */
    assert_int_equal(net_sum(f->net.frame + 14, len - 14, 0), 0xffff);
    tx_desc(f, 14 | 24 << 8 | 33ull << 16 | 34ull << 32 | 50ull << 40, 0x20000000ull | 3u << 24);
    tx_desc(f, DATA, len | 1u << 20 | (uint64_t)(1 | 0x20) << 24 | 3ull << 40);
    tx_go(f);
    assert_int_equal(f->net.sent, 2);
    assert_int_equal(net_sum(f->net.frame + 14, 20, 0), 0xffff);
    assert_int_equal(net_sum(f->net.frame + 34, len - 34, 0), 0xffff);
}

static void test_transmit_tso(void **state)
{
    struct fix *f = *state;
    uint8_t frame[6000];
    size_t len = test_tcp_frame(frame, 5000);
    put(f, DATA, frame, len);
    tx_start(f);
    tx_desc(f, 14 | 24 << 8 | 33ull << 16 | 34ull << 32 | 50ull << 40,
            5000 | (uint64_t)(0x20 | 4 | 2 | 1) << 24 | 54ull << 40 | 1460ull << 48);
    tx_desc(f, DATA, 54 | 1u << 20 | (uint64_t)(0x20 | 4) << 24 | 3ull << 40);
    tx_desc(f, DATA + 54, 5000 | 1u << 20 | (uint64_t)(0x20 | 4 | 1) << 24);
    tx_go(f);
    assert_int_equal(f->net.sent, 1);
    assert_int_equal(f->net.len, len);
    assert_int_equal(f->net.offload.gso_type, NET_GSO_TCP4);
    assert_int_equal(f->net.offload.gso_size, 1460);
    assert_memory_equal(f->net.frame + 54, frame + 54, 5000);
    assert_int_equal(net_sum(f->net.frame + 14, 20, 0), 0xffff);
}

static void test_transmit_vlan(void **state)
{
    struct fix *f = *state;
    uint8_t frame[200];
    size_t len = test_tcp_frame(frame, 100);
    put(f, DATA, frame, len);
    tx_start(f);
    reg_w(f, 0, 0x40000040);
    tx_desc(f, DATA, len | (uint64_t)(1 | 0x40) << 24 | 0x1234ull << 48);
    tx_go(f);
    assert_int_equal(f->net.len, len + 4);
    assert_int_equal(load_be32(f->net.frame + 12), 0x81001234);
    assert_memory_equal(f->net.frame + 16, frame + 12, len - 12);
}

/* -- Receiver ---------------------------------------------------------------------------------- */
static void rx_start(struct fix *f, uint32_t rctl)
{
    for (unsigned i = 0; i < RING; i++) {
        uint8_t raw[16] = { 0 };
        store_le64(raw, DATA + 0x1000 * i);
        put(f, RX_RING + 16 * i, raw, 16);
    }
    reg_w(f, 0x2800, RX_RING);
    reg_w(f, 0x2804, 0);
    reg_w(f, 0x2808, RING * 16);
    reg_w(f, 0x2810, 0);
    reg_w(f, 0x2818, RING - 1);
    reg_w(f, 0x100, 2 | rctl);
}

static void deliver(struct fix *f, const uint8_t *frame, size_t len, uint8_t flags)
{
    const struct net_offload o = { .flags = flags };
    bus_lock(f->rig.bus);
    net_deliver(&f->net.net, &o, frame, len);
    bus_unlock(f->rig.bus);
}

static void test_receive(void **state)
{
    struct fix *f = *state;
    uint8_t frame[1600], back[1600], desc[16];
    size_t len = test_tcp_frame(frame, 900);
    rx_start(f, 0x4000000 | 2u << 16); /* no CRC, buffers of 512 */
    reg_w(f, 0x5000, 0x300);
    reg_w(f, 0xd0, 0x80);
    deliver(f, frame, len, NET_CSUM_VALID);
    assert_int_equal(line(f), 1);
    assert_int_equal(reg_r(f, 0x2810), 2);
    get(f, RX_RING, desc, 16);
    assert_int_equal(load_le16(desc + 8), 512);
    assert_int_equal(desc[12], 0x61);
    get(f, RX_RING + 16, desc, 16);
    assert_int_equal(load_le16(desc + 8), len - 512);
    assert_int_equal(desc[12], 0x63);
    get(f, DATA, back, 512);
    get(f, DATA + 0x1000, back + 512, len - 512);
    assert_memory_equal(back, frame, len);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(reg_r(f, 0x4074), 1);
    frame[0] = 2; /* somebody else's */
    deliver(f, frame, len, 0);
    assert_int_equal(reg_r(f, 0x2810), 2);
}

static void test_receive_full(void **state)
{
    struct fix *f = *state;
    uint8_t frame[100];
    size_t len = test_tcp_frame(frame, 10);
    rx_start(f, 0);
    for (unsigned i = 0; i < RING + 5; i++) {
        deliver(f, frame, len, 0);
    }
    assert_int_equal(reg_r(f, 0x2810), RING - 1);
    assert_true(reg_r(f, 0xc0) & 0x40);
    reg_w(f, 0x2818, 5); /* six more */
    assert_int_equal(reg_r(f, 0x2810), 5);
    assert_int_equal(f->net.net.queued_bytes, 0);
    uint8_t desc[16];
    get(f, RX_RING, desc, 16);
    assert_int_equal(load_le16(desc + 8), 64 + 4); /* 64 bytes and the CRC */
}

static void test_filters(void **state)
{
    struct fix *f = *state;
    uint8_t frame[100];
    static const struct {
        uint8_t mac[6];
        uint32_t rctl;
        bool passes;
    } rows[] = {
        { { 0x52, 0x54, 0, 0x12, 0x34, 0x56 }, 0, true },
        { { 0x52, 0x54, 0, 0x12, 0x34, 0x57 }, 0, false },
        { { 0x52, 0x54, 0, 0x12, 0x34, 0x57 }, 8, true },
        { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 0, false },
        { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 0x8000, true },
        { { 1, 0, 0x5e, 0, 0, 0x12 }, 0, true }, /* in the table */
        { { 1, 0, 0x5e, 0, 0, 0x13 }, 0, false },
        { { 1, 0, 0x5e, 0, 0, 0x13 }, 0x10, true },
    };
    test_tcp_frame(frame, 10);
    reg_w(f, 0x5200 + 4 * (0x120 / 32), 1u << 0x120 % 32);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        rx_start(f, rows[i].rctl);
        memcpy(frame, rows[i].mac, 6);
        deliver(f, frame, 64, 0);
        assert_int_equal(reg_r(f, 0x2810), rows[i].passes);
    }
    /* VLAN 5 of a guest that strips and filters */
    test_tcp_frame(frame, 10);
    memmove(frame + 16, frame + 12, 60);
    store_be32(frame + 12, 0x81000005);
    reg_w(f, 0, 0x40000040);
    rx_start(f, 0x40000);
    deliver(f, frame, 68, 0);
    assert_int_equal(reg_r(f, 0x2810), 0);
    reg_w(f, 0x5600, 1u << 5);
    deliver(f, frame, 68, 0);
    uint8_t desc[16];
    get(f, RX_RING, desc, 16);
    assert_int_equal(desc[12] & 8, 8);
    assert_int_equal(load_le16(desc + 14), 5);
    assert_int_equal(load_le16(desc + 8), 68);
}

static void test_any(void **state)
{
    struct fix *f = *state;
    uint8_t frame[2000] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
    uint64_t seed = 3;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t r = test_random(&seed);
        static const uint16_t regs[] = { 0x0,    0x10,   0x14,   0x20,   0x100,  0x400,
                                         0x2800, 0x2808, 0x2810, 0x2818, 0x3800, 0x3808,
                                         0x3810, 0x3818, 0xc8,   0xd0 };
        uint32_t v = (uint32_t)test_random(&seed);
        unsigned reg = r & 1 ? regs[(r >> 1) % 16] : (r >> 8) % 0x6000 & ~3u;
        if (r & 2) {
            v &= 0x3ff;
        }
        if (reg != 0 || !(v & 0x4000000)) {
            reg_w(f, reg, v);
        }
        reg_r(f, (r >> 24) % 0x6000 & ~3u);
        if (i % 16 == 0) {
            put(f, (r >> 32) % (RAM - 64), frame + (r >> 40) % 1000, 32);
            deliver(f, frame, 60 + (r >> 50) % 1900, (uint8_t)(r >> 48 & 3));
        }
        if (i % 500 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_eeprom),        TEST(test_phy),           TEST(test_interrupts),
        TEST(test_transmit),      TEST(test_transmit_sums), TEST(test_transmit_tso),
        TEST(test_transmit_vlan), TEST(test_receive),       TEST(test_receive_full),
        TEST(test_filters),       TEST(test_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
