/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/cards.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "machine/machine.h"

#define BLK_QUEUES_MAX 4u

static int next_slot(struct cards *k, uint8_t *devfn, struct err *e)
{
    if (k->slot == CARDS_SLOTS) {
        return err_set(e, -ENOSPC, "more devices than the board has slots for");
    }
    *devfn = PCI_DEVFN(k->slot++, 0);
    return 0;
}

static struct virtio_options options(const struct cards *k, bool packed)
{
    return (struct virtio_options){ .packed = packed, .clock = k->machine->clock };
}

/* -- Network ----------------------------------------------------------------------------------- */
static int make_backend(struct nic *n, const struct nic_config *c, struct machine *m, struct err *e)
{
    const struct net_user_options user = { .restricted = c->restricted,
                                           .hostname = c->hostname,
                                           .forwards = c->forward,
                                           .forward_count = c->forward_count };
    switch (c->backend) {
    case NIC_USER:
        return net_user_new(&n->net, &user, m->loop, m->clock, e);
    case NIC_TAP:
        return net_tap_new(&n->net, c->interface, m->loop, e);
    case NIC_PASST:
        return net_passt_new(&n->net, c->interface, &user, m->loop, e);
    }
    return err_set(e, -EINVAL, "unknown kind of network");
}

static int add_nic(struct cards *k, struct pci_bus *p, unsigned i, const struct nic_config *c,
                   struct err *e)
{
    struct machine *m = k->machine;
    uint8_t devfn = 0;
    int r = next_slot(k, &devfn, e);
    if (r < 0) {
        return r;
    }
    struct nic *n = xzalloc(sizeof *n);
    r = make_backend(n, c, m, e);
    if (r < 0) {
        free(n);
        return err_prefix(e, r, "network card %u", i);
    }
    k->nic[k->nic_count++] = n;
    uint8_t mac[NET_MAC_BYTES] = { 0x52, 0x54, 0x00, 0x12, 0x34, (uint8_t)(0x56 + i) };
    if (c->has_mac) {
        memcpy(mac, c->mac, sizeof mac);
    }
    char name[24];
    if (c->model == NIC_E1000) {
        snprintf(name, sizeof name, "e1000.%u", i);
        n->e1000 = xzalloc(sizeof *n->e1000);
        e1000_init(n->e1000, name, p, m->bus, devfn, n->net, mac);
        return 0;
    }
    struct virtio_net_config v = { .net = n->net,
                                   .pairs = c->queues != 0 ? c->queues : 1,
                                   .virtio = options(k, c->packed) };
    memcpy(v.mac, mac, sizeof v.mac);
    snprintf(name, sizeof name, "virtio-net.%u", i);
    n->virtio = xzalloc(sizeof *n->virtio);
    virtio_net_init(n->virtio, name, p, m->bus, devfn, &v);
    return 0;
}

/* -- Disks ------------------------------------------------------------------------------------- */
static int add_blk(struct cards *k, struct pci_bus *p, unsigned i, const struct disk *d,
                   struct err *e)
{
    struct machine *m = k->machine;
    uint8_t devfn = 0;
    int r = next_slot(k, &devfn, e);
    if (r < 0) {
        return r;
    }
    const struct virtio_blk_config c = {
        .queue = d->queue,
        .readonly = d->readonly,
        .serial = d->serial,
        .queues = m->cpu_count < BLK_QUEUES_MAX ? m->cpu_count : BLK_QUEUES_MAX,
        .virtio = options(k, d->packed),
    };
    char name[24];
    snprintf(name, sizeof name, "virtio-blk.%u", i);
    k->blk[k->blk_count] = xzalloc(sizeof(struct virtio_blk));
    virtio_blk_init(k->blk[k->blk_count++], name, p, m->bus, devfn, &c);
    return 0;
}

static int add_scsi(struct cards *k, struct pci_bus *p, const struct disk *d, struct err *e)
{
    struct machine *m = k->machine;
    uint8_t devfn = 0;
    if (k->scsi == NULL) {
        int r = next_slot(k, &devfn, e);
        if (r < 0) {
            return r;
        }
        const struct virtio_options o = options(k, d->packed);
        unsigned queues = m->cpu_count < BLK_QUEUES_MAX ? m->cpu_count : BLK_QUEUES_MAX;
        k->scsi = xzalloc(sizeof *k->scsi);
        virtio_scsi_init(k->scsi, p, m->bus, devfn, queues, &o);
    }
    virtio_scsi_add(k->scsi, d->queue, d->cdrom, d->readonly, d->serial);
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
    return 0;
}

int cards_init(struct cards *k, struct machine *m, struct pci_bus *p,
               const struct machine_config *c, const struct disks *d, struct err *e)
{
    k->machine = m;
    k->slot = CARDS_FIRST_SLOT;
    int r = 0;
    for (unsigned i = 0; i < c->nic_count && r == 0; i++) {
        r = add_nic(k, p, i, &c->nic[i], e);
    }
    for (unsigned i = 0; i < d->count && r == 0; i++) {
        if (d->disk[i].bus == DISK_VIRTIO) {
            r = add_blk(k, p, i, &d->disk[i], e);
        } else if (d->disk[i].bus == DISK_SCSI) {
            r = add_scsi(k, p, &d->disk[i], e);
        }
    }
    return r == 0 ? add_others(k, p, c, e) : r;
}

static void free_nic(struct nic *n)
{
    if (n->virtio != NULL) {
        virtio_net_fini(n->virtio);
        free(n->virtio);
    }
    if (n->e1000 != NULL) {
        e1000_fini(n->e1000);
        free(n->e1000);
    }
    net_free(n->net);
    free(n);
}

void cards_fini(struct cards *k)
{
    if (k->rng != NULL) {
        virtio_rng_fini(k->rng);
        free(k->rng);
    }
    if (k->scsi != NULL) {
        virtio_scsi_fini(k->scsi);
        free(k->scsi);
    }
    for (unsigned i = 0; i < k->blk_count; i++) {
        virtio_blk_fini(k->blk[i]);
        free(k->blk[i]);
    }
    for (unsigned i = 0; i < k->nic_count; i++) {
        free_nic(k->nic[i]);
    }
}
