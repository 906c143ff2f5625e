/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the public interface share: a tiny guest, and a VM whose console is a buffer.
 */
#ifndef SOSIA_TESTS_MACHINE_VMTEST_H
#define SOSIA_TESTS_MACHINE_VMTEST_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sosia.h"
#include "support/test.h"

#define VMTEST_TEXT 65536

/* Sends '>', then sends back every byte that comes in; a byte above 127 goes to the exit port. */
static const uint8_t vmtest_echo[] = {
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x3e, 0xee, /* mov dx, 0x3f8; mov al, '>'; out dx, al */
    0x66, 0xba, 0xfd, 0x03,                   /* 1: mov dx, 0x3fd */
    0xec, 0xa8, 0x01, 0x74, 0xf7,             /* in al, dx; test al, 1; jz 1b */
    0x66, 0xba, 0xf8, 0x03, 0xec,             /* mov dx, 0x3f8; in al, dx */
    0xa8, 0x80, 0x75, 0x03,                   /* test al, 0x80; jnz 2f */
    0xee, 0xeb, 0xeb,                         /* out dx, al; jmp 1b */
    0x24, 0x7f, 0xe6, 0xf4,                   /* 2: and al, 0x7f; out 0xf4, al */
    0xf4,                                     /* hlt */
};

/* A multiboot kernel of the code in a temporary file; unlink and free the path. */
static inline char *vmtest_kernel(const uint8_t *code, size_t len)
{
    const uint32_t magic = 0x1badb002, flags = 0x10000, at = 0x100000;
    const uint32_t head[8] = { magic, flags, -(magic + flags), at, at, at + 4096, at + 4096,
                               at + sizeof head };
    char *path = strdup("/tmp/sosia-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    uint8_t image[4096] = { 0 };
    memcpy(image, head, sizeof head);
    memcpy(image + sizeof head, code, len);
    assert_int_equal(write(fd, image, sizeof image), sizeof image);
    close(fd);
    return path;
}

struct vmtest {
    struct sosia_vm *vm;
    pthread_mutex_t lock; /* guards text, len, ended */
    pthread_cond_t changed;
    char text[VMTEST_TEXT];
    size_t len;
    int ended;
};

static inline void vmtest_output(void *ctx, unsigned port, const void *data, size_t len)
{
    struct vmtest *t = ctx;
    pthread_mutex_lock(&t->lock);
    if (port == 0 && len < VMTEST_TEXT - t->len) {
        memcpy(t->text + t->len, data, len);
        t->len += len;
        t->text[t->len] = '\0';
    }
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static inline void vmtest_ended(void *ctx)
{
    struct vmtest *t = ctx;
    pthread_mutex_lock(&t->lock);
    t->ended++;
    pthread_mutex_unlock(&t->lock);
}

static inline void vmtest_config(struct vmtest *t, struct sosia_config *c, const char *kernel,
                                 const char *engine)
{
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    sosia_config_init(c);
    c->engine = engine;
    c->kernel = kernel;
    c->memory_bytes = 16u << 20;
    c->exit_port = 0xf4;
    c->ctx = t;
    c->serial_output = vmtest_output;
    c->ended = vmtest_ended;
}

static inline void vmtest_make(struct vmtest *t, const struct sosia_config *c)
{
    char error[SOSIA_ERROR_BYTES] = "";
    int r = sosia_vm_new(&t->vm, c, error);
    if (r < 0) {
        print_message("sosia_vm_new: %s\n", error);
    }
    assert_int_equal(r, 0);
}

/* Until the console has shown the text since byte `from`; false when it does not come. */
static inline bool vmtest_shows(struct vmtest *t, size_t from, const char *text, int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&t->lock);
    int r = 0;
    while (r == 0 && (t->len < from || strstr(t->text + from, text) == NULL)) {
        r = pthread_cond_timedwait(&t->changed, &t->lock, &until);
    }
    pthread_mutex_unlock(&t->lock);
    return r == 0;
}

static inline size_t vmtest_len(struct vmtest *t)
{
    pthread_mutex_lock(&t->lock);
    size_t len = t->len;
    pthread_mutex_unlock(&t->lock);
    return len;
}

static inline void vmtest_send(struct vmtest *t, const char *text)
{
    assert_int_equal(sosia_vm_serial_input(t->vm, 0, text, strlen(text)), strlen(text));
}

#endif
