/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine/machine.h"
#include "machine/pc.h"

static int check_name(const char *name, struct err *e)
{
    size_t len = strlen(name);
    return len != 0 && len < MACHINE_NAME_BYTES
               ? 0
               : err_set(e, -EINVAL, "a name has 1 to %u characters", MACHINE_NAME_BYTES - 1);
}

/* -- What cards use ---------------------------------------------------------------------------- */
int machine_add_disk(struct machine *m, const char *name, const struct disk_config *c,
                     struct err *e)
{
    struct block *image;
    struct disk *disk;
    int r = check_name(name, e);
    if (r == 0) {
        r = disk_open_image(&image, c, e); /* without the lock: the guest does not wait for it */
    }
    if (r < 0) {
        return r;
    }
    bus_lock(m->bus);
    r = disks_add(&m->pc->disks, name, c, image, m->loop, &disk, e);
    bus_unlock(m->bus);
    if (r < 0) {
        block_close(image);
    }
    return r;
}

int machine_remove_disk(struct machine *m, const char *name, struct err *e)
{
    int r = 0;
    bus_lock(m->bus);
    struct disk *disk = disks_find(&m->pc->disks, name);
    if (disk == NULL) {
        r = err_set(e, -ENOENT, "Failed to find node with node-name='%s'", name);
    } else if (disk->used) {
        r = err_set(e, -EBUSY, "Node %s is in use", name);
    } else {
        disks_remove(disk);
    }
    bus_unlock(m->bus);
    return r;
}

static int resize_locked(struct pc *p, const char *name, uint64_t size, struct err *e)
{
    struct disk *disk = disks_find(&p->disks, name);
    struct card *card = disk != NULL ? cards_with_disk(&p->cards, disk) : NULL;
    if (disk == NULL) {
        return err_set(e, -ENOENT, "Device '%s' not found", name);
    }
    if (disk->used && (card == NULL || card->kind != CARD_VIRTIO_BLK)) {
        return err_set(e, -ENOTSUP, "only a virtio-blk disk changes its size while it is in use");
    }
    block_queue_drain(disk->queue);
    int r = block_resize(disk->block, size, e);
    if (r == 0 && card != NULL) {
        virtio_blk_resized(card->blk);
    }
    return r;
}

int machine_resize_disk(struct machine *m, const char *name, uint64_t size, struct err *e)
{
    bus_lock(m->bus);
    int r = resize_locked(m->pc, name, size, e);
    bus_unlock(m->bus);
    return r;
}

int machine_add_netdev(struct machine *m, const char *name, const struct nic_config *c,
                       struct err *e)
{
    struct netdev *netdev;
    int r = check_name(name, e);
    if (r == 0) {
        bus_lock(m->bus);
        r = netdevs_add(&m->pc->netdevs, m, name, c, &netdev, e);
        bus_unlock(m->bus);
    }
    return r;
}

int machine_remove_netdev(struct machine *m, const char *name, struct err *e)
{
    int r = 0;
    bus_lock(m->bus);
    struct netdev *netdev = netdevs_find(&m->pc->netdevs, name);
    if (netdev == NULL) {
        r = err_set(e, -ENOENT, "Device '%s' not found", name);
    } else if (netdev->used) {
        r = err_set(e, -EBUSY, "netdev '%s' is in use", name);
    } else {
        netdevs_remove(netdev);
    }
    bus_unlock(m->bus);
    return r;
}

/* -- Discs and floppy disks -------------------------------------------------------------------- */
/* The drive that a disk can be taken out of. */
struct removable {
    struct disk *disk;
    struct ide_drive *cd; /* or */
    unsigned floppy;      /* this one; FDC_DRIVES: none */
};

static bool find_removable(struct machine *m, struct disk *disk, struct removable *out)
{
    struct pc *p = m->pc;
    *out = (struct removable){ .disk = disk, .floppy = FDC_DRIVES };
    for (unsigned n = 0; p->has_ide && n < IDE_CHANNELS * IDE_DRIVES; n++) {
        struct ide_drive *d = &p->ide.channel[n / IDE_DRIVES].drive[n % IDE_DRIVES];
        out->cd = d->kind == IDE_CD && d->queue == disk->queue ? d : out->cd;
    }
    for (unsigned n = 0; p->cards.ahci != NULL && n < AHCI_PORTS; n++) {
        struct ide_drive *d = &p->cards.ahci->port[n].drive;
        out->cd = d->kind == IDE_CD && d->queue == disk->queue ? d : out->cd;
    }
    for (unsigned n = 0; p->has_fdc && n < FDC_DRIVES; n++) {
        out->floppy = p->fdc.drive[n].queue == disk->queue ? n : out->floppy;
    }
    return out->cd != NULL || out->floppy < FDC_DRIVES;
}

bool machine_removable(struct machine *m, struct disk *disk, bool *out, bool *locked)
{
    struct removable r;
    bool found = find_removable(m, disk, &r);
    *out = r.cd != NULL ? r.cd->ejected : found && m->pc->fdc.drive[r.floppy].ejected;
    *locked = r.cd != NULL && r.cd->locked;
    return found;
}

static int find_named(struct machine *m, const char *name, struct removable *out, struct err *e)
{
    struct disk *disk = disks_find(&m->pc->disks, name);
    if (disk == NULL) {
        return err_set(e, -ENOENT, "Device '%s' not found", name);
    }
    return disk->used && find_removable(m, disk, out)
               ? 0
               : err_set(e, -ENOTSUP, "Device '%s' is not removable: a CD drive on IDE or AHCI is, "
                                      "and a floppy drive", name);
}

static int take_out(struct machine *m, const struct removable *drive, bool force, struct err *e)
{
    if (drive->cd == NULL) {
        fdc_eject(&m->pc->fdc, drive->floppy); /* nothing locks it */
        return 0;
    }
    int r = ide_drive_open_tray(drive->cd, force);
    return r == 0 ? 0
                  : err_set(e, r, "Device '%s' is locked and force was not specified, wait for "
                                  "tray to open and try again", drive->disk->name);
}

int machine_eject(struct machine *m, const char *name, bool force, struct err *e)
{
    struct removable drive;
    bus_lock(m->bus);
    int r = find_named(m, name, &drive, e);
    if (r == 0) {
        r = take_out(m, &drive, force, e);
    }
    bus_unlock(m->bus);
    return r;
}

static int check_floppy(struct machine *m, const struct removable *drive, struct block *image,
                        struct err *e)
{
    const struct fdc_geometry *g = fdc_geometry_of(block_size(image));
    if (g != NULL && fdc_fits(&m->pc->fdc.drive[drive->floppy], g)) {
        return 0;
    }
    return err_set(e, -EINVAL, "%s: a disk of %llu KiB does not fit into this floppy drive",
                   block_path(image), (unsigned long long)block_size(image) >> 10);
}

static int change_locked(struct machine *m, const char *name, struct block *image, bool force,
                         struct err *e)
{
    struct removable drive;
    struct block_queue *queue;
    int r = find_named(m, name, &drive, e);
    if (r == 0 && drive.cd == NULL) {
        r = check_floppy(m, &drive, image, e);
    }
    if (r == 0) {
        r = block_queue_new(&queue, image, m->loop, e);
    }
    if (r < 0) {
        return r;
    }
    r = take_out(m, &drive, force, e);
    if (r < 0) {
        block_queue_free(queue);
        return r;
    }
    struct disk *disk = drive.disk;
    disk->readonly = block_readonly(image);
    disk->exchanged = true;
    if (drive.cd != NULL) {
        ide_drive_change_disc(drive.cd, queue);
    } else {
        fdc_insert(&m->pc->fdc, drive.floppy, queue, disk->readonly);
    }
    block_queue_free(disk->queue);
    block_close(disk->block);
    disk->queue = queue;
    disk->block = image;
    return 0;
}

/* As it is to be opened: discs are read-only, and a floppy disk where it is asked for. */
static int describe_medium(struct machine *m, const char *name, struct disk_config *c,
                           enum medium_mode mode, struct err *e)
{
    struct removable drive;
    bus_lock(m->bus);
    int r = find_named(m, name, &drive, e);
    if (r == 0) {
        c->cdrom = drive.cd != NULL;
        c->readonly = mode == MEDIUM_RETAIN ? drive.disk->readonly : mode == MEDIUM_READONLY;
    }
    bus_unlock(m->bus);
    return r;
}

int machine_change_medium(struct machine *m, const char *name, const struct disk_config *c,
                          enum medium_mode mode, bool force, struct err *e)
{
    struct block *image;
    struct disk_config config = *c;
    int r = describe_medium(m, name, &config, mode, e);
    if (r == 0) {
        r = disk_open_image(&image, &config, e); /* without the lock, as above */
    }
    if (r < 0) {
        return r;
    }
    bus_lock(m->bus);
    r = change_locked(m, name, image, force, e);
    bus_unlock(m->bus);
    if (r < 0) {
        block_close(image);
    }
    return r;
}

/* -- Cards ------------------------------------------------------------------------------------- */
static int find_backend(struct pc *p, struct card_config *c, const char *backend, struct err *e)
{
    if (cards_is_disk(c->kind)) {
        c->disk = disks_find(&p->disks, backend);
        return c->disk == NULL   ? err_set(e, -ENOENT, "Property 'drive' can't find '%s'", backend)
               : c->disk->used ? err_set(e, -EBUSY, "Drive '%s' is in use", backend)
                               : 0;
    }
    c->netdev = netdevs_find(&p->netdevs, backend);
    return c->netdev == NULL ? err_set(e, -ENOENT, "Property 'netdev' can't find '%s'", backend)
           : c->netdev->used ? err_set(e, -EBUSY, "Property 'netdev' can't take value '%s', "
                                                  "it's in use", backend)
                             : 0;
}

static int plug_locked(struct machine *m, struct card_config *c, const char *backend,
                       struct err *e)
{
    struct pc *p = m->pc;
    struct card *card;
    if (cards_find(&p->cards, c->id) != NULL) {
        return err_set(e, -EEXIST, "Duplicate device ID '%s'", c->id);
    }
    int r = find_backend(p, c, backend, e);
    if (r == 0) {
        r = cards_plug(&p->cards, c, &card, e);
    }
    if (r == 0) {
        card->hot = true;
        pci_hotplug_plug(&p->hotplug, card->slot);
    }
    return r;
}

int machine_plug(struct machine *m, const struct card_config *c, const char *backend,
                 struct err *e)
{
    struct card_config config = *c;
    int r = check_name(c->id, e);
    if (r == 0) {
        bus_lock(m->bus);
        r = plug_locked(m, &config, backend, e);
        bus_unlock(m->bus);
    }
    return r;
}

int machine_unplug(struct machine *m, const char *id, struct err *e)
{
    int r = 0;
    bus_lock(m->bus);
    const struct card *card = cards_find(&m->pc->cards, id);
    if (card != NULL) {
        pci_hotplug_unplug(&m->pc->hotplug, card->slot);
    } else {
        r = err_set(e, -ENOENT, "Device '%s' not found", id);
    }
    bus_unlock(m->bus);
    return r;
}

void machine_card_ejected(struct machine *m, unsigned slot)
{
    struct machine_event ev = { .kind = MACHINE_EVENT_DEVICE_DELETED };
    snprintf(ev.id, sizeof ev.id, "%s", m->pc->cards.card[slot]->id);
    cards_unplug(&m->pc->cards, slot);
    machine_notify(m, &ev);
}
