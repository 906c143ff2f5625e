/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-input (virtio 1.2, 5.8): a tablet with five buttons and a wheel. Events are those of
 * Linux's evdev (include/uapi/linux/input-event-codes.h).
 *
 * The driver is told of what changed when it has buffers for it: where the pointer was in between
 * is nobody's business.
 */
#include "dev/virtio/input.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

enum input_config { CONFIG_SELECT, CONFIG_SUBSEL, CONFIG_LENGTH, CONFIG_DATA = 8 };
#define CONFIG_SIZE 136u
enum input_select {
    SELECT_NAME = 0x01,
    SELECT_SERIAL = 0x02,
    SELECT_IDS = 0x03,
    SELECT_PROPERTIES = 0x10,
    SELECT_EVENTS = 0x11,
    SELECT_ABSOLUTE = 0x12,
};

#define EV_SYN 0u
#define EV_KEY 1u
#define EV_REL 2u
#define EV_ABS 3u
#define ABS_X 0u
#define ABS_Y 1u
#define REL_WHEEL 8u
#define BTN_LEFT 0x110u /* then right, middle, side, extra: as the bits of buttons */
#define BUTTONS 5u
#define BUS_VIRTUAL 6u
#define WHEEL_MAX 0x7fff
#define EVENT_BYTES 8u

#define QUEUE_EVENTS 0u
#define QUEUE_STATUS 1u

static struct virtio_input *input_of(struct virtio *v)
{
    return container_of(v, struct virtio_input, v);
}

/* -- Events ------------------------------------------------------------------------------------ */
struct event {
    uint16_t type, code;
    uint32_t value;
};

/* The next of what the driver does not know, which it is told now. */
static struct event next_event(struct virtio_input *d)
{
    struct virtio_input_place *told = &d->told;
    unsigned changed = d->is.buttons ^ told->buttons;
    int32_t wheel = d->wheel;
    d->open = true;
    if (d->is.x != told->x) {
        told->x = d->is.x;
        return (struct event){ EV_ABS, ABS_X, told->x };
    }
    if (d->is.y != told->y) {
        told->y = d->is.y;
        return (struct event){ EV_ABS, ABS_Y, told->y };
    }
    if (changed != 0) {
        unsigned n = (unsigned)__builtin_ctz(changed);
        told->buttons ^= (uint8_t)BIT(n);
        return (struct event){ EV_KEY, (uint16_t)(BTN_LEFT + n), told->buttons >> n & 1 };
    }
    if (wheel != 0) {
        d->wheel = 0;
        return (struct event){ EV_REL, REL_WHEEL, (uint32_t)wheel };
    }
    d->open = false;
    return (struct event){ EV_SYN, 0, 0 };
}

static bool all_told(const struct virtio_input *d)
{
    return !d->open && d->wheel == 0 && d->is.x == d->told.x && d->is.y == d->told.y &&
           d->is.buttons == d->told.buttons;
}

static void tell(struct virtio_input *d)
{
    struct virtio *v = &d->v;
    bool any = false;
    do {
        while (!all_told(d) && virtio_pop(v, QUEUE_EVENTS)) {
            const struct event ev = next_event(d);
            uint8_t raw[EVENT_BYTES];
            store_le16(raw, ev.type);
            store_le16(raw + 2, ev.code);
            store_le32(raw + 4, ev.value);
            if (virtq_write(&v->queue[QUEUE_EVENTS], v->chain, 0, raw, sizeof raw) < 0) {
                virtio_break(v, "an event's buffer too small, or outside of memory");
                return;
            }
            virtio_push(v, QUEUE_EVENTS, sizeof raw);
            any = true;
        }
    } while (!all_told(d) && !virtio_await(v, QUEUE_EVENTS));
    if (any) {
        virtio_interrupt(v, QUEUE_EVENTS);
    }
}

bool virtio_input_ready(const struct virtio_input *d)
{
    return virtio_running(&d->v) && d->v.queue[QUEUE_EVENTS].enabled;
}

void virtio_input_put(struct virtio_input *d, const struct virtio_input_place *to, int wheel)
{
    d->is = (struct virtio_input_place){
        .x = to->x < VIRTIO_INPUT_MAX ? to->x : VIRTIO_INPUT_MAX,
        .y = to->y < VIRTIO_INPUT_MAX ? to->y : VIRTIO_INPUT_MAX,
        .buttons = to->buttons & (uint8_t)MASK64(BUTTONS),
    };
    int sum = wheel >= -WHEEL_MAX && wheel <= WHEEL_MAX ? d->wheel - wheel : d->wheel;
    if (sum >= -WHEEL_MAX && sum <= WHEEL_MAX) { /* else nobody takes them any more */
        d->wheel = sum;
    }
    tell(d);
}

/* The status queue is for lights, which a tablet does not have. */
static void input_notify(struct virtio *v, unsigned n)
{
    if (n == QUEUE_EVENTS) {
        tell(input_of(v));
        return;
    }
    do {
        while (virtio_next(v, n)) {
            virtio_push(v, n, 0);
        }
    } while (!virtio_await(v, n));
    virtio_interrupt(v, n);
}

/* -- Configuration ----------------------------------------------------------------------------- */
static uint8_t put_bit(uint8_t *bits, unsigned n)
{
    bits[n / 8] |= (uint8_t)BIT(n % 8);
    return (uint8_t)(n / 8 + 1);
}

/* The codes of one type that there are, as a bitmap; returns its length. */
static uint8_t event_bits(uint8_t *bits, unsigned type)
{
    switch (type) {
    case EV_KEY: {
        uint8_t len = 0;
        for (unsigned n = 0; n < BUTTONS; n++) {
            len = put_bit(bits, BTN_LEFT + n);
        }
        return len;
    }
    case EV_REL:
        return put_bit(bits, REL_WHEEL);
    case EV_ABS:
        put_bit(bits, ABS_X);
        return put_bit(bits, ABS_Y);
    default:
        return 0;
    }
}

static uint8_t put_text(uint8_t *to, const char *text)
{
    size_t len = strlen(text);
    memcpy(to, text, len);
    return (uint8_t)len;
}

static uint8_t describe(const struct virtio_input *d, uint8_t *to)
{
    if (d->subsel != 0 && d->select < SELECT_EVENTS) {
        return 0;
    }
    switch (d->select) {
    case SELECT_NAME:
        return put_text(to, "sosia virtio tablet");
    case SELECT_SERIAL:
        return put_text(to, "0");
    case SELECT_IDS: /* bus, vendor, product, version */
        store_le16(to, BUS_VIRTUAL);
        store_le16(to + 2, 0x1af4);
        store_le16(to + 4, 1);
        store_le16(to + 6, 1);
        return 8;
    case SELECT_EVENTS:
        return event_bits(to, d->subsel);
    case SELECT_ABSOLUTE:
        store_le32(to + 4, VIRTIO_INPUT_MAX); /* least 0, most; neither noise nor resolution */
        return d->subsel <= ABS_Y ? 20 : 0;
    default:
        return 0;
    }
}

static void input_config_fill(struct virtio *v)
{
    const struct virtio_input *d = input_of(v);
    memset(v->config, 0, CONFIG_SIZE);
    v->config[CONFIG_SELECT] = d->select;
    v->config[CONFIG_SUBSEL] = d->subsel;
    v->config[CONFIG_LENGTH] = describe(d, v->config + CONFIG_DATA);
    if (v->config[CONFIG_LENGTH] == 0) {
        memset(v->config + CONFIG_DATA, 0, CONFIG_SIZE - CONFIG_DATA);
    }
}

static void input_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_input *d = input_of(v);
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        d->select = offset + i == CONFIG_SELECT ? byte : d->select;
        d->subsel = offset + i == CONFIG_SUBSEL ? byte : d->subsel;
    }
}

/* A new driver knows of nothing. */
static void input_stop(struct virtio *v)
{
    struct virtio_input *d = input_of(v);
    d->select = d->subsel = 0;
    d->is = d->told = (struct virtio_input_place){ .x = 0 };
    d->wheel = 0;
    d->open = false;
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field place_state[] = {
    STATE(struct virtio_input_place, x),
    STATE(struct virtio_input_place, y),
    STATE(struct virtio_input_place, buttons),
    STATE_END,
};

static const struct state_field input_state[] = {
    STATE_STRUCT(struct virtio_input, v, virtio_state),
    STATE(struct virtio_input, select),
    STATE(struct virtio_input, subsel),
    STATE_STRUCT(struct virtio_input, is, place_state),
    STATE_STRUCT(struct virtio_input, told, place_state),
    STATE(struct virtio_input, wheel),
    STATE(struct virtio_input, open),
    STATE_END,
};

static bool place_fits(const struct virtio_input_place *p)
{
    return p->x <= VIRTIO_INPUT_MAX && p->y <= VIRTIO_INPUT_MAX && p->buttons < 1u << BUTTONS;
}

static int input_post_load(void *dev, struct err *e)
{
    const struct virtio_input *d = dev;
    if (!place_fits(&d->is) || !place_fits(&d->told) || d->wheel < -WHEEL_MAX ||
        d->wheel > WHEEL_MAX) {
        return err_set(e, -EINVAL, "impossible state of the tablet");
    }
    return virtio_post_load(dev, e);
}

static const struct dev_class input_dev_class = {
    .name = "virtio-input",
    .version = 1,
    .state = input_state,
    .size = sizeof(struct virtio_input),
    .reset = virtio_hard_reset,
    .post_load = input_post_load,
};

static const struct virtio_class input_class = {
    .dev = &input_dev_class,
    .type = 18,
    .pci_class = 0x098000,
    .config_size = CONFIG_SIZE,
    .config_fill = input_config_fill,
    .config_write = input_config_write,
    .notify = input_notify,
    .stop = input_stop,
};

void virtio_input_init(struct virtio_input *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                       const struct virtio_options *o)
{
    *d = (struct virtio_input){ 0 };
    virtio_init(&d->v, &input_class, "virtio-tablet", p, b, devfn, o, 0, 2);
}

void virtio_input_fini(struct virtio_input *d) { virtio_fini(&d->v); }
