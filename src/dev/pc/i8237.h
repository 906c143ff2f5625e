/* SPDX-License-Identifier: Apache-2.0
 *
 * The pair of 8237 DMA controllers of a PC, with the page registers: channels 0 to 3 move bytes,
 * 5 to 7 words, 4 carries the requests of the first four.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_I8237_H
#define SOSIA_DEV_PC_I8237_H

#include "bus/bus.h"

#define DMA_CHIPS 2u
#define DMA_CHIP_CHANNELS 4u
#define DMA_PAGES 16u

struct dma_channel {
    uint16_t base_address, base_count; /* what auto-initialisation goes back to */
    uint16_t address, count;
    uint8_t mode;
};

struct dma_chip {
    struct dma_channel channel[DMA_CHIP_CHANNELS];
    uint8_t command;
    uint8_t mask;     /* four bits: the channel is not listened to */
    uint8_t done;     /* terminal counts since the status was read */
    uint8_t dreq;     /* request lines, as devices hold them */
    uint8_t software; /* request register */
    bool high_byte;   /* the byte pointer flip-flop */
};

struct dma {
    struct dev dev;
    struct dma_chip chip[DMA_CHIPS];
    uint8_t page[DMA_PAGES]; /* ports 0x80 to 0x8f */
    /* Not state: */
    struct gmem *mem; /* borrowed */
    struct dma_port {
        struct dma *dma;
        unsigned chip;
    } port[DMA_CHIPS];
};

/* Ports 0x00, 0x80 and 0xc0. */
void dma_init(struct dma *d, struct bus *b);
void dma_fini(struct dma *d);

/* -- Devices: a channel's DREQ, and cycles while the controller grants it. --------------------- */
void dma_set_request(struct dma *d, unsigned channel, bool on);

enum dma_cycle { DMA_TO_MEMORY, DMA_FROM_MEMORY };

/* The device wants len bytes moved (an even number on channels 5 to 7), in the direction it knows;
 * the controller may have been told another, or none: then the memory is left alone, and the device
 * reads ones. Returns how many bytes were moved; fewer than len when the channel is not granted, or
 * when *ended says that the count ran out. */
uint32_t dma_transfer(struct dma *d, unsigned channel, enum dma_cycle cycle, uint8_t *data,
                      uint32_t len, bool *ended);

#endif
