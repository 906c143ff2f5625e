/* SPDX-License-Identifier: Apache-2.0 -- the sosia program: its commands */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "block/image.h"
#include "cli/clone.h"
#include "cli/control.h"
#include "cli/disk.h"
#include "cli/run.h"
#include "cli/snapshots.h"
#include "migrate/tls.h"
#include "net/net.h"
#include "sosia.h"

static void help(FILE *to)
{
    fputs("usage: sosia run [options] [IMAGE]   run a virtual machine in the foreground\n"
          "       sosia restore FILE [options]  take up a snapshot again\n"
          "       sosia clone SOURCE -n N [...] many VMs of one that runs, or of a snapshot\n"
          "       sosia disk COMMAND            disk images: create, info, convert, check...\n"
          "       sosia engines                 what this host can do, and why not\n",
          to);
    snapshots_help(to);
    control_help(to);
    fputs("       sosia help [run|disk]         this text, or that command's options\n"
          "       sosia --version\n",
          to);
}

void run_help(void)
{
    fputs(
        "usage: sosia run [options] [IMAGE]\n"
        "IMAGE: a kernel (Linux bzImage, ELF with a PVH entry, multiboot), a disk or a CD-ROM,\n"
        "recognised by content\n"
        "  -e, --engine auto|bt|kvm|interp  how the processors run (auto)\n"
        "  -m, --memory SIZE                512M; K M G T, a plain number counts MiB\n"
        "  -c, --cpus N                     1\n"
        "      --cpu MODEL[,+feat,-feat]    x86-64-v1 to x86-64-v4, or host\n"
        "  -k, --kernel FILE                boot it without firmware\n"
        "  -i, --initrd FILE                multiboot: modules, \"FILE ARGS,FILE ARGS\"\n"
        "  -a, --append TEXT                kernel command line\n"
        "      --firmware bios|uefi|FILE    without a kernel: bios\n"
        "      --uefi-vars FILE             where UEFI keeps its variables\n"
        "  -d, --disk FILE[,format=F][,bus=ide|ahci|nvme|virtio|scsi][,readonly][,ephemeral]\n"
        "      --cdrom FILE[,bus=ide|ahci|scsi]\n"
        "      --floppy FILE[,readonly][,ephemeral]   drive A:, then B:; 160K to 2.88M\n"
        "      --serial stdio|none|file=F|unix=PATH|pty\n"
        "                                   COM1, then COM2... (COM1: stdio, others: none)\n"
        "      --screenshot FILE            at the end: PNG, or text when FILE ends in .txt\n"
        "      --display none|vnc[=[ADDRESS:]PORT][,password=FILE]\n"
        "                                   VNC: 127.0.0.1:5900; elsewhere a password is needed\n"
        "  -n, --net user[,fwd=tcp:HOSTPORT:GUESTPORT][,restrict]|tap=IF|passt[=PATH]|none\n"
        "            [,model=virtio|e1000][,mac=M]   a network card; none when not given\n"
        "      --rng                        a virtio entropy device\n"
        "      --tablet                     a virtio tablet; --display vnc has one always\n"
        "      --balloon[=SIZE]             a virtio balloon; the guest is to keep SIZE\n"
        "      --vsock PATH[,cid=N]         sockets between host and guest\n"
        "      --console stdio|none|file=F|unix=PATH|pty[,name=N]\n"
        "                                   a virtio console, then named ports of it\n"
        "      --name NAME                  what `sosia ls`, stop, info... know it by\n"
        "      --api PATH                   a control socket there (QEMU Machine Protocol)\n"
        "      --incoming ADDRESS           receive a VM: unix:PATH or tcp:HOST:PORT\n"
        "      --tls DIR                    with --incoming: only by TLS, with these certificates\n"
        "      --ephemeral                  restore: what is written to disks is lost at the end\n"
        "      --no-reboot                  a guest reset or triple fault ends the VM, status 2\n"
        "      --gdb ADDR                   for gdb: target remote PORT, HOST:PORT or PATH\n"
        "  -S, --paused                     do not start yet: gdb or a control socket will\n"
        "      --exit-port PORT             a write of V there ends the VM, status (V<<1)|1\n"
        "      --virtual-time               an instruction takes a nanosecond: each run the same\n"
        "      --bt-cache SIZE              code cache of the bt engine (128M)\n"
        "      --bt-dump FILE[,FIRST[-LAST]] guest and host code of translated blocks\n"
        "      --perf-map                   write /tmp/perf-PID.map: perf names guest code\n"
        "  -v, --verbose                    say more on stderr; twice: even more\n"
        "keys: ctrl-a x quits, ctrl-a c commands, ctrl-a h help\n",
        stdout);
}

static int engines_main(void)
{
    const char *name;
    bool usable;
    char text[SOSIA_ERROR_BYTES];
    for (unsigned n = 0; sosia_engine_info(n, &name, &usable, text) == 0; n++) {
        printf("%-7s %-4s %s\n", name, usable ? "yes" : "no", text);
    }
    return 0;
}

static int version_main(void)
{
    printf("sosia %s\n", sosia_version());
    /* What a build may have or lack is named here. */
    char parts[128];
    printf("engines: kvm, bt, interp; optional parts: %s\n", block_parts(parts, sizeof parts));
    printf("displays: %snone\n", sosia_display_built(SOSIA_DISPLAY_VNC) ? "vnc, " : "");
    printf("networks: %stap, passt\n", net_user_built() ? "user, " : "");
    printf("migration: %s\n", tls_built() ? "TLS" : "no TLS");
    printf("control socket: %s\n", api_built() ? "yes" : "no");
    return 0;
}

static bool is_any_of(const char *s, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    static const char *const helps[] = { "help", "--help", "-h", NULL };
    static const char *const versions[] = { "version", "--version", "-V", NULL };
    if (argc < 2) {
        help(stderr);
        return 1;
    }
    if (strcmp(argv[1], "run") == 0 || strcmp(argv[1], "restore") == 0) {
        return run_main(argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "clone") == 0) {
        return clone_main(argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "disk") == 0) {
        return disk_main(argc - 1, argv + 1);
    }
    int status = 0;
    if (strcmp(argv[1], "snapshot") == 0 && snapshots_know(argc - 1, argv + 1)) {
        status = snapshots_main(argc - 1, argv + 1);
    } else if (control_knows(argv[1])) {
        status = control_main(argc - 1, argv + 1);
    } else if (strcmp(argv[1], "engines") == 0) {
        status = engines_main();
    } else if (is_any_of(argv[1], versions)) {
        status = version_main();
    } else if (is_any_of(argv[1], helps)) {
        if (argc > 2 && strcmp(argv[2], "run") == 0) {
            run_help();
        } else if (argc > 2 && strcmp(argv[2], "disk") == 0) {
            disk_help(stdout);
        } else {
            help(stdout);
        }
    } else {
        fprintf(stderr, "sosia: unknown command '%s' (see sosia help)\n", argv[1]);
        return 1;
    }
    if (fflush(stdout) != 0) {
        fprintf(stderr, "sosia: standard output: %s\n", strerror(errno));
        return 1;
    }
    return status;
}
