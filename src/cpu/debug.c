/* SPDX-License-Identifier: Apache-2.0
 *
 * Matching of breakpoints (SDM 3 17.2). UNIMPL: branch single-step and last-branch records
 * (IA32_DEBUGCTL.BTF, LBR). */
#include "cpu/debug.h"

#include "cpu/except.h"
#include "cpu/stop.h"

enum { RW_EXEC = 0, RW_WRITE = 1, RW_IO = 2, RW_ACCESS = 3 };

static unsigned dr_enabled(const struct cpu *cpu, unsigned n) { return cpu->dr[7] >> (2 * n) & 3; }
static unsigned dr_kind(const struct cpu *cpu, unsigned n)
{
    return cpu->dr[7] >> (16 + 4 * n) & 3;
}

static unsigned dr_len(const struct cpu *cpu, unsigned n)
{
    static const uint8_t len[4] = { 1, 2, 8, 4 };
    return len[cpu->dr[7] >> (18 + 4 * n) & 3];
}

/* The low bits of the address do not count (SDM 3 17.2.5). */
static bool overlaps(const struct cpu *cpu, unsigned n, uint64_t start, uint64_t len)
{
    uint64_t bytes = dr_len(cpu, n);
    uint64_t at = cpu->dr[n] & ~(bytes - 1);
    return start - at < bytes || at - start < len;
}

bool cpu_watch_page(const struct cpu *cpu, gva_t va)
{
    gva_t page = va & ~(gva_t)(GMEM_PAGE_SIZE - 1);
    if (cpu->stops != NULL && cpu_stop_watches_page(cpu->stops, page)) {
        return true;
    }
    if (!cpu_debug_active(cpu)) {
        return false;
    }
    for (unsigned n = 0; n < 4; n++) {
        if (dr_enabled(cpu, n) && (dr_kind(cpu, n) & 1) && overlaps(cpu, n, page, GMEM_PAGE_SIZE)) {
            return true;
        }
    }
    return false;
}

void cpu_watch_check(struct cpu *cpu, gva_t va, unsigned len, bool is_write)
{
    if (cpu->stops != NULL) {
        cpu_stop_check(cpu, va, len, is_write);
    }
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = dr_kind(cpu, n);
        if (dr_enabled(cpu, n) && (kind == RW_ACCESS || (kind == RW_WRITE && is_write)) &&
            overlaps(cpu, n, va, len)) {
            cpu->pending_dr6 |= 1u << n;
        }
    }
    cpu_update_trap(cpu);
}

void cpu_watch_port(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!cpu_debug_active(cpu) || !(cpu->cr4 & CR4_DE)) {
        return;
    }
    for (unsigned n = 0; n < 4; n++) {
        if (dr_enabled(cpu, n) && dr_kind(cpu, n) == RW_IO && overlaps(cpu, n, port, size)) {
            cpu->pending_dr6 |= 1u << n;
        }
    }
    cpu_update_trap(cpu);
}

uint64_t cpu_breakpoint_at(const struct cpu *cpu, gva_t va)
{
    uint64_t hit = 0;
    for (unsigned n = 0; n < 4; n++) {
        if (dr_enabled(cpu, n) && dr_kind(cpu, n) == RW_EXEC && cpu->dr[n] == va) {
            hit |= 1u << n;
        }
    }
    return hit;
}
