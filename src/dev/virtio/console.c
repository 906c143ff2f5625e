/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-console (virtio 1.2, 5.3): ports, control messages, emergency output.
 */
#include "dev/virtio/console.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define CONSOLE_F_SIZE BIT(0)
#define CONSOLE_F_MULTIPORT BIT(1)
#define CONSOLE_F_EMERG_WRITE BIT(2)

enum console_config {
    CONFIG_COLS = 0,
    CONFIG_ROWS = 2,
    CONFIG_PORTS = 4,
    CONFIG_EMERG = 8,
    CONFIG_SIZE = 12
};

enum control_event {
    DEVICE_READY = 0,
    DEVICE_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    PORT_OPEN = 6,
    PORT_NAME = 7,
};

#define QUEUE_CONTROL_IN 2u /* to the guest */
#define QUEUE_CONTROL_OUT 3u
#define MESSAGE_BYTES 8u
#define OUTPUT_PART 4096u

static struct virtio_console *console_of(struct virtio *v)
{
    return container_of(v, struct virtio_console, v);
}

static bool multiport(const struct virtio_console *d)
{
    return virtio_has(&d->v, CONSOLE_F_MULTIPORT);
}

/* Ports have queues 0 and 1, then 4 and 5, 6 and 7... (5.3.2) */
static unsigned input_queue(unsigned port) { return port == 0 ? 0 : 2 + 2 * port; }
static unsigned port_of(unsigned queue) { return queue < 2 ? 0 : queue / 2 - 1; }

/* -- Control ----------------------------------------------------------------------------------- */
static void send_messages(struct virtio_console *d)
{
    struct virtio *v = &d->v;
    unsigned sent = 0;
    while (sent < d->messages && virtio_pop(v, QUEUE_CONTROL_IN)) {
        const struct virtio_console_message *m = &d->message[sent++];
        uint8_t raw[MESSAGE_BYTES + sizeof d->port[0].name];
        size_t len = MESSAGE_BYTES;
        store_le32(raw, m->port);
        store_le16(raw + 4, m->event);
        store_le16(raw + 6, m->value);
        if (m->event == PORT_NAME) {
            size_t name = strlen(d->port[m->port].name);
            memcpy(raw + len, d->port[m->port].name, name);
            len += name;
        }
        if (virtq_write(&v->queue[QUEUE_CONTROL_IN], v->chain, 0, raw, len) < 0) {
            virtio_break(v, "a control buffer that is too small, or outside of memory");
            break;
        }
        virtio_push(v, QUEUE_CONTROL_IN, (uint32_t)len);
    }
    d->messages -= sent;
    memmove(d->message, d->message + sent, d->messages * sizeof *d->message);
    virtio_interrupt(v, QUEUE_CONTROL_IN);
}

static void tell(struct virtio_console *d, unsigned port, enum control_event event, unsigned value)
{
    if (multiport(d) && d->messages < VIRTIO_CONSOLE_MESSAGES) {
        d->message[d->messages++] = (struct virtio_console_message){ port, (uint16_t)event,
                                                                     (uint16_t)value };
    }
}

static void input_wanted(struct virtio_console *d, unsigned port)
{
    const struct virtio_console_backend *b = &d->port[port].backend;
    if (b->input_ready != NULL) {
        b->input_ready(b->ctx);
    }
}

static void take_control(struct virtio_console *d, const uint8_t *raw)
{
    uint32_t port = load_le32(raw);
    unsigned event = load_le16(raw + 4);
    unsigned value = load_le16(raw + 6);
    if (event == DEVICE_READY) {
        for (unsigned i = 0; i < d->ports && value == 1; i++) {
            tell(d, i, DEVICE_ADD, 1);
        }
        return;
    }
    if (port >= d->ports) {
        return;
    }
    struct virtio_console_port *p = &d->port[port];
    if (event == PORT_READY && value == 1) {
        p->ready = true;
        if (port == 0) {
            tell(d, port, CONSOLE_PORT, 1);
        }
        if (p->name[0] != '\0') {
            tell(d, port, PORT_NAME, 1);
        }
        tell(d, port, PORT_OPEN, p->host_open);
    } else if (event == PORT_OPEN) {
        p->guest_open = value != 0;
        if (p->guest_open) {
            input_wanted(d, port);
        }
    }
}

static void control(struct virtio_console *d)
{
    struct virtio *v = &d->v;
    do {
        while (virtio_next(v, QUEUE_CONTROL_OUT)) {
            uint8_t raw[MESSAGE_BYTES];
            if (virtq_read(&v->queue[QUEUE_CONTROL_OUT], v->chain, 0, raw, sizeof raw) < 0) {
                virtio_break(v, "a control message that is too short, or outside of memory");
                return;
            }
            virtio_push(v, QUEUE_CONTROL_OUT, 0);
            take_control(d, raw);
        }
    } while (!virtio_await(v, QUEUE_CONTROL_OUT));
    virtio_interrupt(v, QUEUE_CONTROL_OUT);
    send_messages(d);
}

/* -- Data -------------------------------------------------------------------------------------- */
static void put(struct virtio_console *d, unsigned port, const uint8_t *data, size_t len)
{
    const struct virtio_console_backend *b = &d->port[port].backend;
    if (b->write != NULL) {
        b->write(b->ctx, data, len);
    }
}

/* False: the device is broken. */
static bool output_one(struct virtio_console *d, unsigned n)
{
    struct virtio *v = &d->v;
    uint8_t data[OUTPUT_PART];
    /* A chain may name the same memory again and again: as much as a driver ever sends. */
    uint32_t total = v->chain->out_len < MIB(1) ? v->chain->out_len : MIB(1);
    for (uint32_t at = 0; at < total;) {
        uint32_t part = total - at < sizeof data ? total - at : (uint32_t)sizeof data;
        if (virtq_read(&v->queue[n], v->chain, at, data, part) < 0) {
            virtio_break(v, "output outside of memory");
            return false;
        }
        put(d, port_of(n), data, part);
        at += part;
    }
    virtio_push(v, n, 0);
    return true;
}

static void output(struct virtio_console *d, unsigned n)
{
    do {
        while (virtio_next(&d->v, n)) {
            if (!output_one(d, n)) {
                return;
            }
        }
    } while (!virtio_await(&d->v, n));
    virtio_interrupt(&d->v, n);
}

size_t virtio_console_input(struct virtio_console *d, unsigned port, const uint8_t *data,
                            size_t len)
{
    struct virtio *v = &d->v;
    unsigned n = input_queue(port);
    size_t taken = 0;
    if (!virtio_running(v) || (multiport(d) && port != 0 && !d->port[port].guest_open)) {
        return 0;
    }
    do {
        while (taken < len && virtio_pop(v, n)) {
            size_t part = len - taken < v->chain->in_len ? len - taken : v->chain->in_len;
            if (virtq_write(&v->queue[n], v->chain, 0, data + taken, part) < 0) {
                virtio_break(v, "an input buffer outside of memory");
                return taken;
            }
            virtio_push(v, n, (uint32_t)part);
            taken += part;
        }
    } while (taken < len && !virtio_await(v, n));
    virtio_interrupt(v, n);
    return taken;
}

void virtio_console_set_open(struct virtio_console *d, unsigned port, bool open)
{
    struct virtio_console_port *p = &d->port[port];
    if (p->host_open != open) {
        p->host_open = open;
        if (p->ready) {
            tell(d, port, PORT_OPEN, open);
            send_messages(d);
        }
    }
}

static void console_notify(struct virtio *v, unsigned n)
{
    struct virtio_console *d = console_of(v);
    if (n >= 2 && !multiport(d)) {
        return;
    }
    if (n == QUEUE_CONTROL_IN) {
        do {
            send_messages(d);
        } while (!virtio_await(v, n) && d->messages != 0);
    } else if (n == QUEUE_CONTROL_OUT) {
        control(d);
    } else if (n % 2 != 0) {
        output(d, n);
    } else {
        input_wanted(d, port_of(n));
    }
}

/* -- The device -------------------------------------------------------------------------------- */
static void console_config_fill(struct virtio *v)
{
    const struct virtio_console *d = console_of(v);
    store_le16(v->config + CONFIG_COLS, d->columns);
    store_le16(v->config + CONFIG_ROWS, d->rows);
    store_le32(v->config + CONFIG_PORTS, VIRTIO_CONSOLE_PORTS);
}

static void console_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    uint8_t byte = (uint8_t)value;
    (void)size;
    if (offset == CONFIG_EMERG) {
        put(console_of(v), 0, &byte, 1); /* before anything is set up (5.3.4) */
    }
}

static void console_stop(struct virtio *v)
{
    struct virtio_console *d = console_of(v);
    d->messages = 0;
    for (unsigned i = 0; i < d->ports; i++) {
        d->port[i].guest_open = d->port[i].ready = false;
    }
}

static const struct state_field port_state[] = {
    STATE(struct virtio_console_port, guest_open),
    STATE(struct virtio_console_port, ready),
    STATE_END,
};

static const struct state_field message_state[] = {
    STATE(struct virtio_console_message, port),
    STATE(struct virtio_console_message, event),
    STATE(struct virtio_console_message, value),
    STATE_END,
};

static const struct state_field console_state[] = {
    STATE_STRUCT(struct virtio_console, v, virtio_state),
    STATE_STRUCTS(struct virtio_console, port, port_state),
    STATE_STRUCTS(struct virtio_console, message, message_state),
    STATE(struct virtio_console, messages),
    STATE_END,
};

static int console_post_load(void *dev, struct err *e)
{
    struct virtio_console *d = dev;
    if (d->messages > VIRTIO_CONSOLE_MESSAGES) {
        return err_set(e, -EINVAL, "state has %u messages", d->messages);
    }
    for (unsigned i = 0; i < d->messages; i++) {
        if (d->message[i].port >= d->ports) {
            return err_set(e, -EINVAL, "state has a message of port %u", d->message[i].port);
        }
    }
    return virtio_post_load(dev, e);
}

static const struct dev_class console_dev_class = {
    .name = "virtio-console",
    .version = 1,
    .state = console_state,
    .size = sizeof(struct virtio_console),
    .reset = virtio_hard_reset,
    .post_load = console_post_load,
};

static const struct virtio_class console_class = {
    .dev = &console_dev_class,
    .type = 3,
    .transitional_id = 0x1003,
    .pci_class = 0x078000,
    .config_size = CONFIG_SIZE,
    .config_fill = console_config_fill,
    .config_write = console_config_write,
    .notify = console_notify,
    .stop = console_stop,
};

void virtio_console_init(struct virtio_console *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                         const struct virtio_console_backend *ports, unsigned count,
                         const struct virtio_options *o)
{
    *d = (struct virtio_console){ .ports = count, .columns = 80, .rows = 25 };
    for (unsigned i = 0; i < count; i++) {
        d->port[i].backend = ports[i];
        d->port[i].host_open = true;
        if (ports[i].name != NULL) {
            snprintf(d->port[i].name, sizeof d->port[i].name, "%s", ports[i].name);
        }
    }
    virtio_init(&d->v, &console_class, "virtio-console", p, b, devfn, o,
                CONSOLE_F_MULTIPORT | CONSOLE_F_EMERG_WRITE, 2 * VIRTIO_CONSOLE_PORTS + 2);
}

void virtio_console_fini(struct virtio_console *d) { virtio_fini(&d->v); }
