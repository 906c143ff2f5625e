/* SPDX-License-Identifier: Apache-2.0 -- memory map, room in RAM, files */
// LAYERS: boot mem state base
#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/e820.h"
#include "boot/file.h"
#include "boot/layout.h"

static struct gmem *ram_of(uint64_t bytes)
{
    struct gmem *m = NULL;
    assert_int_equal(gmem_new(&m, bytes, GIB(3), NULL), 0);
    return m;
}

static uint64_t total(const struct e820 *map, enum e820_type type, uint64_t below)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (map->entry[i].type == type && map->entry[i].addr < below) {
            sum += map->entry[i].size;
        }
    }
    return sum;
}

static void map_of_every_size(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { MIB(1), MIB(2),        MIB(16), MIB(512), GIB(3) - 4096,
                                      GIB(3), GIB(3) + 4096, GIB(64), GIB(100) };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct gmem *m = ram_of(sizes[i]);
        struct e820 map;
        e820_build(&map, m);
        uint64_t at = 0;
        for (size_t n = 0; n < map.count; n++) { /* sorted, apart, page-aligned above 1 MiB */
            assert_true(map.entry[n].addr >= at && map.entry[n].size > 0);
            at = map.entry[n].addr + map.entry[n].size;
        }
        uint64_t ram = sizes[i] - MIB(1) + 0x9fc00;
        assert_int_equal(total(&map, E820_RAM, UINT64_MAX), ram);
        assert_true(total(&map, E820_RAM, GIB(4)) <= GIB(3));
        assert_true(total(&map, E820_RESERVED, UINT64_MAX) >= 0x20000 + MIB(20));
        gmem_free(m);
    }
}

static void entries_are_encoded(void **state)
{
    (void)state;
    uint8_t out[E820_ENTRY_BYTES];
    e820_encode(&(struct e820_entry){ 0x123456789abull, 0x1000, E820_NVS }, out);
    assert_int_equal(load_le64(out), 0x123456789abull);
    assert_int_equal(load_le64(out + 8), 0x1000);
    assert_int_equal(load_le32(out + 16), 4);
}

static void claims(void **state)
{
    (void)state;
    struct gmem *m = ram_of(MIB(16));
    struct layout l;
    layout_init(&l, m);
    assert_int_equal(layout_claim(&l, MIB(2), MIB(1)), 0);
    assert_int_equal(layout_claim(&l, MIB(3), 1), 0);
    assert_int_equal(layout_claim(&l, MIB(3), 1), -EEXIST);
    assert_int_equal(layout_claim(&l, MIB(1), MIB(1) + 1), -EEXIST);
    assert_int_equal(layout_claim(&l, MIB(15), MIB(1)), 0);
    assert_int_equal(layout_claim(&l, MIB(14), MIB(2) + 1), -EFAULT);
    assert_int_equal(layout_claim(&l, 0x90000, MIB(1)), -EFAULT); /* over the legacy hole */
    assert_int_equal(layout_claim(&l, 0xf0000, 16), -EFAULT);
    assert_int_equal(layout_claim(&l, UINT64_MAX, 2), -EFAULT);
    assert_int_equal(layout_claim(&l, MIB(5), UINT64_MAX), -EFAULT);
    assert_int_equal(layout_claim(&l, 0x400, 16), -EEXIST); /* vectors, BIOS data */
    assert_int_equal(layout_claim(&l, UINT64_MAX, 0), 0);
    for (unsigned i = 0; i < LAYOUT_MAX; i++) {
        int r = layout_claim(&l, MIB(5) + i, 1);
        if (r != 0) {
            assert_int_equal(r, -ENOSPC);
            assert_int_equal(l.count, LAYOUT_MAX);
            gmem_free(m);
            return;
        }
    }
    fail();
}

static void placing_low_and_high(void **state)
{
    (void)state;
    struct gmem *m = ram_of(GIB(4));
    struct layout l;
    uint64_t at;
    layout_init(&l, m);
    assert_int_equal(layout_place_low(&l, 100, 16, 0, UINT64_MAX, &at), 0);
    assert_int_equal(at, LAYOUT_LOW_START);
    assert_int_equal(layout_place_low(&l, 100, 4096, 0, UINT64_MAX, &at), 0);
    assert_int_equal(at, 0x1000);
    assert_int_equal(layout_place_low(&l, MIB(1), 4096, 0, UINT64_MAX, &at), 0);
    assert_int_equal(at, MIB(1)); /* too large for what is below */
    assert_int_equal(layout_place_high(&l, 5000, 4096, 0, GIB(4), &at), 0);
    assert_int_equal(at, GIB(3) - 8192);
    assert_int_equal(layout_place_high(&l, 4096, 4096, 0, GIB(4), &at), 0);
    assert_int_equal(at, GIB(3) - 3 * 4096);
    assert_int_equal(layout_place_high(&l, 4096, 4096, 0, UINT64_MAX, &at), 0);
    assert_int_equal(at, GIB(5) - 4096);
    assert_int_equal(layout_place_high(&l, 4096, GIB(1), MIB(64), GIB(2), &at), 0);
    assert_int_equal(at, GIB(1));
    assert_int_equal(layout_place_low(&l, GIB(3), 4096, 0, UINT64_MAX, &at), -ENOSPC);
    assert_int_equal(layout_place_high(&l, UINT64_MAX, 4096, 0, UINT64_MAX, &at), -ENOSPC);
    assert_int_equal(layout_place_low(&l, UINT64_MAX, 4096, 0, UINT64_MAX, &at), -ENOSPC);
    assert_int_equal(layout_place_low(&l, 1, 1, MIB(8), MIB(8), &at), -ENOSPC);
    gmem_free(m);
}

/* Whatever is placed lies in RAM and overlaps nothing. */
static void placing_at_random(void **state)
{
    (void)state;
    uint64_t seed = 4711;
    for (int round = 0; round < 200; round++) {
        struct gmem *m = ram_of(round % 2 == 0 ? MIB(8) : GIB(3) + MIB(8));
        struct layout l;
        layout_init(&l, m);
        for (int i = 0; i < 100; i++) {
            uint64_t size = test_random(&seed) % MIB(1) + 1, at = 0;
            uint64_t align = 1ull << test_random(&seed) % 22;
            uint64_t min = test_random(&seed) % MIB(4);
            uint64_t max = test_random(&seed) % 2 != 0 ? GIB(8) : MIB(6);
            struct layout before = l;
            int r = test_random(&seed) % 2 != 0 ? layout_place_low(&l, size, align, min, max, &at)
                                                : layout_place_high(&l, size, align, min, max, &at);
            if (r == 0) {
                assert_true(at >= min && at + size <= max && at % align == 0);
                assert_int_equal(layout_claim(&before, at, size), 0);
            }
        }
        gmem_free(m);
    }
}

static void files(void **state)
{
    (void)state;
    struct boot_file f;
    struct err e;
    uint8_t buf[16];
    char path[] = "/tmp/sosia-test-XXXXXX";
    assert_int_equal(boot_file_open(&f, "/no/such/file", &e), -ENOENT);
    assert_string_equal(e.msg, "/no/such/file: No such file or directory");
    assert_int_equal(boot_file_open(&f, "/tmp", &e), -EISDIR);
    assert_int_equal(boot_file_open(&f, "/dev/null", &e), -EINVAL);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(boot_file_open(&f, path, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "empty"));
    assert_int_equal(write(fd, "0123456789", 10), 10);
    assert_int_equal(boot_file_open(&f, path, &e), 0);
    assert_int_equal(f.size, 10);
    assert_int_equal(boot_file_read(&f, 3, buf, 7, &e), 0);
    assert_memory_equal(buf, "3456789", 7);
    assert_int_equal(boot_file_read(&f, 10, buf, 0, &e), 0);
    assert_true(boot_file_read(&f, 3, buf, 8, &e) < 0);
    assert_true(boot_file_read(&f, UINT64_MAX, buf, 2, &e) < 0);
    assert_int_equal(ftruncate(fd, 5), 0);
    assert_true(boot_file_read(&f, 3, buf, 7, &e) < 0);
    close(fd);
    unlink(path);

    struct gmem *m = ram_of(GIB(3) + MIB(2));
    assert_int_equal(boot_file_to_guest(&f, 0, m, 0x1000, 5, &e), 0);
    assert_int_equal(gmem_read(m, 0x1000, buf, 5), 0);
    assert_memory_equal(buf, "01234", 5);
    assert_true(boot_file_to_guest(&f, 0, m, GIB(3) - 2, 4, &e) < 0);
    assert_true(boot_file_to_guest(&f, 0, m, GIB(9), 4, &e) < 0);
    assert_int_equal(boot_file_to_guest(&f, 0, m, GIB(9), 0, &e), 0);
    gmem_free(m);
    boot_file_close(&f);
    boot_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_of_every_size),
        cmocka_unit_test(entries_are_encoded),
        cmocka_unit_test(claims),
        cmocka_unit_test(placing_low_and_high),
        cmocka_unit_test(placing_at_random),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
