/* SPDX-License-Identifier: Apache-2.0 -- decoder: properties of every table row, and of noise
 *
 * With --disasm MODE: disassemble "ADDRESS HEXBYTES" lines, for tools/cmpobjdump.
 */
// LAYERS: cpu
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/insn.h"

static struct cpu_features all;

/* Bytes up to the end of a page, behind which nothing can be read. */
static const uint8_t *guarded(const uint8_t *bytes, size_t n)
{
    static uint8_t *page;
    long size = sysconf(_SC_PAGESIZE);
    if (!page) {
        page = mmap(NULL, (size_t)size * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
        assert_ptr_not_equal(page, MAP_FAILED);
        assert_int_equal(mprotect(page + size, (size_t)size, PROT_NONE), 0);
    }
    uint8_t *at = page + size - n;
    memcpy(at, bytes, n);
    return at;
}

/* The result depends on the first len bytes alone, and on all of them: fewer are NEED_MORE. */
static void check_prefixes(const uint8_t *bytes, enum insn_mode mode, const struct insn *whole,
                           enum insn_status status)
{
    for (size_t n = 0; n <= INSN_MAX_LEN; n++) {
        struct insn in;
        enum insn_status s = insn_decode(&in, guarded(bytes, n), n, mode, &all);
        enum insn_status want = n < whole->len || status == INSN_TOO_LONG ? INSN_NEED_MORE : status;
        if (status == INSN_TOO_LONG && n == INSN_MAX_LEN)
            want = INSN_TOO_LONG;
        if (s != want || (s == INSN_OK && memcmp(&in, whole, sizeof in) != 0))
            fail_msg("mode %d, %zu bytes of %02x %02x %02x %02x %02x...: status %d, not %d", mode,
                     n, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], s, want);
    }
}

static void check_shape(const struct insn *in)
{
    char text[200];
    assert_true(in->row < insn_info_count);
    assert_int_equal(in->op, insn_info[in->row].op);
    assert_in_range(in->len, 1, INSN_MAX_LEN);
    assert_true(in->nopnd <= 4);
    size_t n = insn_format(text, sizeof text, in, 0x1000);
    assert_true(n > 1 && n < sizeof text);
    size_t cut = insn_format(text, 3, in, 0x1000);
    assert_int_equal(cut, n);
    for (unsigned i = 0; i < in->nopnd; i++) {
        const struct opnd *o = &in->opnd[i];
        assert_int_not_equal(o->kind, OPND_NONE);
        if (o->kind == OPND_GPR)
            assert_true(o->reg < 16 || (o->size == 1 && o->reg < 20 && !(in->flags & INSN_REX)));
        if (o->kind == OPND_VEC)
            assert_true(o->reg < 32 && (o->size == 16 || o->size == 32 || o->size == 64));
    }
    assert_true(in->mem.seg < 6);
    assert_true(in->mem.base <= INSN_REG_RIP || in->mem.base == INSN_NO_REG);
}

static void every_row_has_encodings(void **state)
{
    (void)state;
    uint64_t rng = 12345;
    for (unsigned row = 0; row < insn_info_count; row++) {
        unsigned found = 0;
        cpu_features_clear(&all, CPU_FEATURE_AMD);
        if (insn_info[row].feature == CPU_FEATURE_AMD)
            cpu_features_set(&all, CPU_FEATURE_AMD);
        for (int mode = INSN_MODE_16; mode <= INSN_MODE_64; mode++) {
            for (int i = 0; i < 8; i++) {
                uint8_t bytes[INSN_MAX_LEN];
                size_t n = insn_sample(row, (enum insn_mode)mode, &rng, bytes);
                if (n == 0)
                    continue;
                struct insn in;
                enum insn_status s = insn_decode(&in, bytes, n, (enum insn_mode)mode, &all);
                assert_int_equal(s, INSN_OK);
                assert_int_equal(in.row, row);
                assert_int_equal(in.len, n);
                check_shape(&in);
                memset(bytes + n, 0, sizeof bytes - n);
                check_prefixes(bytes, (enum insn_mode)mode, &in, INSN_OK);
                found++;
            }
        }
        if (!found)
            fail_msg("row %u, %s %s: no encoding found", row, insn_info[row].mnemonic,
                     insn_info[row].encoding);
    }
}

static void noise_is_safe(void **state)
{
    (void)state;
    uint64_t rng = 99;
    unsigned counts[4] = { 0 };
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[16];
        for (int j = 0; j < 16; j += 8) {
            uint64_t v = test_random(&rng);
            memcpy(bytes + j, &v, 8);
        }
        if (i & 1)
            bytes[i >> 1 & 1] = 0x0f;
        enum insn_mode mode = (enum insn_mode)(i % 3);
        struct insn in;
        enum insn_status s = insn_decode(&in, guarded(bytes, INSN_MAX_LEN), INSN_MAX_LEN, mode,
                                         &all);
        counts[-s]++;
        if (s == INSN_OK)
            check_shape(&in);
        if (i % 8 == 0)
            check_prefixes(bytes, mode, &in, s);
    }
    assert_true(counts[0] > 100000);
    assert_int_equal(counts[1], 0);
    assert_true(counts[2] > 1000);
}

static int disassemble_lines(enum insn_mode mode)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long address;
        char hex[2 * 32 + 1];
        if (sscanf(line, "%lx %64s", &address, hex) != 2)
            return 1;
        uint8_t bytes[32] = { 0 };
        size_t n = strlen(hex) / 2;
        for (size_t i = 0; i < n; i++) {
            unsigned v;
            if (sscanf(hex + 2 * i, "%2x", &v) != 1)
                return 1;
            bytes[i] = (uint8_t)v;
        }
        struct insn in;
        char text[200] = "";
        enum insn_status s = insn_decode(&in, bytes, n, mode, &all);
        if (s == INSN_OK)
            insn_format(text, sizeof text, &in, address);
        printf("%d %u %s\n", s, in.len, text);
    }
    return 0;
}

int main(int argc, char **argv)
{
    memset(&all, 0xff, sizeof all);
    if (argc == 3 && strcmp(argv[1], "--disasm") == 0) {
        int bits = atoi(argv[2]);
        return disassemble_lines(bits == 16   ? INSN_MODE_16
                                 : bits == 32 ? INSN_MODE_32
                                              : INSN_MODE_64);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_encodings),
        cmocka_unit_test(noise_is_safe),
    };
    return cmocka_run_group_tests_name("decode_rows", tests, NULL, NULL);
}
