/* SPDX-License-Identifier: Apache-2.0
 *
 * What a machine is made of.
 */
#ifndef SOSIA_MACHINE_CONFIG_H
#define SOSIA_MACHINE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/net.h"

#define MACHINE_SERIAL_PORTS 4u
#define MACHINE_CONSOLES_MAX 4u
#define MACHINE_MAX_CPUS 255u
#define MACHINE_MIN_MEMORY (1ull << 20)

enum serial_kind {
    SERIAL_ABSENT,
    SERIAL_NONE,
    SERIAL_CALLBACK,
    SERIAL_FILE,
    SERIAL_UNIX,
    SERIAL_PTY,
};

struct serial_config {
    enum serial_kind kind;
    const char *path;
    const char *name; /* of a console port; or NULL */
};

#define MACHINE_DISKS_MAX 16u
#define MACHINE_NAME_BYTES 64u /* of disks, networks and cards, with the NUL */
#define MACHINE_NICS_MAX 8u

enum disk_bus { DISK_ANY, DISK_VIRTIO, DISK_SCSI, DISK_IDE, DISK_AHCI, DISK_NVME, DISK_FLOPPY };

struct disk_config {
    const char *path;
    const char *format; /* NULL: by content */
    const char *serial; /* NULL: one is made up */
    enum disk_bus bus;
    bool readonly;
    bool ephemeral;
    bool cdrom;
    bool packed; /* virtio */
    bool foreign; /* another process writes it: only to be looked at, without its lock */
};

enum nic_backend { NIC_USER, NIC_TAP, NIC_PASST };
enum nic_model { NIC_VIRTIO, NIC_E1000 };

struct nic_config {
    enum nic_backend backend;
    enum nic_model model;
    const char *interface; /* TAP: its name; PASST: its socket; or NULL */
    const char *hostname;  /* USER: what DHCP tells the guest; or NULL */
    bool restricted;       /* USER: DHCP, DNS and forwards only */
    const struct net_forward *forward;
    unsigned forward_count;
    bool has_mac;
    uint8_t mac[NET_MAC_BYTES];
    unsigned queues; /* pairs, virtio; 0: 1 */
    bool packed;
};

enum display_kind { DISPLAY_NONE, DISPLAY_VNC };

struct display_config {
    enum display_kind kind;
    const char *address;       /* VNC: numeric; NULL: 127.0.0.1 */
    uint16_t port;             /* VNC; 0: any that is free */
    const char *password_file; /* VNC; NULL: none, and loopback only */
};

/* Calls out of the machine. Any may be NULL. */
struct machine_callbacks {
    void *ctx;
    void (*serial_output)(void *ctx, unsigned port, const void *data, size_t len);
    void (*serial_room)(void *ctx, unsigned port);
    void (*debug_output)(void *ctx, const void *data, size_t len);
    void (*ended)(void *ctx); /* [any]; the machine is stopped and waits to be freed */
};

/* All pointers are borrowed for machine_new. */
struct machine_config {
    const char *engine;    /* NULL or "auto": the best usable */
    const char *cpu_model; /* NULL: the default */
    unsigned cpus;
    uint64_t memory_bytes;
    const char *kernel;    /* NULL: firmware boots */
    const char *firmware;  /* "bios", "uefi" or a file; NULL: none with a kernel, else bios */
    const char *uefi_vars; /* NULL: lost in the end */
    bool screen; /* a VGA also for a kernel booted directly */
    struct display_config display;
    const char *initrd;
    const char *append;
    struct serial_config serial[MACHINE_SERIAL_PORTS];
    const struct disk_config *disk;
    unsigned disk_count;
    const struct nic_config *nic;
    unsigned nic_count;
    bool rng;
    bool tablet;
    bool balloon;
    uint64_t balloon_bytes; /* what the guest is to keep; 0: all */
    const char *vsock;      /* path of the host's socket; NULL: no such device */
    uint32_t vsock_cid;
    const struct serial_config *console; /* ports of a virtio console */
    unsigned console_count;
    int exit_port; /* -1: none */
    bool no_reboot;
    bool incoming;  /* restoring, and until machine_arrive the VM is another process's (moving.h) */
    bool restoring; /* nothing is booted; the kernel is for resets, and may be gone */
    bool virtual_time;
    uint64_t code_cache_bytes; /* the five below: as in engine_config */
    const char *dump_code;
    uint64_t dump_first, dump_last;
    bool perf_map;
    struct machine_callbacks callbacks;
};

/* Numbers and sizes that no machine can have: one line in e. */
MUST_CHECK int machine_config_check(const struct machine_config *c, struct err *e);

#endif
