/* SPDX-License-Identifier: Apache-2.0
 *
 * PC16550D Universal Asynchronous Receiver/Transmitter with FIFOs (National, 1995), section 8.
 *
 * The line is infinitely fast: a byte written is out at once, so the transmitter is always empty
 * and its interrupt follows each write as an edge. Only the character timeout takes the time of the
 * programmed rate.
 * DEVIATION: OUT2 does not gate the interrupt: that is board wiring, and common test kernels leave
 * it off. Parity and framing errors never happen, a byte always has eight bits outside.
 */
#include "dev/pc/uart16550.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dev/pc/ticks.h"

#define UART_HZ 115200u /* 1.8432 MHz / 16 */
#define DIVISOR_RESET 12u

enum uart_reg {
    UART_DATA = 0, /* RBR, THR; DLL with DLAB */
    UART_IER = 1,  /* DLM with DLAB */
    UART_IIR = 2,  /* FCR on write */
    UART_LCR = 3,
    UART_MCR = 4,
    UART_LSR = 5,
    UART_MSR = 6,
    UART_SCR = 7
};
enum uart_ier { IER_RDA = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum uart_iir {
    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_THRE = 0x02,
    IIR_RDA = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0
};
enum uart_fcr { FCR_ENABLE = 0x01, FCR_RX_RESET = 0x02, FCR_KEPT = 0xc9 };
enum uart_lcr {
    LCR_WORD = 0x03,
    LCR_STOP = 0x04,
    LCR_PARITY = 0x08,
    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80
};
enum uart_mcr {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_KEPT = 0x1f
};
enum uart_lsr {
    LSR_DR = 0x01,
    LSR_OE = 0x02,
    LSR_FE = 0x08,
    LSR_BI = 0x10,
    LSR_ERRORS = 0x1e, /* the bits that stay until read; the others are derived */
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERROR = 0x80
};
enum uart_msr {
    MSR_TERI = 0x04,
    MSR_DELTAS = 0x0f,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80
};

static bool fifos_on(const struct uart *u) { return (u->fcr & FCR_ENABLE) != 0; }
static bool looped(const struct uart *u) { return (u->mcr & MCR_LOOP) != 0; }
static unsigned capacity(const struct uart *u) { return fifos_on(u) ? UART_FIFO : 1; }

static unsigned trigger(const struct uart *u)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return fifos_on(u) ? levels[u->fcr >> 6] : 1;
}

/* -- Interrupts -------------------------------------------------------------------------------- */
static uint8_t interrupt_id(const struct uart *u)
{
    if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS)) {
        return IIR_LINE;
    }
    if ((u->ier & IER_RDA) && u->rx_count >= trigger(u)) {
        return IIR_RDA;
    }
    if ((u->ier & IER_RDA) && u->rx_timeout) {
        return IIR_TIMEOUT;
    }
    if ((u->ier & IER_THRE) && u->thre_pending) {
        return IIR_THRE;
    }
    if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTAS)) {
        return IIR_MODEM;
    }
    return IIR_NONE;
}

static void update(struct uart *u) { irq_set(&u->irq, interrupt_id(u) != IIR_NONE); }

static uint64_t four_characters_ns(const struct uart *u)
{
    unsigned bits = 1 + 5 + (u->lcr & LCR_WORD) + 1;
    bits += (u->lcr & LCR_STOP) ? 1 : 0;
    bits += (u->lcr & LCR_PARITY) ? 1 : 0;
    uint64_t divisor = u->divisor != 0 ? u->divisor : 0x10000;
    return 4 * bits * divisor * NS_PER_S / UART_HZ;
}

static void arm_timeout(struct uart *u, uint64_t deadline_ns)
{
    u->timeout_ns = deadline_ns;
    if (deadline_ns == TIMER_NEVER) {
        timer_cancel(&u->timeout);
    } else {
        timer_arm(&u->timeout, deadline_ns);
    }
}

/* Something came into the receive FIFO or was read from it (PC16550D 8.5 C). */
static void receiver_touched(struct uart *u)
{
    u->rx_timeout = false;
    bool waits = fifos_on(u) && u->rx_count != 0;
    arm_timeout(u, waits ? clock_now_ns(u->timeout.clock) + four_characters_ns(u) : TIMER_NEVER);
}

static void on_timeout(void *ctx, uint64_t now_ns)
{
    struct uart *u = ctx;
    (void)now_ns;
    u->timeout_ns = TIMER_NEVER;
    u->rx_timeout = true;
    update(u);
}

/* -- Receiver ---------------------------------------------------------------------------------- */
/* Errors show in LSR when their character comes to the top (PC16550D 8.4). */
static void reveal_top(struct uart *u)
{
    if (u->rx_count != 0) {
        u->lsr |= u->rx_error[0];
    }
}

static void receive(struct uart *u, uint8_t byte, uint8_t error)
{
    if (u->rx_count == capacity(u)) {
        u->lsr |= LSR_OE;
        if (fifos_on(u)) {
            return; /* what is in the shift register is lost */
        }
        u->rx_count = 0;
    }
    u->rx[u->rx_count] = byte;
    u->rx_error[u->rx_count] = error;
    u->rx_count++;
    if (u->rx_count == 1) {
        reveal_top(u);
    }
    receiver_touched(u);
}

static void clear_receiver(struct uart *u)
{
    u->rx_count = 0;
    memset(u->rx, 0, sizeof u->rx);
    memset(u->rx_error, 0, sizeof u->rx_error);
    receiver_touched(u);
}

static uint8_t take(struct uart *u)
{
    if (u->rx_count != 0) {
        u->rbr = u->rx[0];
        u->rx_count--;
        memmove(u->rx, u->rx + 1, u->rx_count);
        memmove(u->rx_error, u->rx_error + 1, u->rx_count);
        u->rx[u->rx_count] = 0;
        u->rx_error[u->rx_count] = 0;
        reveal_top(u);
        receiver_touched(u);
    }
    return u->rbr;
}

size_t uart_room(const struct uart *u) { return looped(u) ? 0 : capacity(u) - u->rx_count; }

size_t uart_input(struct uart *u, const uint8_t *data, size_t len)
{
    size_t n = 0;
    while (n < len && uart_room(u) != 0) {
        receive(u, data[n++], 0);
    }
    if (n < len) {
        u->input_refused = true;
    }
    if (n != 0) {
        update(u);
    }
    return n;
}

void uart_input_break(struct uart *u)
{
    if (!looped(u)) {
        receive(u, 0, LSR_BI | LSR_FE);
        update(u);
    }
}

/* The last thing in a handler: the backend may come right back with more. */
static void offer_room(struct uart *u)
{
    if (u->input_refused && uart_room(u) != 0) {
        u->input_refused = false;
        if (u->backend.input_ready != NULL) {
            u->backend.input_ready(u->backend.ctx);
        }
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static uint8_t line_status(const struct uart *u)
{
    uint8_t lsr = u->lsr | LSR_THRE | LSR_TEMT;
    lsr |= u->rx_count != 0 ? LSR_DR : 0;
    for (unsigned i = 0; fifos_on(u) && i < u->rx_count; i++) {
        lsr |= u->rx_error[i] != 0 ? LSR_FIFO_ERROR : 0;
    }
    return lsr;
}

static void modem_update(struct uart *u)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD; /* somebody is always there */
    if (looped(u)) {
        lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    }
    uint8_t old = u->msr & 0xf0;
    uint8_t deltas = (uint8_t)(old ^ lines) >> 4;
    if (!(old & MSR_RI)) {
        deltas &= (uint8_t)~MSR_TERI; /* only the trailing edge of the ring counts */
    }
    u->msr = lines | (u->msr & MSR_DELTAS) | deltas;
}

static void transmit(struct uart *u, uint8_t byte)
{
    u->thre_pending = false;
    update(u); /* falls, so that the edge after this byte is one */
    if (looped(u)) {
        receive(u, byte & (uint8_t)MASK64(5 + (u->lcr & LCR_WORD)), 0);
    } else if (u->backend.write != NULL) {
        u->backend.write(u->backend.ctx, &byte, 1);
    }
    u->thre_pending = true;
}

static void write_fcr(struct uart *u, uint8_t value)
{
    bool toggled = ((value ^ u->fcr) & FCR_ENABLE) != 0;
    if (toggled || ((value & FCR_ENABLE) && (value & FCR_RX_RESET))) {
        u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
        clear_receiver(u);
    }
    u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
}

static void write_lcr(struct uart *u, uint8_t value)
{
    bool breaks = (value & ~u->lcr & LCR_BREAK) != 0;
    u->lcr = value;
    if (breaks && looped(u)) {
        receive(u, 0, LSR_BI | LSR_FE);
    }
}

static void write_ier(struct uart *u, uint8_t value)
{
    if (value & ~u->ier & IER_THRE) {
        u->thre_pending = true; /* enabled while empty: at once (PC16550D 8.7) */
    }
    u->ier = value & 0x0f;
}

static uint64_t uart_read(void *dev, uint64_t offset, unsigned size)
{
    struct uart *u = dev;
    uint8_t value = 0;
    (void)size;
    switch (offset) {
    case UART_DATA:
        value = u->lcr & LCR_DLAB ? (uint8_t)u->divisor : take(u);
        break;
    case UART_IER:
        value = u->lcr & LCR_DLAB ? (uint8_t)(u->divisor >> 8) : u->ier;
        break;
    case UART_IIR:
        value = interrupt_id(u);
        if (value == IIR_THRE) {
            u->thre_pending = false;
        }
        value |= fifos_on(u) ? IIR_FIFOS : 0;
        break;
    case UART_LCR:
        value = u->lcr;
        break;
    case UART_MCR:
        value = u->mcr;
        break;
    case UART_LSR:
        value = line_status(u);
        u->lsr = 0;
        u->rx_error[0] = 0; /* the top's errors were seen */
        break;
    case UART_MSR:
        value = u->msr;
        u->msr &= (uint8_t)~MSR_DELTAS;
        break;
    case UART_SCR:
        value = u->scr;
        break;
    }
    update(u);
    offer_room(u);
    return value;
}

static void uart_write(void *dev, uint64_t offset, unsigned size, uint64_t v)
{
    struct uart *u = dev;
    uint8_t value = (uint8_t)v;
    (void)size;
    switch (offset) {
    case UART_DATA:
        if (u->lcr & LCR_DLAB) {
            u->divisor = (u->divisor & 0xff00) | value;
        } else {
            transmit(u, value);
        }
        break;
    case UART_IER:
        if (u->lcr & LCR_DLAB) {
            u->divisor = (uint16_t)(value << 8 | (u->divisor & 0xff));
        } else {
            write_ier(u, value);
        }
        break;
    case UART_IIR:
        write_fcr(u, value);
        break;
    case UART_LCR:
        write_lcr(u, value);
        break;
    case UART_MCR:
        u->mcr = value & MCR_KEPT;
        modem_update(u);
        break;
    case UART_SCR:
        u->scr = value;
        break;
    default:
        break; /* LSR and MSR are for factory tests to write */
    }
    update(u);
    offer_room(u);
}

static const struct region_ops uart_ops = {
    .read = uart_read,
    .write = uart_write,
    .sizes = ACCESS_1,
};

/* -- Life -------------------------------------------------------------------------------------- */
static const struct state_field uart_state[] = {
    STATE(struct uart, rbr),
    STATE(struct uart, ier),
    STATE(struct uart, fcr),
    STATE(struct uart, lcr),
    STATE(struct uart, mcr),
    STATE(struct uart, lsr),
    STATE(struct uart, msr),
    STATE(struct uart, scr),
    STATE(struct uart, divisor),
    STATE_BYTES(struct uart, rx),
    STATE_BYTES(struct uart, rx_error),
    STATE(struct uart, rx_count),
    STATE(struct uart, thre_pending),
    STATE(struct uart, rx_timeout),
    STATE(struct uart, timeout_ns),
    STATE_END,
};

static void uart_reset(void *dev)
{
    struct uart *u = dev;
    u->rbr = u->ier = u->fcr = u->lcr = u->mcr = u->lsr = u->scr = 0;
    u->divisor = DIVISOR_RESET;
    u->thre_pending = false;
    clear_receiver(u);
    modem_update(u);
    u->msr &= (uint8_t)~MSR_DELTAS;
    update(u);
    offer_room(u);
}

static int uart_post_load(void *dev, struct err *e)
{
    struct uart *u = dev;
    if (u->rx_count > capacity(u) || (u->lsr & ~LSR_ERRORS) || (u->mcr & ~MCR_KEPT) ||
        (u->fcr & ~FCR_KEPT) || (u->ier & 0xf0)) {
        return err_set(e, -EINVAL, "impossible register values");
    }
    for (unsigned i = 0; i < UART_FIFO; i++) {
        u->rx_error[i] &= i < u->rx_count ? LSR_ERRORS : 0;
    }
    arm_timeout(u, u->timeout_ns);
    update(u);
    return 0;
}

static const struct dev_class uart_class = {
    .name = "uart",
    .version = 1,
    .state = uart_state,
    .size = sizeof(struct uart),
    .reset = uart_reset,
    .post_load = uart_post_load,
};

void uart_init(struct uart *u, struct bus *b, const char *name, uint16_t base,
               const struct irq *irq, struct clock *clock, const struct char_backend *backend)
{
    *u = (struct uart){ .irq = *irq, .backend = *backend };
    timer_init(&u->timeout, clock, on_timeout, u);
    dev_register(b, &u->dev, &uart_class, name);
    bus_add_port(b, base, 8, &uart_ops, u);
    uart_reset(u);
}

void uart_fini(struct uart *u)
{
    timer_cancel(&u->timeout);
    dev_unregister(&u->dev);
}
