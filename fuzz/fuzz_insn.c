/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile code on the interp engine: any bytes, any registers, the FPU and control registers in any
 * state, at any privilege. Nothing is compared; nothing may crash, and the sanitizers watch.
 */
// LAYERS: engine/interp engine cpu mem state base
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/guestrun.h"

#define CODE_OFFSET 0x100u
#define CODE_MAX 64u
#define SLICE_NS 20000000 /* code that loops is kicked */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guestrun *guest;
static atomic_uint serial;
static atomic_bool running;

static void *watch(void *arg)
{
    unsigned last = 0;
    for (;;) {
        struct timespec t = { .tv_nsec = SLICE_NS };
        nanosleep(&t, NULL);
        unsigned now = atomic_load(&serial);
        if (now == last && atomic_load(&running))
            guestrun_kick(guest);
        last = now;
    }
    return arg;
}

static void start(void)
{
    struct err e = { "" };
    pthread_t thread;
    guest = guestrun_new(&interp_engine, 0, &e);
    if (guest == NULL || pthread_create(&thread, NULL, watch, NULL) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t image[IS_MEM_SIZE];
    struct insn_state s;
    struct insn_outcome out;
    uint8_t seed[16] = { 0 };
    if (guest == NULL)
        start();
    if (size <= sizeof seed)
        return 0;
    memcpy(seed, data, sizeof seed);
    data += sizeof seed;
    size -= sizeof seed;
    size_t len = size < CODE_MAX ? size : CODE_MAX;
    memset(&s, 0, sizeof s);
    /* What follows the code is registers, cyclically; addresses point into the regions. */
    for (size_t i = 0; i < sizeof s.ymm; i++) {
        ((uint8_t *)s.ymm)[i] = data[i % size];
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
    guestrun_set_memory(guest, image);
    guestrun_set_code(guest, CODE_OFFSET, data, len);
    atomic_fetch_add(&serial, 1);
    atomic_store(&running, true);
    guestrun_run(guest, seed[5] & 1 ? IS_MODE_32 : IS_MODE_64, &s, &out);
    atomic_store(&running, false);
    return 0;
}
