/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "machine/pc.h"
#include "machine/vmconfig.h"

static int malformed(const char *what, struct err *e)
{
    return err_set(e, -EPROTO, "the other end's %s message is malformed", what);
}

/* version:u32 streams:u32 ram_pages:u64 rom_pages:u64 id[16] ticket_len:u32 config_len:u32, then
 * ticket and configuration. */
#define HELLO 48u

int wire_send_hello(struct channel *c, const struct wire_hello *h, struct err *e)
{
    uint32_t ticket_len = (uint32_t)strlen(h->ticket.path);
    size_t len = HELLO + ticket_len + h->config_len;
    uint8_t *m = xzalloc(len);
    store_le32(m, WIRE_VERSION);
    store_le32(m + 4, h->streams);
    store_le64(m + 8, h->ram_pages);
    store_le64(m + 16, h->rom_pages);
    memcpy(m + 24, h->id, WIRE_ID);
    store_le32(m + 40, ticket_len);
    store_le32(m + 44, h->config_len);
    memcpy(m + HELLO, h->ticket.path, ticket_len);
    memcpy(m + HELLO + ticket_len, h->config, h->config_len);
    int r = channel_send(c, MESSAGE_HELLO, m, len, e);
    free(m);
    return r;
}

int wire_take_hello(struct wire_hello *h, const struct received *m, struct err *e)
{
    memset(h, 0, sizeof *h);
    if (m->len < HELLO) {
        return malformed("first", e);
    }
    if (load_le32(m->data) != WIRE_VERSION) {
        return err_set(e, -EPROTO, "the source speaks version %u of the protocol, this is %u",
                       load_le32(m->data), WIRE_VERSION);
    }
    h->streams = load_le32(m->data + 4);
    h->ram_pages = load_le64(m->data + 8);
    h->rom_pages = load_le64(m->data + 16);
    memcpy(h->id, m->data + 24, WIRE_ID);
    uint32_t ticket_len = load_le32(m->data + 40), left = m->len - HELLO;
    h->config_len = load_le32(m->data + 44);
    const char *text = (const char *)m->data + HELLO;
    if (ticket_len >= TICKET_PATH_MAX || ticket_len > left ||
        h->config_len != left - ticket_len || memchr(text, '\0', ticket_len) != NULL) {
        return malformed("first", e);
    }
    memcpy(h->ticket.path, text, ticket_len);
    h->config = text + ticket_len;
    return 0;
}

int wire_send_load(struct channel *c, const struct wire_load *l, struct err *e)
{
    uint8_t m[16];
    store_le64(m, l->wall_ns);
    store_le64(m + 8, l->state_len);
    return channel_send(c, MESSAGE_LOAD, m, sizeof m, e);
}

int wire_take_load(struct wire_load *l, const struct received *m, struct err *e)
{
    if (m->len != 16) {
        return malformed("load", e);
    }
    *l = (struct wire_load){ load_le64(m->data), load_le64(m->data + 8) };
    return 0;
}

/* paused:u32 disks:u32, for each size:u64 mtime_s:u64 mtime_ns:u64 */
#define GO 8u
#define GO_DISK 24u

int wire_send_go(struct channel *c, const struct wire_go *g, struct err *e)
{
    uint8_t m[GO + SOSIA_DISKS_MAX * GO_DISK];
    store_le32(m, g->paused);
    store_le32(m + 4, g->disks);
    for (uint32_t i = 0; i < g->disks; i++) {
        store_le64(m + GO + i * GO_DISK, g->disk[i].size);
        store_le64(m + GO + i * GO_DISK + 8, g->disk[i].mtime_s);
        store_le64(m + GO + i * GO_DISK + 16, g->disk[i].mtime_ns);
    }
    return channel_send(c, MESSAGE_GO, m, GO + g->disks * GO_DISK, e);
}

int wire_take_go(struct wire_go *g, const struct received *m, struct err *e)
{
    memset(g, 0, sizeof *g);
    uint32_t disks = m->len >= GO ? load_le32(m->data + 4) : UINT32_MAX;
    if (disks > SOSIA_DISKS_MAX || m->len != GO + disks * GO_DISK || load_le32(m->data) > 1) {
        return malformed("go", e);
    }
    g->paused = load_le32(m->data) != 0;
    g->disks = disks;
    for (uint32_t i = 0; i < disks; i++) {
        const uint8_t *d = m->data + GO + i * GO_DISK;
        g->disk[i] =
            (struct snapshot_disk){ load_le64(d), load_le64(d + 8), load_le64(d + 16) };
    }
    return 0;
}

void wire_look_at_disks(struct machine *m, struct wire_go *g)
{
    struct stat st;
    g->disks = m->pc->disks.count;
    for (uint32_t i = 0; i < g->disks; i++) {
        const char *path = block_path(m->pc->disks.disk[i].block);
        bool file = stat(path, &st) == 0 && S_ISREG(st.st_mode);
        if (!file || !snapshot_look_at_disk(&g->disk[i], path)) {
            g->disk[i] = (struct snapshot_disk){ 0 };
        }
    }
}

int wire_send_ready(struct channel *c, bool ticket, struct err *e)
{
    uint8_t m[4];
    store_le32(m, ticket);
    return channel_send(c, MESSAGE_READY, m, sizeof m, e);
}

int wire_take_ready(const struct received *m, bool *ticket, struct err *e)
{
    if (m->len != 4 || load_le32(m->data) > 1) {
        return malformed("ready", e);
    }
    *ticket = load_le32(m->data) != 0;
    return 0;
}

int wire_send_stream(struct channel *c, const uint8_t id[WIRE_ID], uint32_t number, struct err *e)
{
    uint8_t m[WIRE_ID + 4];
    memcpy(m, id, WIRE_ID);
    store_le32(m + WIRE_ID, number);
    return channel_send(c, MESSAGE_STREAM, m, sizeof m, e);
}

int wire_take_stream(const struct received *m, const uint8_t id[WIRE_ID], uint32_t *number,
                     struct err *e)
{
    if (m->len != WIRE_ID + 4 || memcmp(m->data, id, WIRE_ID) != 0) {
        return malformed("stream", e);
    }
    *number = load_le32(m->data + WIRE_ID);
    return 0;
}
