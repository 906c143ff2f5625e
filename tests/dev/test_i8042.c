/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "base/bits.h"
#include "dev/pc/i8042.h"

struct fix {
    struct dev_rig rig;
    struct i8042 kbc;
    struct dev_line irq1;
    struct dev_line irq12;
    struct dev_line a20;
    struct dev_line reset;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct irq irq1 = dev_line_irq(&f->irq1);
    struct irq irq12 = dev_line_irq(&f->irq12);
    struct irq a20 = dev_line_irq(&f->a20);
    struct irq reset = dev_line_irq(&f->reset);
    i8042_init(&f->kbc, f->rig.bus, &irq1, &irq12, &a20, &reset);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    i8042_fini(&f->kbc);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static uint8_t status(struct fix *f) { return dev_in8(&f->rig, 0x64); }
static void command(struct fix *f, uint8_t v) { dev_out8(&f->rig, 0x64, v); }
static void data(struct fix *f, uint8_t v) { dev_out8(&f->rig, 0x60, v); }

static void set_command_byte(struct fix *f, uint8_t v)
{
    command(f, 0x60);
    data(f, v);
}

static uint8_t next(struct fix *f)
{
    assert_int_equal(status(f) & 0x01, 1);
    return dev_in8(&f->rig, 0x60);
}

static void expect(struct fix *f, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(next(f), bytes[i]);
    }
    assert_int_equal(status(f) & 0x01, 0);
}
#define EXPECT(f, ...)                                                                             \
    expect(f, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void mouse(struct fix *f, uint8_t byte)
{
    command(f, 0xd4);
    data(f, byte);
}

static void test_controller(void **state)
{
    struct fix *f = *state;
    assert_int_equal(status(f), 0x14);
    command(f, 0xaa);
    assert_int_equal(status(f), 0x1d);
    EXPECT(f, 0x55);
    command(f, 0xa4); /* no password */
    EXPECT(f, 0xf1);
    command(f, 0xab);
    EXPECT(f, 0);
    command(f, 0xa9);
    EXPECT(f, 0);
    command(f, 0xc0);
    EXPECT(f, 0x80);
    command(f, 0x20);
    EXPECT(f, 0x65);
    set_command_byte(f, 0x47);
    assert_int_equal(status(f) & 0x08, 0); /* the last write was data */
    command(f, 0x20);
    EXPECT(f, 0x47);
    command(f, 0x7f);
    data(f, 0x99);
    command(f, 0x3f);
    EXPECT(f, 0x99);
    command(f, 0xad);
    command(f, 0xa7);
    command(f, 0x20);
    EXPECT(f, 0x77);
    command(f, 0xae);
    command(f, 0xa8);
    command(f, 0x20);
    EXPECT(f, 0x47);
}

static void test_output_port(void **state)
{
    struct fix *f = *state;
    assert_int_equal(f->a20.level, 1);
    command(f, 0xd0);
    EXPECT(f, 0xc3);
    command(f, 0xd1);
    data(f, 0xdd);
    assert_int_equal(f->a20.level, 0);
    command(f, 0xd1);
    data(f, 0xdf);
    assert_int_equal(f->a20.level, 1);
    command(f, 0xdd);
    assert_int_equal(f->a20.level, 0);
    command(f, 0xdf);
    assert_int_equal(f->a20.level, 1);
    assert_int_equal(f->reset.rises, 0);
    command(f, 0xd1);
    data(f, 0xde);
    assert_int_equal(f->reset.rises, 1);
    command(f, 0xfe);
    assert_int_equal(f->reset.rises, 2);
    command(f, 0xff); /* pulses nothing */
    command(f, 0xf1);
    assert_int_equal(f->reset.rises, 2);
    command(f, 0xf0);
    assert_int_equal(f->reset.rises, 3);
    command(f, 0xdd);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(f->a20.level, 0);
}

static void test_interrupts(void **state)
{
    struct fix *f = *state;
    i8042_key(&f->kbc, 0x1e, true);
    i8042_key(&f->kbc, 0x1e, false);
    assert_int_equal(f->irq1.level, 1);
    assert_int_equal(f->irq1.rises, 1);
    EXPECT(f, 0x1e, 0x9e);
    assert_int_equal(f->irq1.rises, 2); /* an edge for each byte */
    assert_int_equal(f->irq1.level, 0);
    command(f, 0xd3);
    data(f, 0x42);
    assert_int_equal(f->irq12.level, 0); /* its interrupt is off */
    assert_int_equal(status(f) & 0x21, 0x21);
    EXPECT(f, 0x42);
    set_command_byte(f, 0x47);
    command(f, 0xd3);
    data(f, 0x43);
    assert_int_equal(f->irq12.level, 1);
    EXPECT(f, 0x43);
    assert_int_equal(f->irq12.level, 0);
    command(f, 0xd2);
    data(f, 0x44);
    assert_int_equal(status(f) & 0x21, 0x01);
    EXPECT(f, 0x44);
}

static void test_keyboard_off_holds_keys(void **state)
{
    struct fix *f = *state;
    command(f, 0xad);
    i8042_key(&f->kbc, 0x02, true);
    assert_int_equal(status(f) & 1, 0);
    command(f, 0xae);
    EXPECT(f, 0x02);
    command(f, 0xad);
    data(f, 0xee); /* speaking to it enables it */
    EXPECT(f, 0xee);
    command(f, 0x20);
    EXPECT(f, 0x65);
}

/* The controller answers at once, a key that is in the way is not lost. */
static void test_reply_before_key(void **state)
{
    struct fix *f = *state;
    i8042_key(&f->kbc, 0x1e, true);
    i8042_key(&f->kbc, 0x1e, false);
    command(f, 0x20);
    EXPECT(f, 0x65, 0x1e, 0x9e);
    i8042_key(&f->kbc, 0x30, false);
    command(f, 0xaa);
    EXPECT(f, 0x55, 0xb0);
    set_command_byte(f, 0x05); /* without translation */
    i8042_key(&f->kbc, 0x30, false);
    assert_int_equal(next(f), 0xf0);
    command(f, 0xaa);
    EXPECT(f, 0x55, 0x32);
    set_command_byte(f, 0x47);
    mouse(f, 0xf2);
    command(f, 0xaa);
    EXPECT(f, 0x55, 0xfa, 0x00);
}

static void test_scan_code_sets(void **state)
{
    struct fix *f = *state;
    set_command_byte(f, 0x05);
    data(f, 0xf0);
    data(f, 0x00);
    EXPECT(f, 0xfa, 0xfa, 0x02);
    i8042_key(&f->kbc, 0x1e, true);
    i8042_key(&f->kbc, 0x1e, false);
    EXPECT(f, 0x1c, 0xf0, 0x1c);
    i8042_key(&f->kbc, 0xc8, true);
    i8042_key(&f->kbc, 0xc8, false);
    EXPECT(f, 0xe0, 0x75, 0xe0, 0xf0, 0x75);
    i8042_key(&f->kbc, 0x41, true);
    EXPECT(f, 0x83);
    i8042_key(&f->kbc, PS2_KEY_PRINT, true);
    i8042_key(&f->kbc, PS2_KEY_PRINT, false);
    EXPECT(f, 0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12);
    i8042_key(&f->kbc, PS2_KEY_PAUSE, true);
    i8042_key(&f->kbc, PS2_KEY_PAUSE, false);
    EXPECT(f, 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77);
    data(f, 0xf0);
    data(f, 0x01);
    EXPECT(f, 0xfa, 0xfa);
    i8042_key(&f->kbc, 0xc8, true);
    i8042_key(&f->kbc, 0xc8, false);
    EXPECT(f, 0xe0, 0x48, 0xe0, 0xc8);
    data(f, 0xf0);
    data(f, 0x03);
    EXPECT(f, 0xfa, 0xfa);
    i8042_key(&f->kbc, 0xc8, true);
    i8042_key(&f->kbc, 0xc8, false);
    i8042_key(&f->kbc, 0x1d, true);
    EXPECT(f, 0x63, 0xf0, 0x63, 0x11);
    data(f, 0xfd); /* this key makes, but does not break */
    data(f, 0x63);
    EXPECT(f, 0xfa, 0xfa);
    data(f, 0xf4);
    EXPECT(f, 0xfa);
    i8042_key(&f->kbc, 0xc8, false);
    i8042_key(&f->kbc, 0x1e, false);
    EXPECT(f, 0xf0, 0x1c);
    data(f, 0xf0);
    data(f, 0x04);
    EXPECT(f, 0xfa, 0xfe);
}

static void stroke(struct fix *f, unsigned key)
{
    i8042_key(&f->kbc, key, true);
    i8042_key(&f->kbc, key, false);
}

static void set_leds(struct fix *f, uint8_t leds)
{
    data(f, 0xed);
    data(f, leds);
    EXPECT(f, 0xfa, 0xfa);
}

/* The tables of the reference: NumLock on, Shift held, both; the right Shift, two of them. */
static void test_shifts_around_cursor_keys(void **state)
{
    struct fix *f = *state;
    set_command_byte(f, 0x05);
    set_leds(f, PS2_LED_NUM);
    stroke(f, 0xd2);
    EXPECT(f, 0xe0, 0x12, 0xe0, 0x70, 0xe0, 0xf0, 0x70, 0xe0, 0xf0, 0x12);
    stroke(f, 0xb5); /* has nothing to do with NumLock */
    EXPECT(f, 0xe0, 0x4a, 0xe0, 0xf0, 0x4a);
    stroke(f, 0x52); /* nor has the keypad itself */
    EXPECT(f, 0x70, 0xf0, 0x70);
    i8042_key(&f->kbc, 0x2a, true);
    EXPECT(f, 0x12);
    stroke(f, 0xd2);
    EXPECT(f, 0xe0, 0x70, 0xe0, 0xf0, 0x70);
    set_leds(f, 0);
    stroke(f, 0xd2);
    EXPECT(f, 0xe0, 0xf0, 0x12, 0xe0, 0x70, 0xe0, 0xf0, 0x70, 0xe0, 0x12);
    stroke(f, 0xb5);
    EXPECT(f, 0xe0, 0xf0, 0x12, 0xe0, 0x4a, 0xe0, 0xf0, 0x4a, 0xe0, 0x12);
    i8042_key(&f->kbc, 0x36, true);
    EXPECT(f, 0x59);
    stroke(f, 0xcb);
    EXPECT(f, 0xe0, 0xf0, 0x12, 0xe0, 0xf0, 0x59, 0xe0, 0x6b, /* eight: as much as there may be */
           0xe0, 0xf0, 0x6b, 0xe0, 0x12, 0xe0, 0x59);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    i8042_key(&f->kbc, 0x2a, false);
    EXPECT(f, 0xf0, 0x12);
    set_command_byte(f, 0x45);
    stroke(f, 0xc8);
    EXPECT(f, 0xe0, 0xb6, 0xe0, 0x48, 0xe0, 0xc8, 0xe0, 0x36);
    data(f, 0xff); /* forgets what is held, as the guest does */
    EXPECT(f, 0xfa, 0xaa);
    stroke(f, 0xc8);
    EXPECT(f, 0xe0, 0x48, 0xe0, 0xc8);
}

static void test_print_and_pause(void **state)
{
    struct fix *f = *state;
    i8042_key(&f->kbc, 0x9d, true);
    EXPECT(f, 0xe0, 0x1d);
    stroke(f, PS2_KEY_PRINT);
    EXPECT(f, 0xe0, 0x37, 0xe0, 0xb7);
    stroke(f, PS2_KEY_PAUSE); /* Break */
    EXPECT(f, 0xe0, 0x46, 0xe0, 0xc6);
    i8042_key(&f->kbc, 0x9d, false);
    EXPECT(f, 0xe0, 0x9d);
    i8042_key(&f->kbc, 0x38, true);
    EXPECT(f, 0x38);
    stroke(f, PS2_KEY_PRINT); /* SysRq */
    EXPECT(f, 0x54, 0xd4);
    i8042_key(&f->kbc, 0x38, false);
    EXPECT(f, 0xb8);
    stroke(f, PS2_KEY_PRINT);
    EXPECT(f, 0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa);
}

/* Every key that set 1 has comes out of set 2 by translation. */
static void test_translation(void **state)
{
    struct fix *f = *state;
    for (unsigned key = 1; key < 0x59; key++) {
        i8042_key(&f->kbc, key, true);
        i8042_key(&f->kbc, key, false);
        EXPECT(f, (uint8_t)key, (uint8_t)(key | 0x80));
        if (key == (PS2_KEY_PAUSE & 0x7f) || key == (PS2_KEY_PRINT & 0x7f)) {
            continue;
        }
        i8042_key(&f->kbc, key | PS2_KEY_EXTENDED, true);
        i8042_key(&f->kbc, key | PS2_KEY_EXTENDED, false);
        EXPECT(f, 0xe0, (uint8_t)key, 0xe0, (uint8_t)(key | 0x80));
    }
    i8042_key(&f->kbc, PS2_KEY_PAUSE, true);
    EXPECT(f, 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
    data(f, 0xf2);
    EXPECT(f, 0xfa, 0xab, 0x41); /* what drivers know a translated keyboard by */
}

static void test_keyboard_commands(void **state)
{
    struct fix *f = *state;
    data(f, 0xff);
    EXPECT(f, 0xfa, 0xaa);
    data(f, 0xed);
    data(f, 0x05);
    EXPECT(f, 0xfa, 0xfa);
    assert_int_equal(f->kbc.keyboard.leds, 5);
    data(f, 0xf3);
    data(f, 0x20);
    EXPECT(f, 0xfa, 0xfa);
    data(f, 0xf5);
    EXPECT(f, 0xfa);
    i8042_key(&f->kbc, 0x1e, true); /* not scanning */
    assert_int_equal(status(f) & 1, 0);
    data(f, 0xf4);
    EXPECT(f, 0xfa);
    i8042_key(&f->kbc, 0x1e, true);
    EXPECT(f, 0x1e);
    data(f, 0xfe);
    EXPECT(f, 0x1e);
    data(f, 0x12);
    EXPECT(f, 0xfe);
    data(f, 0xed); /* a command where an argument should be */
    data(f, 0xee);
    EXPECT(f, 0xfa, 0xee);
}

static void test_keyboard_overrun(void **state)
{
    struct fix *f = *state;
    unsigned bytes = 0;
    uint8_t last = 0;
    for (unsigned i = 0; i < 100; i++) {
        i8042_key(&f->kbc, 0x1e, true);
    }
    while (status(f) & 1) {
        last = dev_in8(&f->rig, 0x60);
        bytes++;
    }
    assert_int_equal(last, 0xff); /* set 2's 0x00, translated */
    assert_int_equal(bytes, 18);  /* one in the controller, 16 keys, the overrun */
    i8042_key(&f->kbc, 0x1e, false);
    EXPECT(f, 0x9e);
}

static void test_mouse(void **state)
{
    struct fix *f = *state;
    set_command_byte(f, 0x47);
    mouse(f, 0xff);
    EXPECT(f, 0xfa, 0xaa, 0x00);
    i8042_mouse(&f->kbc, 5, 5, 0, 0); /* nobody asked */
    assert_int_equal(status(f) & 1, 0);
    mouse(f, 0xf4);
    EXPECT(f, 0xfa);
    i8042_mouse(&f->kbc, 5, 3, 0, PS2_BUTTON_LEFT);
    assert_int_equal(status(f) & 0x21, 0x21);
    assert_int_equal(f->irq12.level, 1);
    EXPECT(f, 0x29, 0x05, 0xfd);
    i8042_mouse(&f->kbc, -1, 0, 0, PS2_BUTTON_LEFT | PS2_BUTTON_MIDDLE);
    EXPECT(f, 0x1d, 0xff, 0x00);
    i8042_mouse(&f->kbc, 0, 0, 0, PS2_BUTTON_LEFT | PS2_BUTTON_MIDDLE); /* nothing new */
    assert_int_equal(status(f) & 1, 0);
    i8042_mouse(&f->kbc, 300, 0, 0, 0); /* more than nine bits hold */
    EXPECT(f, 0x08, 0xff, 0x00, 0x08, 45, 0x00);
    mouse(f, 0xe9);
    EXPECT(f, 0xfa, 0x20, 0x02, 100);
    mouse(f, 0xe8);
    EXPECT(f, 0xfa);
    mouse(f, 0x04);
    EXPECT(f, 0xfe);
    mouse(f, 0xe8);
    EXPECT(f, 0xfa);
    mouse(f, 0x03);
    EXPECT(f, 0xfa);
    mouse(f, 0x77);
    EXPECT(f, 0xfe);
}

static void knock(struct fix *f, uint8_t a, uint8_t b, uint8_t c)
{
    const uint8_t rates[3] = { a, b, c };
    for (unsigned i = 0; i < 3; i++) {
        mouse(f, 0xf3);
        EXPECT(f, 0xfa);
        mouse(f, rates[i]);
        EXPECT(f, 0xfa);
    }
}

static void test_wheel(void **state)
{
    struct fix *f = *state;
    set_command_byte(f, 0x47);
    mouse(f, 0xf2);
    EXPECT(f, 0xfa, 0);
    knock(f, 200, 100, 80);
    mouse(f, 0xf2);
    EXPECT(f, 0xfa, 3);
    mouse(f, 0xf4);
    EXPECT(f, 0xfa);
    i8042_mouse(&f->kbc, 0, 0, -1, 0);
    EXPECT(f, 0x08, 0, 0, 0xff);
    knock(f, 200, 200, 80);
    mouse(f, 0xf2);
    EXPECT(f, 0xfa, 4);
    i8042_mouse(&f->kbc, 0, 0, 1, PS2_BUTTON_4);
    EXPECT(f, 0x08, 0, 0, 0x11);
    mouse(f, 0xff);
    EXPECT(f, 0xfa, 0xaa, 0);
}

static void test_mouse_modes(void **state)
{
    struct fix *f = *state;
    set_command_byte(f, 0x47);
    mouse(f, 0xf0);
    EXPECT(f, 0xfa);
    i8042_mouse(&f->kbc, 7, 0, 0, 0);
    assert_int_equal(status(f) & 1, 0);
    mouse(f, 0xeb);
    EXPECT(f, 0xfa, 0x08, 7, 0);
    mouse(f, 0xea);
    EXPECT(f, 0xfa);
    mouse(f, 0xee);
    EXPECT(f, 0xfa);
    mouse(f, 0xf4);
    EXPECT(f, 0xf4); /* echo */
    mouse(f, 0xec);
    EXPECT(f, 0xfa);
    mouse(f, 0xe7);
    EXPECT(f, 0xfa);
    mouse(f, 0xf4);
    EXPECT(f, 0xfa);
    i8042_mouse(&f->kbc, 3, -6, 0, 0);
    EXPECT(f, 0x08, 3, 12);
    i8042_mouse(&f->kbc, -5, 0, 0, 0);
    EXPECT(f, 0x18, (uint8_t)-9, 0);
}

/* Motion that nobody fetches adds up, and is not lost. */
static void test_mouse_accumulates(void **state)
{
    struct fix *f = *state;
    int sum = 0;
    set_command_byte(f, 0x47);
    mouse(f, 0xf4);
    EXPECT(f, 0xfa);
    for (unsigned i = 0; i < 1000; i++) {
        i8042_mouse(&f->kbc, 2, 0, 0, 0);
    }
    while (status(f) & 1) {
        uint8_t flags = next(f);
        sum += next(f) - (flags & 0x10 ? 256 : 0);
        next(f);
    }
    assert_int_equal(sum, 2000);
}

static void test_save_load_save(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x8042;
    for (int i = 0; i < 20000; i++) {
        uint64_t r = test_random(&seed);
        uint8_t byte = (uint8_t)(r >> 8);
        switch (r & 7) {
        case 0:
            command(f, byte);
            break;
        case 1:
            data(f, byte);
            break;
        case 2:
            mouse(f, byte);
            break;
        case 3:
            i8042_key(&f->kbc, byte, r >> 16 & 1);
            break;
        case 4:
            i8042_mouse(&f->kbc, (int8_t)byte, (int8_t)(r >> 24), (int8_t)(r >> 32), r >> 40 & 31);
            break;
        default:
            dev_in8(&f->rig, 0x60);
            break;
        }
        if (i % 16 == 0) {
            int levels[3] = { f->irq1.level, f->irq12.level, f->a20.level };
            dev_roundtrip(f->rig.bus, f->rig.clock);
            assert_int_equal(f->irq1.level, levels[0]);
            assert_int_equal(f->irq12.level, levels[1]);
            assert_int_equal(f->a20.level, levels[2]);
        }
    }
}

static void test_bad_state(void **state)
{
    struct fix *f = *state;
    struct err e = { "" };
    size_t len;
    f->kbc.keyboard.out.count = 33;
    uint8_t *image = dev_save(f->rig.bus, &len);
    f->kbc.keyboard.out.count = 0;
    assert_int_equal(dev_load(f->rig.bus, image, len, &e), -22);
    assert_non_null(strstr(e.msg, "i8042"));
    f->kbc.keyboard.out.count = 0;
    free(image);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_controller),
        TEST(test_output_port),
        TEST(test_interrupts),
        TEST(test_keyboard_off_holds_keys),
        TEST(test_reply_before_key),
        TEST(test_scan_code_sets),
        TEST(test_shifts_around_cursor_keys),
        TEST(test_print_and_pause),
        TEST(test_translation),
        TEST(test_keyboard_commands),
        TEST(test_keyboard_overrun),
        TEST(test_mouse),
        TEST(test_wheel),
        TEST(test_mouse_modes),
        TEST(test_mouse_accumulates),
        TEST(test_save_load_save),
        TEST(test_bad_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
