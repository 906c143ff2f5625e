/* SPDX-License-Identifier: Apache-2.0
 *
 * What hangs on the 82540EM's serial lines: the Microwire EEPROM (8254x manual 5.3, 13.4.3) and
 * the 88E1011 gigabit PHY (11.2.4; its registers by IEEE 802.3 clause 22).
 */
#include "dev/pc/e1000_internal.h"

#define EECD_SK 0x01u
#define EECD_CS 0x02u
#define EECD_DI 0x04u
#define EECD_DO 0x08u
#define EECD_REQ 0x40u
#define EECD_GNT 0x80u
#define EECD_PRES 0x100u
#define EECD_LINES (EECD_SK | EECD_CS | EECD_DI | EECD_REQ)
#define EE_COMMAND_BITS 9u /* a one, two of opcode, six of address */
#define EE_READ 6u         /* the one and the opcode */
#define EERD_START 0x01u
#define EERD_DONE 0x10u
#define EEPROM_SUM 0xbabau

enum phy_reg {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ADVERTISE = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_1000_CONTROL = 9,
    PHY_1000_STATUS = 10,
    PHY_EXT_STATUS = 15,
    PHY_SPECIFIC_CONTROL = 16,
    PHY_SPECIFIC_STATUS = 17,
    PHY_EXT_CONTROL = 20,
};
#define PHY_CONTROL_RESET 0x8000u
#define PHY_CONTROL_RESTART 0x0200u
#define PHY_STATUS_LINK 0x0004u
#define PHY_STATUS_DONE 0x0020u
#define PHY_SPECIFIC_LINK 0x0400u

#define MDIC_READ 0x08000000u
#define MDIC_WRITE 0x04000000u
#define MDIC_READY 0x10000000u
#define MDIC_INTERRUPT 0x20000000u
#define MDIC_ERROR 0x40000000u

/* -- EEPROM ------------------------------------------------------------------------------------ */
void e1000_eeprom_fill(struct e1000 *d, const uint8_t mac[NET_MAC_BYTES])
{
    for (unsigned i = 0; i < E1000_EEPROM_WORDS; i++) {
        d->eeprom[i] = i < 0x30 ? 0 : 0xffff;
    }
    for (unsigned i = 0; i < 3; i++) {
        d->eeprom[i] = (uint16_t)(mac[2 * i] | mac[2 * i + 1] << 8);
    }
    d->eeprom[0x04] = 0xffff;
    d->eeprom[0x08] = 0x3000; /* part number */
    d->eeprom[0x09] = 0x1000;
    d->eeprom[0x0a] = 0x640a; /* load the ids below; no wake-up */
    d->eeprom[0x0b] = 0x001e; /* subsystem */
    d->eeprom[0x0c] = 0x8086;
    d->eeprom[0x0d] = 0x100e;
    d->eeprom[0x0e] = 0x8086;
    d->eeprom[0x0f] = 0x3040;
    uint16_t sum = 0;
    for (unsigned i = 0; i + 1 < E1000_EEPROM_WORDS; i++) {
        sum = (uint16_t)(sum + d->eeprom[i]);
    }
    d->eeprom[E1000_EEPROM_WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

uint32_t e1000_eecd_read(const struct e1000 *d)
{
    uint32_t value = (d->reg[REG_EECD / 4] & EECD_LINES) | EECD_PRES;
    unsigned word = d->ee_out / 16 % E1000_EEPROM_WORDS;
    if (value & EECD_REQ) {
        value |= EECD_GNT;
    }
    if (!d->ee_reading || (d->eeprom[word] >> (15 - d->ee_out % 16) & 1)) {
        value |= EECD_DO;
    }
    return value;
}

/* Bits go in with the rising clock, and the next one comes out with the falling. */
void e1000_eecd_write(struct e1000 *d, uint32_t value)
{
    uint32_t changed = d->reg[REG_EECD / 4] ^ value;
    d->reg[REG_EECD / 4] = value & EECD_LINES;
    if (!(value & EECD_CS) || (changed & EECD_CS)) {
        d->ee_bits = 0;
        d->ee_in = 0;
        d->ee_reading = false;
        return;
    }
    if (!(changed & EECD_SK)) {
        return;
    }
    if (!(value & EECD_SK)) {
        d->ee_out++;
        return;
    }
    if (d->ee_bits < EE_COMMAND_BITS) {
        d->ee_in = (uint16_t)(d->ee_in << 1 | !!(value & EECD_DI));
        if (d->ee_bits == 0 && d->ee_in == 0) {
            return; /* a command begins with a one */
        }
        if (++d->ee_bits == EE_COMMAND_BITS) {
            d->ee_reading = d->ee_in >> 6 == EE_READ;
            d->ee_out = (uint16_t)((d->ee_in & 0x3f) * 16 - 1);
        }
    }
}

void e1000_eerd_write(struct e1000 *d, uint32_t value)
{
    uint32_t *reg = e1000_reg(d, REG_EERD);
    *reg = value & 0xff00;
    if (value & EERD_START) {
        unsigned word = value >> 8 & 0xff;
        uint16_t data = word < E1000_EEPROM_WORDS ? d->eeprom[word] : 0xffff;
        *reg |= EERD_DONE | (uint32_t)data << 16;
    }
}

/* -- PHY --------------------------------------------------------------------------------------- */
void e1000_phy_link(struct e1000 *d)
{
    const uint16_t status = PHY_STATUS_LINK | PHY_STATUS_DONE;
    d->phy[PHY_STATUS] &= (uint16_t)~status;
    d->phy[PHY_SPECIFIC_STATUS] &= (uint16_t)~PHY_SPECIFIC_LINK;
    d->phy[PHY_PARTNER] = 0;
    d->phy[PHY_1000_STATUS] = 0;
    if (d->net->link_up) {
        d->phy[PHY_STATUS] |= status;
        d->phy[PHY_SPECIFIC_STATUS] |= PHY_SPECIFIC_LINK;
        d->phy[PHY_PARTNER] = 0xc1e1;
        d->phy[PHY_1000_STATUS] = 0x7c00;
    }
}

void e1000_phy_reset(struct e1000 *d)
{
    for (unsigned i = 0; i < E1000_PHY_REGS; i++) {
        d->phy[i] = 0;
    }
    d->phy[PHY_CONTROL] = 0x1140; /* full duplex, gigabit, auto-negotiation */
    d->phy[PHY_STATUS] = 0x7949;
    d->phy[PHY_ID1] = 0x0141;
    d->phy[PHY_ID2] = 0x0c20;
    d->phy[PHY_ADVERTISE] = 0x0de1;
    d->phy[PHY_EXPANSION] = 0x0005;
    d->phy[PHY_1000_CONTROL] = 0x0e00;
    d->phy[PHY_EXT_STATUS] = 0x3000;
    d->phy[PHY_SPECIFIC_CONTROL] = 0x0360;
    d->phy[PHY_SPECIFIC_STATUS] = 0xa800; /* gigabit, full duplex, resolved */
    d->phy[PHY_EXT_CONTROL] = 0x0d60;
    e1000_phy_link(d);
}

static void phy_write(struct e1000 *d, unsigned reg, uint16_t value)
{
    switch (reg) {
    case PHY_CONTROL:
        if (value & PHY_CONTROL_RESET) {
            e1000_phy_reset(d);
            return;
        }
        d->phy[PHY_CONTROL] = value & (uint16_t)~PHY_CONTROL_RESTART; /* it is done at once */
        if (value & PHY_CONTROL_RESTART) {
            e1000_raise(d, ICR_LSC);
        }
        break;
    case PHY_STATUS:
    case PHY_ID1:
    case PHY_ID2:
    case PHY_PARTNER:
    case PHY_EXPANSION:
    case PHY_1000_STATUS:
    case PHY_EXT_STATUS:
    case PHY_SPECIFIC_STATUS:
        break;
    default:
        d->phy[reg] = value;
    }
}

void e1000_mdic_write(struct e1000 *d, uint32_t value)
{
    unsigned reg = value >> 16 & 31;
    bool ours = (value >> 21 & 31) == 1;
    uint32_t result = (value & 0x2fff0000) | MDIC_READY;
    if (!ours) {
        result |= MDIC_ERROR;
    } else if (value & MDIC_READ) {
        result |= d->phy[reg];
    } else if (value & MDIC_WRITE) {
        phy_write(d, reg, (uint16_t)value);
        result |= value & 0xffff;
    }
    *e1000_reg(d, REG_MDIC) = result;
    if (value & MDIC_INTERRUPT) {
        e1000_raise(d, ICR_MDAC);
    }
}
