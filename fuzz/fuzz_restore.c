/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: the state of a whole machine, of every section, with what it holds changed: the
 * input says which bytes of which fields become what; checksums are made right afterwards. The
 * machine refuses it, or takes it, saves it and runs a little of it; then it is made good again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "program.h"
#include "sosia.h"
#include "state/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUES_MAX 8192u

static struct sosia_vm *vm;
static uint8_t *good; /* its state at the beginning */
static size_t good_len;

/* Where the bytes are that a field holds; between them are names and counts. */
struct value {
    size_t at;
    uint64_t len;
};
static struct value values[VALUES_MAX];
static unsigned value_count;

static void add_value(size_t at, uint64_t len)
{
    if (value_count < VALUES_MAX) {
        values[value_count++] = (struct value){ at, len };
    }
}

/* Returns where the table ends. */
static size_t find_values(size_t at)
{
    unsigned fields = load_le16(good + at);
    at += 2;
    for (unsigned i = 0; i < fields; i++) {
        unsigned type = good[at], scalar = stream_scalar_size(type);
        uint32_t count = load_le32(good + at + 2);
        at += STREAM_FIELD_LEN + good[at + 1];
        if (scalar != 0) {
            add_value(at, (uint64_t)count * scalar);
            at += (size_t)count * scalar;
            continue;
        }
        for (uint32_t k = 0; k < count; k++) {
            at = find_values(at + 4);
        }
    }
    return at;
}

static size_t next_section(const uint8_t *data, size_t at)
{
    return at + STREAM_SECTION_LEN + data[at + 5] + load_le64(data + at + 12) + STREAM_CRC_LEN;
}

static void find_all_values(void)
{
    for (size_t at = STREAM_HEADER_LEN; at < good_len; at = next_section(good, at)) {
        if (good[at + 4] == STREAM_TABLE) {
            find_values(at + STREAM_SECTION_LEN + good[at + 5]);
        }
    }
}

static char *make_disk(char *path)
{
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0) {
        abort();
    }
    close(fd);
    return path;
}

/* One with every kind of card that needs nothing of the host's. */
static void make_machine(void)
{
    char path[4][32];
    static const enum sosia_disk_bus bus[4] = { SOSIA_DISK_VIRTIO, SOSIA_DISK_SCSI, SOSIA_DISK_AHCI,
                                                SOSIA_DISK_NVME };
    struct sosia_disk disks[4];
    const struct sosia_net net = { .kind = SOSIA_NET_USER, .model = SOSIA_NET_E1000 };
    char error[SOSIA_ERROR_BYTES] = "";
    struct sosia_config c;
    void *state;
    sosia_config_init(&c);
    c.engine = "interp";
    c.memory_bytes = 2u << 20;
    c.cpus = 2;
    c.rng = true;
    c.balloon = true;
    c.nets = &net;
    c.net_count = 1;
    c.screen = true;
    for (unsigned i = 0; i < ARRAY_LEN(disks); i++) {
        strcpy(path[i], "/tmp/sosia-fuzz-XXXXXX");
        disks[i] = (struct sosia_disk){ .path = make_disk(path[i]),
                                        .bus = bus[i],
                                        .format = "raw" };
    }
    c.disks = disks;
    c.disk_count = ARRAY_LEN(disks);
    c.firmware = "bios";
    sosia_log_level(0);
    if (sosia_vm_new(&vm, &c, error) < 0 ||
        sosia_vm_save(vm, false, &state, &good_len, error) < 0) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
    good = state;
    value_count = 0;
    find_all_values();
    for (unsigned i = 0; i < ARRAY_LEN(disks); i++) {
        unlink(path[i]);
    }
}

static void sign(uint8_t *data)
{
    for (size_t at = STREAM_HEADER_LEN; at < good_len; at = next_section(data, at)) {
        size_t end = next_section(data, at) - STREAM_CRC_LEN;
        store_le32(data + end, crc32c(0, data + at, end - at));
    }
}

static void change(uint8_t *bytes, struct program *p)
{
    while (p->left != 0) {
        const struct value *v = &values[take(p, 2) % value_count];
        uint64_t at = v->len > 8 ? take(p, 2) % v->len : 0;
        unsigned count = 1u << take(p, 1) % 4;
        for (unsigned i = 0; i < count && at + i < v->len; i++) {
            bytes[v->at + at + i] = (uint8_t)take(p, 1);
        }
    }
}

static void take_it_up(const uint8_t *bytes)
{
    char error[SOSIA_ERROR_BYTES] = "";
    void *again;
    size_t len;
    if (sosia_vm_load(vm, bytes, good_len, error) < 0) {
        if (error[0] == '\0') {
            abort();
        }
        return;
    }
    if (sosia_vm_save(vm, false, &again, &len, error) < 0) {
        abort();
    }
    free(again);
    sosia_vm_resume(vm);
    usleep(200);
    sosia_vm_pause(vm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[SOSIA_ERROR_BYTES] = "";
    struct program p = { data, size };
    if (vm == NULL) {
        make_machine();
    }
    uint8_t *bytes = malloc(good_len);
    memcpy(bytes, good, good_len);
    change(bytes, &p);
    sign(bytes);
    take_it_up(bytes);
    free(bytes);
    if (sosia_vm_end(vm, NULL) == 0) { /* the guest found the power switch */
        sosia_vm_free(vm);
        free(good);
        vm = NULL;
        return 0;
    }
    sosia_vm_reset(vm);
    if (sosia_vm_load(vm, good, good_len, error) < 0) {
        fprintf(stderr, "own state refused: %s\n", error);
        abort();
    }
    return 0;
}
