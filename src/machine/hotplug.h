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

/* CD drives on IDE and AHCI, by the name of their disk. Open the tray: -ENOENT, -ENOTSUP: another
 * drive, -EBUSY: the guest has locked it. */
MUST_CHECK int machine_open_tray(struct machine *m, const char *name, bool force, struct err *e);
/* Another disc, and close the tray. The same errors, and those of opening an image. */
MUST_CHECK int machine_change_disc(struct machine *m, const char *name, const struct disk_config *c,
                                   bool force, struct err *e);
struct ide_drive *machine_cd_drive(struct machine *m, const struct disk *disk); /* NULL: another */

/* Put a card in. backend: the name of its disk or network; c's own are not looked at. */
MUST_CHECK int machine_plug(struct machine *m, const struct card_config *c, const char *backend,
                            struct err *e);
/* Ask the guest to let go of a card: DEVICE_DELETED tells when it is out. -ENOENT. */
MUST_CHECK int machine_unplug(struct machine *m, const char *id, struct err *e);

/* The guest let go. Machine lock held. */
void machine_card_ejected(struct machine *m, unsigned slot);

#endif
