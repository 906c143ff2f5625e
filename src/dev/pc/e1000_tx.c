/* SPDX-License-Identifier: Apache-2.0
 *
 * The 82540EM's transmitter (8254x manual 3.3 to 3.5): legacy, context and data descriptors,
 * checksum insertion, TCP segmentation, VLAN tags. Segments are left to the network behind, which
 * has less work with a large one.
 *
 * UNIMPL: segmentation of UDP.
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/e1000_internal.h"

#define CMD_EOP 0x01u
#define CMD_IC 0x04u
#define CMD_TSE 0x04u /* of context and data descriptors */
#define CMD_RS 0x08u
#define CMD_DEXT 0x20u
#define CMD_VLE 0x40u
#define TUCMD_TCP 0x01u
#define TUCMD_IP 0x02u
#define DTYP_CONTEXT 0u
#define DTYP_DATA 1u
#define POPTS_IXSM 1u
#define POPTS_TXSM 2u
#define STATUS_DD 1u
#define VLAN_TAG 4u
#define FRAME_MIN 60u

struct tx_desc {
    uint64_t address;
    uint32_t len;
    uint8_t cmd;
    uint8_t type;
    bool extended;
    uint8_t cso, css; /* legacy */
    uint8_t popts;
    uint16_t special;
};

static struct tx_desc decode(const uint8_t raw[E1000_DESC_BYTES])
{
    struct tx_desc t = { .address = load_le64(raw), .cmd = raw[11] };
    t.extended = t.cmd & CMD_DEXT;
    t.special = load_le16(raw + 14);
    if (t.extended) {
        t.len = load_le32(raw + 8) & 0xfffff;
        t.type = raw[10] >> 4;
        t.popts = raw[13];
    } else {
        t.len = load_le16(raw + 8);
        t.cso = raw[10];
        t.css = raw[13];
    }
    return t;
}

static void take_context(struct e1000 *d, const uint8_t *raw)
{
    struct e1000_context *c = &d->context[!!(raw[11] & CMD_TSE)];
    *c = (struct e1000_context){
        .ipcss = raw[0],
        .ipcso = raw[1],
        .ipcse = load_le16(raw + 2),
        .tucss = raw[4],
        .tucso = raw[5],
        .tucse = load_le16(raw + 6),
        .hdrlen = raw[13],
        .mss = load_le16(raw + 14),
        .ip4 = raw[11] & TUCMD_IP,
        .tcp = raw[11] & TUCMD_TCP,
    };
}

/* The sum of [start, end], end 0 being the frame's, goes to `to`. */
static void insert_sum(struct e1000 *d, unsigned start, unsigned to, unsigned end)
{
    uint32_t stop = end != 0 && end + 1 < d->tx_len ? end + 1 : d->tx_len;
    if (start < stop && to + 2 <= stop) {
        uint16_t sum = (uint16_t)~net_sum(d->tx + start, stop - start, 0);
        store_be16(d->tx + to, sum);
    }
}

static void insert_vlan(struct e1000 *d, uint16_t tag)
{
    if (d->tx_len < 12 || d->tx_len + VLAN_TAG > sizeof d->tx) {
        return;
    }
    memmove(d->tx + 12 + VLAN_TAG, d->tx + 12, d->tx_len - 12);
    store_be16(d->tx + 12, (uint16_t)*e1000_reg(d, REG_VET));
    store_be16(d->tx + 14, tag);
    d->tx_len += VLAN_TAG;
}

static void send_frame(struct e1000 *d, const struct net_offload *o)
{
    if (d->tx_len < FRAME_MIN) {
        memset(d->tx + d->tx_len, 0, FRAME_MIN - d->tx_len);
        d->tx_len = FRAME_MIN;
    }
    e1000_count(d, REG_TPT, 1);
    e1000_count(d, REG_GPTC, 1);
    e1000_count64(d, REG_TOTL, d->tx_len);
    e1000_count64(d, REG_GOTCL, d->tx_len);
    if (e1000_link_up(d)) {
        net_send(d->net, o, d->tx, d->tx_len);
    }
}

static void finish(struct e1000 *d, const struct tx_desc *t)
{
    const struct e1000_context *c = &d->context[d->tx_tse];
    struct net_offload o = { 0 };
    bool tso = d->tx_tse && c->tcp && c->mss != 0 && d->tx_len > c->hdrlen;
    if (!t->extended && (t->cmd & CMD_IC)) {
        insert_sum(d, t->css, t->cso, 0);
    }
    if (t->extended && !d->tx_tse) {
        if (d->tx_popts & POPTS_IXSM) {
            insert_sum(d, c->ipcss, c->ipcso, c->ipcse);
        }
        if (d->tx_popts & POPTS_TXSM) {
            insert_sum(d, c->tucss, c->tucso, c->tucse);
        }
    }
    if ((t->cmd & CMD_VLE) && (*e1000_reg(d, REG_CTRL) & CTRL_VME)) {
        insert_vlan(d, t->special);
    }
    if (tso && !net_prepare_gso(&o, d->tx, d->tx_len, c->mss)) {
        return; /* no TCP frame after all */
    }
    send_frame(d, &o);
}

/* A frame that does not fit is longer than any: it is cut off and its checksums are wrong. */
static void gather(struct e1000 *d, const struct tx_desc *t)
{
    uint32_t room = (uint32_t)sizeof d->tx - d->tx_len;
    uint32_t len = t->len < room ? t->len : room;
    if (d->tx_len == 0) {
        d->tx_tse = t->extended && (t->cmd & CMD_TSE);
        d->tx_popts = t->popts;
    }
    if (gmem_read(bus_mem(d->pci.dev.bus), t->address, d->tx + d->tx_len, len) < 0) {
        memset(d->tx + d->tx_len, 0, len); /* a master abort's data would be all ones or nothing */
    }
    d->tx_len += len;
    if (t->cmd & CMD_EOP) {
        if (d->tx_len >= NET_ETH_HEADER) {
            finish(d, t);
        }
        d->tx_len = 0;
    }
}

/* Returns the interrupt causes. */
static uint32_t process(struct e1000 *d, gpa_t at)
{
    struct gmem *mem = bus_mem(d->pci.dev.bus);
    uint8_t raw[E1000_DESC_BYTES];
    if (gmem_read(mem, at, raw, sizeof raw) < 0) {
        return 0;
    }
    struct tx_desc t = decode(raw);
    if (t.extended && t.type == DTYP_CONTEXT) {
        take_context(d, raw);
    } else if (!t.extended || t.type == DTYP_DATA) {
        gather(d, &t);
    }
    if (!(t.cmd & CMD_RS)) {
        return 0;
    }
    uint8_t status = raw[12] | STATUS_DD;
    int r = gmem_write(mem, at + 12, &status, 1);
    (void)r; /* a ring in ROM: nobody can tell */
    return ICR_TXDW;
}

void e1000_transmit(struct e1000 *d)
{
    uint32_t count = e1000_ring(d, REG_TDLEN);
    uint32_t *head = e1000_reg(d, REG_TDH);
    uint32_t tail = *e1000_reg(d, REG_TDT);
    if (!(*e1000_reg(d, REG_TCTL) & TCTL_EN) || !pci_bus_master(&d->pci) || count == 0) {
        return;
    }
    uint32_t causes = ICR_TXQE;
    /* At most once around: a tail outside of the ring is never met. */
    for (uint32_t n = 0; *head != tail && n < count; n++) {
        causes |= process(d, e1000_base(d, REG_TDBAL) + (uint64_t)*head * E1000_DESC_BYTES);
        *head = *head + 1 < count ? *head + 1 : 0;
    }
    e1000_raise(d, causes);
}
