/* SPDX-License-Identifier: Apache-2.0
 *
 * When FP and SIMD instructions may execute (SDM 3 2.5, 13; SDM 1 8.7), and the x87 environment in
 * real-address mode, which the host cannot show us.
 */
// LAYERS: engine/interp engine cpu mem state base
#include "support/test.h"

#include <string.h>

#include "base/bits.h"
#include "cpu/fpu.h"
#include "cpu/sem.h"
#include "mem/gmem.h"
#include "support/guestrun.h"
#include "support/hostrun.h"

#define OFFSET 0x100u
#define DATA (IS_DATA + 0x400u)

static struct guestrun *guest;
static uint64_t cr0, cr4, xcr0;

static int set_up(void **state)
{
    struct err e = { "" };
    (void)state;
    guest = guestrun_new(&interp_engine, 0, &e);
    if (guest == NULL) {
        print_error("%s\n", e.msg);
        return 1;
    }
    cr0 = guestrun_cpu(guest)->cr0;
    cr4 = guestrun_cpu(guest)->cr4;
    xcr0 = guestrun_cpu(guest)->xcr0;
    guestrun_warm_up(guest);
    hostrun_save_handlers();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guestrun_free(guest);
    return 0;
}

static int restore(void **state)
{
    struct cpu *cpu = guestrun_cpu(guest);
    (void)state;
    cpu->cr0 = cr0;
    cpu->cr4 = cr4;
    cpu->xcr0 = xcr0;
    return 0;
}

static void fresh(struct insn_state *s)
{
    uint16_t fcw = FCW_DEFAULT;
    uint32_t mxcsr = MXCSR_DEFAULT;
    memset(s, 0, sizeof *s);
    s->rip = IS_CODE + OFFSET;
    s->rflags = 0x202;
    s->gpr[R_SP] = IS_STACK + 0x800;
    s->gpr[R_BX] = DATA;
    memcpy(s->fx + FX_FCW, &fcw, sizeof fcw);
    memcpy(s->fx + FX_MXCSR, &mxcsr, sizeof mxcsr);
}

static void run(const char *code, size_t len, const struct insn_state *in, struct insn_outcome *out)
{
    static const uint8_t zero[IS_MEM_SIZE];
    guestrun_set_code(guest, OFFSET, (const uint8_t *)code, len);
    guestrun_set_memory(guest, zero);
    guestrun_run(guest, IS_MODE_64, in, out);
    assert_false(out->timeout);
}

/* -- CR0, CR4, XCR0 */

#define FLD1 "\xd9\xe8"
#define FWAIT "\x9b"
#define FNSTSW_AX "\xdf\xe0"
#define FNINIT "\xdb\xe3"
#define FNCLEX "\xdb\xe2"
#define FLDENV "\xd9\x23"
#define MOVQ_MM "\x0f\x6f\xc1"
#define EMMS "\x0f\x77"
#define ADDPS "\x0f\x58\xc1"
#define MOVAPS "\x0f\x28\xc1"
#define MOVD_MM_XMM "\xf3\x0f\xd6\xc1"
#define CVTPI2PD_MEM "\x66\x0f\x2a\x03"
#define STMXCSR "\x0f\xae\x1b"
#define VADDPS "\xc5\xf8\x58\xc1"
#define VMOVAPS "\xc5\xf8\x28\xc1"
#define FXSAVE "\x0f\xae\x03"
#define XSAVE "\x0f\xae\x23"

enum { UD = EXC_UD, NM = EXC_NM, MF = EXC_MF, XM = EXC_XM, RUNS = EXC_BP };

static const struct {
    const char *code;
    uint64_t cr0_set, cr0_clear, cr4_clear, xcr0_clear;
    unsigned vector;
} availability[] = {
    { FLD1, 0, 0, 0, 0, RUNS },
    { FLD1, CR0_TS, 0, 0, 0, NM },
    { FLD1, CR0_EM, 0, 0, 0, NM },
    { FLD1, 0, 0, CR4_OSFXSR | CR4_OSXSAVE, 0, RUNS },
    { FNINIT, CR0_TS, 0, 0, 0, NM },
    { FNSTSW_AX, CR0_EM, 0, 0, 0, NM },
    { FLDENV, CR0_EM, 0, 0, 0, NM },
    { FWAIT, CR0_TS, 0, 0, 0, NM },
    { FWAIT, CR0_TS, CR0_MP, 0, 0, RUNS },
    { FWAIT, CR0_EM, 0, 0, 0, RUNS },
    { MOVQ_MM, CR0_EM, 0, 0, 0, UD },
    { MOVQ_MM, CR0_TS, 0, 0, 0, NM },
    { MOVQ_MM, CR0_EM | CR0_TS, 0, 0, 0, UD },
    { MOVQ_MM, 0, 0, CR4_OSFXSR, 0, RUNS },
    { EMMS, CR0_EM, 0, 0, 0, UD },
    { ADDPS, CR0_EM, 0, 0, 0, UD },
    { ADDPS, CR0_TS, 0, 0, 0, NM },
    { ADDPS, 0, 0, CR4_OSFXSR, 0, UD },
    { ADDPS, CR0_TS, 0, CR4_OSFXSR, 0, UD },
    { ADDPS, 0, 0, CR4_OSXSAVE, 0, RUNS },
    { MOVAPS, CR0_EM, 0, 0, 0, UD },
    { MOVAPS, CR0_TS, 0, 0, 0, NM },
    { MOVAPS, 0, 0, CR4_OSFXSR, 0, UD },
    { MOVD_MM_XMM, 0, 0, CR4_OSFXSR, 0, UD },
    { MOVD_MM_XMM, CR0_TS, 0, 0, 0, NM },
    { CVTPI2PD_MEM, CR0_EM, 0, 0, 0, UD },
    { STMXCSR, CR0_TS, 0, 0, 0, NM },
    { STMXCSR, 0, 0, CR4_OSFXSR, 0, UD },
    { VADDPS, CR0_TS, 0, 0, 0, NM },
    { VADDPS, CR0_EM, 0, 0, 0, RUNS },
    { VADDPS, 0, 0, CR4_OSFXSR, 0, RUNS },
    { VADDPS, 0, 0, CR4_OSXSAVE, 0, UD },
    { VADDPS, 0, 0, 0, XCOMP_AVX, UD },
    { VADDPS, CR0_TS, 0, 0, XCOMP_AVX, UD },
    { VMOVAPS, CR0_TS, 0, 0, 0, NM },
    { VMOVAPS, 0, 0, CR4_OSXSAVE, 0, UD },
    { VMOVAPS, 0, 0, 0, XCOMP_AVX, UD },
    { FXSAVE, CR0_EM, 0, 0, 0, NM },
    { FXSAVE, CR0_TS, 0, 0, 0, NM },
    { FXSAVE, 0, 0, CR4_OSFXSR, 0, RUNS },
    { XSAVE, CR0_TS, 0, 0, 0, NM },
    { XSAVE, CR0_EM, 0, 0, 0, RUNS },
    { XSAVE, 0, 0, CR4_OSXSAVE, 0, UD },
    { XSAVE, CR0_TS, 0, CR4_OSXSAVE, 0, UD },
};

static void follows_control_registers(void **state)
{
    struct cpu *cpu = guestrun_cpu(guest);
    struct insn_state in;
    struct insn_outcome out;
    for (unsigned i = 0; i < ARRAY_LEN(availability); i++) {
        fresh(&in);
        restore(state);
        cpu->cr0 = (cr0 | availability[i].cr0_set) & ~availability[i].cr0_clear;
        cpu->cr4 = cr4 & ~availability[i].cr4_clear;
        cpu->xcr0 = xcr0 & ~availability[i].xcr0_clear;
        run(availability[i].code, strlen(availability[i].code), &in, &out);
        if (out.vector != availability[i].vector)
            fail_msg("row %u: vector %u, not %u", i, out.vector, availability[i].vector);
    }
}

/* -- A pending x87 error */

static void pending_error(void **state)
{
    static const struct {
        const char *code;
        unsigned vector;
    } rows[] = {
        { FLD1, MF },     { FWAIT, MF },          { MOVQ_MM, MF },     { EMMS, MF },
        { FLDENV, MF },   { MOVD_MM_XMM, MF },    { FNSTSW_AX, RUNS }, { FNINIT, RUNS },
        { FNCLEX, RUNS }, { ADDPS, RUNS },        { FXSAVE, RUNS },    { XSAVE, RUNS },
        { VADDPS, RUNS }, { CVTPI2PD_MEM, RUNS },
    };
    struct insn_state in;
    struct insn_outcome out;
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        fresh(&in);
        uint16_t fcw = FCW_DEFAULT & ~4u; /* ZM clear */
        uint16_t fsw = FSW_B | FSW_ES | 4;
        memcpy(in.fx + FX_FCW, &fcw, sizeof fcw);
        memcpy(in.fx + FX_FSW, &fsw, sizeof fsw);
        run(rows[i].code, strlen(rows[i].code), &in, &out);
        if (out.vector != rows[i].vector)
            fail_msg("row %u: vector %u, not %u", i, out.vector, rows[i].vector);
        assert_int_equal(out.state.rip,
                         IS_CODE + OFFSET + (out.vector == RUNS ? strlen(rows[i].code) + 1 : 0));
    }
}

/* CR0.NE = 0: FERR#, and the instruction waits until IGNNE# (SDM 3 9.7). */
static void external_errors(void **state)
{
    struct cpu *cpu = guestrun_cpu(guest);
    (void)state;
    cpu->cr0 &= ~CR0_NE;
    fx_put16(cpu, FX_FCW, FCW_DEFAULT & ~1u);
    fx_put16(cpu, FX_FSW, FSW_B | FSW_ES | 1);
    cpu->insn_ip = 0x1000;
    cpu->rip = 0x1002;
    assert_false(fpu_check(cpu, IA_X87));
    assert_int_equal(cpu->rip, 0x1000);
    assert_true(cpu->ferr_pending);
    cpu->rip = 0x1002;
    fpu_ignne(cpu);
    assert_false(cpu->ferr_pending);
    assert_true(fpu_check(cpu, IA_X87));
    assert_int_equal(cpu->rip, 0x1002);
    sem_fnclex(cpu, NULL);
    assert_false(cpu->ignne);
    assert_int_equal(fx_get16(cpu, FX_FSW), 0);
}

/* -- SIMD exceptions */

static void simd_exceptions(void **state)
{
    static const char divps[] = "\x0f\x5e\xc1";
    struct cpu *cpu = guestrun_cpu(guest);
    struct insn_state in;
    struct insn_outcome out;
    const float one = 1;
    (void)state;
    hostrun_restore_handlers();
    for (unsigned masked = 0; masked < 2; masked++) {
        for (unsigned xm = 0; xm < 2; xm++) {
            fresh(&in);
            uint32_t mxcsr = masked ? 0x1f80 : 0x1f80 & ~0x200u; /* ZM */
            memcpy(in.fx + FX_MXCSR, &mxcsr, sizeof mxcsr);
            for (unsigned i = 0; i < 16; i += 4) {
                memcpy(in.zmm[0] + i, &one, sizeof one);
            }
            cpu->cr4 = xm ? cr4 : cr4 & ~CR4_OSXMMEXCPT;
            run(divps, sizeof divps - 1, &in, &out);
            assert_int_equal(out.vector, masked ? RUNS : xm ? XM : UD);
            uint32_t after;
            memcpy(&after, out.state.fx + FX_MXCSR, sizeof after);
            assert_int_equal(after, mxcsr | 4); /* ZE */
            if (!masked)
                assert_memory_equal(out.state.zmm[0], in.zmm[0], 16);
        }
    }
}

/* -- Real-address mode formats (SDM 1 figures 8-10, 8-12) */

static void real_mode_environment(void **state)
{
    struct cpu *cpu = guestrun_cpu(guest);
    struct insn in = { .op = OP_FNSTENV, .opsize = 2, .adsize = 2 };
    uint8_t *ram = gmem_ram_host(cpu->mem) + 0x80000;
    static const uint8_t expect16[14] = { 0x7f, 3,    0x00, 0x38, 0xff, 0x3f, 0x45,
                                          0x23, 0xbc, 0x12, 0x54, 0x76, 0x00, 0x30 };
    static const uint8_t expect32[28] = { 0x7f, 3,    0xff, 0xff, 0x00, 0x38, 0xff,
                                          0xff, 0xff, 0x3f, 0xff, 0xff, 0x45, 0x23,
                                          0xff, 0xff, 0xbc, 0x12, 0x00, 0x00, 0x54,
                                          0x76, 0xff, 0xff, 0x00, 0x30, 0x00, 0x00 };
    (void)state;
    struct cpu saved = *cpu;
    cpu->cr0 = CR0_ET | CR0_NE;
    cpu->efer = 0;
    cpu->cr4 = 0;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = (struct cpu_seg){ .limit = 0xffff, .attr = 0x93 };
    }
    cpu->seg[SEG_DS].base = 0x80000;
    cpu_update_mode(cpu);
    fpu_reset(cpu);
    for (in.opsize = 2; in.opsize <= 4; in.opsize += 2) {
        fpu_init_x87(cpu);
        fx_put16(cpu, FX_FSW, 0x3800); /* TOP 7, one register in use, 0.0 */
        cpu->fpu.fx[FX_FTW] = 0x80;
        fx_put16(cpu, FX_FOP, 0x2bc);
        fx_put64(cpu, FX_FIP, 0x12345);
        fx_put64(cpu, FX_FDP, 0x37654);
        memset(cpu->fpu.fx + FX_ST, 0, 128);
        cpu->fpu.fx[FX_ST + 7] = 0x80;
        cpu->fpu.fx[FX_ST + 8] = 1; /* valid */
        in.mem = (struct insn_mem){
            .base = INSN_NO_REG, .index = INSN_NO_REG, .seg = SEG_DS, .disp = 0x40
        };
        memset(ram + 0x40, 0xee, 32);
        sem_fnstenv(cpu, &in);
        if (in.opsize == 2)
            assert_memory_equal(ram + 0x40, expect16, sizeof expect16);
        else
            assert_memory_equal(ram + 0x40, expect32, sizeof expect32);
        assert_int_equal(ram[0x40 + (in.opsize == 2 ? 14 : 28)], 0xee);
        fpu_init_x87(cpu);
        sem_fldenv(cpu, &in);
        assert_int_equal(fx_get64(cpu, FX_FIP), 0x12345);
        assert_int_equal(fx_get64(cpu, FX_FDP), 0x37654);
        assert_int_equal(fx_get16(cpu, FX_FOP), 0x2bc);
        assert_int_equal(cpu->fpu.fx[FX_FTW], 0x80);
        assert_int_equal(fx_get16(cpu, FX_FSW), 0x3800);
    }
    memcpy(cpu->seg, saved.seg, sizeof saved.seg);
    cpu->cr0 = saved.cr0;
    cpu->cr4 = saved.cr4;
    cpu->efer = saved.efer;
    cpu_update_mode(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(follows_control_registers, restore),
        cmocka_unit_test_teardown(pending_error, restore),
        cmocka_unit_test_teardown(external_errors, restore),
        cmocka_unit_test_teardown(simd_exceptions, restore),
        cmocka_unit_test_teardown(real_mode_environment, restore),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
