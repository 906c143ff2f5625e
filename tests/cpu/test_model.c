/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU models and CPUID: levels, features on and off, errors that name what is wrong, leaves that
 * follow from the features.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/model.h"
#include "support/vm.h"

#define F(id) CPU_FEATURE_##id

static bool parse(struct cpu_model *m, const char *spec)
{
    struct err e = { "" };
    return cpu_model_parse(m, spec, 4, 2500000, NULL, &e) == 0;
}

static void levels(void **state)
{
    (void)state;
    struct cpu_model m;
    assert_true(parse(&m, "x86-64-v1"));
    assert_true(cpu_has(&m.features, F(SSE2)) && cpu_has(&m.features, F(PCID)));
    assert_false(cpu_has(&m.features, F(SSE3)) || cpu_has(&m.features, F(AES)) ||
                 cpu_has(&m.features, F(POPCNT)));
    assert_true(parse(&m, "x86-64-v2"));
    assert_true(cpu_has(&m.features, F(SSE42)) && cpu_has(&m.features, F(CX16)));
    assert_false(cpu_has(&m.features, F(AVX)) || cpu_has(&m.features, F(BMI1)));
    assert_int_equal(m.xcr0_mask & 4, 0);
    if (parse(&m, "x86-64-v3")) {
        assert_true(cpu_has(&m.features, F(AVX2)) && cpu_has(&m.features, F(BMI2)));
        assert_true(m.xcr0_mask & 4);
        struct cpu_model d;
        assert_true(parse(&d, ""));
        assert_string_equal(d.name, "x86-64-v3");
    }
    assert_true(parse(&m, "host"));
    assert_string_equal(m.name, "host");
    assert_true(m.phys_bits >= 36 && m.phys_bits <= 52 && strlen(m.vendor) == 12);
    assert_false(cpu_has(&m.features, F(LA57)) || cpu_has(&m.features, F(MONITOR)));
}

static void features(void **state)
{
    (void)state;
    struct cpu_model m;
    assert_true(parse(&m, "x86-64-v2,-pcid,+la57"));
    assert_false(cpu_has(&m.features, F(PCID)));
    assert_true(cpu_has(&m.features, F(LA57)));
    assert_int_equal(m.virt_bits, 57);
    /* what rests on a feature goes with it */
    assert_true(parse(&m, "x86-64-v2,-xsave"));
    assert_false(cpu_has(&m.features, F(XSAVES)) || cpu_has(&m.features, F(PKU)));
    assert_int_equal(m.xcr0_mask, 0);
    assert_true(parse(&m, "x86-64-v2,-popcnt,+popcnt"));
    assert_true(cpu_has(&m.features, F(POPCNT)));
}

static void refused(const char *spec, const char *word)
{
    struct cpu_model m = { .name = "untouched" };
    struct err e = { "" };
    assert_true(cpu_model_parse(&m, spec, 1, 1000000, NULL, &e) < 0);
    if (strstr(e.msg, word) == NULL) {
        fail_msg("'%s': '%s' does not name '%s'", spec, e.msg, word);
    }
    assert_string_equal(m.name, "untouched");
}

static void errors(void **state)
{
    (void)state;
    refused("pentium", "pentium");
    refused("x86-64-v5", "x86-64-v5");
    refused("x86-64-v22", "x86-64-v22");
    refused("x86-64-v1,frob", "frob");
    refused("x86-64-v1,+frob", "frob");
    refused("x86-64-v1,", "''");
    refused("x86-64-v2,-sse2", "sse2");
    refused("x86-64-v2,-xsave,+xsaves", "xsaves");
    refused("x86-64-v2,+avx512f", "avx512f");
    char longer[CPU_MODEL_SPEC_MAX + 952];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    refused(longer, "2999");
    struct cpu_model m;
    struct err e;
    assert_true(cpu_model_parse(&m, "", 0, 1000000, NULL, &e) < 0);
    assert_true(cpu_model_parse(&m, "", 1, 0, NULL, &e) < 0);
}

/* Each feature's bit is set in its leaf exactly when the model has it. */
static void leaves(void **state)
{
    (void)state;
    static const struct {
        uint32_t leaf, sub;
        uint8_t reg, bit;
        const char *name;
    } rows[] = {
#define X(id, name, leaf, sub, reg, bit) { leaf, sub, reg, bit, name },
        CPU_FEATURE_LIST(X)
#undef X
    };
    struct vm *vm = vm_new(4, NULL);
    struct cpu *c = vm->cpu[2];
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t r[4];
        if (rows[i].leaf == CPU_FEATURE_NO_LEAF) {
            continue;
        }
        cpu_cpuid(c, rows[i].leaf, rows[i].sub, r);
        if ((r[rows[i].reg] >> rows[i].bit & 1) != cpu_has(&c->features, i + 1)) {
            fail_msg("%s", rows[i].name);
        }
    }
    uint32_t r[4];
    char vendor[13] = "";
    cpu_cpuid(c, 0, 0, r);
    memcpy(vendor, &r[1], 4);
    memcpy(vendor + 4, &r[3], 4);
    memcpy(vendor + 8, &r[2], 4);
    assert_string_equal(vendor, vm->model.vendor);
    cpu_cpuid(c, 1, 0, r);
    assert_int_equal(r[0], cpu_model_signature(&vm->model));
    assert_int_equal(r[1] >> 24, 2);
    assert_int_equal(r[1] >> 16 & 0xff, 4);
    assert_true(r[3] >> 28 & 1);
    cpu_cpuid(c, 0xb, 1, r);
    assert_int_equal(r[0], 2);
    assert_int_equal(r[1], 4);
    assert_int_equal(r[2], 0x201);
    assert_int_equal(r[3], 2);
    cpu_cpuid(c, 0xb, 7, r);
    assert_int_equal(r[2], 7);
    cpu_cpuid(c, 0x40000000, 0, r);
    assert_memory_equal(&r[1], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(r[0], 0x40000010);
    cpu_cpuid(c, 0x40000010, 0, r);
    assert_int_equal(r[0], vm->model.tsc_khz);
    cpu_cpuid(c, 0x15, 0, r);
    assert_int_equal((uint64_t)r[2] * r[1] / r[0], (uint64_t)vm->model.tsc_khz * 1000);
    /* beyond the end: Intel processors show the last basic leaf, others nothing */
    uint32_t last[4];
    cpu_cpuid(c, 0x16, 0, last);
    cpu_cpuid(c, 0x7fffffff, 0, r);
    if (strcmp(vendor, "GenuineIntel") == 0) {
        assert_memory_equal(r, last, sizeof r);
    }
    vm_free(vm);
}

/* What only AMD's processors show, whatever the host is. */
static void amd_leaves(void **state)
{
    (void)state;
    struct vm *vm = vm_new(1, NULL);
    struct cpu *c = vm->cpu[0];
    uint32_t r[4];
    cpu_features_set(&c->features, CPU_FEATURE_AMD);
    cpu_cpuid(c, 0x80000000, 0, r);
    assert_int_equal(r[0], 0x80000021);
    cpu_cpuid(c, 0x80000001, 0, r);
    assert_int_equal(r[0], cpu_model_signature(&vm->model));
    assert_true(r[3] & 1); /* FPU, repeated */
    cpu_cpuid(c, 0x80000008, 0, r);
    assert_int_equal(r[1], 4);
    cpu_cpuid(c, 0x80000021, 0, r);
    assert_int_equal(r[0], 0x20000044);
    assert_int_equal(r[2], 6);
    cpu_cpuid(c, 4, 0, r);
    assert_int_equal(r[0], 0);
    cpu_features_clear(&c->features, CPU_FEATURE_AMD);
    cpu_cpuid(c, 0x80000000, 0, r);
    assert_int_equal(r[0], 0x80000008);
    cpu_cpuid(c, 0x80000008, 0, r);
    assert_int_equal(r[1], 0);
    vm_free(vm);
}

static void xsave_leaf(void **state)
{
    (void)state;
    struct vm *vm = vm_new(1, NULL);
    struct cpu *c = vm->cpu[0];
    uint32_t r[4];
    cpu_cpuid(c, 0xd, 0, r);
    assert_int_equal(r[0], vm->model.xcr0_mask);
    assert_int_equal(r[1], 576);
    uint32_t whole = r[2];
    c->xcr0 = vm->model.xcr0_mask;
    cpu_cpuid(c, 0xd, 0, r);
    assert_int_equal(r[1], whole);
    cpu_cpuid(c, 0xd, 2, r);
    if (c->xcr0 & 4) {
        assert_int_equal(r[0], 256);
        assert_int_equal(r[1], 576);
    }
    cpu_cpuid(c, 0xd, 9, r);
    assert_int_equal(r[0], 8);
    assert_int_equal(r[1], 2688);
    cpu_cpuid(c, 0xd, 40, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
    vm_free(vm);
}

/* Every feature has a name of its own. */
static void names(void **state)
{
    (void)state;
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        for (unsigned j = i + 1; j < CPU_FEATURE_COUNT; j++) {
            assert_string_not_equal(cpu_feature_name(i), cpu_feature_name(j));
        }
    }
    assert_string_equal(cpu_feature_name(CPU_FEATURE_COUNT), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels), cmocka_unit_test(features),   cmocka_unit_test(errors),
        cmocka_unit_test(leaves), cmocka_unit_test(amd_leaves), cmocka_unit_test(xsave_leaf),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
