/* SPDX-License-Identifier: Apache-2.0
 *
 * The VM generation ID: 128 random bits that change whenever a state of the machine is taken up
 * that may be taken up more than once, so that a guest knows that others share its past
 * ("Virtual Machine Generation ID", Microsoft 2012).  Thread: machine lock held, or set-up.
 */
#ifndef SOSIA_DEV_PC_VMGENID_H
#define SOSIA_DEV_PC_VMGENID_H

#include "bus/bus.h"

#define VMGENID_BYTES 16u
#define VMGENID_PAGE 0x1000u

struct vmgenid {
    struct dev dev;
    uint8_t guid[VMGENID_BYTES];
};

/* A page at base begins with the ID. */
void vmgenid_init(struct vmgenid *v, struct bus *b, gpa_t base);
void vmgenid_fini(struct vmgenid *v);
/* Another ID; the caller tells the guest. */
MUST_CHECK int vmgenid_renew(struct vmgenid *v, struct err *e);

#endif
