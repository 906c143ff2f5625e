/* SPDX-License-Identifier: Apache-2.0
 *
 * The threads of processors: running, sleeping in HLT, standing at the barrier; pause, reset, end.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/chips.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "machine/vtime.h"

/* -- Sleeping in HLT --------------------------------------------------------------------------- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* An event bit was set. A sleeper marks itself before it compares `wakes`, and we count before we
 * look for the mark: one of us sees the other. */
void machine_wake(void *ctx, struct cpu *cpu)
{
    struct vcpu *v = ctx;
    atomic_fetch_add(&v->wakes, 1);
    if (atomic_load(&v->sleeping)) {
        futex_wake(&v->wakes);
    }
    /* It may stand, and this may be an SMI; or it waits for its turn, and all were idle. */
    if (atomic_load(&v->machine->smm_count) != 0 || v->machine->virtual_time) {
        pthread_mutex_lock(&v->machine->run_lock);
        pthread_cond_broadcast(&v->machine->run_changed);
        pthread_mutex_unlock(&v->machine->run_lock);
    }
    const struct engine_class *ec = v->machine->engine_class;
    if (ec->kick != NULL) {
        ec->kick(v->machine->engine, cpu);
    }
}

/* A guest whose processors wake one another often pays for each sleep with two context switches of
 * the host. So a processor that was woken soon after it fell asleep looks around for a while
 * first, the next times; one that slept long does not. */
#define POLL_MIN_NS 8000u
#define POLL_MAX_NS 64000u
#define SHORT_SLEEP_NS 200000u

static uint64_t host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool woken_while_polling(struct vcpu *v, uint32_t wakes_before, uint64_t start)
{
    while (host_ns() - start < v->poll_ns) {
        for (unsigned i = 0; i < 16; i++) {
            if (atomic_load(&v->wakes) != wakes_before) {
                return true;
            }
            __builtin_ia32_pause();
        }
    }
    return false;
}

static void sleep_until_woken(struct vcpu *v, uint32_t wakes_before)
{
    uint64_t start = host_ns();
    if (v->poll_ns != 0 && woken_while_polling(v, wakes_before, start)) {
        return;
    }
    atomic_store(&v->sleeping, 1);
    while (atomic_load(&v->wakes) == wakes_before) {
        futex_wait(&v->wakes, wakes_before);
    }
    atomic_store(&v->sleeping, 0);
    if (host_ns() - start > SHORT_SLEEP_NS) {
        v->poll_ns = 0;
    } else if (v->poll_ns < POLL_MAX_NS) {
        v->poll_ns = v->poll_ns != 0 ? v->poll_ns * 2 : POLL_MIN_NS;
    }
}

/* -- The barrier ------------------------------------------------------------------------------- */

static void kick_all(struct machine *m)
{
    for (unsigned i = 0; i < m->cpu_count; i++) {
        cpu_raise_event(m->cpus[i], CPU_EV_KICK);
    }
}

void machine_hold(struct machine *m, enum machine_hold bit)
{
    pthread_mutex_lock(&m->run_lock);
    m->hold_bits |= bit;
    atomic_store(&m->hold, m->hold_bits);
    pthread_mutex_unlock(&m->run_lock);
    kick_all(m);
}

void machine_release(struct machine *m, enum machine_hold bit)
{
    pthread_mutex_lock(&m->run_lock);
    m->hold_bits &= ~(uint32_t)bit;
    atomic_store(&m->hold, m->hold_bits);
    pthread_cond_broadcast(&m->run_changed);
    pthread_mutex_unlock(&m->run_lock);
}

void machine_barrier(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    while (m->parked < m->cpu_count && !m->quit) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    pthread_mutex_unlock(&m->run_lock);
}

/* Something keeps processors from running: a hold, or somebody's system-management mode. */
static bool must_park(const struct machine *m, const struct vcpu *v)
{
    return atomic_load(&m->hold) != 0 || atomic_load(&v->stands) ||
           (m->virtual_time && !machine_vtime_turn(m, v)) ||
           (atomic_load(&m->smm_count) != 0 && !v->cpu->in_smm);
}

/* False: the thread is to end. */
static bool park(struct machine *m, struct vcpu *v)
{
    pthread_mutex_lock(&m->run_lock);
    m->parked++;
    m->smm_running -= v->smm_running;
    v->smm_running = false;
    pthread_cond_broadcast(&m->run_changed);
    while ((m->hold_bits != 0 || atomic_load(&v->stands) ||
            (m->virtual_time && !machine_vtime_turn(m, v)) || !machine_smm_may_run(m, v)) &&
           !m->quit) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    m->parked--;
    v->smm_running = v->cpu->in_smm || v->wants_smm;
    m->smm_running += v->smm_running;
    bool quit = m->quit;
    pthread_mutex_unlock(&m->run_lock);
    return !quit;
}

/* -- A processor --------------------------------------------------------------------------------
 */

static void shut_down(struct vcpu *v)
{
    struct cpu *cpu = v->cpu;
    char text[128];
    v->machine->engine_class->sync(v->machine->engine, cpu, CPU_GROUP_ALL, false);
    snprintf(text, sizeof text, "triple fault on processor %u at %04x:%#llx", cpu->index,
             cpu->seg[SEG_CS].sel, (unsigned long long)cpu->rip);
    machine_guest_reset(v->machine, MACHINE_SHUTDOWN, text);
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    struct machine *m = v->machine;
    char name[16];
    snprintf(name, sizeof name, "cpu%u", v->cpu->index);
    pthread_setname_np(pthread_self(), name);
    v->tid = gettid(); /* before anybody sees us stand */
    for (;;) {
        /* In this order: whoever holds sets the bit first and kicks then. */
        cpu_clear_event(v->cpu, CPU_EV_KICK);
        if (must_park(m, v) && !park(m, v)) {
            return NULL;
        }
        uint32_t wakes = atomic_load(&v->wakes);
        if (must_park(m, v) && !v->smm_running) {
            continue;
        }
        if (m->virtual_time && !machine_vtime_begin(m, v)) {
            continue;
        }
        machine_give_chips(m);
        switch (m->engine_class->run(m->engine, v->cpu)) {
        case ENGINE_EXIT_KICK:
        case ENGINE_EXIT_LIMIT:
            break;
        case ENGINE_EXIT_HALT:
            if (m->virtual_time) {
                machine_vtime_idle(m, v, wakes);
            } else {
                sleep_until_woken(v, wakes);
            }
            break;
        case ENGINE_EXIT_SHUTDOWN:
            shut_down(v);
            break;
        case ENGINE_EXIT_DEBUG:
            machine_hold(m, HOLD_DEBUG);
            machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_DEBUG });
            break;
        case ENGINE_EXIT_ERROR:
            machine_request_end(m, MACHINE_FAILED, 1, "the %s engine failed",
                                m->engine_class->name);
            break;
        }
    }
}

static void *loop_main(void *arg)
{
    struct machine *m = arg;
    pthread_setname_np(pthread_self(), "loop");
    loop_run(m->loop);
    return NULL;
}

int machine_threads_start(struct machine *m, struct err *e)
{
    /* Signals are for the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&m->loop_thread, NULL, loop_main, m);
    m->loop_started = r == 0;
    for (unsigned i = 0; i < m->cpu_count && r == 0; i++) {
        /* What the engine itself raises must reach its thread. */
        sigset_t sync = all;
        sigdelset(&sync, SIGSEGV);
        sigdelset(&sync, SIGBUS);
        sigdelset(&sync, SIGILL);
        sigdelset(&sync, SIGFPE);
        sigdelset(&sync, SIGTRAP);
        pthread_sigmask(SIG_SETMASK, &sync, NULL);
        r = pthread_create(&m->vcpus[i].thread, NULL, vcpu_main, &m->vcpus[i]);
        m->vcpus[i].started = r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        return err_set(e, -r, "cannot start threads for %u processors: %s", m->cpu_count,
                       strerror(r));
    }
    machine_barrier(m); /* all threads are there and stand */
    return 0;
}

void machine_threads_stop(struct machine *m)
{
    machine_hold(m, HOLD_END);
    pthread_mutex_lock(&m->run_lock);
    m->quit = true;
    pthread_cond_broadcast(&m->run_changed);
    pthread_mutex_unlock(&m->run_lock);
    /* The loop first: it may be in a reset, waiting for processors that have gone already. */
    if (m->loop_started) {
        loop_stop(m->loop);
        pthread_join(m->loop_thread, NULL);
        m->loop_started = false;
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        if (m->vcpus[i].started) {
            pthread_join(m->vcpus[i].thread, NULL);
            m->vcpus[i].started = false;
        }
    }
}

/* -- Pause ------------------------------------------------------------------------------------- */

void machine_pause(struct machine *m)
{
    pthread_mutex_lock(&m->control);
    bool was_paused = machine_paused(m);
    machine_hold(m, HOLD_PAUSE);
    machine_barrier(m);
    bus_lock(m->bus);
    machine_take_chips(m);
    machine_time_stop(&m->time);
    clock_stop(m->clock);
    bus_unlock(m->bus);
    if (!was_paused) {
        machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_STOP });
    }
    pthread_mutex_unlock(&m->control);
}

void machine_resume(struct machine *m)
{
    pthread_mutex_lock(&m->control);
    if (machine_elsewhere(m)) {
        pthread_mutex_unlock(&m->control);
        return;
    }
    if (machine_paused(m)) {
        machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_RESUME });
    }
    bus_lock(m->bus);
    machine_time_go(&m->time);
    clock_resume(m->clock);
    bus_unlock(m->bus);
    machine_release(m, HOLD_PAUSE);
    pthread_mutex_unlock(&m->control);
}

bool machine_paused(struct machine *m) { return (atomic_load(&m->hold) & HOLD_PAUSE) != 0; }
bool machine_elsewhere(struct machine *m) { return (atomic_load(&m->hold) & HOLD_ELSEWHERE) != 0; }

void machine_look(struct machine *m, void (*fn)(struct machine *m, void *ctx), void *ctx)
{
    pthread_mutex_lock(&m->control);
    machine_hold(m, HOLD_LOOK);
    machine_barrier(m);
    bus_lock(m->bus);
    machine_take_chips(m);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->engine_class->sync(m->engine, m->cpus[i], CPU_GROUP_ALL, false);
    }
    fn(m, ctx);
    bus_unlock(m->bus);
    machine_release(m, HOLD_LOOK);
    pthread_mutex_unlock(&m->control);
}

bool machine_press_power(struct machine *m)
{
    bus_lock(m->bus);
    bool heard = pc_press_power(m->pc);
    bus_unlock(m->bus);
    machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_POWERDOWN });
    return heard;
}

int machine_still(struct machine *m, int (*fn)(struct machine *m, void *ctx, struct err *e),
                  void *ctx, struct err *e)
{
    struct machine_end end;
    pthread_mutex_lock(&m->control);
    machine_hold(m, HOLD_LOOK);
    machine_barrier(m);
    pthread_mutex_lock(&m->run_lock);
    while ((m->hold_bits & HOLD_RESET) && !m->quit && m->end.reason == MACHINE_RUNS) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    pthread_mutex_unlock(&m->run_lock);
    bus_lock(m->bus);
    bool ran = !m->time.stopped;
    machine_take_chips(m);
    machine_time_stop(&m->time);
    clock_stop(m->clock);
    int r = machine_get_end(m, &end) == 0
                ? err_set(e, -ESHUTDOWN, "the machine has come to its end")
                : fn(m, ctx, e);
    if (ran && !machine_elsewhere(m)) {
        machine_time_go(&m->time);
        clock_resume(m->clock);
    }
    bus_unlock(m->bus);
    machine_release(m, HOLD_LOOK);
    pthread_mutex_unlock(&m->control);
    return r;
}

/* -- End --------------------------------------------------------------------------------------- */

void machine_request_end(struct machine *m, enum machine_reason reason, int status, const char *fmt,
                         ...)
{
    pthread_mutex_lock(&m->run_lock);
    bool first = m->end.reason == MACHINE_RUNS;
    if (first) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(m->end.text, sizeof m->end.text, fmt, ap);
        va_end(ap);
        m->end.reason = reason;
        m->end.status = status;
        m->hold_bits |= HOLD_END;
        atomic_store(&m->hold, m->hold_bits);
        pthread_cond_broadcast(&m->run_changed);
    }
    pthread_mutex_unlock(&m->run_lock);
    kick_all(m);
    if (first) {
        machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_SHUTDOWN,
                                                   .end_reason = reason });
    }
    if (first && m->callbacks.ended != NULL) {
        m->callbacks.ended(m->callbacks.ctx);
    }
}

void machine_wait(struct machine *m, struct machine_end *end)
{
    pthread_mutex_lock(&m->run_lock);
    while (m->end.reason == MACHINE_RUNS) {
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    }
    *end = m->end;
    pthread_mutex_unlock(&m->run_lock);
}

int machine_get_end(struct machine *m, struct machine_end *end)
{
    pthread_mutex_lock(&m->run_lock);
    int r = m->end.reason == MACHINE_RUNS ? -EAGAIN : 0;
    *end = m->end;
    pthread_mutex_unlock(&m->run_lock);
    return r;
}

/* -- Reset ------------------------------------------------------------------------------------- */

/* [loop], machine lock held on entry and return; released while processors come to the barrier, as
 * they may need it to get there. */
static void do_reset(void *ctx)
{
    struct machine *m = ctx;
    struct err e = { 0 };
    bus_unlock(m->bus);
    machine_barrier(m);
    bus_lock(m->bus);
    if (!(atomic_load(&m->hold) & HOLD_RESET) || m->quit) {
        return; /* several had asked: done */
    }
    machine_take_chips(m);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->engine_class->sync(m->engine, m->cpus[i], CPU_GROUP_ALL, true);
    }
    bus_reset(m->bus);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        cpu_reset(m->cpus[i]);
    }
    machine_smm_recount(m);
    int r = machine_boot(m, &e);
    if (r < 0) {
        machine_request_end(m, MACHINE_FAILED, 1, "after a reset: %s", e.msg);
    }
    machine_notify(m, &(struct machine_event){ .kind = MACHINE_EVENT_RESET,
                                               .guest = m->guest_reset });
    machine_release(m, HOLD_RESET);
}

static void request_reset(struct machine *m, bool guest)
{
    if (machine_elsewhere(m)) {
        return; /* its memory is not ours to change */
    }
    pthread_mutex_lock(&m->run_lock);
    if (!(m->hold_bits & HOLD_RESET)) {
        m->guest_reset = guest;
    }
    pthread_mutex_unlock(&m->run_lock);
    machine_hold(m, HOLD_RESET);
    loop_post(m->loop, do_reset, m);
}

void machine_request_reset(struct machine *m) { request_reset(m, false); }

void machine_guest_reset(struct machine *m, enum machine_reason reason, const char *text)
{
    if (m->no_reboot) {
        machine_request_end(m, reason, 2, "%s", text);
        return;
    }
    log_info("%s: the machine is reset", text);
    request_reset(m, true);
}
