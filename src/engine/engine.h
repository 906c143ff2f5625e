/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine is a way to run a vCPU: five verbs. It sees guest state (struct cpu), guest memory, and
 * the world callbacks in struct cpu; no bus, no device.
 */
#ifndef SOSIA_ENGINE_ENGINE_H
#define SOSIA_ENGINE_ENGINE_H

#include "base/err.h"
#include "cpu/cpu.h"
#include "state/chips.h"

enum engine_exit {
    ENGINE_EXIT_KICK,     /* CPU_EV_KICK was set; the caller clears it */
    ENGINE_EXIT_HALT,     /* HLT, wait-for-SIPI: nothing to do until an event */
    ENGINE_EXIT_SHUTDOWN, /* triple fault */
    ENGINE_EXIT_ERROR,    /* host failure, logged */
    ENGINE_EXIT_DEBUG,    /* a debugger wants the vCPU to stand: cpu->stop_why */
    ENGINE_EXIT_LIMIT,    /* virtual time: cpu->icount has come to cpu->icount_limit */
};

/* Groups of struct cpu that an engine may hold elsewhere. */
enum cpu_group {
    CPU_GROUP_GPR = 1u << 0, /* gpr, rip, rflags */
    CPU_GROUP_SEG = 1u << 1,
    CPU_GROUP_SYS = 1u << 2, /* control, debug, descriptor tables, MSRs */
    CPU_GROUP_FPU = 1u << 3,
    CPU_GROUP_EVENT = 1u << 4,
    CPU_GROUP_ALL = 0x1f,
};

/* Which interrupt controllers the engine is to have itself, if it can. */
enum engine_irqchip {
    ENGINE_IRQCHIP_NONE,  /* none: the machine's own work */
    ENGINE_IRQCHIP_AUTO,  /* what is fastest here */
    ENGINE_IRQCHIP_SPLIT, /* local APICs */
    ENGINE_IRQCHIP_FULL,  /* also the 8259s and the I/O APIC */
};

struct engine_config {
    struct gmem *mem;
    struct cpu **cpus;
    unsigned cpu_count;
    uint64_t code_cache_bytes; /* 0: the engine's default */
    /* Count instructions exactly: cpu->icount is right whenever the world is asked for something,
     * and run() comes back at cpu->icount_limit, before anything is delivered there. */
    bool virtual_time;
    enum engine_irqchip irqchip;
    /* For people who look inside translation (bt): a file that gets the guest and host code of each
     * block whose first byte is in [dump_first, dump_last] (0, 0: all), and whether to write
     * /tmp/perf-PID.map, by which `perf` names translated code. Borrowed. */
    const char *dump_path;
    uint64_t dump_first, dump_last;
    bool perf_map;
};

struct engine_probe {
    bool usable;
    bool slow;   /* it runs guests, but any other engine runs them faster: not for `auto` */
    bool unsure; /* whether it does is seen only when it is tried */
    char text[256]; /* what is there, or what is missing and how to get it */
};

struct engine; /* each engine defines its own, starting with struct engine_base */
struct engine_base {
    const struct engine_class *cls;
};

/* Interrupt controllers of the engine's own. While they work the machine's are asleep: machine and
 * engine hand the registers to and fro (machine/chips.c). -errno: the host failed, logged.
 * Machine lock held. */
struct engine_chips {
    /* No vCPU runs: theirs work from here on, or no more. */
    void (*given)(struct engine *en, bool yes);
    /* No vCPU runs, or it is the thread of this one. */
    int (*get_lapic)(struct engine *en, struct cpu *cpu, struct chip_lapic *out);
    int (*set_lapic)(struct engine *en, struct cpu *cpu, const struct chip_lapic *in);
    /* [any] An interrupt message (SDM 3 11.11), bits 31:8 of its destination in bits 63:40 of the
     * address. False: nobody took it. */
    bool (*message)(struct engine *en, uint64_t address, uint32_t data);
    /* Split. [any] The I/O APIC's entries: the end of a level-triggered interrupt that one of them
     * may have made comes to cpu_world.apic_eoi. */
    int (*route)(struct engine *en, const uint64_t redir[CHIP_IOAPIC_PINS]);
    /* Full; NULL: the board's chips are the machine's own. No vCPU runs. */
    int (*get_board)(struct engine *en, struct chip_board *out);
    int (*set_board)(struct engine *en, const struct chip_board *in);
    /* Full. [any] */
    void (*pic_line)(struct engine *en, unsigned n, int level);
    void (*ioapic_line)(struct engine *en, unsigned pin, int level);
};

struct engine_class {
    const char *name;
    void (*probe)(struct engine_probe *out);
    int (*create)(struct engine **out, const struct engine_config *config, struct err *e);
    void (*destroy)(struct engine *en);
    /* Optional: take away what no guest may be shown under this engine, before a CPU model is made
     * for it. */
    void (*limit)(struct cpu_features *f);
    /* [vcpu] Run guest code until one of the exits. */
    enum engine_exit (*run)(struct engine *en, struct cpu *cpu);
    /* [any] Make run() look at cpu->events soon (set before). */
    void (*kick)(struct engine *en, struct cpu *cpu);
    /* [vcpu] or paused: bring these groups of *cpu up to date. written: the caller will change
     * them. */
    void (*sync)(struct engine *en, struct cpu *cpu, unsigned groups, bool written);
    /* [any] Code in [gpa, gpa+len) changed or its mapping did: forget it on all vCPUs before
     * returning (they may finish the instruction in flight). */
    void (*invalidate)(struct engine *en, gpa_t gpa, uint64_t len);
    /* Optional, for an engine whose guests read the processor's own counter. While no vCPU runs: it
     * is to count at this rate. -ENOTSUP and the reason when the processor cannot do that. */
    int (*set_tsc_khz)(struct engine *en, uint32_t khz, struct err *e);
    /* Optional, for an engine whose guest code does not look at gmem's page flags. While no vCPU
     * runs: mark (gmem_mark_written) what it wrote since the last call, and keep book from now on;
     * off: no more. The first call marks nothing. */
    void (*log_writes)(struct engine *en, bool on);
    /* Optional, while no vCPU runs: breakpoints or watchpoints in cpu->stops came or went. */
    void (*stops_changed)(struct engine *en);
    /* Optional, while no vCPU runs, and with the file shared with nobody. bequeath: write what was
     * made of guest code into a file in memory, for a process of the same program on this host and
     * a machine of the same configuration and with the same memory. inherit, before any vCPU ran:
     * take that up; false: it does not fit, nothing has happened. The file can be closed then, but
     * nobody may be able to write it ever again: its code is executed as it is. */
    int (*bequeath)(struct engine *en, int fd, struct err *e);
    bool (*inherit)(struct engine *en, int fd);
    /* Optional: its own interrupt controllers; NULL: this VM has none but the machine's. */
    const struct engine_chips *(*chips)(struct engine *en);
    /* Optional: "name value" lines of counters. */
    size_t (*stats)(struct engine *en, char *buf, size_t size);
};

extern const struct engine_class interp_engine;
extern const struct engine_class bt_engine;
extern const struct engine_class kvm_engine;

#endif
