/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks and their images.
 */
#include <errno.h>
#include <string.h>

#include "api/command.h"
#include "machine/hotplug.h"
#include "machine/machine.h"
#include "machine/pc.h"

static json_t *image_of(struct block *b)
{
    return json_pack("{s:o, s:s, s:I, s:b}", "filename", api_json_text(block_path(b)), "format",
                     block_format(b), "virtual-size", (json_int_t)block_size(b), "dirty-flag", 0);
}

static int depth_of(struct block *b)
{
    int depth = 0;
    while ((b = block_parent(b)) != NULL) {
        depth++;
    }
    return depth;
}

/* BlockDeviceInfo */
static json_t *inserted(const struct disk *d)
{
    struct block *b = d->block;
    json_t *j = json_pack("{s:o, s:s, s:o, s:b, s:b, s:i, s:s, s:i, s:{s:b, s:b, s:b}, s:o}",
                          "node-name", api_json_text(d->name), "drv", block_format(b), "file",
                          api_json_text(block_path(b)), "ro", d->readonly, "encrypted", 0,
                          "backing_file_depth", depth_of(b), "detect_zeroes", "off",
                          "write_threshold", 0, "cache", "writeback", 1, "direct", 0, "no-flush",
                          0, "image", image_of(b));
    static const char *const limits[] = { "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr" };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        json_object_set_new(j, limits[i], json_integer(0));
    }
    return j;
}

/* Drives that the guest sees; images that wait for one are nodes only. */
static int query_block(struct api_call *c)
{
    struct machine *m = c->machine;
    struct disks *disks = &m->pc->disks;
    c->result = json_array();
    bus_lock(m->bus);
    for (unsigned i = 0; i < disks->count; i++) {
        struct disk *d = &disks->disk[i];
        if (d->block == NULL || !d->used) {
            continue;
        }
        bool out, locked;
        bool removable = machine_removable(m, d, &out, &locked);
        const struct card *card = cards_with_disk(&m->pc->cards, d);
        json_t *j = json_pack("{s:o, s:s, s:b, s:b, s:o}", "device", api_json_text(d->name),
                              "type", "unknown", "removable", removable || d->cdrom, "locked",
                              locked, "inserted", inserted(d));
        if (removable) {
            json_object_set_new(j, "tray_open", json_boolean(out));
        }
        if (card != NULL) {
            json_object_set_new(j, "qdev", api_json_text(card->id));
        }
        json_array_append_new(c->result, j);
    }
    bus_unlock(m->bus);
    return 0;
}

static int query_nodes(struct api_call *c)
{
    const struct disks *disks = &c->machine->pc->disks;
    c->result = json_array();
    bus_lock(c->machine->bus);
    for (unsigned i = 0; i < disks->count; i++) {
        if (disks->disk[i].block != NULL) {
            json_array_append_new(c->result, inserted(&disks->disk[i]));
        }
    }
    bus_unlock(c->machine->bus);
    return 0;
}

static int resize(struct api_call *c)
{
    const char *name = api_string(c, "node-name");
    int64_t size = api_integer(c, "size", 0);
    if (name == NULL) {
        name = api_string(c, "device");
    }
    if (name == NULL) {
        return err_set(&c->e, -EINVAL, "Parameter 'node-name' is missing");
    }
    if (size <= 0) {
        return err_set(&c->e, -EINVAL, "Parameter 'size' expects a size");
    }
    int r = machine_resize_disk(c->machine, name, (uint64_t)size, &c->e);
    c->class = r == -ENOENT ? API_DEVICE_NOT_FOUND : NULL;
    return r;
}

/* -- Media ------------------------------------------------------------------------------------- */
static const char *drive_name(struct api_call *c)
{
    const char *name = api_string(c, "id");
    name = name != NULL ? name : api_string(c, "device");
    if (name == NULL) {
        err_set(&c->e, -EINVAL, "Parameter 'id' is missing");
    }
    return name;
}

static int eject(struct api_call *c)
{
    const char *name = drive_name(c);
    if (name == NULL) {
        return -EINVAL;
    }
    int r = machine_eject(c->machine, name, api_flag(c, "force", false), &c->e);
    c->class = r == -ENOENT ? API_DEVICE_NOT_FOUND : NULL;
    return r;
}

static int change_medium(struct api_call *c)
{
    const char *name = drive_name(c);
    const char *asked = api_string(c, "read-only-mode");
    const struct disk_config d = { .path = api_string(c, "filename"),
                                   .format = api_string(c, "format") };
    enum medium_mode mode = MEDIUM_RETAIN;
    if (name == NULL) {
        return -EINVAL;
    }
    if (asked != NULL && strcmp(asked, "read-only") == 0) {
        mode = MEDIUM_READONLY;
    } else if (asked != NULL && strcmp(asked, "read-write") == 0) {
        mode = MEDIUM_WRITABLE;
    } else if (asked != NULL && strcmp(asked, "retain") != 0) {
        return err_set(&c->e, -EINVAL, "Parameter 'read-only-mode' does not accept value '%s'",
                       asked);
    }
    return machine_change_medium(c->machine, name, &d, mode, api_flag(c, "force", false), &c->e);
}

const struct api_command api_block_commands[] = {
    { "blockdev-change-medium", change_medium, "?device:str ?id:str filename:str ?format:str "
                                               "?force:bool ?read-only-mode:str" },
    { "eject", eject, "?device:str ?id:str ?force:bool" },
    { "block_resize", resize, "?device:str ?node-name:str size:int" },
    { "query-block", query_block, NULL },
    { "query-named-block-nodes", query_nodes, "?flat:bool" },
    { NULL, NULL, NULL },
};
