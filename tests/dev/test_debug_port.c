/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/debug_port.h"

struct seen {
    unsigned exits;
    uint32_t status;
    char text[16];
    size_t len;
};

static void on_exit_write(void *ctx, uint32_t status)
{
    struct seen *s = ctx;
    s->exits++;
    s->status = status;
}

static void on_text(void *ctx, const uint8_t *data, size_t len)
{
    struct seen *s = ctx;
    memcpy(s->text + s->len, data, len);
    s->len += len;
}

static void test_exit_port(void **state)
{
    struct dev_rig r;
    struct exit_port port;
    struct seen s = { 0 };
    (void)state;
    dev_rig_init(&r);
    exit_port_init(&port, r.bus, 0xf4, on_exit_write, &s);
    dev_out8(&r, 0xf4, 0);
    assert_int_equal(s.status, 1);
    dev_out16(&r, 0xf4, 0x10);
    assert_int_equal(s.status, 0x21);
    dev_out32(&r, 0xf4, 3);
    assert_int_equal(s.status, 7);
    assert_int_equal(s.exits, 3);
    dev_in8(&r, 0xf4);
    assert_int_equal(s.exits, 3);
    exit_port_fini(&port);
    dev_out8(&r, 0xf4, 0);
    assert_int_equal(s.exits, 3);
    dev_rig_fini(&r);
}

static void test_exit_port_anywhere(void **state)
{
    static const uint16_t ports[] = { 0x501, 0xffff, 0xfffe, 0x2001 };
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct dev_rig r;
        struct exit_port port;
        struct seen s = { 0 };
        dev_rig_init(&r);
        exit_port_init(&port, r.bus, ports[i], on_exit_write, &s);
        dev_out8(&r, ports[i], 5);
        assert_int_equal(s.exits, 1);
        assert_int_equal(s.status, 11);
        dev_rig_fini(&r);
    }
}

static void test_debugcon(void **state)
{
    struct dev_rig r;
    struct debugcon con[2];
    struct seen s = { 0 };
    struct char_backend backend = { on_text, NULL, &s };
    (void)state;
    dev_rig_init(&r);
    debugcon_init(&con[0], r.bus, 0xe9, &backend);
    debugcon_init(&con[1], r.bus, 0x402, &backend);
    assert_int_equal(dev_in8(&r, 0xe9), 0xe9);
    assert_int_equal(dev_in8(&r, 0x402), 0xe9);
    dev_out8(&r, 0xe9, 'o');
    dev_out8(&r, 0x402, 'k');
    assert_int_equal(s.len, 2);
    assert_memory_equal(s.text, "ok", 2);
    debugcon_fini(&con[0]);
    debugcon_fini(&con[1]);
    dev_rig_fini(&r);
}

static void test_post_code(void **state)
{
    struct dev_rig r;
    struct post_port port;
    (void)state;
    dev_rig_init(&r);
    post_port_init(&port, r.bus);
    dev_out8(&r, 0x80, 0x42);
    assert_int_equal(dev_in8(&r, 0x80), 0x42);
    dev_roundtrip(r.bus, r.clock);
    assert_int_equal(port.code, 0x42);
    post_port_fini(&port);
    dev_rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_port),
        cmocka_unit_test(test_exit_port_anywhere),
        cmocka_unit_test(test_debugcon),
        cmocka_unit_test(test_post_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
