/* SPDX-License-Identifier: Apache-2.0
 *
 * A port: it takes commands from the list in memory, moves their data along the table of physical
 * regions, and posts what the drive answers as FISes (AHCI 1.3.1, chapters 4 to 6). An unqueued
 * command has the drive to itself.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
#include "dev/pc/ahci_int.h"
#include "dev/pc/ide_int.h"

#define TABLE_ACMD 0x40u
#define TABLE_PRD 0x80u
#define PRD_BYTES 16u
#define PRD_COUNT_MASK 0x3fffffu
#define H2D_COMMAND 0x80u /* else: the device control register */
#define CONTROL_SRST 0x04u
#define D2H_BYTES 20u

/* -- Physical regions (4.2.3.3) ---------------------------------------------------------------- */
void ahci_prd_start(struct ahci_prd *prd, const struct ahci_command *c)
{
    *prd = (struct ahci_prd){ .next = c->table + TABLE_PRD, .entries = c->entries };
}

static int next_region(struct gmem *mem, struct ahci_prd *prd)
{
    uint8_t raw[PRD_BYTES];
    if (gmem_read(mem, prd->next, raw, sizeof raw) < 0) {
        return -EFAULT;
    }
    prd->next += PRD_BYTES;
    prd->entries--;
    prd->address = load_le64(raw) & ~1ull;
    prd->left = (load_le32(raw + 12) & PRD_COUNT_MASK) + 1;
    return 0;
}

int64_t ahci_prd_copy(struct ahci_port *p, struct ahci_prd *prd, uint8_t *data, uint32_t len,
                      enum ide_direction direction)
{
    struct gmem *mem = p->hba->mem;
    uint32_t at = 0;
    if (!pci_bus_master(&p->hba->pci)) {
        return -EFAULT;
    }
    while (at < len && (prd->left != 0 || prd->entries != 0)) {
        if (prd->left == 0 && next_region(mem, prd) < 0) {
            return -EFAULT;
        }
        uint32_t n = prd->left < len - at ? prd->left : len - at;
        int r = direction == IDE_TO_MEMORY ? gmem_write(mem, prd->address, data + at, n)
                                           : gmem_read(mem, prd->address, data + at, n);
        if (r < 0) {
            return r;
        }
        at += n;
        prd->address += n;
        prd->left -= n;
        prd->moved += n;
    }
    return at;
}

/* -- FISes to the guest ------------------------------------------------------------------------ */
void ahci_port_halt(struct ahci_port *p, enum ahci_is why)
{
    p->is |= why;
    p->halted = true;
}

void ahci_port_post(struct ahci_port *p, enum fis_place place, const uint8_t *fis, unsigned len)
{
    if ((p->cmd & CMD_FRE) && gmem_write(p->hba->mem, p->fb + place, fis, len) < 0) {
        ahci_port_halt(p, IS_HBFS);
    }
}

/* What a register FIS and a PIO set-up FIS both have. */
static void fill_registers(uint8_t fis[D2H_BYTES], const struct ide_drive *d)
{
    fis[2] = d->status;
    fis[3] = d->error;
    fis[4] = d->low[0];
    fis[5] = d->mid[0];
    fis[6] = d->high[0];
    fis[7] = d->device;
    fis[8] = d->low[1];
    fis[9] = d->mid[1];
    fis[10] = d->high[1];
    fis[12] = d->count[0];
    fis[13] = d->count[1];
}

void ahci_port_post_d2h(struct ahci_port *p, bool interrupt)
{
    uint8_t fis[D2H_BYTES] = { FIS_D2H, interrupt ? FIS_INTERRUPT : 0 };
    fill_registers(fis, &p->drive);
    p->tfd = p->drive.status | (uint32_t)p->drive.error << 8;
    ahci_port_post(p, PLACE_D2H, fis, sizeof fis);
    p->is |= interrupt ? IS_DHRS : 0u;
}

/* The block of n bytes that moved, in the way the drive announced it: with DRQ, and with the status
 * that follows. */
static void post_pio_setup(struct ahci_port *p, bool to_host, bool interrupt, uint32_t n)
{
    uint8_t fis[D2H_BYTES] = { FIS_PIO_SETUP };
    fill_registers(fis, &p->drive);
    fis[1] = (uint8_t)((to_host ? 0x20 : 0) | (interrupt ? FIS_INTERRUPT : 0));
    fis[2] = ST_READY | ST_DRQ;
    fis[15] = p->drive.status;
    store_le16(fis + 16, (uint16_t)n);
    ahci_port_post(p, PLACE_PIO_SETUP, fis, sizeof fis);
    p->is |= interrupt ? IS_PSS : 0u;
}

void ahci_port_greet(struct ahci_port *p)
{
    const struct ide_drive *d = &p->drive;
    if (!p->greeting || !(p->cmd & CMD_FRE)) {
        return;
    }
    p->greeting = false;
    p->sig = (uint32_t)d->high[0] << 24 | (uint32_t)d->mid[0] << 16 | (uint32_t)d->low[0] << 8 |
             d->count[0];
    ahci_port_post_d2h(p, false);
}

/* -- The drive's side of an unqueued command --------------------------------------------------- */
static void drive_raise(struct ide_drive *d)
{
    struct ahci_port *p = d->controller;
    p->reported = true;
}

static bool drive_dma(struct ide_drive *d, uint32_t bytes, enum ide_direction direction)
{
    struct ahci_port *p = d->controller;
    int64_t n = ahci_prd_copy(p, &p->prd, d->data, bytes, direction);
    if (n >= 0 && n < bytes) {
        p->is |= IS_OFS;
    } else if (n < 0) {
        ahci_port_halt(p, IS_HBFS);
    }
    return n == bytes;
}

static void drive_dma_done(struct ide_drive *d) { (void)d; }

/* The command is over. One that failed stays in CI, for the guest to see which it was (5.5.1). */
static void complete(struct ahci_port *p)
{
    struct ide_drive *d = &p->drive;
    uint8_t moved[4];
    p->working = false;
    store_le32(moved, p->prd.moved);
    gpa_t header = p->clb + p->slot * AHCI_HEADER_BYTES;
    if (gmem_write(p->hba->mem, header + 4, moved, sizeof moved) < 0) {
        ahci_port_halt(p, IS_HBFS);
        return;
    }
    if (p->reported) {
        ahci_port_post_d2h(p, true);
    }
    p->tfd = d->status | (uint32_t)d->error << 8;
    if (d->status & ST_ERR) {
        ahci_port_halt(p, IS_TFES);
    } else {
        p->ci &= ~(1u << p->slot);
    }
}

/* Move blocks through the "data register" as long as the drive has or wants any. */
static void advance(struct ahci_port *p)
{
    struct ide_drive *d = &p->drive;
    while (p->working &&
           (d->phase == PHASE_IN || d->phase == PHASE_OUT || d->phase == PHASE_PACKET)) {
        bool to_host = d->phase == PHASE_IN;
        bool interrupt = d->phase != PHASE_PACKET && p->reported;
        uint32_t n = d->block_end - d->at;
        if (d->phase == PHASE_PACKET) {
            memcpy(d->data, p->acmd, IDE_PACKET_BYTES);
        } else {
            int64_t moved = ahci_prd_copy(p, &p->prd, d->data + d->at, n,
                                          to_host ? IDE_TO_MEMORY : IDE_FROM_MEMORY);
            if (moved < 0) {
                ahci_port_halt(p, IS_HBFS);
                return;
            }
            p->is |= moved < n ? IS_OFS : 0u;
            if (!to_host) {
                memset(d->data + d->at + moved, 0, n - (uint64_t)moved);
            }
        }
        d->at = d->block_end;
        p->reported = false;
        ide_drive_block_done(d);
        post_pio_setup(p, to_host, interrupt, n);
    }
    if (p->working && d->phase == PHASE_IDLE) {
        complete(p);
    }
}

static void drive_advanced(struct ide_drive *d)
{
    struct ahci_port *p = d->controller;
    advance(p);
    ahci_port_run(p);
    ahci_update(p->hba);
}

static const struct ide_drive_host host = {
    .raise = drive_raise,
    .dma_ready = ide_drive_dma,
    .dma = drive_dma,
    .dma_done = drive_dma_done,
    .advanced = drive_advanced,
};

/* -- Taking commands --------------------------------------------------------------------------- */
/* False: the list or the table is not in memory. */
static bool fetch(struct ahci_port *p, unsigned slot, struct ahci_command *c)
{
    uint8_t header[AHCI_HEADER_BYTES];
    struct gmem *mem = p->hba->mem;
    c->header = p->clb + slot * AHCI_HEADER_BYTES;
    if (gmem_read(mem, c->header, header, sizeof header) < 0) {
        return false;
    }
    c->entries = load_le16(header + 2);
    c->table = load_le64(header + 8) & ~0x7full;
    return gmem_read(mem, c->table, c->fis, sizeof c->fis) == 0;
}

/* Device control: the drive is reset when SRST falls again. */
static void control(struct ahci_port *p, unsigned slot, uint8_t value)
{
    p->ci &= ~(1u << slot);
    if (value & CONTROL_SRST) {
        p->srst = true;
        p->tfd = ST_BSY;
    } else if (p->srst) {
        p->srst = false;
        ide_drive_reset(&p->drive);
        p->greeting = true;
        ahci_port_greet(p);
    }
}

static void load_registers(struct ide_drive *d, const uint8_t *fis)
{
    d->feature = fis[3];
    d->low[0] = fis[4];
    d->mid[0] = fis[5];
    d->high[0] = fis[6];
    d->device = fis[7];
    d->low[1] = fis[8];
    d->mid[1] = fis[9];
    d->high[1] = fis[10];
    d->count[0] = fis[12];
    d->count[1] = fis[13];
}

static void command(struct ahci_port *p, const struct ahci_command *c)
{
    struct ide_drive *d = &p->drive;
    uint8_t code = c->fis[2];
    if (gmem_read(p->hba->mem, c->table + TABLE_ACMD, p->acmd, sizeof p->acmd) < 0) {
        ahci_port_halt(p, IS_HBFS);
        return;
    }
    load_registers(d, c->fis);
    ahci_prd_start(&p->prd, c);
    p->working = true;
    p->reported = false;
    p->tfd = ST_BSY;
    if (code == CMD_DIAGNOSTICS || (code == CMD_DEVICE_RESET && d->kind == IDE_CD)) {
        ide_drive_reset(d);
        p->reported = true;
    } else {
        ide_drive_command(d, code);
    }
    advance(p);
}

/* False: it waits for others, or for ever. */
static bool take(struct ahci_port *p, unsigned slot)
{
    struct ahci_command c;
    if (!fetch(p, slot, &c)) {
        ahci_port_halt(p, IS_HBFS);
        return false;
    }
    bool is_command = c.fis[1] & H2D_COMMAND;
    if (is_command && ahci_is_queued(p, c.fis[2])) {
        return ahci_queue(p, slot, &c);
    }
    if (p->queued != 0) {
        return false;
    }
    p->slot = (uint8_t)slot;
    if (c.fis[0] != FIS_H2D) {
        log_guest("ahci", "FIS of type %#x in slot %u", c.fis[0], slot);
        ahci_port_halt(p, IS_IFS);
    } else if (is_command) {
        command(p, &c);
    } else {
        control(p, slot, c.fis[15]);
    }
    return true;
}

static bool may_take(const struct ahci_port *p)
{
    return (p->cmd & CMD_ST) && !p->halted && !p->working && p->drive.kind != IDE_NONE &&
           p->ci != 0 && pci_bus_master(&p->hba->pci);
}

/* The slot behind the one taken last comes first (5.3.11). */
void ahci_port_run(struct ahci_port *p)
{
    while (may_take(p)) {
        uint32_t behind = (uint32_t)(p->ci & ~MASK64(p->slot + 1));
        if (!take(p, (unsigned)__builtin_ctz(behind != 0 ? behind : p->ci))) {
            return;
        }
    }
}

/* -- Resets ------------------------------------------------------------------------------------ */
void ahci_port_forget(struct ahci_port *p)
{
    p->forgetting = true;
    ide_drive_forget(&p->drive);
    if (p->queued != 0) {
        block_queue_drain(p->drive.queue);
    }
    p->forgetting = p->working = false;
}

void ahci_port_stop(struct ahci_port *p)
{
    if (p->working) {
        p->drive.phase = PHASE_IDLE;
        p->drive.status = ST_READY;
    }
    ahci_port_forget(p);
}

void ahci_port_comreset(struct ahci_port *p)
{
    ahci_port_stop(p);
    p->srst = false;
    p->tfd = 0x7f;
    p->sig = 0xffffffff;
    if (p->drive.kind != IDE_NONE) {
        ide_drive_reset(&p->drive);
        p->greeting = true;
        ahci_port_greet(p);
    }
}

void ahci_port_reset(struct ahci_port *p)
{
    p->is = p->ie = p->cmd = p->sctl = p->serr = p->sact = p->ci = 0;
    p->slot = 0;
    p->halted = p->greeting = false;
    ahci_port_comreset(p);
}

void ahci_port_init(struct ahci_port *p, struct ahci *h, unsigned n,
                    const struct ide_drive_config *drive)
{
    p->hba = h;
    p->number = n;
    p->drive.sata = true;
    ide_drive_init(&p->drive, drive, &host, p, 0);
}
