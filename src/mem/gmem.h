/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest-physical memory: what is RAM, what is ROM, what is a hole, and the one access family for
 * it. RAM is one mapping; everything that is not RAM or ROM belongs to the bus.
 *
 * Each RAM page has a byte of atomic flags: who wants to know of writes to it (migration, the
 * screen), and whether an engine holds translations of code in it. A writer that finds a flag set
 * goes the slow way once: gmem_mark_written.
 *
 * Thread: accesses and flags [any]; the map changes (gmem_map, gmem_unmap) only while no vCPU runs,
 * or with every vCPU's TLB flushed afterwards by the caller (the map_changed hook).
 */
#ifndef SOSIA_MEM_GMEM_H
#define SOSIA_MEM_GMEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct iovec;

typedef uint64_t gpa_t; /* guest-physical address, bytes */
typedef uint64_t gva_t; /* guest-virtual (linear) address, bytes */

#define GMEM_PAGE_BITS 12u
#define GMEM_PAGE_SIZE 4096u
#define GMEM_RAM_MAX (1ull << 40)                  /* 1 TiB */
#define GMEM_GPA_END (GMEM_RAM_MAX + (4ull << 30)) /* no RAM at or above */
#define GMEM_NO_PAGE UINT64_MAX

enum gmem_kind { GMEM_NONE, GMEM_RAM, GMEM_ROM };

/* A run of guest-physical addresses backed by host memory. */
struct gmem_range {
    gpa_t gpa;     /* page-aligned */
    uint64_t size; /* bytes, page multiple */
    enum gmem_kind kind;
    uint8_t *host;
    uint64_t ram_page; /* index of the first page's flags, RAM and ROM alike */
};

enum gmem_page_flag {
    /* Some engine has decoded or translated code from this page. The engine sets it, and clears it
     * in the code hook when it let go. */
    GMEM_PAGE_CODE = 1u << 0,
    GMEM_PAGE_CLEAN_MIGRATE = 1u << 1, /* not written since the last harvest, and somebody asks */
    GMEM_PAGE_CLEAN_DISPLAY = 1u << 2,
};

struct gmem;

/* ram_bytes of RAM: from 0 up to the PCI hole (hole_start), the rest from 4 GiB up. A last-resort
 * check against the host's commit limit is made: -ENOMEM with a message. */
MUST_CHECK int gmem_new(struct gmem **out, uint64_t ram_bytes, gpa_t hole_start, struct err *e);
void gmem_free(struct gmem *m);
uint64_t gmem_ram_size(const struct gmem *m);
uint64_t gmem_ram_below_4g(const struct gmem *m);
uint8_t *gmem_ram_host(const struct gmem *m);  /* RAM page n at + n*4096, for snapshot and tests */
uint64_t gmem_rom_pages(const struct gmem *m); /* behind those of RAM: copies of ROMs made so far */

/* Pages from `page` on become a private copy of a file's bytes at offset (in whole pages), which
 * are read as they are touched. The file must keep its bytes as long. Nothing runs meanwhile. */
MUST_CHECK int gmem_map_file(struct gmem *m, uint64_t page, uint64_t count, int fd,
                             uint64_t offset);
/* RAM page `page` and those after it as new: they read as zeroes and cost nothing. Where the host
 * cannot do that they are written with zeroes. No marks, no hooks. */
void gmem_drop_pages(struct gmem *m, uint64_t page, uint64_t count);

/* Lay something over a range: ROM bytes (copied into memory of gmem's own), or a hole where the
 * bus answers (legacy VGA, SMRAM closed), or the RAM beneath again. */
MUST_CHECK int gmem_map_rom(struct gmem *m, gpa_t gpa, const void *data, uint64_t size,
                            struct err *e);
/* The same in two steps, for what the guest switches on and off: a copy of data (NULL: zeroes),
 * whose first page's number is returned; and showing it, as ROM or as memory of a device that the
 * guest may write. One copy is shown at one address only. */
MUST_CHECK int gmem_add_rom(struct gmem *m, const void *data, uint64_t size, uint64_t *page,
                            struct err *e);
void gmem_show_rom(struct gmem *m, gpa_t gpa, uint64_t page, uint64_t size);
void gmem_show_device_ram(struct gmem *m, gpa_t gpa, uint64_t page, uint64_t size);
void gmem_map_hole(struct gmem *m, gpa_t gpa, uint64_t size);
void gmem_map_ram(struct gmem *m, gpa_t gpa, uint64_t size);
/* RAM that is read-only to the guest now (PAM shadow, write-protected). */
void gmem_map_ram_readonly(struct gmem *m, gpa_t gpa, uint64_t size);
/* Called after every change of the map. */
void gmem_set_map_hook(struct gmem *m, void (*changed)(void *ctx), void *ctx);
/* Called when somebody other than a vCPU's own store path writes a GMEM_PAGE_CODE page. */
/* One call for each such page; gpa and len lie within it. */
void gmem_set_code_hook(struct gmem *m, void (*written)(void *ctx, gpa_t gpa, uint64_t len),
                        void *ctx);

/* Changes with every change of the map. */
uint32_t gmem_map_version(const struct gmem *m);

/* Which range holds gpa; false for a hole. The copy stays valid until the map changes. */
bool gmem_find(const struct gmem *m, gpa_t gpa, struct gmem_range *out);
/* The range that holds gpa or the first beyond it; false: none. To walk the whole map. */
bool gmem_find_next(const struct gmem *m, gpa_t gpa, struct gmem_range *out);

/* Number of the RAM page at gpa, even while a ROM or a hole lies over it; GMEM_NO_PAGE if none. */
uint64_t gmem_ram_page(const struct gmem *m, gpa_t gpa);

/* Whole range or nothing; -EFAULT when not all of it is RAM (write) or RAM/ROM (read). */
MUST_CHECK int gmem_read(const struct gmem *m, gpa_t gpa, void *buf, size_t len);
MUST_CHECK int gmem_write(struct gmem *m, gpa_t gpa, const void *buf, size_t len);
MUST_CHECK int gmem_zero(struct gmem *m, gpa_t gpa, uint64_t len);
/* The guest needs what is in these pages no more: they read as zeroes and cost nothing until they
 * are written. Whole pages of RAM within the range, up to the first hole. */
void gmem_discard(struct gmem *m, gpa_t gpa, uint64_t len);
/* Atomic compare-and-swap of an aligned page-table entry (A/D bits); 0, -EAGAIN (changed), -EFAULT
 * (not RAM, or not aligned). gmem_read and gmem_write of 2, 4 and 8 aligned bytes are single. */
MUST_CHECK int gmem_cas64(struct gmem *m, gpa_t gpa, uint64_t expect, uint64_t desired);
MUST_CHECK int gmem_cas32(struct gmem *m, gpa_t gpa, uint32_t expect, uint32_t desired);
/* Host view of [gpa, gpa+len) if it is all RAM and contiguous, else NULL. For bulk I/O and the
 * vCPU's TLB only; never kept across a return to the loop. Writers call gmem_mark_written after. */
uint8_t *gmem_ptr(struct gmem *m, gpa_t gpa, uint64_t len);

/* A transfer between guest memory and a file that the host's kernel does, without a copy of ours:
 * the host's addresses of [gpa, gpa+len) behind those in *v, merged with the last where they meet.
 * These are memory until gmem_free, whatever the map shows meanwhile; the guest may change it at
 * any time. After the kernel wrote to them, and before the guest hears of it: gmem_mark_views.
 * -EFAULT as gmem_read and gmem_write; -E2BIG: there is no room. */
struct gmem_views {
    struct iovec *iov; /* borrowed, room for max */
    unsigned max;
    unsigned count;
};
enum gmem_use { GMEM_TO_FILE, GMEM_FROM_FILE };
MUST_CHECK int gmem_view(struct gmem *m, gpa_t gpa, uint64_t len, enum gmem_use use,
                         struct gmem_views *v);
void gmem_mark_views(struct gmem *m, const struct iovec *iov, unsigned count);

/* -- Page flags. page: RAM page number (gmem_range.ram_page + offset). */
_Atomic uint8_t *gmem_page_flags(struct gmem *m); /* array, for the engines' fast checks */
uint64_t gmem_page_count(const struct gmem *m);   /* RAM plus ROM pages */
/* Clears CLEAN_*, calls the code hook. */
void gmem_mark_written(struct gmem *m, gpa_t gpa, uint64_t len);
/* Start or stop asking for writes; harvest returns and re-arms. The caller flushes vCPU TLBs, so
 * that every vCPU's next store to the page sees the flag. track goes by the RAM at these addresses,
 * whatever lies over it now; addresses without RAM are passed over. */
void gmem_track(struct gmem *m, enum gmem_page_flag client, gpa_t gpa, uint64_t len, bool on);
/* True: was written. */
bool gmem_harvest(struct gmem *m, enum gmem_page_flag client, uint64_t page);

#endif
