/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-rng (virtio 1.2, 5.4): bytes of the host's getrandom, which after its start never waits.
 */
#include "dev/virtio/rng.h"

#include <sys/random.h>

#include "base/bits.h"

#define BYTES_MAX 4096u /* given for one buffer: a guest asks again when it wants more */

static const struct state_field rng_state[] = {
    STATE_STRUCT(struct virtio_rng, v, virtio_state),
    STATE_END,
};

static const struct dev_class rng_dev_class = {
    .name = "virtio-rng",
    .version = 1,
    .state = rng_state,
    .size = sizeof(struct virtio_rng),
    .reset = virtio_hard_reset,
    .post_load = virtio_post_load,
};

static void rng_notify(struct virtio *v, unsigned n)
{
    uint8_t bytes[BYTES_MAX];
    do {
        while (virtio_next(v, n)) {
            uint32_t want = v->chain->in_len < BYTES_MAX ? v->chain->in_len : BYTES_MAX;
            ssize_t got = getrandom(bytes, want, GRND_NONBLOCK);
            uint32_t len = got > 0 ? (uint32_t)got : 0;
            if (virtq_write(&v->queue[n], v->chain, 0, bytes, len) < 0) {
                virtio_break(v, "a buffer outside of memory");
                return;
            }
            virtio_push(v, n, len);
        }
    } while (!virtio_await(v, n));
    virtio_interrupt(v, n);
}

static const struct virtio_class rng_class = {
    .dev = &rng_dev_class,
    .type = 4,
    .transitional_id = 0x1005,
    .pci_class = 0x00ff00,
    .notify = rng_notify,
};

void virtio_rng_init(struct virtio_rng *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                     const struct virtio_options *o)
{
    *d = (struct virtio_rng){ 0 };
    virtio_init(&d->v, &rng_class, "virtio-rng", p, b, devfn, o, 0, 1);
}

void virtio_rng_fini(struct virtio_rng *d) { virtio_fini(&d->v); }
