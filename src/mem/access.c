/* SPDX-License-Identifier: Apache-2.0 -- reading, writing and write-tracking of guest memory */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

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

int gmem_view(struct gmem *m, gpa_t gpa, uint64_t len, enum gmem_use use, struct gmem_views *v)
{
    while (len != 0) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r) || (use == GMEM_FROM_FILE && r.kind != GMEM_RAM)) {
            return -EFAULT;
        }
        uint64_t part = part_in(&r, gpa, len);
        uint8_t *host = r.host + (gpa - r.gpa);
        struct iovec *last = v->count != 0 ? &v->iov[v->count - 1] : NULL;
        if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == host) {
            last->iov_len += part;
        } else if (v->count == v->max) {
            return -E2BIG;
        } else {
            v->iov[v->count++] = (struct iovec){ host, part };
        }
        gpa += part;
        len -= part;
    }
    return 0;
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

/* True: engines have code of the page, and must hear of it. */
static bool page_written(struct gmem *m, uint64_t page)
{
    uint8_t old = atomic_fetch_and(&gmem_page_flags(m)[page], (uint8_t)~CLEAN_FLAGS);
    return unlikely(old & GMEM_PAGE_CODE);
}

static void tell_engines(struct gmem *m, gpa_t gpa, uint64_t len)
{
    void *ctx;
    gmem_code_fn *hook = gmem_code_hook(m, &ctx);
    if (hook != NULL) {
        hook(ctx, gpa, len);
    }
}

void gmem_mark_written(struct gmem *m, gpa_t gpa, uint64_t len)
{
    while (len != 0) {
        struct gmem_range r;
        if (!gmem_find(m, gpa, &r)) {
            return;
        }
        uint64_t part = GMEM_PAGE_SIZE - gpa % GMEM_PAGE_SIZE;
        part = part < len ? part : len;
        if (page_written(m, r.ram_page + ((gpa - r.gpa) >> GMEM_PAGE_BITS))) {
            tell_engines(m, gpa, part);
        }
        gpa += part;
        len -= part;
    }
}

/* RAM has one address, shown or not; memory of a device has the one where it is shown now. */
static bool page_gpa(const struct gmem *m, uint64_t page, gpa_t *gpa)
{
    uint64_t below = gmem_ram_below_4g(m) >> GMEM_PAGE_BITS;
    if (page < gmem_ram_size(m) >> GMEM_PAGE_BITS) {
        *gpa = (page < below ? page : page - below + (GIB(4) >> GMEM_PAGE_BITS)) << GMEM_PAGE_BITS;
        return true;
    }
    struct gmem_range r;
    for (gpa_t at = 0; gmem_find_next(m, at, &r); at = r.gpa + r.size) {
        if (page >= r.ram_page && page - r.ram_page < r.size >> GMEM_PAGE_BITS) {
            *gpa = r.gpa + ((page - r.ram_page) << GMEM_PAGE_BITS);
            return true;
        }
    }
    return false;
}

/* By page, not by address: the map may have changed since the views were made. */
void gmem_mark_views(struct gmem *m, const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = (uint64_t)((uint8_t *)iov[i].iov_base - gmem_ram_host(m));
        uint64_t end = at + iov[i].iov_len;
        while (at < end) {
            uint64_t next = align_down(at, GMEM_PAGE_SIZE) + GMEM_PAGE_SIZE;
            gpa_t gpa;
            next = next < end ? next : end;
            if (page_written(m, at >> GMEM_PAGE_BITS) && page_gpa(m, at >> GMEM_PAGE_BITS, &gpa)) {
                tell_engines(m, gpa + at % GMEM_PAGE_SIZE, next - at);
            }
            at = next;
        }
    }
}

void gmem_track(struct gmem *m, enum gmem_page_flag client, gpa_t gpa, uint64_t len, bool on)
{
    _Atomic uint8_t *flags = gmem_page_flags(m);
    uint64_t above_4g = gmem_ram_size(m) - gmem_ram_below_4g(m);
    gpa_t ram_end = above_4g != 0 ? GIB(4) + above_4g : gmem_ram_below_4g(m), end;
    if (ckd_add(&end, gpa, len) || end > ram_end) {
        end = ram_end;
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
