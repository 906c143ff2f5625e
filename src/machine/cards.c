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
    if (c->console_count != 0) {
        int r = next_slot(k, &devfn, e);
        return r < 0 ? r : add_console(k, p, c, devfn, e);
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
    if (k->console != NULL) {
        virtio_console_fini(k->console);
        free(k->console);
    }
    for (unsigned i = 0; i < k->ports; i++) {
        serial_fini(&k->port[i]);
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
    for (unsigned i = 0; i < k->blk_count; i++) {
        virtio_blk_fini(k->blk[i]);
        free(k->blk[i]);
    }
    for (unsigned i = 0; i < k->nic_count; i++) {
        free_nic(k->nic[i]);
    }
}
