// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/virtio dev/pc bus mem state block net base
/* virtio-blk and virtio-scsi over a real image file. */
#include "dev/virtio.h"

#include <fcntl.h>
#include <unistd.h>

#include "block/queue.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/scsi.h"

#define DISK_BYTES MIB(1)
#define HEADER VT_DATA
#define STATUS (VT_DATA + 0x100)
#define BUFFER (VT_DATA + 0x1000)

struct fix {
    struct vt t;
    char path[64];
    struct block *block;
    struct block_queue *queue;
    struct virtio_blk blk;
    struct virtio_scsi scsi;
};

static void open_disk(struct fix *f, unsigned flags)
{
    struct err e = { "" };
    strcpy(f->path, "/tmp/sosia-test-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    const struct block_options o = { .path = f->path, .format = "raw", .flags = flags };
    if (block_open(&f->block, &o, &e) < 0 ||
        block_queue_new(&f->queue, f->block, f->t.loop, &e) < 0) {
        fail_msg("%s", e.msg);
    }
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    open_disk(f, 0);
    const struct virtio_blk_config c = {
        .queue = f->queue, .serial = "disk-1", .queues = 2, .virtio = { .packed = true }
    };
    virtio_blk_init(&f->blk, "virtio-blk.0", f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), &c);
    vt_map(&f->t, &f->blk.v);
    *state = f;
    return 0;
}

static int setup_scsi(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    open_disk(f, 0);
    const struct virtio_options o = { 0 };
    virtio_scsi_init(&f->scsi, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), 1, &o);
    virtio_scsi_add(&f->scsi, f->queue, false, false, "unit-0");
    virtio_scsi_add(&f->scsi, f->queue, true, true, "unit-1");
    vt_map(&f->t, &f->scsi.v);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    bus_lock(f->t.rig.bus);
    virtio_blk_fini(&f->blk);
    virtio_scsi_fini(&f->scsi);
    block_queue_free(f->queue);
    bus_unlock(f->t.rig.bus);
    block_close(f->block);
    unlink(f->path);
    vt_rig_fini(&f->t);
    free(f);
    return 0;
}

static void put_header(struct vt *t, uint32_t type, uint64_t sector)
{
    uint8_t h[16] = { 0 };
    store_le32(h, type);
    store_le64(h + 8, sector);
    vt_put(t, HEADER, h, sizeof h);
}

static uint8_t status_of(struct vt *t)
{
    uint8_t s;
    vt_get(t, STATUS, &s, 1);
    return s;
}

/* One request with its data at BUFFER; the status. */
static uint8_t request(struct vt *t, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
    const uint8_t poison = 0x77;
    put_header(t, type, sector);
    vt_put(t, STATUS, &poison, 1);
    const struct vt_seg with[3] = { { HEADER, 16, false },
                                    { BUFFER, len, in },
                                    { STATUS, 1, true } };
    const struct vt_seg without[2] = { with[0], with[2] };
    uint32_t written = vt_do(t, 0, len != 0 ? with : without, len != 0 ? 3 : 2);
    uint8_t s = status_of(t);
    assert_int_equal(written, s == 0 && in ? len + 1 : 1);
    return s;
}

#define FEATURES                                                                                   \
    (BIT(2) | BIT(6) | BIT(9) | BIT(11) | BIT(12) | BIT(13) | BIT(14) | VIRTIO_F_INDIRECT_DESC)

static void use(struct vt *t, uint64_t ring)
{
    uint8_t data[8192], back[8192];
    vt_start(t, FEATURES | ring, 2);
    for (unsigned i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + i / 256);
    }
    vt_put(t, BUFFER, data, sizeof data);
    assert_int_equal(request(t, 1, 8, sizeof data, false), 0);
    assert_int_equal(request(t, 4, 0, 0, false), 0);
    memset(back, 0, sizeof back);
    vt_put(t, BUFFER, back, sizeof back);
    assert_int_equal(request(t, 0, 8, sizeof back, true), 0);
    vt_get(t, BUFFER, back, sizeof back);
    assert_memory_equal(back, data, sizeof data);
    dev_roundtrip(t->rig.bus, t->rig.clock);
    assert_int_equal(request(t, 0, DISK_BYTES / 512 - 1, 512, true), 0);
    assert_int_equal(request(t, 0, DISK_BYTES / 512 - 1, 1024, true), 1); /* past the end */
    assert_int_equal(request(t, 0, UINT64_MAX, 512, true), 1);
    assert_int_equal(request(t, 0, 0, 511, true), 1);
    assert_int_equal(request(t, 8, 0, 20, true), 0);
    vt_get(t, BUFFER, back, 20);
    assert_memory_equal(back, "disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(request(t, 99, 0, 512, true), 2);
}

static void test_split(void **state) { use(&((struct fix *)*state)->t, 0); }
static void test_packed(void **state) { use(&((struct fix *)*state)->t, VIRTIO_F_RING_PACKED); }

/* A transfer that the device does in pieces, the last of them short; through to the medium. */
static void test_long(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    enum { LEN = DISK_BYTES - 3 * 512 };
    uint8_t *data = malloc(LEN), *back = calloc(1, LEN);
    vt_start(t, FEATURES & ~BIT(9), 2);
    for (unsigned i = 0; i < LEN; i++) {
        data[i] = (uint8_t)(i * 3 + i / 4096);
    }
    vt_put(t, BUFFER, data, LEN);
    assert_int_equal(request(t, 1, 2, LEN, false), 0);
    vt_put(t, BUFFER, back, LEN);
    assert_int_equal(request(t, 0, 2, LEN, true), 0);
    vt_get(t, BUFFER, back, LEN);
    assert_memory_equal(back, data, LEN);
    free(data);
    free(back);
}

static uint8_t range(struct vt *t, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t r[16];
    store_le64(r, sector);
    store_le32(r + 8, sectors);
    store_le32(r + 12, flags);
    vt_put(t, BUFFER, r, sizeof r);
    return request(t, type, 0, 16, false);
}

static void test_ranges(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint8_t data[4096], zero[4096] = { 0 };
    vt_start(t, FEATURES, 2);
    memset(data, 0xee, sizeof data);
    vt_put(t, BUFFER, data, sizeof data);
    assert_int_equal(request(t, 1, 16, sizeof data, false), 0);
    assert_int_equal(range(t, 13, 16, 4, 1), 0); /* half of it */
    assert_int_equal(request(t, 0, 16, sizeof data, true), 0);
    vt_get(t, BUFFER, data, sizeof data);
    assert_memory_equal(data, zero, 2048);
    assert_int_equal(data[2048], 0xee);
    assert_int_equal(range(t, 11, 16, 8, 0), 0);
    assert_int_equal(range(t, 11, 16, 8, 1), 2); /* unmap is not for discard */
    assert_int_equal(range(t, 13, 16, 8, 2), 2);
    assert_int_equal(range(t, 13, DISK_BYTES / 512, 1, 0), 1);
    assert_int_equal(range(t, 11, 0, 0xffffffff, 0), 1);
}

static void test_config(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    vt_start(t, FEATURES, 2);
    assert_int_equal(vt_dev_config(t, 0, 8), DISK_BYTES / 512);
    assert_int_equal(vt_dev_config(t, 20, 4), 512);
    assert_int_equal(vt_dev_config(t, 34, 2), 2);
    assert_int_equal(vt_dev_config(t, 32, 1), 1);
    vt_write(t, 0x2000 + 32, 1, 0); /* write through */
    assert_int_equal(vt_dev_config(t, 32, 1), 0);
    assert_int_equal(request(t, 1, 0, 512, false), 0);
    dev_roundtrip(t->rig.bus, t->rig.clock);
    assert_int_equal(vt_dev_config(t, 32, 1), 0);
    vt_write(t, 0x2000, 4, 0); /* the capacity is not to be written */
    assert_int_equal(vt_dev_config(t, 0, 8), DISK_BYTES / 512);
}

/* Data in many places of the guest's memory, which it hears of: what is tracked was written. */
static void test_scattered(void **state)
{
    enum { PIECES = 12, PIECE = 1024 };
    struct fix *f = *state;
    struct vt *t = &f->t;
    struct vt_seg seg[PIECES + 2] = { { HEADER, 16, false } };
    uint8_t data[PIECES * PIECE], back[PIECES * PIECE];
    for (unsigned i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i ^ (i >> 8) * 7);
    }
    memset(back, 0x55, sizeof back);
    vt_start(t, FEATURES, 2);
    for (unsigned in = 0; in < 2; in++) {
        for (unsigned i = 0; i < PIECES; i++) {
            uint64_t at = BUFFER + 4096 * (i * 5 % PIECES) + 512 * i % 2048;
            vt_put(t, at, (in ? back : data) + PIECE * i, PIECE);
            seg[i + 1] = (struct vt_seg){ at, PIECE, in };
        }
        seg[PIECES + 1] = (struct vt_seg){ STATUS, 1, true };
        put_header(t, !in, 7);
        gmem_track(t->mem, GMEM_PAGE_CLEAN_MIGRATE, BUFFER, (PIECES + 4) * 4096, true);
        assert_int_equal(vt_do(t, 0, seg, PIECES + 2), in ? sizeof data + 1 : 1);
        assert_int_equal(status_of(t), 0);
        for (unsigned i = 0; i < PIECES + 4; i++) {
            uint64_t page = gmem_ram_page(t->mem, BUFFER + i * 4096);
            assert_int_equal(gmem_harvest(t->mem, GMEM_PAGE_CLEAN_MIGRATE, page), in && i < PIECES);
        }
    }
    for (unsigned i = 0; i < PIECES; i++) {
        vt_get(t, seg[i + 1].gpa, back + PIECE * i, PIECE);
    }
    assert_memory_equal(back, data, sizeof data);
}

/* A save finds requests under way: it waits for them. */
static void test_save_in_flight(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    vt_start(t, FEATURES, 2);
    put_header(t, 0, 0);
    for (unsigned i = 0; i < 5; i++) {
        const struct vt_seg seg[3] = { { HEADER, 16, false },
                                       { BUFFER + 4096 * i, 4096, true },
                                       { STATUS, 1, true } };
        vt_add(t, 0, seg, 3);
    }
    vt_kick(t, 0);
    bus_lock(t->rig.bus);
    bus_quiesce(t->rig.bus);
    assert_int_equal(f->blk.under_way, 0);
    bus_unlock(t->rig.bus);
    assert_int_equal(vt_get16(t, t->q[0].device + 2), 5);
    dev_roundtrip(t->rig.bus, t->rig.clock);
    vt_set_status(t, 0);
    assert_int_equal(vt_status(t), 0);
}

static void test_hostile(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    const struct vt_seg short_header = { HEADER, 8, false };
    const struct vt_seg no_status = { HEADER, 16, false };
    const struct vt_seg far[3] = { { HEADER, 16, false },
                                   { VT_RAM - 256, 512, true },
                                   { STATUS, 1, true } };
    vt_start(t, FEATURES, 2);
    vt_add(t, 0, &short_header, 1);
    vt_kick(t, 0);
    assert_true(vt_status(t) & VIRTIO_NEEDS_RESET);
    vt_start(t, FEATURES, 2);
    vt_add(t, 0, &no_status, 1);
    vt_kick(t, 0);
    assert_true(vt_status(t) & VIRTIO_NEEDS_RESET);
    vt_start(t, FEATURES, 2);
    put_header(t, 0, 0);
    vt_add(t, 0, far, 3);
    vt_kick(t, 0);
    for (unsigned i = 0; i < 1000 && !(vt_status(t) & VIRTIO_NEEDS_RESET); i++) {
        loop_turn(t->loop, 10);
    }
    assert_true(vt_status(t) & VIRTIO_NEEDS_RESET);
    use(t, 0);
}

/* -- SCSI -------------------------------------------------------------------------------------- */
struct answer {
    uint8_t status, response, key;
    uint16_t asc;
    uint32_t residual;
};

#define ANSWER_BYTES 108u

static struct answer scsi_raw(struct vt *t, const uint8_t *lun, const void *cdb, unsigned cdb_len,
                              uint32_t len, bool in)
{
    uint8_t req[51] = { 0 }, back[ANSWER_BYTES];
    memcpy(req, lun, 8);
    memcpy(req + 19, cdb, cdb_len);
    vt_put(t, HEADER, req, sizeof req);
    struct vt_seg seg[3] = { { HEADER, sizeof req, false } };
    unsigned n = 1;
    if (len != 0 && !in) {
        seg[n++] = (struct vt_seg){ BUFFER, len, false };
    }
    seg[n++] = (struct vt_seg){ STATUS, ANSWER_BYTES, true };
    if (len != 0 && in) {
        seg[n++] = (struct vt_seg){ BUFFER, len, true };
    }
    vt_do(t, 2, seg, n);
    vt_get(t, STATUS, back, sizeof back);
    struct answer a = { back[10], back[11], 0, 0, load_le32(back + 4) };
    if (load_le32(back) != 0) {
        a.key = back[12 + 2];
        a.asc = load_be16(back + 12 + 12);
    }
    return a;
}

static struct answer scsi(struct vt *t, unsigned target, const void *cdb, unsigned cdb_len,
                          uint32_t len, bool in)
{
    const uint8_t lun[8] = { 1, (uint8_t)target, 0x40, 0 };
    return scsi_raw(t, lun, cdb, cdb_len, len, in);
}

static void clear_attention(struct vt *t)
{
    const uint8_t ready[6] = { 0 };
    for (unsigned i = 0; i < 2; i++) {
        struct answer a = scsi(t, i, ready, 6, 0, false);
        assert_int_equal(a.status, 2);
        assert_int_equal(a.key, 6);
        assert_int_equal(a.asc, 0x2900);
        a = scsi(t, i, ready, 6, 0, false);
        assert_int_equal(a.status, 0);
    }
}

static void test_scsi_disk(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint8_t b[4096], zero[4096] = { 0 };
    vt_start(t, VIRTIO_F_INDIRECT_DESC, 3);
    clear_attention(t);
    const uint8_t inquiry[6] = { 0x12, 0, 0, 0, 36 };
    struct answer a = scsi(t, 0, inquiry, 6, 96, true);
    assert_int_equal(a.status, 0);
    assert_int_equal(a.residual, 60);
    vt_get(t, BUFFER, b, 36);
    assert_int_equal(b[0], 0);
    assert_memory_equal(b + 8, "sosia   virtual disk    ", 24);
    const uint8_t serial[6] = { 0x12, 1, 0x80, 0, 96 };
    scsi(t, 0, serial, 6, 96, true);
    vt_get(t, BUFFER, b, 10);
    assert_memory_equal(b, "\0\x80\0\6unit-0", 10);
    const uint8_t capacity[10] = { 0x25 };
    scsi(t, 0, capacity, 10, 8, true);
    vt_get(t, BUFFER, b, 8);
    assert_int_equal(load_be32(b), DISK_BYTES / 512 - 1);
    assert_int_equal(load_be32(b + 4), 512);
    memset(b, 0xab, sizeof b);
    vt_put(t, BUFFER, b, sizeof b);
    const uint8_t write[10] = { 0x2a, 8, 0, 0, 0, 3, 0, 0, 8 }; /* FUA */
    assert_int_equal(scsi(t, 0, write, 10, 4096, false).status, 0);
    vt_put(t, BUFFER, zero, sizeof zero);
    const uint8_t read[16] = { 0x88, [9] = 3, [13] = 8 };
    assert_int_equal(scsi(t, 0, read, 16, 4096, true).status, 0);
    uint8_t back[4096];
    vt_get(t, BUFFER, back, sizeof back);
    assert_memory_equal(back, b, sizeof b);
    const uint8_t sync[10] = { 0x35 };
    assert_int_equal(scsi(t, 0, sync, 10, 0, false).status, 0);
    dev_roundtrip(t->rig.bus, t->rig.clock);
}

static void test_scsi_errors(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    vt_start(t, 0, 3);
    clear_attention(t);
    const uint8_t far[10] = { 0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1 };
    struct answer a = scsi(t, 0, far, 10, 512, true);
    assert_int_equal(a.key, 5);
    assert_int_equal(a.asc, 0x2100);
    assert_int_equal(a.residual, 512);
    const uint8_t odd[6] = { 0xff };
    assert_int_equal(scsi(t, 0, odd, 6, 0, false).asc, 0x2000);
    const uint8_t more[10] = { 0x28, 0, 0, 0, 0, 0, 0, 0, 2 };
    assert_int_equal(scsi(t, 0, more, 10, 512, true).asc, 0x2400); /* than there is room for */
    const uint8_t write[10] = { 0x2a, 0, 0, 0, 0, 0, 0, 0, 1 };
    assert_int_equal(scsi(t, 1, write, 10, 2048, false).key, 7);     /* a CD */
    assert_int_equal(scsi(t, 2, write, 10, 512, false).response, 3); /* no such target */
    const uint8_t lun1[8] = { 1, 0, 0x40, 1 };
    assert_int_equal(scsi_raw(t, lun1, write, 10, 512, false).asc, 0x2500);
}

static void test_scsi_unmap(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint8_t list[40] = { 0 };
    vt_start(t, 0, 3);
    clear_attention(t);
    store_be16(list, 38);
    store_be16(list + 2, 32);
    store_be64(list + 8, 8);
    store_be32(list + 16, 16);
    store_be64(list + 24, 100);
    store_be32(list + 32, 1);
    vt_put(t, BUFFER, list, sizeof list);
    const uint8_t unmap[10] = { 0x42, [8] = 40 };
    assert_int_equal(scsi(t, 0, unmap, 10, 40, false).status, 0);
    store_be64(list + 24, DISK_BYTES);
    vt_put(t, BUFFER, list, sizeof list);
    assert_int_equal(scsi(t, 0, unmap, 10, 40, false).asc, 0x2100);
    store_be16(list + 2, 48);
    vt_put(t, BUFFER, list, sizeof list);
    assert_int_equal(scsi(t, 0, unmap, 10, 40, false).asc, 0x2600);
    const uint8_t same[16] = { 0x93, 8, [13] = 16 };
    memset(list, 0, sizeof list);
    uint8_t zero[512] = { 0 };
    vt_put(t, BUFFER, zero, sizeof zero);
    assert_int_equal(scsi(t, 0, same, 16, 512, false).status, 0);
    zero[5] = 1;
    vt_put(t, BUFFER, zero, sizeof zero);
    assert_int_equal(scsi(t, 0, same, 16, 512, false).asc, 0x2600);
}

static void test_scsi_cd(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint8_t b[64];
    vt_start(t, 0, 3);
    clear_attention(t);
    const uint8_t toc[10] = { 0x43, 0, [8] = 20 };
    assert_int_equal(scsi(t, 1, toc, 10, 20, true).status, 0);
    vt_get(t, BUFFER, b, 20);
    assert_int_equal(load_be32(b + 16), DISK_BYTES / 2048);
    const uint8_t lock[6] = { 0x1e, 0, 0, 0, 1 }, unlock[6] = { 0x1e };
    const uint8_t eject[6] = { 0x1b, 0, 0, 0, 2 }, load[6] = { 0x1b, 0, 0, 0, 3 };
    const uint8_t ready[6] = { 0 };
    scsi(t, 1, lock, 6, 0, false);
    assert_int_equal(scsi(t, 1, eject, 6, 0, false).asc, 0x5302);
    scsi(t, 1, unlock, 6, 0, false);
    assert_int_equal(scsi(t, 1, eject, 6, 0, false).status, 0);
    assert_int_equal(scsi(t, 1, ready, 6, 0, false).asc, 0x3a00);
    assert_int_equal(scsi(t, 1, load, 6, 0, false).status, 0);
    assert_int_equal(scsi(t, 1, ready, 6, 0, false).status, 0);
}

/* Any command bytes end in an answer. */
static void test_scsi_random(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint64_t seed = 5;
    vt_start(t, 0, 3);
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t cdb[16];
        for (unsigned k = 0; k < 2; k++) {
            store_le64(cdb + 8 * k, test_random(&seed) & test_random(&seed) & test_random(&seed));
        }
        cdb[0] = (uint8_t)(i % 256);
        uint32_t len = (uint32_t)(test_random(&seed) % 3 * 1024);
        scsi(t, i % 2, cdb, 16, len, i % 3 != 0);
        if (i % 100 == 0) {
            dev_roundtrip(t->rig.bus, t->rig.clock);
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
#define SCSI(t) cmocka_unit_test_setup_teardown(t, setup_scsi, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_split),       TEST(test_packed),     TEST(test_ranges),
        TEST(test_long),        TEST(test_config),     TEST(test_save_in_flight),
        TEST(test_scattered),   TEST(test_hostile),    SCSI(test_scsi_disk),
        SCSI(test_scsi_errors), SCSI(test_scsi_unmap), SCSI(test_scsi_cd),
        SCSI(test_scsi_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
