/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/uart16550.h"

#define COM1 0x3f8
#define CHAR_NS (10 * 1000000000ull / 115200) /* 8n1 at divisor 1 */

struct fix {
    struct dev_rig rig;
    struct uart uart;
    struct dev_line line;
    char out[256];
    size_t out_len;
    const char *feed; /* given whenever there is room */
    unsigned ready_calls;
};

static void on_write(void *ctx, const uint8_t *data, size_t len)
{
    struct fix *f = ctx;
    assert_true(f->out_len + len < sizeof f->out);
    memcpy(f->out + f->out_len, data, len);
    f->out_len += len;
}

static void feed(struct fix *f)
{
    size_t len = strlen(f->feed);
    f->feed += uart_input(&f->uart, (const uint8_t *)f->feed, len);
}

static void on_ready(void *ctx)
{
    struct fix *f = ctx;
    f->ready_calls++;
    if (f->feed != NULL) {
        feed(f);
    }
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct irq irq = dev_line_irq(&f->line);
    struct char_backend backend = { on_write, on_ready, f };
    uart_init(&f->uart, f->rig.bus, "uart.0", COM1, &irq, f->rig.clock, &backend);
    dev_out8(&f->rig, COM1 + 3, 0x80);
    dev_out8(&f->rig, COM1 + 0, 1);
    dev_out8(&f->rig, COM1 + 1, 0);
    dev_out8(&f->rig, COM1 + 3, 0x03);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    uart_fini(&f->uart);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static uint8_t in(struct fix *f, unsigned reg) { return dev_in8(&f->rig, COM1 + reg); }
static void out(struct fix *f, unsigned reg, uint8_t v) { dev_out8(&f->rig, COM1 + reg, v); }

static size_t input(struct fix *f, const char *text)
{
    return uart_input(&f->uart, (const uint8_t *)text, strlen(text));
}

static void test_reset_values(void **state)
{
    struct fix *f = *state;
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_int_equal(in(f, 1), 0);
    assert_int_equal(in(f, 2), 0x01);
    assert_int_equal(in(f, 3), 0);
    assert_int_equal(in(f, 4), 0);
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 6), 0xb0);
}

static void test_registers_keep(void **state)
{
    struct fix *f = *state;
    out(f, 7, 0xa5);
    assert_int_equal(in(f, 7), 0xa5);
    out(f, 1, 0xff);
    assert_int_equal(in(f, 1), 0x0f);
    out(f, 4, 0xff);
    assert_int_equal(in(f, 4), 0x1f);
    out(f, 4, 0);
    out(f, 3, 0x83);
    out(f, 0, 0x34);
    out(f, 1, 0x12);
    assert_int_equal(in(f, 0), 0x34);
    assert_int_equal(in(f, 1), 0x12);
    out(f, 3, 0x03);
    assert_int_equal(in(f, 1), 0x0f);
    /* LSR and MSR cannot be written. */
    out(f, 5, 0xff);
    out(f, 6, 0xff);
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 6) & 0xf0, 0xb0);
}

static void test_output(void **state)
{
    struct fix *f = *state;
    out(f, 0, 'h');
    out(f, 0, 'i');
    assert_int_equal(f->out_len, 2);
    assert_memory_equal(f->out, "hi", 2);
    assert_int_equal(in(f, 5), 0x60);
}

static void test_transmitter_interrupt(void **state)
{
    struct fix *f = *state;
    out(f, 1, 0x02); /* enabled while empty: at once */
    assert_int_equal(f->line.level, 1);
    assert_int_equal(in(f, 2), 0x02);
    assert_int_equal(f->line.level, 0); /* reading IIR took it back */
    assert_int_equal(in(f, 2), 0x01);
    unsigned rises = f->line.rises;
    out(f, 0, 'x');
    out(f, 0, 'y');
    assert_int_equal(f->line.rises, rises + 2); /* an edge for each */
    out(f, 1, 0);
    assert_int_equal(f->line.level, 0);
    out(f, 1, 0x02); /* off and on asks again: drivers test for this */
    assert_int_equal(f->line.level, 1);
}

static void test_receive_without_fifos(void **state)
{
    struct fix *f = *state;
    out(f, 1, 0x01);
    assert_int_equal(input(f, "abc"), 1);
    assert_int_equal(f->line.level, 1);
    assert_int_equal(in(f, 2), 0x04);
    assert_int_equal(in(f, 5) & 0x01, 1);
    assert_int_equal(in(f, 0), 'a');
    assert_int_equal(f->ready_calls, 1);
    assert_int_equal(f->line.level, 0);
    assert_int_equal(in(f, 5) & 0x01, 0);
    assert_int_equal(in(f, 0), 'a'); /* the buffer shows what was last in it */
}

static void test_fifo_trigger(void **state)
{
    static const struct {
        uint8_t fcr;
        unsigned level;
    } rows[] = { { 0x01, 1 }, { 0x41, 4 }, { 0x81, 8 }, { 0xc1, 14 } };
    struct fix *f = *state;
    for (unsigned i = 0; i < 4; i++) {
        out(f, 2, 0);
        out(f, 2, rows[i].fcr);
        assert_int_equal(in(f, 2), 0xc1);
        out(f, 1, 0x01);
        for (unsigned n = 1; n <= 16; n++) {
            assert_int_equal(input(f, "z"), 1);
            assert_int_equal(f->line.level, n >= rows[i].level);
        }
        assert_int_equal(input(f, "z"), 0);
        for (unsigned n = 16; n > 0; n--) {
            assert_int_equal(f->line.level, n >= rows[i].level);
            assert_int_equal(in(f, 0), 'z');
        }
        assert_int_equal(f->line.level, 0);
    }
}

static void test_character_timeout(void **state)
{
    struct fix *f = *state;
    out(f, 2, 0xc1);
    out(f, 1, 0x01);
    input(f, "ab");
    dev_step(&f->rig, 3 * CHAR_NS);
    assert_int_equal(f->line.level, 0);
    dev_step(&f->rig, CHAR_NS + 10);
    assert_int_equal(f->line.level, 1);
    assert_int_equal(in(f, 2), 0xcc);
    assert_int_equal(in(f, 0), 'a'); /* takes it back, and starts over for the rest */
    assert_int_equal(f->line.level, 0);
    dev_step(&f->rig, 4 * CHAR_NS + 10);
    assert_int_equal(in(f, 2), 0xcc);
    assert_int_equal(in(f, 0), 'b');
    dev_step(&f->rig, 100 * CHAR_NS);
    assert_int_equal(f->line.level, 0);
}

static void test_flow_control(void **state)
{
    static const char text[] = "The quick brown fox jumps over the lazy dog";
    struct fix *f = *state;
    char got[sizeof text] = "";
    f->feed = text;
    out(f, 2, 0x81);
    feed(f);
    for (size_t n = 0; in(f, 5) & 1;) {
        got[n++] = (char)in(f, 0);
    }
    assert_string_equal(got, text);
    assert_int_equal(in(f, 5) & 0x02, 0);
}

static void test_loopback(void **state)
{
    struct fix *f = *state;
    in(f, 6);
    out(f, 4, 0x10);
    assert_int_equal(in(f, 6), 0x0b); /* CTS, DSR, DCD went away */
    out(f, 4, 0x1f);
    assert_int_equal(in(f, 6), 0xfb); /* ring has no leading edge */
    out(f, 4, 0x1b);
    assert_int_equal(in(f, 6), 0xb4); /* only a trailing one */
    out(f, 0, 0xae);
    assert_int_equal(f->out_len, 0);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 0), 0xae);
    out(f, 3, 0x00); /* five bits */
    out(f, 0, 0xff);
    assert_int_equal(in(f, 0), 0x1f);
    assert_int_equal(input(f, "k"), 0); /* nothing gets in from outside */
    out(f, 4, 0x00);
    assert_int_equal(f->ready_calls, 1);
    assert_int_equal(input(f, "k"), 1);
}

static void test_modem_status_interrupt(void **state)
{
    struct fix *f = *state;
    in(f, 6);
    out(f, 4, 0x13);
    in(f, 6);
    out(f, 1, 0x08);
    assert_int_equal(f->line.level, 0);
    out(f, 4, 0x11);
    assert_int_equal(in(f, 2), 0x00);
    assert_int_equal(f->line.level, 1);
    assert_int_equal(in(f, 6) & 0x01, 0x01);
    assert_int_equal(f->line.level, 0);
}

static void test_overrun(void **state)
{
    struct fix *f = *state;
    out(f, 1, 0x04);
    out(f, 4, 0x10);
    out(f, 0, 'a');
    out(f, 0, 'b'); /* without FIFOs the new one wins */
    assert_int_equal(in(f, 2), 0x06);
    assert_int_equal(in(f, 5), 0x63);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(f->line.level, 0);
    assert_int_equal(in(f, 0), 'b');
    out(f, 2, 0x01);
    for (int i = 0; i < 17; i++) {
        out(f, 0, (uint8_t)('a' + i)); /* with them the old ones stay */
    }
    assert_int_equal(in(f, 5), 0x63);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(in(f, 0), 'a' + i);
    }
    assert_int_equal(in(f, 5), 0x60);
}

static void test_break(void **state)
{
    struct fix *f = *state;
    out(f, 2, 0x01);
    out(f, 1, 0x05);
    input(f, "a");
    uart_input_break(&f->uart);
    /* The error shows when its character comes up; bit 7 tells that there is one. */
    assert_int_equal(in(f, 5), 0xe1);
    assert_int_equal(in(f, 0), 'a');
    assert_int_equal(in(f, 2), 0xc6);
    assert_int_equal(in(f, 5), 0xf9);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 0), 0);
    /* Sent in loopback, it comes back. */
    out(f, 4, 0x10);
    out(f, 3, 0x43);
    assert_int_equal(in(f, 5) & 0x11, 0x11);
}

static void test_fifo_reset(void **state)
{
    struct fix *f = *state;
    out(f, 2, 0x01);
    input(f, "abc");
    out(f, 2, 0x03);
    assert_int_equal(in(f, 5), 0x60);
    input(f, "abc");
    out(f, 2, 0x00); /* a change of mode empties them, too */
    assert_int_equal(in(f, 5), 0x60);
    out(f, 2, 0xc6); /* the other bits count only with bit 0 */
    assert_int_equal(in(f, 2), 0x01);
}

static void test_priorities(void **state)
{
    struct fix *f = *state;
    out(f, 4, 0x10);
    out(f, 0, 'a');
    out(f, 0, 'b');
    out(f, 1, 0x0f);
    assert_int_equal(in(f, 2), 0x06);
    in(f, 5);
    assert_int_equal(in(f, 2), 0x04);
    in(f, 0);
    assert_int_equal(in(f, 2), 0x02);
    assert_int_equal(in(f, 2), 0x00);
    in(f, 6);
    assert_int_equal(in(f, 2), 0x01);
}

static void test_save_load_save(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x5eed;
    for (int i = 0; i < 3000; i++) {
        uint64_t r = test_random(&seed);
        out(f, (unsigned)(r >> 8 & 7), (uint8_t)(r >> 16));
        f->out_len = 0;
        if (r & 1) {
            in(f, (unsigned)(r >> 24 & 7));
        }
        if ((r >> 32 & 3) == 0) {
            input(f, "some text");
        }
        if ((r >> 34 & 7) == 0) {
            dev_step(&f->rig, r >> 40);
        }
        if (i % 16 == 0) {
            int level = f->line.level;
            dev_roundtrip(f->rig.bus, f->rig.clock);
            assert_int_equal(f->line.level, level);
        }
    }
}

static void test_bad_state(void **state)
{
    struct fix *f = *state;
    struct err e = { "" };
    size_t len;
    f->uart.rx_count = 17;
    uint8_t *data = dev_save(f->rig.bus, &len);
    f->uart.rx_count = 0;
    assert_int_equal(dev_load(f->rig.bus, data, len, &e), -22);
    assert_non_null(strstr(e.msg, "uart.0"));
    f->uart.rx_count = 0;
    free(data);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset_values),
        TEST(test_registers_keep),
        TEST(test_output),
        TEST(test_transmitter_interrupt),
        TEST(test_receive_without_fifos),
        TEST(test_fifo_trigger),
        TEST(test_character_timeout),
        TEST(test_flow_control),
        TEST(test_loopback),
        TEST(test_modem_status_interrupt),
        TEST(test_overrun),
        TEST(test_break),
        TEST(test_fifo_reset),
        TEST(test_priorities),
        TEST(test_save_load_save),
        TEST(test_bad_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
