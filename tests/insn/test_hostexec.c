/* SPDX-License-Identifier: Apache-2.0
 *
 * Host execution when a guest exhausts the arena: more distinct encodings than fit still execute
 * rightly, and memory use ends there. And SIGFPE of others goes to who had it before.
 */
// LAYERS: engine/interp engine cpu mem state base
#include "support/test.h"

#include <signal.h>
#include <string.h>

#include "cpu/hostexec.h"
#include "support/guestrun.h"
#include "support/hostrun.h"

static struct guestrun *guest;
static sigjmp_buf landing;

static void on_sigfpe(int sig)
{
    (void)sig;
    siglongjmp(landing, 1);
}

static int set_up(void **state)
{
    struct err e = { "" };
    (void)state;
    signal(SIGFPE, on_sigfpe); /* before hostexec installs its own */
    guest = guestrun_new(&interp_engine, 0, &e);
    if (guest == NULL)
        print_error("%s\n", e.msg);
    if (guest == NULL)
        return 1;
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

static void shuffle(const uint32_t from[4], unsigned imm, uint32_t to[4])
{
    for (unsigned i = 0; i < 4; i++) {
        to[i] = from[imm >> (2 * i) & 3];
    }
}

/* PSHUFD, PSHUFLW, PSHUFHW with every register and immediate: more than the arena holds. */
static void arena_full(void **state)
{
    static const uint8_t prefix[3] = { 0x66, 0xf2, 0xf3 };
    static const uint32_t value[4] = { 0x11111111, 0x22222222, 0x33333333, 0x44444444 };
    struct cpu *cpu = guestrun_cpu(guest);
    size_t used = 0;
    unsigned long after_full = 0;
    (void)state;
    for (unsigned n = 0; n < 3u << 16; n++) {
        unsigned imm = n & 255;
        unsigned reg = n >> 8 & 15;
        unsigned rm = n >> 12 & 15;
        uint8_t code[INSN_MAX_LEN] = { prefix[n >> 16],
                                       (uint8_t)(0x40 | (reg >> 3) << 2 | rm >> 3),
                                       0x0f,
                                       0x70,
                                       (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)),
                                       (uint8_t)imm };
        struct insn in;
        assert_int_equal(insn_decode(&in, code, 6, INSN_MODE_64, &cpu->features), INSN_OK);
        memcpy(cpu->fpu.zmm[rm].u32, value, sizeof value);
        cpu->rip = 0x1006;
        cpu->insn_ip = 0x1000;
        sem_host(cpu, &in);
        if (n >> 16 == 0) {
            uint32_t expect[4];
            shuffle(value, imm, expect);
            assert_memory_equal(cpu->fpu.zmm[reg].u32, expect, sizeof expect);
        }
        after_full += hostexec_arena_used(cpu) == used;
        used = hostexec_arena_used(cpu);
    }
    assert_true(used <= 4u << 20);
    assert_true(after_full > 1000);
    /* Still right, from the slot that is used again and again. */
    for (unsigned imm = 0; imm < 256; imm++) {
        uint8_t code[INSN_MAX_LEN] = { 0xc5, 0xf9, 0x70, 0xca, (uint8_t)imm };
        struct insn in;
        uint32_t expect[4];
        if (insn_decode(&in, code, 5, INSN_MODE_64, &cpu->features) != INSN_OK)
            break; /* a host without AVX */
        memcpy(cpu->fpu.zmm[2].u32, value, sizeof value);
        sem_host(cpu, &in);
        shuffle(value, imm, expect);
        assert_memory_equal(cpu->fpu.zmm[1].u32, expect, sizeof expect);
    }
}

static void sigfpe_of_others(void **state)
{
    (void)state;
    hostrun_restore_handlers();
    if (sigsetjmp(landing, 1) == 0) {
        unsigned low = 7;
        unsigned high = 0;
        __asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "r"(0));
        fail();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_full),
        cmocka_unit_test(sigfpe_of_others),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
