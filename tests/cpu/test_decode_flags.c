/* SPDX-License-Identifier: Apache-2.0 -- flag columns of the table against the host CPU
 *
 * Each sample without a memory operand runs twice on the host, with input flags that differ only
 * where the table says that they are not read. Then registers and written flags must be equal, and
 * flags neither written nor undefined must have kept their input.
 */
// LAYERS: cpu
#include "support/test.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/insn.h"

#define ARITH 0x8d5u
#define OFFSET_DATA 2048u

struct frame {
    uint64_t in[16];
    uint64_t out[16];
    uint64_t in_flags;
    uint64_t out_flags;
    uint64_t host_rsp;
};

static uint8_t *page;
static uint8_t scratch[4096] __attribute__((aligned(64)));
static sigjmp_buf back;

static void on_signal(int sig)
{
    siglongjmp(back, sig);
}

static void put(uint8_t **p, const void *bytes, size_t n)
{
    memcpy(*p, bytes, n);
    *p += n;
}

/* opcode with a RIP-relative operand in the frame */
static void put_rip(uint8_t **p, const char *opcode, size_t n, size_t field)
{
    put(p, opcode, n);
    int32_t disp = (int32_t)(page + OFFSET_DATA + field - (*p + 4));
    put(p, &disp, 4);
}

static void put_mov(uint8_t **p, unsigned reg, uint8_t opcode, size_t field)
{
    char mov[3] = { (char)(0x48 | (reg >> 3) << 2), (char)opcode, (char)(5 | (reg & 7) << 3) };
    put_rip(p, mov, 3, field);
}

/* A function: load the frame, run the instruction, store the frame. */
static void assemble(const uint8_t *bytes, size_t len)
{
    uint8_t *p = page;
    put(&p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbx rbp r12..r15 */
    put_mov(&p, 4, 0x89, offsetof(struct frame, host_rsp));
    put_rip(&p, "\xff\x35", 2, offsetof(struct frame, in_flags)); /* push */
    put(&p, "\x9d", 1);                                           /* popf */
    for (unsigned r = 0; r < 16; r++)
        put_mov(&p, r, 0x8b, offsetof(struct frame, in) + 8 * r);
    put(&p, bytes, len);
    for (unsigned r = 0; r < 16; r++)
        put_mov(&p, r, 0x89, offsetof(struct frame, out) + 8 * r);
    put_mov(&p, 4, 0x8b, offsetof(struct frame, host_rsp));
    put(&p, "\x9c", 1);                                            /* pushf */
    put_rip(&p, "\x8f\x05", 2, offsetof(struct frame, out_flags)); /* pop */
    put(&p, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xfc\xc3", 12); /* ..., cld, ret */
}

static bool run(struct frame *f)
{
    memcpy(page + OFFSET_DATA, f, sizeof *f);
    if (sigsetjmp(back, 1))
        return false;
    ((void (*)(void))(void *)page)();
    memcpy(f, page + OFFSET_DATA, sizeof *f);
    return true;
}

static bool usable(const struct insn *in)
{
    if (insn_info[in->row].branch != BR_NONE || (insn_info[in->row].attr & (IA_PRIV | IA_STRING)))
        return false;
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == OPND_MEM)
            return false;
    }
    switch (in->op) {
    case OP_MOV_SREG:
    case OP_POP_SREG:
    case OP_WRFSBASE:
    case OP_WRGSBASE:
    case OP_POPF:
    case OP_CLI:
    case OP_STI:
    case OP_WRPKRU:
    case OP_VMCALL:
    case OP_VMMCALL:
        return false;
    default:
        return true;
    }
}

static bool varies(unsigned op)
{
    return op == OP_RDTSC || op == OP_RDTSCP || op == OP_RDRAND || op == OP_RDSEED ||
           op == OP_CPUID || op == OP_PUSHF || /* and those that write their own input, XMM0 */
           op == OP_PCMPESTRM || op == OP_PCMPISTRM || op == OP_VPCMPESTRM || op == OP_VPCMPISTRM;
}

static unsigned compare(const struct insn *in, uint64_t *rng)
{
    const uint32_t seen = ARITH | 0x400;
    uint32_t reads = insn_flags_read(in) & seen;
    uint32_t changes = insn_flags_written(in) & seen;
    uint32_t defined = changes & ~insn_info[in->row].flags_undefined;
    struct frame a = { .in_flags = (test_random(rng) & seen) | 2 };
    for (unsigned r = 0; r < 16; r++)
        a.in[r] = test_random(rng) & (r & 1 ? 0xff : ~0ull);
    a.in[4] = (uintptr_t)(scratch + 2048);
    a.in[5] = (uintptr_t)(scratch + 2048);
    struct frame b = a;
    b.in_flags ^= test_random(rng) & seen & ~reads;
    assemble(in->bytes, in->len);
    if (!run(&a) || !run(&b))
        return 0;
    bool same = varies(in->op) ||
                (memcmp(a.out, b.out, sizeof a.out) == 0 &&
                 ((a.out_flags ^ b.out_flags) & defined) == 0);
    bool kept = ((a.in_flags ^ a.out_flags) & seen & ~changes) == 0 &&
                ((b.in_flags ^ b.out_flags) & seen & ~changes) == 0;
    if (same && kept)
        return 0;
    char text[200];
    insn_format(text, sizeof text, in, 0);
    fprintf(stderr, "# %s: flags %#x -> %#x, %#x -> %#x; reads %#x changes %#x\n", text,
            (unsigned)a.in_flags, (unsigned)a.out_flags & ~0x202u, (unsigned)b.in_flags,
            (unsigned)b.out_flags & ~0x202u, reads, changes);
    return 1;
}

static unsigned all_rows(void)
{
    uint64_t rng = 313373;
    struct cpu_features all;
    memset(&all, 0xff, sizeof all);
    unsigned bad = 0;
    unsigned ran = 0;
    for (unsigned row = 0; row < insn_info_count; row++) {
        unsigned rounds = insn_info[row].attr & IA_HOST ? 4 : 60;
        for (unsigned i = 0; i < rounds && bad < 60; i++) {
            uint8_t bytes[INSN_MAX_LEN];
            struct insn in;
            size_t n = insn_sample(row, INSN_MODE_64, &rng, bytes);
            if (n == 0 || insn_decode(&in, bytes, n, INSN_MODE_64, &all) != INSN_OK)
                break;
            if (!usable(&in))
                continue;
            bad += compare(&in, &rng);
            ran++;
        }
    }
    return bad || ran < 5000;
}

static void flags_as_the_table_says(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static uint8_t stack[65536];
        stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };
        struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER };
        static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP };
        sigaltstack(&alt, NULL);
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
            sigaction(signals[i], &sa, NULL);
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
        if (page == MAP_FAILED)
            _exit(2);
        alarm(120);
        _exit((int)all_rows());
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(flags_as_the_table_says) };
    return cmocka_run_group_tests_name("decode_flags", tests, NULL, NULL);
}
