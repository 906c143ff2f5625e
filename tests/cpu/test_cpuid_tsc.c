/* SPDX-License-Identifier: Apache-2.0 -- CPUID leaf 0x15, as Linux reads it */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <string.h>

#include "cpu/cpu.h"
#include "cpu/model.h"

static void test_tsc_frequency(void **state)
{
    (void)state;
    static const uint32_t khz[] = { 1000,    999999,  1000000, 1000001, 1996249, 2099998,
                                    2499996, 2500000, 2893202, 3000001, 3792874, 4199999 };
    struct cpu cpu;
    struct cpu_model model;
    memset(&cpu, 0, sizeof cpu);
    memset(&model, 0, sizeof model);
    cpu.model = &model;
    for (unsigned i = 0; i < sizeof khz / sizeof *khz; i++) {
        uint32_t out[4];
        model.tsc_khz = khz[i];
        cpu_cpuid(&cpu, 0x15, 0, out);
        assert_int_equal(out[2], CPU_APIC_TIMER_HZ);
        assert_true(out[0] != 0 && out[1] != 0);
        uint32_t crystal_khz = out[2] / 1000;
        uint32_t got = crystal_khz * out[1] / out[0]; /* in 32 bits */
        uint32_t slack = 1 + khz[i] / 300000; /* 3 parts in a million, and rounding */
        assert_in_range(got, khz[i] - slack, khz[i] + slack);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tsc_frequency) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
