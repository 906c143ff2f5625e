/* SPDX-License-Identifier: Apache-2.0
 *
 * What every virtio device does, whatever the driver reaches it by: status and features (virtio
 * 1.2, 2.1 and 2.2, 3.1), interrupts, queues, device configuration, state.
 */
#include <errno.h>
#include <limits.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/virtio/dev.h"
#include "dev/virtio/dev_internal.h"

/* A driver on another processor can fill a queue as fast as we empty it. */
#define NOTIFY_BUDGET 1024u
#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

/* -- Interrupts -------------------------------------------------------------------------------- */
static void interrupt(struct virtio *v, uint16_t vector, uint8_t isr)
{
    if (pci_msix_enabled(&v->pci)) {
        if (vector != VIRTQ_NO_VECTOR) {
            pci_msix_notify(&v->pci, vector);
        }
        return;
    }
    v->isr |= isr;
    pci_set_intx(&v->pci, 1);
}

void virtio_interrupt(struct virtio *v, unsigned n)
{
    struct virtq *q = &v->queue[n];
    if (virtio_running(v) && virtq_wants_interrupt(q)) {
        interrupt(v, q->vector, ISR_QUEUE);
    }
}

static void config_interrupt(struct virtio *v) { interrupt(v, v->config_vector, ISR_CONFIG); }

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if (v->status & VIRTIO_DRIVER_OK) {
        config_interrupt(v);
    }
}

uint8_t virtio_take_isr(struct virtio *v)
{
    uint8_t isr = v->isr;
    v->isr = 0;
    pci_set_intx(&v->pci, 0);
    return isr;
}

/* A vector that does not exist reads back as none: so the driver knows (4.1.5.1.2). */
uint16_t virtio_checked_vector(const struct virtio *v, uint64_t vector)
{
    return vector < v->msix.vectors ? (uint16_t)vector : VIRTQ_NO_VECTOR;
}

/* -- Queues ------------------------------------------------------------------------------------ */
bool virtio_running(const struct virtio *v)
{
    return (v->status & VIRTIO_DRIVER_OK) && !(v->status & VIRTIO_NEEDS_RESET);
}

void virtio_break(struct virtio *v, const char *why)
{
    if (v->status & VIRTIO_NEEDS_RESET) {
        return;
    }
    log_guest(v->pci.dev.name, "%s", why);
    v->status |= VIRTIO_NEEDS_RESET;
    if (v->status & VIRTIO_DRIVER_OK) {
        config_interrupt(v);
    }
}

bool virtio_pop(struct virtio *v, unsigned n)
{
    const char *why = NULL;
    if (!virtio_running(v)) {
        return false;
    }
    int r = virtq_pop(&v->queue[n], v->chain, &why);
    if (r < 0) {
        virtio_break(v, why);
    }
    return r > 0;
}

bool virtio_next(struct virtio *v, unsigned n)
{
    if (v->budget == 0) {
        return false;
    }
    v->budget--;
    return virtio_pop(v, n);
}

bool virtio_await(struct virtio *v, unsigned n)
{
    if (v->budget == 0) {
        return true; /* virtio_kick goes on later */
    }
    virtq_ask_notify(&v->queue[n], true);
    if (!virtio_pop(v, n)) {
        return true;
    }
    virtq_unpop(&v->queue[n], v->chain);
    return false;
}

void virtio_push_all(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned count)
{
    if (virtq_push_all(&v->queue[n], used, count) < 0) {
        virtio_break(v, "a used ring outside of memory");
    }
}

void virtio_push(struct virtio *v, unsigned n, uint32_t written)
{
    const struct virtq_used used = { v->chain->id, v->chain->descs, written };
    virtio_push_all(v, n, &used, 1);
}

void virtio_kick(struct virtio *v, unsigned n)
{
    if (n >= v->queue_count || !v->queue[n].enabled || !virtio_running(v)) {
        return;
    }
    v->budget = NOTIFY_BUDGET;
    v->cls->notify(v, n);
    if (v->budget == 0 && v->again.clock != NULL) {
        v->postponed |= BIT(n);
        timer_arm(&v->again, clock_now_ns(v->again.clock));
    }
    v->budget = UINT_MAX; /* what the host begins is the host's to bound */
}

void virtio_go_on(void *ctx, uint64_t now_ns)
{
    struct virtio *v = ctx;
    (void)now_ns;
    uint64_t queues = v->postponed;
    for (v->postponed = 0; queues != 0; queues &= queues - 1) {
        virtio_kick(v, (unsigned)__builtin_ctzll(queues));
    }
}

void virtio_apply_features(struct virtio *v)
{
    for (unsigned n = 0; n < v->queue_count; n++) {
        v->queue[n].packed = virtio_has(v, VIRTIO_F_RING_PACKED);
        v->queue[n].event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
        v->queue[n].indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
    }
}

struct virtq *virtio_selected(struct virtio *v)
{
    return v->queue_select < v->queue_count ? &v->queue[v->queue_select] : NULL;
}

/* -- Status ------------------------------------------------------------------------------------ */
void virtio_reset(struct virtio *v)
{
    if (v->status != 0 && v->cls->stop != NULL) {
        v->cls->stop(v);
    }
    for (unsigned n = 0; n < v->queue_count; n++) {
        virtq_reset(&v->queue[n]);
    }
    v->postponed = 0;
    v->status = 0;
    v->isr = 0;
    v->legacy = false;
    v->config_vector = VIRTQ_NO_VECTOR;
    v->queue_select = 0;
    v->offered_select = v->accepted_select = 0;
    v->accepted = 0;
    virtio_apply_features(v);
    pci_set_intx(&v->pci, 0);
}

static bool features_acceptable(const struct virtio *v)
{
    return (v->accepted & ~v->offered) == 0 && virtio_has(v, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
    if (status == 0) {
        virtio_reset(v);
        return;
    }
    uint8_t risen = status & (uint8_t)~v->status;
    if ((risen & VIRTIO_FEATURES_OK) && !v->legacy && !features_acceptable(v)) {
        status &= (uint8_t)~VIRTIO_FEATURES_OK; /* the driver reads it back */
    }
    v->status |= status; /* bits go by a reset only (2.1.1) */
    if (risen & VIRTIO_DRIVER_OK) {
        v->accepted &= v->offered; /* of a driver that asked for no FEATURES_OK */
    }
    if (risen & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK)) {
        virtio_apply_features(v);
    }
    if ((risen & VIRTIO_DRIVER_OK) && v->cls->start != NULL) {
        v->cls->start(v);
    }
}

/* -- Device configuration ---------------------------------------------------------------------- */
uint64_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    if (v->cls->config_fill != NULL) {
        v->cls->config_fill(v);
    }
    for (unsigned i = 0; i < size && offset + i < v->cls->config_size; i++) {
        value |= (uint64_t)v->config[offset + i] << 8 * i;
    }
    return value;
}

void virtio_config_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    if (v->cls->config_write != NULL && offset + size <= v->cls->config_size) {
        v->cls->config_write(v, (unsigned)offset, size, (uint32_t)value);
    }
}

/* -- State ------------------------------------------------------------------------------------- */
const struct state_field virtio_state[] = {
    STATE_STRUCT(struct virtio, pci, pci_func_state),
    STATE_STRUCT(struct virtio, msix, pci_msix_state),
    STATE(struct virtio, status),
    STATE(struct virtio, isr),
    STATE(struct virtio, legacy),
    STATE(struct virtio, generation),
    STATE(struct virtio, config_vector),
    STATE(struct virtio, queue_select),
    STATE(struct virtio, offered_select),
    STATE(struct virtio, accepted_select),
    STATE(struct virtio, accepted),
    STATE_STRUCTS(struct virtio, queue, virtq_state),
    STATE_END,
};

void virtio_hard_reset(void *dev)
{
    struct virtio *v = dev;
    virtio_reset(v);
    v->generation = 0;
    pci_func_reset(&v->pci);
}

int virtio_post_load(void *dev, struct err *e)
{
    struct virtio *v = dev;
    if ((v->status & VIRTIO_FEATURES_FINAL) && (v->accepted & ~v->offered) != 0) {
        return err_set(e, -EINVAL, "state has virtio features %#llx that this device has not",
                       (unsigned long long)(v->accepted & ~v->offered));
    }
    virtio_apply_features(v);
    for (unsigned n = 0; n < VIRTIO_QUEUES_MAX; n++) {
        struct virtq *q = &v->queue[n];
        if (q->vector != VIRTQ_NO_VECTOR && q->vector >= v->msix.vectors) {
            return err_set(e, -EINVAL, "state has MSI-X vector %u", q->vector);
        }
        if (n >= v->queue_count && q->enabled) {
            return err_set(e, -EINVAL, "state has queue %u of %u", n, v->queue_count);
        }
        int r = virtq_post_load(q, e);
        if (r < 0) {
            return r;
        }
    }
    if (v->config_vector != VIRTQ_NO_VECTOR && v->config_vector >= v->msix.vectors) {
        return err_set(e, -EINVAL, "state has MSI-X vector %u", v->config_vector);
    }
    if (v->again.clock != NULL) {
        v->postponed = MASK64(v->queue_count); /* what was announced before may not be done */
        timer_arm(&v->again, clock_now_ns(v->again.clock));
    }
    return pci_post_load(&v->pci, e);
}
