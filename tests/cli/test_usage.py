#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line: what is refused is refused in one clear line with status 1."""
import os
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g


def bzimage():
    """A header that passes for a kernel, and no kernel behind it."""
    image = bytearray(8192)
    image[0x1f1] = 4
    image[0x1fe:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = struct.pack("<H", 0x20f)
    return bytes(image)


def multiboot(words):
    """words after the magic; a kernel of its own that halts."""
    header = struct.pack("<III", 0x1badb002, words[0], (-(0x1badb002 + words[0])) & 0xffffffff)
    header += struct.pack("<%dI" % len(words[1:]), *words[1:])
    return (header + b"\xfa\xf4\xeb\xfd").ljust(4096, b"\0")


def main():
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        def file(name, data):
            path = os.path.join(work, name)
            with open(path, "wb") as f:
                f.write(data)
            return path

        kernel = file("kernel", multiboot([0x10000, 0x100000, 0x100000, 0x101000, 0x101000,
                                           0x100020]))
        zeros = file("zeros", bytes(4096))
        bad = [
            # name, word of the message, arguments
            ("no kernel", "nothing to boot", ["run"]),
            ("unknown option", "--bogus", ["run", "--bogus", kernel]),
            ("unknown short option", "-Z", ["run", "-Z", kernel]),
            ("option without its argument", "-m", ["run", kernel, "-m"]),
            ("size with an unknown unit", "12Q", ["run", "-m", "12Q", kernel]),
            ("negative size", "-5M", ["run", "-m", "-5M", kernel]),
            ("size of nothing", "0", ["run", "-m", "0", kernel]),
            ("size beyond 64 bits", "99999999999999999999", ["run", "-m", "99999999999999999999T",
                                                              kernel]),
            ("size beyond what a PC has", "memory", ["run", "-m", "9000T", kernel]),
            ("no processors", "processors", ["run", "-c", "0", kernel]),
            ("too many processors", "processors", ["run", "-c", "100000", kernel]),
            ("processors that are no number", "two", ["run", "-c", "two", kernel]),
            ("unknown CPU model", "i8080", ["run", "--cpu", "i8080", kernel]),
            ("unknown CPU feature", "warp", ["run", "--cpu", "x86-64-v2,+warp", kernel]),
            ("unknown engine", "steam", ["run", "-e", "steam", kernel]),
            ("unknown serial backend", "telegraph", ["run", "--serial", "telegraph", kernel]),
            ("stdio twice", "stdio", ["run", "--serial", "stdio", "--serial", "stdio", kernel]),
            ("five serial ports", "ports", ["run", *["--serial", "none"] * 5, kernel]),
            ("serial file that cannot be", "/no/such", ["run", "--serial", "file=/no/such/dir/x",
                                                          kernel]),
            ("serial socket that cannot be", "/no/such", ["run", "--serial", "unix=/no/such/dir/x",
                                                            kernel]),
            ("unknown display", "teletype", ["run", "--display", "teletype", kernel]),
            ("exit port out of range", "exit-port", ["run", "--exit-port", "0x10000", kernel]),
            ("disk bus", "bus 'x' is not", ["run", "--disk", zeros + ",bus=x", kernel]),
            ("disk word", "'colour=red' is not known", ["run", "-d", zeros + ",colour=red", kernel]),
            ("disk flag", "neither on nor off", ["run", "-d", zeros + ",readonly=no", kernel]),
            ("no disk", "--disk: no file", ["run", "-d", "", kernel]),
            ("forward", "fwd= is tcp:", ["run", "-n", "user,fwd=tcp:22", kernel]),
            ("mac", "six bytes", ["run", "-n", "user,mac=1:2:3", kernel]),
            ("network", "'x' is not user", ["run", "-n", "x", kernel]),
            ("too many disks", "disks", ["run", *[zeros] * 17]),
            ("floppy that is none", "2880 KiB", ["run", "--floppy", file("big", bytes(3 << 20))]),
            ("three floppies", "2 floppy drives", ["run", *["--floppy", zeros + ",readonly"] * 3]),
            ("bus of a floppy", "'bus=ide' is not known", ["run", "--floppy", zeros + ",bus=ide"]),
            ("seven AHCI drives", "AHCI", ["run", *["-d", zeros + ",bus=ahci,readonly"] * 7, kernel]),
            ("a CD-ROM on NVMe", "nvme", ["run", "--cdrom", zeros + ",bus=nvme", kernel]),
            ("five IDE drives", "IDE", ["run", *["-d", zeros + ",bus=ide,readonly"] * 5, kernel]),
            ("firmware that is not there", "none", ["run", "--firmware",
                                                    os.path.join(work, "none")]),
            ("vnc", "port number", ["run", "--display", "vnc=:70000", kernel]),
            ("api", "/no/such", ["run", "--api", "/no/such/dir/x", kernel]),
            ("missing kernel", "none: No such file", ["run", os.path.join(work, "none")]),
            ("directory as a kernel", work, ["run", work]),
            ("empty kernel", "empty", ["run", file("empty", b"")]),
            ("zeros as a kernel", "zeros", ["run", "-k", zeros]),
            ("text as a kernel", "text", ["run", "-k", file("text", b"#!/bin/sh\necho hello\n" * 100)]),
            ("disk image as a kernel", "mbr", ["run", "-k", file("mbr", bytes(510) + b"\x55\xaa" +
                                                            bytes(65536))]),
            ("bzImage header alone", "bz", ["run", file("bz", bzimage())]),
            ("ELF header alone", "elf", ["run", file("elf", b"\x7fELF\x02\x01\x01" + bytes(57))]),
            ("multiboot kernel beyond memory", "mbhigh",
             ["run", file("mbhigh", multiboot([0x10000, 0xe0000000, 0xe0000000, 0xe0001000,
                                               0xe0001000, 0xe0000020]))]),
            ("missing initrd", "gone: No such file", ["run", "-i", os.path.join(work, "gone"),
                                                        kernel]),
            ("two kernels", "only one", ["run", kernel, kernel]),
            ("unknown command", "dance", ["dance"]),
            ("migrate without an address", "the name of a VM", ["migrate", zeros]),
            ("migrate to nowhere", "nobody", ["migrate", "nobody", "tcp:x"]),
            ("clone without a number", "how many", ["clone", zeros]),
            ("clone of no snapshot", "not a snapshot", ["clone", zeros, "-n", "2"]),
        ]
        for name, word, args in bad:
            status, out, err = g.run(*args, timeout=20)
            tap.ok(status == 1 and out == "" and err.count("\n") == 1 and err.startswith("sosia: ")
                   and word in err, name, f"status {status}", out, err)

        status, out, err = g.run(timeout=20)
        tap.ok(status == 1 and out == "" and "usage" in err, "no command: usage on stderr", err)
        for args, word in ((["--version"], "sosia "), (["help"], "usage"), (["help", "run"], "--cpu"),
                           (["run", "--help"], "--cpu"), (["engines"], "interp")):
            status, out, err = g.run(*args, timeout=20)
            tap.ok(status == 0 and word in out and err == "", " ".join(args), status, out, err)
        full = os.open("/dev/full", os.O_WRONLY)
        import subprocess
        r = subprocess.run([g.SOSIA, "engines"], stdout=full, stderr=subprocess.PIPE, check=False)
        tap.ok(r.returncode == 1 and r.stderr.count(b"\n") == 1, "output that cannot be written")
    tap.end()


main()
