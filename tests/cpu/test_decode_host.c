/* SPDX-License-Identifier: Apache-2.0 -- decoder: what is #UD here is #UD on the host CPU
 *
 * Candidates are run in a child with every register pointing nowhere, so that what touches memory
 * faults; only SIGILL or not is compared. Left out: what would leave the test's control (branches,
 * system calls, segment loads).
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/insn.h"
#include "cpu/model.h"

#ifdef __SANITIZE_ADDRESS__ /* its siglongjmp() reads /proc/self/maps */
enum { PER_ROW = 1, RANDOM = 4000 };
#else
enum { PER_ROW = 12, RANDOM = 100000 };
#endif

static struct cpu_features host;
static struct cpu_features offered; /* by our models */
static sigjmp_buf back;
static uint8_t *code;

static bool host_has(unsigned leaf, unsigned sub, unsigned reg, unsigned bit)
{
    unsigned r[4];
    if (leaf == 1 && reg == 2 && bit == 27)
        return false;
    if (!__get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]))
        return false;
    return r[reg] >> bit & 1;
}

static void read_host_features(void)
{
#define X(id, name, leaf, sub, reg, bit)                                                           \
    if (host_has(leaf, sub, reg, bit))                                                             \
        cpu_features_set(&host, CPU_FEATURE_##id);
    CPU_FEATURE_LIST(X)
#undef X
    unsigned r[4] = { 0 };
    __get_cpuid(0, &r[0], &r[1], &r[2], &r[3]);
    if (r[2] == signature_AMD_ecx)
        cpu_features_set(&host, CPU_FEATURE_AMD);
    cpu_features_set(&host, CPU_FEATURE_SYSCALL);
    cpu_features_clear(&host, CPU_FEATURE_CR8_LEGACY);
}

static void on_signal(int sig)
{
    siglongjmp(back, sig);
}

/* Run code[]; all registers hold a non-canonical address. Never returns: INT3 follows. */
__attribute__((noreturn)) static void jump_in(void)
{
    __asm__ volatile("push $2\n\tpopf\n\t"
                     "mov $0x7fff000000000000, %%rax\n\t"
                     "mov %%rax, %%rcx\n\tmov %%rax, %%rdx\n\t"
                     "mov %%rbx, %%r11\n\tmov %%rax, %%rbx\n\t"
                     "mov %%rax, %%rbp\n\tmov %%rax, %%rsi\n\tmov %%rax, %%rdi\n\t"
                     "mov %%rax, %%r8\n\tmov %%rax, %%r9\n\tmov %%rax, %%r10\n\t"
                     "mov %%rax, %%r12\n\tmov %%rax, %%r13\n\t"
                     "mov %%rax, %%r14\n\tmov %%rax, %%r15\n\tmov %%rax, %%rsp\n\t"
                     "jmp *%%r11"
                     :
                     : "b"(code)
                     : "memory");
    __builtin_unreachable();
}

/* The signal that ends the candidate. */
static int run(const uint8_t *bytes, size_t len)
{
    memset(code, 0xcc, 64);
    memcpy(code, "\x49\x89\xc3", 3); /* mov r11, rax */
    memcpy(code + 3, bytes, len);
    int sig = sigsetjmp(back, 1);
    if (sig == 0)
        jump_in();
    return sig;
}

/* EVEX, or an opmask instruction in VEX: AVX-512. */
static bool is_avx512(const uint8_t *b)
{
    uint8_t op = b[0] == 0xc4 ? b[3] : b[2];
    if (b[0] == 0xc4 || b[0] == 0xc5)
        return (op >= 0x41 && op <= 0x4b) || (op >= 0x90 && op <= 0x99) ||
               (b[0] == 0xc4 && op >= 0x30 && op <= 0x33);
    return b[0] == 0x62;
}

static bool may_run(const struct insn *in, enum insn_status s, const uint8_t *bytes)
{
    if (s == INSN_UD) { /* on the host it may be something else, later than we know */
        unsigned i = 0;
        while (i < 14 && bytes[i] != 0 &&
               (strchr("\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", bytes[i]) ||
                (bytes[i] & 0xf0) == 0x40))
            i++;
        if (bytes[i] == 0x0f && bytes[i + 1] != 0 &&
            strchr("\x01\x05\x07\x34", bytes[i + 1]))
            return false; /* XBEGIN's kin, ENCLU, SYSCALL */
        if (bytes[i] == 0x0f && bytes[i + 1] != 0 && strchr("\x2b\x78\x79", bytes[i + 1]))
            return false; /* SSE4A, which no model of ours has */
        if ((bytes[i] == 0xc5 && bytes[i + 2] == 0xae) ||
            (bytes[i] == 0xc4 && bytes[i + 3] == 0xae) ||
            (bytes[i] == 0x62 && bytes[i + 4] == 0xae))
            return false; /* processors differ in what they let through beside VLDMXCSR */
        if (!cpu_has(&offered, CPU_FEATURE_AVX512F) && is_avx512(bytes + i))
            return false; /* the table has only part of it, and no model has any */
        if ((bytes[i] == 0xc7 || bytes[i] == 0xc6) && bytes[i + 1] == 0xf8)
            return false; /* XBEGIN, XABORT */
        return bytes[i] != 0x8f;
    }
    if (s != INSN_OK || insn_info[in->row].branch != BR_NONE || in->mem.base == INSN_REG_RIP)
        return false;
    if ((in->flags & INSN_SEG_OVR) && in->mem.seg >= 4)
        return false;
    switch (in->op) {
    case OP_MOV_SREG:
    case OP_POP_SREG:
    case OP_LFS:
    case OP_LGS:
    case OP_LSS:
    case OP_WRFSBASE:
    case OP_WRGSBASE:
    case OP_WRPKRU:
    case OP_POPF:
    case OP_STD:
    case OP_UD0:
    case OP_UD1:
    case OP_UD2:
    case OP_VMCALL: /* the host's own hypervisor, if any, decides */
    case OP_VMMCALL:
    case OP_MONITOR:
    case OP_MWAIT:
    case OP_RSM:
    case OP_CLAC:
    case OP_STAC:
    case OP_RDPKRU:
    case OP_XSETBV:
    case OP_MOV_CR: /* #UD or #GP first: see SDM 2; either is right in user mode */
    case OP_MOV_DR:
    case OP_INVPCID:
    case OP_SYSRET:
        return false;
    case OP_XSAVES:
    case OP_XRSTORS:
        return false;
    default:
        return in->mem.base != INSN_NO_REG || in->mem.index != INSN_NO_REG || in->mem.disp == 0;
    }
}

static unsigned compare(const uint8_t *bytes, unsigned shown)
{
    struct insn in;
    enum insn_status s = insn_decode(&in, bytes, INSN_MAX_LEN, INSN_MODE_64, &host);
    if (!may_run(&in, s, bytes))
        return 0;
    int sig = run(bytes, s == INSN_OK ? in.len : INSN_MAX_LEN);
    bool ill = sig == SIGILL;
    if (ill == (s == INSN_UD))
        return 0;
    struct cpu_features all;
    memset(&all, 0xff, sizeof all);
    struct insn other;
    if (!ill && insn_decode(&other, bytes, INSN_MAX_LEN, INSN_MODE_64, &all) == INSN_OK)
        return 0; /* a hypervisor hides the feature in CPUID, and cannot make it undefined */
    if (shown < 60) {
        char text[200] = "";
        if (s == INSN_OK)
            insn_format(text, sizeof text, &in, 0);
        fprintf(stderr, "# host signal %d, here %d:", sig, s);
        for (unsigned i = 0; i < (s == INSN_OK ? in.len : 10u); i++)
            fprintf(stderr, " %02x", bytes[i]);
        fprintf(stderr, " %s\n", text);
    }
    return 1;
}

static unsigned candidates(void)
{
    uint64_t rng = 4711;
    unsigned bad = 0;
    uint8_t bytes[INSN_MAX_LEN];
    for (unsigned row = 0; row < insn_info_count; row++) {
        for (int i = 0; i < PER_ROW; i++) {
            if (insn_sample(row, INSN_MODE_64, &rng, bytes))
                bad += compare(bytes, bad);
        }
    }
    static const uint8_t lead[][3] = {
        { 0 },          { 0x0f },       { 0x66, 0x0f }, { 0xf3, 0x0f }, { 0xf2, 0x0f },
        { 0x0f, 0x38 }, { 0x0f, 0x3a }, { 0xc5 },       { 0xc4 },       { 0x62 },
    };
    for (int i = 0; i < RANDOM; i++) {
        for (unsigned j = 0; j < INSN_MAX_LEN; j++)
            bytes[j] = (uint8_t)(test_random(&rng) >> 20);
        const uint8_t *l = lead[test_random(&rng) % (sizeof lead / sizeof *lead)];
        for (unsigned j = 0; j < 3 && l[j]; j++)
            bytes[j] = l[j];
        if (bytes[0] == 0xc4)
            bytes[1] = (uint8_t)((bytes[1] & 0xe0) | (1 + bytes[1] % 3));
        if ((bytes[0] == 0xc4 || bytes[0] == 0xc5) && (bytes[5] & 1))
            bytes[bytes[0] == 0xc4 ? 2 : 1] |= 0x78; /* vvvv unused */
        if (bytes[0] == 0x62) {
            bytes[1] = (uint8_t)((bytes[1] & 0xf0) | (1 + bytes[1] % 3));
            bytes[2] |= 4;
            bytes[3] &= bytes[6] & 1 ? 0xff : 0x68;
            if (bytes[5] & 1) { /* vvvv unused */
                bytes[2] |= 0x78;
                bytes[3] |= 8;
            }
        }
        bad += compare(bytes, bad);
    }
    return bad;
}

static void undefined_as_on_the_host(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static uint8_t stack[65536];
        stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };
        struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER };
        sigaltstack(&alt, NULL);
        for (int s = 1; s < 32; s++) {
            if (s == SIGILL || s == SIGSEGV || s == SIGBUS || s == SIGFPE || s == SIGTRAP)
                sigaction(s, &sa, NULL);
        }
        code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
        if (code == MAP_FAILED)
            _exit(2);
        alarm(120);
        _exit(candidates() ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    read_host_features();
    cpu_model_host_features(&offered);
    const struct CMUnitTest tests[] = { cmocka_unit_test(undefined_as_on_the_host) };
    return cmocka_run_group_tests_name("decode_host", tests, NULL, NULL);
}
