/* SPDX-License-Identifier: Apache-2.0
 *
 * The system side of x87, SSE, AVX and AVX-512: CR0.EM, TS, MP, NE, CR4.OSFXSR, OSXMMEXCPT,
 * OSXSAVE, XCR0; XSAVE and its kin; and alignment checks at CPL 3. */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

uint8_t area[4096] __attribute__((aligned(64)));
uint8_t area2[4096] __attribute__((aligned(64)));
uint64_t data[8] __attribute__((aligned(64)));
uint32_t cw;

CODE(do_fld1, "fld1\n fstp %st(0)");
CODE(do_fwait, "fwait");
CODE(do_movaps, "movaps %xmm0, data");
CODE(do_emms, "emms");
CODE(do_vmovaps, "vmovaps %ymm0, data");
CODE(do_fxsave, "fxsave area");
CODE(do_fxsave_odd, "fxsave area + 8");
CODE(do_xsave, "mov $-1, %eax\n mov %eax, %edx\n xsave area");
CODE(do_xsave_odd, "mov $-1, %eax\n mov %eax, %edx\n xsave area + 32");
CODE(do_xrstor, "mov $-1, %eax\n mov %eax, %edx\n xrstor area");
CODE(do_xsavec, "mov $-1, %eax\n mov %eax, %edx\n xsavec area2");
CODE(do_xrstor2, "mov $-1, %eax\n mov %eax, %edx\n xrstor area2");
CODE(do_xgetbv, "xor %ecx, %ecx\n xgetbv\n mov %eax, cw");
CODE(do_ldmxcsr, "movl $0xffff0000, cw\n ldmxcsr cw");
CODE(do_sse_div0, "movl $0x1d80, cw\n ldmxcsr cw\n xorps %xmm0, %xmm0\n movl $0x3f800000, cw\n"
                  "movss cw, %xmm1\n divss %xmm0, %xmm1");
CODE(do_mxcsr_reset, "movl $0x1f80, cw\n ldmxcsr cw");
CODE(do_x87_div0,
     "fninit\n movw $0x37b, cw\n fldcw cw\n fldz\n fld1\n fdiv %st(1), %st\n xd: fwait");
CODE(do_fninit, "fninit");
CODE(load_ymm, "movl $0x3f800000, cw\n vbroadcastss cw, %ymm0\n vmovaps %ymm0, %ymm9");
CODE(clear_ymm, "vzeroall");
CODE(store_ymm9, "vmovaps %ymm9, data");
CODE(do_xsetbv, "mov cw, %eax\n xor %edx, %edx\n xor %ecx, %ecx\n xsetbv");
CODE(do_evex, "vmovdqu64 %xmm31, data");
CODE(do_kmov, "kmovw %k1, %eax");
CODE(load_zmm31, "movl $0x3f800000, cw\n vbroadcastss cw, %zmm31\n vmovaps %zmm31, %zmm9\n"
                 "mov $0x5aa5, %eax\n kmovw %eax, %k5");
CODE(clear_zmm, "vpxord %zmm31, %zmm31, %zmm31\n vpxord %zmm9, %zmm9, %zmm9\n kxorw %k5, %k5, %k5");
CODE(store_zmm31, "vpaddd %zmm9, %zmm31, %zmm31\n vmovdqa64 %zmm31, data\n kmovw %k5, cw");
extern uint8_t xd[];

static void set_cr0(word clear, word set) { write_cr0((read_cr0() & ~clear) | set); }
static void set_cr4(word clear, word set) { write_cr4((read_cr4() & ~clear) | set); }

static void control(void)
{
    run(do_fninit, 0); /* after reset all x87 exceptions are unmasked and no register is empty */
    set_cr0(0x4, 0x8);
    ok_trap(run(do_fld1, 0), 7, 0, "x87 with TS");
    ok_trap(run(do_movaps, 0), 7, 0, "SSE with TS");
    ok_trap(run(do_emms, 0), 7, 0, "MMX with TS");
    ok_trap(run(do_fwait, 0), 7, 0, "FWAIT with TS and MP");
    ok_trap(run(do_fxsave, 0), 7, 0, "FXSAVE with TS");
    set_cr0(0x2, 0);
    ok_trap(run(do_fwait, 0), NONE, 0, "FWAIT with TS without MP");
    set_cr0(0x8, 0x4);
    ok_trap(run(do_fld1, 0), 7, 0, "x87 with EM");
    ok_trap(run(do_movaps, 0), 6, 0, "SSE with EM");
    ok_trap(run(do_emms, 0), 6, 0, "MMX with EM");
    set_cr0(0xc, 0x22); /* NE, MP */
    set_cr4(0x200, 0);
    ok_trap(run(do_movaps, 0), 6, 0, "SSE without OSFXSR");
    ok_trap(run(do_fld1, 0), NONE, 0, "x87 without OSFXSR");
    set_cr4(0, 0x600);
    ok_trap(run(do_movaps, 0), NONE, 0, "SSE");
    ok_trap(run(do_fxsave_odd, 0), 13, 0, "FXSAVE misaligned");
    ok_trap(run(do_ldmxcsr, 0), 13, 0, "LDMXCSR with reserved bits");
    ok_trap(run(do_sse_div0, 0), 19, 0, "SSE exception: #XM");
    set_cr4(0x400, 0);
    ok_trap(run(do_sse_div0, 0), 6, 0, "SSE exception without OSXMMEXCPT: #UD");
    set_cr4(0, 0x400);
    run(do_mxcsr_reset, 0);
    ok_trap(run(do_x87_div0, 0), 16, 0, "x87 exception: #MF");
    ok_eq(trap.ip, (word)xd, "at the next waiting instruction");
    run(do_fninit, 0);
}

static void avx(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 26)) {
        skip("XSAVE");
        return;
    }
    bool has_avx = r[2] & 1u << 28;
    set_cr4(1ul << 18, 0);
    ok_trap(run(do_xsave, 0), 6, 0, "XSAVE without OSXSAVE");
    ok_trap(run(do_xgetbv, 0), 6, 0, "XGETBV without OSXSAVE");
    if (has_avx) {
        ok_trap(run(do_vmovaps, 0), 6, 0, "AVX without OSXSAVE");
    }
    set_cr4(0, 1ul << 18);
    ok_trap(run(do_xgetbv, 0), NONE, 0, "XGETBV");
    ok_eq(cw, 1, "XCR0 after reset");
    if (has_avx) {
        ok_trap(run(do_vmovaps, 0), 6, 0, "AVX without XCR0");
    }
    ok_trap(run(do_xsave_odd, 0), 13, 0, "XSAVE misaligned");
    set_cr0(0, 8);
    ok_trap(run(do_xsave, 0), 7, 0, "XSAVE with TS");
    set_cr0(8, 0);
    uint32_t mask = has_avx ? 7 : 3;
    __asm__ volatile("xsetbv" ::"a"(mask), "d"(0), "c"(0));
    memset(area, 0, sizeof area);
    ok_trap(run(do_xsave, 0), NONE, 0, "XSAVE");
    ok_trap(run(do_xrstor, 0), NONE, 0, "XRSTOR");
    *(uint64_t *)(area + 512) |= 1ull << 62;
    ok_trap(run(do_xrstor, 0), 13, 0, "XRSTOR of a component that is off");
    *(uint64_t *)(area + 512) &= 7;
    *(uint64_t *)(area + 528) = 1;
    ok_trap(run(do_xrstor, 0), 13, 0, "XRSTOR with a reserved header field");
    *(uint64_t *)(area + 528) = 0;
    uint32_t old = *(uint32_t *)(area + 24);
    *(uint32_t *)(area + 24) = 0xffff0000;
    ok_trap(run(do_xrstor, 0), 13, 0, "XRSTOR with reserved bits of MXCSR");
    *(uint32_t *)(area + 24) = old;
    if (!has_avx) {
        return;
    }
    run(load_ymm, 0);
    run(do_xsave, 0);
    run(clear_ymm, 0);
    run(do_xrstor, 0);
    run(store_ymm9, 0);
    ok_eq(data[3], 0x3f8000003f800000, "YMM9 through XSAVE and XRSTOR");
    ok_eq(*(uint64_t *)(area + 576 + 9 * 16), 0x3f8000003f800000,
          "upper half where the manual puts it");
    run(do_fninit, 0);
    memset(area2, 0xff, sizeof area2);
    memset(area2 + 528, 0, 48); /* XSAVEC leaves the rest of the header alone */
    cpuid(0xd, 1, r);
    if (r[0] & 2) {
        ok_trap(run(do_xsavec, 0), NONE, 0, "XSAVEC");
        ok_eq(*(uint64_t *)(area2 + 520), 1ull << 63 | 7, "XCOMP_BV");
        ok_eq(*(uint64_t *)(area2 + 512) & 4, 4, "AVX in use");
        run(clear_ymm, 0);
        run(do_xrstor2, 0);
        run(store_ymm9, 0);
        ok_eq(data[3], 0x3f8000003f800000, "YMM9 through XSAVEC and XRSTOR");
        run(clear_ymm, 0);
        run(do_xsavec, 0);
        ok_eq(*(uint64_t *)(area2 + 512) & 4, 0, "AVX not in use after VZEROALL");
    }
    set_cr0(0, 8);
    ok_trap(run(do_vmovaps, 0), 7, 0, "AVX with TS");
    set_cr0(8, 0);
}

static bool set_xcr0(uint32_t mask)
{
    cw = mask;
    return run(do_xsetbv, 0) == NONE;
}

/* AVX-512: XCR0's bits go together, and XSAVE has its components where CPUID says. */
static void avx512(void)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    if (!(r[1] & 1u << 16)) {
        skip("AVX-512");
        return;
    }
    ok(set_xcr0(7) && !set_xcr0(0x27) && !set_xcr0(0xe3), "XCR0 has all of AVX-512 or nothing");
    ok_trap(run(do_evex, 0), 6, 0, "EVEX without XCR0");
    ok_trap(run(do_kmov, 0), 6, 0, "opmask instructions without XCR0");
    ok(set_xcr0(0xe7), "XCR0 with AVX-512");
    ok_trap(run(do_evex, 0), NONE, 0, "EVEX");
    run(load_zmm31, 0);
    memset(area, 0, sizeof area);
    run(do_xsave, 0);
    for (uint32_t i = 5; i < 8; i++) {
        static const uint32_t at[] = { 5 * 8, 9 * 32, 15 * 64 }, want[] = { 0x5aa5, 0x3f800000,
                                                                            0x3f800000 };
        cpuid(0xd, i, r);
        ok_eq(*(uint32_t *)(area + r[1] + at[i - 5]), want[i - 5], "a component where CPUID says");
    }
    run(clear_zmm, 0);
    run(do_xrstor, 0);
    run(store_zmm31, 0);
    ok_eq(data[7], 0x7f0000007f000000, "ZMM9 and ZMM31 through XSAVE and XRSTOR");
    ok_eq(cw & 0xffff, 0x5aa5, "K5 through XSAVE and XRSTOR");
    set_cr0(0, 8);
    ok_trap(run(do_evex, 0), 7, 0, "EVEX with TS");
    set_cr0(8, 0);
}

/* mov 1(%rbx), %eax; int 0x80 */
static const uint8_t u_mov[] = { 0x8b, 0x43, 0x01, 0xcd, 0x80 };
static const uint8_t u_movb[] = { 0x8a, 0x43, 0x01, 0xcd, 0x80 };
static const uint8_t u_push[] = { 0x50, 0xcd, 0x80 };
static uint8_t ustack[4096] __attribute__((aligned(16)));

static int user(const void *ip, word flags, word sp)
{
    struct start s = { .ip = (word)ip,
                       .cs = SEL_UCODE,
                       .flags = 2 | flags,
                       .sp = sp,
                       .ss = SEL_UDATA,
                       .gpr = { 0, 0, 0, (word)data },
                       .es = SEL_UDATA,
                       .ds = SEL_UDATA };
    return enter(&s);
}

static void alignment(void)
{
    extern uint64_t boot_pml4[512], boot_pdpt[512], boot_pd[2048];
    const word ac = 0x40000;
    word top = (word)(ustack + sizeof ustack);
    boot_pml4[0] |= 4;
    boot_pdpt[0] |= 4;
    for (unsigned i = 0; i < 512; i++) {
        boot_pd[i] |= 4;
    }
    write_cr3(read_cr3());
    ok_trap(user(u_mov, ac, top), 0x80, 0, "misaligned at CPL 3 without CR0.AM");
    set_cr0(0, 0x40000);
    ok_trap(user(u_mov, 0, top), 0x80, 0, "with AM without AC");
    ok_trap(user(u_mov, ac, top), 17, 0, "with both: #AC");
    ok_eq(trap.ip, (word)u_mov, "a fault");
    ok_trap(user(u_movb, ac, top), 0x80, 0, "bytes are aligned");
    ok_trap(user(u_push, ac, top - 3), 17, 0, "PUSH on a misaligned stack");
    ok_trap(user(u_push, ac, top), 0x80, 0, "PUSH on an aligned one");
    set_cr0(0x40000, 0);
}

int test_main(void)
{
    control();
    avx();
    avx512();
    alignment();
    return 0;
}
