/* SPDX-License-Identifier: Apache-2.0
 *
 * include/sosia.h over the machine. A sosia_vm is a machine; what is public is translated here, so
 * that neither side's structs bind the other's.
 */
#include "sosia.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "display/keys.h"
#include "display/vnc.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "machine/vm.h"
#include "machine/vmconfig.h"
#include "machine/vtime.h"

struct sosia_vm {
    struct machine *machine;
};

static void give_error(char *error, const struct err *e)
{
    if (error != NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s", e->msg);
    }
}

struct machine *sosia_vm_machine(struct sosia_vm *vm) { return vm->machine; }

const char *sosia_version(void) { return SOSIA_VERSION_STRING; }

void sosia_config_init(struct sosia_config *config)
{
    *config = (struct sosia_config){
        .size = sizeof *config,
        .cpus = 1,
        .memory_bytes = 512ull << 20,
        .exit_port = SOSIA_EXIT_PORT_NONE,
    };
    config->serial[0].kind = SOSIA_SERIAL_CALLBACK;
    for (unsigned i = 1; i < SOSIA_SERIAL_PORTS; i++) {
        config->serial[i].kind = SOSIA_SERIAL_NONE;
    }
}

/* The two enums have the same order. */
_Static_assert((int)SOSIA_SERIAL_PTY == (int)SERIAL_PTY, "serial kinds");
_Static_assert((int)SOSIA_SERIAL_ABSENT == (int)SERIAL_ABSENT, "serial kinds");
_Static_assert(SOSIA_SERIAL_PORTS == MACHINE_SERIAL_PORTS, "serial ports");

_Static_assert((int)SOSIA_DISPLAY_VNC == (int)DISPLAY_VNC, "displays");
_Static_assert((int)SOSIA_DISK_FLOPPY == (int)DISK_FLOPPY, "disk buses");
_Static_assert((int)SOSIA_NET_PASST == (int)NIC_PASST, "network backends");
_Static_assert((int)SOSIA_NET_E1000 == (int)NIC_E1000, "network cards");
_Static_assert(SOSIA_DISKS_MAX == MACHINE_DISKS_MAX && SOSIA_NETS_MAX == MACHINE_NICS_MAX, "cards");

/* What machine_config points to. */
struct cards_config {
    struct disk_config disk[MACHINE_DISKS_MAX];
    struct nic_config nic[MACHINE_NICS_MAX];
    struct net_forward *forward[MACHINE_NICS_MAX]; /* owned */
    struct serial_config console[MACHINE_CONSOLES_MAX];
};

static void translate_disk(struct disk_config *to, const struct sosia_disk *from)
{
    *to = (struct disk_config){ .path = from->path,
                                .format = from->format,
                                .serial = from->serial,
                                .bus = (enum disk_bus)from->bus,
                                .readonly = from->readonly,
                                .ephemeral = from->ephemeral,
                                .cdrom = from->cdrom,
                                .packed = from->packed };
}

static void translate_net(struct nic_config *to, struct net_forward **forward,
                          const struct sosia_net *from)
{
    *to = (struct nic_config){ .backend = (enum nic_backend)from->kind,
                               .model = (enum nic_model)from->model,
                               .interface = from->interface,
                               .hostname = from->hostname,
                               .restricted = from->restricted,
                               .forward_count = from->forward_count,
                               .has_mac = from->has_mac,
                               .queues = from->queues,
                               .packed = from->packed };
    memcpy(to->mac, from->mac, sizeof to->mac);
    *forward = xcalloc(from->forward_count + 1, sizeof **forward);
    for (unsigned i = 0; i < from->forward_count; i++) {
        const struct sosia_forward *f = &from->forwards[i];
        (*forward)[i] = (struct net_forward){ f->udp, f->host_addr, f->host_port, f->guest_port };
    }
    to->forward = *forward;
}

static void translate_cards(struct machine_config *c, struct cards_config *k,
                            const struct sosia_config *from)
{
    c->console = k->console;
    c->console_count = from->console_count;
    for (unsigned i = 0; i < from->console_count && i < MACHINE_CONSOLES_MAX; i++) {
        const struct sosia_serial *s = &from->consoles[i];
        k->console[i] = (struct serial_config){ (enum serial_kind)s->kind, s->path, s->name };
    }
    c->disk = k->disk;
    c->disk_count = from->disk_count; /* too many are found out by machine_config_check */
    c->nic = k->nic;
    c->nic_count = from->net_count;
    for (unsigned i = 0; i < from->disk_count && i < MACHINE_DISKS_MAX; i++) {
        translate_disk(&k->disk[i], &from->disks[i]);
    }
    for (unsigned i = 0; i < from->net_count && i < MACHINE_NICS_MAX; i++) {
        translate_net(&k->nic[i], &k->forward[i], &from->nets[i]);
    }
}

int sosia_vm_new(struct sosia_vm **out, const struct sosia_config *config, char *error)
{
    struct err e = {0};
    if (config->size != sizeof *config) {
        int r = err_set(&e, -EINVAL, "the configuration is of another version of the library");
        give_error(error, &e);
        return r;
    }
    struct machine_config c = {
        .engine = config->engine,
        .cpu_model = config->cpu_model,
        .cpus = config->cpus,
        .memory_bytes = config->memory_bytes,
        .kernel = config->kernel,
        .firmware = config->firmware,
        .uefi_vars = config->uefi_vars,
        .screen = config->screen,
        .display = {.kind = (enum display_kind)config->display.kind,
                    .address = config->display.address,
                    .port = config->display.port,
                    .password_file = config->display.password_file},
        .initrd = config->initrd,
        .append = config->append,
        .rng = config->rng,
        .tablet = config->tablet,
        .balloon = config->balloon,
        .balloon_bytes = config->balloon_bytes,
        .vsock = config->vsock,
        .vsock_cid = config->vsock_cid,
        .exit_port = config->exit_port,
        .no_reboot = config->no_reboot,
        .restoring = config->restoring,
        .incoming = config->incoming,
        .virtual_time = config->virtual_time,
        .code_cache_bytes = config->code_cache_bytes,
        .dump_code = config->dump_code,
        .dump_first = config->dump_first,
        .dump_last = config->dump_last,
        .perf_map = config->perf_map,
        .callbacks = {.ctx = config->ctx,
                      .serial_output = config->serial_output,
                      .serial_room = config->serial_room,
                      .debug_output = config->debug_output,
                      .ended = config->ended},
    };
    for (unsigned i = 0; i < SOSIA_SERIAL_PORTS; i++) {
        c.serial[i].kind = (enum serial_kind)config->serial[i].kind;
        c.serial[i].path = config->serial[i].path;
    }
    struct cards_config *cards = xzalloc(sizeof *cards);
    translate_cards(&c, cards, config);
    struct sosia_vm *vm = xzalloc(sizeof *vm);
    int r = machine_new(&vm->machine, &c, &e);
    for (unsigned i = 0; i < MACHINE_NICS_MAX; i++) {
        free(cards->forward[i]);
    }
    free(cards);
    if (r == 0) {
        char *text = vmconfig_text(config);
        r = vmconfig_parse(&vm->machine->config, text, strlen(text), &e);
        free(text);
        if (r < 0) {
            machine_free(vm->machine);
        }
    }
    if (r < 0) {
        give_error(error, &e);
        free(vm);
        return r;
    }
    *out = vm;
    return 0;
}

void sosia_vm_free(struct sosia_vm *vm)
{
    if (vm != NULL) {
        machine_free(vm->machine);
        free(vm);
    }
}

int sosia_vm_start(struct sosia_vm *vm)
{
    machine_resume(vm->machine);
    return 0;
}

int sosia_vm_pause(struct sosia_vm *vm)
{
    machine_pause(vm->machine);
    return 0;
}

int sosia_vm_resume(struct sosia_vm *vm) { return sosia_vm_start(vm); }

bool sosia_vm_paused(const struct sosia_vm *vm) { return machine_paused(vm->machine); }

int sosia_vm_run_until(struct sosia_vm *vm, uint64_t instructions, char *error)
{
    struct err e = { 0 };
    int r = machine_run_until(vm->machine, instructions, &e);
    if (r < 0) {
        give_error(error, &e);
    }
    return r;
}

int sosia_vm_reset(struct sosia_vm *vm)
{
    machine_request_reset(vm->machine);
    return 0;
}

int sosia_vm_power_button(struct sosia_vm *vm)
{
    return machine_press_power(vm->machine) ? 0 : -ENOTSUP;
}

int sosia_vm_stop(struct sosia_vm *vm)
{
    machine_request_end(vm->machine, MACHINE_STOPPED, 0, "stopped");
    return 0;
}

static void give_end(struct sosia_end *out, const struct machine_end *end)
{
    static const enum sosia_reason reason[] = {
        [MACHINE_RUNS] = SOSIA_END_FAILURE,        [MACHINE_POWER_OFF] = SOSIA_END_POWER_OFF,
        [MACHINE_STOPPED] = SOSIA_END_STOPPED,     [MACHINE_EXIT_PORT] = SOSIA_END_EXIT_PORT,
        [MACHINE_RESET] = SOSIA_END_RESET,         [MACHINE_SHUTDOWN] = SOSIA_END_SHUTDOWN,
        [MACHINE_FAILED] = SOSIA_END_FAILURE,
    };
    if (out != NULL) {
        out->reason = reason[end->reason];
        out->status = end->status;
        snprintf(out->text, sizeof out->text, "%s", end->text);
    }
}

int sosia_vm_wait(struct sosia_vm *vm, struct sosia_end *end)
{
    struct machine_end m;
    machine_wait(vm->machine, &m);
    give_end(end, &m);
    return 0;
}

int sosia_vm_end(const struct sosia_vm *vm, struct sosia_end *end)
{
    struct machine_end m;
    int r = machine_get_end(vm->machine, &m);
    if (r == 0) {
        give_end(end, &m);
    }
    return r;
}

/* A serial port, or a console's behind them; NULL: there is none. */
static struct serial *find_port(const struct sosia_vm *vm, unsigned port)
{
    struct pc *p = vm->machine->pc;
    if (port < SOSIA_SERIAL_PORTS) {
        return &p->serial[port];
    }
    return port - SOSIA_SERIAL_PORTS < p->cards.ports ? &p->cards.port[port - SOSIA_SERIAL_PORTS]
                                                      : NULL;
}

size_t sosia_vm_serial_input(struct sosia_vm *vm, unsigned port, const void *data, size_t len)
{
    struct machine *m = vm->machine;
    struct serial *s = find_port(vm, port);
    if (s == NULL || s->kind != SERIAL_CALLBACK) {
        return len; /* nobody is there to read it, ever */
    }
    bus_lock(m->bus);
    size_t taken = serial_input(s, data, len);
    bus_unlock(m->bus);
    return taken;
}

const char *sosia_vm_serial_name(const struct sosia_vm *vm, unsigned port)
{
    const struct serial *s = find_port(vm, port);
    return s != NULL && s->kind == SERIAL_PTY ? s->path : NULL;
}

int sosia_vm_set_balloon(struct sosia_vm *vm, uint64_t bytes)
{
    struct machine *m = vm->machine;
    struct virtio_balloon *balloon = m->pc->cards.balloon;
    if (balloon == NULL) {
        return -ENODEV;
    }
    bus_lock(m->bus);
    virtio_balloon_set_target(balloon, bytes);
    bus_unlock(m->bus);
    return 0;
}

int sosia_vm_balloon(struct sosia_vm *vm, uint64_t *actual)
{
    struct machine *m = vm->machine;
    struct virtio_balloon *balloon = m->pc->cards.balloon;
    if (balloon == NULL) {
        return -ENODEV;
    }
    bus_lock(m->bus);
    if (actual != NULL) {
        *actual = virtio_balloon_actual(balloon);
    }
    bus_unlock(m->bus);
    return 0;
}

long sosia_vm_info(struct sosia_vm *vm, const char *topic, char *text, size_t size)
{
    return machine_info(vm->machine, topic, text, size);
}

const char *sosia_vm_engine(const struct sosia_vm *vm) { return vm->machine->engine_class->name; }

static void count_instructions(struct machine *m, void *ctx)
{
    *(uint64_t *)ctx = machine_instructions(m);
}

uint64_t sosia_vm_instructions(struct sosia_vm *vm)
{
    uint64_t sum = 0;
    machine_look(vm->machine, count_instructions, &sum);
    return sum;
}

int sosia_vm_save(struct sosia_vm *vm, bool ram, void **data, size_t *len, char *error)
{
    struct err e = {0};
    int r = machine_save(vm->machine, ram, data, len, &e);
    if (r < 0) {
        give_error(error, &e);
    }
    return r;
}

int sosia_vm_load(struct sosia_vm *vm, const void *data, size_t len, char *error)
{
    struct err e = {0};
    int r = machine_load(vm->machine, data, len, &e);
    if (r < 0) {
        give_error(error, &e);
    }
    return r;
}

int sosia_engine_info(unsigned n, const char **name, bool *usable, char *text)
{
    const struct engine_class *ec = machine_engine(n);
    if (ec != NULL) {
        *name = ec->name;
        *usable = machine_describe_engine(ec, text, SOSIA_ERROR_BYTES);
        return 0;
    }
    return -ENOENT;
}

void sosia_log_level(int level)
{
    log_set_level(level <= 0 ? LOG_ERR : level == 1 ? LOG_WARN : level == 2 ? LOG_INFO : LOG_DEBUG);
}

int sosia_vm_screenshot(struct sosia_vm *vm, const char *path, char *error)
{
    struct err e = { 0 };
    int r = machine_screendump(vm->machine, path, &e);
    if (r < 0) {
        give_error(error, &e);
    }
    return r;
}

int sosia_vm_key(struct sosia_vm *vm, const char *name, bool down)
{
    int key = key_by_name(name);
    return key >= 0 ? machine_key(vm->machine, (unsigned)key, down) : -EINVAL;
}

void sosia_vm_pointer(struct sosia_vm *vm, int dx, int dy, int dz, unsigned buttons)
{
    machine_pointer(vm->machine, dx, dy, dz, buttons);
}

bool sosia_vm_pointer_at(struct sosia_vm *vm, unsigned x, unsigned y, int dz, unsigned buttons)
{
    return machine_pointer_at(vm->machine, x < SOSIA_POINTER_MAX ? (int)x : SOSIA_POINTER_MAX,
                              y < SOSIA_POINTER_MAX ? (int)y : SOSIA_POINTER_MAX, dz, buttons);
}

const char *sosia_vm_display(const struct sosia_vm *vm)
{
    return vm->machine->vnc != NULL ? vnc_where(vm->machine->vnc) : NULL;
}

bool sosia_display_built(enum sosia_display_kind kind)
{
    return kind == SOSIA_DISPLAY_NONE || (kind == SOSIA_DISPLAY_VNC && vnc_built());
}
