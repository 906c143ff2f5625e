/* SPDX-License-Identifier: Apache-2.0 -- SMBIOS 3.0 tables, with the 2.8 entry point */
#ifndef SOSIA_BOOT_SMBIOS_H
#define SOSIA_BOOT_SMBIOS_H

#include "boot/boot.h"
#include "boot/tablebuf.h"

void smbios_build(struct tablebuf *t, const struct boot_machine *m, uint64_t ram_below_4g,
                  uint64_t ram);

#endif
