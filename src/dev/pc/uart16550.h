/* SPDX-License-Identifier: Apache-2.0
 *
 * 16550A serial port (National PC16550D).  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_UART16550_H
#define SOSIA_DEV_PC_UART16550_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pc/char.h"

#define UART_FIFO 16u

struct uart {
    struct dev dev;
    struct irq irq;
    struct char_backend backend;
    uint8_t rbr; /* the byte last read: what an empty receiver shows */
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    uint8_t rx[UART_FIFO]; /* oldest first; one byte deep without FIFOs */
    uint8_t rx_error[UART_FIFO];
    uint8_t rx_count;
    bool thre_pending; /* the THRE interrupt waits to be seen in IIR */
    bool rx_timeout;   /* the character timeout interrupt */
    struct timer timeout;
    uint64_t timeout_ns; /* its deadline, TIMER_NEVER */
    /* Not state: */
    bool input_refused; /* the backend waits for input_ready */
};

/* Eight ports from base. name: "uart.0". What is pointed at is copied, the clock borrowed. */
void uart_init(struct uart *u, struct bus *b, const char *name, uint16_t base,
               const struct irq *irq, struct clock *clock, const struct char_backend *backend);
void uart_fini(struct uart *u);

/* Bytes from outside; returns how many there was room for. After fewer than len, input_ready comes
 * when there is room. Nothing is taken while the guest has the port in loopback mode. */
size_t uart_input(struct uart *u, const uint8_t *data, size_t len);
size_t uart_room(const struct uart *u);
/* A break condition from the other end. */
void uart_input_break(struct uart *u);

#endif
