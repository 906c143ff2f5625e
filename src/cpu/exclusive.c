/* SPDX-License-Identifier: Apache-2.0 -- see cpu/exclusive.h */
#include "cpu/exclusive.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "cpu/access.h"

struct member {
    struct cpu *cpu;
    _Atomic bool running; /* between enter and leave */
};

struct cpu_exclusive {
    pthread_mutex_t lock; /* guards active and holder */
    pthread_cond_t changed;
    unsigned active;      /* vCPUs that may be inside an instruction now */
    const struct cpu *holder;
    unsigned count;
    struct member member[];
};

struct cpu_exclusive *cpu_exclusive_new(struct cpu **cpus, unsigned count)
{
    struct cpu_exclusive *x = xzalloc(sizeof *x + count * sizeof x->member[0]);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->changed, NULL);
    x->count = count;
    for (unsigned i = 0; i < count; i++) {
        x->member[i].cpu = cpus[i];
        cpus[i]->exclusive = x;
    }
    return x;
}

void cpu_exclusive_free(struct cpu_exclusive *x)
{
    if (x == NULL) {
        return;
    }
    for (unsigned i = 0; i < x->count; i++) {
        x->member[i].cpu->exclusive = NULL;
    }
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static struct member *member_of(const struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    for (unsigned i = 0; i < x->count; i++) {
        if (x->member[i].cpu == cpu) {
            return &x->member[i];
        }
    }
    abort(); /* a vCPU of another engine */
}

/* Wait, as one who is not active, until nobody is alone. */
static void wait_free_locked(struct cpu_exclusive *x)
{
    while (x->holder != NULL) {
        pthread_cond_wait(&x->changed, &x->lock);
    }
}

void cpu_exclusive_enter(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    pthread_mutex_lock(&x->lock);
    wait_free_locked(x);
    x->active++;
    atomic_store_explicit(&member_of(cpu)->running, true, memory_order_seq_cst);
    pthread_mutex_unlock(&x->lock);
}

void cpu_exclusive_leave(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    pthread_mutex_lock(&x->lock);
    atomic_store_explicit(&member_of(cpu)->running, false, memory_order_seq_cst);
    x->active--;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

bool cpu_exclusive_running(const struct cpu *cpu)
{
    return atomic_load_explicit(&member_of(cpu)->running, memory_order_seq_cst);
}

void cpu_exclusive_yield(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    cpu_clear_event(cpu, CPU_EV_EXCLUSIVE);
    if (x == NULL) {
        return;
    }
    pthread_mutex_lock(&x->lock);
    if (x->holder != NULL) {
        x->active--;
        pthread_cond_broadcast(&x->changed);
        wait_free_locked(x);
        x->active++;
    }
    pthread_mutex_unlock(&x->lock);
}

void cpu_exclusive_begin(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    if (x == NULL) {
        return;
    }
    pthread_mutex_lock(&x->lock);
    if (x->holder != NULL) {
        x->active--;
        pthread_cond_broadcast(&x->changed);
        wait_free_locked(x);
        x->active++;
    }
    x->holder = cpu;
    while (x->active > 1) {
        for (unsigned i = 0; i < x->count; i++) {
            if (x->member[i].cpu != cpu) {
                atomic_fetch_or_explicit(&x->member[i].cpu->events, CPU_EV_EXCLUSIVE,
                                         memory_order_seq_cst);
            }
        }
        pthread_cond_wait(&x->changed, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}

void cpu_exclusive_end(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    if (x == NULL) {
        return;
    }
    pthread_mutex_lock(&x->lock);
    x->holder = NULL;
    for (unsigned i = 0; i < x->count; i++) {
        cpu_clear_event(x->member[i].cpu, CPU_EV_EXCLUSIVE);
    }
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

void cpu_exclusive_abandon(struct cpu *cpu)
{
    struct cpu_exclusive *x = cpu->exclusive;
    if (x == NULL) {
        return;
    }
    pthread_mutex_lock(&x->lock);
    bool held = x->holder == cpu;
    pthread_mutex_unlock(&x->lock);
    if (held) {
        cpu_exclusive_end(cpu);
    }
}
