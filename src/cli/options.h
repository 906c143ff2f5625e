/* SPDX-License-Identifier: Apache-2.0 -- the command line of `sosia run` */
#ifndef SOSIA_CLI_OPTIONS_H
#define SOSIA_CLI_OPTIONS_H

#include <stdbool.h>

#include "base/err.h"
#include "sosia.h"

#define OPTIONS_FORWARDS_MAX 64

struct run_options {
    struct sosia_config config; /* strings are argv's; disks and nets point below */
    struct sosia_disk disk[SOSIA_DISKS_MAX];
    struct sosia_net net[SOSIA_NETS_MAX];
    struct sosia_serial console[SOSIA_CONSOLES_MAX];
    struct sosia_forward forward[OPTIONS_FORWARDS_MAX];
    unsigned forward_count;
    const char *name;       /* of the VM, for `sosia ls`; or NULL */
    const char *api;        /* path of a control socket; or NULL */
    const char *gdb;        /* where a debugger finds its stub; or NULL */
    bool paused;            /* do not start before somebody says so */
    const char *screenshot; /* file made at the end; or NULL */
    struct sosia_snapshot *snapshot; /* what is restored; or NULL: the VM boots */
    const char *snapshot_path;
    bool ephemeral;                  /* restore: what it writes to disks is lost at the end */
    struct sosia_incoming *incoming; /* whose VM is received; or NULL */
    bool nets_given;                 /* restore: in place of the snapshot's */
    int stdio_port;             /* the serial port on the terminal, -1: none */
    int verbose;
    bool help;
};

/* argv[0] is "run"; or "restore", and argv[1] a snapshot. On failure e has one line. */
MUST_CHECK int options_parse(struct run_options *o, int argc, char **argv, struct err *e);

/* The disks of a restored VM, when it is known what is to become of them. prefix: of overlays. */
MUST_CHECK int options_keep_disks(struct run_options *o, const char *prefix, struct err *e);

/* options_cards.c: FILE[,key=value,flag...] of -d, --cdrom and --floppy, and --net. text is cut
 * up. */
enum options_drive { OPTIONS_DISK, OPTIONS_CDROM, OPTIONS_FLOPPY };
MUST_CHECK int options_disk(struct run_options *o, char *text, enum options_drive kind,
                            struct err *e);
MUST_CHECK int options_vsock(struct run_options *o, char *text, struct err *e);
MUST_CHECK int options_net(struct run_options *o, char *text, struct err *e);

/* options_display.c: none, vnc[=[ADDRESS:]PORT][,password=FILE]. text is cut up. */
MUST_CHECK int options_display(struct run_options *o, char *text, struct err *e);

/* options_image.c: IMAGE, which may be a kernel, a disk or a CD-ROM. */
MUST_CHECK int options_image(struct run_options *o, char *path, struct err *e);

/* "512M", "4G", "1048576K"; a plain number counts MiB. */
MUST_CHECK int options_size(const char *text, uint64_t *bytes, struct err *e);

#endif
