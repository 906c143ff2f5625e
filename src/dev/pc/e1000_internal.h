/* SPDX-License-Identifier: Apache-2.0 -- registers of the 82540EM, shared by its files */
#ifndef SOSIA_DEV_PC_E1000_INTERNAL_H
#define SOSIA_DEV_PC_E1000_INTERNAL_H

#include "dev/pc/e1000.h"

/* 8254x manual, chapter 13 */
enum e1000_reg {
    REG_CTRL = 0x0000,
    REG_STATUS = 0x0008,
    REG_EECD = 0x0010,
    REG_EERD = 0x0014,
    REG_CTRL_EXT = 0x0018,
    REG_MDIC = 0x0020,
    REG_FCAL = 0x0028,
    REG_FCAH = 0x002c,
    REG_FCT = 0x0030,
    REG_VET = 0x0038,
    REG_ICR = 0x00c0,
    REG_ITR = 0x00c4,
    REG_ICS = 0x00c8,
    REG_IMS = 0x00d0,
    REG_IMC = 0x00d8,
    REG_RCTL = 0x0100,
    REG_FCTTV = 0x0170,
    REG_TCTL = 0x0400,
    REG_TIPG = 0x0410,
    REG_AIT = 0x0458,
    REG_LEDCTL = 0x0e00,
    REG_PBA = 0x1000,
    REG_FCRTL = 0x2160,
    REG_FCRTH = 0x2168,
    REG_RDBAL = 0x2800,
    REG_RDBAH = 0x2804,
    REG_RDLEN = 0x2808,
    REG_RDH = 0x2810,
    REG_RDT = 0x2818,
    REG_RDTR = 0x2820,
    REG_RXDCTL = 0x2828,
    REG_RADV = 0x282c,
    REG_RSRPD = 0x2c00,
    REG_TDBAL = 0x3800,
    REG_TDBAH = 0x3804,
    REG_TDLEN = 0x3808,
    REG_TDH = 0x3810,
    REG_TDT = 0x3818,
    REG_TIDV = 0x3820,
    REG_TXDCTL = 0x3828,
    REG_TADV = 0x382c,
    REG_TSPMT = 0x3830,
    REG_STATS = 0x4000, /* up to 0x4100: cleared when read */
    REG_MPC = 0x4010,
    REG_GPRC = 0x4074,
    REG_BPRC = 0x4078,
    REG_MPRC = 0x407c,
    REG_GPTC = 0x4080,
    REG_GORCL = 0x4088,
    REG_GOTCL = 0x4090,
    REG_TORL = 0x40c0,
    REG_TOTL = 0x40c8,
    REG_TPR = 0x40d0,
    REG_TPT = 0x40d4,
    REG_STATS_END = 0x4100,
    REG_RXCSUM = 0x5000,
    REG_MTA = 0x5200,
    REG_MTA_END = 0x5400,
    REG_RAL = 0x5400,
    REG_RAL_END = 0x5480,
    REG_VFTA = 0x5600,
    REG_VFTA_END = 0x5800,
    REG_WUC = 0x5800,
    REG_WUFC = 0x5808,
    REG_WUS = 0x5810,
    REG_MANC = 0x5820,
};

#define CTRL_SLU 0x40u
#define CTRL_RST 0x04000000u
#define CTRL_VME 0x40000000u
#define CTRL_PHY_RST 0x80000000u
#define STATUS_FD 0x1u
#define STATUS_LU 0x2u
#define STATUS_1000 0x280u /* speed, and what auto-detection found */

#define ICR_TXDW 0x01u
#define ICR_TXQE 0x02u
#define ICR_LSC 0x04u
#define ICR_RXDMT0 0x10u
#define ICR_RXO 0x40u
#define ICR_RXT0 0x80u
#define ICR_MDAC 0x200u

#define RCTL_EN 0x2u
#define RCTL_UPE 0x8u
#define RCTL_MPE 0x10u
#define RCTL_LPE 0x20u
#define RCTL_RDMTS_SHIFT 8
#define RCTL_MO_SHIFT 12
#define RCTL_BAM 0x8000u
#define RCTL_BSIZE_SHIFT 16
#define RCTL_VFE 0x40000u
#define RCTL_BSEX 0x2000000u
#define RCTL_SECRC 0x4000000u
#define TCTL_EN 0x2u
#define RXCSUM_TUOFL 0x200u
#define RAH_AV 0x80000000u

static inline uint32_t *e1000_reg(struct e1000 *d, enum e1000_reg r) { return &d->reg[r / 4]; }
static inline uint64_t e1000_base(struct e1000 *d, enum e1000_reg low)
{
    return ((uint64_t)d->reg[low / 4 + 1] << 32 | d->reg[low / 4]) & ~15ull;
}
static inline uint32_t e1000_ring(struct e1000 *d, enum e1000_reg len)
{
    return (d->reg[len / 4] & 0xfff80) / E1000_DESC_BYTES;
}

/* e1000.c */
void e1000_raise(struct e1000 *d, uint32_t causes);
void e1000_count(struct e1000 *d, enum e1000_reg stat, uint32_t n);
void e1000_count64(struct e1000 *d, enum e1000_reg low, uint64_t n);
bool e1000_link_up(const struct e1000 *d);
/* e1000_tx.c: the tail moved. */
void e1000_transmit(struct e1000 *d);
/* e1000_rx.c */
bool e1000_receive(void *ctx, const struct net_offload *o, const uint8_t *frame, size_t len);
/* e1000_phy.c */
void e1000_eeprom_fill(struct e1000 *d, const uint8_t mac[NET_MAC_BYTES]);
uint32_t e1000_eecd_read(const struct e1000 *d);
void e1000_eecd_write(struct e1000 *d, uint32_t value);
void e1000_eerd_write(struct e1000 *d, uint32_t value);
void e1000_phy_reset(struct e1000 *d);
void e1000_phy_link(struct e1000 *d);
void e1000_mdic_write(struct e1000 *d, uint32_t value);

#endif
