/* SPDX-License-Identifier: Apache-2.0
 *
 * libsosia: an x86 virtual machine monitor as a library.
 *
 * A VM is an opaque handle made from a configuration. It runs on threads of its own; nothing of it
 * is global, and a process may hold as many VMs as it likes.
 *
 *     struct sosia_config config;
 *     sosia_config_init(&config);
 *     config.kernel = "vmlinuz";
 *     config.append = "console=ttyS0";
 *     config.serial_output = print;            // void print(void *, unsigned, const void *,
 * size_t)
 *     struct sosia_vm *vm;
 *     char error[SOSIA_ERROR_BYTES];
 *     if (sosia_vm_new(&vm, &config, error) < 0) { ... one line in error ... }
 *     sosia_vm_start(vm);
 *     struct sosia_end end;
 *     sosia_vm_wait(vm, &end);
 *     sosia_vm_free(vm);
 *
 * Functions return 0 or a negative errno value unless they say otherwise. A handle may be used from
 * any thread, sosia_vm_free apart: that is for one thread, when no other uses the handle any more.
 * Callbacks come from threads of the VM and must not call functions of the same VM, unless they
 * say so.
 */
#ifndef SOSIA_H
#define SOSIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOSIA_VERSION_MAJOR 0
#define SOSIA_VERSION_MINOR 1
#define SOSIA_VERSION_PATCH 0
#define SOSIA_VERSION_STRING "0.1.0"

/* The version of the library that is linked; may differ from the header's. */
const char *sosia_version(void);

#define SOSIA_ERROR_BYTES 512
#define SOSIA_SERIAL_PORTS 4
#define SOSIA_CONSOLES_MAX 4
#define SOSIA_EXIT_PORT_NONE (-1)

struct sosia_vm;

/* Where a serial port of the guest goes. Paths are borrowed for the call of sosia_vm_new. */
enum sosia_serial_kind {
    SOSIA_SERIAL_ABSENT,   /* no such port in the machine */
    SOSIA_SERIAL_NONE,     /* a port with nothing at the other end */
    SOSIA_SERIAL_CALLBACK, /* serial_output and sosia_vm_serial_input */
    SOSIA_SERIAL_FILE,     /* output is written to a new file */
    SOSIA_SERIAL_UNIX,     /* a Unix stream socket is made at the path; one client at a time */
    SOSIA_SERIAL_PTY,      /* a new pseudo-terminal; sosia_vm_serial_name tells which */
};

struct sosia_serial {
    enum sosia_serial_kind kind;
    const char *path; /* FILE, UNIX */
    const char *name; /* of a console port but the first; or NULL */
};

/* A disk or a CD. Strings are borrowed for the call of sosia_vm_new. */
enum sosia_disk_bus {
    SOSIA_DISK_ANY, /* virtio for a kernel that is booted directly, else what firmware knows */
    SOSIA_DISK_VIRTIO,
    SOSIA_DISK_SCSI, /* virtio-scsi */
    SOSIA_DISK_IDE,
    SOSIA_DISK_AHCI,
    SOSIA_DISK_NVME,
    SOSIA_DISK_FLOPPY, /* the first is drive A:, the second B: */
};

struct sosia_disk {
    const char *path;
    const char *format; /* "raw", "qcow2"...; NULL: by content */
    const char *serial; /* what the guest sees as serial number; NULL: one is made up */
    enum sosia_disk_bus bus;
    bool readonly;
    bool ephemeral; /* writes are dropped at the end */
    bool cdrom;
    bool packed; /* virtio: offer packed rings */
};

/* A port of the host that is forwarded to one of the guest. */
struct sosia_forward {
    bool udp;
    uint32_t host_addr; /* IPv4, host byte order: 0x7f000001 is 127.0.0.1, 0 any */
    uint16_t host_port;
    uint16_t guest_port;
};

enum sosia_net_kind {
    SOSIA_NET_USER,  /* NAT inside of this process */
    SOSIA_NET_TAP,   /* an interface of the host */
    SOSIA_NET_PASST, /* passt */
};
enum sosia_net_model { SOSIA_NET_VIRTIO, SOSIA_NET_E1000 };

struct sosia_net {
    enum sosia_net_kind kind;
    enum sosia_net_model model;
    const char *interface; /* TAP: its name, NULL: a new one; PASST: its socket, NULL: start one */
    const char *hostname;  /* USER: told to the guest by DHCP; or NULL */
    bool restricted;       /* USER: nothing but DHCP, DNS and forwards */
    const struct sosia_forward *forwards; /* USER, PASST */
    unsigned forward_count;
    bool has_mac;
    uint8_t mac[6];  /* if has_mac; else one is made up */
    unsigned queues; /* pairs of queues, VIRTIO; 0: one */
    bool packed;     /* VIRTIO: offer packed rings */
};

/* Who else sees the screen, beside sosia_vm_screenshot. */
enum sosia_display_kind { SOSIA_DISPLAY_NONE, SOSIA_DISPLAY_VNC };

struct sosia_display {
    enum sosia_display_kind kind;
    const char *address; /* VNC: a numeric one of this host; NULL: 127.0.0.1 */
    uint16_t port;       /* VNC; 0: any that is free */
    /* VNC: file whose first line is the password; needed for all addresses but loopback. */
    const char *password_file;
};

#define SOSIA_DISKS_MAX 16
#define SOSIA_NETS_MAX 8
/* Why a VM came to its end. */
enum sosia_reason {
    SOSIA_END_POWER_OFF, /* the guest switched the machine off */
    SOSIA_END_STOPPED,   /* sosia_vm_stop */
    SOSIA_END_EXIT_PORT, /* the guest wrote to the exit port */
    SOSIA_END_RESET,     /* the guest reset the machine, and no_reboot is set */
    SOSIA_END_SHUTDOWN,  /* triple fault, and no_reboot is set */
    SOSIA_END_FAILURE,   /* the host failed; see text */
};

struct sosia_end {
    enum sosia_reason reason;
    /* For a process's exit status: 0 powered off or stopped, 1 failure, 2 reset or triple fault,
     * else what the exit port says. */
    int status;
    char text[SOSIA_ERROR_BYTES]; /* one line for people; may be empty */
};

/* Fill with sosia_config_init, then change what differs. All pointers are borrowed for the call of
 * sosia_vm_new, callbacks and their ctx until sosia_vm_free returns. */
struct sosia_config {
    size_t size;           /* of this struct: set by sosia_config_init */
    const char *engine;    /* "auto", "interp", "bt", "kvm"; NULL: auto */
    const char *cpu_model; /* "x86-64-v3", "host,-avx2"; NULL: the largest of v1..v3 there is */
    unsigned cpus;         /* 1 */
    uint64_t memory_bytes; /* 512 MiB; a multiple of 1 MiB */
    const char *kernel;    /* file: Linux bzImage, ELF with PVH entry, multiboot; NULL: firmware */
    /* "bios", "uefi", or a file. NULL: the kernel starts without, and without a kernel "bios". */
    const char *firmware;
    const char *uefi_vars; /* file of UEFI's variables, made when missing; NULL: they are lost */
    bool screen;           /* a VGA also for a kernel booted directly; firmware always has one */
    struct sosia_display display;
    const char *initrd;    /* file; multiboot: "FILE ARGUMENTS,FILE ARGUMENTS..." ; or NULL */
    const char *append;    /* kernel command line; or NULL */
    struct sosia_serial serial[SOSIA_SERIAL_PORTS]; /* the first: CALLBACK, the others NONE */
    const struct sosia_disk *disks;                 /* or NULL */
    unsigned disk_count;
    const struct sosia_net *nets; /* or NULL */
    unsigned net_count;
    bool rng;      /* a virtio entropy device */
    bool tablet;   /* a virtio tablet: a pointer that is where it is put */
    bool balloon;  /* a virtio memory balloon */
    uint64_t balloon_bytes;         /* what the guest is to keep at first; 0: all */
    const char *vsock;              /* path of the host's socket (docs/devices/virtio-vsock.md) */
    uint32_t vsock_cid;             /* the guest's number: 3 and up */
    const struct sosia_serial *consoles; /* ports of a virtio console, numbered from 4 */
    unsigned console_count;
    int exit_port; /* I/O port, or SOSIA_EXIT_PORT_NONE */
    bool no_reboot; /* a guest reset or triple fault ends the VM */
    bool restoring; /* nothing is booted: sosia_vm_restore follows; the kernel is for resets only */
    bool incoming;  /* restoring, from another process: sosia_incoming_config sets it */
    bool virtual_time; /* time is counted in instructions; the same run every time */
    /* For looking into translation (engine bt; the others pass over it). */
    uint64_t code_cache_bytes; /* 0: the engine's default */
    const char *dump_code;     /* file that gets guest and host code of blocks; or NULL */
    uint64_t dump_first;       /* of blocks that begin between these linear addresses; */
    uint64_t dump_last;        /* both 0: of all */
    bool perf_map;             /* write /tmp/perf-PID.map for `perf report` */
    void *ctx;         /* for the callbacks */
    /* Bytes that the guest sent to a CALLBACK port. Must not block for long: the guest waits. */
    void (*serial_output)(void *ctx, unsigned port, const void *data, size_t len);
    /* A port that had refused input has room again. May call sosia_vm_serial_input. */
    void (*serial_room)(void *ctx, unsigned port);
    /* The guest's debug console (ports 0xe9, 0x402); NULL: dropped. */
    void (*debug_output)(void *ctx, const void *data, size_t len);
    /* The VM came to its end: once. May call sosia_vm_end. */
    void (*ended)(void *ctx);
};

void sosia_config_init(struct sosia_config *config);

/* Make a machine with the kernel loaded and every processor at its start. error:
 * SOSIA_ERROR_BYTES, filled with one line on failure. *out is set on success only. */
int sosia_vm_new(struct sosia_vm **out, const struct sosia_config *config, char *error);
/* Stops it first if it still runs. NULL is allowed. */
void sosia_vm_free(struct sosia_vm *vm);

/* Run, from a new or paused state. */
int sosia_vm_start(struct sosia_vm *vm);
/* Returns when no processor runs and the clock stands still. Pausing twice is once. */
int sosia_vm_pause(struct sosia_vm *vm);
int sosia_vm_resume(struct sosia_vm *vm);
bool sosia_vm_paused(const struct sosia_vm *vm);
/* In virtual time: run the paused VM until its processors have done so many instructions since it
 * was made (sosia_vm_instructions), or it sleeps with no timer to wake it. It is paused then.
 * -ESHUTDOWN: it came to its end before. */
int sosia_vm_run_until(struct sosia_vm *vm, uint64_t instructions, char *error);
/* Press the reset button. */
int sosia_vm_reset(struct sosia_vm *vm);
/* Press the power button: -ENOTSUP when the guest does not listen to it. */
int sosia_vm_power_button(struct sosia_vm *vm);
/* Pull the plug: sosia_vm_wait returns soon. */
int sosia_vm_stop(struct sosia_vm *vm);

/* Wait for the end; end may be NULL. */
int sosia_vm_wait(struct sosia_vm *vm, struct sosia_end *end);
/* The same without waiting: -EAGAIN while the VM lives. */
int sosia_vm_end(const struct sosia_vm *vm, struct sosia_end *end);

/* Bytes for a CALLBACK port; returns how many were taken. After fewer than len, serial_room tells
 * when there is room. */
size_t sosia_vm_serial_input(struct sosia_vm *vm, unsigned port, const void *data, size_t len);
/* The far end of a PTY port: "/dev/pts/7". NULL for other kinds. Valid as long as the VM. */
const char *sosia_vm_serial_name(const struct sosia_vm *vm, unsigned port);

/* How much memory a guest with a balloon is to keep, in bytes; it comes to that in its own time.
 * -ENODEV: it has no balloon. actual: NULL, or where what it keeps now goes. */
int sosia_vm_set_balloon(struct sosia_vm *vm, uint64_t bytes);
int sosia_vm_balloon(struct sosia_vm *vm, uint64_t *actual);

/* Text about the VM for people, as many lines: "registers" (all processors), "devices", "engine",
 * "memory", "screen" (its text, in text modes), "tlb" and "mem" (what processor 0 has mapped),
 * "mtree" (what is at which address and port), "pci". Like snprintf: returns the bytes that there
 * are. -EINVAL: no such topic. */
long sosia_vm_info(struct sosia_vm *vm, const char *topic, char *text, size_t size);

/* What the screen shows, as a PNG file. -ENODEV: there is none. error as in sosia_vm_new. */
int sosia_vm_screenshot(struct sosia_vm *vm, const char *path, char *error);

/* Where the screen is shown, "127.0.0.1:5900"; NULL: nowhere. Valid as long as the VM. */
const char *sosia_vm_display(const struct sosia_vm *vm);

/* A key goes down or comes up. name: QEMU's name of it ("a", "ret", "ctrl"). -EINVAL: there is no
 * such key; -ENOBUFS: too many wait for the guest. */
int sosia_vm_key(struct sosia_vm *vm, const char *name, bool down);
/* The mouse moves to the right and down, its wheel turns towards the user, in clicks. buttons that
 * are held: 1 left, 2 right, 4 middle, 8 and 16 those of the thumb. */
void sosia_vm_pointer(struct sosia_vm *vm, int dx, int dy, int dz, unsigned buttons);
#define SOSIA_POINTER_MAX 0x7fff
/* The pointer goes to a place on the screen, whose right and lower edges are SOSIA_POINTER_MAX.
 * False: no driver in the guest listens to a tablet, and nothing happened. */
bool sosia_vm_pointer_at(struct sosia_vm *vm, unsigned x, unsigned y, int dz, unsigned buttons);

/* Can this build do it? */
bool sosia_display_built(enum sosia_display_kind kind);

/* The name of the engine in use. */
const char *sosia_vm_engine(const struct sosia_vm *vm);
/* Guest instructions retired so far, by all processors, where the engine counts them. */
uint64_t sosia_vm_instructions(struct sosia_vm *vm);

/* The whole state (RAM apart when ram is false) of a paused VM as one block of bytes that the
 * caller frees with free(). Load takes it into a paused VM of the same configuration; after a
 * failed load the VM can only be reset or freed. */
int sosia_vm_save(struct sosia_vm *vm, bool ram, void **data, size_t *len, char *error);
int sosia_vm_load(struct sosia_vm *vm, const void *data, size_t len, char *error);

/* A control socket for a VM (docs/api.md): programs that speak the QEMU Machine Protocol drive it.
 * It is at path, and where `sosia ls` looks when name is not NULL; either may be. Free it before
 * the VM. -ENOTSUP: this build has no jansson. error as in sosia_vm_new. */
struct sosia_api;
int sosia_api_new(struct sosia_api **out, struct sosia_vm *vm, const char *name, const char *path,
                  char *error);
void sosia_api_free(struct sosia_api *api);

/* A stub for GDB's `target remote` (docs/gdb.md). address: PORT or HOST:PORT, which without a host
 * only this computer reaches, or a path with a slash in it; ",arch=i386" behind it gives GDB 32-bit
 * registers. Free it before the VM. where: what to give to `target remote`. */
struct sosia_gdb;
int sosia_gdb_new(struct sosia_gdb **out, struct sosia_vm *vm, const char *address, char *error);
void sosia_gdb_free(struct sosia_gdb *gdb);
const char *sosia_gdb_where(const struct sosia_gdb *gdb);

/* -- Snapshots: a VM in a file. docs/snapshots.md */
struct sosia_snapshot;

/* Fill with zeroes, then change what differs. */
struct sosia_snapshot_options {
    const char *parent; /* a snapshot of the same VM: only what differs is stored; NULL: none */
    bool compress;      /* memory; it must then be unpacked before the VM can go on */
    bool scratch;       /* no care that it outlives a crash of the host */
};

struct sosia_snapshot_result {
    uint64_t pause_ns; /* how long the guest stood still */
    uint64_t total_ns;
    uint64_t bytes;  /* of memory that were stored */
    uint64_t memory; /* that there are */
};

/* Of a VM that runs or is paused; it runs on while the file is written, and its disks go on in
 * overlays on what they held. The file appears when it is whole. options, result: may be NULL. */
int sosia_vm_snapshot(struct sosia_vm *vm, const char *path,
                      const struct sosia_snapshot_options *options,
                      struct sosia_snapshot_result *result, char *error);

/* To take one up again: open it, fill a configuration from it, change in that what is to be
 * different (engine, callbacks, forwards...), make the VM, restore into it, start it. Strings in
 * the configuration are the snapshot's. Disks that are written come as `ephemeral`, so that nothing
 * happens to what the snapshot needs; sosia_snapshot_keep_disks has overlays made for them instead,
 * called PREFIX.diskN.qcow2. The snapshot may be closed when the VM has been restored. */
int sosia_snapshot_open(struct sosia_snapshot **out, const char *path, char *error);
void sosia_snapshot_close(struct sosia_snapshot *s);
void sosia_snapshot_config(struct sosia_snapshot *s, struct sosia_config *config);
int sosia_snapshot_keep_disks(struct sosia_snapshot *s, const char *prefix, char *error);
/* What came with x-sosia-snapshot's `translations` (docs/api.md) when this snapshot was made, in a
 * sealed memory file that only a process trusted like this one has written: its code is executed.
 * Borrowed until the VM has been restored. */
void sosia_snapshot_translations(struct sosia_snapshot *s, int fd);
/* Removes those again, when no VM came of it. */
void sosia_snapshot_drop_disks(struct sosia_snapshot *s);
int sosia_vm_restore(struct sosia_vm *vm, struct sosia_snapshot *s, char *error);

/* -- Migration: a VM that runs goes on in another process. docs/migration.md */
struct sosia_incoming;

/* Fill with sosia_migrate_options_init, then change what differs. */
struct sosia_migrate_options {
    unsigned streams; /* connections at once: 1 */
    bool compress;    /* memory, on the way */
    uint64_t max_bandwidth; /* bytes per second; 0: all there is */
    unsigned downtime_ms;   /* the guest may stand still for this long: 100 */
    const char *tls; /* directory of certificates (docs/migration.md); NULL: in the clear */
};

struct sosia_migrate_result {
    uint64_t total_ns;
    uint64_t downtime_ns; /* the guest stood still */
    uint64_t bytes;       /* sent */
    unsigned passes;      /* over memory while it ran */
    bool unknown; /* on failure: the link was lost in the very last moment, and the VM may run there
                   * now; here it stands */
};

void sosia_migrate_options_init(struct sosia_migrate_options *options);
/* To the process that listens at address, unix:PATH or tcp:HOST:PORT, while the guest runs on. When
 * it has moved, this VM stands and can only be freed; on failure it goes on. options, result: may
 * be NULL. */
int sosia_vm_migrate(struct sosia_vm *vm, const char *address,
                     const struct sosia_migrate_options *options,
                     struct sosia_migrate_result *result, char *error);

/* To receive one: wait for a source (tls: as above; listening is told the address, or NULL), fill a
 * configuration from it, change in that what is to be different (engine, callbacks, forwards...),
 * make the VM, receive into it, start it unless it was paused there. Nothing runs, and the source
 * goes on, when any of that fails: why goes to the source. Strings in the configuration are the
 * incoming's. */
int sosia_incoming_open(struct sosia_incoming **out, const char *address, const char *tls,
                        void (*listening)(const char *where), char *error);
void sosia_incoming_config(struct sosia_incoming *in, struct sosia_config *config);
int sosia_vm_receive(struct sosia_vm *vm, struct sosia_incoming *in, bool *paused, char *error);
/* why: there will be no VM; NULL: nothing is said. in may be NULL. */
void sosia_incoming_close(struct sosia_incoming *in, const char *why);

/* What this host can do: the n-th engine from 0 on; -ENOENT after the last. Some guest code is run
 * on it for that, which may take seconds. Texts are static or written to text (SOSIA_ERROR_BYTES).
 */
int sosia_engine_info(unsigned n, const char **name, bool *usable, char *text);

/* Messages of the library, process-wide: 0 errors, 1 warnings (default), 2 information, 3 all. */
void sosia_log_level(int level);

#ifdef __cplusplus
}
#endif

#endif
