/* SPDX-License-Identifier: Apache-2.0
 *
 * KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst): a page that says how guest
 * time follows from the TSC, so that no guest needs to calibrate.
 *
 * Guest TSCs are all world->tsc plus a per-vCPU offset that is 0 unless the guest wrote its TSC.
 * The page ties TSC = offset to time 0, on each vCPU the same line exactly, which is what the
 * "TSC stable" flag promises. */
#include "base/bits.h"
#include "base/bytes.h"
#include "cpu/model.h"
#include "cpu/msr.h"

#define SYSTEM_TIME_ENABLE 1ull
#define FLAG_TSC_STABLE 1u
#define FLAG_GUEST_STOPPED 2u
#define FLAGS_AT 29u

bool kvmclock_is(uint32_t msr)
{
    return msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_SYSTEM_TIME ||
           msr == MSR_KVM_WALL_CLOCK_NEW || msr == MSR_KVM_SYSTEM_TIME_NEW;
}

void kvmclock_scale(uint32_t tsc_khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = (uint64_t)tsc_khz * 1000;
    int s = 0;
    /* Bring hz << -s into (1e9, 2e9], so that mul has 32 significant bits. */
    while (s > -31 && hz >> -s > 2000000000u) {
        s--;
    }
    while (s < 31 && hz << (s > 0 ? s : 0) <= 1000000000u) {
        s++;
    }
    unsigned __int128 ns = (unsigned __int128)1000000000u << 32;
    unsigned __int128 m = s < 0 ? (ns << -s) / hz : (ns >> s) / hz;
    *mul = (uint32_t)m;
    *shift = (int8_t)s;
}

static uint64_t tsc_to_ns(const struct cpu *cpu, uint64_t tsc)
{
    uint32_t mul;
    int8_t shift;
    kvmclock_scale(cpu->model->tsc_khz, &mul, &shift);
    tsc = shift < 0 ? tsc >> -shift : tsc << shift;
    return (uint64_t)((unsigned __int128)tsc * mul >> 32);
}

bool kvmclock_read(const struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    bool wall = msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_WALL_CLOCK_NEW;
    *value = wall ? cpu->kvm_wall_clock : cpu->kvm_system_time;
    return true;
}

/* struct pvclock_vcpu_time_info: version, pad, tsc_timestamp, system_time, mul, shift, flags. An
 * odd version says that the rest is being written. */
void kvmclock_refresh(struct cpu *cpu)
{
    if (!(cpu->kvm_system_time & SYSTEM_TIME_ENABLE)) {
        return;
    }
    gpa_t gpa = cpu->kvm_system_time & ~SYSTEM_TIME_ENABLE;
    uint8_t page[32] = { 0 };
    if (gmem_read(cpu->mem, gpa, page, 4) < 0) {
        return;
    }
    uint32_t version = load_le32(page) | 1;
    uint32_t mul;
    int8_t shift;
    kvmclock_scale(cpu->model->tsc_khz, &mul, &shift);
    store_le32(page, version);
    store_le64(page + 8, cpu->tsc_offset);
    store_le64(page + 16, 0);
    store_le32(page + 24, mul);
    page[28] = (uint8_t)shift;
    page[FLAGS_AT] = FLAG_TSC_STABLE;
    /* Where it cannot be written there is no clock; the guest chose the address. */
    if (gmem_write(cpu->mem, gpa, page, sizeof page) == 0) {
        store_le32(page, version + 1);
        (void)!gmem_write(cpu->mem, gpa, page, 4);
    }
}

/* The guest clears the flag when it has seen it. */
void kvmclock_note_stop(struct cpu *cpu)
{
    if (!(cpu->kvm_system_time & SYSTEM_TIME_ENABLE)) {
        return;
    }
    gpa_t gpa = (cpu->kvm_system_time & ~SYSTEM_TIME_ENABLE) + FLAGS_AT;
    uint8_t flags;
    if (gmem_read(cpu->mem, gpa, &flags, 1) == 0) {
        flags |= FLAG_GUEST_STOPPED;
        (void)!gmem_write(cpu->mem, gpa, &flags, 1);
    }
}

/* struct pvclock_wall_clock: version, seconds, nanoseconds of when system time was 0. */
static void write_wall_clock(struct cpu *cpu, gpa_t gpa)
{
    const struct cpu_world *w = cpu->world;
    uint64_t boot = w->wall_ns(w->ctx) - tsc_to_ns(cpu, w->tsc(w->ctx));
    uint8_t page[12];
    if (gmem_read(cpu->mem, gpa, page, 4) < 0) {
        return;
    }
    uint32_t version = load_le32(page) | 1;
    store_le32(page, version);
    store_le32(page + 4, (uint32_t)(boot / 1000000000u));
    store_le32(page + 8, (uint32_t)(boot % 1000000000u));
    if (gmem_write(cpu->mem, gpa, page, sizeof page) == 0) {
        store_le32(page, version + 1);
        (void)!gmem_write(cpu->mem, gpa, page, 4);
    }
}

bool kvmclock_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    if (msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_WALL_CLOCK_NEW) {
        cpu->kvm_wall_clock = value;
        write_wall_clock(cpu, value);
        return true;
    }
    cpu->kvm_system_time = value;
    kvmclock_refresh(cpu);
    return true;
}
