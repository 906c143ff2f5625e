/* SPDX-License-Identifier: Apache-2.0
 *
 * Split and packed virtqueues (virtio 1.2, 2.7 and 2.8).
 *
 * UNIMPL: VIRTIO_F_IN_ORDER, VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_RING_RESET.
 */
#include "dev/virtio/queue.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define DESC_BYTES 16u
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define DESC_PACKED_AVAIL 0x80u
#define DESC_PACKED_USED 0x8000u

/* Split rings: flags and index of both, then the entries, then the event index of the other side */
#define RING_INDEX 2u
#define RING_ENTRIES 4u
#define AVAIL_ENTRY_BYTES 2u
#define USED_ENTRY_BYTES 8u
#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u
#define LEGACY_ALIGN 4096u

/* Packed rings: event suppression areas (2.8.14) */
#define EVENT_ENABLE 0u
#define EVENT_DISABLE 1u
#define EVENT_DESC 2u

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next; /* packed: the buffer's id */
};

void virtq_init(struct virtq *q, struct gmem *mem, unsigned size_max)
{
    *q = (struct virtq){ .mem = mem, .size_max = (uint16_t)size_max };
    virtq_reset(q);
}

void virtq_reset(struct virtq *q)
{
    *q = (struct virtq){ .mem = q->mem,
                         .size_max = q->size_max,
                         .size = q->size_max,
                         .vector = VIRTQ_NO_VECTOR,
                         .avail_wrap = true,
                         .used_wrap = true };
}

static bool size_fits(const struct virtq *q)
{
    return q->size != 0 && q->size <= q->size_max && (q->packed || is_pow2(q->size));
}

bool virtq_enable(struct virtq *q)
{
    q->enabled = size_fits(q);
    return q->enabled;
}

void virtq_set_legacy_page(struct virtq *q, uint32_t page)
{
    q->desc = (uint64_t)page * LEGACY_ALIGN;
    q->driver = q->desc + (uint64_t)q->size * DESC_BYTES;
    uint64_t end = q->driver + RING_ENTRIES + (uint64_t)q->size * AVAIL_ENTRY_BYTES + 2;
    q->device = align_up(end, LEGACY_ALIGN);
}

/* -- Guest memory ------------------------------------------------------------------------------ */
static int get16(const struct virtq *q, gpa_t gpa, uint16_t *v)
{
    uint8_t raw[2] __attribute__((aligned(2)));
    int r = gmem_read(q->mem, gpa, raw, 2);
    *v = load_le16(raw);
    return r;
}

static int put16(const struct virtq *q, gpa_t gpa, uint16_t v)
{
    uint8_t raw[2];
    store_le16(raw, v);
    return gmem_write(q->mem, gpa, raw, 2);
}

static struct desc decode(const uint8_t raw[DESC_BYTES], bool packed)
{
    struct desc d = { .addr = load_le64(raw), .len = load_le32(raw + 8) };
    d.flags = load_le16(raw + (packed ? 14 : 12));
    d.next = load_le16(raw + (packed ? 12 : 14));
    return d;
}

static int malformed(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

/* -- Chains ------------------------------------------------------------------------------------ */
static int add_seg(struct virtq_chain *c, const struct desc *d, const char **why)
{
    bool in = d->flags & DESC_WRITE;
    if (!in && c->ins != 0) {
        return malformed(why, "a buffer to read follows one to write");
    }
    if ((unsigned)c->outs + c->ins >= VIRTQ_SEGS_MAX) {
        return malformed(why, "too many descriptors in one chain");
    }
    uint32_t *total = in ? &c->in_len : &c->out_len;
    if (ckd_add(total, *total, d->len)) {
        return malformed(why, "a chain is longer than 4 GiB");
    }
    c->seg[c->outs + c->ins] = (struct virtq_seg){ d->addr, d->len };
    if (in) {
        c->ins++;
    } else {
        c->outs++;
    }
    return 0;
}

/* The table is copied whole, so that what was checked is what is used. */
static int add_indirect(const struct virtq *q, struct virtq_chain *c, const struct desc *table,
                        const char **why)
{
    uint8_t raw[VIRTQ_SEGS_MAX * DESC_BYTES];
    uint32_t count = table->len / DESC_BYTES;
    if (!q->indirect || table->len % DESC_BYTES != 0 || count == 0) {
        return malformed(why, "a bad indirect descriptor");
    }
    if (count > VIRTQ_SEGS_MAX) {
        return malformed(why, "too many indirect descriptors");
    }
    if (gmem_read(q->mem, table->addr, raw, table->len) < 0) {
        return malformed(why, "an indirect table outside of memory");
    }
    uint32_t at = 0;
    for (uint32_t steps = 0; steps < count; steps++) {
        struct desc d = decode(raw + at * DESC_BYTES, q->packed);
        if (d.flags & DESC_INDIRECT) {
            return malformed(why, "an indirect descriptor in an indirect table");
        }
        int r = add_seg(c, &d, why);
        if (r < 0) {
            return r;
        }
        if (q->packed) {
            at++; /* all of the table belongs to the chain (2.8.8) */
        } else if (!(d.flags & DESC_NEXT)) {
            return 0;
        } else if (d.next >= count) {
            return malformed(why, "an indirect chain leaves its table");
        } else {
            at = d.next;
        }
    }
    return q->packed ? 0 : malformed(why, "an indirect chain is a loop");
}

static int read_desc(const struct virtq *q, unsigned index, struct desc *d, const char **why)
{
    uint8_t raw[DESC_BYTES];
    if (gmem_read(q->mem, q->desc + (uint64_t)index * DESC_BYTES, raw, sizeof raw) < 0) {
        return malformed(why, "descriptors outside of memory");
    }
    *d = decode(raw, q->packed);
    return 0;
}

static int pop_split(struct virtq *q, struct virtq_chain *c, const char **why)
{
    uint16_t index;
    uint16_t head;
    if (get16(q, q->driver + RING_INDEX, &index) < 0) {
        return malformed(why, "the available ring is outside of memory");
    }
    uint16_t waiting = (uint16_t)(index - q->next_avail);
    if (waiting == 0) {
        return 0;
    }
    if (waiting > q->size) {
        return malformed(why, "the available index jumped");
    }
    uint64_t slot = q->next_avail & (q->size - 1u);
    if (get16(q, q->driver + RING_ENTRIES + slot * AVAIL_ENTRY_BYTES, &head) < 0) {
        return malformed(why, "the available ring is outside of memory");
    }
    c->id = head;
    c->descs = 1;
    struct desc d = { .next = head, .flags = DESC_NEXT };
    for (unsigned steps = 0; d.flags & DESC_NEXT; steps++) {
        if (d.next >= q->size || steps >= q->size) {
            return malformed(why, steps >= q->size ? "a chain is a loop"
                                                   : "a descriptor index outside of the table");
        }
        int r = read_desc(q, d.next, &d, why);
        if (r == 0 && (d.flags & DESC_INDIRECT)) {
            r = d.flags & DESC_NEXT ? malformed(why, "an indirect descriptor has a next one")
                                    : add_indirect(q, c, &d, why);
        } else if (r == 0) {
            r = add_seg(c, &d, why);
        }
        if (r < 0) {
            return r;
        }
    }
    q->next_avail++;
    return 1;
}

static void advance(const struct virtq *q, uint16_t *place, bool *wrap, unsigned by)
{
    unsigned next = *place + by;
    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *place = (uint16_t)next;
}

static int pop_packed(struct virtq *q, struct virtq_chain *c, const char **why)
{
    uint16_t place = q->next_avail;
    bool wrap = q->avail_wrap;
    struct desc d;
    uint16_t flags;
    /* The flags first: what they announce is then there. */
    if (get16(q, q->desc + (uint64_t)place * DESC_BYTES + 14, &flags) < 0) {
        return malformed(why, "the ring is outside of memory");
    }
    if (!!(flags & DESC_PACKED_AVAIL) != wrap || !!(flags & DESC_PACKED_USED) == wrap) {
        return 0;
    }
    c->descs = 0;
    do {
        if (c->descs >= q->size) {
            return malformed(why, "a chain is longer than the ring");
        }
        int r = read_desc(q, place, &d, why);
        if (r == 0 && (d.flags & DESC_INDIRECT)) {
            r = c->descs != 0 || (d.flags & DESC_NEXT)
                    ? malformed(why, "an indirect descriptor in a chain")
                    : add_indirect(q, c, &d, why);
        } else if (r == 0) {
            r = add_seg(c, &d, why);
        }
        if (r < 0) {
            return r;
        }
        c->descs++;
        advance(q, &place, &wrap, 1);
    } while (d.flags & DESC_NEXT);
    c->id = d.next;
    q->next_avail = place;
    q->avail_wrap = wrap;
    return 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c, const char **why)
{
    c->outs = c->ins = 0;
    c->out_len = c->in_len = 0;
    if (!q->enabled) {
        return 0;
    }
    return q->packed ? pop_packed(q, c, why) : pop_split(q, c, why);
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *c)
{
    if (!q->packed) {
        q->next_avail--;
    } else if (q->next_avail >= c->descs) {
        q->next_avail = (uint16_t)(q->next_avail - c->descs);
    } else {
        q->next_avail = (uint16_t)(q->next_avail + q->size - c->descs);
        q->avail_wrap = !q->avail_wrap;
    }
}

/* -- Used buffers ------------------------------------------------------------------------------ */
static int push_split(struct virtq *q, const struct virtq_used *used, unsigned count)
{
    int r = 0;
    for (unsigned i = 0; i < count && r == 0; i++) {
        uint8_t entry[USED_ENTRY_BYTES];
        uint64_t slot = (uint16_t)(q->next_used + i) & (q->size - 1u);
        store_le32(entry, used[i].id);
        store_le32(entry + 4, used[i].written);
        r = gmem_write(q->mem, q->device + RING_ENTRIES + slot * USED_ENTRY_BYTES, entry,
                       sizeof entry);
    }
    if (r == 0) {
        q->next_used = (uint16_t)(q->next_used + count);
        r = put16(q, q->device + RING_INDEX, q->next_used);
    }
    q->unsignalled = (uint16_t)(q->unsignalled + count);
    return r;
}

static uint16_t used_flags(bool wrap, uint32_t written)
{
    unsigned flags = wrap ? DESC_PACKED_AVAIL | DESC_PACKED_USED : 0;
    return (uint16_t)(flags | (written != 0 ? DESC_WRITE : 0));
}

/* The first entry's flags are written last: with them the driver sees all of them. */
static int push_packed(struct virtq *q, const struct virtq_used *used, unsigned count)
{
    uint64_t first_flags_at = 0;
    uint16_t first_flags = 0;
    int r = 0;
    for (unsigned i = 0; i < count && r == 0; i++) {
        uint8_t entry[8]; /* length and id: the address stays */
        gpa_t at = q->desc + (uint64_t)q->next_used * DESC_BYTES;
        uint16_t flags = used_flags(q->used_wrap, used[i].written);
        store_le32(entry, used[i].written);
        store_le16(entry + 4, used[i].id);
        r = gmem_write(q->mem, at + 8, entry, 6);
        if (i == 0) {
            first_flags = flags;
            first_flags_at = at + 14;
        } else if (r == 0) {
            r = put16(q, at + 14, flags);
        }
        advance(q, &q->next_used, &q->used_wrap, used[i].descs);
        q->unsignalled = (uint16_t)(q->unsignalled + used[i].descs);
    }
    return r == 0 ? put16(q, first_flags_at, first_flags) : r;
}

int virtq_push_all(struct virtq *q, const struct virtq_used *used, unsigned count)
{
    if (count == 0 || !q->enabled) {
        return 0;
    }
    return q->packed ? push_packed(q, used, count) : push_split(q, used, count);
}

int virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
    const struct virtq_used used = { c->id, c->descs, written };
    return virtq_push_all(q, &used, 1);
}

/* -- Suppression of interrupts and notifications ----------------------------------------------- */
/* 2.7.10: did the index pass `event` on its way from `old` to `new`? */
static bool passed(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static bool wants_split(struct virtq *q, uint16_t old)
{
    uint16_t v = 0;
    if (q->event_idx) {
        gpa_t at = q->driver + RING_ENTRIES + (uint64_t)q->size * AVAIL_ENTRY_BYTES;
        return get16(q, at, &v) < 0 || passed(v, q->next_used, old);
    }
    return get16(q, q->driver, &v) < 0 || !(v & AVAIL_NO_INTERRUPT);
}

static bool wants_packed(struct virtq *q, uint16_t old)
{
    uint8_t raw[4] __attribute__((aligned(4)));
    if (gmem_read(q->mem, q->driver, raw, sizeof raw) < 0) {
        return true;
    }
    unsigned flags = load_le16(raw + 2) & 3u;
    if (flags != EVENT_DESC || !q->event_idx) {
        return flags != EVENT_DISABLE;
    }
    uint16_t off_wrap = load_le16(raw);
    uint16_t event = off_wrap & 0x7fff;
    if ((off_wrap >> 15 != 0) != q->used_wrap) {
        event = (uint16_t)(event - q->size);
    }
    return passed(event, q->next_used, old);
}

bool virtq_wants_interrupt(struct virtq *q)
{
    if (q->unsignalled == 0 || !q->enabled) {
        return false;
    }
    uint16_t old = (uint16_t)(q->next_used - q->unsignalled);
    q->unsignalled = 0;
    /* What was used must be visible before we look at what the driver wants: it writes its wish
     * and then looks for used buffers. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return q->packed ? wants_packed(q, old) : wants_split(q, old);
}

void virtq_ask_notify(struct virtq *q, bool on)
{
    if (!q->enabled) {
        return;
    }
    int r;
    if (q->packed) {
        uint8_t raw[4];
        bool desc = on && q->event_idx;
        store_le16(raw, (uint16_t)(q->next_avail | (q->avail_wrap ? 0x8000 : 0)));
        store_le16(raw + 2, !on ? EVENT_DISABLE : desc ? EVENT_DESC : EVENT_ENABLE);
        r = gmem_write(q->mem, q->device, raw, sizeof raw);
    } else if (q->event_idx) {
        /* An index that was passed already asks for nothing for a long time. */
        gpa_t at = q->device + RING_ENTRIES + (uint64_t)q->size * USED_ENTRY_BYTES;
        r = put16(q, at, on ? q->next_avail : (uint16_t)(q->next_avail - 1));
    } else {
        r = put16(q, q->device, on ? 0 : USED_NO_NOTIFY);
    }
    (void)r; /* a ring outside of memory is found out by the next pop or push */
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* then look again: see above, the other way round */
}

/* -- Data -------------------------------------------------------------------------------------- */
enum copy { COPY_OUT, COPY_IN, COPY_ZERO };

static int copy(const struct virtq *q, const struct virtq_seg *seg, unsigned count, enum copy how,
                uint32_t offset, void *buf, size_t len)
{
    uint8_t *at = buf;
    for (unsigned i = 0; i < count && len != 0; i++) {
        if (offset >= seg[i].len) {
            offset -= seg[i].len;
            continue;
        }
        size_t part = seg[i].len - offset;
        part = part < len ? part : len;
        gpa_t gpa = seg[i].gpa + offset;
        int r = how == COPY_OUT  ? gmem_read(q->mem, gpa, at, part)
                : how == COPY_IN ? gmem_write(q->mem, gpa, at, part)
                                 : gmem_zero(q->mem, gpa, part);
        if (r < 0) {
            return r;
        }
        at = at != NULL ? at + part : NULL;
        len -= part;
        offset = 0;
    }
    return len == 0 ? 0 : -EINVAL;
}

int virtq_read(const struct virtq *q, const struct virtq_chain *c, uint32_t offset, void *buf,
               size_t len)
{
    return copy(q, c->seg, c->outs, COPY_OUT, offset, buf, len);
}

int virtq_write(const struct virtq *q, const struct virtq_chain *c, uint32_t offset,
                const void *buf, size_t len)
{
    return copy(q, c->seg + c->outs, c->ins, COPY_IN, offset, (void *)(uintptr_t)buf, len);
}

int virtq_write_segs(const struct virtq *q, const struct virtq_seg *seg, unsigned count,
                     uint32_t offset, const void *buf, size_t len)
{
    return copy(q, seg, count, COPY_IN, offset, (void *)(uintptr_t)buf, len);
}

int virtq_zero(const struct virtq *q, const struct virtq_chain *c, uint32_t offset, size_t len)
{
    return copy(q, c->seg + c->outs, c->ins, COPY_ZERO, offset, NULL, len);
}

int virtq_view(const struct virtq *q, const struct virtq_chain *c, enum gmem_use use,
               uint32_t offset, size_t len, struct gmem_views *v)
{
    unsigned end = use == GMEM_TO_FILE ? c->outs : c->outs + c->ins;
    for (unsigned i = use == GMEM_TO_FILE ? 0 : c->outs; i < end && len != 0; i++) {
        const struct virtq_seg *seg = &c->seg[i];
        if (offset >= seg->len) {
            offset -= seg->len;
            continue;
        }
        size_t part = seg->len - offset;
        part = part < len ? part : len;
        int r = gmem_view(q->mem, seg->gpa + offset, part, use, v);
        if (r < 0) {
            return r;
        }
        len -= part;
        offset = 0;
    }
    return len == 0 ? 0 : -EINVAL;
}

/* -- State ------------------------------------------------------------------------------------- */
const struct state_field virtq_state[] = {
    STATE(struct virtq, size),        STATE(struct virtq, vector),
    STATE(struct virtq, enabled),     STATE(struct virtq, desc),
    STATE(struct virtq, driver),      STATE(struct virtq, device),
    STATE(struct virtq, next_avail),  STATE(struct virtq, next_used),
    STATE(struct virtq, avail_wrap),  STATE(struct virtq, used_wrap),
    STATE(struct virtq, unsignalled), STATE_END,
};

int virtq_post_load(struct virtq *q, struct err *e)
{
    if (q->enabled && !size_fits(q)) {
        return err_set(e, -EINVAL, "state has a queue of %u entries", q->size);
    }
    if (q->packed && q->enabled && (q->next_avail >= q->size || q->next_used >= q->size)) {
        return err_set(e, -EINVAL, "state is outside of a packed ring");
    }
    return 0;
}
