/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: bus mem state base
#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "bus/bus.h"

/* A device of 64 bytes that notes each access. */
struct mock {
    uint8_t byte[64];
    struct {
        bool write;
        uint64_t offset;
        unsigned size;
        uint64_t value;
    } log[32];
    unsigned count;
};

static void note(struct mock *m, bool write, uint64_t offset, unsigned size, uint64_t value)
{
    assert_true(m->count < ARRAY_LEN(m->log));
    m->log[m->count].write = write;
    m->log[m->count].offset = offset;
    m->log[m->count].size = size;
    m->log[m->count++].value = value;
}

static uint64_t mock_read(void *dev, uint64_t offset, unsigned size)
{
    struct mock *m = dev;
    note(m, false, offset, size, 0);
    uint64_t v = 0;
    memcpy(&v, m->byte + offset % 64, size);
    return v | (size < 8 ? ~MASK64(8 * size) : 0); /* rubbish above must not come through */
}

static void mock_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct mock *m = dev;
    note(m, true, offset, size, value);
    memcpy(m->byte + offset % 64, &value, size);
}

static const struct region_ops ops1 = { .read = mock_read, .write = mock_write, .sizes = ACCESS_1 };
static const struct region_ops ops4 = { .read = mock_read, .write = mock_write, .sizes = ACCESS_4 };
static const struct region_ops ops124 = { .read = mock_read,
                                          .write = mock_write,
                                          .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 };
static const struct region_ops ops48 = { .read = mock_read,
                                         .write = mock_write,
                                         .sizes = ACCESS_4 | ACCESS_8 };
static const struct region_ops ops_any = {
    .read = mock_read,
    .write = mock_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
    .unaligned = true,
};
static const struct region_ops ops_none = { .sizes = ACCESS_1 | ACCESS_4 };

static void mock_init(struct mock *m)
{
    memset(m, 0, sizeof *m);
    for (unsigned i = 0; i < sizeof m->byte; i++) {
        m->byte[i] = (uint8_t)(0x10 + i);
    }
}

static void expect(const struct mock *m, unsigned i, uint64_t offset, unsigned size)
{
    assert_true(i < m->count);
    assert_int_equal(m->log[i].offset, offset);
    assert_int_equal(m->log[i].size, size);
}

static void nobody_answers(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    assert_int_equal(bus_port_read(b, 0x80, 1), 0xff);
    assert_int_equal(bus_port_read(b, 0x80, 2), 0xffff);
    assert_int_equal(bus_port_read(b, 0xffff, 4), 0xffffffff);
    bus_port_write(b, 0xffff, 4, 0);
    assert_true(bus_mmio_read(b, 0xfec00000, 8) == UINT64_MAX);
    assert_true(bus_mmio_read(b, UINT64_MAX - 3, 8) == UINT64_MAX);
    bus_mmio_write(b, 0, 8, 1);
    bus_free(b);
    bus_free(NULL);
}

static void wide_accesses_are_split(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock m;
    mock_init(&m);
    bus_add_port(b, 0x60, 8, &ops1, &m);
    assert_int_equal(bus_port_read(b, 0x60, 4), 0x13121110);
    assert_int_equal(m.count, 4);
    for (unsigned i = 0; i < 4; i++) {
        expect(&m, i, i, 1);
    }
    m.count = 0;
    bus_port_write(b, 0x62, 2, 0xbbaa);
    assert_int_equal(m.count, 2);
    assert_int_equal(m.log[0].value, 0xaa);
    assert_int_equal(m.log[1].value, 0xbb);
    bus_free(b);

    b = bus_new(NULL);
    mock_init(&m);
    bus_add_mmio(b, 0x1000, 64, &ops4, &m);
    assert_true(bus_mmio_read(b, 0x1008, 8) == 0x1f1e1d1c1b1a1918ull);
    expect(&m, 0, 8, 4);
    expect(&m, 1, 12, 4);
    bus_mmio_write(b, 0x1010, 8, 0x1122334455667788ull);
    assert_int_equal(m.log[2].value, 0x55667788);
    assert_int_equal(m.log[3].value, 0x11223344);
    bus_free(b);
}

static void misaligned_accesses_are_split(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock m;
    mock_init(&m);
    bus_add_mmio(b, 0x1000, 64, &ops124, &m);
    assert_int_equal(bus_mmio_read(b, 0x1001, 4), 0x14131211);
    assert_int_equal(m.count, 3); /* 1 + 2 + 1 */
    expect(&m, 0, 1, 1);
    expect(&m, 1, 2, 2);
    expect(&m, 2, 4, 1);
    m.count = 0;
    assert_true(bus_mmio_read(b, 0x1002, 7) == 0x18171615141312ull);
    expect(&m, 0, 2, 2);
    expect(&m, 1, 4, 4);
    expect(&m, 2, 8, 1);
    bus_free(b);

    b = bus_new(NULL);
    mock_init(&m);
    bus_add_mmio(b, 0x1000, 64, &ops_any, &m);
    assert_true(bus_mmio_read(b, 0x1001, 8) == 0x1817161514131211ull);
    assert_int_equal(m.count, 1);
    expect(&m, 0, 1, 8);
    bus_free(b);
}

static void narrow_reads_are_cut_out_and_writes_lost(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock m;
    mock_init(&m);
    bus_add_mmio(b, 0x1000, 64, &ops4, &m);
    assert_int_equal(bus_mmio_read(b, 0x1006, 1), 0x16);
    expect(&m, 0, 4, 4);
    m.count = 0;
    assert_int_equal(bus_mmio_read(b, 0x1002, 4), 0x15141312); /* two dwords, a half of each */
    assert_int_equal(m.count, 2);
    expect(&m, 0, 0, 4);
    expect(&m, 1, 4, 4);
    m.count = 0;
    bus_mmio_write(b, 0x1000, 1, 0);
    bus_mmio_write(b, 0x1002, 2, 0);
    bus_mmio_write(b, 0x1002, 4, 0);
    assert_int_equal(m.count, 0);
    bus_mmio_write(b, 0x1002, 6, 0xccccaaaa1111ull); /* the dword inside is carried */
    assert_int_equal(m.count, 1);
    expect(&m, 0, 4, 4);
    assert_int_equal(m.log[0].value, 0xccccaaaa);
    bus_free(b);

    b = bus_new(NULL);
    mock_init(&m);
    bus_add_mmio(b, 0x1000, 64, &ops48, &m);
    assert_true(bus_mmio_read(b, 0x1004, 8) == 0x1b1a191817161514ull);
    assert_int_equal(m.count, 2); /* not aligned to 8 */
    expect(&m, 0, 4, 4);
    bus_free(b);
}

static void accesses_across_the_end_of_a_region(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock low, high;
    mock_init(&low);
    mock_init(&high);
    bus_add_port(b, 0x3f8, 2, &ops124, &low);
    bus_add_port(b, 0x3fb, 1, &ops124, &high);
    assert_int_equal(bus_port_read(b, 0x3f8, 4), 0x10ff1110);
    expect(&low, 0, 0, 2);
    expect(&high, 0, 0, 1);
    assert_int_equal(bus_port_read(b, 0x3f7, 2), 0x10ff);
    bus_port_write(b, 0x3f9, 4, 0x44332211);
    assert_int_equal(low.byte[1], 0x11);
    assert_int_equal(high.byte[0], 0x33);
    bus_free(b);

    b = bus_new(NULL);
    mock_init(&low);
    bus_add_mmio(b, UINT64_MAX - 3, 4, &ops124, &low);
    assert_true(bus_mmio_read(b, UINT64_MAX - 5, 4) == 0x1110ffff);
    assert_true(bus_mmio_read(b, UINT64_MAX - 3, 8) == 0xffffffff13121110ull);
    bus_free(b);

    b = bus_new(NULL);
    mock_init(&low);
    bus_add_port(b, 0xfffe, 2, &ops124, &low);
    assert_int_equal(bus_port_read(b, 0xfffe, 4), 0xffff1110);
    bus_free(b);
}

static void later_claims_lie_over_earlier(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock under, over;
    mock_init(&under);
    mock_init(&over);
    memset(over.byte, 0xee, sizeof over.byte);
    bus_add_mmio(b, 0x1000, 64, &ops_any, &under);
    struct region *r = bus_add_mmio(b, 0x1008, 8, &ops_any, &over);
    assert_int_equal(bus_mmio_read(b, 0x1007, 1), 0x17);
    assert_int_equal(bus_mmio_read(b, 0x1008, 1), 0xee);
    assert_int_equal(bus_mmio_read(b, 0x100f, 1), 0xee);
    assert_int_equal(bus_mmio_read(b, 0x1010, 1), 0x20);
    region_enable(r, false);
    assert_int_equal(bus_mmio_read(b, 0x1008, 1), 0x18);
    region_enable(r, true);
    region_move(r, 0x1010);
    assert_int_equal(bus_mmio_read(b, 0x1008, 1), 0x18);
    assert_int_equal(bus_mmio_read(b, 0x1010, 1), 0xee);
    region_move(r, 0x1038); /* half of it sticks out */
    assert_int_equal(bus_mmio_read(b, 0x1038, 8), UINT64_MAX & 0xeeeeeeeeeeeeeeeeull);
    region_remove(r);
    assert_int_equal(bus_mmio_read(b, 0x1038, 1), 0x48);
    region_remove(NULL);
    bus_free(b);
}

/* 0xcf8 is a dword port; 0xcf9 within it is the reset register. */
static void the_first_byte_decides(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct mock address, reset;
    mock_init(&address);
    mock_init(&reset);
    bus_add_port(b, 0xcf8, 4, &ops4, &address);
    bus_add_port(b, 0xcf9, 1, &ops1, &reset);
    bus_port_write(b, 0xcf8, 4, 0x80000010);
    assert_int_equal(address.count, 1);
    assert_int_equal(address.log[0].value, 0x80000010);
    assert_int_equal(reset.count, 0);
    bus_port_write(b, 0xcf9, 1, 6);
    assert_int_equal(reset.count, 1);
    assert_int_equal(reset.log[0].value, 6);
    assert_int_equal(address.count, 1);
    bus_free(b);
}

static void handlers_may_be_missing(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    bus_add_port(b, 0x80, 4, &ops_none, NULL);
    assert_int_equal(bus_port_read(b, 0x80, 4), 0xffffffff);
    assert_int_equal(bus_port_read(b, 0x81, 1), 0xff);
    bus_port_write(b, 0x80, 4, 1);
    bus_free(b);
}

static void ports_match_a_model(void **state)
{
    (void)state;
    enum { N = 40 };
    struct bus *b = bus_new(NULL);
    static struct mock m[N];
    struct region *r[N];
    unsigned base[N], size[N];
    bool on[N];
    uint64_t seed = 5;
    for (unsigned i = 0; i < N; i++) {
        mock_init(&m[i]);
        memset(m[i].byte, (int)i, sizeof m[i].byte);
        base[i] = test_random(&seed) % 200;
        size[i] = 1 + test_random(&seed) % 20;
        on[i] = true;
        r[i] = bus_add_port(b, (uint16_t)base[i], size[i], &ops1, &m[i]);
    }
    for (unsigned round = 0; round < 2000; round++) {
        unsigned i = test_random(&seed) % N;
        if (test_random(&seed) % 2) {
            base[i] = test_random(&seed) % 200;
            region_move(r[i], base[i]);
        } else {
            on[i] = !on[i];
            region_enable(r[i], on[i]);
        }
        for (unsigned k = 0; k < 30; k++) {
            unsigned port = test_random(&seed) % 230;
            unsigned want = 0xff;
            for (unsigned j = 0; j < N; j++) {
                m[j].count = 0;
                if (on[j] && port >= base[j] && port < base[j] + size[j]) {
                    want = j;
                }
            }
            assert_int_equal(bus_port_read(b, (uint16_t)port, 1), want);
        }
    }
    bus_free(b);
}

static void mmio_matches_a_model(void **state)
{
    (void)state;
    enum { N = 40 };
    struct bus *b = bus_new(NULL);
    static struct mock m[N];
    struct region *r[N] = { NULL };
    unsigned base[N], size[N], order[N], next = 0;
    uint64_t seed = 6;
    for (unsigned round = 0; round < 3000; round++) {
        unsigned i = test_random(&seed) % N;
        if (r[i] == NULL) {
            mock_init(&m[i]);
            memset(m[i].byte, (int)i, sizeof m[i].byte);
            base[i] = test_random(&seed) % 300;
            size[i] = 1 + test_random(&seed) % 60;
            order[i] = next++;
            r[i] = bus_add_mmio(b, base[i], size[i], &ops_any, &m[i]);
        } else if (test_random(&seed) % 3 == 0) {
            region_remove(r[i]);
            r[i] = NULL;
        } else {
            base[i] = test_random(&seed) % 300;
            region_move(r[i], base[i]);
        }
        for (unsigned k = 0; k < 30; k++) {
            unsigned at = test_random(&seed) % 380;
            int want = -1;
            for (unsigned j = 0; j < N; j++) {
                if (r[j] != NULL) {
                    m[j].count = 0;
                    if (at >= base[j] && at < base[j] + size[j] &&
                        (want < 0 || order[j] > order[want])) {
                        want = (int)j;
                    }
                }
            }
            assert_int_equal(bus_mmio_read(b, at, 1), (uint8_t)want);
        }
    }
    bus_free(b);
}

/* -- A handler that changes the map under its own access --------------------------------------- */
struct mover {
    struct bus *bus;
    struct region *self;
    struct mock fresh;
    unsigned writes;
};

static void mover_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct mover *m = dev;
    (void)offset;
    (void)size;
    m->writes++;
    switch (value & 0xff) {
    case 1:
        region_move(m->self, 0x200);
        break;
    case 2:
        region_remove(m->self);
        m->self = NULL;
        break;
    case 3:
        bus_add_port(m->bus, 0x101, 1, &ops1, &m->fresh);
        break;
    default:
        break;
    }
}

static const struct region_ops mover_ops = { .write = mover_write, .sizes = ACCESS_1 };

static void handlers_move_themselves(void **state)
{
    (void)state;
    struct mover m = { .bus = bus_new(NULL) };
    mock_init(&m.fresh);
    m.self = bus_add_port(m.bus, 0x100, 4, &mover_ops, &m);
    bus_port_write(m.bus, 0x100, 4, 0x00000001); /* bytes 1..3 find nobody any more */
    assert_int_equal(m.writes, 1);
    bus_port_write(m.bus, 0x200, 1, 0);
    assert_int_equal(m.writes, 2);
    bus_lock(m.bus);
    region_move(m.self, 0x100);
    bus_unlock(m.bus);
    bus_port_write(m.bus, 0x100, 2, 0x5503); /* the new claim gets the second byte */
    assert_int_equal(m.writes, 3);
    assert_int_equal(m.fresh.count, 1);
    assert_int_equal(m.fresh.log[0].value, 0x55);
    bus_port_write(m.bus, 0x100, 1, 2);
    assert_null(m.self);
    assert_int_equal(bus_port_read(m.bus, 0x100, 1), 0xff);
    bus_free(m.bus);
}

/* -- Devices ----------------------------------------------------------------------------------- */
struct widget {
    struct dev dev;
    uint32_t reg;
    uint32_t derived;
    unsigned resets;
};

static const struct state_field widget_state[] = { STATE(struct widget, reg), STATE_END };

static void widget_reset(void *dev)
{
    struct widget *w = dev;
    w->reg = 0;
    w->resets++;
}

static int widget_post_load(void *dev, struct err *e)
{
    struct widget *w = dev;
    if (w->reg > 100) {
        return err_set(e, -EINVAL, "reg %u out of range", w->reg);
    }
    w->derived = 2 * w->reg;
    return 0;
}

static void widget_pre_save(void *dev)
{
    struct widget *w = dev;
    w->derived = 0;
}

static const struct dev_class widget_class = {
    .name = "widget",
    .version = 1,
    .state = widget_state,
    .size = sizeof(struct widget),
    .reset = widget_reset,
    .post_load = widget_post_load,
    .pre_save = widget_pre_save,
};
static const struct dev_class stateless_class = { .name = "stateless" };

static int load_into(struct bus *b, struct state_out *o, struct err *e)
{
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    struct state_in *in;
    assert_int_equal(state_in_new(&in, data, len, e), 0);
    int r = bus_load(b, in, e);
    state_in_free(in);
    return r;
}

static void devices_reset_save_and_load(void **state)
{
    (void)state;
    struct bus *b = bus_new(NULL);
    struct widget one = { .reg = 5 }, two = { .reg = 6 };
    struct dev plain = { 0 };
    struct err e = { "" };
    dev_register(b, &one.dev, &widget_class, "widget.0");
    dev_register(b, &plain, &stateless_class, "plain");
    dev_register(b, &two.dev, &widget_class, "widget.1");
    assert_ptr_equal(bus_first_dev(b), &one.dev);
    assert_ptr_equal(one.dev.next, &plain);

    struct state_out *o = state_out_new();
    bus_save(b, o);
    bus_reset(b);
    assert_int_equal(one.resets, 1);
    assert_int_equal(two.reg, 0);
    assert_int_equal(load_into(b, o, &e), 0);
    assert_int_equal(one.reg, 5);
    assert_int_equal(two.derived, 12);

    two.reg = 101;
    struct state_out *bad = state_out_new();
    bus_save(b, bad);
    assert_int_equal(load_into(b, bad, &e), -EINVAL);
    assert_string_equal(e.msg, "widget.1: reg 101 out of range");

    struct widget three = { .reg = 0 };
    dev_register(b, &three.dev, &widget_class, "widget.2");
    assert_int_equal(load_into(b, o, &e), -ENOENT);
    dev_unregister(&three.dev);
    dev_unregister(&three.dev);
    assert_int_equal(load_into(b, o, &e), 0);
    state_out_free(o);
    state_out_free(bad);
    bus_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_answers),
        cmocka_unit_test(wide_accesses_are_split),
        cmocka_unit_test(misaligned_accesses_are_split),
        cmocka_unit_test(narrow_reads_are_cut_out_and_writes_lost),
        cmocka_unit_test(accesses_across_the_end_of_a_region),
        cmocka_unit_test(later_claims_lie_over_earlier),
        cmocka_unit_test(the_first_byte_decides),
        cmocka_unit_test(handlers_may_be_missing),
        cmocka_unit_test(ports_match_a_model),
        cmocka_unit_test(mmio_matches_a_model),
        cmocka_unit_test(handlers_move_themselves),
        cmocka_unit_test(devices_reset_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
