/* SPDX-License-Identifier: Apache-2.0
 *
 * The cable between card and backend: who is attached, frames that wait for a card without room.
 */
#include "net/net.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* As much as a fast sender puts on the way before it notices: windows of a few connections. */
#define QUEUE_BYTES_MAX (4u << 20)

struct net_frame {
    struct net_frame *next;
    struct net_offload offload;
    size_t len;
    uint8_t data[];
};

void net_init(struct net *n, const struct net_class *cls)
{
    *n = (struct net){ .cls = cls, .caps = cls->caps, .link_up = true };
}

void net_attach(struct net *n, const struct net_card *card) { n->card = *card; }

static void drop_all(struct net *n)
{
    while (n->first != NULL) {
        struct net_frame *f = n->first;
        n->first = f->next;
        free(f);
    }
    n->last = NULL;
    n->queued_bytes = 0;
}

void net_detach(struct net *n)
{
    n->card = (struct net_card){ 0 };
    n->card_caps = 0;
    drop_all(n);
}

void net_free(struct net *n)
{
    if (n != NULL) {
        drop_all(n);
        n->cls->free(n);
    }
}

void net_send(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len)
{
    if (!n->link_up || len < NET_ETH_HEADER || len > NET_FRAME_MAX) {
        return;
    }
    n->cls->send(n, o, frame, len);
}

void net_set_card_caps(struct net *n, unsigned caps)
{
    if (n->card_caps != caps) {
        n->card_caps = caps;
        if (n->cls->card_changed != NULL) {
            n->cls->card_changed(n);
        }
    }
}

void net_set_link(struct net *n, bool up)
{
    if (n->link_up == up) {
        return;
    }
    n->link_up = up;
    if (!up) {
        drop_all(n);
    }
    if (n->card.link_changed != NULL) {
        n->card.link_changed(n->card.ctx, up);
    }
}

bool net_room(const struct net *n) { return n->queued_bytes < QUEUE_BYTES_MAX; }

static void enqueue(struct net *n, const struct net_offload *o, const uint8_t *data, size_t len)
{
    struct net_frame *f = net_room(n) ? malloc(sizeof *f + len) : NULL;
    if (f == NULL) {
        n->dropped++;
        return;
    }
    f->next = NULL;
    f->offload = *o;
    f->len = len;
    memcpy(f->data, data, len);
    if (n->first == NULL) {
        n->first = f;
    } else {
        n->last->next = f;
    }
    n->last = f;
    n->queued_bytes += len;
}

void net_deliver(struct net *n, const struct net_offload *o, const uint8_t *frame, size_t len)
{
    if (!n->link_up || n->card.receive == NULL || len < NET_ETH_HEADER || len > NET_FRAME_MAX) {
        return;
    }
    if (n->first != NULL || !n->card.receive(n->card.ctx, o, frame, len)) {
        enqueue(n, o, frame, len);
    }
}

void net_ready(struct net *n)
{
    while (n->first != NULL) {
        struct net_frame *f = n->first;
        if (!n->card.receive(n->card.ctx, &f->offload, f->data, f->len)) {
            return;
        }
        n->first = f->next;
        n->queued_bytes -= f->len;
        free(f);
    }
    n->last = NULL;
    if (n->cls->ready != NULL) {
        n->cls->ready(n);
    }
}
