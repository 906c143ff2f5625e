// SPDX-License-Identifier: Apache-2.0
/* A hostile source: bytes as messages, their checksums made right, to a target with a small
 * machine. The first byte says whether sizes are made to fit, so that memory and state are reached.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "machine/machine.h"
#include "machine/moving.h"
#include "migrate/channel.h"
#include "migrate/migrate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 65536u
#define HEADER 12u

static struct machine *machine;

static void make_machine(void)
{
    struct err e;
    char firmware[32]; /* as large as a BIOS is, and empty */
    int fd = memfd_create("bios", 0);
    snprintf(firmware, sizeof firmware, "/proc/self/fd/%d", fd);
    if (ftruncate(fd, 65536) < 0) {
        abort();
    }
    const struct machine_config c = { .engine = "interp",
                                      .cpus = 1,
                                      .memory_bytes = 1 << 20,
                                      .firmware = firmware,
                                      .exit_port = -1,
                                      .restoring = true,
                                      .incoming = true };
    if (machine_new(&machine, &c, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
}

/* Lengths that end within the input, types that exist, checksums that are right. */
static void sign(uint8_t *bytes, size_t size, bool fits)
{
    for (size_t at = 0; at + HEADER <= size;) {
        uint8_t *m = bytes + at;
        size_t left = size - at - HEADER;
        uint32_t type = load_le32(m) % MESSAGE_END, len = load_le32(m + 4);
        len = len > left ? (uint32_t)left : len;
        store_le32(m, at == 0 ? MESSAGE_HELLO : type);
        store_le32(m + 4, len);
        if (at == 0 && fits && len >= 48) {
            store_le32(m + HEADER, 1);
            store_le32(m + HEADER + 4, 1);
            store_le64(m + HEADER + 8, gmem_ram_size(machine->mem) / GMEM_PAGE_SIZE);
            store_le64(m + HEADER + 16, gmem_rom_pages(machine->mem));
            store_le32(m + HEADER + 40, 0);
            store_le32(m + HEADER + 44, len - 48);
        }
        store_le32(m + 8, crc32c(crc32c(0, m, 8), m + HEADER, len));
        at += HEADER + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int room = 4 * INPUT_MAX;
    int ends[2];
    if (machine == NULL) {
        make_machine();
    }
    if (size < 1 || size > INPUT_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
        return 0;
    }
    uint8_t *copy = malloc(size);
    memcpy(copy, data + 1, size - 1);
    sign(copy, size - 1, data[0] & 1);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (send(ends[1], copy, size - 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
        struct incoming *in = NULL;
        struct err e;
        bool paused;
        shutdown(ends[1], SHUT_WR);
        if (incoming_over(&in, ends[0], &e) == 0 &&
            incoming_receive(in, machine, &paused, &e) == 0) {
            machine_leave(machine);
        }
        incoming_close(in);
    } else {
        close(ends[0]);
    }
    close(ends[1]);
    free(copy);
    return 0;
}
