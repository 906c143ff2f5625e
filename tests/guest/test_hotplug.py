#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NVMe disks that come and go while Linux runs: one after the other in the same slot, the last under writes."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import qmp

WAIT = "for i in $(seq 600); do {} && break; sleep 0.1; done; "


def plug(tap, t, c, path, n):
    with open(path, "wb") as f:
        f.write(f"this is disk {n}".encode().ljust(8 << 20, b"\n"))
    c("blockdev-add", driver="raw", node_name=f"n{n}", file={"driver": "file", "filename": path})
    c("device_add", driver="nvme", id=f"nvme{n}", drive=f"n{n}", addr="0x9")
    t.send(WAIT.format("[ -b /dev/nvme0n1 ]") + "head -n 1 /dev/nvme0n1\r")
    tap.ok(bool(t.expect(rf"\nthis is disk {n}\n", 120)), f"disk {n} comes, and is read", t.all[-800:])


def unplug(tap, t, c, n):
    c("device_del", id=f"nvme{n}")
    gone = c.wait("DEVICE_DELETED")["data"]
    c("blockdev-del", node_name=f"n{n}")
    t.send(WAIT.format("[ ! -e /dev/nvme0n1 ]") + "ls /sys/class/nvme | wc -l\r")
    tap.ok(gone["device"] == f"nvme{n}" and bool(t.expect(r"\n0\n", 120)), f"disk {n} goes", gone, t.all[-800:])


def main():
    g.need_guests("amd64", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        rd = g.initrd(os.path.join(work, "rd.gz"), "-m", g.guest("amd64", "modules") + ":nvme")
        api = os.path.join(work, "api")
        t = g.Terminal(g.SOSIA, "run", "-c", "2", "-k", g.guest("amd64"), "-i", rd, "-a", "console=ttyS0 quiet",
                       "--api", api)
        c = qmp.Client(api)
        t.expect(r"# ", 240)
        paths = [os.path.join(work, f"{n}.img") for n in range(3)]
        for n in range(2):
            plug(tap, t, c, paths[n], n)
            unplug(tap, t, c, n)
        plug(tap, t, c, paths[2], 2)
        t.send("while dd if=/dev/zero of=/dev/nvme0n1 bs=64k count=64 seek=1 oflag=direct 2>/dev/null; do echo wri''tten; "
               "done; echo wri''ting ends\r")
        t.expect("written", 60)
        c("device_del", id="nvme2")
        c.wait("DEVICE_DELETED")
        tap.ok(bool(t.expect("writing ends", 120)), "a disk goes while it is written to", t.all[-800:])
        t.send("poweroff\r")
        tap.ok(t.wait(120) == 0, "and the guest ends as guests do", t.status, t.all[-800:])
        with open(paths[2], "rb") as f:
            tap.ok(f.readline() == b"this is disk 2\n" and f.seek(1 << 16) and not any(f.read(1 << 16)),
                   "what was written is on it")
        t.end()
    tap.end()


main()
