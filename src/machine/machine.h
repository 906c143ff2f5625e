/* SPDX-License-Identifier: Apache-2.0
 *
 * A PC that runs: memory, bus, chips, processors on threads of their own, and the loop thread that
 * does timers, host files and whatever must not happen on a processor's thread.
 *
 * Locks, in order of taking: control (pause, reset, save; see run.c), machine lock (bus_lock: every
 * device), run_lock. A vCPU thread holds none of them while it runs guest code.
 *
 * Holds: a bit in `hold` makes every vCPU thread stand still at the barrier in run.c. Whoever sets
 * one and must know that they stand waits with machine_barrier, never with the machine lock held.
 */
#ifndef SOSIA_MACHINE_MACHINE_H
#define SOSIA_MACHINE_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/loop.h"
#include "boot/boot.h"
#include "bus/bus.h"
#include "cpu/cpu.h"
#include "cpu/model.h"
#include "engine/engine.h"
#include "machine/config.h"
#include "machine/events.h"
#include "machine/time.h"

struct machine_debugger;
struct pc;
struct vnc;

/* Addresses from here to 4 GiB are devices'; RAM goes on above. */
#define MACHINE_PCI_HOLE 0xc0000000ull

enum machine_hold {
    HOLD_PAUSE = 1u << 0, /* somebody paused the VM; also before its start */
    HOLD_RESET = 1u << 1, /* a reset is on its way */
    HOLD_END = 1u << 2,   /* it is over */
    HOLD_LOOK = 1u << 3,  /* somebody looks at the processors for a moment */
    HOLD_DEBUG = 1u << 4, /* a debugger has them stand (debug.h) */
    HOLD_COUNT = 1u << 5, /* virtual time: as many instructions as asked for are done */
    HOLD_THROTTLE = 1u << 6, /* they write memory faster than it migrates */
    HOLD_ELSEWHERE = 1u << 7, /* the VM is another process's (moving.h) */
};

enum machine_reason {
    MACHINE_RUNS,
    MACHINE_POWER_OFF,
    MACHINE_STOPPED,
    MACHINE_EXIT_PORT,
    MACHINE_RESET,
    MACHINE_SHUTDOWN,
    MACHINE_FAILED,
};

struct machine_end {
    enum machine_reason reason;
    int status;
    char text[512];
};

struct vcpu {
    struct machine *machine;
    struct cpu *cpu;
    pthread_t thread;
    pid_t tid; /* the same for the host's tools */
    bool started;
    _Atomic uint32_t wakes;    /* counts calls of wake: what a sleeper in HLT waits to change */
    _Atomic uint32_t sleeping; /* it may be inside the futex */
    uint32_t poll_ns;          /* how long to look for work before sleeping */
    _Atomic bool stands;       /* while a debugger lets others run; changes while all stand */
    bool wants_smm;            /* the two guarded by run_lock: an SMI waits until it may enter; */
    bool smm_running;          /* it is counted in machine.smm_running */
    /* Virtual time: its last turn ended in HLT; what it may wake up for, and wakes, were: */
    bool idle;
    uint32_t idle_events, idle_wakes;
};

struct machine {
    struct machine_callbacks callbacks;
    bool no_reboot;
    bool virtual_time;
    struct gmem *mem;
    struct bus *bus;
    struct clock *clock;
    struct loop *loop;
    struct machine_time time;
    struct cpu_model model;
    struct cpu_world world;
    struct cpu **cpus;
    struct vcpu *vcpus;
    unsigned cpu_count;
    const struct engine_class *engine_class;
    enum engine_irqchip irqchip;
    struct engine *engine;
    _Atomic bool chips_given; /* chips.h; changes with the machine lock held */
    struct pc *pc;
    struct vmconfig *config; /* owned: what it was made from, for snapshots */
    struct vnc *vnc; /* or NULL */
    /* What reset starts again. */
    struct boot_file kernel;
    struct boot_file *module_files;
    struct boot_module *modules;
    size_t module_count;
    char *module_text; /* owned: "FILE ARGS,FILE ARGS" cut up */
    char *append;

    pthread_t loop_thread;
    bool loop_started;
    pthread_mutex_t control;  /* one pause, reset, save or load at a time */
    pthread_mutex_t run_lock; /* guards the five below, with run_changed */
    pthread_cond_t run_changed;
    unsigned parked;
    bool quit;
    struct machine_end end;
    bool guest_reset; /* the reset on its way is the guest's wish */
    uint32_t hold_bits;
    _Atomic uint32_t hold; /* hold_bits, for a look without the lock */
    pthread_mutex_t listen_lock; /* guards listeners; the innermost lock */
    struct machine_listener *listeners; /* borrowed */
    struct machine_debugger *_Atomic debugger; /* owned; NULL: none (debug.h) */
    /* Virtual time (vtime.c): one processor at a time. */
    _Atomic unsigned turn;     /* changed under run_lock */
    uint64_t slice_end;        /* in instructions of all; the thread whose turn it is */
    _Atomic uint64_t stop_at;  /* likewise; changed while all stand */
    /* System management (smm.c): while anybody is in SMM or on the way, only those in SMM run. */
    unsigned smm_running;       /* threads in SMM, or entering, and not parked; run_lock */
    unsigned smm_inside;        /* processors in SMM; run_lock */
    _Atomic unsigned smm_count; /* processors in SMM or waiting to enter; changed under run_lock */
};

/* e gets one line. The machine stands at the barrier, its clock stopped: machine_resume starts it.
 */
MUST_CHECK int machine_new(struct machine **out, const struct machine_config *c, struct err *e);
void machine_free(struct machine *m);

/* -- run.c. Thread: [any] but vCPUs and the loop, unless said otherwise. */
int machine_threads_start(struct machine *m, struct err *e);
void machine_threads_stop(struct machine *m);
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
bool machine_paused(struct machine *m);
/* It cannot be resumed or reset here (moving.h). [any] */
bool machine_elsewhere(struct machine *m);
void machine_wait(struct machine *m, struct machine_end *end);
/* -EAGAIN while it runs. [any] */
int machine_get_end(struct machine *m, struct machine_end *end);
/* Reset soon. No vCPU runs another instruction of the old life after it has seen it. [any] */
void machine_request_reset(struct machine *m);
/* Press the power button; false: the guest does not listen to it. Machine lock not held. */
bool machine_press_power(struct machine *m);
/* The end, the first one said counts. [any], machine lock held or not. */
void machine_request_end(struct machine *m, enum machine_reason reason, int status, const char *fmt,
                         ...) PRINTF_LIKE(4, 5);
/* The guest asked for a reset, or the processor shut down: reset or end, as no_reboot says. */
void machine_guest_reset(struct machine *m, enum machine_reason reason, const char *text);
void machine_hold(struct machine *m, enum machine_hold bit);
void machine_release(struct machine *m, enum machine_hold bit);
void machine_barrier(struct machine *m);
/* Run fn while every processor stands still, its state synchronised, and the machine lock is held.
 */
void machine_look(struct machine *m, void (*fn)(struct machine *m, void *ctx), void *ctx);

/* Run fn while the machine stands still, its time included, and the machine lock is held; what ran
 * goes on afterwards, unless the VM has left. No reset is half done. Returns what fn does;
 * -ESHUTDOWN: it has ended. */
MUST_CHECK int machine_still(struct machine *m,
                             int (*fn)(struct machine *m, void *ctx, struct err *e), void *ctx,
                             struct err *e);

/* -- smm.c: who may run while a processor is in system-management mode. [vcpu] of v */
bool machine_smm_enter(void *ctx, struct cpu *cpu);
void machine_smm_left(void *ctx, struct cpu *cpu);
/* May this processor run now? run_lock held, its thread. */
bool machine_smm_may_run(struct machine *m, struct vcpu *v);
/* Nobody runs, machine lock held: count again who is in SMM, as after a reset or a load. */
void machine_smm_recount(struct machine *m);

/* -- world.c */
void machine_fill_world(struct machine *m);
void machine_wake(void *ctx, struct cpu *cpu); /* struct vcpu */
/* The memory map or A20 changed. */
void machine_map_changed(void *ctx);
void machine_code_written(void *ctx, gpa_t gpa, uint64_t len);

/* -- start.c: load the kernel and put processor 0 at its start. Nothing runs, machine lock held. */
MUST_CHECK int machine_open_boot_files(struct machine *m, const struct machine_config *c,
                                       struct err *e);
void machine_close_boot_files(struct machine *m);
MUST_CHECK int machine_boot(struct machine *m, struct err *e);

/* -- save.c. Machine paused; the state of everything but memory: within machine_still, too. */
void machine_save_state(struct machine *m, struct state_out *o);
MUST_CHECK int machine_load_state(struct machine *m, struct state_in *in, struct err *e);
/* The configuration that makes the same processors on any host that can. */
#define MACHINE_CPU_SPEC_MAX CPU_MODEL_SPEC_MAX
void machine_cpu_spec(const struct machine *m, char out[MACHINE_CPU_SPEC_MAX]);
/* Memory has other contents: whatever was decoded or translated goes. */
void machine_memory_changed(struct machine *m);
/* So much time went by elsewhere, while it stood still: its clocks go that far forward. */
void machine_step_time(struct machine *m, uint64_t ns);
MUST_CHECK int machine_save(struct machine *m, bool ram, void **data, size_t *len, struct err *e);
MUST_CHECK int machine_load(struct machine *m, const void *data, size_t len, struct err *e);

/* -- info.c: text for people; returns its length as snprintf does, -EINVAL: no such topic. */
long machine_info(struct machine *m, const char *topic, char *buf, size_t size);

/* -- engines.c: the n-th engine, NULL after the last. */
const struct engine_class *machine_engine(unsigned n);
/* What it is, whether it can be used here, how fast it is; or what is missing. Runs guest code. */
bool machine_describe_engine(const struct engine_class *cls, char *text, size_t size);
/* name: also "kvm,irqchip=none", "split" or "full". */
MUST_CHECK int machine_choose_engine(const struct engine_class **out, enum engine_irqchip *irqchip,
                                     const char *name, struct err *e);

/* -- trial.c: a loop, CPUID and a change of the page tables. e says what went wrong. */
MUST_CHECK int machine_try_engine(const struct engine_class *cls, double *rounds_per_s,
                                  struct err *e);

#endif
