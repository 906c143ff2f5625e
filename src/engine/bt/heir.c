/* SPDX-License-Identifier: Apache-2.0
 *
 * Translations that VMs share. A VM that is cloned has what its guest does translated already, and
 * its clones do the same, so it bequeaths them its cache: code and records, written into a file in
 * memory. Heirs map that file privately. Nothing in it depends on where a process has its memory,
 * but for the stubs, and those each makes itself.
 *
 * Records are written where they are: the host copies a page that is. Code is not, because no page
 * is ever writable and executable, and two views of one private page would part at the first write.
 * So new code goes to memory of the heir's own, behind what it inherited; to change a word of that
 * (a link is made, a block dies) its page is copied there first, and shown in the place of the
 * other in the executable view.
 *
 * What is inherited is executed as it is. It must come from a process that is trusted like this
 * one, and nobody may be able to write it any more (seals). That it fits is checked here.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "engine/bt/bt.h"

#define PAGE ((size_t)KIB(4))
#define NO_ONE_WRITES (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)
#define BUILD_ID_MAX 32u
/* Pages that are shown alone split a mapping in three, and the host allows 65530, as a rule. */
#define TAKEN_MAX 8192u
#define STUBS (sizeof(struct bt_stubs) / sizeof(const uint8_t *))

/* What must be the same on both sides. */
struct fit {
    char magic[8];
    uint8_t build_id[BUILD_ID_MAX];
    struct cpu_features features;
    uint64_t cache_size, page_count;
    uint64_t cpu_count, virtual_time, host_avx, host_avx512, host_bmi2;
    uint64_t stubs[STUBS]; /* their places */
};

struct will {
    struct fit fit;
    uint64_t used, cold_used;
    uint64_t site_used, exit_count, block_count;
};
_Static_assert(sizeof(struct will) <= PAGE, "one page");

/* -- Whose it is ------------------------------------------------------------------------------- */

static bool copy_build_id(const uint8_t *note, size_t len, uint8_t out[BUILD_ID_MAX])
{
    while (len >= sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *n = (const void *)note;
        size_t name = align_up(n->n_namesz, 4), desc = align_up(n->n_descsz, 4);
        const uint8_t *id = note + sizeof *n + name;
        if (name + desc > len - sizeof *n)
            return false;
        if (n->n_type == NT_GNU_BUILD_ID && n->n_descsz <= BUILD_ID_MAX && n->n_namesz == 4 &&
            memcmp(note + sizeof *n, "GNU", 4) == 0) {
            memcpy(out, id, n->n_descsz);
            return true;
        }
        note = id + desc;
        len -= sizeof *n + name + desc;
    }
    return false;
}

/* Of the object that this code is in. 1: found. */
static int look_for_build_id(struct dl_phdr_info *info, size_t size, void *out)
{
    bool here = false, found = false;
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t me = (uintptr_t)look_for_build_id - info->dlpi_addr;
        here |= p->p_type == PT_LOAD && me - p->p_vaddr < p->p_memsz;
    }
    for (unsigned i = 0; here && !found && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        found = p->p_type == PT_NOTE &&
                copy_build_id((const uint8_t *)info->dlpi_addr + p->p_vaddr, p->p_memsz, out);
    }
    return found;
}

static bool fit_of(const struct bt *bt, struct fit *f)
{
    const uint8_t *const *stub = (const uint8_t *const *)(const void *)&bt->stubs;
    memset(f, 0, sizeof *f);
    memcpy(f->magic, "sosiabt1", sizeof f->magic);
    f->features = bt->config.cpus[0]->features;
    f->cache_size = bt->cache.size;
    f->page_count = bt->cache.page_count;
    f->cpu_count = bt->config.cpu_count;
    f->virtual_time = bt->config.virtual_time;
    f->host_avx = bt->host_avx;
    f->host_avx512 = bt->host_avx512;
    f->host_bmi2 = bt->host_bmi2;
    for (size_t i = 0; i < STUBS; i++)
        f->stubs[i] = (uint64_t)(stub[i] - bt->cache.exec);
    return dl_iterate_phdr(look_for_build_id, f->build_id) == 1;
}

/* -- What it is -------------------------------------------------------------------------------- */

/* Pages of the cache, in the order in which they are in the file behind the page of the will. */
struct part {
    void *at;
    size_t bytes;
    bool code;
};
enum { PARTS = 8 };

static void parts_of(const struct bt_cache *c, const struct will *w, struct part p[PARTS])
{
    size_t records[] = { w->site_used * sizeof *c->sites,      w->exit_count * sizeof *c->exits,
                         w->block_count * sizeof *c->blocks,   (c->hash_mask + 1) * sizeof *c->hash,
                         c->page_count * sizeof *c->page_head, c->page_count * sizeof *c->page_at };
    void *at[] = { c->sites, c->exits, c->blocks, c->hash, c->page_head, c->page_at };
    p[0] = (struct part){ c->exec + c->stubs_end, w->used - c->stubs_end, true };
    p[1] = (struct part){ c->exec + c->cold_first, w->cold_used - c->cold_first, true };
    for (unsigned i = 0; i < ARRAY_LEN(at); i++)
        p[2 + i] = (struct part){ at[i], align_up(records[i], PAGE), false };
}

static size_t file_size(const struct part p[PARTS])
{
    size_t sum = PAGE;
    for (unsigned i = 0; i < PARTS; i++)
        sum += p[i].bytes;
    return sum;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static bool write_all(int fd, const uint8_t *p, size_t len, size_t at)
{
    while (len != 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n <= 0)
            return false;
        p += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
    return true;
}

/* Zeroes stay holes: most of the tables. */
static bool write_part(int fd, const struct part *p, size_t at)
{
    const uint8_t *from = p->at;
    for (size_t n = 0, end; n < p->bytes; n = end) {
        end = n + PAGE;
        if (is_zero(from + n))
            continue;
        while (end < p->bytes && !is_zero(from + end))
            end += PAGE;
        if (!write_all(fd, from + n, end - n, at + n))
            return false;
    }
    return true;
}

int bt_bequeath(struct engine *en, int fd, struct err *e)
{
    struct bt *bt = (struct bt *)en;
    struct bt_cache *c = &bt->cache;
    struct part part[PARTS];
    struct will w = { 0 };
    if (!fit_of(bt, &w.fit))
        return err_set(e, -ENOTSUP, "bt: this build of sosia has no build id");
    pthread_mutex_lock(&bt->lock);
    w.used = align_up(c->used, PAGE);
    w.cold_used = align_up(c->cold_used, PAGE);
    w.site_used = c->site_used;
    w.exit_count = c->exit_count;
    w.block_count = c->block_count;
    parts_of(c, &w, part);
    bool ok = ftruncate(fd, (off_t)file_size(part)) == 0;
    size_t at = PAGE;
    for (unsigned i = 0; ok && i < PARTS; at += part[i++].bytes)
        ok = write_part(fd, &part[i], at);
    ok = ok && write_all(fd, (const uint8_t *)&w, sizeof w, 0);
    pthread_mutex_unlock(&bt->lock);
    return ok ? 0 : err_set(e, -errno, "bt: translations cannot be written: %s", strerror(errno));
}

/* -- Taking it up ------------------------------------------------------------------------------ */

static bool is_within(const struct bt_cache *c, const struct will *w)
{
    return w->used >= c->stubs_end && w->used <= c->cold_first && w->used % PAGE == 0 &&
           w->cold_used >= c->cold_first && w->cold_used <= c->size && w->cold_used % PAGE == 0 &&
           w->site_used <= c->site_max && w->exit_count <= c->exit_max &&
           w->block_count <= c->block_max;
}

static bool fits(const struct bt *bt, int fd, struct will *w)
{
    const struct bt_cache *c = &bt->cache;
    struct part part[PARTS];
    struct fit mine;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & NO_ONE_WRITES) != NO_ONE_WRITES || fstat(fd, &st) < 0 ||
        pread(fd, w, sizeof *w, 0) != (ssize_t)sizeof *w || !fit_of(bt, &mine) ||
        memcmp(&mine, &w->fit, sizeof mine) != 0 || !is_within(c, w))
        return false;
    parts_of(c, w, part);
    return (uint64_t)st.st_size == file_size(part);
}

static bool map_parts(const struct part part[PARTS], int fd)
{
    size_t at = PAGE;
    for (unsigned i = 0; i < PARTS; at += part[i++].bytes) {
        int prot = part[i].code ? PROT_READ | PROT_EXEC : PROT_READ | PROT_WRITE;
        if (part[i].bytes != 0 &&
            mmap(part[i].at, part[i].bytes, prot, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
                 (off_t)at) == MAP_FAILED)
            return false;
    }
    return true;
}

static void mark_foreign(struct bt_cache *c, size_t from, size_t end)
{
    for (size_t page = from / PAGE; page < end / PAGE; page++)
        c->foreign[page / 64] |= 1ull << (page % 64);
}

bool bt_inherit(struct engine *en, int fd)
{
    struct bt *bt = (struct bt *)en;
    struct bt_cache *c = &bt->cache;
    struct part part[PARTS];
    struct will w;
    /* Who looks at every block that is made wants to see these, too. */
    if (bt->dump != NULL || bt->perf_map != NULL || c->block_count != 1 || !fits(bt, fd, &w))
        return false;
    parts_of(c, &w, part);
    c->foreign = xcalloc(c->size / PAGE / 64 + 1, sizeof *c->foreign);
    if (!map_parts(part, fd)) {
        bt_heir_drop(c);
        return false;
    }
    mark_foreign(c, c->stubs_end, w.used);
    mark_foreign(c, c->cold_first, w.cold_used);
    size_t pages = (w.used - c->stubs_end + w.cold_used - c->cold_first) / PAGE;
    c->foreign_max = pages / 2 < TAKEN_MAX ? (uint32_t)(pages / 2) : TAKEN_MAX;
    c->used = w.used;
    c->cold_used = w.cold_used;
    c->site_used = (uint32_t)w.site_used;
    c->exit_count = (uint32_t)w.exit_count;
    c->block_count = (uint32_t)w.block_count;
    _Atomic uint8_t *flags = gmem_page_flags(bt->config.mem);
    for (uint64_t n = 0; n < c->page_count; n++) {
        if (c->page_head[n] != 0)
            atomic_fetch_or(&flags[n], GMEM_PAGE_CODE);
    }
    bt->stats.inherited_blocks = w.block_count - 1;
    return true;
}

/* -- Living with it ---------------------------------------------------------------------------- */

/* Pages of the writable view become what is executed, from one moment to the next for vCPUs that
 * run there. */
static bool show_own(struct bt_cache *c, size_t at, size_t bytes)
{
    void *view = mremap(c->write + at, 0, bytes, MREMAP_MAYMOVE);
    if (view == MAP_FAILED)
        return false;
    if (mprotect(view, bytes, PROT_READ | PROT_EXEC) == 0 &&
        mremap(view, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, c->exec + at) != MAP_FAILED)
        return true;
    munmap(view, bytes);
    return false;
}

static bool is_foreign(const struct bt_cache *c, size_t page)
{
    return (c->foreign[page / 64] >> (page % 64) & 1) != 0;
}

static void copy_page(struct bt_cache *c, size_t page)
{
    memcpy(c->write + page * PAGE, c->exec + page * PAGE, PAGE);
    c->foreign[page / 64] &= ~(1ull << (page % 64));
}

/* One mapping again. */
static void take_all(struct bt_cache *c)
{
    for (size_t page = 0; page < c->size / PAGE; page++) {
        if (is_foreign(c, page))
            copy_page(c, page);
    }
    if (!show_own(c, 0, c->size))
        abort(); /* as for lack of memory */
    free(c->foreign);
    c->foreign = NULL;
}

void bt_heir_take_page(struct bt_cache *c, uint32_t code)
{
    size_t page = code / PAGE;
    if (!is_foreign(c, page))
        return;
    copy_page(c, page);
    if (c->foreign_taken == c->foreign_max || !show_own(c, page * PAGE, PAGE))
        take_all(c);
    else
        c->foreign_taken++;
}

/* All of it goes: code and records are our own again, and empty. */
void bt_heir_drop(struct bt_cache *c)
{
    const struct will all = { .used = c->cold_first,
                              .cold_used = c->size,
                              .site_used = c->site_max,
                              .exit_count = c->exit_max,
                              .block_count = c->block_max };
    struct part part[PARTS];
    if (c->foreign == NULL)
        return;
    parts_of(c, &all, part);
    bool ok = show_own(c, 0, c->size);
    for (unsigned i = 0; ok && i < PARTS; i++) {
        ok = part[i].code ||
             mmap(part[i].at, part[i].bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
    if (!ok)
        abort(); /* as for lack of memory */
    free(c->foreign);
    c->foreign = NULL;
}
