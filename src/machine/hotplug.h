/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks, networks and their cards that come and go while a machine runs.
 * Thread: [any], machine lock not held, unless said otherwise. Names are a person's: each function
 * says in e what is wrong with one.
 */
#ifndef SOSIA_MACHINE_HOTPLUG_H
#define SOSIA_MACHINE_HOTPLUG_H

#include "machine/cards.h"
#include "machine/config.h"

/* A disk image or a network that a card may use then. -EEXIST: the name is taken. */
MUST_CHECK int machine_add_disk(struct machine *m, const char *name, const struct disk_config *c,
                                struct err *e);
MUST_CHECK int machine_add_netdev(struct machine *m, const char *name, const struct nic_config *c,
                                  struct err *e);
/* -ENOENT; -EBUSY: a card uses it. */
MUST_CHECK int machine_remove_disk(struct machine *m, const char *name, struct err *e);
MUST_CHECK int machine_remove_netdev(struct machine *m, const char *name, struct err *e);

/* -ENOENT; -ENOTSUP: the image cannot, or it is in use by a drive that cannot tell the guest. */
MUST_CHECK int machine_resize_disk(struct machine *m, const char *name, uint64_t size,
                                   struct err *e);

/* CD drives on IDE and AHCI, and floppy drives, by the name of their disk. Take it out: -ENOENT,
 * -ENOTSUP: another drive, -EBUSY: the guest has locked it. */
MUST_CHECK int machine_eject(struct machine *m, const char *name, bool force, struct err *e);
/* Put another disc or disk in; of c path and format count. The same errors, those of opening an
 * image, -EINVAL: it does not fit into the drive. */
enum medium_mode { MEDIUM_RETAIN, MEDIUM_READONLY, MEDIUM_WRITABLE };
MUST_CHECK int machine_change_medium(struct machine *m, const char *name,
                                     const struct disk_config *c, enum medium_mode mode, bool force,
                                     struct err *e);
/* Can it be taken out, is it, has the guest locked it? Machine lock held. */
bool machine_removable(struct machine *m, struct disk *disk, bool *out, bool *locked);

/* Put a card in. backend: the name of its disk or network; c's own are not looked at. */
MUST_CHECK int machine_plug(struct machine *m, const struct card_config *c, const char *backend,
                            struct err *e);
/* Ask the guest to let go of a card: DEVICE_DELETED tells when it is out. -ENOENT. */
MUST_CHECK int machine_unplug(struct machine *m, const char *id, struct err *e);

/* The guest let go. Machine lock held. */
void machine_card_ejected(struct machine *m, unsigned slot);

#endif
