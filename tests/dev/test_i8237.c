/* SPDX-License-Identifier: Apache-2.0 -- the pair of 8237s over the bus, with a device of ours */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/i8237.h"

#define RAM (4u << 20)
#define CLEAR_POINTER 0x0c
#define MODE 0x0b
#define ALL_MASK 0x0f
#define SINGLE_WRITE 0x44 /* to memory */
#define SINGLE_READ 0x48
#define AUTO_INIT 0x10
#define DECREMENT 0x20

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct dma dma;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e = { 0 };
    assert_int_equal(gmem_new(&f->mem, RAM, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    dma_init(&f->dma, f->rig.bus);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    dma_fini(&f->dma);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f);
    return 0;
}

/* -- A little driver: channel 2, or 5 of the second chip -------------------------------------- */
static void program2(struct fix *f, uint8_t mode, uint8_t page, uint16_t address, uint16_t count)
{
    struct dev_rig *r = &f->rig;
    dev_out8(r, 0x0a, 0x06);
    dev_out8(r, CLEAR_POINTER, 0);
    dev_out8(r, MODE, mode | 2);
    dev_out8(r, 0x04, (uint8_t)address);
    dev_out8(r, 0x04, (uint8_t)(address >> 8));
    dev_out8(r, 0x05, (uint8_t)count);
    dev_out8(r, 0x05, (uint8_t)(count >> 8));
    dev_out8(r, 0x81, page);
    dev_out8(r, 0x0a, 0x02);
}

static uint32_t cycles(struct fix *f, unsigned channel, enum dma_cycle cycle, void *data,
                       uint32_t len, bool *ended)
{
    dma_set_request(&f->dma, channel, true);
    uint32_t n = dma_transfer(&f->dma, channel, cycle, data, len, ended);
    dma_set_request(&f->dma, channel, false);
    return n;
}

static uint16_t read16(struct fix *f, uint16_t port)
{
    dev_out8(&f->rig, CLEAR_POINTER, 0);
    uint8_t low = dev_in8(&f->rig, port);
    return (uint16_t)(low | dev_in8(&f->rig, port) << 8);
}

static uint8_t byte_at(struct fix *f, gpa_t at)
{
    uint8_t v;
    assert_int_equal(gmem_read(f->mem, at, &v, 1), 0);
    return v;
}

static void test_to_memory(void **state)
{
    struct fix *f = *state;
    uint8_t data[16] = "sixteen bytes!!";
    bool ended;
    program2(f, SINGLE_WRITE, 0x12, 0x3400, 15);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data, 6, &ended), 6);
    assert_false(ended);
    assert_int_equal(read16(f, 4), 0x3406);
    assert_int_equal(read16(f, 5), 9);
    assert_int_equal(dev_in8(&f->rig, 0x08), 0);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data + 6, 100, &ended), 10);
    assert_true(ended);
    assert_int_equal(byte_at(f, 0x123400), 's');
    assert_int_equal(byte_at(f, 0x12340e), '!');
    assert_int_equal(read16(f, 5), 0xffff);
    assert_int_equal(dev_in8(&f->rig, 0x08), 0x04); /* TC, gone when read */
    assert_int_equal(dev_in8(&f->rig, 0x08), 0);
    assert_int_equal(dev_in8(&f->rig, ALL_MASK), 0x0f); /* masked by it, as are the others */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data, 1, &ended), 0);
    assert_false(ended);
}

static void test_from_memory(void **state)
{
    struct fix *f = *state;
    uint8_t out[4] = { 1, 2, 3, 4 }, data[4];
    bool ended;
    assert_int_equal(gmem_write(f->mem, 0x20ffe, out, 4), 0);
    program2(f, SINGLE_READ | DECREMENT, 0x02, 0x1001, 3);
    assert_int_equal(cycles(f, 2, DMA_FROM_MEMORY, data, 4, &ended), 4);
    assert_int_equal(data[0], 4);
    assert_int_equal(data[3], 1);
    assert_int_equal(read16(f, 4), 0x0ffd);
    /* Where there is no RAM, and where the controller was told otherwise, a device reads ones. */
    program2(f, SINGLE_READ, 0xff, 0, 3);
    assert_int_equal(cycles(f, 2, DMA_FROM_MEMORY, data, 4, &ended), 4);
    assert_int_equal(data[1], 0xff);
    program2(f, SINGLE_WRITE, 0x02, 0x0ffe, 3);
    data[0] = 7;
    assert_int_equal(cycles(f, 2, DMA_FROM_MEMORY, data, 4, &ended), 4);
    assert_int_equal(data[0], 0xff);
    assert_int_equal(byte_at(f, 0x20ffe), 1);
}

static void test_verify_and_wrap(void **state)
{
    struct fix *f = *state;
    uint8_t data[4] = { 9, 9, 9, 9 };
    bool ended;
    program2(f, 0x40, 0x01, 0x2000, 1); /* verify: counts, moves nothing */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data, 4, &ended), 2);
    assert_true(ended);
    assert_int_equal(byte_at(f, 0x12000), 0);
    program2(f, SINGLE_WRITE, 0x01, 0xfffe, 3); /* the page stays */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data, 4, &ended), 4);
    assert_int_equal(byte_at(f, 0x1ffff), 9);
    assert_int_equal(byte_at(f, 0x10000), 9);
    assert_int_equal(byte_at(f, 0x20000), 0);
}

static void test_auto_init(void **state)
{
    struct fix *f = *state;
    uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    bool ended;
    program2(f, SINGLE_WRITE | AUTO_INIT, 0, 0x5000, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, data, 8, &ended), 4);
        assert_true(ended);
    }
    assert_int_equal(read16(f, 4), 0x5000);
    assert_int_equal(read16(f, 5), 3);
    assert_int_equal(dev_in8(&f->rig, ALL_MASK) & 4, 0);
}

static void test_masks(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    uint8_t data = 0;
    bool ended;
    program2(f, SINGLE_WRITE, 0, 0x5000, 100);
    dev_out8(r, 0x08, 0x04); /* the whole controller off */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 0);
    dev_out8(r, 0x08, 0);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 1);
    dev_out8(r, ALL_MASK, 0x04);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 0);
    dev_out8(r, 0x0e, 0);
    assert_int_equal(dev_in8(r, ALL_MASK), 0);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 1);
    dev_out8(r, 0xd4, 0x04); /* channel 4 carries what comes from the first chip */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 0);
    dev_out8(r, 0xd4, 0x00);
    dev_out8(r, 0xd6, 0x40); /* and does so in cascade mode only */
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 0);
    dev_out8(r, 0xd6, 0xc0);
    assert_int_equal(cycles(f, 2, DMA_TO_MEMORY, &data, 1, &ended), 1);
    dma_set_request(&f->dma, 2, true);
    assert_int_equal(dev_in8(r, 0x08), 0x40); /* DREQ is seen */
    dev_out8(r, 0x0d, 0);                     /* master clear */
    assert_int_equal(dev_in8(r, ALL_MASK), 0x0f);
    assert_int_equal(dev_in8(r, 0x0d), 0);
}

static void test_words(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    bool ended;
    dev_out8(r, 0xd8, 0);
    dev_out8(r, 0xd6, 0x45); /* channel 5, to memory */
    dev_out8(r, 0xc4, 0xff);
    dev_out8(r, 0xc4, 0xff); /* the last word of 128 KiB */
    dev_out8(r, 0xc6, 1);
    dev_out8(r, 0xc6, 0);
    dev_out8(r, 0x8b, 0x11); /* its lowest bit is no address */
    dev_out8(r, 0xd4, 0x01);
    assert_int_equal(cycles(f, 5, DMA_TO_MEMORY, data, 8, &ended), 4);
    assert_true(ended);
    assert_int_equal(byte_at(f, 0x11fffe), 1);
    assert_int_equal(byte_at(f, 0x11ffff), 2);
    assert_int_equal(byte_at(f, 0x100000), 3);
    assert_int_equal(dev_in8(r, 0xd0), 0x02);
}

static void test_software_request(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    program2(f, SINGLE_WRITE, 0, 0x5000, 9);
    dev_out8(r, 0x09, 0x06); /* not in this mode */
    assert_int_equal(dev_in8(r, 0x08), 0x40);
    dev_out8(r, 0x09, 0x02);
    dev_out8(r, MODE, 0x86); /* block mode */
    dev_out8(r, 0x09, 0x06);
    assert_int_equal(dev_in8(r, 0x08), 0x04);
    assert_int_equal(read16(f, 4), 0x500a);
}

static void test_registers(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    for (uint16_t port = 0x80; port < 0x90; port++) {
        dev_out8(r, port, (uint8_t)(port * 3));
    }
    for (uint16_t port = 0x80; port < 0x90; port++) {
        assert_int_equal(dev_in8(r, port), (uint8_t)(port * 3));
    }
    dev_out8(r, 0x00, 0x34); /* the pointer is the chip's, not the channel's */
    dev_out8(r, 0x02, 0x12);
    dev_out8(r, CLEAR_POINTER, 0);
    assert_int_equal(read16(f, 0x00), 0x0034);
    assert_int_equal(read16(f, 0x02), 0x1200);
    assert_int_equal(dev_in8(r, 0x0a), 0xff);
    bus_lock(r->bus);
    bus_reset(r->bus);
    bus_unlock(r->bus);
    assert_int_equal(dev_in8(r, ALL_MASK), 0x0f);
    assert_int_equal(dev_in8(r, 0xde), 0x0e);
}

static void test_save(void **state)
{
    struct fix *f = *state;
    uint8_t data[4] = { 0 };
    bool ended;
    program2(f, SINGLE_WRITE, 3, 0x5000, 2);
    dev_out8(&f->rig, 0x04, 0);
    cycles(f, 2, DMA_TO_MEMORY, data, 4, &ended);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(dev_in8(&f->rig, 0x08), 0x04);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_to_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_and_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auto_init, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_software_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
