/* SPDX-License-Identifier: Apache-2.0
 *
 * The architectural state of one logical processor, and how it reaches the world outside.
 *
 * There is one canonical struct cpu per vCPU; engines run on it directly (interp), keep parts of it
 * in host registers while guest code runs (bt) or in the kernel (kvm), and put them back when asked
 * (engine.h, sync). Helpers in this directory implement the instructions on it, for every engine.
 *
 * The CPU knows no bus and no device: struct cpu_world is all it sees of them.
 *
 * Thread: a struct cpu belongs to its vCPU thread while that runs; others may only touch `events`
 * (cpu_raise_event) or wait for the pause barrier.
 */
#ifndef SOSIA_CPU_CPU_H
#define SOSIA_CPU_CPU_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/features.h"
#include "mem/gmem.h"
#include "state/state.h"

struct cpu;
struct cpu_stops;
struct insn;

enum cpu_gpr {
    R_AX,
    R_CX,
    R_DX,
    R_BX,
    R_SP,
    R_BP,
    R_SI,
    R_DI,
    R_8,
    R_9,
    R_10,
    R_11,
    R_12,
    R_13,
    R_14,
    R_15
};
enum cpu_seg_index { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/* RFLAGS (SDM 1 3.4.3) */
#define FLAG_CF 0x1ull
#define FLAG_FIXED 0x2ull
#define FLAG_PF 0x4ull
#define FLAG_AF 0x10ull
#define FLAG_ZF 0x40ull
#define FLAG_SF 0x80ull
#define FLAG_TF 0x100ull
#define FLAG_IF 0x200ull
#define FLAG_DF 0x400ull
#define FLAG_OF 0x800ull
#define FLAG_IOPL 0x3000ull
#define FLAG_NT 0x4000ull
#define FLAG_RF 0x10000ull
#define FLAG_VM 0x20000ull
#define FLAG_AC 0x40000ull
#define FLAG_VIF 0x80000ull
#define FLAG_VIP 0x100000ull
#define FLAG_ID 0x200000ull
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_EM 0x4ull
#define CR0_TS 0x8ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_AM 0x40000ull
#define CR0_NW 0x20000000ull
#define CR0_CD 0x40000000ull
#define CR0_PG 0x80000000ull
#define CR0_KNOWN                                                                                  \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)

#define CR4_VME 0x1ull
#define CR4_PVI 0x2ull
#define CR4_TSD 0x4ull
#define CR4_DE 0x8ull
#define CR4_PSE 0x10ull
#define CR4_PAE 0x20ull
#define CR4_MCE 0x40ull
#define CR4_PGE 0x80ull
#define CR4_PCE 0x100ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMMEXCPT 0x400ull
#define CR4_UMIP 0x800ull
#define CR4_LA57 0x1000ull
#define CR4_FSGSBASE 0x10000ull
#define CR4_PCIDE 0x20000ull
#define CR4_OSXSAVE 0x40000ull
#define CR4_SMEP 0x100000ull
#define CR4_SMAP 0x200000ull
#define CR4_PKE 0x400000ull

#define EFER_SCE 0x1ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define EFER_NXE 0x800ull

enum cpu_vector {
    EXC_DE = 0,
    EXC_DB = 1,
    EXC_NMI = 2,
    EXC_BP = 3,
    EXC_OF = 4,
    EXC_BR = 5,
    EXC_UD = 6,
    EXC_NM = 7,
    EXC_DF = 8,
    EXC_TS = 10,
    EXC_NP = 11,
    EXC_SS = 12,
    EXC_GP = 13,
    EXC_PF = 14,
    EXC_MF = 16,
    EXC_AC = 17,
    EXC_MC = 18,
    EXC_XM = 19,
};

/* Segment register with its hidden part. attr uses the layout of descriptor bits 40..55
 * (SDM 3 3.4.5): type 0..3, S 4, DPL 5..6, P 7, AVL 12, L 13, D/B 14, G 15. */
#define SEG_ATTR_S 0x10u
#define SEG_ATTR_DPL_SHIFT 5u
#define SEG_ATTR_P 0x80u
#define SEG_ATTR_L 0x2000u
#define SEG_ATTR_DB 0x4000u
#define SEG_ATTR_G 0x8000u
#define SEG_ATTR_NULL 0x10000u /* loaded with a null selector: unusable */
struct cpu_seg {
    uint64_t base;
    uint32_t limit; /* last valid byte offset (of an expand-down segment: last invalid one) */
    uint32_t attr;
    uint16_t sel;
};

struct cpu_dtable {
    uint64_t base;
    uint16_t limit;
};

union cpu_vec {
    uint8_t u8[64];
    uint16_t u16[32];
    uint32_t u32[16];
    uint64_t u64[8];
};

/* x87 and MXCSR live in an FXSAVE64 image (SDM 1 10.5.1) so that the host's FXSAVE/FXRSTOR speak
 * it: bytes 0..159 are meaningful (FCW FSW FTW FOP FIP FDP MXCSR ST0..7); the XMM part is not,
 * vectors are in zmm[]. */
struct cpu_fpu {
    _Alignas(64) uint8_t fx[512];
    _Alignas(64) union cpu_vec zmm[32];
    uint64_t k[8];
};
#define FX_FCW 0
#define FX_FSW 2
#define FX_FTW 4
#define FX_FOP 6
#define FX_FIP 8
#define FX_FDP 16
#define FX_MXCSR 24
#define FX_ST 32

/* Software TLB: direct-mapped, one table per privilege view. A tag is the page's linear address;
 * index by the access' first byte, compare with its last byte's page, so that a page-crossing
 * access misses by itself. Host address = linear + addend. Tags that must not match have other
 * index bits than their entry and the next one: no address that is looked up here has its first or
 * last byte near them, canonical or not.
 * Laid out for translated code: 32 bytes, index = (va >> 12) & (CPU_TLB_SIZE - 1). */
#define CPU_TLB_BITS 12u
#define CPU_TLB_SIZE (1u << CPU_TLB_BITS)
#define CPU_TLB_INVALID(index) ((gva_t)((index) ^ 4u) << 12)
/* Translation known, but MMIO, traced, or watched: go slow. */
#define CPU_TLB_SLOW(page) ((page) ^ 0x2000u)
struct tlb_entry {
    uint64_t tag_read;
    uint64_t tag_write;
    uint64_t tag_exec;
    uint64_t addend; /* host address minus linear address (RAM/ROM) */
};
enum tlb_view {
    TLB_VIEW_SUPER, /* supervisor, user pages allowed (SMAP off, or AC set) */
    TLB_VIEW_USER,
    TLB_VIEW_SUPER_SMAP, /* supervisor, user pages barred */
    TLB_VIEWS
};

/* One word to poll: whatever must interrupt guest code sets a bit here and kicks. */
enum cpu_event {
    CPU_EV_INTR = 1u << 0, /* level: the interrupt controller has something (machine lock) */
    CPU_EV_NMI = 1u << 1,
    CPU_EV_SMI = 1u << 2,
    CPU_EV_INIT = 1u << 3,
    CPU_EV_SIPI = 1u << 4, /* vector in sipi_vector */
    CPU_EV_KICK = 1u << 5, /* leave engine run() with ENGINE_EXIT_KICK */
    CPU_EV_TLB = 1u << 6,  /* flush this vCPU's TLBs before the next guest access */
    CPU_EV_CODE = 1u << 7, /* code was invalidated: leave the running block */
    /* own thread: pending #DB, single step, interrupt shadow: see the slow path */
    CPU_EV_TRAP = 1u << 8,
    CPU_EV_EXCLUSIVE = 1u << 9, /* another vCPU wants to be alone for a moment (split locks) */
    CPU_EV_NMI_2 = 1u << 10,    /* beside CPU_EV_NMI: another NMI, see cpu_raise_nmi */
};

/* After STI no maskable interrupts, after MOV SS and POP SS no interrupts and no #DB traps
 * (SDM 3 6.8.3), for one instruction. */
enum cpu_shadow { CPU_SHADOW_NONE, CPU_SHADOW_STI, CPU_SHADOW_SS };

enum cpu_activity { CPU_ACTIVE, CPU_HALTED, CPU_WAIT_SIPI, CPU_SHUTDOWN };

/* Everything outside the processor. Callbacks take the machine lock themselves as needed.
 * Thread: [vcpu] of the cpu passed. */
struct cpu_world {
    void *ctx;
    uint32_t (*port_in)(void *ctx, struct cpu *cpu, uint16_t port, unsigned size);
    void (*port_out)(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value);
    uint64_t (*mmio_read)(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size);
    void (*mmio_write)(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value);
    int (*irq_ack)(void *ctx, struct cpu *cpu); /* vector 0..255 to take now, -1 none after all */
    /* IA32_APIC_BASE, x2APIC registers 0x800..0x8ff, IA32_TSC_DEADLINE; false: #GP(0) */
    bool (*apic_msr_read)(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t *value);
    bool (*apic_msr_write)(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t value);
    /* A local APIC of the engine's ended a level-triggered interrupt. May be NULL. */
    void (*apic_eoi)(void *ctx, struct cpu *cpu, uint8_t vector);
    uint8_t (*cr8_get)(void *ctx, struct cpu *cpu);
    void (*cr8_set)(void *ctx, struct cpu *cpu, uint8_t tpr);
    uint64_t (*tsc)(void *ctx);     /* guest TSC before per-vCPU offset; same on every vCPU */
    /* What tsc adds to the host's counter, for guests that read that one. May be NULL. */
    uint64_t (*tsc_offset)(void *ctx);
    /* The guest wrote its TSC: deadlines are at another time now. May be NULL. */
    void (*tsc_moved)(void *ctx, struct cpu *cpu);
    uint64_t (*wall_ns)(void *ctx); /* CLOCK_REALTIME as the guest should see it */
    uint64_t (*now_ns)(void *ctx);  /* guest monotonic nanoseconds */
    /* A store or DMA hit a GMEM_PAGE_CODE page: drop decoded code there on every vCPU. */
    void (*code_written)(void *ctx, struct cpu *by, gpa_t gpa, uint64_t len);
    /* FERR#/IGNNE# (CR0.NE=0): IRQ 13 */
    void (*ferr)(void *ctx, struct cpu *cpu, int level);
    bool (*a20_masked)(void *ctx);
    /* An SMI is due. True: SMRAM shows where the chipset has it, and no processor outside SMM runs;
     * false: leave the engine (CPU_POLL_KICK) and ask again. smm_left: after RSM. NULL: no SMRAM to
     * care for. */
    bool (*smm_enter)(void *ctx, struct cpu *cpu);
    void (*smm_left)(void *ctx, struct cpu *cpu);
};

struct cpu_tables; /* cpu/tlb.c: per-ASID TLB sets */

/* What is being delivered, for double-fault detection and error codes. */
struct cpu_exception {
    uint8_t vector;
    bool has_error;
    bool software; /* INT n, INT3, INTO: DPL checked, return address after the instruction */
    bool external; /* interrupt, NMI, INT1, a #DB trap: no fault of the instruction at rip */
    uint32_t error;
    uint64_t cr2;      /* #PF */
    uint64_t dr6_bits; /* #DB */
};

struct cpu {
    /* -- hot part: while translated code runs, the host's stack pointer is at `tlb`, so that what
     * lies around it is reached by 8-bit displacements; keep the order */
    _Alignas(16) uint64_t gpr[16];
    uint64_t engine_stack[4]; /* return addresses of stubs, below the stack pointer */
    struct tlb_entry *tlb;    /* table of the current view and address space */
    _Atomic uint32_t events;
    uint32_t mode;           /* enum insn_mode of CS now */
    uint64_t engine_hot[24]; /* the translator's own, addressed by translated code */
    uint64_t rip;            /* in a semantic helper: the NEXT instruction; see cpu/sem.h */
    uint64_t rflags;
    struct tlb_entry *tlb_view[TLB_VIEWS];
    uint64_t insn_ip;        /* address (offset in CS) of the instruction in flight */
    const struct insn *insn; /* in flight */
    uint8_t cpl;
    uint8_t view;       /* enum tlb_view of ordinary data accesses now */
    uint8_t int_shadow; /* enum cpu_shadow: until the next instruction is done */
    bool nmi_blocked;
    bool in_delivery; /* an event is being delivered */
    bool step_armed;  /* RFLAGS.TF was set when the last instruction began: #DB is due after it */
    /* Instructions retired (interp always, bt in virtual time), with the one in flight. */
    uint64_t icount;
    uint64_t icount_limit; /* virtual time: where the engine is to stop */

    /* -- segments and system registers */
    struct cpu_seg seg[SEG_COUNT];
    struct cpu_seg ldtr;
    struct cpu_seg tr;
    struct cpu_dtable gdtr;
    struct cpu_dtable idtr;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t dr[8]; /* 4 and 5 unused */
    uint64_t efer;
    uint64_t xcr0;
    uint64_t xss;
    uint32_t pkru;
    uint64_t pdpte[4]; /* PAE: loaded with CR3 */

    /* -- MSRs */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat;
    uint64_t tsc_offset; /* IA32_TSC minus world->tsc */
    uint64_t tsc_adjust;
    uint64_t misc_enable, spec_ctrl, debugctl;
    uint64_t mtrr_def_type, mtrr_fix[11], mtrr_base[8], mtrr_mask[8];
    uint64_t mcg_status, mcg_ctl, mc_ctl[4], mc_status[4], mc_addr[4], mc_misc[4];
    uint64_t smbase, feature_control, ucode_rev;
    uint64_t kvm_system_time, kvm_wall_clock, kvm_steal_time, kvm_poll_control; /* KVM PV */

    struct cpu_fpu fpu;

    /* -- run state */
    uint8_t activity; /* enum cpu_activity */
    uint8_t sipi_vector;
    bool in_smm;
    bool smm_nmi_blocked; /* nmi_blocked as it was before the SMI */
    bool ferr_pending; /* FERR# asserted (CR0.NE = 0) */
    bool ignne;        /* the guest wrote port 0xf0: waiting x87 instructions run on (cpu/fpu.h) */
    struct cpu_exception exc; /* raised, not yet delivered */
    bool exc_pending;
    uint64_t pending_dr6; /* #DB trap conditions to report after this instruction */
    uint32_t latched; /* for a save and its load only: what of `events` is the processor's own */

    /* -- derived and host-side: never saved */
    unsigned index; /* 0 is the BSP */
    uint32_t apic_id;
    const struct cpu_world *world; /* borrowed: outlives us */
    struct gmem *mem;              /* borrowed: outlives us */
    const struct cpu_model *model; /* borrowed: shared by all vCPUs; has the features */
    struct cpu_features features;  /* copy of the model's, as CPUID shows them */
    struct cpu_tables *tables;     /* owned */
    /* borrowed from the engine, shared by the VM's vCPUs; NULL: alone */
    struct cpu_exclusive *exclusive;
    void *engine;   /* the engine's own per-vCPU data, owned by it */
    void *hostexec; /* cpu/hostexec.c's per-vCPU data */
    /* A debugger outside of the guest: cpu/stop.h. */
    const struct cpu_stops *stops; /* borrowed, shared by the VM's vCPUs; NULL: there is none */
    uint8_t stop_why;              /* enum cpu_stop_why: for what it stopped, or is about to */
    uint8_t stop_step;             /* enum cpu_step */
    gva_t stop_va;
    jmp_buf unwind; /* where cpu_raise lands; set by the engine's run loop */
    void (*wake)(void *ctx, struct cpu *cpu); /* machine: the vCPU may be asleep in HLT */
    void *wake_ctx;
    /* For engines that cache what code is mapped where: generation of the translations that
     * tlb_view shows (changes with every flush and switch of address space), and of the global
     * ones; and a hook for single pages. */
    uint64_t tlb_gen;
    uint64_t tlb_global_gen;
    void (*page_flushed)(struct cpu *cpu, gva_t va);
    uint64_t tlb_misses, tlb_flushes, exceptions, interrupts; /* statistics */
    uint32_t pauses; /* PAUSE instructions executed */
    /* like engine_hot; in reach of 32-bit displacements */
    _Alignas(64) uint64_t engine_table[1024];
};

/* Fields for save, restore, dump and tests; version and post_load beside it in cpu/state.c. */
#define CPU_STATE_VERSION 3
extern const struct state_field cpu_state[];
void cpu_pre_save(struct cpu *cpu);
int cpu_post_load(struct cpu *cpu, struct err *e);

/* model, world and mem are borrowed. Leaves the CPU in its power-on state (SDM 3 10.1). */
MUST_CHECK int cpu_init(struct cpu *cpu, unsigned index, const struct cpu_model *model,
                        const struct cpu_world *world, struct gmem *mem, struct err *e);
void cpu_fini(struct cpu *cpu);
void cpu_reset(struct cpu *cpu);       /* RESET#: BSP at the reset vector, APs wait for SIPI */
void cpu_init_signal(struct cpu *cpu); /* INIT: like reset, but caches, FPU, MSRs stay */

/* [any]: set event bits, wake the thread if it sleeps. */
static inline void cpu_raise_event(struct cpu *cpu, uint32_t bits)
{
    uint32_t old = atomic_fetch_or_explicit(&cpu->events, bits, memory_order_seq_cst);
    if ((old & bits) != bits && cpu->wake != NULL) {
        cpu->wake(cpu->wake_ctx, cpu);
    }
}
static inline void cpu_clear_event(struct cpu *cpu, uint32_t bits)
{
    atomic_fetch_and_explicit(&cpu->events, ~bits, memory_order_seq_cst);
}

/* [any] Processors take an NMI at once and latch one more while its handler runs. Ours may not have
 * come to the first: two wait then, so that two that are sent are two that come. */
void cpu_raise_nmi(struct cpu *cpu);
void cpu_take_nmi(struct cpu *cpu); /* [vcpu] one of those that wait is being delivered */

/* Does the guest see an AMD processor, which the host then is, too? */
static inline bool cpu_is_amd(const struct cpu *cpu)
{
    return cpu_has(&cpu->features, CPU_FEATURE_AMD);
}

static inline bool cpu_long_mode(const struct cpu *cpu) { return (cpu->efer & EFER_LMA) != 0; }
static inline bool cpu_code64(const struct cpu *cpu)
{
    return (cpu->efer & EFER_LMA) && (cpu->seg[SEG_CS].attr & SEG_ATTR_L);
}
static inline bool cpu_protected(const struct cpu *cpu) { return (cpu->cr0 & CR0_PE) != 0; }
static inline bool cpu_v86(const struct cpu *cpu) { return (cpu->rflags & FLAG_VM) != 0; }

/* Recompute mode, cpl, view, tlb after a change of CS, CR0, CR3, CR4, EFER, RFLAGS.AC/VM. */
void cpu_update_mode(struct cpu *cpu);
/* Bits of CR4 that the CPU model has. */
uint64_t cpu_cr4_known(const struct cpu *cpu);

#endif
