/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82540EM (PRO/1000 MT Desktop), a gigabit Ethernet card on PCI. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_E1000_H
#define SOSIA_DEV_PC_E1000_H

#include "bus/pci.h"
#include "net/net.h"

#define E1000_REGS (0x6000u / 4) /* registers that are backed by memory */
#define E1000_PHY_REGS 32u
#define E1000_EEPROM_WORDS 64u
#define E1000_DESC_BYTES 16u

/* A context descriptor: where headers and checksums are (8254x manual 3.3.6). */
struct e1000_context {
    uint8_t ipcss, ipcso;
    uint16_t ipcse;
    uint8_t tucss, tucso;
    uint16_t tucse;
    uint8_t hdrlen;
    uint16_t mss;
    bool ip4;
    bool tcp;
};

struct e1000 {
    struct pci_func pci; /* first */
    struct net *net;     /* borrowed, outlives us */
    uint16_t eeprom[E1000_EEPROM_WORDS];
    /* State */
    uint32_t reg[E1000_REGS]; /* by offset / 4 */
    uint16_t phy[E1000_PHY_REGS];
    uint32_t io_address;
    /* The serial EEPROM's shift register */
    uint16_t ee_in;
    uint8_t ee_bits;
    uint16_t ee_out; /* number of the bit on DO */
    bool ee_reading;
    /* The frame that is being put together */
    struct e1000_context context[2]; /* without and with segmentation */
    uint32_t tx_len;
    bool tx_tse;      /* it is to be cut into segments */
    uint8_t tx_popts; /* checksums to insert, from its first descriptor */
    uint8_t tx[NET_FRAME_MAX];
};

void e1000_init(struct e1000 *d, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
                struct net *net, const uint8_t mac[NET_MAC_BYTES]);
void e1000_fini(struct e1000 *d);

#endif
