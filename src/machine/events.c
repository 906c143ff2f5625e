/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is told what happens to a machine.
 */
#include "machine/machine.h"

void machine_listen(struct machine *m, struct machine_listener *l)
{
    pthread_mutex_lock(&m->listen_lock);
    l->next = m->listeners;
    m->listeners = l;
    pthread_mutex_unlock(&m->listen_lock);
}

void machine_unlisten(struct machine *m, struct machine_listener *l)
{
    pthread_mutex_lock(&m->listen_lock);
    struct machine_listener **at = &m->listeners;
    while (*at != NULL && *at != l) {
        at = &(*at)->next;
    }
    if (*at == l) {
        *at = l->next;
    }
    pthread_mutex_unlock(&m->listen_lock);
}

void machine_notify(struct machine *m, const struct machine_event *ev)
{
    pthread_mutex_lock(&m->listen_lock);
    for (struct machine_listener *l = m->listeners; l != NULL; l = l->next) {
        l->fn(l->ctx, ev);
    }
    pthread_mutex_unlock(&m->listen_lock);
}
