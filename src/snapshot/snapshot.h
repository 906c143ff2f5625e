/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots of whole machines: made of a running one, which stands still only while its devices are
 * saved, its disks frozen and its memory forked; taken up again by mapping the file.
 *
 * Thread: [any] but the machine's own, one at a time for one object.
 */
#ifndef SOSIA_SNAPSHOT_SNAPSHOT_H
#define SOSIA_SNAPSHOT_SNAPSHOT_H

#include "machine/machine.h"
#include "machine/vmconfig.h"
#include "snapshot/chain.h"
#include "state/state.h"

struct snapshot_save {
    const char *path;   /* replaced when it is there */
    const char *parent; /* a snapshot of the same machine; NULL: none */
    bool compress;
    bool scratch; /* nobody needs it after a crash of the host: nothing is synced */
    /* A file in memory that gets what the engine made of the guest's code, for those that take this
     * snapshot up (engine.h); < 0: none. It stays empty when the engine has nothing to give. */
    int translations;
};

struct snapshot_result {
    uint64_t pause_ns; /* the guest stood still */
    uint64_t total_ns;
    uint64_t bytes;  /* of memory that were stored */
    uint64_t memory; /* bytes of memory there are */
};

MUST_CHECK int snapshot_save(struct machine *m, const struct snapshot_save *how,
                             struct snapshot_result *result, struct err *e);

/* The configuration of a machine as it is now, disks by the names that they have been given. f:
 * NULL when they go on under their own. free() it. */
struct freeze;
char *snapshot_config_text(struct machine *m, const struct freeze *f);
/* The far ends of serial ports are the host's that it came from: none of them here. Also says that
 * nothing is booted. */
void snapshot_cut_off(struct vmconfig *v);
/* It stood still since then, and its clocks go forward by that. Machine lock held. */
void snapshot_step_time(struct machine *m, uint64_t wall_ns);

/* What a disk's file was like: nobody may have changed it when the snapshot is taken up again. */
#define SNAPSHOT_DISK_VERSION 1
struct snapshot_disk {
    uint64_t size;
    uint64_t mtime_s;
    uint64_t mtime_ns;
};
extern const struct state_field snapshot_disk_state[];
/* False: there is no such file. */
bool snapshot_look_at_disk(struct snapshot_disk *d, const char *path);

struct snapshot {
    struct chain *chain;
    uint8_t *bytes; /* owned: the state stream */
    struct state_in *state;
    struct vmconfig *config;
    bool kept[SOSIA_DISKS_MAX]; /* the disk in config is an overlay that may be written */
    int translations; /* borrowed: as in snapshot_save, of this very snapshot; < 0: none */
};

MUST_CHECK int snapshot_open(struct snapshot **out, const char *path, struct err *e);
void snapshot_close(struct snapshot *s);
/* Into a new machine of the snapshot's configuration that has not run yet. Its disks must be the
 * frozen ones, or images on them. */
MUST_CHECK int snapshot_load(struct snapshot *s, struct machine *m, struct err *e);

/* The configuration in a state stream; its disks are what they were. */
MUST_CHECK int snapshot_config(struct vmconfig **out, struct state_in *in, struct err *e);

#endif
