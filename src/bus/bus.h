/* SPDX-License-Identifier: Apache-2.0
 *
 * Port and memory-mapped I/O: who answers at which address. The bus checks size and alignment,
 * splits what a region does not take whole and merges the result; a handler sees region-relative
 * offsets and only the sizes it declared. Unclaimed reads float high (all ones), writes vanish.
 *
 * One lock per machine guards all devices: vCPU threads take it around bus accesses (bus_* below do
 * it themselves), the loop holds it in callbacks. Handlers therefore never lock.
 */
#ifndef SOSIA_BUS_BUS_H
#define SOSIA_BUS_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/gmem.h"
#include "state/state.h"

struct state_out;
struct state_in;

enum access_sizes { ACCESS_1 = 1, ACCESS_2 = 2, ACCESS_4 = 4, ACCESS_8 = 8 }; /* or-ed */

struct region_ops {
    uint64_t (*read)(void *dev, uint64_t offset, unsigned size);
    void (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
    unsigned sizes; /* access_sizes the handlers take; others are split or widened by the bus */
    bool unaligned; /* handlers take any alignment (default: natural, else split) */
};

/* What a device class tells the machine: its state, and what reset does. */
struct dev_class {
    const char *name;
    unsigned version;
    const struct state_field *state;
    size_t size;              /* of the object the table describes */
    void (*reset)(void *dev); /* RESET# or power-on */
    int (*post_load)(void *dev,
                     struct err *e); /* rebuild and check derived state; -EINVAL refuses */
    void (*pre_save)(void *dev);
    /* Finish what is under way on the host (disk requests): before a save, while everything that
     * this may change, processors and interrupt controllers among it, is still unsaved. */
    void (*quiesce)(void *dev);
    bool came_later; /* older streams have no section of it: it stays as it is */
};

/* First member of every device. */
struct dev {
    const struct dev_class *cls;
    char name[24]; /* section name, unique in the machine: "pit", "uart.1" */
    struct bus *bus;
    struct dev *next;
};

struct region; /* opaque handle of one claimed range */
struct bus;

struct bus *bus_new(struct gmem *mem);
void bus_free(struct bus *b);
pthread_mutex_t *bus_lock_of(struct bus *b);
void bus_lock(struct bus *b);
void bus_unlock(struct bus *b);
struct gmem *bus_mem(struct bus *b);

/* Claim [base, base+size). Later claims lie over earlier ones (BARs over holes, PAM over ROM).
 * Set-up or machine lock held. */
struct region *bus_add_port(struct bus *b, uint16_t base, uint32_t size,
                            const struct region_ops *ops, void *dev);
struct region *bus_add_mmio(struct bus *b, gpa_t base, uint64_t size, const struct region_ops *ops,
                            void *dev);
/* Move or switch off/on (BARs, APIC base). */
void region_move(struct region *r, uint64_t base);
void region_enable(struct region *r, bool on);
void region_remove(struct region *r);

/* The n-th claim in order of age, as it is now; false: there are no more. For people to read. */
struct region_place {
    uint64_t base, size;
    bool is_port, enabled;
    const void *dev; /* what its handlers get */
};
bool bus_region(const struct bus *b, size_t n, struct region_place *out);

/* -- vCPU side. [vcpu]: these take the machine lock. size 1, 2, 4 (ports) or 1..8 (MMIO). */
uint32_t bus_port_read(struct bus *b, uint16_t port, unsigned size);
void bus_port_write(struct bus *b, uint16_t port, unsigned size, uint32_t value);
uint64_t bus_mmio_read(struct bus *b, gpa_t gpa, unsigned size);
void bus_mmio_write(struct bus *b, gpa_t gpa, unsigned size, uint64_t value);

/* How an access meets a region. It goes whole to the region at its first byte when that takes the
 * size and alignment and ends no earlier. Otherwise it is split, ascending and little-endian, into
 * the largest pieces that each region's `sizes` allow. Bytes that no declared size carries alone: a
 * read takes the smallest wider access and cuts them out; a write loses them, because reading the
 * rest and writing it back would have side effects. */

/* -- Device list: order of registration is the order of reset and of state sections. */
void dev_register(struct bus *b, struct dev *d, const struct dev_class *cls, const char *name);
void dev_unregister(struct dev *d);
void bus_reset(struct bus *b); /* every device's reset, machine lock held */
/* Every device's quiesce, machine lock held. */
void bus_quiesce(struct bus *b);
/* Machine lock held. Load fills all devices first, then runs every post_load in order; after an
 * error some devices hold new state and some old: reset or discard the machine. */
void bus_save(struct bus *b, struct state_out *out);
MUST_CHECK int bus_load(struct bus *b, struct state_in *in, struct err *e);
struct dev *bus_first_dev(struct bus *b);

#endif
