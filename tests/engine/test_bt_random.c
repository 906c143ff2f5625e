/* SPDX-License-Identifier: Apache-2.0
 *
 * Random programs under bt and under interp in real, virtual-8086, 32-bit and 64-bit mode: random
 * instructions with conditional jumps over some of them, run several times so that blocks link,
 * ended by HLT or by a fault. Registers, memory, vector and x87 state must be equal.
 *
 * Once more in virtual time, where the counter of time is the number of instructions: both are
 * stopped every few of them, and every flag and the count must be equal, too.
 *
 * RANDOM_SEED: another sequence; RANDOM_COUNT: programs per mode.
 */
// LAYERS: engine/bt engine/interp engine cpu mem state base
#include "support/test.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/bits.h"
#include "support/vm.h"

#define DATA 0x20000u
#define DATA_SIZE 0x10000u
#define CODE_MAX 512u
#define V86 86u
#define COUNTED_MAX 300u /* instructions of a program in virtual time */

struct pair {
    struct vm *vm[2]; /* bt, interp */
    uint64_t rng;
    uint8_t code[CODE_MAX];
    unsigned len;
    unsigned bits;
    bool counted; /* in virtual time */
    uint64_t undefined; /* flags that some instruction leaves undefined */
};

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 0) : otherwise;
}

static enum insn_mode decode_mode(unsigned bits)
{
    return bits == 64 ? INSN_MODE_64 : bits == 32 ? INSN_MODE_32 : INSN_MODE_16;
}

/* Time, chance, devices; control flow is the program's own; repeated strings take too long. */
static bool unwanted(const struct pair *p, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    switch (in->op) {
    case OP_RDTSC:
    case OP_RDTSCP:
        return !p->counted;
    case OP_IN:
    case OP_OUT:
    case OP_INS:
    case OP_OUTS:
    case OP_CPUID:
    case OP_RDRAND:
    case OP_RDSEED:
    case OP_LDMXCSR: /* unmasked exceptions are signals, which the test framework takes */
    case OP_VLDMXCSR:
    case OP_FXRSTOR:
    case OP_XRSTOR:
    case OP_RCL: /* OF is undefined, and may be what a jump asks for */
    case OP_RCR:
    case OP_MOV_SREG: /* data would be anywhere */
    case OP_POP_SREG:
    case OP_LDS:
    case OP_LES:
    case OP_LFS:
    case OP_LGS:
        return true;
    default:
        return info->branch != BR_NONE || (info->attr & (IA_ENDS_BLOCK | IA_PRIV)) ||
               ((info->attr & IA_STRING) && (in->flags & (INSN_REP | INSN_REPNE)));
    }
}

static unsigned random_insn(struct pair *p, uint8_t out[INSN_MAX_LEN])
{
    enum insn_mode mode = decode_mode(p->bits);
    for (;;) {
        struct insn in;
        unsigned row = (unsigned)(test_random(&p->rng) >> 32) % insn_info_count;
        size_t n = insn_sample(row, mode, &p->rng, out);
        if (n == 0 || insn_decode(&in, out, n, mode, &p->vm[0]->model.features) != INSN_OK ||
            in.len != n || unwanted(p, &in))
            continue;
        p->undefined |= insn_info[in.row].flags_undefined;
        return (unsigned)n;
    }
}

static void make_program(struct pair *p)
{
    unsigned count = 1 + (unsigned)(test_random(&p->rng) >> 40) % 12;
    p->len = 0;
    p->undefined = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t insn[INSN_MAX_LEN];
        unsigned n = random_insn(p, insn);
        if ((test_random(&p->rng) >> 40) % 3 == 0) { /* jcc over it */
            p->code[p->len++] = 0x70 | (test_random(&p->rng) >> 40 & 15);
            p->code[p->len++] = (uint8_t)n;
        }
        memcpy(p->code + p->len, insn, n);
        p->len += n;
    }
    p->code[p->len++] = 0xf4;
}

static uint64_t random_register(struct pair *p)
{
    uint64_t v = test_random(&p->rng);
    switch (v >> 60) {
    case 0: return v & 0xff;
    case 1: return 0x8000000000000000ull >> (v & 63);
    case 2:
    case 3: return p->bits == 16 || p->bits == V86 ? v & 0xffff : v & 0xfff0ff;
    case 4: return VM_MMIO + (v & 0xff8);
    case 5: return v;
    default: return DATA + (v & 0xffff);
    }
}

/* Every vector of real mode ends at a HLT; protected mode has no IDT here, a fault shuts down. */
static void small_vectors(struct vm *vm, unsigned bits)
{
    static const uint8_t vector[4] = { 0, 0, 0x50, 0 }; /* 0050:0000 */
    if (bits == 16) {
        for (unsigned i = 0; i < 256; i++) {
            memcpy(vm->ram + 4 * i, vector, 4);
        }
        vm->ram[0x500] = 0xf4;
    } else if (bits != 64) {
        vm->cpu[0]->idtr = (struct cpu_dtable){ 0, 0 };
    }
}

/* Segments of virtual-8086 and real mode: data at DATA. */
static void small_segments(struct cpu *c, unsigned bits)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        uint64_t base = i == SEG_CS ? VM_CODE : i == SEG_SS ? VM_STACK - 0x10000 : DATA;
        c->seg[i] = (struct cpu_seg){ .base = base, .limit = 0xffff, .attr = 0x93,
                                     .sel = base >> 4 };
        if (bits == V86)
            c->seg[i].attr = 0xf3;
    }
}

static void load_state(struct pair *p, unsigned which, uint64_t seed)
{
    struct vm *vm = p->vm[which];
    struct cpu *c = vm->cpu[0];
    uint64_t keep = p->rng;
    p->rng = seed | 1;
    vm_mode(vm, 0, p->bits == V86 ? 16 : p->bits);
    if (p->bits == V86 || p->bits == 16)
        small_segments(c, p->bits);
    small_vectors(vm, p->bits);
    if (p->bits == V86) {
        c->cr0 |= CR0_PE;
        c->rflags |= FLAG_VM | 3 << 12;
    }
    for (unsigned i = 0; i < 16; i++) {
        c->gpr[i] = random_register(p);
        if (p->bits != 64)
            c->gpr[i] = i < 8 ? (uint32_t)c->gpr[i] : 0;
    }
    c->gpr[R_SP] = p->bits == 64 || p->bits == 32 ? VM_STACK : 0xff00;
    c->rip = p->bits == 64 || p->bits == 32 ? VM_CODE : 0;
    c->rflags |= test_random(&p->rng) & (uint64_t)FLAGS_ARITH;
    c->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    c->xcr0 = 7;
    memset(&c->fpu, 0, sizeof c->fpu);
    c->fpu.fx[FX_FCW] = 0x7f;
    c->fpu.fx[FX_FCW + 1] = 0x03;
    c->fpu.fx[FX_MXCSR] = 0x80;
    c->fpu.fx[FX_MXCSR + 1] = 0x1f;
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned j = 0; j < 4; j++) {
            c->fpu.zmm[i].u64[j] = test_random(&p->rng);
        }
    }
    memset(&c->exc, 0, sizeof c->exc);
    cpu_update_mode(c);
    p->rng = keep;
}

static void report(const struct pair *p, const char *what)
{
    uint64_t ip = 0;
    print_error("%s, %u bits:\n", what, p->bits);
    for (unsigned at = 0; at < p->len;) {
        struct insn in;
        char text[96];
        if (insn_decode(&in, p->code + at, p->len - at, decode_mode(p->bits),
                        &p->vm[0]->model.features) != INSN_OK)
            break;
        insn_format(text, sizeof text, &in, ip + at);
        print_error("  %3u %s\n", at, text);
        at += in.len;
    }
    const struct cpu *a = p->vm[0]->cpu[0];
    const struct cpu *b = p->vm[1]->cpu[0];
    for (unsigned i = 0; i < 16; i++) {
        if (a->gpr[i] != b->gpr[i])
            print_error("  r%u bt %llx interp %llx\n", i, (unsigned long long)a->gpr[i],
                        (unsigned long long)b->gpr[i]);
    }
    print_error("  instructions %llu %llu\n", (unsigned long long)a->icount,
                (unsigned long long)b->icount);
    print_error("  rip %llx %llx rflags %llx %llx vector %u %u error %x %x cr2 %llx %llx\n",
                (unsigned long long)a->rip, (unsigned long long)b->rip,
                (unsigned long long)a->rflags, (unsigned long long)b->rflags, a->exc.vector,
                b->exc.vector, a->exc.error, b->exc.error, (unsigned long long)a->cr2,
                (unsigned long long)b->cr2);
}

static const char *compare(const struct pair *p, enum engine_exit x, enum engine_exit y)
{
    const struct cpu *a = p->vm[0]->cpu[0];
    const struct cpu *b = p->vm[1]->cpu[0];
    uint64_t flags = p->counted ? ~0ull : ~p->undefined;
    /* Flags that nobody would have read may differ where a fault ended it. */
    if (!p->counted && (x == ENGINE_EXIT_SHUTDOWN || vm_vector(p->vm[0], 0) >= 0 || p->bits == 16))
        flags &= ~(uint64_t)FLAGS_ARITH;
    if (x != y)
        return "exit";
    if (p->counted && a->icount != b->icount)
        return "count";
    if (memcmp(a->gpr, b->gpr, sizeof a->gpr) != 0)
        return "registers";
    if (a->rip != b->rip || a->exc.vector != b->exc.vector || a->exc.error != b->exc.error ||
        a->cr2 != b->cr2)
        return "fault";
    if ((a->rflags ^ b->rflags) & flags)
        return "flags";
    if (memcmp(a->fpu.zmm, b->fpu.zmm, sizeof a->fpu.zmm) != 0)
        return "vectors";
    if (memcmp(a->fpu.fx, b->fpu.fx, 160) != 0)
        return "x87";
    if (memcmp(p->vm[0]->ram + DATA, p->vm[1]->ram + DATA, DATA_SIZE) != 0)
        return "memory";
    return NULL;
}

/* The same random data for both. */
static void fill_data(struct pair *p)
{
    for (unsigned i = 0; i < DATA_SIZE; i += 8) {
        uint64_t v = test_random(&p->rng);
        vm_poke(p->vm[0], DATA + i, &v, 8);
        vm_poke(p->vm[1], DATA + i, &v, 8);
    }
}

/* A program that wrote itself into an endless loop is given up. The time is the process' own, as
 * others may be busy. The handler has a stack of its own: translated code has RSP elsewhere. */
#define PATIENCE_US 100000
static struct pair *running;
static uint8_t signal_stack[65536];

static void on_alarm(int sig)
{
    (void)sig;
    for (unsigned i = 0; running != NULL && i < 2; i++) {
        cpu_raise_event(running->vm[i]->cpu[0], CPU_EV_KICK);
    }
}

static void set_alarm(unsigned us)
{
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){ .it_value.tv_usec = us }, NULL);
}

static void watch(struct pair *p)
{
    const stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof signal_stack };
    const struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_ONSTACK };
    running = p;
    sigaltstack(&stack, NULL);
    sigaction(SIGVTALRM, &action, NULL);
}

/* The two were stopped at different points. */
static void make_equal(struct pair *p)
{
    vm_poke(p->vm[1], 0, p->vm[0]->ram, VM_RAM);
    fill_data(p);
}

/* To its end, or as far as it is worth it. What differs, or NULL. */
static const char *run_counted(struct pair *p, enum engine_exit x[2])
{
    const char *what = NULL;
    uint64_t stop = 0;
    while (what == NULL && x[0] == ENGINE_EXIT_LIMIT && stop < COUNTED_MAX &&
           p->vm[0]->cpu[0]->activity == CPU_ACTIVE) { /* vm_run would go on after HLT */
        stop += 1 + (test_random(&p->rng) >> 40) % 24;
        for (unsigned i = 0; i < 2; i++) {
            p->vm[i]->cpu[0]->icount_limit = stop;
            set_alarm(PATIENCE_US); /* anew: vm_run clears what it left */
            x[i] = vm_run(p->vm[i], 0);
        }
        what = compare(p, x[0], x[1]);
    }
    return what;
}

/* Returns false when there is a difference. */
static bool run_program(struct pair *p)
{
    make_program(p);
    for (unsigned i = 0; i < 2; i++) {
        vm_poke(p->vm[i], VM_CODE, p->code, p->len);
    }
    for (unsigned run = 0; run < 4; run++) {
        enum engine_exit x[2];
        uint64_t seed = test_random(&p->rng);
        const char *what = NULL;
        for (unsigned i = 0; i < 2; i++) {
            load_state(p, i, seed);
            p->vm[i]->cpu[0]->icount = 0;
            set_alarm(PATIENCE_US);
            x[i] = p->counted ? ENGINE_EXIT_LIMIT : vm_run(p->vm[i], 0);
        }
        if (p->counted)
            what = run_counted(p, x);
        set_alarm(0);
        if (x[0] == ENGINE_EXIT_KICK || x[1] == ENGINE_EXIT_KICK) {
            make_equal(p);
            return true;
        }
        if (!p->counted)
            what = compare(p, x[0], x[1]);
        if (what != NULL) {
            report(p, what);
            return false;
        }
    }
    return true;
}

static uint64_t count_as_time(void *ctx)
{
    const struct vm *vm = ctx;
    return vm->cpu[0]->icount;
}

static void programs(unsigned bits, bool counted)
{
    struct pair p = { .bits = bits, .counted = counted };
    unsigned long bad = 0;
    uint64_t count = number("RANDOM_COUNT", 1000);
    p.rng = number("RANDOM_SEED", 1) * 0x9e3779b97f4a7c15ull + bits;
    for (unsigned i = 0; i < 2; i++) {
        p.vm[i] = vm_new_config(1, i == 0 ? &bt_engine : &interp_engine,
                                &(struct engine_config){ .virtual_time = counted });
        p.vm[i]->world.tsc = count_as_time;
    }
    watch(&p);
    for (uint64_t n = 0; n < count && bad < 5; n++) {
        if (n % 64 == 0)
            fill_data(&p);
        bad += !run_program(&p);
    }
    running = NULL;
    vm_free(p.vm[0]);
    vm_free(p.vm[1]);
    assert_int_equal(bad, 0);
}

static void real_mode(void **state)
{
    (void)state;
    programs(16, false);
    programs(16, true);
}

static void virtual_8086(void **state)
{
    (void)state;
    programs(V86, false);
    programs(V86, true);
}

static void flat_32(void **state)
{
    (void)state;
    programs(32, false);
    programs(32, true);
}

static void long_mode(void **state)
{
    (void)state;
    programs(64, false);
    programs(64, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_mode),
        cmocka_unit_test(virtual_8086),
        cmocka_unit_test(flat_32),
        cmocka_unit_test(long_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
