// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/virtio dev/pc bus mem state block net base
/* Balloon, console, vsock. */
#include "dev/virtio.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dev/virtio/balloon.h"
#include "dev/virtio/console.h"
#include "dev/virtio/vsock.h"

struct fix {
    struct vt t;
    struct virtio_balloon balloon;
    struct virtio_console console;
    struct virtio_vsock vsock;
    char path[80], far_path[100];
    char out[2][256];
    size_t out_len[2];
    unsigned asked;
};

struct port {
    struct fix *f;
    unsigned n;
};
static struct port ports[2];

static void port_write(void *ctx, const uint8_t *data, size_t len)
{
    struct port *p = ctx;
    memcpy(p->f->out[p->n] + p->f->out_len[p->n], data, len);
    p->f->out_len[p->n] += len;
}
static void port_ready(void *ctx) { ((struct port *)ctx)->f->asked++; }

static const struct virtio_options options = { .packed = true };

static struct fix *make(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    *state = f;
    return f;
}

static int setup_balloon(void **state)
{
    struct fix *f = make(state);
    virtio_balloon_init(&f->balloon, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), &options);
    vt_map(&f->t, &f->balloon.v);
    return 0;
}

static int setup_console(void **state)
{
    struct fix *f = make(state);
    struct virtio_console_backend b[2];
    for (unsigned i = 0; i < 2; i++) {
        ports[i] = (struct port){ f, i };
        b[i] = (struct virtio_console_backend){ port_write, port_ready, &ports[i],
                                                i ? "org.agent" : NULL };
    }
    virtio_console_init(&f->console, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), b, 2, &options);
    vt_map(&f->t, &f->console.v);
    return 0;
}

static int setup_vsock(void **state)
{
    struct fix *f = make(state);
    struct err e;
    snprintf(f->path, sizeof f->path, "/tmp/sosia-vsock-%d", (int)getpid());
    snprintf(f->far_path, sizeof f->far_path, "%s_77", f->path);
    assert_int_equal(virtio_vsock_init(&f->vsock, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0),
                                       f->t.loop, f->path, 3, &options, &e),
                     0);
    vt_map(&f->t, &f->vsock.v);
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    virtio_balloon_fini(&f->balloon);
    virtio_console_fini(&f->console);
    virtio_vsock_fini(&f->vsock);
    vt_rig_fini(&f->t);
    free(f);
    return 0;
}

/* -- Balloon ----------------------------------------------------------------------------------- */
#define PAGES (VT_DATA + 0x10000)

static void test_balloon(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    uint8_t page[4096], zero[4096] = { 0 };
    uint32_t pfn[4] = { PAGES / 4096 + 1, PAGES / 4096, PAGES / 4096 + 3, 0xffffffff };
    memset(page, 0x5a, sizeof page);
    vt_start(t, BIT(0) | BIT(1) | BIT(5), 4);
    for (unsigned i = 0; i < 4; i++) {
        vt_put(t, PAGES + 4096 * i, page, 4096);
    }
    vt_put(t, VT_DATA, pfn, sizeof pfn);
    const struct vt_seg seg = { VT_DATA, sizeof pfn, false };
    vt_do(t, 0, &seg, 1);
    for (unsigned i = 0; i < 4; i++) {
        vt_get(t, PAGES + 4096 * i, page, 4096);
        assert_int_equal(memcmp(page, zero, 4096) == 0, i != 2);
    }
    vt_do(t, 1, &seg, 1);
    const struct vt_seg report = { PAGES + 4096 * 2, 4096, true };
    vt_do(t, 3, &report, 1);
    vt_get(t, PAGES + 4096 * 2, page, 4096);
    assert_memory_equal(page, zero, 4096);
    bus_lock(t->rig.bus);
    virtio_balloon_set_target(&f->balloon, VT_RAM - MIB(1));
    bus_unlock(t->rig.bus);
    assert_int_equal(vt_dev_config(t, 0, 4), 256);
    assert_int_equal(t->msi_data, 0x40);
    vt_write(t, 0x2004, 4, 256);
    assert_int_equal(virtio_balloon_actual(&f->balloon), VT_RAM - MIB(1));
    dev_roundtrip(t->rig.bus, t->rig.clock);
}

static void test_balloon_stats(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    uint8_t stats[20] = { 4, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0xff, 0xff };
    uint16_t id;
    uint32_t len;
    vt_start(t, BIT(1), 3);
    vt_put(t, VT_DATA, stats, sizeof stats);
    const struct vt_seg seg = { VT_DATA, sizeof stats, false };
    vt_add(t, 2, &seg, 1);
    vt_kick(t, 2);
    assert_int_equal(f->balloon.stats[4], 0x30201);
    assert_false(vt_used(t, 2, 1, &id, &len)); /* it is kept */
    dev_roundtrip(t->rig.bus, t->rig.clock);
    bus_lock(t->rig.bus);
    virtio_balloon_ask_stats(&f->balloon);
    bus_unlock(t->rig.bus);
    assert_true(vt_used(t, 2, 1, &id, &len));
}

/* -- Console ----------------------------------------------------------------------------------- */
static void message(struct vt *t, uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t raw[8];
    store_le32(raw, port);
    store_le16(raw + 4, event);
    store_le16(raw + 6, value);
    vt_put(t, VT_DATA + 0x500, raw, 8);
    const struct vt_seg seg = { VT_DATA + 0x500, 8, false };
    vt_do(t, 3, &seg, 1);
}

static void expect(struct vt *t, uint32_t port, uint16_t event, uint16_t value, const char *text)
{
    uint8_t raw[64];
    const struct vt_seg seg = { VT_DATA + 0x600, 64, true };
    uint32_t len = vt_do(t, 2, &seg, 1);
    vt_get(t, VT_DATA + 0x600, raw, 64);
    assert_int_equal(load_le32(raw), port);
    assert_int_equal(load_le16(raw + 4), event);
    assert_int_equal(load_le16(raw + 6), value);
    assert_int_equal(len, 8 + strlen(text));
    assert_memory_equal(raw + 8, text, strlen(text));
}

static void test_console(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    vt_start(t, BIT(1), 6);
    message(t, 0, 0, 1);
    expect(t, 0, 1, 1, "");
    dev_roundtrip(t->rig.bus, t->rig.clock); /* one message waits */
    expect(t, 1, 1, 1, "");
    message(t, 0, 3, 1);
    expect(t, 0, 4, 1, "");
    expect(t, 0, 6, 1, "");
    message(t, 1, 3, 1);
    expect(t, 1, 7, 1, "org.agent");
    expect(t, 1, 6, 1, "");
    message(t, 77, 3, 1); /* no such port */
    vt_put(t, VT_DATA, "hello", 5);
    const struct vt_seg out = { VT_DATA, 5, false };
    vt_do(t, 1, &out, 1);
    vt_do(t, 5, &out, 1);
    assert_memory_equal(f->out[0], "hello", 5);
    assert_memory_equal(f->out[1], "hello", 5);
    const struct vt_seg in = { VT_DATA + 64, 3, true };
    uint16_t id;
    uint32_t len;
    vt_add(t, 4, &in, 1);
    vt_kick(t, 4);
    bus_lock(t->rig.bus);
    assert_int_equal(virtio_console_input(&f->console, 1, (const uint8_t *)"abcdef", 6), 0);
    bus_unlock(t->rig.bus);
    message(t, 1, 6, 1); /* a program has opened it */
    assert_true(f->asked > 0);
    bus_lock(t->rig.bus);
    assert_int_equal(virtio_console_input(&f->console, 1, (const uint8_t *)"abcdef", 6), 3);
    bus_unlock(t->rig.bus);
    assert_true(vt_used(t, 4, 1, &id, &len) && len == 3);
    bus_lock(t->rig.bus);
    virtio_console_set_open(&f->console, 1, false);
    bus_unlock(t->rig.bus);
    expect(t, 1, 6, 0, "");
    vt_write(t, 0x2008, 4, 'x');
    assert_int_equal(f->out[0][5], 'x');
}

/* -- vsock ------------------------------------------------------------------------------------- */
struct header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static void send_packet(struct vt *t, uint32_t host_port, uint16_t op, uint32_t flags,
                        const char *text)
{
    struct header h = { 3, 2, 1000, host_port, (uint32_t)strlen(text), 1, op, flags, 4096, 0 };
    vt_put(t, VT_DATA, &h, sizeof h);
    vt_put(t, VT_DATA + 44, text, strlen(text) + 1);
    const struct vt_seg seg = { VT_DATA, (uint32_t)(44 + strlen(text)), false };
    vt_do(t, 1, &seg, 1);
}

/* The next packet for the guest; its data goes to data. */
static struct header next_packet(struct vt *t, char *data)
{
    struct header h;
    const struct vt_seg seg = { VT_DATA + 0x1000, 1024, true };
    vt_do(t, 0, &seg, 1);
    vt_get(t, VT_DATA + 0x1000, &h, sizeof h);
    vt_get(t, VT_DATA + 0x1000 + 44, data, h.len);
    return h;
}

static int unix_socket(const char *path, bool listening)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(a.sun_path, path);
    assert_int_equal(listening ? bind(fd, (void *)&a, sizeof a) : connect(fd, (void *)&a, sizeof a),
                     0);
    if (listening) {
        assert_int_equal(listen(fd, 4), 0);
    }
    return fd;
}

static void test_vsock_from_guest(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    char data[1024];
    vt_start(t, 0, 3);
    assert_int_equal(vt_dev_config(t, 0, 8), 3);
    send_packet(t, 77, 1, 0, ""); /* nobody listens */
    struct header h = next_packet(t, data);
    assert_int_equal(h.op, 3);
    int listener = unix_socket(f->far_path, true);
    send_packet(t, 77, 1, 0, "");
    h = next_packet(t, data);
    assert_int_equal(h.op, 2);
    assert_int_equal(h.src_cid, 2);
    assert_int_equal(h.dst_port, 1000);
    int fd = accept(listener, NULL, NULL);
    send_packet(t, 77, 5, 0, "hello");
    assert_int_equal(read(fd, data, sizeof data), 5);
    assert_memory_equal(data, "hello", 5);
    assert_int_equal(write(fd, "answer", 6), 6);
    h = next_packet(t, data);
    assert_int_equal(h.op, 5);
    assert_int_equal(h.fwd_cnt, 5);
    assert_memory_equal(data, "answer", 6);
    close(fd);
    h = next_packet(t, data);
    assert_int_equal(h.op, 4);
    send_packet(t, 77, 4, 3, "");
    h = next_packet(t, data);
    assert_int_equal(h.op, 3);
    assert_int_equal(f->vsock.conn_count, 0);
    send_packet(t, 99, 5, 0, "to nobody");
    h = next_packet(t, data);
    assert_int_equal(h.op, 3);
    close(listener);
    unlink(f->far_path);
    dev_roundtrip(t->rig.bus, t->rig.clock);
}

static void test_vsock_from_host(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    char data[1024];
    vt_start(t, 0, 3);
    int bad = unix_socket(f->path, false);
    assert_int_equal(write(bad, "HELLO\n", 6), 6);
    for (unsigned i = 0; i < 5; i++) {
        loop_turn(t->loop, 10);
    }
    assert_int_equal(read(bad, data, 1), 0); /* hung up */
    close(bad);
    int fd = unix_socket(f->path, false);
    assert_int_equal(write(fd, "CONNECT 1000\n", 13), 13);
    struct header h = next_packet(t, data);
    assert_int_equal(h.op, 1);
    assert_int_equal(h.dst_port, 1000);
    uint32_t port = h.src_port;
    send_packet(t, port, 2, 0, "");
    assert_true(read(fd, data, sizeof data) > 4);
    assert_memory_equal(data, "OK ", 3);
    /* No more than the guest has room for */
    char big[8192] = { 0 };
    assert_int_equal(write(fd, big, sizeof big), sizeof big);
    size_t got = 0;
    while (got < 4096) {
        h = next_packet(t, data);
        assert_int_equal(h.op, 5);
        got += h.len;
    }
    assert_int_equal(got, 4096);
    for (unsigned i = 0; i < 5; i++) {
        loop_turn(t->loop, 1);
    }
    assert_int_equal(f->vsock.conns != NULL, 1);
    vt_set_status(t, 0);
    assert_int_equal(f->vsock.conn_count, 0);
    close(fd);
}

#define TEST(kind, t) cmocka_unit_test_setup_teardown(t, setup_##kind, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(balloon, test_balloon),       TEST(balloon, test_balloon_stats),
        TEST(console, test_console),       TEST(vsock, test_vsock_from_guest),
        TEST(vsock, test_vsock_from_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
