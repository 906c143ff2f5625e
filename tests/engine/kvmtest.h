/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the kvm engine share: the world that guests see, and small guests that run.
 * These need /dev/kvm, and are skipped without. A kernel without VT-x or SVM behind it runs them by
 * an emulator of its own, whose gaps are not ours: pieces of code are such as it does right, too.
 */
#ifndef SOSIA_TESTS_ENGINE_KVMTEST_H
#define SOSIA_TESTS_ENGINE_KVMTEST_H

#include "support/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "cpu/fpu.h"
#include "cpu/model.h"
#include "cpu/msr.h"
#include "engine/kvm/kvm.h"
#include "state/state.h"
#include "state/stream.h"
#include "support/vm.h"

/* CODE(name, directives and instructions): bytes name_code[], name_code_end[]. */
#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

/* -- The world that the guests see ------------------------------------------------------------- */

static struct {
    struct {
        uint16_t port;
        unsigned size;
        uint32_t value;
        bool out;
    } io[64];
    unsigned io_count;
    int vector;        /* for irq_ack, -1 none */
    uint8_t tpr;
    bool masked;       /* A20 */
    unsigned kick_at;  /* port 0x10 kicks */
} seen;

static inline uint32_t port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)ctx, (void)cpu;
    uint32_t value = 0x44332211u + seen.io_count;
    if (seen.io_count < ARRAY_LEN(seen.io)) {
        seen.io[seen.io_count].port = port;
        seen.io[seen.io_count].size = size;
        seen.io[seen.io_count++].out = false;
    }
    return value & (uint32_t)MASK64(size * 8);
}

static inline void port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size,
                            uint32_t value)
{
    (void)ctx;
    if (seen.io_count < ARRAY_LEN(seen.io)) {
        seen.io[seen.io_count].port = port;
        seen.io[seen.io_count].size = size;
        seen.io[seen.io_count].value = value;
        seen.io[seen.io_count++].out = true;
    }
    if (port == 0x10) {
        cpu_raise_event(cpu, CPU_EV_KICK);
    }
    if (port == 0x11) {
        seen.vector = (int)value;
        cpu_raise_event(cpu, CPU_EV_INTR);
    }
    if (port == 0x12) {
        cpu_raise_nmi(cpu);
    }
    if (port == 0x13) {
        seen.masked = value & 1;
        cpu_raise_event(cpu, CPU_EV_TLB);
    }
}

static inline int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx;
    int vector = seen.vector;
    seen.vector = -1;
    cpu_clear_event(cpu, CPU_EV_INTR);
    return vector;
}

static inline uint8_t cr8_get(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return seen.tpr;
}

static inline void cr8_set(void *ctx, struct cpu *cpu, uint8_t tpr)
{
    (void)ctx, (void)cpu;
    seen.tpr = tpr;
}

static inline bool a20_masked(void *ctx)
{
    (void)ctx;
    return seen.masked;
}

static inline void wake(void *ctx, struct cpu *cpu)
{
    struct vm *vm = ctx;
    if (vm->engine != NULL) {
        vm->cls->kick(vm->engine, cpu);
    }
}

static inline void fill_world(struct vm *vm)
{
    memset(&seen, 0, sizeof seen);
    seen.vector = -1;
    vm->world.port_in = port_in;
    vm->world.port_out = port_out;
    vm->world.irq_ack = irq_ack;
    vm->world.cr8_get = cr8_get;
    vm->world.cr8_set = cr8_set;
    vm->world.a20_masked = a20_masked;
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->cpu[i]->wake = wake;
        vm->cpu[i]->wake_ctx = vm;
    }
}

/* -- Guests ------------------------------------------------------------------------------------ */

static inline int guest_up(void **state)
{
    struct engine_probe probe = { 0 };
    *state = NULL;
    kvm_engine.probe(&probe);
    if (probe.usable) {
        struct vm *vm = vm_new(2, &kvm_engine);
        fill_world(vm);
        *state = vm;
    }
    return 0;
}

static inline int guest_down(void **state)
{
    if (*state != NULL) {
        vm_free(*state);
    }
    return 0;
}

#define NEED_GUESTS(state)                                                                         \
    struct vm *vm = *(state);                                                                      \
    if (vm == NULL) {                                                                              \
        skip();                                                                                    \
        return;                                                                                    \
    }                                                                                              \
    struct cpu *c = vm->cpu[0]

static inline void sync_all(struct vm *vm, bool written)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->cls->sync(vm->engine, vm->cpu[i], CPU_GROUP_ALL, written);
    }
}

static inline void begin(struct vm *vm, unsigned bits)
{
    sync_all(vm, true);
    vm_mode(vm, 0, bits);
}

static inline enum engine_exit go(struct vm *vm, unsigned index)
{
    enum engine_exit why = vm_run(vm, index);
    sync_all(vm, false);
    return why;
}

#endif
