/* SPDX-License-Identifier: Apache-2.0
 *
 * Boot through firmware: its image, and what it finds in fw_cfg.
 */
#ifndef SOSIA_MACHINE_FIRMWARE_H
#define SOSIA_MACHINE_FIRMWARE_H

#include "machine/config.h"

struct boot_screen;
struct machine;
struct pc;

/* Load the image that the configuration names and show it below 4 GiB (and the BIOS's end below 1
 * MiB). The board's chips are there. */
MUST_CHECK int firmware_init(struct pc *p, const struct machine_config *c, struct err *e);
/* A VGA, with its BIOS where that is installed. */
MUST_CHECK int firmware_add_vga(struct pc *p, struct err *e);
/* For a kernel booted directly: text, or with graphics the mode that s wishes, if there is such a
 * one. s gets what there is then. Machine lock held. */
void firmware_set_screen(struct pc *p, bool graphics, struct boot_screen *s);
/* Make the ACPI and SMBIOS files; again when the ACPI registers have moved. Machine lock held. */
MUST_CHECK int firmware_tables(struct pc *p, struct err *e);

/* The file of UEFI's variables is written out and closed; also without firmware. */
void firmware_fini(struct pc *p);

/* Read a whole file: *data is to be freed. -EFBIG: more than max bytes. */
MUST_CHECK int firmware_read_file(const char *path, size_t max, uint8_t **data, size_t *len,
                                  struct err *e);

#endif
