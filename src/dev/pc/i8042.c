/* SPDX-License-Identifier: Apache-2.0
 *
 * The keyboard and auxiliary device controller (IBM PS/2 Hardware Interface Technical Reference,
 * "Keyboard/Auxiliary Device Controller"): an 8042 with IBM's firmware. The output buffer holds one
 * byte; the devices keep theirs until it is empty. The controller's own answers come before that,
 * a device's byte that sits in the buffer then waits once more.
 * UNIMPL: setting a password, diagnostic dump, active multiplexing.
 */
#include "dev/pc/i8042.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

enum kbc_status {
    STATUS_OUTPUT = 0x01,
    STATUS_SYSTEM = 0x04,
    STATUS_COMMAND = 0x08,
    STATUS_NOT_LOCKED = 0x10,
    STATUS_MOUSE = 0x20
};
enum kbc_command_byte {
    CB_KEYBOARD_IRQ = 0x01,
    CB_MOUSE_IRQ = 0x02,
    CB_SYSTEM = 0x04,
    CB_KEYBOARD_OFF = 0x10,
    CB_MOUSE_OFF = 0x20,
    CB_TRANSLATE = 0x40
};
/* As firmware leaves it: keyboard on and translated, mouse off until a driver comes. */
#define CB_RESET (CB_KEYBOARD_IRQ | CB_SYSTEM | CB_MOUSE_OFF | CB_TRANSLATE)

enum kbc_command {
    CMD_READ_RAM = 0x20,  /* to 0x3f */
    CMD_WRITE_RAM = 0x60, /* to 0x7f */
    CMD_TEST_PASSWORD = 0xa4,
    CMD_MOUSE_OFF = 0xa7,
    CMD_MOUSE_ON = 0xa8,
    CMD_TEST_MOUSE = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_KEYBOARD = 0xab,
    CMD_KEYBOARD_OFF = 0xad,
    CMD_KEYBOARD_ON = 0xae,
    CMD_READ_INPORT = 0xc0,
    CMD_READ_OUTPORT = 0xd0,
    CMD_WRITE_OUTPORT = 0xd1,
    CMD_WRITE_OUTPUT = 0xd2,
    CMD_WRITE_OUTPUT_AUX = 0xd3,
    CMD_WRITE_MOUSE = 0xd4,
    CMD_A20_OFF = 0xdd,
    CMD_A20_ON = 0xdf,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0 /* to 0xff: bits that are 0 go low for 6 us */
};
enum kbc_outport {
    OUTPORT_RESET = 0x01,
    OUTPORT_A20 = 0x02,
    OUTPORT_KEYBOARD_FULL = 0x10,
    OUTPORT_MOUSE_FULL = 0x20,
    OUTPORT_ONES = 0xc0
};
#define SELF_TEST_PASSED 0x55u
#define NO_PASSWORD 0xf1u
#define INPORT_NOT_LOCKED 0x80u
#define PREFIX_BREAK 0xf0u

/* -- Output buffer ----------------------------------------------------------------------------- */
static bool from_mouse(const struct i8042 *k)
{
    return k->source == KBC_MOUSE || k->source == KBC_SELF_AUX;
}

static void update(struct i8042 *k)
{
    bool full = k->source != KBC_NONE;
    irq_set(&k->irq_keyboard, full && !from_mouse(k) && (k->ram[0] & CB_KEYBOARD_IRQ));
    irq_set(&k->irq_mouse, full && from_mouse(k) && (k->ram[0] & CB_MOUSE_IRQ));
}

static bool take_keyboard(struct i8042 *k, uint8_t *byte)
{
    while (ps2_keyboard_take(&k->keyboard, byte)) {
        if (!(k->ram[0] & CB_TRANSLATE)) {
            return true;
        }
        if (*byte == PREFIX_BREAK) {
            k->breaking = true;
            continue;
        }
        *byte = ps2_translate(*byte);
        *byte |= k->breaking ? 0x80 : 0;
        k->breaking = false;
        return true;
    }
    return false;
}

/* The next byte of a device that may speak. */
static void refill(struct i8042 *k)
{
    if (k->source == KBC_NONE && !(k->ram[0] & CB_KEYBOARD_OFF) && take_keyboard(k, &k->output)) {
        k->source = KBC_KEYBOARD;
    }
    if (k->source == KBC_NONE && !(k->ram[0] & CB_MOUSE_OFF) &&
        ps2_mouse_take(&k->mouse, &k->output)) {
        k->source = KBC_MOUSE;
    }
    update(k);
}

/* An edge for every byte, whoever it is from. */
static void drop_output(struct i8042 *k)
{
    k->source = KBC_NONE;
    update(k);
}

static void reply(struct i8042 *k, enum kbc_source source, uint8_t byte)
{
    if (k->source == KBC_MOUSE) {
        ps2_queue_unget(&k->mouse.out, k->output);
    } else if (k->source == KBC_KEYBOARD) {
        uint8_t raw = k->keyboard.last; /* before translation, which has to come out the same */
        uint8_t make = ps2_translate(raw);
        k->breaking = k->output != raw && k->output != make;
        ps2_queue_unget(&k->keyboard.out, raw);
    }
    drop_output(k);
    k->output = byte;
    k->source = (uint8_t)source;
    update(k);
}

/* -- Commands ---------------------------------------------------------------------------------- */
static void write_outport(struct i8042 *k, uint8_t value)
{
    k->outport = value & (OUTPORT_RESET | OUTPORT_A20);
    irq_set(&k->a20, (value & OUTPORT_A20) != 0);
    if (!(value & OUTPORT_RESET)) {
        k->outport |= OUTPORT_RESET; /* nobody could raise it again */
        irq_pulse(&k->reset);
    }
}

static uint8_t read_outport(const struct i8042 *k)
{
    uint8_t value = k->outport | OUTPORT_ONES;
    if (k->source != KBC_NONE) {
        value |= from_mouse(k) ? OUTPORT_MOUSE_FULL : OUTPORT_KEYBOARD_FULL;
    }
    return value;
}

static void command(struct i8042 *k, uint8_t byte)
{
    k->pending = 0;
    if ((byte & 0xe0) == CMD_READ_RAM) {
        reply(k, KBC_SELF, k->ram[byte & 0x1f]);
        return;
    }
    if ((byte & 0xe0) == CMD_WRITE_RAM) {
        k->pending = byte;
        return;
    }
    if (byte >= CMD_PULSE) {
        if (!(byte & OUTPORT_RESET)) {
            irq_pulse(&k->reset);
        }
        return;
    }
    switch (byte) {
    case CMD_MOUSE_OFF:
        k->ram[0] |= CB_MOUSE_OFF;
        break;
    case CMD_MOUSE_ON:
        k->ram[0] &= (uint8_t)~CB_MOUSE_OFF;
        break;
    case CMD_KEYBOARD_OFF:
        k->ram[0] |= CB_KEYBOARD_OFF;
        break;
    case CMD_KEYBOARD_ON:
        k->ram[0] &= (uint8_t)~CB_KEYBOARD_OFF;
        break;
    case CMD_SELF_TEST:
        k->ram[0] |= CB_SYSTEM;
        reply(k, KBC_SELF, SELF_TEST_PASSED);
        break;
    case CMD_TEST_PASSWORD:
        reply(k, KBC_SELF, NO_PASSWORD);
        break;
    case CMD_TEST_MOUSE:
    case CMD_TEST_KEYBOARD:
    case CMD_READ_TEST:
        reply(k, KBC_SELF, 0);
        break;
    case CMD_READ_INPORT:
        reply(k, KBC_SELF, INPORT_NOT_LOCKED);
        break;
    case CMD_READ_OUTPORT:
        reply(k, KBC_SELF, read_outport(k));
        break;
    case CMD_A20_OFF:
    case CMD_A20_ON:
        write_outport(k, byte == CMD_A20_ON ? OUTPORT_RESET | OUTPORT_A20 : OUTPORT_RESET);
        break;
    case CMD_WRITE_OUTPORT:
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_OUTPUT_AUX:
    case CMD_WRITE_MOUSE:
        k->pending = byte;
        break;
    default:
        log_guest(k->dev.name, "unknown command %#x", byte);
        break;
    }
    refill(k);
}

static void data(struct i8042 *k, uint8_t byte)
{
    uint8_t pending = k->pending;
    k->pending = 0;
    switch (pending) {
    case 0:
        k->ram[0] &= (uint8_t)~CB_KEYBOARD_OFF; /* talking to it enables it */
        ps2_keyboard_write(&k->keyboard, byte);
        break;
    case CMD_WRITE_OUTPORT:
        write_outport(k, byte);
        break;
    case CMD_WRITE_OUTPUT:
        reply(k, KBC_SELF, byte);
        break;
    case CMD_WRITE_OUTPUT_AUX:
        reply(k, KBC_SELF_AUX, byte);
        break;
    case CMD_WRITE_MOUSE:
        k->ram[0] &= (uint8_t)~CB_MOUSE_OFF;
        ps2_mouse_write(&k->mouse, byte);
        break;
    default:
        k->ram[pending & 0x1f] = byte;
        break;
    }
    refill(k);
}

/* -- Ports ------------------------------------------------------------------------------------- */
static uint64_t data_read(void *dev, uint64_t offset, unsigned size)
{
    struct i8042 *k = dev;
    uint8_t byte = k->output;
    (void)offset;
    (void)size;
    drop_output(k);
    refill(k);
    return byte;
}

static void data_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = dev;
    (void)offset;
    (void)size;
    k->command_last = false;
    data(k, (uint8_t)value);
}

static uint64_t status_read(void *dev, uint64_t offset, unsigned size)
{
    const struct i8042 *k = dev;
    uint8_t status = STATUS_NOT_LOCKED;
    (void)offset;
    (void)size;
    status |= k->source != KBC_NONE ? STATUS_OUTPUT : 0;
    status |= from_mouse(k) ? STATUS_MOUSE : 0;
    status |= k->ram[0] & CB_SYSTEM ? STATUS_SYSTEM : 0;
    status |= k->command_last ? STATUS_COMMAND : 0;
    return status;
}

static void command_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = dev;
    (void)offset;
    (void)size;
    k->command_last = true;
    command(k, (uint8_t)value);
}

static const struct region_ops data_ops = {
    .read = data_read,
    .write = data_write,
    .sizes = ACCESS_1,
};

static const struct region_ops command_ops = {
    .read = status_read,
    .write = command_write,
    .sizes = ACCESS_1,
};

/* -- From the screen --------------------------------------------------------------------------- */
void i8042_key(struct i8042 *k, unsigned key, bool down)
{
    ps2_keyboard_key(&k->keyboard, key, down);
    refill(k);
}

bool i8042_key_room(const struct i8042 *k) { return ps2_keyboard_room(&k->keyboard); }

bool i8042_caps_lock(const struct i8042 *k) { return k->keyboard.leds & PS2_LED_CAPS; }

void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons)
{
    ps2_mouse_move(&k->mouse, dx, dy, dz, buttons);
    refill(k);
}

/* -- Life -------------------------------------------------------------------------------------- */
static const struct state_field i8042_state[] = {
    STATE_BYTES(struct i8042, ram),
    STATE(struct i8042, outport),
    STATE(struct i8042, output),
    STATE(struct i8042, source),
    STATE(struct i8042, pending),
    STATE(struct i8042, command_last),
    STATE(struct i8042, breaking),
    STATE_STRUCT(struct i8042, keyboard, ps2_keyboard_state),
    STATE_STRUCT(struct i8042, mouse, ps2_mouse_state),
    STATE_END,
};

static void i8042_reset(void *dev)
{
    struct i8042 *k = dev;
    memset(k->ram, 0, sizeof k->ram);
    k->ram[0] = CB_RESET;
    k->outport = OUTPORT_RESET | OUTPORT_A20;
    k->output = 0;
    k->source = KBC_NONE;
    k->pending = 0;
    k->command_last = false;
    k->breaking = false;
    ps2_keyboard_reset(&k->keyboard);
    ps2_mouse_reset(&k->mouse);
    irq_set(&k->a20, 1);
    update(k);
}

static int i8042_post_load(void *dev, struct err *e)
{
    struct i8042 *k = dev;
    if (k->source >= KBC_SOURCES) {
        return err_set(e, -EINVAL, "impossible source of the output buffer");
    }
    int r = ps2_keyboard_check(&k->keyboard, e);
    if (r == 0) {
        r = ps2_mouse_check(&k->mouse, e);
    }
    if (r < 0) {
        return r;
    }
    irq_set(&k->a20, (k->outport & OUTPORT_A20) != 0);
    update(k);
    return 0;
}

static const struct dev_class i8042_class = {
    .name = "i8042",
    .version = 2,
    .state = i8042_state,
    .size = sizeof(struct i8042),
    .reset = i8042_reset,
    .post_load = i8042_post_load,
};

void i8042_init(struct i8042 *k, struct bus *b, const struct irq *irq_keyboard,
                const struct irq *irq_mouse, const struct irq *a20, const struct irq *reset)
{
    *k = (struct i8042){
        .irq_keyboard = *irq_keyboard, .irq_mouse = *irq_mouse, .a20 = *a20, .reset = *reset
    };
    dev_register(b, &k->dev, &i8042_class, "i8042");
    bus_add_port(b, 0x60, 1, &data_ops, k);
    bus_add_port(b, 0x64, 1, &command_ops, k);
    i8042_reset(k);
}

void i8042_fini(struct i8042 *k) { dev_unregister(&k->dev); }
