/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile code on interp and on bt: any bytes, any registers, the FPU and control registers in any
 * state, at any privilege. Nothing is compared; nothing may crash, and the sanitizers watch.
 */
// LAYERS: engine/bt engine/interp engine cpu mem state base
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/guestrun.h"

#define CODE_OFFSET 0x100u
#define CODE_MAX 64u
#define SLICE_NS 20000000 /* code that loops is kicked */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guestrun *guest[2];
static atomic_uint serial;
static atomic_uint running; /* 1 and up: this one, 0: none */

static void *watch(void *arg)
{
    unsigned last = 0;
    for (;;) {
        struct timespec t = { .tv_nsec = SLICE_NS };
        nanosleep(&t, NULL);
        unsigned now = atomic_load(&serial);
        unsigned which = atomic_load(&running);
        if (now == last && which != 0)
            guestrun_kick(guest[which - 1]);
        last = now;
    }
    return arg;
}

static void start(void)
{
    struct err e = { "" };
    pthread_t thread;
    sigset_t alarms;
    guest[0] = guestrun_new(&interp_engine, 0, &e);
    guest[1] = guestrun_new(&bt_engine, 0, &e);
    if (guest[0] == NULL || guest[1] == NULL || pthread_create(&thread, NULL, watch, NULL) != 0)
        abort();
    /* The fuzzer's: translated code has no stack for a handler. */
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
}

static void run(unsigned which, enum is_mode mode, const struct insn_state *s,
                const uint8_t *image, const uint8_t *code, size_t len)
{
    struct insn_outcome out;
    guestrun_set_memory(guest[which], image);
    guestrun_set_code(guest[which], CODE_OFFSET, code, len);
    atomic_fetch_add(&serial, 1);
    atomic_store(&running, which + 1);
    guestrun_run(guest[which], mode, s, &out);
    atomic_store(&running, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t image[IS_MEM_SIZE];
    struct insn_state s;
    uint8_t seed[16] = { 0 };
    if (guest[0] == NULL)
        start();
    if (size <= sizeof seed)
        return 0;
    memcpy(seed, data, sizeof seed);
    data += sizeof seed;
    size -= sizeof seed;
    size_t len = size < CODE_MAX ? size : CODE_MAX;
    memset(&s, 0, sizeof s);
    /* What follows the code is registers, cyclically; addresses point into the regions. */
    for (size_t i = 0; i < sizeof s.zmm; i++) {
        ((uint8_t *)s.zmm)[i] = data[i % size];
    }
    for (size_t i = 0; i < sizeof s.fx; i++) {
        s.fx[i] = data[(i + seed[0]) % size];
    }
    memset(s.fx + 24, 0, 8);
    s.fx[24] = 0x80;
    s.fx[25] = seed[1] & 0xff;
    for (unsigned i = 0; i < 16; i++) {
        s.gpr[i] = IS_DATA + 0x400 + (seed[i] << 5);
        if (seed[i] & 1)
            memcpy(&s.gpr[i], seed + (i & 7), 8);
    }
    s.gpr[4] = IS_STACK + 0x800;
    s.rip = IS_CODE + CODE_OFFSET;
    s.rflags = 0x202 | (seed[2] & 0xd5) | (seed[3] & 4 ? 0x400 : 0);
    for (size_t i = 0; i < sizeof image; i++) {
        image[i] = data[(i * 7 + seed[4]) % size];
    }
    for (unsigned i = 0; i < 2; i++) {
        run(i, seed[5] & 1 ? IS_MODE_32 : IS_MODE_64, &s, image, data, len);
    }
    return 0;
}
