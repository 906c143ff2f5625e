/* SPDX-License-Identifier: Apache-2.0
 *
 * The 82540EM's receiver (8254x manual 3.2): address, multicast and VLAN filters, descriptors,
 * VLAN stripping, checksum reports.
 *
 * DEVIATION: where a frame's CRC is to be stored with it, four zero bytes are.
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/e1000_internal.h"

#define STATUS_DD 0x01u
#define STATUS_EOP 0x02u
#define STATUS_IXSM 0x04u
#define STATUS_VP 0x08u
#define STATUS_TCPCS 0x20u
#define STATUS_IPCS 0x40u
#define CRC_BYTES 4u
#define FRAME_MIN 60u
#define FRAME_MAX 1522u /* with CRC and tag, unless long ones are enabled */
#define FRAME_LONG_MAX 16384u
#define VLAN_TAG 4u

static uint32_t buffer_size(uint32_t rctl)
{
    unsigned size = rctl >> RCTL_BSIZE_SHIFT & 3;
    if (rctl & RCTL_BSEX) {
        return size == 0 ? 2048 : 32768u >> size;
    }
    return 2048u >> size;
}

static bool is_tagged(struct e1000 *d, const uint8_t *frame, size_t len)
{
    return len >= NET_ETH_HEADER + VLAN_TAG &&
           load_be16(frame + 12) == (uint16_t)*e1000_reg(d, REG_VET);
}

static bool vlan_passes(struct e1000 *d, const uint8_t *frame)
{
    unsigned id = load_be16(frame + 14) & 0xfff;
    return d->reg[REG_VFTA / 4 + id / 32] >> id % 32 & 1;
}

static bool multicast_passes(struct e1000 *d, const uint8_t *mac, uint32_t rctl)
{
    static const uint8_t shift[4] = { 4, 3, 2, 0 };
    unsigned bits = (unsigned)(mac[5] << 8 | mac[4]) >> shift[rctl >> RCTL_MO_SHIFT & 3] & 0xfff;
    return d->reg[REG_MTA / 4 + bits / 32] >> bits % 32 & 1;
}

static bool exact_match(struct e1000 *d, const uint8_t *mac)
{
    for (unsigned r = REG_RAL / 4; r < REG_RAL_END / 4; r += 2) {
        uint32_t low = d->reg[r];
        uint32_t high = d->reg[r + 1];
        if ((high & RAH_AV) && low == load_le32(mac) && (uint16_t)high == load_le16(mac + 4)) {
            return true;
        }
    }
    return false;
}

static bool passes(struct e1000 *d, const uint8_t *frame, size_t len)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint32_t rctl = *e1000_reg(d, REG_RCTL);
    if ((rctl & RCTL_VFE) && is_tagged(d, frame, len) && !vlan_passes(d, frame)) {
        return false;
    }
    bool many = frame[0] & 1;
    if ((rctl & (many ? RCTL_MPE : RCTL_UPE)) || exact_match(d, frame)) {
        return true;
    }
    if (many && (rctl & RCTL_BAM) && memcmp(frame, broadcast, sizeof broadcast) == 0) {
        return true;
    }
    return many && multicast_passes(d, frame, rctl);
}

/* What the driver may believe of the checksums: those that the network vouched for. */
static uint8_t sum_status(struct e1000 *d, const struct net_offload *o, const uint8_t *frame,
                          size_t len)
{
    if (!(o->flags & NET_CSUM_VALID) || !(*e1000_reg(d, REG_RXCSUM) & RXCSUM_TUOFL) ||
        len < NET_ETH_HEADER + 20 || load_be16(frame + 12) != 0x0800) {
        return STATUS_IXSM;
    }
    uint8_t protocol = frame[NET_ETH_HEADER + 9];
    bool fragment = load_be16(frame + NET_ETH_HEADER + 6) & 0x3fff;
    return STATUS_IPCS | ((protocol == 6 || protocol == 17) && !fragment ? STATUS_TCPCS : 0);
}

static uint32_t free_descs(struct e1000 *d)
{
    uint32_t count = e1000_ring(d, REG_RDLEN);
    uint32_t head = *e1000_reg(d, REG_RDH);
    uint32_t tail = *e1000_reg(d, REG_RDT);
    if (count == 0 || head >= count || tail >= count) {
        return 0;
    }
    return tail >= head ? tail - head : tail + count - head;
}

struct rx {
    const uint8_t *data;
    uint32_t len;     /* with padding and CRC */
    uint32_t present; /* of data; what is beyond is zeroes */
    uint16_t tag;
    uint8_t status;
};

static void store(struct e1000 *d, const struct rx *x, uint32_t size)
{
    struct gmem *mem = bus_mem(d->pci.dev.bus);
    uint32_t count = e1000_ring(d, REG_RDLEN);
    uint32_t *head = e1000_reg(d, REG_RDH);
    for (uint32_t done = 0; done < x->len;) {
        uint8_t raw[E1000_DESC_BYTES];
        gpa_t at = e1000_base(d, REG_RDBAL) + (uint64_t)*head * E1000_DESC_BYTES;
        uint32_t part = x->len - done < size ? x->len - done : size;
        uint32_t have = done < x->present ? x->present - done : 0;
        have = have < part ? have : part;
        if (gmem_read(mem, at, raw, sizeof raw) == 0) {
            uint64_t to = load_le64(raw);
            int r = to != 0 ? gmem_write(mem, to, x->data + done, have) : 0;
            if (r == 0 && part > have && to != 0) {
                r = gmem_zero(mem, to + have, part - have);
            }
            done += part;
            store_le16(raw + 8, (uint16_t)part);
            store_le16(raw + 10, 0);
            raw[12] = (uint8_t)(STATUS_DD | x->status | (done == x->len ? STATUS_EOP : 0));
            raw[13] = 0;
            store_le16(raw + 14, x->tag);
            if (r == 0) {
                r = gmem_write(mem, at + 8, raw + 8, 8);
            }
        } else {
            done += part;
        }
        *head = *head + 1 < count ? *head + 1 : 0;
    }
}

static void count_frame(struct e1000 *d, const uint8_t *frame, size_t len)
{
    e1000_count(d, REG_TPR, 1);
    e1000_count(d, REG_GPRC, 1);
    e1000_count64(d, REG_TORL, len);
    e1000_count64(d, REG_GORCL, len);
    if (frame[0] == 0xff) {
        e1000_count(d, REG_BPRC, 1);
    } else if (frame[0] & 1) {
        e1000_count(d, REG_MPRC, 1);
    }
}

bool e1000_receive(void *ctx, const struct net_offload *o, const uint8_t *frame, size_t len)
{
    struct e1000 *d = ctx;
    uint8_t stripped[FRAME_LONG_MAX];
    uint32_t rctl = *e1000_reg(d, REG_RCTL);
    uint32_t limit = rctl & RCTL_LPE ? FRAME_LONG_MAX : FRAME_MAX;
    if (!(rctl & RCTL_EN) || !e1000_link_up(d) || !pci_bus_master(&d->pci) ||
        len + CRC_BYTES > limit || !passes(d, frame, len)) {
        return true;
    }
    struct rx x = { .data = frame, .status = sum_status(d, o, frame, len) };
    size_t present = len;
    if (is_tagged(d, frame, len) && (*e1000_reg(d, REG_CTRL) & CTRL_VME)) {
        memcpy(stripped, frame, 12);
        memcpy(stripped + 12, frame + 12 + VLAN_TAG, len - 12 - VLAN_TAG);
        x.data = stripped;
        x.tag = load_be16(frame + 14);
        x.status |= STATUS_VP;
        present -= VLAN_TAG;
    }
    x.present = (uint32_t)present;
    x.len = x.present < FRAME_MIN ? FRAME_MIN : x.present;
    x.len += rctl & RCTL_SECRC ? 0 : CRC_BYTES;
    uint32_t size = buffer_size(rctl);
    if ((x.len + size - 1) / size > free_descs(d)) {
        e1000_raise(d, ICR_RXO);
        return false;
    }
    store(d, &x, size);
    count_frame(d, frame, len);
    uint32_t causes = ICR_RXT0;
    if (free_descs(d) <= e1000_ring(d, REG_RDLEN) >> ((rctl >> RCTL_RDMTS_SHIFT & 3) + 1)) {
        causes |= ICR_RXDMT0;
    }
    e1000_raise(d, causes);
    return true;
}
