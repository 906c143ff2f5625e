#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Floppy disks: a FAT12 boot sector of our own and its loader, from drive A: by SeaBIOS; Linux's driver
on both drives."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import qmp

SECTOR = 512
KEPT = os.path.join(g.BUILD, "tests/guest/floppy")

LINUX = """A=/dev/fd0 B=/dev/fd1
dd if=$A bs=18k 2>/dev/null | md5sum
dd if=$B bs=9k 2>/dev/null | md5sum
cat /sys/block/fd0/size /sys/block/fd1/size
dd if=/dev/urandom of=/tmp/r bs=18k count=5 2>/dev/null
dd if=/tmp/r of=$A bs=18k seek=30 conv=notrunc 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
dd if=$A bs=18k skip=30 count=5 2>/dev/null | cmp - /tmp/r && echo "A: same"
md5sum </tmp/r
dd if=/tmp/r of=$B bs=512 count=1 2>&1 | grep -i "read-only\\|not permitted"
"""


def assemble(work, name, address):
    """Flat code of a file of ours, for that address."""
    obj, out = os.path.join(work, name + ".o"), os.path.join(work, name + ".bin")
    subprocess.run(["gcc", "-m32", "-c", "-o", obj,
                    os.path.join(g.HERE, "../guest/floppy", name + ".S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", hex(address), "--oformat", "binary", "-o", out,
                    obj], check=True)
    return out


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


def boot(tap, work):
    if not shutil.which("mformat"):
        tap.skip("a FAT boot sector", "no mtools")
        return
    sector, loader = assemble(work, "boot", 0x7c00), assemble(work, "loader", 0)
    a, b = os.path.join(work, "a.img"), os.path.join(work, "b.img")
    subprocess.run(["mformat", "-C", "-i", a, "-f", "1440", "-B", sector, "::"], check=True)
    subprocess.run(["mcopy", "-i", a, loader, "::LOADER.BIN"], check=True)
    text = b"This is drive B:.\r\n\0"
    write(b, (bytes((39 * 36 + 8) * SECTOR) + text).ljust(2880 * SECTOR, b"\0"))
    shot = os.path.join(KEPT, "screen.txt")
    os.makedirs(KEPT, exist_ok=True)
    status, out, err = g.run("run", "--floppy", a, "--floppy", b + ",readonly", "--exit-port", "0xf4",
                             "--screenshot", shot, timeout=60)
    with open(shot, encoding="utf-8") as f:
        screen = f.read()
    tap.ok(status == 1 and "Booting from Floppy" in screen, "SeaBIOS boots from drive A:", status,
           err, screen)
    for line in ("The loader is reached.", "All of it is here.", "This is drive B:.", "Written."):
        tap.ok(line in screen, line, screen)
    with open(a, "rb") as f:
        f.seek(2879 * SECTOR)
        tap.ok(f.read(11) == b"The loader ", "and drive A: has it")


def linux(tap, work):
    rd = g.initrd(os.path.join(work, "rd.gz"), "-m", g.guest("amd64", "modules") + ":floppy", "-r", LINUX)
    disks = []
    for name, kib in (("x", 1440), ("y", 720)):
        disks.append(write(os.path.join(work, name + ".img"), os.urandom(kib * 1024)))
    sums = [subprocess.run(["md5sum", d], check=True, stdout=subprocess.PIPE).stdout[:32].decode()
            for d in disks]
    status, out, err = g.run("run", "-k", g.guest("amd64"), "-i", rd, "-a", "console=ttyS0 quiet",
                             "--floppy", disks[0], "--floppy", disks[1] + ",readonly", timeout=180)
    lines = out.replace("\r", "").splitlines()
    tap.ok(status == 0, "Linux with two floppy drives", status, out, err)
    tap.ok("2880" in lines and sums[0] in out, "it reads A:, 1.44M", out)
    tap.ok("1440" in lines and sums[1] in out, "it reads B:, 720K", out)
    tap.ok("A: same" in out, "what it wrote it reads", out)
    with open(disks[0], "rb") as f:
        f.seek(30 * 18 * 1024)
        written = subprocess.run(["md5sum"], input=f.read(5 * 18 * 1024), check=True,
                                 stdout=subprocess.PIPE).stdout[:32].decode()
    tap.ok(written in out, "and the image has it", out)


def change(tap, work):
    """Linux's driver hears by the disk-change line that A: holds another disk, and that it holds none."""
    rd = g.initrd(os.path.join(work, "rd2.gz"), "-m", g.guest("amd64", "modules") + ":floppy")
    images = [write(os.path.join(work, name + ".img"), os.urandom(kib * 1024)) for name, kib in (("p", 1440), ("q", 720))]
    sums = [subprocess.run(["md5sum", i], check=True, stdout=subprocess.PIPE).stdout[:32].decode() for i in images]
    api = os.path.join(work, "api")
    t = g.Terminal(g.SOSIA, "run", "-k", g.guest("amd64"), "-i", rd, "-a", "console=ttyS0 quiet", "--floppy",
                   images[0], "--api", api)
    there = t.expect(r"# ", 180)
    t.send("md5sum </dev/fd0\r")
    tap.ok(bool(there) and bool(t.expect(sums[0], 120)), "a disk in drive A:", t.all[-600:])
    c = qmp.Client(api)
    c("eject", device="disk0", force=True)
    t.send("md5sum </dev/fd0; echo status $?\r")
    tap.ok(bool(t.expect(r"status [1-9]", 120)), "is taken out", t.all[-600:])
    c("blockdev-change-medium", id="disk0", filename=images[1], format="raw")
    t.send("md5sum </dev/fd0; blockdev --getsz /dev/fd0\r")
    tap.ok(bool(t.expect(sums[1], 120)) and bool(t.expect(r"\n1440\n", 60)), "another one is put in, of 720K",
           t.all[-600:])
    t.send("dd if=/dev/zero of=/dev/fd0 count=9 2>/dev/null; sync; poweroff\r")
    tap.ok(t.wait(120) == 0, "and the guest ends", t.status, t.all[-600:])
    with open(images[1], "rb") as f:
        tap.ok(f.read(9 * SECTOR) == bytes(9 * SECTOR), "what it wrote is on the second")
    t.end()


def main():
    g.need_guests("amd64", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        boot(tap, work)
        linux(tap, work)
        change(tap, work)
    tap.end()


if __name__ == "__main__":
    main()
