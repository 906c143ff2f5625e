/* SPDX-License-Identifier: Apache-2.0
 *
 * Instructions of every kind with their memory operand in a device: the I/O memory of the test
 * device, which behaves as RAM does. Each is done there and in RAM, and must leave the same bytes,
 * registers and flags; also where the operand begins in RAM and ends in the device. */
#include "rt.h"

#define DEVICE 0xff000000ul
#define P 1
#define W 2
#define BYTES 256 /* of the operand's surroundings that are compared */

/* The operand is at (%rbx). name, flags that are defined after it, text */
#define OPS(X) \
    X(load, ~0ul, \
      "movq (%rbx), %rax") \
    X(stores, ~0ul, \
      "movb %al, 3(%rbx); movw %ax, 6(%rbx); movl %eax, 8(%rbx); " \
      "movq %rax, 16(%rbx)") \
    X(immediates, ~0ul, \
      "movq $-77, 8(%rbx); movl $0x12345678, 20(%rbx); movb $1, (%rbx); " \
      "movw $0x1ff, 2(%rbx)") \
    X(misaligned, ~0ul, \
      "movq %rax, 3(%rbx); movq 13(%rbx), %rdx; movl %edx, 29(%rbx); " \
      "movw 15(%rbx), %cx") \
    X(extending, ~0ul, \
      "movzbl (%rbx), %eax; movsbq 1(%rbx), %rcx; movzwl 2(%rbx), %edx; " \
      "movslq 4(%rbx), %rsi") \
    X(add_to, ~0ul, \
      "addq %rax, (%rbx); addl %ecx, 12(%rbx); addw %dx, 16(%rbx); " \
      "addb %al, (%rbx)") \
    X(add_from, ~0ul, \
      "addq (%rbx), %rax; adcl 8(%rbx), %ecx; sbbb 16(%rbx), %dl") \
    X(logic, ~0ul, \
      "sbbq %rax, (%rbx); andl $0x7fff, 8(%rbx); orb $5, 16(%rbx); " \
      "xorw %cx, 24(%rbx); cmp %eax, %eax") \
    X(compare, 0x8d5, \
      "cmpq %rax, (%rbx); setb %cl; testb $0x55, 9(%rbx); setz %dl; " \
      "cmpb $0x80, 16(%rbx)") \
    X(unary, ~0ul, \
      "incq (%rbx); decl 8(%rbx); notw 16(%rbx); negb 24(%rbx)") \
    X(multiply, 0x801, \
      "mulq (%rbx); imulq 8(%rbx), %rcx; imull $17, 16(%rbx), %esi") \
    X(divide, 0, \
      "xor %edx, %edx; movl $7, 8(%rbx); divl 8(%rbx); movb $3, (%rbx); " \
      "mov $100, %ax; idivb (%rbx)") \
    X(divide_fits, 0, \
      "xor %edx, %edx; movq $1234567, 8(%rbx); divq 8(%rbx)") \
    X(shifts, 0x1, \
      "shlq $3, (%rbx); sarl %cl, 8(%rbx); rolw $5, 16(%rbx); rcrb $1, 24(%rbx)") \
    X(double_shifts, 0x1, \
      "shldq $9, %rax, (%rbx); shrdl %cl, %edx, 8(%rbx)") \
    X(bits, 0x1, \
      "btsq $3, (%rbx); btrl $7, 8(%rbx); btcw $1, 16(%rbx); mov $70, %esi; " \
      "btq %rsi, (%rbx)") \
    X(bit_scans, 0x40, \
      "bsfq (%rbx), %rax; bsrq 8(%rbx), %rcx") \
    X(exchange, ~0ul, \
      "xchgq %rax, (%rbx); xchgb %cl, 9(%rbx); xchgw %dx, 19(%rbx)") \
    X(exchange_add, ~0ul, \
      "lock xaddq %rax, (%rbx); xaddb %cl, 9(%rbx)") \
    X(compare_exchange, ~0ul, \
      "lock cmpxchgq %rcx, (%rbx); movq (%rbx), %rax; " \
      "lock cmpxchgq %rcx, (%rbx)") \
    X(compare_exchange_8, ~0ul, \
      "lock cmpxchg8b (%rbx); movl (%rbx), %eax; movl 4(%rbx), %edx; " \
      "push %rbx; mov %rbx, %rdi; mov $77, %ebx; cmpxchg8b (%rdi); pop %rbx; " \
      "xor %edi, %edi") \
    X(locked, 0x1, \
      "lock addl %eax, 4(%rbx); lock incb 9(%rbx); lock btsl $5, 12(%rbx)") \
    X(conditions, ~0ul, \
      "cmpb $0x80, (%rbx); seta 8(%rbx); cmovaq 16(%rbx), %rax; " \
      "cmovbew 24(%rbx), %cx") \
    X(push_pop, ~0ul, \
      "pushq (%rbx); popq 32(%rbx); pushw 2(%rbx); popw 40(%rbx)") \
    X(string_out, 0, \
      "mov %rbx, %rdi; lea source, %rsi; mov $21, %ecx; rep movsb; movsw; " \
      "movsl; movsq; sub %rbx, %rdi") \
    X(string_in, 0, \
      "mov %rbx, %rsi; lea sink, %rdi; mov $5, %ecx; rep movsq; " \
      "sub %rbx, %rsi; movq sink + 16, %rax") \
    X(string_within, 0, \
      "mov %rbx, %rsi; lea 5(%rbx), %rdi; mov $9, %ecx; rep movsl; " \
      "sub %rbx, %rsi; sub %rbx, %rdi") \
    X(string_down, 0, \
      "lea 40(%rbx), %rsi; lea 48(%rbx), %rdi; mov $5, %ecx; std; rep movsq; " \
      "cld; sub %rbx, %rsi; sub %rbx, %rdi") \
    X(fill, 0, \
      "mov %rbx, %rdi; mov $3, %ecx; rep stosq; mov %rbx, %rsi; lodsw; lodsb; " \
      "sub %rbx, %rsi; sub %rbx, %rdi") \
    X(scan, 0, \
      "mov %rbx, %rdi; movb 13(%rbx), %al; mov $40, %ecx; repne scasb; " \
      "sub %rbx, %rdi") \
    X(compare_strings, 0, \
      "lea source, %rsi; mov %rbx, %rdi; movb $0x30, (%rbx); mov $8, %ecx; " \
      "repe cmpsb; sub %rbx, %rdi") \
    X(port_in, ~0ul, \
      "mov %rbx, %rdi; mov $0xe0, %edx; mov $0x11223344, %eax; outl %eax, %dx; " \
      "mov $4, %ecx; rep insl; insb; sub %rbx, %rdi") \
    X(port_out, ~0ul, \
      "mov %rbx, %rsi; mov $0xe0, %edx; mov $3, %ecx; rep outsl; " \
      "inl %dx, %eax; sub %rbx, %rsi") \
    X(jumps, ~0ul, \
      "lea 1f, %rax; movq %rax, (%rbx); jmp *(%rbx); ud2; 1: lea 2f, %rax; " \
      "movq %rax, 8(%rbx); call *8(%rbx); jmp 3f; 2: ret; 3: nop") \
    X(tables, ~0ul, \
      "sgdt (%rbx); sidt 16(%rbx); smsw 32(%rbx); sldt 34(%rbx); str 36(%rbx)") \
    X(sse_moves, ~0ul, \
      "movups (%rbx), %xmm0; movaps %xmm0, 16(%rbx); movups 5(%rbx), %xmm1; " \
      "movups %xmm1, 37(%rbx)") \
    X(sse2_moves, ~0ul, \
      "movdqa (%rbx), %xmm0; movdqu %xmm0, 33(%rbx); movntdq %xmm0, 16(%rbx); " \
      "movnti %rax, 64(%rbx)") \
    X(sse_scalars, ~0ul, \
      "movss (%rbx), %xmm0; movsd 8(%rbx), %xmm1; movss %xmm1, 4(%rbx); " \
      "movsd %xmm0, 16(%rbx); movq %xmm1, 24(%rbx); movd %xmm0, 32(%rbx)") \
    X(sse_halves, ~0ul, \
      "movlps (%rbx), %xmm0; movhps 24(%rbx), %xmm0; movhps %xmm0, 8(%rbx); " \
      "movlps %xmm0, 32(%rbx)") \
    X(sse_arithmetic, ~0ul, \
      "movups 64(%rbx), %xmm0; paddd (%rbx), %xmm0; pxor 16(%rbx), %xmm0; " \
      "pshufd $0x1b, 32(%rbx), %xmm1; punpcklbw (%rbx), %xmm1") \
    X(sse_masked, ~0ul, \
      "movups (%rbx), %xmm0; movups 16(%rbx), %xmm1; lea 32(%rbx), %rdi; " \
      "maskmovdqu %xmm1, %xmm0; xor %edi, %edi") \
    X(mmx, ~0ul, \
      "movq (%rbx), %mm0; paddw 8(%rbx), %mm0; movq %mm0, 16(%rbx); " \
      "movd %mm0, 24(%rbx); emms") \
    X(x87, 0, \
      "fninit; movq $0x3ff80000, (%rbx); shlq $32, (%rbx); fldl (%rbx); " \
      "fldl (%rbx); faddp; fstpl 8(%rbx); fldl (%rbx); fistpll 16(%rbx); " \
      "fldl (%rbx); fstps 24(%rbx); fldl (%rbx); fstpt 32(%rbx); " \
      "fldt 32(%rbx); fstpl 48(%rbx); fnstcw 56(%rbx); fnstsw 58(%rbx); " \
      "fildl 16(%rbx); fstpl 64(%rbx); fiadds 16(%rbx); fninit") \
    X(mxcsr, ~0ul, \
      "stmxcsr (%rbx); ldmxcsr (%rbx)") \
    X(stack, ~0ul, \
      "mov %rsp, %rsi; lea 128(%rbx), %rsp; push %rax; push $5; pushq %rcx; " \
      "popq %rdx; pop %rdi; call 1f; 1: mov %rsi, %rsp; xor %esi, %esi") \
    X(translate, ~0ul, \
      "mov $9, %al; xlatb") \
    X(caches, ~0ul, \
      "prefetcht0 (%rbx); prefetchnta (%rbx); prefetchw (%rbx); " \
      "clflush (%rbx); mfence; lfence; sfence")

#define DEFINE(name, mask, text)                                                                   \
    static __attribute__((naked)) void op_##name(void) { __asm__(text "; ret"); }
OPS(DEFINE)

static const struct op {
    const char *name;
    uint64_t flags;
    void (*fn)(void);
} ops[] = {
#define ROW(name, mask, text) { #name, mask, op_##name },
    OPS(ROW)
};

uint8_t source[64] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!";
uint8_t sink[64];

/* What an operation finds and leaves. */
struct state {
    uint64_t ax, cx, dx, si, di, flags;
    uint64_t vec[4];
};
struct state state;
uint64_t operand;
void (*operation)(void);

__asm__(".text\n"
        "perform:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov operand, %rbx; mov state, %rax; mov state + 8, %rcx; mov state + 16, %rdx\n"
        "    mov state + 24, %rsi; mov state + 32, %rdi\n"
        "    movups state + 48, %xmm0; movups state + 64, %xmm1\n"
        "    xor %ebp, %ebp; push $2; popfq\n"
        "    call *operation\n"
        "    mov %rax, state; mov %rcx, state + 8; mov %rdx, state + 16\n"
        "    mov %rsi, state + 24; mov %rdi, state + 32\n"
        "    pushfq; popq state + 40\n"
        "    movups %xmm0, state + 48; movups %xmm1, state + 64\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n");
void perform(void);

static void perform_arg(void *arg)
{
    (void)arg;
    perform();
}

/* Three pages: RAM, device, RAM, and three of RAM. */
#define MIXED 0x8000000000ul
#define PLAIN (MIXED + 0x10000)
extern uint64_t boot_pml4[512];
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));
static uint64_t pt[512] __attribute__((aligned(4096)));
static uint8_t ram[5][4096] __attribute__((aligned(4096)));

static void map(void)
{
    boot_pml4[1] = (word)pdpt | P | W;
    pdpt[0] = (word)pd | P | W;
    pd[0] = (word)pt | P | W;
    pt[0] = (word)ram[0] | P | W;
    pt[1] = DEVICE | P | W;
    pt[2] = (word)ram[1] | P | W;
    for (unsigned i = 0; i < 3; i++) {
        pt[16 + i] = (word)ram[2 + i] | P | W;
    }
    write_cr3(read_cr3());
}

static uint8_t pattern(unsigned i) { return (uint8_t)(i * 37 + 11); }

struct outcome {
    int vector;
    struct state state;
    uint8_t bytes[BYTES];
};

static void fill(volatile uint8_t *at)
{
    for (unsigned i = 0; i < BYTES; i++) {
        at[i] = pattern(i);
    }
}

/* at: where the surroundings begin; the operand is 64 bytes behind that. */
static void do_op(const struct op *op, uint64_t at, struct outcome *out)
{
    memset(sink, 0, sizeof sink);
    fill((volatile uint8_t *)at);
    operand = at + 64;
    operation = op->fn;
    state = (struct state){ 0x1122334455667788,
                            0x0102030405060703,
                            0x8877665544332211,
                            0x1111,
                            0x2222,
                            0,
                            { 0x3ff0000000000001, 0x4000000080000000, 0xff00ff00ff00ff00, 7 } };
    out->vector = run(perform_arg, 0);
    out->state = state;
    out->state.flags &= op->flags & 0xcd5;
    for (unsigned i = 0; i < BYTES; i++) {
        out->bytes[i] = ((volatile uint8_t *)at)[i];
    }
}

static bool differ(const void *a, const void *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) {
            return true;
        }
    }
    return false;
}

static void report(const struct op *op, const struct outcome *want, const struct outcome *got)
{
    print("# ");
    print(op->name);
    print(": vector ");
    print_hex((uint32_t)got->vector);
    print(" want ");
    print_hex((uint32_t)want->vector);
    const uint64_t *a = (const uint64_t *)&got->state, *b = (const uint64_t *)&want->state;
    for (unsigned i = 0; i < sizeof(struct state) / 8; i++) {
        if (a[i] != b[i]) {
            print(" register ");
            print_hex(i);
            print(": ");
            print_hex(a[i]);
            print(" want ");
            print_hex(b[i]);
        }
    }
    for (unsigned i = 0; i < BYTES; i++) {
        if (got->bytes[i] != want->bytes[i]) {
            print(" byte ");
            print_hex((uint64_t)i - 64);
            print(": ");
            print_hex(got->bytes[i]);
            print(" want ");
            print_hex(want->bytes[i]);
        }
    }
    print("\n");
}

static struct outcome want, got;

/* offset: of the surroundings within the three pages. */
static void all(unsigned offset, const char *name)
{
    unsigned bad = 0;
    bool aligned = offset % 16 == 0; /* then nothing faults */
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        do_op(&ops[i], PLAIN + offset, &want);
        /* Twice: what an engine does again, it may do in another way. */
        for (unsigned round = 0; round < 2; round++) {
            do_op(&ops[i], MIXED + offset, &got);
            bool wrong = got.vector != want.vector || (aligned && got.vector != NONE) ||
                         differ(&got.state, &want.state, sizeof got.state) ||
                         differ(got.bytes, want.bytes, BYTES);
            if (wrong) {
                report(&ops[i], &want, &got);
                bad++;
                break;
            }
        }
    }
    ok_eq(bad, 0, name);
}

int test_main(void)
{
    map();
    all(4096, "in the device");
    all(4096 + 2048, "in the device's middle");
    all(4096 - 64 - 16, "from RAM into the device, after 16 bytes");
    all(4096 - 64 - 32, "after 32 bytes");
    all(4096 - 64 - 4, "after 4 bytes");
    all(4096 - 64 - 1, "after 1 byte");
    all(8192 - 64 - 16, "from the device into RAM, after 16 bytes");
    all(8192 - 64 - 6, "after 6 bytes");
    return 0;
}
