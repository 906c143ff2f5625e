/* SPDX-License-Identifier: Apache-2.0 -- the options that describe disks and network cards */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"

/* The next of "a,b=c,d"; *value is NULL for a word without '='. A comma that belongs to a file's
 * name is written twice. NULL at the end. */
static char *next_word(char **text, char **value)
{
    char *word = *text;
    if (word == NULL) {
        return NULL;
    }
    char *to = word;
    char *from = word;
    while (*from != '\0' && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *text = *from != '\0' ? from + 1 : NULL;
    *to = '\0';
    *value = strchr(word, '=');
    if (*value != NULL) {
        *(*value)++ = '\0';
    }
    return word;
}

static int flag(const char *option, const char *word, const char *value, bool *to, struct err *e)
{
    if (value == NULL || strcmp(value, "on") == 0) {
        *to = true;
    } else if (strcmp(value, "off") == 0) {
        *to = false;
    } else {
        return err_set(e, -EINVAL, "%s: %s=%s is neither on nor off", option, word, value);
    }
    return 0;
}

static int unknown(const char *option, const char *word, const char *value, struct err *e)
{
    return value != NULL ? err_set(e, -EINVAL, "%s: '%s=%s' is not known", option, word, value)
                         : err_set(e, -EINVAL, "%s: '%s' is not known", option, word);
}

static int number(const char *text, unsigned long max, unsigned long *out)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > max) {
        return -EINVAL;
    }
    *out = n;
    return 0;
}

/* -- Disks ------------------------------------------------------------------------------------- */
static int disk_bus(struct sosia_disk *d, const char *text, struct err *e)
{
    static const char *const names[] = {
        [SOSIA_DISK_VIRTIO] = "virtio", [SOSIA_DISK_SCSI] = "scsi", [SOSIA_DISK_IDE] = "ide",
        [SOSIA_DISK_AHCI] = "ahci",     [SOSIA_DISK_NVME] = "nvme",
    };
    for (unsigned i = SOSIA_DISK_VIRTIO; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            d->bus = (enum sosia_disk_bus)i;
            return 0;
        }
    }
    return err_set(e, -EINVAL, "--disk: bus '%s' is not virtio, scsi, ide, ahci or nvme", text);
}

static int disk_word(struct sosia_disk *d, const char *option, const char *word, char *value,
                     struct err *e)
{
    if (strcmp(word, "readonly") == 0) {
        return flag(option, word, value, &d->readonly, e);
    }
    if (strcmp(word, "ephemeral") == 0) {
        return flag(option, word, value, &d->ephemeral, e);
    }
    if (strcmp(word, "packed") == 0) {
        return flag(option, word, value, &d->packed, e);
    }
    if (value == NULL) {
        return unknown(option, word, value, e);
    }
    if (strcmp(word, "format") == 0) {
        d->format = value;
        return 0;
    }
    if (strcmp(word, "serial") == 0) {
        d->serial = value;
        return 0;
    }
    bool choice = strcmp(word, "bus") == 0 && d->bus != SOSIA_DISK_FLOPPY;
    return choice ? disk_bus(d, value, e) : unknown(option, word, value, e);
}

int options_disk(struct run_options *o, char *text, enum options_drive kind, struct err *e)
{
    static const char *const names[] = { "--disk", "--cdrom", "--floppy" };
    const char *option = names[kind];
    if (o->config.disk_count == SOSIA_DISKS_MAX) {
        return err_set(e, -EINVAL, "%s: there can be %d disks", option, SOSIA_DISKS_MAX);
    }
    struct sosia_disk *d = &o->disk[o->config.disk_count];
    char *value;
    char *word = next_word(&text, &value);
    if (value != NULL) {
        value[-1] = '='; /* of a file's name */
    }
    if (*word == '\0') {
        return err_set(e, -EINVAL, "%s: no file", option);
    }
    *d = (struct sosia_disk){
        .path = word,
        .bus = kind == OPTIONS_FLOPPY ? SOSIA_DISK_FLOPPY : SOSIA_DISK_ANY,
        .cdrom = kind == OPTIONS_CDROM,
        .readonly = kind == OPTIONS_CDROM,
    };
    while ((word = next_word(&text, &value)) != NULL) {
        int r = disk_word(d, option, word, value, e);
        if (r < 0) {
            return r;
        }
    }
    o->config.disk_count++;
    return 0;
}

/* -- Network ----------------------------------------------------------------------------------- */
/* tcp:[ADDRESS:]HOSTPORT:GUESTPORT */
static int parse_forward(struct sosia_forward *f, char *text)
{
    char *part[4];
    unsigned count = 0;
    for (char *at = text; at != NULL && count < 4; count++) {
        part[count] = at;
        at = strchr(at, ':');
        if (at != NULL) {
            *at++ = '\0';
            if (count == 3) {
                return -EINVAL;
            }
        }
    }
    struct in_addr addr;
    unsigned long host, guest;
    if (count < 3 || (strcmp(part[0], "tcp") != 0 && strcmp(part[0], "udp") != 0) ||
        inet_pton(AF_INET, count == 4 && part[1][0] != '\0' ? part[1] : "127.0.0.1", &addr) != 1 ||
        number(part[count - 2], 65535, &host) < 0 || number(part[count - 1], 65535, &guest) < 0 ||
        host == 0 || guest == 0) {
        return -EINVAL;
    }
    *f = (struct sosia_forward){ .udp = part[0][0] == 'u',
                                 .host_addr = ntohl(addr.s_addr),
                                 .host_port = (uint16_t)host,
                                 .guest_port = (uint16_t)guest };
    return 0;
}

static int net_forward(struct run_options *o, struct sosia_net *n, char *text, struct err *e)
{
    if (o->forward_count == OPTIONS_FORWARDS_MAX) {
        return err_set(e, -EINVAL, "--net: there can be %d forwarded ports", OPTIONS_FORWARDS_MAX);
    }
    struct sosia_forward *f = &o->forward[o->forward_count];
    int r = parse_forward(f, text);
    if (r < 0) {
        return err_set(e, r, "--net: fwd= is tcp:[ADDRESS:]HOSTPORT:GUESTPORT, or udp:...");
    }
    if (n->forward_count == 0) {
        n->forwards = f;
    }
    n->forward_count++;
    o->forward_count++;
    return 0;
}

static int net_mac(struct sosia_net *n, const char *text, struct err *e)
{
    for (unsigned i = 0; i < 6; i++) {
        char *end;
        unsigned long byte = strtoul(text, &end, 16);
        if (end != text + 2 || byte > 255 || *end != (i < 5 ? ':' : '\0')) {
            return err_set(e, -EINVAL, "--net: mac= is six bytes such as 52:54:00:12:34:56");
        }
        n->mac[i] = (uint8_t)byte;
        text = end + 1;
    }
    if (n->mac[0] & 1) {
        return err_set(e, -EINVAL, "--net: mac= is an address of many");
    }
    n->has_mac = true;
    return 0;
}

static int net_word(struct run_options *o, struct sosia_net *n, const char *word, char *value,
                    struct err *e)
{
    unsigned long count;
    if (strcmp(word, "restrict") == 0) {
        return flag("--net", word, value, &n->restricted, e);
    }
    if (strcmp(word, "packed") == 0) {
        return flag("--net", word, value, &n->packed, e);
    }
    if (value == NULL) {
        return unknown("--net", word, value, e);
    }
    if (strcmp(word, "fwd") == 0) {
        return net_forward(o, n, value, e);
    }
    if (strcmp(word, "mac") == 0) {
        return net_mac(n, value, e);
    }
    if (strcmp(word, "hostname") == 0) {
        n->hostname = value;
        return 0;
    }
    if (strcmp(word, "queues") == 0) {
        if (number(value, 16, &count) < 0 || count == 0) {
            return err_set(e, -EINVAL, "--net: queues=%s is not 1 to 16", value);
        }
        n->queues = (unsigned)count;
        return 0;
    }
    if (strcmp(word, "model") == 0 && strcmp(value, "virtio") == 0) {
        n->model = SOSIA_NET_VIRTIO;
        return 0;
    }
    if (strcmp(word, "model") == 0 && strcmp(value, "e1000") == 0) {
        n->model = SOSIA_NET_E1000;
        return 0;
    }
    return unknown("--net", word, value, e);
}

static int net_kind(struct sosia_net *n, const char *word, char *value, struct err *e)
{
    if (strcmp(word, "user") == 0 && value == NULL) {
        n->kind = SOSIA_NET_USER;
    } else if (strcmp(word, "tap") == 0) {
        n->kind = SOSIA_NET_TAP;
    } else if (strcmp(word, "passt") == 0) {
        n->kind = SOSIA_NET_PASST;
    } else {
        return err_set(e, -EINVAL, "--net: '%s' is not user, tap=IF, passt or none", word);
    }
    n->interface = value;
    return 0;
}

/* PATH[,cid=N] */
int options_vsock(struct run_options *o, char *text, struct err *e)
{
    char *value;
    char *word = next_word(&text, &value);
    unsigned long cid = 3;
    if (*word == '\0') {
        return err_set(e, -EINVAL, "--vsock: no path");
    }
    o->config.vsock = word;
    while ((word = next_word(&text, &value)) != NULL) {
        if (strcmp(word, "cid") != 0 || value == NULL || number(value, UINT32_MAX - 1, &cid) < 0 ||
            cid < 3) {
            return err_set(e, -EINVAL, "--vsock: cid= is a number from 3 up");
        }
    }
    o->config.vsock_cid = (uint32_t)cid;
    return 0;
}

int options_net(struct run_options *o, char *text, struct err *e)
{
    if (strcmp(text, "none") == 0) {
        return 0;
    }
    if (o->config.net_count == SOSIA_NETS_MAX) {
        return err_set(e, -EINVAL, "--net: there can be %d network cards", SOSIA_NETS_MAX);
    }
    struct sosia_net *n = &o->net[o->config.net_count];
    *n = (struct sosia_net){ .kind = SOSIA_NET_USER };
    char *value;
    char *word = next_word(&text, &value);
    int r = net_kind(n, word, value, e);
    while (r == 0 && (word = next_word(&text, &value)) != NULL) {
        r = net_word(o, n, word, value, e);
    }
    if (r == 0 && n->kind == SOSIA_NET_TAP && n->forward_count != 0) {
        r = err_set(e, -EINVAL, "--net: fwd= is for user and passt");
    }
    o->config.net_count += r == 0;
    return r;
}
