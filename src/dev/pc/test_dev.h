/* SPDX-License-Identifier: Apache-2.0
 *
 * What bare-metal test suites written for QEMU expect of its "pc-testdev": interrupt lines that the
 * guest drives itself, ports and memory that keep what was written. Not part of an ordinary
 * machine. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_TEST_DEV_H
#define SOSIA_DEV_PC_TEST_DEV_H

#include "bus/bus.h"
#include "bus/irq.h"

#define TEST_DEV_LINES 16
#define TEST_DEV_MEMORY 0x10000

struct test_dev {
    struct dev dev;
    uint8_t port[4];
    uint8_t memory[TEST_DEV_MEMORY];
    uint16_t levels; /* of the lines, as the guest set them */
    struct irq line[TEST_DEV_LINES];
    struct region *regions[4];
};

/* Ports 0xe0..0xe7 and 0x2000..0x200f, memory at 0xff000000. */
void test_dev_init(struct test_dev *t, struct bus *b, const struct irq line[TEST_DEV_LINES]);
void test_dev_fini(struct test_dev *t);

#endif
