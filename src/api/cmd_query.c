/* SPDX-License-Identifier: Apache-2.0
 *
 * What a machine is made of and how it does: processors, memory, PCI, character devices, counters.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "api/command.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "machine/machine.h"
#include "machine/pc.h"

/* -- Processors -------------------------------------------------------------------------------- */
static int query_cpus_fast(struct api_call *c)
{
    const struct machine *m = c->machine;
    c->result = json_array();
    for (unsigned i = 0; i < m->cpu_count; i++) {
        char path[48];
        snprintf(path, sizeof path, "/machine/unattached/device[%u]", i);
        json_array_append_new(
            c->result, json_pack("{s:i, s:s, s:i, s:s, s:{s:i, s:i, s:i}}", "cpu-index", (int)i,
                                 "qom-path", path, "thread-id", (int)m->vcpus[i].tid, "target",
                                 "x86_64", "props", "socket-id", (int)i, "core-id", 0,
                                 "thread-id", 0));
    }
    return 0;
}

static int query_target(struct api_call *c)
{
    c->result = json_pack("{s:s}", "arch", "x86_64");
    return 0;
}

static int query_kvm(struct api_call *c)
{
    bool enabled = strcmp(c->machine->engine_class->name, "kvm") == 0;
    struct engine_probe probe = { 0 };
    kvm_engine.probe(&probe);
    c->result = json_pack("{s:b, s:b}", "enabled", enabled, "present", probe.usable);
    return 0;
}

static int query_uuid(struct api_call *c)
{
    c->result = json_pack("{s:s}", "UUID", "00000000-0000-0000-0000-000000000000");
    return 0;
}

static int query_generation(struct api_call *c)
{
    uint8_t id[VMGENID_BYTES];
    char text[37];
    bus_lock(c->machine->bus);
    memcpy(id, c->machine->pc->vmgenid.guid, sizeof id);
    bus_unlock(c->machine->bus);
    snprintf(text, sizeof text,
             "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", load_le32(id), load_le16(id + 4),
             load_le16(id + 6), id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
    c->result = json_pack("{s:s}", "guid", text);
    return 0;
}

/* -- Memory ------------------------------------------------------------------------------------ */
static int query_memory(struct api_call *c)
{
    c->result = json_pack("{s:I, s:I}", "base-memory",
                          (json_int_t)gmem_ram_size(c->machine->mem), "plugged-memory",
                          (json_int_t)0);
    return 0;
}

static struct virtio_balloon *find_balloon(struct api_call *c)
{
    struct virtio_balloon *balloon = c->machine->pc->cards.balloon;
    if (balloon == NULL) {
        api_refuse(c, -ENODEV, API_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
    }
    return balloon;
}

static int query_balloon(struct api_call *c)
{
    struct virtio_balloon *balloon = find_balloon(c);
    if (balloon == NULL) {
        return -ENODEV;
    }
    bus_lock(c->machine->bus);
    uint64_t actual = virtio_balloon_actual(balloon);
    bus_unlock(c->machine->bus);
    c->result = json_pack("{s:I}", "actual", (json_int_t)actual);
    return 0;
}

static int set_balloon(struct api_call *c)
{
    int64_t value = api_integer(c, "value", 0);
    struct virtio_balloon *balloon = find_balloon(c);
    if (balloon == NULL) {
        return -ENODEV;
    }
    if (value <= 0) {
        return err_set(&c->e, -EINVAL, "Parameter 'value' expects a size");
    }
    bus_lock(c->machine->bus);
    virtio_balloon_set_target(balloon, (uint64_t)value);
    bus_unlock(c->machine->bus);
    return 0;
}

/* -- PCI --------------------------------------------------------------------------------------- */
static json_t *pci_region(const struct pci_func *f, unsigned n)
{
    const struct pci_bar *bar = &f->bar[n];
    bool io = bar->kind == PCI_BAR_IO;
    json_t *j = json_pack("{s:i, s:s, s:I, s:I}", "bar", (int)n, "type", io ? "io" : "memory",
                          "address", (json_int_t)pci_bar_base(f, n), "size", (json_int_t)bar->size);
    if (!io) {
        bool wide = bar->kind == PCI_BAR_MEM64 || bar->kind == PCI_BAR_MEM64_PREF;
        bool prefetch = bar->kind == PCI_BAR_MEM32_PREF || bar->kind == PCI_BAR_MEM64_PREF;
        json_object_set_new(j, "prefetch", json_boolean(prefetch));
        json_object_set_new(j, "mem_type_64", json_boolean(wide));
    }
    return j;
}

static json_t *pci_device(const struct machine *m, const struct pci_func *f)
{
    const struct card *card = f->devfn % 8 == 0 ? m->pc->cards.card[f->devfn / 8] : NULL;
    const uint8_t *config = f->config;
    json_t *regions = json_array();
    for (unsigned n = 0; n < PCI_BAR_COUNT; n++) {
        if (f->bar[n].kind != PCI_BAR_NONE) {
            json_array_append_new(regions, pci_region(f, n));
        }
    }
    json_t *j = json_pack(
        "{s:i, s:i, s:i, s:{s:i, s:s}, s:{s:i, s:i, s:i, s:i}, s:i, s:o, s:o}", "bus", 0, "slot",
        f->devfn / 8, "function", f->devfn % 8, "class_info", "class",
        config[PCI_CLASS + 2] << 8 | config[PCI_CLASS + 1], "desc", f->dev.name, "id", "device",
        config[PCI_DEVICE_ID] | config[PCI_DEVICE_ID + 1] << 8, "vendor",
        config[PCI_VENDOR_ID] | config[PCI_VENDOR_ID + 1] << 8, "subsystem",
        config[PCI_SUBSYSTEM] | config[PCI_SUBSYSTEM + 1] << 8, "subsystem-vendor",
        config[PCI_SUBSYSTEM_VENDOR] | config[PCI_SUBSYSTEM_VENDOR + 1] << 8, "irq_pin",
        config[PCI_INTERRUPT_PIN], "regions", regions, "qdev_id",
        api_json_text(card != NULL ? card->id : ""));
    if (config[PCI_INTERRUPT_PIN] != 0) {
        json_object_set_new(j, "irq", json_integer(config[PCI_INTERRUPT_LINE]));
    }
    return j;
}

static int query_pci(struct api_call *c)
{
    struct machine *m = c->machine;
    json_t *devices = json_array();
    bus_lock(m->bus);
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        const struct pci_func *f = pci_func_at(m->pc->cards.pci, (uint8_t)devfn);
        if (f != NULL) {
            json_array_append_new(devices, pci_device(m, f));
        }
    }
    bus_unlock(m->bus);
    c->result = json_pack("[{s:i, s:o}]", "bus", 0, "devices", devices);
    return 0;
}

/* -- Character devices ------------------------------------------------------------------------- */
static void add_chardev(json_t *list, const char *kind, unsigned n, const struct serial *s)
{
    static const char *const files[] = {
        [SERIAL_NONE] = "null", [SERIAL_CALLBACK] = "stdio", [SERIAL_FILE] = "file",
        [SERIAL_UNIX] = "unix", [SERIAL_PTY] = "pty",
    };
    char label[24];
    if (s->kind == SERIAL_ABSENT) {
        return;
    }
    snprintf(label, sizeof label, "%s%u", kind, n);
    char *file = s->path != NULL ? xasprintf("%s:%s", files[s->kind], s->path)
                                 : xstrdup(files[s->kind]);
    json_array_append_new(list, json_pack("{s:s, s:o, s:b}", "label", label, "filename",
                                          api_json_text(file), "frontend-open", 1));
    free(file);
}

static int query_chardev(struct api_call *c)
{
    const struct pc *p = c->machine->pc;
    c->result = json_array();
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        add_chardev(c->result, "serial", i, &p->serial[i]);
    }
    for (unsigned i = 0; i < p->cards.ports; i++) {
        add_chardev(c->result, "console", i, &p->cards.port[i]);
    }
    return 0;
}

/* -- Our own ----------------------------------------------------------------------------------- */
/* The engine's "name value" lines. */
static int counters(struct api_call *c)
{
    char *save;
    char *text = api_info(c->machine, "engine");
    c->result = json_object();
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, ' ');
        if (value != NULL) {
            *value++ = '\0';
            char *end;
            long long number = strtoll(value, &end, 10);
            json_object_set_new(c->result, line,
                                *end == '\0' ? json_integer(number) : api_json_text(value));
        }
    }
    free(text);
    return 0;
}

const struct api_command api_query_commands[] = {
    { "balloon", set_balloon, "value:int" },
    { "query-balloon", query_balloon, NULL },
    { "query-chardev", query_chardev, NULL },
    { "query-cpus-fast", query_cpus_fast, NULL },
    { "query-kvm", query_kvm, NULL },
    { "query-memory-size-summary", query_memory, NULL },
    { "query-pci", query_pci, NULL },
    { "query-target", query_target, NULL },
    { "query-uuid", query_uuid, NULL },
    { "query-vm-generation-id", query_generation, NULL },
    { "x-sosia-counters", counters, NULL },
    { NULL, NULL, NULL },
};
