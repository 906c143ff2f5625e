// SPDX-License-Identifier: Apache-2.0
/* Bytes of a client of the control socket, cut into texts and answered. The machine has no image,
 * network or guest that a command could reach. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/frame.h"
#include "api/qmp.h"
#include "machine/hotplug.h"
#include "machine/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
                                      .balloon = true };
    if (machine_new(&machine, &c, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
}

/* What would leave files behind, or end the machine, is for the tests. */
static bool harmless(const char *text, size_t len)
{
    static const char *const names[] = { "screendump", "blockdev", "netdev", "quit", "migrate" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (memmem(text, len, names[i], strlen(names[i])) != NULL) {
            return false;
        }
    }
    return memmem(text, len, "\\u", 2) == NULL; /* the same, spelt otherwise */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (machine == NULL) {
        make_machine();
    }
    struct frame frame = { .text = NULL };
    struct qmp q = { .machine = machine, .ready = size != 0 && (data[0] & 1) };
    const uint8_t *end = data + size;
    while (frame_take(&frame, &data, end) == FRAME_TEXT) {
        if (harmless(frame.text, frame.len)) {
            free(qmp_answer(&q, frame.text, frame.len));
        }
    }
    frame_fini(&frame);
    return 0;
}
