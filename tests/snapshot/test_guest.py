#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Debian that checks its memory, its disk and its clock goes from one engine to another."""
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

# Random bytes on a disk and in memory: each round reads what the rounds before left, and adds some.
LOAD = """mke2fs /dev/vda >/dev/null 2>&1; mount /dev/vda /mnt; mkdir /tmp/m
n=0
while :; do
    n=$((n + 1))
    dd if=/dev/urandom of=/mnt/$((n % 8)) bs=64k count=4 2>/dev/null
    cp /mnt/$((n % 8)) /tmp/m/; sync; echo 3 >/proc/sys/vm/drop_caches
    for f in /mnt/[0-7]; do cmp $f /tmp/m/${f##*/} || echo BAD $f; done
    echo "round $n at $(date +%s)."
done
"""


def rounds(t, count):
    """(number, wall clock in the guest, here) of the last of so many more rounds."""
    m = None
    for _ in range(count):
        m = t.expect(r"round (\d+) at (\d+)\.\n", 120)
        if m is None:
            return None
    return int(m.group(1)), float(m.group(2)), time.time()


def snapshot(api, path, *args):
    r = subprocess.run([g.SOSIA, "snapshot", api, path, *args], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, check=False, timeout=300 * g.PATIENCE)
    text = (r.stdout + r.stderr).decode(errors="replace").strip()
    print("#", text, flush=True)
    return r.returncode == 0, text


def goes_on(tap, t, what, since):
    last = rounds(t, 3)
    tap.ok(last and last[0] >= since, f"{what}: it goes on", last, t.all)
    tap.ok("BAD" not in t.all, f"{what}: memory and disk are what they were", t.all)
    if last:
        off = abs(last[1] - last[2])
        tap.ok(off < 20 * g.PATIENCE, f"{what}: its clock shows today", last)
        print(f"# clock off by {off:.2f} s")


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def age(path, seconds):
    """As if it had been made that much earlier: docs/snapshots.md, "The file"."""
    with open(path, "r+b") as f:
        page = bytearray(f.read(4092))
        wall = int.from_bytes(page[48:56], "little") - seconds * 10**9
        page[48:56] = wall.to_bytes(8, "little")
        f.seek(0)
        f.write(page + crc32c(page).to_bytes(4, "little"))


def start(args):
    return g.Terminal(g.SOSIA, *args)


def session(tap, work):
    disk, api = os.path.join(work, "disk"), os.path.join(work, "api")
    path = lambda name: os.path.join(work, name)
    with open(disk, "wb") as f:
        f.truncate(64 << 20)
    with open(path("load.sh"), "w", encoding="ascii") as f:
        f.write(LOAD)
    rd = g.initrd(path("rd.gz"), "-m", g.guest("cloud", "modules") + ":virtio_pci,virtio_blk,ext2",
                  "-f", path("load.sh"), "-r", "sh /bin/load.sh")
    t = start(["run", "-e", "bt", "-m", "512M", "-k", g.guest("cloud"), "-i", rd, "--api", api,
               "-d", disk + ",format=raw", "-a", "console=ttyS0 quiet"])
    began = rounds(t, 3)
    if not tap.ok(bool(began), "the guest works", t.all):
        t.end()
        return
    good, text = snapshot(api, path("one"))
    tap.ok(good, "a snapshot of it under load", text)
    goes_on(tap, t, "bt, after a snapshot", began[0])
    good, text = snapshot(api, path("two"), "--parent", path("one"), "--compress")
    if not good and "zstd" in text:
        good, text = snapshot(api, path("two"), "--parent", path("one"))
    tap.ok(good, "another, on that one", text)
    since = rounds(t, 1)
    t.end()
    time.sleep(2)

    begin = time.monotonic()
    t = start(["restore", path("one"), "-e", "interp"])
    goes_on(tap, t, "interp, from bt", began[0])
    print(f"# {time.monotonic() - begin:.1f} s")
    t.end()
    tap.ok(os.path.exists(path("one.disk0.qcow2")), "its disk goes on in a file of its own")
    age(path("one"), 600)
    t = start(["restore", path("one"), "-e", "bt", "--ephemeral"])
    late = rounds(t, 3)
    tap.ok(late and 500 < late[1] - late[2] < 700, "ten minutes late: its clock knows", late, t.all)
    tap.ok(not re.search("lockup|stall|hung", t.all), "ten minutes late: no watchdog barks", t.all)
    t.end()
    age(path("one"), -600)
    t = start(["restore", path("two"), "-e", "bt", "--ephemeral", "--api", api])
    goes_on(tap, t, "bt, from a chain", began[0])
    tap.ok(not os.path.exists(path("two.disk0.qcow2")), "ephemeral: no file is left")
    good, text = snapshot(api, path("three"))
    tap.ok(not good and "ephemeral" in text, "ephemeral: no snapshot of that", text)
    t.end()
    t = start(["restore", path("one"), "-e", "interp", "--api", api])
    goes_on(tap, t, "interp, once more", began[0])
    good, text = snapshot(api, path("four"))
    tap.ok(good, "a snapshot under interp", text)
    t.end()
    t = start(["restore", path("four"), "-e", "bt"])
    goes_on(tap, t, "bt, from interp", began[0])
    t.end()
    with open(disk + ".one", "r+b") as f:
        f.write(b"x")
    status, _, err = g.run("restore", path("one"))
    tap.ok(status == 1 and "changed since" in err, "a disk that was changed is refused", err)
    return since


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        session(tap, work)
    tap.end()


main()
