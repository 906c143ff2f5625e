/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe controller over the bus, as a driver sees it.
 */
// LAYERS: dev/pc bus block mem state base
#include "dev/disks.h"

#include "base/bytes.h"
#include "dev/pc/nvme.h"
#include "dev/pc/nvme_int.h"

#define SECTORS 16384u
#define DEVFN PCI_DEVFN(3, 0)
#define BAR 0xe0000000u
#define MSIX 0xe0010000u
#define SQ(q) (0x10000u + 0x2000u * (q))
#define CQ(q) (0x11000u + 0x2000u * (q))
#define ADMIN_ENTRIES 16u
#define ENTRIES 8u
#define LIST 0x40000u
#define DATA 0x100000u

enum { CAP = 0, VS = 8, INTMS = 0xc, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30 };
#define CC_ENABLED 0x460001u

struct fix {
    struct disk_board board;
    struct disk_image image;
    struct nvme *nvme;
    unsigned tail[2], head[2];
    uint16_t cid;
    uint32_t result; /* of the last command */
};

static uint32_t get(struct fix *f, unsigned reg)
{
    return (uint32_t)bus_mmio_read(f->board.rig.bus, BAR + reg, 4);
}

static void set(struct fix *f, unsigned reg, uint32_t v)
{
    bus_mmio_write(f->board.rig.bus, BAR + reg, 4, v);
}

static void enable(struct fix *f)
{
    set(f, AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    bus_mmio_write(f->board.rig.bus, BAR + ASQ, 8, SQ(0));
    bus_mmio_write(f->board.rig.bus, BAR + ACQ, 8, CQ(0));
    set(f, CC, CC_ENABLED);
    memset(f->tail, 0, sizeof f->tail);
    memset(f->head, 0, sizeof f->head);
}

/* -- A little driver --------------------------------------------------------------------------- */
static void put(struct fix *f, unsigned q, const uint32_t dw[16])
{
    uint8_t raw[64];
    for (unsigned i = 0; i < 16; i++) {
        store_le32(raw + 4 * i, i == 0 ? dw[0] | (uint32_t)f->cid << 16 : dw[i]);
    }
    disk_poke(&f->board, SQ(q) + 64 * f->tail[q], raw, sizeof raw);
    f->tail[q] = (f->tail[q] + 1) % (q == 0 ? ADMIN_ENTRIES : ENTRIES);
    f->cid++;
}

static void ring(struct fix *f, unsigned q) { set(f, 0x1000 + 8 * q, f->tail[q]); }

/* The next completion of a queue: its status; the entry is consumed. */
static unsigned reap(struct fix *f, unsigned q)
{
    uint8_t raw[16];
    unsigned entries = q == 0 ? ADMIN_ENTRIES : ENTRIES;
    disk_peek(&f->board, CQ(q) + 16 * (f->head[q] % entries), raw, sizeof raw);
    assert_int_equal(raw[14] & 1, (f->head[q] / entries & 1) ^ 1); /* the phase */
    assert_int_equal(load_le16(raw + 10), q);
    f->result = load_le32(raw);
    f->head[q]++;
    set(f, 0x1000 + 8 * q + 4, f->head[q] % entries);
    return load_le16(raw + 14) >> 1;
}

static unsigned run(struct fix *f, unsigned q, const uint32_t dw[16])
{
    put(f, q, dw);
    ring(f, q);
    disk_settle(&f->board);
    return reap(f, q);
}

static unsigned admin(struct fix *f, uint8_t opcode, uint32_t nsid, uint32_t dw10, uint32_t dw11)
{
    const uint32_t dw[16] = { opcode, nsid, [6] = DATA, [10] = dw10, [11] = dw11 };
    return run(f, 0, dw);
}

static unsigned create(struct fix *f, uint8_t opcode, unsigned id, uint32_t at, uint32_t dw11)
{
    const uint32_t dw[16] = { opcode, [6] = at, [10] = (ENTRIES - 1) << 16 | id, [11] = dw11 };
    return run(f, 0, dw);
}

static void fill_io(uint32_t dw[16], uint8_t opcode, uint32_t lba, uint32_t count, uint32_t prp1,
                    uint32_t prp2)
{
    memset(dw, 0, 64);
    dw[0] = opcode;
    dw[1] = 1;
    dw[6] = prp1;
    dw[8] = prp2;
    dw[10] = lba;
    dw[12] = count - 1;
}

static unsigned io(struct fix *f, uint8_t opcode, uint32_t lba, uint32_t count, uint32_t prp2)
{
    uint32_t dw[16];
    fill_io(dw, opcode, lba, count, DATA, prp2);
    return run(f, 1, dw);
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    disk_board_init(&f->board);
    disk_image_make(&f->image, &f->board, SECTORS, 512);
    const struct nvme_config c = { .queue = f->image.queue, .serial = "disk1" };
    f->nvme = calloc(1, sizeof *f->nvme);
    nvme_init(f->nvme, "nvme", i440fx_pci(&f->board.host), f->board.rig.bus, DEVFN, &c);
    disk_config_out(&f->board, DEVFN, PCI_BAR0, BAR);
    disk_config_out(&f->board, DEVFN, PCI_BAR0 + 16, MSIX);
    disk_config_out(&f->board, DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    enable(f);
    assert_int_equal(create(f, 0x05, 1, CQ(1), 3), NVME_OK);
    assert_int_equal(create(f, 0x01, 1, SQ(1), 1u << 16 | 1), NVME_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    bus_lock(f->board.rig.bus);
    nvme_fini(f->nvme);
    bus_unlock(f->board.rig.bus);
    disk_image_fini(&f->image, &f->board);
    disk_board_fini(&f->board);
    free(f->nvme);
    free(f);
    return 0;
}

/* -- Controller -------------------------------------------------------------------------------- */
static void test_registers(void **state)
{
    struct fix *f = *state;
    assert_int_equal(get(f, CAP) & 0xffff, 1023);
    assert_int_equal(get(f, CAP + 4), 0x20);
    assert_int_equal(get(f, VS), 0x10400);
    assert_int_equal(get(f, CSTS), 1);
    set(f, CC, CC_ENABLED | 1u << 14); /* shutdown */
    disk_settle(&f->board);
    assert_int_equal(get(f, CSTS), 1 | 2u << 2);
    set(f, CC, 0);
    assert_int_equal(get(f, CSTS), 0);
    assert_int_equal(get(f, ASQ), SQ(0)); /* stays */
    set(f, CC, CC_ENABLED | 1u << 7);     /* pages of 8 KiB */
    assert_int_equal(get(f, CSTS), 2);
    set(f, CC, 0);
    bus_mmio_write(f->board.rig.bus, BAR + ASQ, 8, 0xf0000000); /* not memory */
    set(f, CC, CC_ENABLED);
    assert_int_equal(get(f, CSTS), 1);
    set(f, 0x1000, 1);
    assert_int_equal(get(f, CSTS), 3);
}

static void test_identify(void **state)
{
    struct fix *f = *state;
    uint8_t p[4096];
    assert_int_equal(admin(f, 0x06, 0, 1, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_memory_equal(p + 4, "disk1 ", 6);
    assert_int_equal(p[77], 9);
    assert_int_equal(load_le32(p + 516), 1);
    assert_int_equal(p[512], 0x66);
    assert_string_equal((char *)p + 768, "nqn.2014-08.org.nvmexpress:sosia:disk1");
    assert_int_equal(admin(f, 0x06, 1, 0, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_int_equal(load_le64(p), SECTORS);
    assert_int_equal(p[130], 9);
    assert_int_equal(admin(f, 0x06, 0, 2, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_int_equal(load_le32(p), 1);
    assert_int_equal(load_le32(p + 4), 0);
    assert_int_equal(admin(f, 0x06, 1, 3, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_int_equal(load_le16(p), 0x0801);
    assert_int_equal(admin(f, 0x06, 2, 0, 0), NVME_INVALID_NAMESPACE);
    assert_int_equal(admin(f, 0x06, 0, 0x77, 0), NVME_INVALID_FIELD);
    assert_int_equal(admin(f, 0x7f, 0, 0, 0), NVME_INVALID_OPCODE);
}

static void test_queues(void **state)
{
    struct fix *f = *state;
    assert_int_equal(create(f, 0x05, 1, CQ(1), 3), NVME_INVALID_QUEUE);
    assert_int_equal(create(f, 0x05, 0, CQ(1), 3), NVME_INVALID_QUEUE);
    assert_int_equal(create(f, 0x05, 17, CQ(1), 3), NVME_INVALID_QUEUE);
    assert_int_equal(create(f, 0x05, 2, CQ(1) + 8, 3), NVME_INVALID_PRP_OFFSET);
    assert_int_equal(create(f, 0x05, 2, CQ(1), 2), NVME_INVALID_FIELD);
    assert_int_equal(create(f, 0x05, 2, CQ(1), 17u << 16 | 3), NVME_INVALID_VECTOR);
    assert_int_equal(create(f, 0x01, 2, SQ(1), 5u << 16 | 1), NVME_CQ_INVALID);
    assert_int_equal(admin(f, 0x04, 0, 1, 0), NVME_INVALID_DELETION);
    assert_int_equal(admin(f, 0x00, 0, 1, 0), NVME_OK);
    assert_int_equal(admin(f, 0x00, 0, 1, 0), NVME_INVALID_QUEUE);
    assert_int_equal(admin(f, 0x04, 0, 1, 0), NVME_OK);
    const uint32_t small[16] = { 0x05, [6] = CQ(1), [10] = 1, [11] = 3 };
    assert_int_equal(run(f, 0, small), NVME_INVALID_QUEUE_SIZE);
}

static void test_features(void **state)
{
    struct fix *f = *state;
    assert_int_equal(admin(f, 0x0a, 0, 0x07, 0), NVME_OK);
    assert_int_equal(f->result, 0xf000f);
    assert_int_equal(admin(f, 0x09, 0, 0x07, 0x30003), NVME_SEQUENCE_ERROR); /* there are some */
    assert_int_equal(admin(f, 0x09, 0, 0x06, 0), NVME_OK);
    assert_int_equal(admin(f, 0x0a, 0, 0x06, 0), NVME_OK);
    assert_int_equal(f->result, 0);
    assert_int_equal(admin(f, 0x09, 0, 0x80000006, 1), NVME_NOT_SAVEABLE);
    assert_int_equal(admin(f, 0x0a, 0, 0x55, 0), NVME_INVALID_FIELD);
    assert_int_equal(admin(f, 0x09, 0, 0x09, 0x10003), NVME_OK);
    assert_int_equal(admin(f, 0x0a, 0, 0x09, 3), NVME_OK);
    assert_int_equal(f->result, 0x10003);
    assert_int_equal(admin(f, 0x0a, 0, 0x09, 17), NVME_INVALID_FIELD);
}

static void test_logs(void **state)
{
    struct fix *f = *state;
    uint8_t p[512];
    assert_int_equal(io(f, 0x02, SECTORS, 1, 0), NVME_OUT_OF_RANGE);
    assert_int_equal(admin(f, 0x02, 0, 127u << 16 | 1, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_int_equal(load_le64(p), 1);
    assert_int_equal(load_le16(p + 12) >> 1, NVME_OUT_OF_RANGE);
    assert_int_equal(load_le64(p + 16), SECTORS);
    assert_int_equal(io(f, 0x02, 0, 1, 0), NVME_OK);
    assert_int_equal(admin(f, 0x02, 0xffffffff, 127u << 16 | 2, 0), NVME_OK);
    disk_peek(&f->board, DATA, p, sizeof p);
    assert_int_equal(load_le16(p + 1), 300);
    assert_int_equal(load_le64(p + 64), 1);
    assert_int_equal(admin(f, 0x02, 0, 127u << 16 | 0x55, 0), NVME_INVALID_LOG);
}

static void test_events(void **state)
{
    struct fix *f = *state;
    const uint32_t request[16] = { 0x0c };
    for (unsigned i = 0; i < 4; i++) {
        put(f, 0, request);
    }
    ring(f, 0);
    assert_int_equal(run(f, 0, request), NVME_TOO_MANY_EVENTS);
    set(f, 0x1000 + 8 * 9, 1); /* a queue that is not there */
    assert_int_equal(reap(f, 0), NVME_OK);
    assert_int_equal(f->result, 0x010000);
    set(f, 0x1008, 1000); /* masked: the next waits */
    assert_int_equal(admin(f, 0x02, 0, 1, 0), NVME_OK);
    assert_int_equal(reap(f, 0), NVME_OK);
    assert_int_equal(f->result, 0x010100);
}

/* -- Data -------------------------------------------------------------------------------------- */
static void test_prps(void **state)
{
    struct fix *f = *state;
    uint8_t data[65536], entry[8] = { 0 };
    assert_int_equal(io(f, 0x02, 3, 8, 0), NVME_OK);
    disk_peek(&f->board, DATA, data, 4096);
    assert_pattern(data, 3, 512, 8);
    assert_int_equal(io(f, 0x02, 40, 16, DATA + 0x9000), NVME_OK); /* two pages */
    disk_peek(&f->board, DATA, data, 4096);
    disk_peek(&f->board, DATA + 0x9000, data + 4096, 4096);
    assert_pattern(data, 40, 512, 16);
    /* A list that begins 16 bytes before the end of its page: one page, then the next list. */
    gpa_t list = LIST + 0x1000 - 16;
    store_le64(entry, DATA + 0x20000);
    disk_poke(&f->board, list, entry, 8);
    store_le64(entry, LIST + 0x4000);
    disk_poke(&f->board, list + 8, entry, 8);
    for (unsigned i = 0; i < 14; i++) {
        store_le64(entry, DATA + 0x30000 - 0x1000 * i);
        disk_poke(&f->board, LIST + 0x4000 + 8 * i, entry, 8);
    }
    assert_int_equal(io(f, 0x02, 500, 128, (uint32_t)list), NVME_OK);
    disk_peek(&f->board, DATA, data, 4096);
    disk_peek(&f->board, DATA + 0x20000, data + 4096, 4096);
    for (unsigned i = 0; i < 14; i++) {
        disk_peek(&f->board, DATA + 0x30000 - 0x1000 * i, data + 0x2000 + 0x1000 * i, 4096);
    }
    assert_pattern(data, 500, 512, 128);
    assert_int_equal(io(f, 0x02, 0, 16, DATA + 8), NVME_INVALID_PRP_OFFSET);
    assert_int_equal(io(f, 0x02, 0, 16, 0xf0000000), NVME_TRANSFER_ERROR);
    assert_int_equal(io(f, 0x02, 0, 4097, LIST), NVME_INVALID_FIELD); /* more than MDTS */
}

static void test_write(void **state)
{
    struct fix *f = *state;
    uint8_t data[4096], back[4096];
    memset(data, 0xa5, sizeof data);
    disk_poke(&f->board, DATA, data, sizeof data);
    assert_int_equal(io(f, 0x01, 100, 8, 0), NVME_OK);
    assert_int_equal(block_read(f->image.block, 100 * 512, back, sizeof back), 0);
    assert_memory_equal(back, data, sizeof back);
    assert_int_equal(io(f, 0x05, 100, 8, 0), NVME_OK); /* compare */
    assert_int_equal(io(f, 0x05, 101, 8, 0), NVME_COMPARE_FAILURE);
    assert_int_equal(io(f, 0x08, 100, 4, 0), NVME_OK); /* write zeroes */
    assert_int_equal(block_read(f->image.block, 100 * 512, back, sizeof back), 0);
    assert_true(back[0] == 0 && back[2047] == 0 && back[2048] == 0xa5);
    assert_int_equal(io(f, 0x00, 0, 1, 0), NVME_OK); /* flush */
    uint8_t ranges[32] = { 0 };
    store_le32(ranges + 4, 8);
    store_le32(ranges + 20, 8);
    store_le64(ranges + 24, 64);
    disk_poke(&f->board, DATA, ranges, sizeof ranges);
    uint32_t dw[16];
    fill_io(dw, 0x09, 1, 1, DATA, 0);
    dw[11] = 4;
    assert_int_equal(run(f, 1, dw), NVME_OK);
    store_le64(ranges + 24, SECTORS);
    disk_poke(&f->board, DATA, ranges, sizeof ranges);
    assert_int_equal(run(f, 1, dw), NVME_OUT_OF_RANGE);
}

static void test_bounds(void **state)
{
    struct fix *f = *state;
    uint32_t dw[16];
    assert_int_equal(io(f, 0x02, SECTORS - 1, 1, 0), NVME_OK);
    assert_int_equal(io(f, 0x02, SECTORS - 1, 2, 0), NVME_OUT_OF_RANGE);
    fill_io(dw, 0x01, 0, 1, DATA, 0);
    dw[11] = 0xffffffff;
    assert_int_equal(run(f, 1, dw), NVME_OUT_OF_RANGE);
    fill_io(dw, 0x02, 0, 1, DATA, 0);
    dw[1] = 2;
    assert_int_equal(run(f, 1, dw), NVME_INVALID_NAMESPACE);
    dw[1] = 1;
    dw[0] |= 1u << 14; /* SGLs */
    assert_int_equal(run(f, 1, dw), NVME_INVALID_FIELD);
}

/* Nothing is taken that has no place for its completion. */
static void test_full(void **state)
{
    struct fix *f = *state;
    uint32_t dw[16];
    fill_io(dw, 0x00, 0, 1, 0, 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < ENTRIES - 1; i++) {
            put(f, 1, dw);
        }
        ring(f, 1);
        disk_settle(&f->board);
        put(f, 1, dw);
        ring(f, 1); /* the completion queue is full */
        disk_settle(&f->board);
        assert_int_equal(f->nvme->cq[1].tail, (f->head[1] + ENTRIES - 1) % ENTRIES);
        for (unsigned i = 0; i < ENTRIES; i++) {
            assert_int_equal(reap(f, 1), NVME_OK);
            disk_settle(&f->board);
        }
        assert_int_equal(f->nvme->cq[1].head, f->nvme->cq[1].tail);
    }
}

/* -- Interrupts, state ------------------------------------------------------------------------- */
static void test_interrupts(void **state)
{
    struct fix *f = *state;
    uint32_t dw[16];
    assert_int_equal(f->nvme->pci.intx_level, 0);
    fill_io(dw, 0x02, 0, 1, DATA, 0);
    put(f, 1, dw);
    ring(f, 1);
    disk_settle(&f->board);
    assert_int_equal(f->nvme->pci.intx_level, 1);
    set(f, INTMS, 1);
    assert_int_equal(f->nvme->pci.intx_level, 0);
    set(f, INTMS + 4, 1);
    assert_int_equal(f->nvme->pci.intx_level, 1);
    assert_int_equal(reap(f, 1), NVME_OK);
    assert_int_equal(f->nvme->pci.intx_level, 0);
    uint8_t cap = f->nvme->msix.cap;
    disk_config_out(&f->board, DEVFN, cap, disk_config_in(&f->board, DEVFN, cap) | 1u << 31);
    bus_mmio_write(f->board.rig.bus, MSIX, 4, 0xfee00000);
    bus_mmio_write(f->board.rig.bus, MSIX + 8, 4, 0x51);
    bus_mmio_write(f->board.rig.bus, MSIX + 12, 4, 0);
    assert_int_equal(run(f, 1, dw), NVME_OK);
    assert_int_equal(f->board.messages, 1);
    assert_int_equal(f->board.message, 0x51);
    assert_int_equal(f->nvme->pci.intx_level, 0);
}

static void test_save(void **state)
{
    struct fix *f = *state;
    uint32_t dw[16];
    uint8_t data[512];
    for (unsigned i = 0; i < 4; i++) {
        fill_io(dw, 0x02, 10 + i, 1, DATA + 0x1000 * i, 0);
        put(f, 1, dw);
    }
    ring(f, 1);
    disk_settle(&f->board); /* as a save does first */
    dev_roundtrip(f->board.rig.bus, f->board.rig.clock);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(reap(f, 1), NVME_OK);
        disk_peek(&f->board, DATA + 0x1000 * i, data, sizeof data);
        assert_pattern(data, 10 + i, 512, 1);
    }
    assert_int_equal(io(f, 0x02, 1, 1, 0), NVME_OK);
}

/* A load, and a controller reset, in the middle of commands of the life before. */
static void test_load_over(void **state)
{
    struct fix *f = *state;
    size_t len;
    struct err e = { 0 };
    uint32_t dw[16];
    uint8_t *saved = dev_save(f->board.rig.bus, &len);
    fill_io(dw, 0x00, 0, 1, 0, 0);
    put(f, 1, dw);
    ring(f, 1);
    assert_int_equal(dev_load(f->board.rig.bus, saved, len, &e), 0);
    assert_int_equal(f->nvme->in_flight, 0);
    assert_int_equal(f->nvme->cq[1].tail, 0);
    free(saved);
    f->tail[1] = 0;
    put(f, 1, dw);
    ring(f, 1);
    set(f, CC, 0);
    assert_int_equal(f->nvme->in_flight, 0);
    assert_int_equal(f->nvme->bytes, 0);
    enable(f);
    assert_int_equal(admin(f, 0x06, 0, 1, 0), NVME_OK);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 3;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = test_random(&seed);
        uint32_t dw[16] = { x >> 8 & 0xf, x >> 12 & 1, [6] = DATA + (x >> 16 & 0xffc), [8] = LIST };
        for (unsigned n = 10; n < 16; n++) {
            dw[n] = (uint32_t)(test_random(&seed) & (n == 10 ? 0xffff : 0x3ff));
        }
        switch (x & 15) {
        case 0:
            set(f, 4 * (x >> 40 & 15), (uint32_t)(x >> 8));
            break;
        case 1:
            set(f, CC, 0);
            enable(f);
            break;
        case 2:
            set(f, 0x1000 + 4 * (x >> 8 & 63), (uint32_t)(x >> 20) & 0x1f);
            break;
        case 3:
            dw[0] = 0x05;
            dw[6] = CQ(1);
            dw[10] = 1 | 7u << 16;
            put(f, 0, dw);
            dw[0] = 0x01;
            dw[6] = SQ(1);
            dw[11] = 1 | 1u << 16;
            put(f, 0, dw);
            ring(f, 0);
            break;
        default:
            put(f, x >> 50 & 1, dw);
            ring(f, x >> 50 & 1);
            f->head[x >> 50 & 1]++;
            set(f, 0x1004 + 8 * (x >> 50 & 1), f->head[x >> 50 & 1] % ENTRIES);
            break;
        }
        if (i % 512 == 0) {
            disk_settle(&f->board);
            dev_roundtrip(f->board.rig.bus, f->board.rig.clock);
        }
    }
    disk_settle(&f->board);
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_registers), T(test_identify),       T(test_queues),     T(test_features),
        T(test_logs),      T(test_events),         T(test_prps),       T(test_write),
        T(test_bounds),    T(test_full),           T(test_interrupts), T(test_save),
        T(test_load_over), T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
