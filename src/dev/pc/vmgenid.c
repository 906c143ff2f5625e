/* SPDX-License-Identifier: Apache-2.0
 *
 * The ID lies in a page of the device, outside RAM: firmware need not place it, and it is not part
 * of the memory that snapshots share. Reset and power-off leave it as it is.
 */
#include "dev/pc/vmgenid.h"

#include <errno.h>
#include <sys/random.h>

static uint64_t id_read(void *dev, uint64_t offset, unsigned size)
{
    const struct vmgenid *v = dev;
    uint64_t value = 0;
    for (unsigned i = 0; i < size && offset + i < VMGENID_BYTES; i++) {
        value |= (uint64_t)v->guid[offset + i] << 8 * i;
    }
    return value;
}

static void id_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)dev;
    (void)offset;
    (void)size;
    (void)value;
}

static const struct region_ops id_ops = {
    .read = id_read,
    .write = id_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
    .unaligned = true,
};

static const struct state_field vmgenid_state[] = {
    STATE_BYTES(struct vmgenid, guid),
    STATE_END,
};

static const struct dev_class vmgenid_class = {
    .name = "vmgenid",
    .version = 1,
    .state = vmgenid_state,
    .size = sizeof(struct vmgenid),
    .came_later = true,
};

void vmgenid_init(struct vmgenid *v, struct bus *b, gpa_t base)
{
    *v = (struct vmgenid){ .guid = { 0 } };
    dev_register(b, &v->dev, &vmgenid_class, "vmgenid");
    bus_add_mmio(b, base, VMGENID_PAGE, &id_ops, v);
}

void vmgenid_fini(struct vmgenid *v) { dev_unregister(&v->dev); }

int vmgenid_renew(struct vmgenid *v, struct err *e)
{
    if (getrandom(v->guid, sizeof v->guid, 0) != (ssize_t)sizeof v->guid) {
        return err_set(e, -EIO, "the host has no random numbers for a VM generation ID");
    }
    return 0;
}
