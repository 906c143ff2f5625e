/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include <stdio.h>

#include "base/bytes.h"
#include "dev/pc/fw_cfg.h"

#define RAM (1u << 20)
#define REQUEST 0x1000u

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct fw_cfg cfg;
    const char *written;
};

static void on_written(void *ctx, const char *name)
{
    struct fix *f = ctx;
    f->written = name;
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e;
    assert_int_equal(gmem_new(&f->mem, RAM, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    fw_cfg_init(&f->cfg, f->rig.bus);
    fw_cfg_set_u16(&f->cfg, FW_CFG_NB_CPUS, 4);
    fw_cfg_set_u64(&f->cfg, FW_CFG_RAM_SIZE, 0x123456789a);
    assert_int_equal(fw_cfg_add_file(&f->cfg, "etc/one", "hello", 5), 0);
    assert_int_equal(fw_cfg_add_writable(&f->cfg, "etc/two", "abcdefgh", 8), 0);
    fw_cfg_on_write(&f->cfg, on_written, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    fw_cfg_fini(&f->cfg);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f);
    return 0;
}

static uint64_t get(struct fix *f, uint16_t key, unsigned bytes)
{
    uint64_t v = 0;
    dev_out16(&f->rig, 0x510, key);
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)dev_in8(&f->rig, 0x511) << 8 * i;
    }
    return v;
}

/* Big-endian, as everything about DMA. */
static void request(struct fix *f, uint64_t at, uint32_t control, uint32_t len, uint64_t address)
{
    uint8_t rq[16];
    store_be32(rq, control);
    store_be32(rq + 4, len);
    store_be64(rq + 8, address);
    int r = gmem_write(f->mem, at, rq, sizeof rq);
    (void)r; /* hostile addresses, too */
    dev_out32(&f->rig, 0x514, __builtin_bswap32((uint32_t)(at >> 32)));
    dev_out32(&f->rig, 0x518, __builtin_bswap32((uint32_t)at));
}

static uint32_t result(struct fix *f)
{
    uint8_t raw[4];
    assert_int_equal(gmem_read(f->mem, REQUEST, raw, 4), 0);
    return load_be32(raw);
}

static void test_numbers(void **state)
{
    struct fix *f = *state;
    assert_int_equal(get(f, FW_CFG_SIGNATURE, 4), 0x554d4551);
    assert_int_equal(get(f, FW_CFG_ID, 4), 3);
    assert_int_equal(get(f, FW_CFG_NB_CPUS, 2), 4);
    assert_int_equal(get(f, FW_CFG_RAM_SIZE, 8), 0x123456789a);
    assert_int_equal(get(f, FW_CFG_NB_CPUS, 8), 4); /* zeros behind the end */
    assert_int_equal(get(f, 0x1f, 4), 0);           /* no such item */
    assert_int_equal(get(f, 0xffff, 4), 0);
    assert_int_equal(get(f, 0x8000, 4), 0);
}

static void test_word_reads(void **state)
{
    struct fix *f = *state;
    dev_out16(&f->rig, 0x510, FW_CFG_SIGNATURE);
    assert_int_equal(dev_in16(&f->rig, 0x510), 0x4551);
    assert_int_equal(dev_in8(&f->rig, 0x511), 0x4d);
    dev_out8(&f->rig, 0x510, FW_CFG_NB_CPUS); /* the selector takes words only */
    assert_int_equal(dev_in8(&f->rig, 0x511), 0x55);
}

static void test_directory(void **state)
{
    struct fix *f = *state;
    assert_int_equal(__builtin_bswap32((uint32_t)get(f, FW_CFG_FILE_DIR, 4)), 2);
    uint8_t entry[64];
    for (unsigned i = 0; i < sizeof entry; i++) {
        entry[i] = dev_in8(&f->rig, 0x511);
    }
    assert_int_equal(load_be32(entry), 5);
    assert_int_equal(load_be16(entry + 4), FW_CFG_FILE_FIRST);
    assert_string_equal((char *)entry + 8, "etc/one");
    assert_int_equal(get(f, FW_CFG_FILE_FIRST, 5), 0x6f6c6c6568);
}

static void test_add_file_errors(void **state)
{
    struct fix *f = *state;
    char name[FW_CFG_NAME + 1];
    assert_int_equal(fw_cfg_add_file(&f->cfg, "etc/one", "x", 1), -17);
    assert_int_equal(fw_cfg_add_file(&f->cfg, "", "x", 1), -22);
    memset(name, 'n', sizeof name);
    name[FW_CFG_NAME] = '\0';
    assert_int_equal(fw_cfg_add_file(&f->cfg, name, "x", 1), -22);
    name[FW_CFG_NAME - 1] = '\0';
    assert_int_equal(fw_cfg_add_file(&f->cfg, name, "x", 1), 0);
    assert_int_equal(fw_cfg_add_writable(&f->cfg, "big", NULL, FW_CFG_WRITABLE), -28);
    int r = 0;
    for (unsigned i = 3; i <= FW_CFG_FILES; i++) {
        assert_int_equal(r, 0);
        snprintf(name, sizeof name, "f%u", i);
        r = fw_cfg_add_file(&f->cfg, name, "x", 1);
    }
    assert_int_equal(r, -28);
}

static void test_dma_signature(void **state)
{
    struct fix *f = *state;
    uint8_t sig[8];
    store_le32(sig, dev_in32(&f->rig, 0x514));
    store_le32(sig + 4, dev_in32(&f->rig, 0x518));
    assert_memory_equal(sig, "QEMU CFG", 8);
}

static void test_dma_read(void **state)
{
    struct fix *f = *state;
    char buf[9] = "";
    memset(buf, 'x', 8);
    assert_int_equal(gmem_write(f->mem, 0x2000, buf, 8), 0);
    request(f, REQUEST, FW_CFG_FILE_FIRST << 16 | 0x0a, 8, 0x2000);
    assert_int_equal(result(f), 0);
    assert_int_equal(gmem_read(f->mem, 0x2000, buf, 8), 0);
    assert_memory_equal(buf, "hello\0\0\0", 8);
    /* Select, skip, read in steps. */
    request(f, REQUEST, FW_CFG_FILE_FIRST << 16 | 0x0c, 2, 0);
    request(f, REQUEST, 0x02, 2, 0x2000);
    assert_int_equal(result(f), 0);
    assert_int_equal(gmem_read(f->mem, 0x2000, buf, 2), 0);
    assert_memory_equal(buf, "ll", 2);
    assert_int_equal(dev_in8(&f->rig, 0x511), 'o'); /* one offset for both ways */
    request(f, REQUEST, 0x7777u << 16 | 0x0a, 4, 0x2000);
    assert_int_equal(result(f), 0);
    assert_int_equal(gmem_read(f->mem, 0x2000, buf, 4), 0);
    assert_memory_equal(buf, "\0\0\0\0", 4);
}

static void test_dma_write(void **state)
{
    struct fix *f = *state;
    uint32_t len;
    const uint32_t two = (FW_CFG_FILE_FIRST + 1) << 16;
    assert_int_equal(gmem_write(f->mem, 0x2000, "WXYZ", 4), 0);
    request(f, REQUEST, two | 0x0c, 2, 0);
    request(f, REQUEST, 0x10, 4, 0x2000);
    assert_int_equal(result(f), 0);
    assert_string_equal(f->written, "etc/two");
    assert_memory_equal(fw_cfg_file(&f->cfg, "etc/two", &len), "abWXYZgh", 8);
    assert_int_equal(len, 8);
    request(f, REQUEST, 0x10, 3, 0x2000); /* beyond the end */
    assert_int_equal(result(f), 1);
    request(f, REQUEST, FW_CFG_FILE_FIRST << 16 | 0x18, 1, 0x2000); /* read-only */
    assert_int_equal(result(f), 1);
    request(f, REQUEST, 0x6666u << 16 | 0x18, 1, 0x2000);
    assert_int_equal(result(f), 1);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_memory_equal(fw_cfg_file(&f->cfg, "etc/two", &len), "abWXYZgh", 8);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_memory_equal(fw_cfg_file(&f->cfg, "etc/two", &len), "abcdefgh", 8);
    assert_null(fw_cfg_file(&f->cfg, "etc/three", &len));
}

static void test_hostile_dma(void **state)
{
    static const uint64_t places[] = {
        RAM,        RAM - 8, RAM - 1, 0xffffffffull, 0xfffffffffffffff0ull, 0xffffffffffffffffull,
        1ull << 52,
    };
    struct fix *f = *state;
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        request(f, places[i], FW_CFG_FILE_FIRST << 16 | 0x0a, 5, 0x2000);
        for (unsigned op = 0x02; op <= 0x10; op <<= 1) {
            request(f, REQUEST, (FW_CFG_FILE_FIRST + 1) << 16 | 0x08, 0, 0);
            request(f, REQUEST, op, 0xffffffff, places[i]);
            assert_int_equal(result(f), op == 0x02 || op == 0x10);
        }
    }
    /* Over the request itself: the answer stands last. */
    request(f, REQUEST, FW_CFG_FILE_FIRST << 16 | 0x0a, 16, REQUEST);
    assert_int_equal(result(f), 0);
}

static void test_save_load_save(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 7;
    for (int i = 0; i < 500; i++) {
        uint64_t r = test_random(&seed);
        dev_out16(&f->rig, 0x510, (uint16_t)(r & 0x803f));
        dev_in8(&f->rig, 0x511);
        dev_out32(&f->rig, 0x514, (uint32_t)(r >> 40));
        request(f, REQUEST, (uint32_t)(r >> 8 & 0x003f001e), (uint32_t)(r >> 60), 0x2000);
        if (i % 8 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_numbers),         TEST(test_word_reads),    TEST(test_directory),
        TEST(test_add_file_errors), TEST(test_dma_signature), TEST(test_dma_read),
        TEST(test_dma_write),       TEST(test_hostile_dma),   TEST(test_save_load_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
