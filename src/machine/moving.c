/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/moving.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "machine/vmconfig.h"

/* -- Written pages ----------------------------------------------------------------------------- */

#define CLEAN_8 (0x0101010101010101ull * GMEM_PAGE_CLEAN_MIGRATE)

/* Most pages are clean: eight at a look. */
static bool eight_are_clean(_Atomic uint8_t *flags)
{
    uint64_t eight = __atomic_load_n((uint64_t *)flags, __ATOMIC_RELAXED);
    return (eight & CLEAN_8) == CLEAN_8;
}

uint64_t machine_take_written(struct machine *m, uint64_t *bits)
{
    uint64_t pages = gmem_ram_size(m->mem) >> GMEM_PAGE_BITS, found = 0;
    _Atomic uint8_t *flags = gmem_page_flags(m->mem);
    if (m->engine_class->log_writes != NULL) {
        m->engine_class->log_writes(m->engine, true);
    }
    for (uint64_t n = 0; n < pages;) {
        if (n % 8 == 0 && pages - n >= 8 && eight_are_clean(&flags[n])) {
            n += 8;
            continue;
        }
        if (gmem_harvest(m->mem, GMEM_PAGE_CLEAN_MIGRATE, n)) {
            found += !(bits[n / 64] >> (n % 64) & 1);
            bits[n / 64] |= 1ull << (n % 64);
        }
        n++;
    }
    /* Processors stand: no store is under way, and the next one to each page will see the flag. */
    machine_map_changed(m);
    return found;
}

void machine_ignore_written(struct machine *m)
{
    if (m->engine_class->log_writes != NULL) {
        m->engine_class->log_writes(m->engine, false);
    }
    gmem_track(m->mem, GMEM_PAGE_CLEAN_MIGRATE, 0, UINT64_MAX, false);
}

/* -- Disks ------------------------------------------------------------------------------------- */

static bool is_written(const struct disk *d) { return d->block != NULL && !d->readonly; }

void machine_disk_now(struct machine *m, unsigned n, struct sosia_disk *out)
{
    const struct disk *d = &m->pc->disks.disk[n];
    *out = vmconfig_config(m->config)->disks[n];
    out->path = block_path(d->block);
    /* A snapshot put an overlay in the place of what it was. What is raw because nobody has said
     * so stays that: the guest must not be able to make it something else. */
    if (strcmp(block_format(d->block), "raw") != 0) {
        out->format = block_format(d->block);
    }
    if (d->exchanged) {
        out->format = block_format(d->block);
        out->readonly = d->readonly;
    }
    /* Without a choice the machine's way of booting decided. */
    out->bus = (enum sosia_disk_bus)d->bus;
}

int machine_check_disks(struct machine *m, struct err *e)
{
    const struct disks *all = &m->pc->disks;
    if (all->count != vmconfig_config(m->config)->disk_count) {
        return err_set(e, -ENOTSUP, "disks were added since the VM was started: that it moves with "
                                    "them is not built yet");
    }
    for (unsigned i = 0; i < all->count; i++) {
        const struct disk *d = &all->disk[i];
        if (d->block == NULL) {
            return err_set(e, -ENOTSUP, "%s was taken away since the VM was started: that it moves "
                                        "without is not built yet", d->name);
        }
        if (vmconfig_config(m->config)->disks[i].ephemeral) {
            return err_set(e, -ENOTSUP,
                           "%s is ephemeral: what was written to it is this process's alone",
                           block_path(d->block));
        }
    }
    return 0;
}

enum ownership { FOREIGN, OWN };

static int reopen(struct machine *m, unsigned n, enum ownership as, struct err *e)
{
    struct disk *d = &m->pc->disks.disk[n];
    struct sosia_disk now;
    struct block *old = d->block, *new;
    machine_disk_now(m, n, &now);
    const struct disk_config c = { .path = now.path,
                                   .format = now.format,
                                   .foreign = as == FOREIGN };
    int r = disk_open_image(&new, &c, e);
    if (r < 0) {
        return r;
    }
    if (block_size(new) != block_size(old)) {
        r = err_set(e, -EINVAL, "%s has another size here", now.path);
    } else if (as == FOREIGN) {
        r = block_flush(old);
        if (r < 0) {
            err_set(e, r, "%s: %s", now.path, strerror(-r));
        }
    }
    if (r < 0) {
        block_close(new);
        return r;
    }
    block_queue_set_block(d->queue, new);
    d->block = new;
    block_close(old);
    return 0;
}

int machine_take_disks(struct machine *m, struct err *e)
{
    struct disks *all = &m->pc->disks;
    int r = 0;
    for (unsigned i = 0; i < all->count && r == 0; i++) {
        if (is_written(&all->disk[i]) && block_readonly(all->disk[i].block)) {
            r = reopen(m, i, OWN, e);
        }
    }
    return r;
}

int machine_yield_disks(struct machine *m, struct err *e)
{
    struct disks *all = &m->pc->disks;
    int r = 0;
    for (unsigned i = 0; i < all->count && r == 0; i++) {
        if (is_written(&all->disk[i])) {
            r = reopen(m, i, FOREIGN, e);
        }
    }
    struct err again;
    if (r < 0 && machine_take_disks(m, &again) < 0) {
        log_err("%s: the VM cannot write it any more", again.msg);
    }
    return r;
}

/* -- The right to run -------------------------------------------------------------------------- */

void machine_leave(struct machine *m)
{
    machine_hold(m, HOLD_PAUSE);
    machine_hold(m, HOLD_ELSEWHERE);
}

void machine_arrive(struct machine *m) { machine_release(m, HOLD_ELSEWHERE); }
