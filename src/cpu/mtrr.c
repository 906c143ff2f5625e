/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory-type range registers and the page attribute table (SDM 3 11.11, 11.12): checked and kept.
 * Caches are not modelled, so they have no further effect. */
#include "base/bits.h"
#include "cpu/model.h"
#include "cpu/msr.h"

#define MTRR_VARIABLE 8u
#define MTRR_CAP (MTRR_VARIABLE | 1u << 8 | 1u << 10) /* fixed ranges, write-combining */

static bool type_valid(uint64_t type) { return type == 0 || type == 1 || (type >= 4 && type <= 6); }

bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint8_t type = (uint8_t)(value >> i);
        if (!type_valid(type) && type != 7) {
            return false;
        }
    }
    return true;
}

/* Index into mtrr_fix[]: one of 64 KiB, two of 16 KiB, eight of 4 KiB pieces; -1: none of them. */
static int fixed_index(uint32_t msr)
{
    if (msr == MSR_MTRR_FIX64K) {
        return 0;
    }
    if (msr == MSR_MTRR_FIX16K || msr == MSR_MTRR_FIX16K + 1) {
        return 1 + (int)(msr - MSR_MTRR_FIX16K);
    }
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8) {
        return 3 + (int)(msr - MSR_MTRR_FIX4K);
    }
    return -1;
}

static bool is_variable(uint32_t msr)
{
    return msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 2 * MTRR_VARIABLE;
}

bool mtrr_is(uint32_t msr)
{
    return msr == MSR_MTRR_CAP || msr == MSR_MTRR_DEF_TYPE || is_variable(msr) ||
           fixed_index(msr) >= 0;
}

bool mtrr_read(const struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    int fixed = fixed_index(msr);
    if (msr == MSR_MTRR_CAP) {
        *value = MTRR_CAP;
    } else if (msr == MSR_MTRR_DEF_TYPE) {
        *value = cpu->mtrr_def_type;
    } else if (fixed >= 0) {
        *value = cpu->mtrr_fix[fixed];
    } else {
        unsigned n = (msr - MSR_MTRR_PHYS) / 2;
        *value = msr & 1 ? cpu->mtrr_mask[n] : cpu->mtrr_base[n];
    }
    return true;
}

static bool write_fixed(struct cpu *cpu, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < 64; i += 8) {
        if (!type_valid((uint8_t)(value >> i))) {
            return false;
        }
    }
    cpu->mtrr_fix[n] = value;
    return true;
}

static bool write_variable(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    unsigned n = (msr - MSR_MTRR_PHYS) / 2;
    uint64_t above = ~MASK64(cpu->model->phys_bits);
    if (msr & 1) {
        if (value & (above | 0x7ff)) {
            return false;
        }
        cpu->mtrr_mask[n] = value;
        return true;
    }
    if ((value & (above | 0xf00)) || !type_valid(value & 0xff)) {
        return false;
    }
    cpu->mtrr_base[n] = value;
    return true;
}

bool mtrr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    int fixed = fixed_index(msr);
    if (fixed >= 0) {
        return write_fixed(cpu, (unsigned)fixed, value);
    }
    if (is_variable(msr)) {
        return write_variable(cpu, msr, value);
    }
    if (msr == MSR_MTRR_DEF_TYPE && !(value & ~0xcffull) && type_valid(value & 0xff)) {
        cpu->mtrr_def_type = value;
        return true;
    }
    return false;
}
