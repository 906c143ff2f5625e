/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/cards.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "machine/drives.h"
#include "machine/machine.h"

#define BLK_QUEUES_MAX 4u

/* The first free slot. */
static int next_slot(struct cards *k, uint8_t *devfn, struct err *e)
{
    for (unsigned slot = CARDS_FIRST_SLOT; slot < CARDS_SLOTS; slot++) {
        *devfn = PCI_DEVFN(slot, 0);
        if (pci_func_at(k->pci, *devfn) == NULL) {
            return 0;
        }
    }
    return err_set(e, -ENOSPC, "more devices than the board has slots for");
}

static struct virtio_options options(const struct cards *k, bool packed)
{
    return (struct virtio_options){ .packed = packed, .clock = k->machine->clock };
}

static unsigned queues_of_disks(const struct cards *k)
{
    return k->machine->cpu_count < BLK_QUEUES_MAX ? k->machine->cpu_count : BLK_QUEUES_MAX;
}

/* -- Cards that come and go -------------------------------------------------------------------- */
static void init_blk(struct cards *k, struct card *card, const char *name,
                     const struct card_config *c)
{
    const struct virtio_blk_config config = {
        .queue = c->disk->queue,
        .readonly = c->disk->readonly,
        .serial = c->disk->serial,
        .queues = c->queues != 0 ? c->queues : queues_of_disks(k),
        .virtio = options(k, c->packed),
    };
    card->disk = c->disk;
    c->disk->used = true;
    disk_set_place(c->disk, "scsi", PCI_DEVFN(card->slot, 0), "/disk@0,0");
    card->blk = xzalloc(sizeof *card->blk);
    virtio_blk_init(card->blk, name, k->pci, k->machine->bus, PCI_DEVFN(card->slot, 0), &config);
}

static void init_nvme(struct cards *k, struct card *card, const char *name,
                      const struct card_config *c)
{
    const struct nvme_config config = { .queue = c->disk->queue,
                                        .readonly = c->disk->readonly,
                                        .serial = c->disk->serial };
    uint8_t devfn = PCI_DEVFN(card->slot, 0);
    card->disk = c->disk;
    c->disk->used = true;
    disk_set_place(c->disk, "nvme", devfn, "/namespace@1,0");
    card->nvme = xzalloc(sizeof *card->nvme);
    nvme_init(card->nvme, name, k->pci, k->machine->bus, devfn, &config);
}

static void init_nic(struct cards *k, struct card *card, const char *name,
                     const struct card_config *c)
{
    struct bus *b = k->machine->bus;
    uint8_t devfn = PCI_DEVFN(card->slot, 0);
    uint8_t mac[NET_MAC_BYTES] = { 0x52, 0x54, 0x00, 0x12, 0x35, card->slot };
    if (c->has_mac) {
        memcpy(mac, c->mac, sizeof mac);
    }
    card->netdev = c->netdev;
    c->netdev->used = true;
    if (c->kind == CARD_E1000) {
        card->e1000 = xzalloc(sizeof *card->e1000);
        e1000_init(card->e1000, name, k->pci, b, devfn, c->netdev->net, mac);
        return;
    }
    struct virtio_net_config config = { .net = c->netdev->net,
                                        .pairs = c->queues != 0 ? c->queues : 1,
                                        .virtio = options(k, c->packed) };
    memcpy(config.mac, mac, sizeof config.mac);
    card->net = xzalloc(sizeof *card->net);
    virtio_net_init(card->net, name, k->pci, b, devfn, &config);
}

int cards_plug(struct cards *k, const struct card_config *c, struct card **out, struct err *e)
{
    static const char *const kinds[] = { "virtio-blk", "nvme", "virtio-net", "e1000" };
    uint8_t devfn = PCI_DEVFN(c->slot, 0);
    char name[24];
    if (c->slot == 0) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
    } else if (c->slot < CARDS_FIRST_SLOT || c->slot >= CARDS_SLOTS) {
        return err_set(e, -EINVAL, "slot %u: %u to %u are for cards", c->slot, CARDS_FIRST_SLOT,
                       CARDS_SLOTS - 1);
    } else if (pci_func_at(k->pci, devfn) != NULL) {
        return err_set(e, -EBUSY, "slot %u is taken", c->slot);
    }
    struct card *card = xzalloc(sizeof *card);
    card->kind = c->kind;
    card->slot = devfn >> 3;
    snprintf(card->id, sizeof card->id, "%s", c->id);
    snprintf(name, sizeof name, "%s.slot%u", kinds[c->kind], card->slot);
    if (c->dev_name != NULL) {
        snprintf(name, sizeof name, "%s", c->dev_name);
    }
    if (c->kind == CARD_VIRTIO_BLK) {
        init_blk(k, card, name, c);
    } else if (c->kind == CARD_NVME) {
        init_nvme(k, card, name, c);
    } else {
        init_nic(k, card, name, c);
    }
    k->card[card->slot] = card;
    *out = card;
    return 0;
}

void cards_unplug(struct cards *k, unsigned slot)
{
    struct card *card = k->card[slot];
    switch (card->kind) {
    case CARD_VIRTIO_BLK:
        virtio_blk_fini(card->blk);
        free(card->blk);
        card->disk->used = false;
        break;
    case CARD_NVME:
        nvme_fini(card->nvme);
        free(card->nvme);
        card->disk->used = false;
        break;
    case CARD_VIRTIO_NET:
        virtio_net_fini(card->net);
        free(card->net);
        card->netdev->used = false;
        break;
    case CARD_E1000:
        e1000_fini(card->e1000);
        free(card->e1000);
        card->netdev->used = false;
        break;
    }
    free(card);
    k->card[slot] = NULL;
}

bool cards_is_disk(enum card_kind kind) { return kind == CARD_VIRTIO_BLK || kind == CARD_NVME; }

struct card *cards_with_disk(struct cards *k, const struct disk *disk)
{
    for (unsigned slot = 0; slot < CARDS_SLOTS; slot++) {
        struct card *card = k->card[slot];
        if (card != NULL && card->disk == disk) {
            return card;
        }
    }
    return NULL;
}

struct card *cards_find(struct cards *k, const char *id)
{
    for (unsigned slot = 0; slot < CARDS_SLOTS; slot++) {
        if (k->card[slot] != NULL && strcmp(k->card[slot]->id, id) == 0) {
            return k->card[slot];
        }
    }
    return NULL;
}

/* -- What the configuration asks for ----------------------------------------------------------- */
static int add_nic(struct cards *k, struct netdevs *n, unsigned i, const struct nic_config *c,
                   struct err *e)
{
    struct netdev *netdev;
    struct card *card;
    char name[MACHINE_NAME_BYTES], id[MACHINE_NAME_BYTES];
    snprintf(name, sizeof name, "net%u", i);
    snprintf(id, sizeof id, "%s.%u", c->model == NIC_E1000 ? "e1000" : "virtio-net", i);
    int r = netdevs_add(n, k->machine, name, c, &netdev, e);
    if (r < 0) {
        return err_prefix(e, r, "network card %u", i);
    }
    struct card_config config = {
        .kind = c->model == NIC_E1000 ? CARD_E1000 : CARD_VIRTIO_NET,
        .id = id,
        .dev_name = id,
        .packed = c->packed,
        .netdev = netdev,
        .has_mac = true,
        .mac = { 0x52, 0x54, 0x00, 0x12, 0x34, (uint8_t)(0x56 + i) },
        .queues = c->queues,
    };
    if (c->has_mac) {
        memcpy(config.mac, c->mac, sizeof config.mac);
    }
    return cards_plug(k, &config, &card, e);
}

static int add_blk(struct cards *k, unsigned i, struct disk *d, struct err *e)
{
    struct card *card;
    char id[MACHINE_NAME_BYTES];
    snprintf(id, sizeof id, "virtio-blk.%u", i);
    const struct card_config config = {
        .kind = CARD_VIRTIO_BLK, .id = id, .dev_name = id, .packed = d->packed, .disk = d
    };
    return cards_plug(k, &config, &card, e);
}

static int add_scsi(struct cards *k, struct disk *d, struct err *e)
{
    if (k->scsi == NULL) {
        uint8_t devfn = 0;
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        const struct virtio_options o = options(k, d->packed);
        k->scsi = xzalloc(sizeof *k->scsi);
        virtio_scsi_init(k->scsi, k->pci, k->machine->bus, devfn, queues_of_disks(k), &o);
    }
    disk_set_place(d, "scsi", k->scsi->v.pci.devfn, "/channel@0/disk@%x,0", k->scsi->targets);
    virtio_scsi_add(k->scsi, d->queue, d->cdrom, d->readonly, d->serial);
    return 0;
}

/* One card for all, in the place of the first. */
static int add_ahci(struct cards *k, struct disks *d, struct err *e)
{
    struct ide_drive_config drives[AHCI_PORTS];
    uint8_t devfn = 0;
    if (k->ahci != NULL) {
        return 0;
    }
    int r = next_slot(k, &devfn, e);
    r = r == 0 ? drives_assign_ahci(drives, d, devfn, e) : r;
    if (r < 0) {
        return r;
    }
    k->ahci = xzalloc(sizeof *k->ahci);
    ahci_init(k->ahci, "ahci", k->pci, k->machine->bus, devfn, drives);
    return 0;
}

static int add_nvme(struct cards *k, unsigned i, struct disk *d, struct err *e)
{
    struct card *card;
    char id[MACHINE_NAME_BYTES];
    snprintf(id, sizeof id, "nvme.%u", i);
    const struct card_config config = {
        .kind = CARD_NVME, .id = id, .dev_name = id, .disk = d
    };
    return d->cdrom ? err_set(e, -EINVAL, "a CD-ROM drive cannot be on nvme: try ahci or ide")
                    : cards_plug(k, &config, &card, e);
}

static int add_disk(struct cards *k, unsigned i, struct disks *d, struct err *e)
{
    switch (d->disk[i].bus) {
    case DISK_VIRTIO:
        return add_blk(k, i, &d->disk[i], e);
    case DISK_SCSI:
        return add_scsi(k, &d->disk[i], e);
    case DISK_AHCI:
        return add_ahci(k, d, e);
    case DISK_NVME:
        return add_nvme(k, i, &d->disk[i], e);
    default:
        return 0; /* on the board */
    }
}

/* -- The other virtio devices ------------------------------------------------------------------ */
static size_t to_console(void *dev, unsigned n, const uint8_t *data, size_t len)
{
    return virtio_console_input(dev, n - MACHINE_SERIAL_PORTS, data, len);
}

/* Ports are numbered behind the serial ones. */
static int add_console(struct cards *k, struct pci_bus *p, const struct machine_config *c,
                       uint8_t devfn, struct err *e)
{
    struct machine *m = k->machine;
    struct virtio_console_backend backend[MACHINE_CONSOLES_MAX];
    for (unsigned i = 0; i < c->console_count; i++) {
        struct serial *s = &k->port[i];
        int r = serial_init(s, MACHINE_SERIAL_PORTS + i, &c->console[i], &m->callbacks, m->loop, e);
        k->ports = i + 1;
        if (r < 0) {
            return r;
        }
        struct char_backend b = serial_backend(s);
        backend[i] = (struct virtio_console_backend){
            .write = b.write, .input_ready = b.input_ready, .ctx = b.ctx, .name = c->console[i].name
        };
    }
    const struct virtio_options o = options(k, false);
    k->console = xzalloc(sizeof *k->console);
    virtio_console_init(k->console, p, m->bus, devfn, backend, c->console_count, &o);
    for (unsigned i = 0; i < c->console_count; i++) {
        k->port[i].dev = k->console;
        k->port[i].to_guest = to_console;
    }
    return 0;
}

/* -- All --------------------------------------------------------------------------------------- */
static int add_others(struct cards *k, struct pci_bus *p, const struct machine_config *c,
                      struct err *e)
{
    struct machine *m = k->machine;
    const struct virtio_options plain = options(k, false);
    uint8_t devfn = 0;
    if (c->rng) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        k->rng = xzalloc(sizeof *k->rng);
        virtio_rng_init(k->rng, p, m->bus, devfn, &plain);
    }
    if (c->balloon) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        k->balloon = xzalloc(sizeof *k->balloon);
        virtio_balloon_init(k->balloon, p, m->bus, devfn, &plain);
        if (c->balloon_bytes != 0) {
            virtio_balloon_set_target(k->balloon, c->balloon_bytes);
        }
    }
    if (c->vsock != NULL) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        k->vsock = xzalloc(sizeof *k->vsock);
        r = virtio_vsock_init(k->vsock, p, m->bus, devfn, m->loop, c->vsock, c->vsock_cid, &plain,
                              e);
        if (r < 0) {
            return r;
        }
    }
    if (c->tablet) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        k->tablet = xzalloc(sizeof *k->tablet);
        virtio_input_init(k->tablet, p, m->bus, devfn, &plain);
    }
    if (c->console_count != 0) {
        int r = next_slot(k, &devfn, e);
        return r < 0 ? r : add_console(k, p, c, devfn, e);
    }
    return 0;
}

int cards_init(struct cards *k, struct machine *m, struct pci_bus *p,
               const struct machine_config *c, struct disks *d, struct netdevs *n, struct err *e)
{
    k->machine = m;
    k->pci = p;
    int r = 0;
    for (unsigned i = 0; i < c->nic_count && r == 0; i++) {
        r = add_nic(k, n, i, &c->nic[i], e);
    }
    for (unsigned i = 0; i < d->count && r == 0; i++) {
        r = add_disk(k, i, d, e);
    }
    return r == 0 ? add_others(k, p, c, e) : r;
}

void cards_fini(struct cards *k)
{
    if (k->console != NULL) {
        virtio_console_fini(k->console);
        free(k->console);
    }
    for (unsigned i = 0; i < k->ports; i++) {
        serial_fini(&k->port[i]);
    }
    if (k->tablet != NULL) {
        virtio_input_fini(k->tablet);
        free(k->tablet);
    }
    if (k->vsock != NULL) {
        virtio_vsock_fini(k->vsock);
        free(k->vsock);
    }
    if (k->balloon != NULL) {
        virtio_balloon_fini(k->balloon);
        free(k->balloon);
    }
    if (k->rng != NULL) {
        virtio_rng_fini(k->rng);
        free(k->rng);
    }
    if (k->scsi != NULL) {
        virtio_scsi_fini(k->scsi);
        free(k->scsi);
    }
    if (k->ahci != NULL) {
        ahci_fini(k->ahci);
        free(k->ahci);
    }
    for (unsigned slot = 0; slot < CARDS_SLOTS; slot++) {
        if (k->card[slot] != NULL) {
            cards_unplug(k, slot);
        }
    }
}
