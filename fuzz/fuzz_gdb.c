/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile bytes at the GDB stub of a machine that stands. Sums are made right, or nothing would get
 * past them.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/gdb_session.h"
#include "machine/vm.h"
#include "sosia.h"

static size_t said;

static void count(void *ctx, const char *data, size_t len)
{
    (void)ctx;
    (void)data;
    said += len;
}

/* A multiboot kernel that halts. */
static struct machine *make(void)
{
    const uint32_t magic = 0x1badb002, flags = 0x10000, at = 0x100000;
    uint32_t image[16] = { magic, flags, -(magic + flags), at, at, at + 64, at + 64, at + 32 };
    char path[] = "/tmp/fuzz-gdb-XXXXXX";
    char error[SOSIA_ERROR_BYTES];
    struct sosia_config c;
    static struct sosia_vm *vm; /* lives as long as we do */
    image[8] = 0xf4f4f4f4;
    int fd = mkstemp(path);
    assert(fd >= 0 && write(fd, image, sizeof image) == (ssize_t)sizeof image);
    close(fd);
    sosia_config_init(&c);
    c.kernel = path;
    c.engine = "interp";
    c.memory_bytes = 4u << 20;
    c.cpus = 2;
    int r = sosia_vm_new(&vm, &c, error);
    unlink(path);
    if (r < 0) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
    return sosia_vm_machine(vm);
}

static void packet(struct gdb_session *s, const uint8_t *data, size_t len)
{
    char sum[4];
    uint8_t n = 0;
    gdb_session_byte(s, '$');
    for (size_t i = 0; i < len; i++) {
        n = (uint8_t)(n + data[i]);
        gdb_session_byte(s, data[i]);
    }
    snprintf(sum, sizeof sum, "#%02x", n);
    for (const char *p = sum; *p != '\0'; p++) {
        gdb_session_byte(s, (uint8_t)*p);
    }
    s->stands = true; /* it is not let go */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct machine *m;
    if (m == NULL) {
        m = make();
        int r = machine_debug_attach(m);
        assert(r == 0);
        machine_debug_stop(m);
    }
    struct gdb_session *s = gdb_session_new(m, len % 2 ? GDB_AMD64 : GDB_I386, count, NULL);
    while (len != 0) { /* packets are lines */
        const uint8_t *newline = memchr(data, '\n', len);
        size_t n = newline != NULL ? (size_t)(newline - data) : len;
        packet(s, data, n);
        n += newline != NULL;
        data += n;
        len -= n;
    }
    gdb_points_commit(s);
    gdb_session_free(s);
    return 0;
}
