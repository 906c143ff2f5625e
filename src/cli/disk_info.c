/* SPDX-License-Identifier: Apache-2.0 -- sosia disk info, map, check: what is in an image */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cli/disk.h"
#include "cli/text.h"

/* A JSON string of what an image says, so of any bytes. */
static void print_string(const char *s)
{
    putchar('"');
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < ' ' || c == 127) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static void print_snapshots(const struct block_snapshot *list, size_t count, bool json)
{
    for (size_t i = 0; i < count; i++) {
        const struct block_snapshot *s = &list[i];
        if (json) {
            printf("%s\n    { \"id\": ", i != 0 ? "," : "");
            print_string(s->id);
            printf(", \"name\": ");
            print_string(s->name);
            printf(", \"disk-size\": %" PRIu64 ", \"vm-state-size\": %" PRIu64
                   ", \"date-sec\": %" PRIu64 ", \"date-nsec\": %u }",
                   s->size, s->vm_state_size, s->seconds, s->nanoseconds);
            continue;
        }
        char when[TEXT_WHEN];
        printf("  %-4s %s  ", s->id, text_when(when, s->seconds));
        text_size(s->size);
        printf("  ");
        text_plain(s->name);
        putchar('\n');
    }
}

static void info_json(struct block *b, const struct block_info *i,
                      const struct block_snapshot *list, size_t count)
{
    printf("{\n  \"filename\": ");
    print_string(block_path(b));
    printf(",\n  \"format\": \"%s\",\n  \"virtual-size\": %" PRIu64
           ",\n  \"actual-size\": %" PRIu64,
           block_format(b), block_size(b), i->allocated);
    if (i->cluster_size != 0) {
        printf(",\n  \"cluster-size\": %" PRIu64, i->cluster_size);
    }
    if (i->parent_path != NULL) {
        printf(",\n  \"backing-filename\": ");
        print_string(i->parent_path);
    }
    if (i->parent_path != NULL && i->parent_format != NULL) {
        printf(",\n  \"backing-filename-format\": ");
        print_string(i->parent_format);
    }
    if (i->subformat != NULL) {
        printf(",\n  \"subformat\": ");
        print_string(i->subformat);
    }
    if (i->compat != NULL) {
        printf(",\n  \"compat\": \"%s\",\n  \"refcount-bits\": %u,\n  \"lazy-refcounts\": %s,\n"
               "  \"corrupt\": %s",
               i->compat, i->refcount_bits, i->lazy_refcounts ? "true" : "false",
               i->corrupt ? "true" : "false");
    }
    if (i->compression != NULL) {
        printf(",\n  \"compression-type\": \"%s\"", i->compression);
    }
    printf(",\n  \"dirty-flag\": %s", i->dirty ? "true" : "false");
    if (count != 0) {
        printf(",\n  \"snapshots\": [");
        print_snapshots(list, count, true);
        printf("\n  ]");
    }
    printf("\n}");
}

static void info_text(struct block *b, const struct block_info *i,
                      const struct block_snapshot *list, size_t count)
{
    printf("image: ");
    text_plain(block_path(b));
    printf("\nformat: %s", block_format(b));
    if (i->subformat != NULL) {
        printf(" (");
        text_plain(i->subformat);
        printf(")");
    }
    if (i->compat != NULL) {
        printf(" (compat %s, %s, refcounts of %u bits)", i->compat, i->compression,
               i->refcount_bits);
    }
    printf("\nsize: ");
    text_size(block_size(b));
    printf(" (%" PRIu64 " bytes)\non disk: ", block_size(b));
    text_size(i->allocated);
    putchar('\n');
    if (i->cluster_size != 0) {
        printf("cluster size: %" PRIu64 "\n", i->cluster_size);
    }
    if (i->parent_path != NULL) {
        printf("backing file: ");
        text_plain(i->parent_path);
        if (i->parent_format != NULL) {
            printf(" (");
            text_plain(i->parent_format);
            printf(")");
        }
        putchar('\n');
    }
    if (i->dirty) {
        printf("not closed properly\n");
    }
    if (i->corrupt) {
        printf("marked as damaged\n");
    }
    if (count != 0) {
        printf("snapshots:\n");
        print_snapshots(list, count, false);
    }
}

static int info_one(struct block *b, bool json, struct err *e)
{
    struct block_info info;
    struct block_snapshot *list;
    size_t count;
    int r = block_snapshot_list(b, &list, &count, e);
    if (r < 0) {
        return r;
    }
    block_describe(b, &info);
    if (json) {
        info_json(b, &info, list, count);
    } else {
        info_text(b, &info, list, count);
    }
    block_snapshots_free(list, count);
    return 0;
}

int disk_info(const struct disk_options *o, struct err *e)
{
    struct block *b;
    unsigned flags = BLOCK_READONLY | BLOCK_NO_LOCK | (o->chain ? 0 : BLOCK_NO_PARENT);
    int r = disk_open(&b, o, flags, e);
    if (r < 0) {
        return r;
    }
    if (o->json && o->chain) {
        printf("[\n");
    }
    for (struct block *layer = b; r == 0 && layer != NULL; layer = block_parent(layer)) {
        if (layer != b) {
            printf(o->json ? ",\n" : "\n");
        }
        r = info_one(layer, o->json, e);
    }
    if (o->json) {
        printf(o->chain ? "\n]\n" : "\n");
    }
    block_close(b);
    return r;
}

struct map_run {
    uint64_t start;
    struct block_extent extent;
    unsigned depth;
};

static void print_run(const struct map_run *m, bool json, bool first)
{
    bool data = m->extent.kind == BLOCK_DATA, placed = m->extent.file_offset != UINT64_MAX;
    if (json) {
        printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
               ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
               first ? "[" : ",\n", m->start, m->extent.len, m->depth,
               m->extent.kind == BLOCK_HOLE ? "false" : "true", data ? "false" : "true",
               data ? "true" : "false");
        if (data && placed) {
            printf(", \"offset\": %" PRIu64, m->extent.file_offset);
        }
        printf("}");
    } else if (data) {
        printf("%#-16" PRIx64 " %#-16" PRIx64, m->start, m->extent.len);
        if (placed) {
            printf(" %#-16" PRIx64 " %u\n", m->extent.file_offset, m->depth);
        } else {
            printf(" %-16s %u\n", "compressed", m->depth);
        }
    }
}

static bool continues(const struct map_run *m, const struct block_extent *x, unsigned depth)
{
    bool placed = m->extent.file_offset != UINT64_MAX;
    if (m->extent.len == 0 || m->depth != depth || m->extent.kind != x->kind) {
        return false;
    }
    return x->kind != BLOCK_DATA ||
           (placed ? x->file_offset == m->extent.file_offset + m->extent.len
                   : x->file_offset == UINT64_MAX);
}

int disk_map(const struct disk_options *o, struct err *e)
{
    struct block *b;
    int r = disk_open(&b, o, BLOCK_READONLY | BLOCK_NO_LOCK, e);
    if (r < 0) {
        return r;
    }
    uint64_t size = block_size(b);
    struct map_run m = { 0 };
    bool first = true;
    if (!o->json) {
        printf("%-16s %-16s %-16s %s\n", "offset", "length", "in the file", "layer");
    }
    for (uint64_t at = 0; at < size;) {
        struct block_extent x;
        unsigned depth;
        r = disk_extent(b, at, size - at, &x, &depth);
        if (r < 0) {
            err_set(e, r, "%s: %s", block_path(b), strerror(-r));
            break;
        }
        if (continues(&m, &x, depth)) {
            m.extent.len += x.len;
        } else {
            if (m.extent.len != 0) {
                print_run(&m, o->json, first);
                first = false;
            }
            m = (struct map_run){ .start = at, .extent = x, .depth = depth };
        }
        at += x.len;
    }
    if (m.extent.len != 0) {
        print_run(&m, o->json, first);
        first = false;
    }
    if (o->json) {
        printf(first ? "[]\n" : "]\n");
    }
    block_close(b);
    return r;
}

static void say(void *ctx, const char *line)
{
    FILE *to = ctx;
    fprintf(to, "%s\n", line);
}

/* As qemu-img: 2 corruption, 3 leaks only; of what is left after repair. */
static int check_status(const struct block_check *c)
{
    return c->corruptions > c->corruptions_fixed ? 2 : c->leaks > c->leaks_fixed ? 3 : 0;
}

static void check_json(const struct block_check *c)
{
    printf("{ \"corruptions\": %" PRIu64 ", \"leaks\": %" PRIu64 ", \"corruptions-fixed\": %" PRIu64
           ", \"leaks-fixed\": %" PRIu64 ", \"total-clusters\": %" PRIu64
           ", \"allocated-clusters\": %" PRIu64 ", \"compressed-clusters\": %" PRIu64
           ", \"image-end-offset\": %" PRIu64 " }\n",
           c->corruptions - c->corruptions_fixed, c->leaks - c->leaks_fixed, c->corruptions_fixed,
           c->leaks_fixed, c->clusters, c->allocated, c->compressed, c->end);
}

int disk_check(const struct disk_options *o, struct err *e)
{
    struct block *b;
    struct block_check c = { .say = o->quiet ? NULL : say, .ctx = o->json ? stderr : stdout };
    unsigned flags = BLOCK_NO_PARENT | (o->repair ? BLOCK_REPAIR : BLOCK_READONLY);
    int r = disk_open(&b, o, flags, e);
    if (r < 0) {
        return r;
    }
    r = block_check(b, o->repair, &c, e);
    if (r == 0 && o->json) {
        check_json(&c);
    } else if (r == 0 && !o->quiet) {
        if (c.corruptions == 0 && c.leaks == 0) {
            printf("no errors found\n");
        } else {
            printf("%" PRIu64 " errors, %" PRIu64 " leaked clusters", c.corruptions, c.leaks);
            if (o->repair) {
                printf("; repaired: %" PRIu64 " errors, %" PRIu64 " leaks", c.corruptions_fixed,
                       c.leaks_fixed);
            }
            putchar('\n');
        }
        if (c.clusters != 0) {
            printf("%" PRIu64 "/%" PRIu64 " clusters in use, %" PRIu64 " compressed\n", c.allocated,
                   c.clusters, c.compressed);
        }
    }
    block_close(b);
    return r < 0 ? r : check_status(&c);
}
