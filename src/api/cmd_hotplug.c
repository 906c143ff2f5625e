/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks, networks and their cards that come and go.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/command.h"
#include "base/bits.h"
#include "machine/hotplug.h"
#include "machine/machine.h"

#define FORWARDS_MAX 64u

/* -- Disks ------------------------------------------------------------------------------------- */
/* The file below a format: { "driver": "file", "filename": F } inside of "file", or flat. */
static const char *file_of(const json_t *args)
{
    const json_t *file = json_object_get(args, "file");
    return json_string_value(json_object_get(json_is_object(file) ? file : args, "filename"));
}

/* What these names ask of the host is done always, or never (docs/api.md). */
static const char *const passed_over[] = { "cache", "aio", "discard", "detect-zeroes",
                                           "auto-read-only" };

static int blockdev_add(struct api_call *c)
{
    static const char *const files[] = { "file", "host_device" };
    const char *driver = api_string(c, "driver");
    struct disk_config d = { .path = file_of(c->args),
                             .format = driver,
                             .readonly = api_flag(c, "read-only", false),
                             .ephemeral = api_flag(c, "x-sosia-ephemeral", false) };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        if (strcmp(driver, files[i]) == 0) {
            d.format = "raw";
        }
    }
    const char *key;
    json_t *value;
    json_object_foreach (c->args, key, value) {
        static const char *const known[] = { "driver", "node-name", "file", "filename", "read-only",
                                             "x-sosia-ephemeral" };
        bool good = false;
        for (size_t i = 0; i < ARRAY_LEN(known); i++) {
            good |= strcmp(key, known[i]) == 0;
        }
        for (size_t i = 0; i < ARRAY_LEN(passed_over); i++) {
            good |= strcmp(key, passed_over[i]) == 0;
        }
        if (!good) {
            return err_set(&c->e, -EINVAL, "Parameter '%s' is unexpected", key);
        }
    }
    if (d.path == NULL) {
        return err_set(&c->e, -EINVAL, "Parameter 'file.filename' is missing");
    }
    return machine_add_disk(c->machine, api_string(c, "node-name"), &d, &c->e);
}

static int blockdev_del(struct api_call *c)
{
    return machine_remove_disk(c->machine, api_string(c, "node-name"), &c->e);
}

/* -- Networks ---------------------------------------------------------------------------------- */
/* "tcp:[ADDRESS]:HOSTPORT-[ADDRESS]:GUESTPORT": the guest has one address here. */
static int parse_hostfwd(struct net_forward *f, const char *text)
{
    char proto[4] = "", host[16] = "", guest[16] = "";
    unsigned host_port, guest_port;
    struct in_addr addr = { htonl(INADDR_ANY) };
    int end = 0;
    size_t colon = strcspn(text, ":");
    if (colon != 3 || text[3] != ':') {
        return -EINVAL;
    }
    memcpy(proto, text, 3);
    text += 4;
    colon = strcspn(text, ":");
    if (colon >= sizeof host || text[colon] != ':') {
        return -EINVAL;
    }
    memcpy(host, text, colon);
    text += colon + 1;
    if (sscanf(text, "%5u-%15[0-9.]:%5u%n", &host_port, guest, &guest_port, &end) != 3 &&
        sscanf(text, "%5u-:%5u%n", &host_port, &guest_port, &end) != 2) {
        return -EINVAL;
    }
    bool udp = strcmp(proto, "udp") == 0;
    if (text[end] != '\0' || (!udp && strcmp(proto, "tcp") != 0) || host_port - 1 > 65534 ||
        guest_port - 1 > 65534 || (host[0] != '\0' && inet_pton(AF_INET, host, &addr) != 1)) {
        return -EINVAL;
    }
    *f = (struct net_forward){ .udp = udp,
                               .host_addr = ntohl(addr.s_addr),
                               .host_port = (uint16_t)host_port,
                               .guest_port = (uint16_t)guest_port };
    return 0;
}

static int parse_forwards(struct api_call *c, struct net_forward out[FORWARDS_MAX], unsigned *count)
{
    const json_t *list = json_object_get(c->args, "hostfwd");
    if (json_array_size(list) > FORWARDS_MAX) {
        return err_set(&c->e, -E2BIG, "there can be %u forwarded ports", FORWARDS_MAX);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(list, i), "str"));
        if (text == NULL || parse_hostfwd(&out[i], text) < 0) {
            return err_set(&c->e, -EINVAL, "hostfwd: each is {\"str\": "
                                           "\"tcp:ADDRESS:HOSTPORT-ADDRESS:GUESTPORT\"}");
        }
    }
    *count = (unsigned)json_array_size(list);
    return 0;
}

static int netdev_add(struct api_call *c)
{
    static const char *const kinds[] = {
        [NIC_USER] = "user", [NIC_TAP] = "tap", [NIC_PASST] = "x-sosia-passt"
    };
    const char *type = api_string(c, "type");
    struct net_forward forward[FORWARDS_MAX];
    struct nic_config n = { .interface = api_string(c, "ifname"),
                            .hostname = api_string(c, "hostname"),
                            .restricted = api_flag(c, "restrict", false),
                            .forward = forward };
    unsigned kind = 0;
    while (kind < ARRAY_LEN(kinds) && strcmp(kinds[kind], type) != 0) {
        kind++;
    }
    if (kind == ARRAY_LEN(kinds)) {
        return err_set(&c->e, -EINVAL, "Parameter 'type' does not accept value '%s'", type);
    }
    n.backend = (enum nic_backend)kind;
    if (n.backend == NIC_PASST) {
        n.interface = api_string(c, "path");
    }
    int r = parse_forwards(c, forward, &n.forward_count);
    return r == 0 ? machine_add_netdev(c->machine, api_string(c, "id"), &n, &c->e) : r;
}

static int netdev_del(struct api_call *c)
{
    int r = machine_remove_netdev(c->machine, api_string(c, "id"), &c->e);
    c->class = r == -ENOENT ? API_DEVICE_NOT_FOUND : NULL;
    return r;
}

/* -- Cards ------------------------------------------------------------------------------------- */
static int parse_mac(uint8_t mac[NET_MAC_BYTES], const char *text)
{
    int end = 0;
    int n = sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
                   &mac[3], &mac[4], &mac[5], &end);
    return n == 6 && text[end] == '\0' && !(mac[0] & 1) ? 0 : -EINVAL;
}

/* "0x5" or "5.0", or a number. */
static int parse_slot(const json_t *addr, unsigned *slot)
{
    if (json_is_integer(addr)) {
        *slot = (unsigned)json_integer_value(addr);
        return *slot != 0 ? 0 : -EINVAL;
    }
    const char *text = json_string_value(addr);
    char *end;
    if (text == NULL) {
        return -EINVAL;
    }
    *slot = (unsigned)strtoul(text, &end, 16);
    return *slot != 0 && end != text && (*end == '\0' || strcmp(end, ".0") == 0) ? 0 : -EINVAL;
}

static int card_kind(const char *driver)
{
    static const struct {
        const char *driver;
        enum card_kind kind;
    } drivers[] = {
        { "virtio-blk-pci", CARD_VIRTIO_BLK },
        { "virtio-blk", CARD_VIRTIO_BLK },
        { "nvme", CARD_NVME },
        { "virtio-net-pci", CARD_VIRTIO_NET },
        { "virtio-net", CARD_VIRTIO_NET },
        { "e1000", CARD_E1000 },
    };
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        if (strcmp(driver, drivers[i].driver) == 0) {
            return (int)drivers[i].kind;
        }
    }
    return -EINVAL;
}

static int device_add(struct api_call *c)
{
    const char *driver = api_string(c, "driver");
    const char *mac = api_string(c, "mac");
    const json_t *addr = json_object_get(c->args, "addr");
    int kind = card_kind(driver);
    if (kind < 0) {
        return err_set(&c->e, -EINVAL, "'%s' is not a valid device model name", driver);
    }
    const char *property = cards_is_disk((enum card_kind)kind) ? "drive" : "netdev";
    const char *backend = api_string(c, property);
    struct card_config k = { .kind = (enum card_kind)kind,
                             .id = api_string(c, "id"),
                             .packed = api_flag(c, "packed", false) };
    if (backend == NULL) {
        return err_set(&c->e, -EINVAL, "Device '%s' needs the property '%s'", driver, property);
    }
    if (addr != NULL && parse_slot(addr, &k.slot) < 0) {
        return err_set(&c->e, -EINVAL, "Property 'addr' is a slot: \"0x5\" or \"5.0\"");
    }
    k.has_mac = mac != NULL;
    if (mac != NULL && parse_mac(k.mac, mac) < 0) {
        return err_set(&c->e, -EINVAL, "Property 'mac' doesn't take value '%s'", mac);
    }
    return machine_plug(c->machine, &k, backend, &c->e);
}

static int device_del(struct api_call *c)
{
    int r = machine_unplug(c->machine, api_string(c, "id"), &c->e);
    c->class = r == -ENOENT ? API_DEVICE_NOT_FOUND : NULL;
    return r;
}

const struct api_command api_hotplug_commands[] = {
    { "blockdev-add", blockdev_add, "driver:str node-name:str ?read-only:bool "
                                    "?x-sosia-ephemeral:bool ..." },
    { "blockdev-del", blockdev_del, "node-name:str" },
    { "device_add", device_add, "driver:str id:str ?bus:str ?addr:any ?drive:str ?netdev:str "
                                "?mac:str ?packed:bool" },
    { "device_del", device_del, "id:str" },
    { "netdev_add", netdev_add, "type:str id:str ?ifname:str ?path:str ?hostname:str "
                                "?restrict:bool ?hostfwd:arr" },
    { "netdev_del", netdev_del, "id:str" },
    { NULL, NULL, NULL },
};
