/* SPDX-License-Identifier: Apache-2.0 -- MultiProcessor Specification 1.4 tables */
#ifndef SOSIA_BOOT_MPTABLE_H
#define SOSIA_BOOT_MPTABLE_H

#include "boot/boot.h"
#include "boot/tablebuf.h"

/* Processors whose APIC id does not fit 8 bits are left out. */
void mptable_build(struct tablebuf *t, const struct boot_machine *m);

#endif
