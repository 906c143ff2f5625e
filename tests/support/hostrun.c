/* SPDX-License-Identifier: Apache-2.0
 *
 * See hostrun.h. Registers are loaded by assembly that ends in a jump to the code (a far one into a
 * 32-bit code segment for compatibility mode); every way out is a signal, whose frame holds the
 * whole state. The handler copies it and jumps back.
 */
#include "support/hostrun.h"

#include <asm/ldt.h>
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define LINUX_CS32 0x23u /* what Linux gives 32-bit programs */
#define LINUX_DS 0x2bu
#define XSAVE_SIZE 4096u
/* Of the process' own time, so that a busy machine makes no difference: a case that runs through
 * one whole tick hangs. */
#define TICK_US 200000

/* One process-wide instance, as the signal handlers need. */
static struct {
    struct insn_state regs; /* loaded by the assembly: gpr[], rflags */
    _Alignas(64) uint8_t xsave[XSAVE_SIZE];
    sigjmp_buf back;
    struct insn_outcome *out;
    volatile bool running;
    unsigned serial; /* of the case, so that the timer knows a hang */
    unsigned serial_at_tick;
    void (*tick)(void);
    uint64_t fs_base;
    struct {
        uint32_t opmask, zmm_hi, hi16_zmm;
    } offset; /* in the host's XSAVE area; 0: not there */
    uint64_t gpr_mask; /* upper halves mean nothing outside 64-bit mode; of RSP they leak */
} run;

static uint8_t signal_stack[65536];

static const int signals[] = { SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGBUS, SIGPROF };
#define SIGNALS (sizeof signals / sizeof signals[0])
static struct sigaction saved[SIGNALS];

/* Offsets into struct insn_state that the assembly uses. */
_Static_assert(offsetof(struct insn_state, gpr) == 0 && offsetof(struct insn_state, rip) == 128 &&
                   offsetof(struct insn_state, rflags) == 136,
               "the assembly below loads these");

/* Load everything from the given insn_state (rdi), then jump: rsi = 0 near to *target, 1 far. The
 * state's own address must survive until the last load, hence RIP-relative operands for the jump
 * and rdi last. */
__asm__(".text\n"
        "hostrun_enter:\n"
        "  mov %rdi, %r15\n"
        "  mov (run_xsave_mask)(%rip), %rax\n"
        "  mov %rax, %rdx\n"
        "  shr $32, %rdx\n"
        "  mov (run_xsave_area)(%rip), %rcx\n"
        "  xrstor64 (%rcx)\n"
        "  mov %rsi, %rbx\n"
        "  test %rbx, %rbx\n"
        "  pushq 136(%r15)\n"
        "  jnz 1f\n"
        "  popfq\n"
        "  mov 0(%r15), %rax\n"
        "  mov 8(%r15), %rcx\n"
        "  mov 16(%r15), %rdx\n"
        "  mov 24(%r15), %rbx\n"
        "  mov 32(%r15), %rsp\n"
        "  mov 40(%r15), %rbp\n"
        "  mov 48(%r15), %rsi\n"
        "  mov 56(%r15), %rdi\n"
        "  mov 64(%r15), %r8\n"
        "  mov 72(%r15), %r9\n"
        "  mov 80(%r15), %r10\n"
        "  mov 88(%r15), %r11\n"
        "  mov 96(%r15), %r12\n"
        "  mov 104(%r15), %r13\n"
        "  mov 112(%r15), %r14\n"
        "  mov 120(%r15), %r15\n"
        "  jmp *run_target(%rip)\n"
        "1:\n"
        "  popfq\n"
        "  mov run_ds(%rip), %eax\n"
        "  mov %eax, %ds\n"
        "  mov %eax, %es\n"
        "  mov run_ss(%rip), %eax\n"
        "  mov %eax, %ss\n"
        "  mov 0(%r15), %rax\n"
        "  mov 8(%r15), %rcx\n"
        "  mov 16(%r15), %rdx\n"
        "  mov 24(%r15), %rbx\n"
        "  mov 32(%r15), %rsp\n"
        "  mov 40(%r15), %rbp\n"
        "  mov 48(%r15), %rsi\n"
        "  mov 56(%r15), %rdi\n"
        "  ljmp *run_far_target(%rip)\n"
        ".data\n"
        ".align 8\n"
        "run_xsave_mask: .quad 0\n"
        "run_xsave_area: .quad 0\n"
        "run_target: .quad 0\n"
        "run_far_target: .quad 0\n"
        "run_ds: .long 0\n"
        "run_ss: .long 0\n"
        ".text\n");
extern void hostrun_enter(const struct insn_state *state, uint64_t far);
extern uint64_t run_xsave_mask;
extern uint64_t run_xsave_area;
extern uint64_t run_target;
extern uint64_t run_far_target;
extern uint32_t run_ds;
extern uint32_t run_ss;

/* Standard format; each component is there when its bit is set. */
static void save_avx512(struct insn_state *s, const uint8_t *frame, uint64_t bv)
{
    if (bv >> 5 & 1)
        memcpy(s->k, frame + run.offset.opmask, sizeof s->k);
    for (unsigned i = 0; i < 16; i++) {
        if (bv >> 6 & 1)
            memcpy(s->zmm[i] + 32, frame + run.offset.zmm_hi + 32 * i, 32);
        if (bv >> 7 & 1)
            memcpy(s->zmm[16 + i], frame + run.offset.hi16_zmm + 64 * i, 64);
    }
}

static void save_vectors(struct insn_state *s, const uint8_t *frame)
{
    uint64_t bv;
    memcpy(&bv, frame + 512, sizeof bv);
    memset(s->zmm, 0, sizeof s->zmm);
    memset(s->k, 0, sizeof s->k);
    memcpy(s->fx, frame, sizeof s->fx);
    if (!(bv & 1)) {
        uint16_t fcw = 0x37f;
        uint8_t mxcsr[4];
        memcpy(mxcsr, frame + 24, sizeof mxcsr);
        memset(s->fx, 0, sizeof s->fx);
        memcpy(s->fx, &fcw, sizeof fcw);
        memcpy(s->fx + 24, mxcsr, sizeof mxcsr);
    }
    memset(s->fx + 28, 0, 4); /* MXCSR_MASK */
    for (unsigned i = 0; i < 16; i++) {
        if (bv & 2)
            memcpy(s->zmm[i], frame + 160 + 16 * i, 16);
        if (bv & 4)
            memcpy(s->zmm[i] + 16, frame + 576 + 16 * i, 16);
    }
    if (run.offset.opmask != 0)
        save_avx512(s, frame, bv);
}

static void on_signal(int sig, siginfo_t *info, void *ucontext)
{
    static const uint8_t order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15 };
    const ucontext_t *uc = ucontext;
    const greg_t *regs = uc->uc_mcontext.gregs;
    (void)info;
    if (sig == SIGPROF) {
        if (run.tick != NULL)
            run.tick();
        bool hangs = run.running && run.serial == run.serial_at_tick;
        run.serial_at_tick = run.serial;
        if (!hangs)
            return;
    }
    if (!run.running) { /* a fault of the test program itself */
        signal(sig, SIG_DFL);
        return;
    }
    run.running = false;
    struct insn_outcome *out = run.out;
    out->timeout = sig == SIGPROF;
    out->vector = (unsigned)regs[REG_TRAPNO];
    bool has_error = out->vector == 8 || (out->vector >= 10 && out->vector <= 14) ||
                     out->vector == 17;
    out->error = has_error ? (uint32_t)regs[REG_ERR] : 0;
    out->cr2 = out->vector == 14 ? (uint64_t)regs[REG_CR2] : 0;
    for (unsigned i = 0; i < 16; i++) {
        out->state.gpr[i] = (uint64_t)regs[order[i]] & run.gpr_mask;
    }
    out->state.rip = (uint64_t)regs[REG_RIP];
    out->state.rflags = (uint64_t)regs[REG_EFL];
    save_vectors(&out->state, (const uint8_t *)uc->uc_mcontext.fpregs);
    siglongjmp(run.back, 1);
}

static int map_fixed(uintptr_t at, size_t size, int prot)
{
    void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                   0);
    return p == (void *)at ? 0 : -errno;
}

static int map_regions(void)
{
    int r = map_fixed(IS_CODE, IS_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (r == 0)
        r = map_fixed(IS_DATA - 0x10000, 0x30000, PROT_NONE); /* keeps others away */
    if (r == 0)
        r = map_fixed(IS_STACK - 0x10000, 0x20000, PROT_NONE);
    if (r < 0)
        return r;
    if (mprotect((void *)(uintptr_t)IS_DATA, 0x2000, PROT_READ | PROT_WRITE) < 0 ||
        mprotect((void *)(uintptr_t)IS_DATA_RDONLY, 0x1000, PROT_READ | PROT_WRITE) < 0 ||
        mprotect((void *)(uintptr_t)IS_STACK, IS_STACK_SIZE, PROT_READ | PROT_WRITE) < 0)
        return -errno;
    memset((void *)(uintptr_t)IS_CODE, 0xcc, IS_CODE_SIZE);
    return 0;
}

static int set_ldt(unsigned selector, uint32_t base, uint32_t limit, unsigned contents)
{
    struct user_desc d = { .entry_number = selector >> 3,
                           .base_addr = base,
                           .limit = limit,
                           .contents = contents,
                           .useable = 0 };
    return syscall(SYS_modify_ldt, 0x11, &d, sizeof d) < 0 ? -errno : 0;
}

static int make_ldt(void)
{
    int r = set_ldt(IS_SEL_CS16, IS_CODE, IS_LIMIT_CS16, MODIFY_LDT_CONTENTS_CODE);
    if (r == 0)
        r = set_ldt(IS_SEL_DS16, IS_DATA, IS_LIMIT_DS16, MODIFY_LDT_CONTENTS_DATA);
    if (r == 0)
        r = set_ldt(IS_SEL_SS16, IS_STACK, IS_LIMIT_SS16, MODIFY_LDT_CONTENTS_DATA);
    return r;
}

static uint32_t xsave_offset(unsigned component)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    __get_cpuid_count(0xd, component, &a, &b, &c, &d);
    return b;
}

int hostrun_init(void)
{
    int r = map_regions();
    if (r < 0)
        return r;
    stack_t ss = { .ss_sp = signal_stack, .ss_size = sizeof signal_stack };
    if (sigaltstack(&ss, NULL) < 0)
        return -errno;
    struct sigaction sa = { .sa_sigaction = on_signal,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    for (unsigned i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], &sa, NULL);
    }
    uint32_t lo;
    uint32_t hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    run_xsave_mask = lo & 0xe7; /* x87, SSE, AVX, AVX-512 */
    if ((lo & 0xe0) == 0xe0) {
        run.offset.opmask = xsave_offset(5);
        run.offset.zmm_hi = xsave_offset(6);
        run.offset.hi16_zmm = xsave_offset(7);
    }
    run_xsave_area = (uint64_t)(uintptr_t)run.xsave;
    if (syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &run.fs_base) < 0)
        return -errno;
    struct itimerval t = { .it_interval = { .tv_usec = TICK_US },
                           .it_value = { .tv_usec = TICK_US } };
    setitimer(ITIMER_PROF, &t, NULL);
    return make_ldt();
}

void hostrun_save_handlers(void)
{
    for (unsigned i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], NULL, &saved[i]);
    }
}

void hostrun_restore_handlers(void)
{
    for (unsigned i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], &saved[i], NULL);
    }
}

void hostrun_on_tick(void (*tick)(void)) { run.tick = tick; }

uint64_t hostrun_fs_base(void) { return run.fs_base; }

bool hostrun_hides_x87_pointers(void)
{
    struct insn_state s = { .fx = { 0x7f, 3, [8] = 1, [25] = 0x1f, [24] = 0x80 }, .rflags = 0x202 };
    struct insn_outcome o;
    s.rip = IS_CODE;
    hostrun_set_code(0, (const uint8_t *)"\xcc", 1);
    hostrun_run(IS_MODE_64, &s, &o);
    return o.state.fx[8] == 0;
}

void hostrun_set_code(unsigned offset, const uint8_t *code, size_t len)
{
    memset((void *)(uintptr_t)(IS_CODE + (offset & ~63u)), 0xcc, 192);
    memcpy((void *)(uintptr_t)(IS_CODE + offset), code, len);
}

static void protect_rdonly(int prot) { mprotect((void *)(uintptr_t)IS_DATA_RDONLY, 0x1000, prot); }

void hostrun_set_memory(const uint8_t image[IS_MEM_SIZE])
{
    static uint8_t rdonly[0x1000];
    static bool made;
    memcpy((void *)(uintptr_t)IS_DATA, image, 0x2000);
    memcpy((void *)(uintptr_t)IS_STACK, image + 0x3000, IS_STACK_SIZE);
    if (!made || memcmp(rdonly, image + 0x2000, sizeof rdonly) != 0) {
        protect_rdonly(PROT_READ | PROT_WRITE);
        memcpy((void *)(uintptr_t)IS_DATA_RDONLY, image + 0x2000, 0x1000);
        protect_rdonly(PROT_READ);
        memcpy(rdonly, image + 0x2000, sizeof rdonly);
        /* A read fault after mprotect would be the kernel's, but populate it all the same. */
        made = true;
    }
}

void hostrun_get_memory(uint8_t image[IS_MEM_SIZE])
{
    memcpy(image, (void *)(uintptr_t)IS_DATA, 0x2000);
    memcpy(image + 0x2000, (void *)(uintptr_t)IS_DATA_RDONLY, 0x1000);
    memcpy(image + 0x3000, (void *)(uintptr_t)IS_STACK, 0x1000);
}

bool hostrun_memory_equals(const uint8_t image[IS_MEM_SIZE])
{
    return memcmp(image, (void *)(uintptr_t)IS_DATA, 0x2000) == 0 &&
           memcmp(image + 0x2000, (void *)(uintptr_t)IS_DATA_RDONLY, 0x1000) == 0 &&
           memcmp(image + 0x3000, (void *)(uintptr_t)IS_STACK, 0x1000) == 0;
}

static void prepare_xsave(const struct insn_state *in)
{
    uint64_t bv = run.offset.opmask != 0 ? 0xe7 : 7;
    memset(run.xsave + 512, 0, 64);
    memcpy(run.xsave, in->fx, sizeof in->fx);
    memcpy(run.xsave + 512, &bv, sizeof bv);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(run.xsave + 160 + 16 * i, in->zmm[i], 16);
        memcpy(run.xsave + 576 + 16 * i, in->zmm[i] + 16, 16);
    }
    if (run.offset.opmask == 0)
        return;
    memcpy(run.xsave + run.offset.opmask, in->k, sizeof in->k);
    memcpy(run.xsave + run.offset.hi16_zmm, in->zmm[16], 1024);
    for (unsigned i = 0; i < 16; i++)
        memcpy(run.xsave + run.offset.zmm_hi + 32 * i, in->zmm[i] + 32, 32);
}

void hostrun_run(enum is_mode mode, const struct insn_state *in, struct insn_outcome *out)
{
    prepare_xsave(in);
    run.regs = *in;
    run.out = out;
    run.serial++;
    run.gpr_mask = mode == IS_MODE_64 ? ~0ull : 0xffffffff;
    run_target = in->rip;
    uint64_t cs = mode == IS_MODE_32 ? LINUX_CS32 : IS_SEL_CS16;
    run_far_target = (in->rip & 0xffffffff) | cs << 32;
    run_ds = mode == IS_MODE_32 ? LINUX_DS : IS_SEL_DS16;
    run_ss = mode == IS_MODE_32 ? LINUX_DS : IS_SEL_SS16;
    if (sigsetjmp(run.back, 0) == 0) {
        run.running = true;
        hostrun_enter(&run.regs, mode != IS_MODE_64);
    }
}
