// SPDX-License-Identifier: Apache-2.0
// LAYERS: net base
/* Checksums, segmentation, fragments, the raised MSS, the queue before a card. */
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/netdev.h"
#include "net/packet.h"

static uint16_t plain_sum(const uint8_t *p, size_t len, uint32_t start)
{
    uint64_t sum = start;
    for (size_t i = 0; i < len; i++) {
        sum += (uint64_t)p[i] << (i % 2 ? 0 : 8);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static void test_sum(void **state)
{
    (void)state;
    uint8_t b[3000];
    uint64_t seed = 11;
    for (unsigned i = 0; i < sizeof b; i++) {
        b[i] = (uint8_t)test_random(&seed);
    }
    for (unsigned i = 0; i < 3000; i++) {
        size_t at = test_random(&seed) % 100, len = test_random(&seed) % (sizeof b - 100);
        uint32_t start = (uint32_t)test_random(&seed) & 0x1ffff;
        assert_int_equal(net_sum(b + at, len, start), plain_sum(b + at, len, start));
    }
    memset(b, 0xff, sizeof b);
    assert_int_equal(net_sum(b, sizeof b, 0), 0xffff);
    assert_int_equal(net_sum(b, 0, 0), 0);
}

struct pieces {
    unsigned count;
    size_t payload;
    uint8_t flags_of_last;
};

static void check_segment(void *ctx, uint8_t *f, size_t len)
{
    struct pieces *p = ctx;
    assert_int_equal(load_be16(f + 16), len - 14);
    assert_int_equal(net_sum(f + 14, 20, 0), 0xffff);
    uint32_t pseudo = 6 + (uint32_t)(len - 34);
    pseudo += net_sum(f + 26, 8, 0);
    assert_int_equal(net_sum(f + 34, len - 34, pseudo), 0xffff);
    assert_int_equal(load_be32(f + 38), 1 + p->payload);
    assert_int_equal(load_be16(f + 18), 1 + p->count);
    for (size_t i = 54; i < len; i++) {
        assert_int_equal(f[i], (uint8_t)((p->payload + i - 54) * 3));
    }
    p->count++;
    p->payload += len - 54;
    p->flags_of_last = f[47];
}

static void test_segment(void **state)
{
    (void)state;
    uint8_t f[8000];
    struct pieces p = { 0 };
    struct net_offload o = { .gso_size = 1460 };
    size_t len = test_tcp_frame(f, 5000);
    assert_true(net_segment(&o, f, len, check_segment, &p));
    assert_int_equal(p.count, 4);
    assert_int_equal(p.payload, 5000);
    assert_int_equal(p.flags_of_last, 0x18);
    f[23] = 17; /* UDP */
    assert_false(net_segment(&o, f, len, check_segment, &p));
    test_tcp_frame(f, 5000);
    f[46] = 0x40; /* a header of 16 bytes */
    assert_false(net_segment(&o, f, len, check_segment, &p));
    test_tcp_frame(f, 5000);
    o.gso_size = 0;
    assert_false(net_segment(&o, f, len, check_segment, &p));
}

static void check_fragment(void *ctx, uint8_t *f, size_t len)
{
    struct pieces *p = ctx;
    assert_true(len <= 1514);
    assert_int_equal(net_sum(f + 14, 20, 0), 0xffff);
    assert_int_equal((load_be16(f + 20) & 0x1fff) * 8u, p->payload);
    p->flags_of_last = f[20] >> 5;
    p->count++;
    p->payload += len - 34;
}

static void test_fragment(void **state)
{
    (void)state;
    uint8_t f[8000];
    struct pieces p = { 0 };
    size_t len = test_tcp_frame(f, 4980);
    f[20] = 0;
    f[23] = 17;
    net_fragment(f, len, 1514, check_fragment, &p);
    assert_int_equal(p.count, 4);
    assert_int_equal(p.payload, 5000);
    assert_int_equal(p.flags_of_last, 0);
}

static void test_mss(void **state)
{
    (void)state;
    uint8_t f[200];
    struct net_tcp t;
    const unsigned caps = NET_CAP_CSUM | NET_CAP_TSO4;
    size_t len = test_tcp_frame(f, 4);
    f[46] = 0x60; /* four bytes of options */
    f[47] = 2;    /* SYN */
    memcpy(f + 54, "\2\4\5\xb4", 4);
    assert_true(net_parse_tcp(f, len, &t));
    assert_false(net_tcp_raise_mss(f, &t, 0));
    assert_true(net_tcp_raise_mss(f, &t, caps));
    assert_true(load_be16(f + 56) > 60000);
    memcpy(f + 54, "\2\4\4\0", 4); /* a narrower path */
    assert_false(net_tcp_raise_mss(f, &t, caps));
    memcpy(f + 54, "\1\2\4\5", 4); /* cut off */
    assert_false(net_tcp_raise_mss(f, &t, caps));
    memcpy(f + 54, "\5\0\0\0", 4);
    assert_false(net_tcp_raise_mss(f, &t, caps));
}

/* Any bytes at all: nothing is read beyond them. */
static void test_random_frames(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (unsigned i = 0; i < 20000; i++) {
        size_t len = test_random(&seed) % 120;
        uint8_t *f = malloc(len + 1);
        uint8_t whole[200];
        test_tcp_frame(whole, 100);
        whole[test_random(&seed) % 60] = (uint8_t)test_random(&seed);
        whole[test_random(&seed) % 60] = (uint8_t)test_random(&seed);
        memcpy(f, whole, len);
        struct net_tcp t;
        struct net_offload o = { .csum_start = (uint16_t)(test_random(&seed) % 130),
                                 .csum_offset = (uint16_t)(test_random(&seed) % 70) };
        net_finish_csum(&o, f, len);
        if (net_parse_tcp(f, len, &t)) {
            net_tcp_raise_mss(f, &t, NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6);
            net_tcp_finish(f, len, &t);
        }
        net_prepare_gso(&o, f, len, 10);
        free(f);
    }
}

static bool full;
static unsigned taken;
static bool receive(void *ctx, const struct net_offload *o, const uint8_t *frame, size_t len)
{
    (void)ctx;
    (void)o;
    (void)frame;
    (void)len;
    taken += !full;
    return !full;
}

static void test_queue(void **state)
{
    (void)state;
    struct test_net n;
    static const struct net_offload none;
    uint8_t f[60000] = { 0 };
    const struct net_card card = { .receive = receive };
    net_init(&n.net, &test_net_class);
    net_attach(&n.net, &card);
    full = true;
    for (unsigned i = 0; i < 100; i++) {
        net_deliver(&n.net, &none, f, sizeof f);
    }
    assert_false(net_room(&n.net));
    assert_true(n.net.dropped > 0 && n.net.dropped < 100);
    full = false;
    net_ready(&n.net);
    assert_int_equal(taken + n.net.dropped, 100);
    full = true;
    net_deliver(&n.net, &none, f, 100);
    net_set_link(&n.net, false);
    assert_int_equal(n.net.queued_bytes, 0);
    net_detach(&n.net);
    net_deliver(&n.net, &none, f, 100);
    net_free(&n.net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),           cmocka_unit_test(test_segment),
        cmocka_unit_test(test_fragment),      cmocka_unit_test(test_mss),
        cmocka_unit_test(test_random_frames), cmocka_unit_test(test_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
