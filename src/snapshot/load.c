/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking a snapshot up again. Memory is a private mapping of the file, so that the guest starts at
 * once and pages come as they are touched; what lies in a chain of files is mapped layer over
 * layer. Compressed memory has to be unpacked first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "machine/pc.h"
#include "snapshot/snapshot.h"

/* Runs of changed pages shorter than this are copied: a mapping costs more. */
#define MAP_RUN_PAGES 32u
/* The host allows 65530 mappings of a process, as a rule. */
#define MAPPINGS_MAX 16384u

/* A guest makes up for every tick of its timers: after decades it does nothing else. */
#define STEP_MAX_NS (366ull * 24 * 3600 * 1000000000u)

const struct state_field snapshot_disk_state[] = {
    STATE(struct snapshot_disk, size),
    STATE(struct snapshot_disk, mtime_s),
    STATE(struct snapshot_disk, mtime_ns),
    STATE_END,
};

bool snapshot_look_at_disk(struct snapshot_disk *d, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        return false;
    }
    *d = (struct snapshot_disk){ .size = (uint64_t)st.st_size,
                                 .mtime_s = (uint64_t)st.st_mtim.tv_sec,
                                 .mtime_ns = (uint64_t)st.st_mtim.tv_nsec };
    return true;
}

/* -- Opening ----------------------------------------------------------------------------------- */

int snapshot_config(struct vmconfig **out, struct state_in *in, struct err *e)
{
    const uint8_t *text;
    size_t len;
    int r = state_load_blob(in, "config", &text, &len, e);
    return r < 0 ? r : vmconfig_parse(out, (const char *)text, len, e);
}

static int check_disks(struct snapshot *s, struct err *e)
{
    const struct sosia_config *c = vmconfig_config(s->config);
    for (unsigned i = 0; i < c->disk_count; i++) {
        struct snapshot_disk was, is;
        char name[24];
        snprintf(name, sizeof name, "file.%u", i);
        int r = state_load(s->state, name, SNAPSHOT_DISK_VERSION, snapshot_disk_state, &was,
                           sizeof was, e);
        if (r == -ENOENT) {
            continue; /* a disk that is no file */
        }
        if (r < 0) {
            return r;
        }
        if (!snapshot_look_at_disk(&is, c->disks[i].path)) {
            return err_set(e, -ENOENT, "its disk %s is not there: %s", c->disks[i].path,
                           strerror(errno));
        }
        if (memcmp(&is, &was, sizeof is) != 0) {
            return err_set(e, -EINVAL,
                           "its disk %s was changed since the snapshot was made, and does not fit "
                           "the memory any more",
                           c->disks[i].path);
        }
    }
    return 0;
}

static int read_state(struct snapshot *s, struct err *e)
{
    const struct chain_layer *l = &s->chain->layer[0];
    const struct snapfile_header *h = &l->header;
    s->bytes = try_alloc(1, h->state_len + 1);
    if (s->bytes == NULL) {
        return err_set(e, -ENOMEM, "no memory for %llu bytes of state",
                       (unsigned long long)h->state_len);
    }
    int r = snapfile_read(l->fd, l->path, h->state_at, s->bytes, h->state_len, e);
    if (r == 0) {
        r = state_in_new(&s->state, s->bytes, h->state_len, e);
    }
    if (r == 0) {
        r = snapshot_config(&s->config, s->state, e);
    }
    return r;
}

int snapshot_open(struct snapshot **out, const char *path, struct err *e)
{
    struct snapshot *s = xzalloc(sizeof *s);
    s->translations = -1;
    int r = chain_open(&s->chain, path, e);
    if (r == 0) {
        r = read_state(s, e);
        if (r == 0) {
            r = check_disks(s, e);
        }
        r = r < 0 ? err_prefix(e, r, "%s", path) : 0;
    }
    if (r < 0) {
        snapshot_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void snapshot_close(struct snapshot *s)
{
    if (s != NULL) {
        chain_close(s->chain);
        state_in_free(s->state);
        vmconfig_free(s->config);
        free(s->bytes);
        free(s);
    }
}

/* -- Memory ------------------------------------------------------------------------------------ */

static int copy_pages(struct chain *c, struct gmem *mem, uint64_t first, uint64_t end,
                      struct err *e)
{
    int r = 0;
    for (uint64_t n = first; n < end && r == 0; n++) {
        r = chain_page(c, n, gmem_ram_host(mem) + n * SNAPFILE_PAGE, e);
    }
    return r;
}

/* A run of pages that belong to one layer and are of one kind there. */
static int place_run(struct chain *c, struct gmem *mem, unsigned layer, uint32_t kind,
                     uint64_t first, uint64_t end, unsigned *mappings, struct err *e)
{
    const struct chain_layer *l = &c->layer[layer];
    bool packed = l->header.flags & SNAPFILE_ZSTD;
    bool base = layer + 1 == c->count;
    if (kind != SNAPFILE_STORED) {
        if (!base) {
            gmem_drop_pages(mem, first, end - first);
        }
        return 0;
    }
    if (base && !packed) {
        return 0; /* mapped as a whole */
    }
    if (packed || end - first < MAP_RUN_PAGES || *mappings == MAPPINGS_MAX) {
        return copy_pages(c, mem, first, end, e);
    }
    ++*mappings;
    int r = gmem_map_file(mem, first, end - first, l->fd,
                          l->header.memory_at + first * SNAPFILE_PAGE);
    return r < 0 ? err_set(e, r, "%s: cannot be mapped: %s", l->path, strerror(-r)) : 0;
}

static int load_memory(struct chain *c, struct gmem *mem, struct err *e)
{
    const struct chain_layer *base = &c->layer[c->count - 1];
    const struct snapfile_header *h = &base->header;
    unsigned mappings = 0;
    int r = 0;
    if (!(h->flags & SNAPFILE_ZSTD)) {
        r = gmem_map_file(mem, 0, h->pages, base->fd, h->memory_at);
        if (r < 0) {
            return err_set(e, r, "%s: cannot be mapped: %s", base->path, strerror(-r));
        }
        if (c->count == 1) {
            return 0;
        }
    }
    r = chain_load_tables(c, e);
    for (uint64_t n = 0; n < h->pages && r == 0;) {
        unsigned layer, next_layer;
        uint64_t first = n;
        uint32_t kind = chain_find(c, n, &layer)->kind;
        do {
            n++;
        } while (n < h->pages && chain_find(c, n, &next_layer)->kind == kind &&
                 next_layer == layer);
        r = place_run(c, mem, layer, kind, first, n, &mappings, e);
    }
    return r;
}

/* -- The machine ------------------------------------------------------------------------------- */

static int check_memory(const struct snapfile_header *h, const struct machine *m, struct err *e)
{
    if (h->ram_pages != gmem_ram_size(m->mem) >> GMEM_PAGE_BITS) {
        return err_set(e, -EINVAL, "the snapshot is of a machine with %llu MiB of memory",
                       (unsigned long long)(h->ram_pages >> 8));
    }
    if (h->pages != h->ram_pages + h->rom_pages || h->rom_pages != gmem_rom_pages(m->mem)) {
        return err_set(e, -EINVAL,
                       "the snapshot is of a machine with firmware of another size than is "
                       "installed here");
    }
    return 0;
}

void snapshot_step_time(struct machine *m, uint64_t wall_ns)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    if (m->virtual_time || now <= wall_ns) {
        return;
    }
    if (now - wall_ns <= STEP_MAX_NS) {
        machine_step_time(m, now - wall_ns);
    } else {
        log_warn("it stood still for more than a year: the guest's clocks stay as they were");
    }
}

int snapshot_load(struct snapshot *s, struct machine *m, struct err *e)
{
    const struct snapfile_header *h = &s->chain->layer[0].header;
    if (!machine_paused(m)) {
        return err_set(e, -EBUSY, "the machine is running");
    }
    bus_lock(m->bus);
    bus_quiesce(m->bus);
    int r = check_memory(h, m, e);
    if (r == 0) {
        r = load_memory(s->chain, m->mem, e);
    }
    if (r == 0) {
        r = machine_load_state(m, s->state, e);
    }
    machine_memory_changed(m);
    if (r == 0 && s->translations >= 0 && m->engine_class->inherit != NULL &&
        !m->engine_class->inherit(m->engine, s->translations)) {
        log_info("the translations that came with the snapshot are not of this program and "
                 "configuration: all are made anew");
    }
    if (r == 0) { /* writes to memory: from here on it is not as it was */
        r = pc_new_generation(m->pc, e);
    }
    if (r == 0) { /* to the guest it was a moment that took long: its clocks show today */
        snapshot_step_time(m, h->wall_ns);
    }
    bus_unlock(m->bus);
    return r;
}
