/* SPDX-License-Identifier: Apache-2.0 -- shared by pci.c and pci_msi.c */
#ifndef SOSIA_BUS_PCI_INTERNAL_H
#define SOSIA_BUS_PCI_INTERNAL_H

#include "bus/pci.h"

/* The function writes a message to memory: nothing happens unless it is a bus master. */
void pci_send_msi(struct pci_func *f, uint64_t address, uint32_t data);
/* Drive the function's PIRQ line as intx_level, COMMAND and the message capabilities say. */
void pci_intx_update(struct pci_func *f);

/* Config bytes [offset, offset+size) were written: enables, masks, pending messages. */
void pci_msi_config_written(struct pci_func *f, unsigned offset, unsigned size);
void pci_msi_reset(struct pci_func *f);
/* Check and use what a state stream filled in. */
int pci_msi_post_load(struct pci_func *f, struct err *e);

#endif
