/* SPDX-License-Identifier: Apache-2.0
 *
 * Message-signalled interrupts: a write to 0xFEExxxxx becomes an APIC message (SDM 3 11.11).
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_MSI_H
#define SOSIA_DEV_PC_MSI_H

#include <stdint.h>

struct apic_msg;

/* ctx: the struct apic_bus; a pci_msi_fn. */
void msi_send(void *ctx, uint64_t address, uint32_t data);

/* The write that is this message. Bits 31:8 of a destination are bits 63:40 of the address. */
void msi_compose(const struct apic_msg *m, uint64_t *address, uint32_t *data);

#endif
