#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boot through firmware: SeaBIOS from nothing, from a disk, from a CD-ROM with GRUB and Linux; OVMF
to its shell, its variables in a file. What a package brings and is not installed is skipped."""
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

SEABIOS = "/usr/share/seabios/bios-256k.bin"
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
EXIT_PORT = 0xf4
SECTOR = 512

# At 0x7c00, DL is the drive. Reads sector 1 by INT 13h extensions to 0x8000, prints the string there,
# writes it to sector 2, and ends the machine by the exit port with 0, or 1 after an error.
BOOT_SECTOR = bytes.fromhex(
    "31c0 8ed8 8ec0 8ed0 bc007c"    # xor ax,ax; ds, es, ss = 0; sp = 0x7c00
    "be607c b442 cd13 7220"         # si = packet at 0x7c60; ah = 0x42; int 13h; jc bad
    "c606687c02"                    # the packet's sector: 2
    "be607c b80043 cd13 7211"       # ax = 0x4300; int 13h; jc bad
    "be0080"                        # si = 0x8000
    "ac 84c0 740d b40e bb0700 cd10 ebf2"  # print: lodsb ... int 10h
    "b001 eb02"                     # bad: al = 1
    "b000"                          # good: al = 0
    "e6f4 f4 ebfd")                 # out 0xf4, al; hlt


def disk(path):
    code = BOOT_SECTOR.ljust(0x60, b"\x90")
    packet = bytes([16, 0, 1, 0]) + (0x8000).to_bytes(4, "little") + (1).to_bytes(8, "little")
    boot = (code + packet).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
    text = b"read by int 13h\r\n\0".ljust(SECTOR, b"\0")
    with open(path, "wb") as f:
        f.write((boot + text).ljust(1 << 20, b"\0"))


def bios(tap, work):
    for engine in ("bt", "interp"):
        t = g.Terminal(g.SOSIA, "run", "-e", engine, "--firmware", "bios", "-c", "2")
        tap.ok(bool(t.expect("No bootable device", 60)), f"SeaBIOS on {engine} finds nothing to boot",
               t.all)
        t.end()
        image = os.path.join(work, "disk.img")
        screen = os.path.join(work, "screen.txt")
        disk(image)
        status, out, err = g.run("run", "-e", engine, "--exit-port", str(EXIT_PORT), "--screenshot",
                                 screen, image, timeout=60)
        tap.ok(status == 1 and "read by int" in out, f"SeaBIOS on {engine} boots a disk", status,
               out, err)
        with open(screen, encoding="ascii") as f:
            text = f.read()
        tap.ok("Booting from Hard Disk" in text and "read by int 13h" in text,
               f"the screen's text, {engine}", text)
        with open(image, "rb") as f:
            sectors = f.read(3 * SECTOR)
        tap.ok(sectors[2 * SECTOR:] == sectors[SECTOR:2 * SECTOR], f"it wrote to the disk, {engine}")
        status, out, err = g.run("run", "-e", engine, "--exit-port", str(EXIT_PORT), "-d",
                                 image + ",readonly", timeout=60)
        tap.ok(status == 3, f"writing to a read-only disk fails, {engine}", status, out, err)
    picture = os.path.join(work, "screen.png")
    g.run("run", "--exit-port", str(EXIT_PORT), "--screenshot", picture, image, timeout=60)
    with open(picture, "rb") as f:
        head = f.read(24)
    tap.ok(head[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(head[16:20], "big") == 720 and
           int.from_bytes(head[20:24], "big") == 400, "a screenshot of 720 by 400")


def buses(tap, work):
    """The first disk is where the BIOS starts from, whatever else there is."""
    image, blank = (os.path.join(work, name) for name in ("boot.img", "blank.img"))
    disk(image)
    with open(blank, "wb") as f:
        f.truncate(1 << 20)
    for bus in ("ahci", "nvme", "virtio", "scsi"):
        status, out, err = g.run("run", "--exit-port", str(EXIT_PORT), "-d", f"{image},bus={bus}",
                                 "-d", f"{blank},bus=ide,format=raw", timeout=60)
        tap.ok(status == 1 and "read by int" in out, f"SeaBIOS boots from {bus}", status, out, err)


def kvm(tap):
    """On a host without VT-x and SVM the kernel interprets, and takes its time."""
    name = "SeaBIOS on kvm finds nothing to boot"
    usable = re.search(r"^kvm +(yes|no) +(.*)", g.run("engines", timeout=120)[1], re.M)
    if not usable or usable.group(1) == "no":
        tap.skip(name, usable.group(2) if usable else "no kvm engine")
        return
    t = g.Terminal(g.SOSIA, "run", "-e", "kvm", "--firmware", "bios")
    tap.ok(bool(t.expect("No bootable device", 300)), name, t.all)
    t.end()


def grub(tap, work):
    rd = g.initrd(os.path.join(work, "rd.gz"))
    iso = g.grub_iso(os.path.join(work, "cd.iso"), "echo GRUB runs\nlinux /boot/vmlinuz console=ttyS0 "
                     "quiet\ninitrd /boot/rd.gz\nboot\n", g.guest("cloud"), rd)
    if iso is None:
        tap.skip("a CD-ROM boots", "no grub-mkrescue or xorriso, or it failed")
        return
    t = g.Terminal(g.SOSIA, "run", "-c", "2", iso)
    up = t.expect("GRUB runs", 60) and t.expect(r"busybox userland on Linux [\d.]+", 120)
    if tap.ok(bool(up), "SeaBIOS, GRUB and Linux from a CD-ROM", t.all):
        t.expect("# ", 30)
        t.send("dmesg | grep -c 'ACPI: FACP'; nproc; poweroff\r")
        tap.ok(bool(t.expect(r"\n1\n2\n")), "Linux finds the firmware's tables and both processors",
               t.all[-600:])
        tap.ok(t.wait(60) == 0, "poweroff ends with status 0", t.status, t.all[-400:])
    t.end()


def uefi_shell(variables):
    t = g.Terminal(g.SOSIA, "run", "--firmware", "uefi", "--uefi-vars", variables)
    if t.expect("Press .*ESC", 120):
        t.send("\x1b")
    t.expect("Shell> ", 60)
    return t


def uefi(tap, work):
    if not os.path.exists(OVMF):
        tap.skip("UEFI", "no OVMF")
        return
    variables = os.path.join(work, "vars.fd")
    t = uefi_shell(variables)
    tap.ok("Shell> " in t.all, "OVMF comes to its shell", t.all[-600:])
    t.send("setvar sosia -guid 11112222-3333-4444-5555-666677778888 -bs -nv =0xcafe\r")
    t.expect("Shell> ", 30)
    t.send("reset -s\r")
    tap.ok(t.wait(60) == 0, "its shell switches the machine off", t.all[-600:])
    t.end()
    t = uefi_shell(variables)
    t.send("setvar sosia -guid 11112222-3333-4444-5555-666677778888\r")
    tap.ok(bool(t.expect(r"(?i)FE CA|CA FE", 30)), "a variable is there in the next run",
           t.all[-600:])
    t.end()


def main():
    if not os.path.exists(SEABIOS):
        g.skip_all("no SeaBIOS")
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        bios(tap, work)
        kvm(tap)
        buses(tap, work)
        grub(tap, work)
        uefi(tap, work)
    tap.end()


main()
