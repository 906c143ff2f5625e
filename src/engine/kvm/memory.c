/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest memory as the kernel sees it: memory slots (KVM_SET_USER_MEMORY_REGION), written pages
 * (KVM_GET_DIRTY_LOG), and stores to the frame buffer of planar VGA modes that the kernel collects
 * (KVM_REGISTER_COALESCED_MMIO, KVM_CAP_COALESCED_PIO).
 *
 * The first processor that enters after a change of the map brings the slots up to date. Others may
 * run until then, as they may under the other engines. A slot cannot be changed, only deleted and
 * made again, and while it is away its memory looks like a device's: exits.c therefore looks into
 * the map first. Where the chipset switches memory, between 640 KiB and 1 MiB, slots are cut
 * finely, so that a switch takes nothing else away.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "engine/kvm/kvm.h"

#define CUT_FIRST 0xa0000u
#define CUT_END 0x100000u
#define CUT 0x4000u /* what a PAM register switches (i440FX 3.2.15) */
#define A20 0x100000u
#define VGA_WINDOW 0xa0000u
#define VGA_WINDOW_BYTES 0x20000u
#define POST_PORT 0x80u

/* -- The list of slots that there should be ---------------------------------------------------- */

static unsigned add(struct kvm *kvm, unsigned n, const struct gmem_range *r, gpa_t from, gpa_t to,
                    gpa_t at)
{
    if (n == KVM_SLOTS) {
        return n; /* not with the map of a PC; what is left out exits, and works slowly */
    }
    uint32_t flags = r->kind == GMEM_ROM ? KVM_MEM_READONLY : 0;
    kvm->wanted[n] = (struct kvm_slot){
        .gpa = at,
        .size = to - from,
        .host = (uintptr_t)r->host + (from - r->gpa),
        .flags = flags | (kvm->log_dirty && flags == 0 ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .ram_page = r->ram_page + ((from - r->gpa) >> GMEM_PAGE_BITS),
    };
    return n + 1;
}

/* The next place after `at` at which a slot must end. */
static gpa_t next_cut(gpa_t at)
{
    if (at < CUT_FIRST) {
        return CUT_FIRST;
    }
    if (at < CUT_END) {
        return align_down(at, CUT) + CUT;
    }
    return at < 2 * A20 ? 2 * A20 : UINT64_MAX;
}

static unsigned list_wanted(struct kvm *kvm, bool a20_masked)
{
    struct gmem_range r;
    unsigned n = 0;
    for (gpa_t at = 0; gmem_find_next(kvm->config.mem, at, &r); at = r.gpa + r.size) {
        gpa_t end = r.gpa + r.size;
        for (gpa_t from = r.gpa; from < end;) {
            gpa_t cut = next_cut(from);
            gpa_t to = cut < end ? cut : end;
            if (!a20_masked) {
                n = add(kvm, n, &r, from, to, from);
            } else if (from < A20) { /* shows twice: the second MiB is the first */
                n = add(kvm, n, &r, from, to, from);
                n = add(kvm, n, &r, from, to, from + A20);
            } else if (from >= 2 * A20) {
                /* DEVIATION: the odd ones of the MiB from here on stay reachable. */
                n = add(kvm, n, &r, from, to, from);
            }
            from = to;
        }
    }
    return n;
}

/* -- Telling the kernel ------------------------------------------------------------------------ */

static int tell(struct kvm *kvm, unsigned number, const struct kvm_slot *s)
{
    const struct kvm_userspace_memory_region region = {
        .slot = number,
        .flags = s->flags,
        .guest_phys_addr = s->gpa,
        .memory_size = s->size,
        .userspace_addr = s->host,
    };
    if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        int r = -errno;
        log_err("kvm: memory at %#llx, %#llx bytes: %s", (unsigned long long)s->gpa,
                (unsigned long long)s->size, strerror(-r));
        return r;
    }
    return 0;
}

static bool same_place(const struct kvm_slot *a, const struct kvm_slot *b)
{
    return a->gpa == b->gpa && a->size == b->size && a->host == b->host &&
           ((a->flags ^ b->flags) & KVM_MEM_READONLY) == 0;
}

/* Pages of a slot that were written since the last time, into gmem's flags. */
static int fetch_dirty(struct kvm *kvm, unsigned number)
{
    const struct kvm_slot *s = &kvm->slots[number];
    uint64_t words = (s->size / GMEM_PAGE_SIZE + 63) / 64;
    uint64_t *bits = try_alloc(words, sizeof *bits);
    if (bits == NULL) {
        log_err("kvm: no memory for the log of written pages");
        return -ENOMEM;
    }
    struct kvm_dirty_log log = { .slot = number, .dirty_bitmap = bits };
    int r = ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0 ? -errno : 0;
    if (r < 0) {
        log_err("kvm: the log of written pages cannot be read: %s", strerror(-r));
    }
    for (uint64_t w = 0; w < words && r == 0; w++) {
        for (uint64_t left = bits[w]; left != 0; left &= left - 1) {
            uint64_t page = w * 64 + (unsigned)__builtin_ctzll(left);
            gmem_mark_written(kvm->config.mem, s->gpa + page * GMEM_PAGE_SIZE, GMEM_PAGE_SIZE);
        }
    }
    free(bits);
    return r;
}

/* Delete what is not wanted, flag anew what is wanted otherwise; wanted entries that are there get
 * size 0. */
static int keep_or_delete(struct kvm *kvm, unsigned count)
{
    for (unsigned i = 0; i < KVM_SLOTS; i++) {
        struct kvm_slot *s = &kvm->slots[i];
        unsigned w = 0;
        while (s->size != 0 && w < count && !same_place(s, &kvm->wanted[w])) {
            w++;
        }
        if (s->size == 0) {
            continue;
        }
        bool keep = w < count;
        if (keep && s->flags == kvm->wanted[w].flags) {
            kvm->wanted[w].size = 0;
            continue;
        }
        if (s->flags & KVM_MEM_LOG_DIRTY_PAGES) { /* forgotten with the slot or the flag */
            int r = fetch_dirty(kvm, i);
            if (r < 0) {
                return r;
            }
        }
        if (keep) {
            s->flags = kvm->wanted[w].flags;
            kvm->wanted[w].size = 0;
        } else {
            s->size = 0;
        }
        int r = tell(kvm, i, s);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int make_wanted(struct kvm *kvm, unsigned count)
{
    unsigned number = 0;
    for (unsigned w = 0; w < count; w++) {
        if (kvm->wanted[w].size == 0) {
            continue;
        }
        while (kvm->slots[number].size != 0) { /* as many as wanted: there is one */
            number++;
        }
        int r = tell(kvm, number, &kvm->wanted[w]);
        if (r < 0) {
            return r;
        }
        kvm->slots[number] = kvm->wanted[w];
    }
    return 0;
}

/* A20 is a bit of the version, so that one load tells whether anything changed. */
static uint64_t version_now(const struct kvm *kvm)
{
    const struct cpu_world *w = kvm->config.cpus[0]->world;
    bool masked = w->a20_masked != NULL && w->a20_masked(w->ctx);
    return (uint64_t)gmem_map_version(kvm->config.mem) << 1 | masked;
}

int kvm_memory_update(struct kvm *kvm, struct kvm_vcpu *by)
{
    uint64_t version = version_now(kvm);
    if (likely(kvm->mapped && atomic_load(&kvm->map_version) == version)) {
        return 0;
    }
    pthread_mutex_lock(&kvm->slots_lock);
    version = version_now(kvm);
    unsigned count = list_wanted(kvm, version & 1);
    int r = keep_or_delete(kvm, count);
    if (r == 0) {
        r = make_wanted(kvm, count);
    }
    if (r == 0) {
        kvm->mapped = true;
        atomic_store(&kvm->map_version, version);
        by->stats.slot_updates++;
    }
    pthread_mutex_unlock(&kvm->slots_lock);
    return r;
}

void kvm_memory_log(struct kvm *kvm, bool on)
{
    pthread_mutex_lock(&kvm->slots_lock);
    for (unsigned i = 0; i < KVM_SLOTS; i++) {
        if (kvm->slots[i].size != 0 && (kvm->slots[i].flags & KVM_MEM_LOG_DIRTY_PAGES)) {
            int r = fetch_dirty(kvm, i);
            if (r < 0) { /* said; which pages is not known now */
                gmem_mark_written(kvm->config.mem, kvm->slots[i].gpa, kvm->slots[i].size);
            }
        }
    }
    if (kvm->log_dirty != on) {
        kvm->log_dirty = on;
        kvm->mapped = false; /* slots get and lose the flag before the next entry */
    }
    pthread_mutex_unlock(&kvm->slots_lock);
}

/* -- Collected stores -------------------------------------------------------------------------- */

void kvm_memory_drain(struct kvm_vcpu *v)
{
    struct kvm *kvm = v->kvm;
    struct kvm_coalesced_mmio_ring *ring = kvm->coalesced;
    const struct cpu_world *w = v->cpu->world;
    if (ring == NULL || __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) == ring->first) {
        return;
    }
    const uint32_t max = (GMEM_PAGE_SIZE - sizeof *ring) / sizeof ring->coalesced_mmio[0];
    pthread_mutex_lock(&kvm->coalesced_lock);
    uint32_t first = ring->first;
    while (first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
        const struct kvm_coalesced_mmio m = ring->coalesced_mmio[first];
        uint64_t value = 0;
        memcpy(&value, m.data, m.len <= 8 ? m.len : 8);
        if (m.pio) {
            w->port_out(w->ctx, v->cpu, (uint16_t)m.phys_addr, m.len, (uint32_t)value);
        } else {
            w->mmio_write(w->ctx, v->cpu, m.phys_addr, m.len <= 8 ? m.len : 8, value);
        }
        first = (first + 1) % max;
        __atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&kvm->coalesced_lock);
}

static void coalesce(struct kvm *kvm, uint64_t addr, uint32_t size, bool port)
{
    const struct kvm_coalesced_mmio_zone zone = { .addr = addr, .size = size, .pio = port };
    if (ioctl(kvm->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) == 0) {
        kvm->coalesced = (struct kvm_coalesced_mmio_ring *)((uint8_t *)kvm->vcpus[0].run +
                                                            kvm->caps.coalesced_page *
                                                                GMEM_PAGE_SIZE);
    }
}

/* Stores to the frame buffer, and to the port that systems write to for its delay alone: they
 * have no effect but there, in the order in which they were made, and every exit looks for them
 * first. */
void kvm_memory_coalesce(struct kvm *kvm)
{
    if (kvm->caps.coalesced_page != 0) {
        coalesce(kvm, VGA_WINDOW, VGA_WINDOW_BYTES, false);
        if (kvm->caps.coalesced_ports) {
            coalesce(kvm, POST_PORT, 1, true);
        }
    }
}
