/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: mem state base
#include "support/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "mem/gmem.h"

#define HOLE GIB(3)

static struct gmem *new_gmem(uint64_t bytes)
{
    struct gmem *m = NULL;
    struct err e = { "" };
    assert_int_equal(gmem_new(&m, bytes, HOLE, &e), 0);
    return m;
}

static void sizes_are_checked(void **state)
{
    (void)state;
    struct gmem *m = NULL;
    struct err e = { "" };
    assert_int_equal(gmem_new(&m, 0, HOLE, &e), -EINVAL);
    assert_int_equal(gmem_new(&m, 4097, HOLE, &e), -EINVAL);
    assert_int_equal(gmem_new(&m, GIB(1024) + 4096, HOLE, &e), -EINVAL);
    assert_int_equal(gmem_new(&m, UINT64_MAX & ~4095ull, HOLE, &e), -EINVAL);
    assert_null(m);
    assert_string_not_equal(e.msg, "");
}

static void small_ram(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(16));
    uint64_t v = 0;
    assert_int_equal(gmem_ram_size(m), MIB(16));
    assert_int_equal(gmem_ram_below_4g(m), MIB(16));
    assert_int_equal(gmem_write(m, MIB(16) - 8, "abcdefgh", 8), 0);
    assert_int_equal(gmem_read(m, MIB(16) - 8, &v, 8), 0);
    assert_memory_equal(&v, "abcdefgh", 8);
    assert_int_equal(gmem_read(m, MIB(16) - 7, &v, 8), -EFAULT);
    assert_int_equal(gmem_write(m, MIB(16) - 7, &v, 8), -EFAULT);
    assert_int_equal(gmem_read(m, MIB(16), &v, 1), -EFAULT);
    assert_int_equal(gmem_read(m, UINT64_MAX - 3, &v, 8), -EFAULT); /* wraps */
    assert_int_equal(gmem_read(m, UINT64_MAX, &v, 1), -EFAULT);
    assert_int_equal(gmem_read(m, 0, &v, 0), 0);
    struct gmem_range r;
    assert_true(gmem_find(m, 0x5000, &r));
    assert_int_equal(r.gpa, 0);
    assert_int_equal(r.size, MIB(16));
    assert_int_equal(r.kind, GMEM_RAM);
    assert_ptr_equal(r.host, gmem_ram_host(m));
    assert_int_equal((uintptr_t)r.host % MIB(2), 0);
    gmem_free(m);
}

static void the_hole_splits_ram(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(GIB(5));
    uint32_t v = 0x1234;
    assert_int_equal(gmem_ram_below_4g(m), GIB(3));
    assert_int_equal(gmem_write(m, GIB(3) - 4, &v, 4), 0);
    assert_int_equal(gmem_write(m, GIB(3), &v, 4), -EFAULT);
    assert_int_equal(gmem_write(m, GIB(4) - 4, &v, 4), -EFAULT);
    assert_int_equal(gmem_write(m, GIB(4), &v, 4), 0);
    assert_int_equal(gmem_write(m, GIB(6) - 4, &v, 4), 0);
    assert_int_equal(gmem_write(m, GIB(6), &v, 4), -EFAULT);
    struct gmem_range r;
    assert_true(gmem_find(m, GIB(4) + 4096, &r));
    assert_int_equal(r.gpa, GIB(4));
    assert_int_equal(r.size, GIB(2));
    assert_int_equal(r.ram_page, GIB(3) >> 12);
    assert_ptr_equal(r.host, gmem_ram_host(m) + GIB(3));
    assert_int_equal(gmem_ram_page(m, GIB(4)), GIB(3) >> 12);
    assert_true(gmem_ram_page(m, GIB(3)) == GMEM_NO_PAGE);
    assert_true(gmem_ram_page(m, GIB(6)) == GMEM_NO_PAGE);
    assert_false(gmem_find(m, GIB(3), &r));
    gmem_free(m);
}

/* Far more than this host has: only what is touched counts. */
static void lazy_giants(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { GIB(64), GIB(1024) };
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct gmem *m = new_gmem(sizes[i]);
        uint64_t end = GIB(1) + sizes[i];
        uint64_t v = 0x1122334455667788ull, back;
        for (gpa_t at = GIB(4); at < end; at += sizes[i] / 16) {
            assert_int_equal(gmem_write(m, at, &v, 8), 0);
            assert_int_equal(gmem_read(m, at, &back, 8), 0);
            assert_true(back == v);
        }
        assert_int_equal(gmem_write(m, end - 8, &v, 8), 0);
        assert_int_equal(gmem_write(m, end, &v, 8), -EFAULT);
        gmem_free(m);
    }
}

static unsigned map_changes;
static void count_change(void *ctx)
{
    (void)ctx;
    map_changes++;
}

static void rom_holes_and_ram_again(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(8));
    struct err e = { "" };
    struct gmem_range r;
    uint8_t rom[5000];
    uint8_t buf[8192];
    memset(rom, 0xc3, sizeof rom);
    memset(buf, 0x11, sizeof buf);
    map_changes = 0;
    gmem_set_map_hook(m, count_change, NULL);

    assert_int_equal(gmem_write(m, 0xf0000, buf, 8192), 0);
    assert_int_equal(gmem_map_rom(m, 0xf0000, rom, sizeof rom, &e), 0);
    assert_int_equal(map_changes, 1);
    assert_true(gmem_find(m, 0xf0000, &r));
    assert_int_equal(r.kind, GMEM_ROM);
    assert_int_equal(r.size, 8192);
    assert_true(r.ram_page >= MIB(8) >> 12 && r.ram_page < gmem_page_count(m));
    assert_int_equal(gmem_read(m, 0xf0000, buf, 8192), 0);
    assert_int_equal(buf[4999], 0xc3);
    assert_int_equal(buf[5000], 0); /* the rest of the page */
    assert_int_equal(gmem_write(m, 0xf0000, buf, 1), -EFAULT);
    assert_null(gmem_ptr(m, 0xf0000, 1));
    /* A write that begins in RAM and ends in ROM leaves the RAM alone. */
    memset(buf, 0x77, sizeof buf);
    assert_int_equal(gmem_write(m, 0xf0000 - 16, buf, 32), -EFAULT);
    assert_int_equal(gmem_read(m, 0xf0000 - 16, buf, 16), 0);
    assert_int_equal(buf[0], 0);
    /* A read may cross from RAM into ROM and back. */
    assert_int_equal(gmem_read(m, 0xf0000 - 16, buf, 32), 0);
    assert_int_equal(buf[15], 0);
    assert_int_equal(buf[16], 0xc3);

    gmem_map_ram(m, 0xf0000, 0x2000); /* what was written before is still there */
    assert_int_equal(gmem_read(m, 0xf0000, buf, 1), 0);
    assert_int_equal(buf[0], 0x11);
    assert_true(gmem_find(m, 0, &r));
    assert_int_equal(r.size, MIB(8)); /* one piece again */

    gmem_map_hole(m, 0xa0000, 0x20000);
    assert_false(gmem_find(m, 0xa0000, &r));
    assert_false(gmem_find(m, 0xbffff, &r));
    assert_true(gmem_find(m, 0xc0000, &r));
    assert_int_equal(r.gpa, 0xc0000);
    assert_int_equal(gmem_read(m, 0x9ffff, buf, 2), -EFAULT);
    assert_true(gmem_ram_page(m, 0xa0000) == 0xa0);

    gmem_map_ram_readonly(m, 0xe0000, 0x10000);
    assert_int_equal(gmem_read(m, 0xe0000, buf, 4), 0);
    assert_int_equal(gmem_write(m, 0xe0000, buf, 4), -EFAULT);
    gmem_map_ram(m, 0, MIB(64)); /* beyond RAM stays a hole */
    assert_true(gmem_find(m, 0xa0000, &r));
    assert_int_equal(r.size, MIB(8));
    assert_false(gmem_find(m, MIB(8), &r));
    assert_int_equal(map_changes, 5);
    gmem_free(m);
}

static void rom_limits(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(8));
    struct err e = { "" };
    uint8_t byte = 1;
    uint8_t *big = calloc(1, MIB(16));
    assert_int_equal(gmem_map_rom(m, 0x1001, &byte, 1, &e), -EINVAL);
    assert_int_equal(gmem_map_rom(m, 0x1000, &byte, 0, &e), -EINVAL);
    assert_int_equal(gmem_map_rom(m, 0x1000, big, MIB(65), &e), -EINVAL);
    assert_int_equal(gmem_map_rom(m, UINT64_MAX & ~4095ull, &byte, 4096, &e), -EINVAL);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(gmem_map_rom(m, GIB(4) - MIB(16), big, MIB(16), &e), 0);
    }
    assert_int_equal(gmem_map_rom(m, GIB(4) - MIB(16), &byte, 1, &e), -ENOMEM);
    free(big);
    gmem_free(m);
}

/* The map against an array of bytes, under random overlays. */
static void map_matches_a_model(void **state)
{
    (void)state;
    enum { PAGES = 64, RAM_PAGES = 48 };
    struct gmem *m = new_gmem(RAM_PAGES * 4096);
    struct err e = { "" };
    uint8_t kind[PAGES];
    uint8_t page[4096] = { 0 };
    memset(kind, GMEM_RAM, RAM_PAGES);
    memset(kind + RAM_PAGES, GMEM_NONE, PAGES - RAM_PAGES);
    uint64_t seed = 7;
    for (unsigned round = 0; round < 3000; round++) {
        unsigned from = test_random(&seed) % PAGES;
        unsigned count = 1 + test_random(&seed) % (PAGES - from);
        switch (test_random(&seed) % 4) {
        case 0:
            gmem_map_hole(m, from * 4096, count * 4096);
            memset(kind + from, GMEM_NONE, count);
            break;
        case 1:
            gmem_map_ram(m, from * 4096, count * 4096);
            for (unsigned p = from; p < from + count; p++) {
                kind[p] = p < RAM_PAGES ? GMEM_RAM : GMEM_NONE;
            }
            break;
        case 2:
            gmem_map_ram_readonly(m, from * 4096, count * 4096);
            for (unsigned p = from; p < from + count; p++) {
                kind[p] = p < RAM_PAGES ? GMEM_ROM : GMEM_NONE;
            }
            break;
        default:
            if (round % 16 == 0) {
                assert_int_equal(gmem_map_rom(m, from * 4096, page, 4096, &e), 0);
                kind[from] = GMEM_ROM;
            }
            break;
        }
        for (unsigned p = 0; p < PAGES; p++) {
            struct gmem_range r;
            bool hit = gmem_find(m, p * 4096 + 4095, &r);
            assert_int_equal(hit ? r.kind : GMEM_NONE, kind[p]);
            if (hit) {
                assert_true(r.gpa <= p * 4096u && r.gpa + r.size >= (p + 1) * 4096u);
                assert_ptr_equal(r.host, gmem_ram_host(m) + r.ram_page * 4096);
            }
            unsigned next = p;
            while (next < PAGES && kind[next] == GMEM_NONE) {
                next++;
            }
            assert_true(gmem_find_next(m, p * 4096, &r) == (next < PAGES));
            if (next < PAGES) {
                assert_int_equal(r.kind, kind[next]);
                assert_true(hit ? r.gpa <= p * 4096u : r.gpa == next * 4096u);
            }
        }
    }
    gmem_free(m);
}

static void zero_and_bulk(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(1));
    uint8_t *buf = malloc(MIB(1));
    memset(buf, 0x5a, MIB(1));
    assert_int_equal(gmem_write(m, 0, buf, MIB(1)), 0);
    assert_int_equal(gmem_zero(m, 3, 9000), 0);
    assert_int_equal(gmem_read(m, 0, buf, MIB(1)), 0);
    for (unsigned i = 0; i < 10000; i++) {
        assert_int_equal(buf[i], i < 3 || i >= 9003 ? 0x5a : 0);
    }
    assert_int_equal(gmem_zero(m, MIB(1) - 1, 2), -EFAULT);
    uint8_t *p = gmem_ptr(m, 100, 1000);
    assert_ptr_equal(p, gmem_ram_host(m) + 100);
    assert_null(gmem_ptr(m, MIB(1) - 10, 11));
    free(buf);
    gmem_free(m);
}

static void compare_and_swap(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(1));
    struct err e = { "" };
    uint64_t v = 100;
    assert_int_equal(gmem_write(m, 64, &v, 8), 0);
    assert_int_equal(gmem_cas64(m, 64, 99, 1), -EAGAIN);
    assert_int_equal(gmem_cas64(m, 64, 100, 0xaabbccdd11223344ull), 0);
    assert_int_equal(gmem_cas32(m, 68, 0xaabbccdd, 5), 0);
    assert_int_equal(gmem_cas32(m, 68, 0xaabbccdd, 5), -EAGAIN);
    assert_int_equal(gmem_read(m, 64, &v, 8), 0);
    assert_true(v == 0x511223344ull);
    assert_int_equal(gmem_cas64(m, 60, 0, 0), -EFAULT);
    assert_int_equal(gmem_cas32(m, 66, 0, 0), -EFAULT);
    assert_int_equal(gmem_cas64(m, MIB(1), 0, 0), -EFAULT);
    assert_int_equal(gmem_map_rom(m, 0, &v, 8, &e), 0);
    assert_int_equal(gmem_cas64(m, 0, v, 0), -EFAULT);
    gmem_free(m);
}

struct written {
    gpa_t gpa[16];
    uint64_t len[16];
    unsigned count;
};

static void on_code(void *ctx, gpa_t gpa, uint64_t len)
{
    struct written *w = ctx;
    w->gpa[w->count] = gpa;
    w->len[w->count++] = len;
}

static void writes_to_code_are_told(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(MIB(1));
    struct written w = { 0 };
    uint8_t buf[8192] = { 0 };
    gmem_set_code_hook(m, on_code, &w);
    _Atomic uint8_t *flags = gmem_page_flags(m);
    flags[2] |= GMEM_PAGE_CODE;
    flags[3] |= GMEM_PAGE_CODE;
    assert_int_equal(gmem_write(m, 0x1000, buf, 4096), 0);
    assert_int_equal(w.count, 0);
    assert_int_equal(gmem_write(m, 0x1ff0, buf, 8192), 0);
    assert_int_equal(w.count, 2);
    assert_int_equal(w.gpa[0], 0x2000);
    assert_int_equal(w.len[0], 4096);
    assert_int_equal(w.gpa[1], 0x3000);
    assert_int_equal(w.len[1], 0xff0);
    assert_int_equal(gmem_cas32(m, 0x2004, 0, 1), 0);
    assert_int_equal(w.count, 3);
    flags[2] &= (uint8_t)~GMEM_PAGE_CODE; /* the engine let go */
    assert_int_equal(gmem_cas32(m, 0x2004, 1, 2), 0);
    assert_int_equal(w.count, 3);
    gmem_free(m);
}

static void views_of_memory_for_the_kernel(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(GIB(4)); /* 1 GiB of it from 4 GiB on */
    struct err e = { "" };
    struct written w = { 0 };
    struct iovec iov[3];
    struct gmem_views v = { iov, 3, 0 };
    uint64_t high = gmem_ram_page(m, GIB(4));
    uint64_t page;
    assert_int_equal(gmem_view(m, 0x2ff0, 0x20, GMEM_FROM_FILE, &v), 0);
    assert_int_equal(gmem_view(m, 0x3010, 0x10, GMEM_FROM_FILE, &v), 0);
    assert_int_equal(v.count, 1); /* they meet */
    assert_ptr_equal(iov[0].iov_base, gmem_ram_host(m) + 0x2ff0);
    assert_int_equal(iov[0].iov_len, 0x30);
    assert_int_equal(gmem_view(m, 0x1000, 0x1000, GMEM_FROM_FILE, &v), 0);
    assert_int_equal(gmem_view(m, GIB(4) + 0xff0, 0x20, GMEM_FROM_FILE, &v), 0);
    assert_int_equal(v.count, 3);
    assert_int_equal(gmem_view(m, 0x9000, 1, GMEM_FROM_FILE, &v), -E2BIG);
    v.count = 2;
    assert_int_equal(gmem_view(m, HOLE - 1, 2, GMEM_FROM_FILE, &v), -EFAULT);
    assert_int_equal(gmem_view(m, UINT64_MAX, 2, GMEM_FROM_FILE, &v), -EFAULT);
    v.count = 2;
    assert_int_equal(gmem_view(m, GIB(4) + 0xff0, 0x20, GMEM_FROM_FILE, &v), 0);
    gmem_set_code_hook(m, on_code, &w);
    gmem_track(m, GMEM_PAGE_CLEAN_MIGRATE, 0, UINT64_MAX, true);
    _Atomic uint8_t *flags = gmem_page_flags(m);
    flags[3] |= GMEM_PAGE_CODE;
    flags[high + 1] |= GMEM_PAGE_CODE;
    gmem_map_hole(m, 0x3000, 0x1000); /* what the guest does meanwhile changes nothing */
    gmem_mark_views(m, iov, v.count);
    static const uint64_t written[] = { 1, 2, 3 }, not_written[] = { 0, 4 };
    for (unsigned i = 0; i < 3; i++) {
        assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, written[i]));
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, not_written[i]));
    }
    assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, high));
    assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, high + 1));
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, high + 2));
    assert_int_equal(w.count, 2);
    assert_int_equal(w.gpa[0], 0x3000);
    assert_int_equal(w.len[0], 0x20);
    assert_int_equal(w.gpa[1], GIB(4) + 0x1000);
    assert_int_equal(w.len[1], 0x10);
    /* ROM goes to a file, but nothing from one to it; memory of a device both ways. */
    assert_int_equal(gmem_add_rom(m, NULL, 0x2000, &page, &e), 0);
    gmem_show_rom(m, 0xc0000, page, 0x1000);
    v.count = 0;
    assert_int_equal(gmem_view(m, 0xc0000, 16, GMEM_TO_FILE, &v), 0);
    assert_int_equal(gmem_view(m, 0xc0000, 16, GMEM_FROM_FILE, &v), -EFAULT);
    gmem_show_device_ram(m, HOLE, page + 1, 0x1000);
    v.count = 0;
    assert_int_equal(gmem_view(m, HOLE + 8, 16, GMEM_FROM_FILE, &v), 0);
    flags[page + 1] |= GMEM_PAGE_CODE;
    gmem_mark_views(m, iov, v.count);
    assert_int_equal(w.count, 3);
    assert_int_equal(w.gpa[2], HOLE + 8);
    gmem_map_hole(m, HOLE, 0x1000);
    gmem_mark_views(m, iov, v.count); /* it has no address */
    assert_int_equal(w.count, 3);
    gmem_free(m);
}

static void writes_are_tracked_per_client(void **state)
{
    (void)state;
    struct gmem *m = new_gmem(GIB(4)); /* 1 GiB of it from 4 GiB on */
    uint8_t byte = 1;
    uint64_t high = gmem_ram_page(m, GIB(4));
    gmem_track(m, GMEM_PAGE_CLEAN_MIGRATE, 0, UINT64_MAX, true);
    gmem_track(m, GMEM_PAGE_CLEAN_DISPLAY, 0x5000, 1, true);
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, 5));
    assert_int_equal(gmem_write(m, 0x5fff, &byte, 1), 0);
    assert_int_equal(gmem_write(m, GIB(4) + 1, &byte, 1), 0);
    assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, 5));
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, 5));
    assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_DISPLAY, 5));
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_DISPLAY, 5));
    assert_true(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, high));
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, high + 1));
    assert_false(gmem_harvest(m, GMEM_PAGE_CLEAN_MIGRATE, 4));
    gmem_track(m, GMEM_PAGE_CLEAN_MIGRATE, 0, UINT64_MAX, false);
    assert_int_equal(gmem_page_flags(m)[5], GMEM_PAGE_CLEAN_DISPLAY);
    gmem_free(m);
}

/* -- Threads ----------------------------------------------------------------------------------- */
struct race {
    struct gmem *m;
    _Atomic bool stop;
    _Atomic unsigned wrong;
    _Atomic unsigned looked;
};

static void *look_up(void *arg)
{
    struct race *race = arg;
    uint64_t seed = 99;
    while (!atomic_load(&race->stop)) {
        gpa_t gpa = test_random(&seed) % MIB(1);
        struct gmem_range r;
        if (gmem_find(race->m, gpa, &r)) {
            bool inside = gpa >= r.gpa && gpa - r.gpa < r.size;
            /* RAM maps one to one here, so that a torn range would show. */
            bool whole = r.kind == GMEM_RAM && r.ram_page == r.gpa >> 12 &&
                         r.host == gmem_ram_host(race->m) + r.gpa && r.gpa + r.size <= MIB(1);
            if (!inside || !whole) {
                atomic_fetch_add(&race->wrong, 1);
            }
        }
        atomic_fetch_add(&race->looked, 1);
    }
    return NULL;
}

static void lookups_race_with_changes(void **state)
{
    (void)state;
    static struct race race;
    race.m = new_gmem(MIB(1));
    pthread_t thread[2];
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&thread[i], NULL, look_up, &race);
    }
    uint64_t seed = 3;
    while (atomic_load(&race.looked) < 100000) {
        gpa_t gpa = test_random(&seed) % 200 * 4096;
        gmem_map_hole(race.m, gpa, 4096 * (1 + test_random(&seed) % 50));
        if (test_random(&seed) % 4 == 0) {
            gmem_map_ram(race.m, 0, MIB(1));
        }
    }
    atomic_store(&race.stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_int_equal(atomic_load(&race.wrong), 0);
    gmem_free(race.m);
}

/* One thread counts up in guest memory; the other harvests and copies. When the writer is done, a
 * last harvest must make the copy equal: no write may have slipped through. */
static void *count_up(void *arg)
{
    struct race *race = arg;
    for (uint64_t v = 1; v <= 200000; v++) {
        if (gmem_write(race->m, 0x1000, &v, 8) != 0) {
            atomic_fetch_add(&race->wrong, 1);
        }
    }
    atomic_store(&race->stop, true);
    return NULL;
}

static void no_write_slips_through(void **state)
{
    (void)state;
    static struct race race;
    race.m = new_gmem(MIB(1));
    gmem_track(race.m, GMEM_PAGE_CLEAN_MIGRATE, 0, MIB(1), true);
    uint64_t copy = 0, last;
    pthread_t thread;
    pthread_create(&thread, NULL, count_up, &race);
    bool done;
    do {
        done = atomic_load(&race.stop);
        if (gmem_harvest(race.m, GMEM_PAGE_CLEAN_MIGRATE, 1)) {
            assert_int_equal(gmem_read(race.m, 0x1000, &copy, 8), 0);
        }
    } while (!done);
    pthread_join(thread, NULL);
    assert_int_equal(gmem_read(race.m, 0x1000, &last, 8), 0);
    assert_true(copy == last && last == 200000);
    assert_int_equal(atomic_load(&race.wrong), 0);
    gmem_free(race.m);
}

static void two_machines(void **state)
{
    (void)state;
    struct gmem *a = new_gmem(MIB(1));
    struct gmem *b = new_gmem(MIB(1));
    uint8_t v = 1;
    assert_int_equal(gmem_write(a, 0, &v, 1), 0);
    assert_int_equal(gmem_read(b, 0, &v, 1), 0);
    assert_int_equal(v, 0);
    gmem_free(a);
    gmem_free(b);
    gmem_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(small_ram),
        cmocka_unit_test(the_hole_splits_ram),
        cmocka_unit_test(lazy_giants),
        cmocka_unit_test(rom_holes_and_ram_again),
        cmocka_unit_test(rom_limits),
        cmocka_unit_test(map_matches_a_model),
        cmocka_unit_test(zero_and_bulk),
        cmocka_unit_test(compare_and_swap),
        cmocka_unit_test(writes_to_code_are_told),
        cmocka_unit_test(views_of_memory_for_the_kernel),
        cmocka_unit_test(writes_are_tracked_per_client),
        cmocka_unit_test(lookups_race_with_changes),
        cmocka_unit_test(no_write_slips_through),
        cmocka_unit_test(two_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
