/* SPDX-License-Identifier: Apache-2.0 -- reading, writing and write-tracking of guest memory */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "mem/gmem.h"
#include "mem/internal.h"

/* Guests rely on naturally aligned accesses of up to eight bytes being single (SDM 3 10.1.1), and a
 * virtio ring index or a page-table entry is just that; memcpy promises nothing. */
static void copy_from_guest(void *buf, const uint8_t *host, size_t len)
{
    if (len == 8 && (uintptr_t)host % 8 == 0) {
        uint64_t v = __atomic_load_n((const uint64_t *)host, __ATOMIC_ACQUIRE);
        memcpy(buf, &v, 8);
    } else if (len == 4 && (uintptr_t)host % 4 == 0) {
        uint32_t v = __atomic_load_n((const uint32_t *)host, __ATOMIC_ACQUIRE);
        memcpy(buf, &v, 4);
    } else if (len == 2 && (uintptr_t)host % 2 == 0) {
        uint16_t v = __atomic_load_n((const uint16_t *)host, __ATOMIC_ACQUIRE);
        memcpy(buf, &v, 2);
    } else {
        memcpy(buf, host, len);
    }
}

static void copy_to_guest(uint8_t *host, const void *buf, size_t len)
{
    if (len == 8 && (uintptr_t)host % 8 == 0) {
        uint64_t v;
        memcpy(&v, buf, 8);
        __atomic_store_n((uint64_t *)host, v, __ATOMIC_RELEASE);
    } else if (len == 4 && (uintptr_t)host % 4 == 0) {
        uint32_t v;
        memcpy(&v, buf, 4);
        __atomic_store_n((uint32_t *)host, v, __ATOMIC_RELEASE);
    } else if (len == 2 && (uintptr_t)host % 2 == 0) {
        uint16_t v;
        memcpy(&v, buf, 2);
        __atomic_store_n((uint16_t *)host, v, __ATOMIC_RELEASE);
    } else {
        memcpy(host, buf, len);
    }
}

/* How much of [gpa, gpa+len) the range takes. */
static uint64_t part_in(const struct gmem_range *r, gpa_t gpa, uint64_t len)
{
    uint64_t left = r->size - (gpa - r->gpa);
    return left < len ? left : len;
}

/* True when all of [gpa, gpa+len) is memory, and RAM if it is to be written. */
static bool covered(const struct gmem *m, gpa_t gpa, uint64_t len, bool for_write)
{
    gpa_t end;
    if (ckd_add(&end, gpa, len)) {
        return false;
    }
    while (gpa < end) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r) || (for_write && r.kind != GMEM_RAM)) {
            return false;
        }
        gpa += part_in(&r, gpa, end - gpa);
    }
    return true;
}

int gmem_read(const struct gmem *m, gpa_t gpa, void *buf, size_t len)
{
    struct gmem_range r;
    if (likely(gmem_find(m, gpa, &r) && part_in(&r, gpa, len) == len)) {
        copy_from_guest(buf, r.host + (gpa - r.gpa), len);
        return 0;
    }
    if (!covered(m, gpa, len, false)) {
        return -EFAULT;
    }
    for (uint8_t *to = buf; len != 0;) {
        if (!gmem_find(m, gpa, &r)) {
            return -EFAULT; /* the map changed meanwhile */
        }
        size_t part = part_in(&r, gpa, len);
        memcpy(to, r.host + (gpa - r.gpa), part);
        to += part;
        gpa += part;
        len -= part;
    }
    return 0;
}

/* Write from buf, or zeros when buf is NULL. */
static int write_or_zero(struct gmem *m, gpa_t gpa, const uint8_t *buf, uint64_t len)
{
    if (!covered(m, gpa, len, true)) {
        return -EFAULT;
    }
    while (len != 0) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r) || r.kind != GMEM_RAM) {
            return -EFAULT; /* the map changed meanwhile */
        }
        uint64_t part = part_in(&r, gpa, len);
        if (buf != NULL) {
            copy_to_guest(r.host + (gpa - r.gpa), buf, part);
            buf += part;
        } else {
            memset(r.host + (gpa - r.gpa), 0, part);
        }
        gmem_mark_written(m, gpa, part);
        gpa += part;
        len -= part;
    }
    return 0;
}

int gmem_write(struct gmem *m, gpa_t gpa, const void *buf, size_t len)
{
    return write_or_zero(m, gpa, buf, len);
}

int gmem_zero(struct gmem *m, gpa_t gpa, uint64_t len) { return write_or_zero(m, gpa, NULL, len); }

void gmem_discard(struct gmem *m, gpa_t gpa, uint64_t len)
{
    gpa_t end;
    if (ckd_add(&end, gpa, len) || end > GMEM_GPA_END) {
        end = GMEM_GPA_END;
    }
    if (gpa >= end) {
        return;
    }
    gpa = align_up(gpa, GMEM_PAGE_SIZE);
    end = align_down(end, GMEM_PAGE_SIZE);
    while (gpa < end) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r)) {
            return;
        }
        uint64_t part = part_in(&r, gpa, end - gpa);
        if (r.kind == GMEM_RAM) {
            gmem_drop_pages(m, r.ram_page + ((gpa - r.gpa) >> GMEM_PAGE_BITS),
                            part >> GMEM_PAGE_BITS);
            gmem_mark_written(m, gpa, part);
        }
        gpa += part;
    }
}

uint8_t *gmem_ptr(struct gmem *m, gpa_t gpa, uint64_t len)
{
    struct gmem_range r;
    if (!gmem_find(m, gpa, &r) || r.kind != GMEM_RAM || part_in(&r, gpa, len) != len) {
        return NULL;
    }
    return r.host + (gpa - r.gpa);
}

int gmem_cas64(struct gmem *m, gpa_t gpa, uint64_t expect, uint64_t desired)
{
    uint8_t *host = gpa % 8 == 0 ? gmem_ptr(m, gpa, 8) : NULL;
    if (host == NULL) {
        return -EFAULT;
    }
    if (!__atomic_compare_exchange_n((uint64_t *)host, &expect, desired, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return -EAGAIN;
    }
    gmem_mark_written(m, gpa, 8);
    return 0;
}

int gmem_cas32(struct gmem *m, gpa_t gpa, uint32_t expect, uint32_t desired)
{
    uint8_t *host = gpa % 4 == 0 ? gmem_ptr(m, gpa, 4) : NULL;
    if (host == NULL) {
        return -EFAULT;
    }
    if (!__atomic_compare_exchange_n((uint32_t *)host, &expect, desired, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return -EAGAIN;
    }
    gmem_mark_written(m, gpa, 4);
    return 0;
}

/* -- Write tracking -----------------------------------------------------------------------------
 * The writer stores its data, then clears CLEAN; the harvester sets CLEAN, then reads the data.
 * Both flag operations are locked and thus full barriers, so one of the two sees the other. */
#define CLEAN_FLAGS (GMEM_PAGE_CLEAN_MIGRATE | GMEM_PAGE_CLEAN_DISPLAY)

void gmem_mark_written(struct gmem *m, gpa_t gpa, uint64_t len)
{
    _Atomic uint8_t *flags = gmem_page_flags(m);
    void *ctx;
    gmem_code_fn *hook = gmem_code_hook(m, &ctx);
    while (len != 0) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r)) {
            return;
        }
        uint64_t part = GMEM_PAGE_SIZE - gpa % GMEM_PAGE_SIZE;
        part = part < len ? part : len;
        uint64_t page = r.ram_page + ((gpa - r.gpa) >> GMEM_PAGE_BITS);
        uint8_t old = atomic_fetch_and(&flags[page], (uint8_t)~CLEAN_FLAGS);
        if (unlikely(old & GMEM_PAGE_CODE) && hook != NULL) {
            hook(ctx, gpa, part);
        }
        gpa += part;
        len -= part;
    }
}

void gmem_track(struct gmem *m, enum gmem_page_flag client, gpa_t gpa, uint64_t len, bool on)
{
    _Atomic uint8_t *flags = gmem_page_flags(m);
    gpa_t end;
    if (ckd_add(&end, gpa, len)) {
        end = UINT64_MAX;
    }
    if (end > GMEM_GPA_END) {
        end = GMEM_GPA_END;
    }
    for (gpa = align_down(gpa, GMEM_PAGE_SIZE); gpa < end; gpa += GMEM_PAGE_SIZE) {
        uint64_t page = gmem_ram_page(m, gpa);
        if (page == GMEM_NO_PAGE) {
            continue;
        }
        if (on) {
            atomic_fetch_or(&flags[page], (uint8_t)client);
        } else {
            atomic_fetch_and(&flags[page], (uint8_t)~client);
        }
    }
}

bool gmem_harvest(struct gmem *m, enum gmem_page_flag client, uint64_t page)
{
    return !(atomic_fetch_or(&gmem_page_flags(m)[page], (uint8_t)client) & client);
}
