/* SPDX-License-Identifier: Apache-2.0
 *
 * /tmp/perf-PID.map, where `perf` looks for names of code that was made at run time: a line "START
 * SIZE NAME" per block, START and SIZE hexadecimal. A block is named by where it is in the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/bt/bt.h"

static void stub(struct bt *bt, const uint8_t *from, const uint8_t *to, const char *name)
{
    fprintf(bt->perf_map, "%llx %llx bt_stub_%s\n", (unsigned long long)(uintptr_t)from,
            (unsigned long long)(to - from), name);
}

/* In the order in which bt_make_stubs makes them. */
static void all_stubs(struct bt *bt)
{
    const struct bt_stubs *s = &bt->stubs;
    stub(bt, s->enter, s->leave, "enter");
    stub(bt, s->leave, s->lookup, "leave");
    stub(bt, s->lookup, s->go, "lookup");
    stub(bt, s->go, s->helper, "go");
    stub(bt, s->helper, s->fill, "helper");
    stub(bt, s->fill, s->stack, "fill");
    stub(bt, s->stack, s->group, "stack");
    stub(bt, s->group, s->group_stack, "group");
    stub(bt, s->group_stack, s->fp_load, "group_stack");
    stub(bt, s->fp_load, s->fp_load_c, "fp_load");
    stub(bt, s->fp_load_c, s->fp_save, "fp_load_c");
    stub(bt, s->fp_save, bt->cache.exec + bt->cache.stubs_end, "fp_save");
}

/* The name can be guessed by others who may write there: never follow a link nor take over a file.
 */
int bt_perf_map_open(struct bt *bt, struct err *e)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bt->perf_map = fd < 0 ? NULL : fdopen(fd, "w");
    if (bt->perf_map == NULL) {
        int r = -errno;
        if (fd >= 0)
            close(fd);
        return err_set(e, r, "bt: cannot write %s: %s", path, strerror(-r));
    }
    all_stubs(bt);
    return 0;
}

void bt_perf_map_block(struct bt *bt, const struct bt_block *b)
{
    const char *who = b->mode & BT_MODE_USER ? "user" : "kernel";
    const struct bt_cache *c = &bt->cache;
    fprintf(bt->perf_map, "%llx %zx guest_%s_%llx\n",
            (unsigned long long)(uintptr_t)(c->exec + b->code), c->used - b->code, who,
            (unsigned long long)b->pc);
    fprintf(bt->perf_map, "%llx %zx cold_%s_%llx\n",
            (unsigned long long)(uintptr_t)(c->exec + b->cold), c->cold_used - b->cold, who,
            (unsigned long long)b->pc);
}

void bt_perf_map_restart(struct bt *bt)
{
    fflush(bt->perf_map);
    if (ftruncate(fileno(bt->perf_map), 0) == 0)
        rewind(bt->perf_map);
    all_stubs(bt);
}
