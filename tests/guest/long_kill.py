#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of sosia while its guest writes: the file system and the image are sound afterwards, and all
that the guest had fsynced is there. A small guest most of the time, a whole Debian now and then.
KILLS=n: that often for each format (50; a tenth of it Debian); KILL_SEED=n."""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import debianvm
import guest as g

KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("KILL_SEED", "1"))
SIZE_MIB = 192
MODULES = "virtio_pci,virtio_blk"
SCRIPT = "mount -t ext4 /dev/vda /mnt && exec journal /mnt\n"


def tool(*command, check=True):
    os.environ["PATH"] += ":/usr/sbin"
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=check)


def journal(work):
    program = os.path.join(work, "journal")
    source = os.path.join(g.TOP, "tests/guest/journal.c")
    if tool("gcc", "-O1", "-static", "-o", program, source, check=False).returncode != 0:
        g.skip_all("no static C library")
    return program


class Round:
    """One life of the guest, up to its violent end."""

    def __init__(self, command, errors):
        self.vm = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        self.text = b""

    def last(self, word):
        """The number in the last whole line of its kind."""
        found = re.findall(rb"%s (\d+)\r?\n" % word, self.text)
        return int(found[-1]) if found else None

    def run(self, seconds):
        """Read until it has synced something, then for so long."""
        os.set_blocking(self.vm.stdout.fileno(), False)
        until = time.monotonic() + 600 * g.PATIENCE
        started = False
        while time.monotonic() < until and self.vm.poll() is None:
            self.text += self.vm.stdout.read() or b""
            if not started and self.last(b"synced") is not None:
                started, until = True, time.monotonic() + seconds
            time.sleep(0.002)
        self.vm.kill()
        # What was on its way to us had been said before the end.
        os.set_blocking(self.vm.stdout.fileno(), True)
        self.text += self.vm.stdout.read()
        self.vm.wait()
        return started


def image_is_sound(image, fmt, raw, offset=0):
    """sosia disk check, then e2fsck on the contents: once to replay the journal, once to judge. What is
    wrong, "" when nothing is."""
    check = tool(g.SOSIA, "disk", "check", "-f", fmt, image, check=False) if fmt != "raw" else None
    if check and check.returncode != 0:
        return check.stdout.decode()
    tool(g.SOSIA, "disk", "convert", "-q", "-f", fmt, "-O", "raw", image, raw)
    tool("e2fsck", "-p", f"{raw}?offset={offset}", check=False)
    fsck = tool("e2fsck", "-f", "-n", f"{raw}?offset={offset}", check=False)
    return fsck.stdout.decode() if fsck.returncode != 0 else ""


def kills(tap, work, fmt, extra, rd):
    blank, image = os.path.join(work, "blank"), os.path.join(work, "disk." + fmt)
    with open(blank, "wb") as f:
        f.truncate(SIZE_MIB << 20)
    tool("mke2fs", "-q", "-F", "-t", "ext4", blank)
    tool(g.SOSIA, "disk", "convert", "-q", "-O", fmt, *extra, blank, image)
    command = [g.SOSIA, "run", "-m", "256M", "-k", g.guest("cloud"), "-i", rd, "-a",
               "console=ttyS0 quiet", "-d", f"{image},format={fmt},bus=virtio"]
    pick = random.Random(SEED)
    promised = lost = 0
    faults = []
    done = 0
    for number in range(KILLS):
        vm = Round(command, subprocess.STDOUT)
        started = vm.run(pick.uniform(0.05, 1.5))
        held = vm.last(b"holds")
        if held is not None and held < promised:
            lost += 1
            faults.append(f"kill {number}: promised {promised}, holds {held}")
        if not started:
            faults.append(f"kill {number}: " + vm.text.decode(errors="replace")[-1000:])
            break
        promised = vm.last(b"synced")
        wrong = image_is_sound(image, fmt, os.path.join(work, "raw"))
        if wrong:
            faults.append(f"kill {number}: {wrong}")
            break
        done += 1
    what = " ".join([fmt, *extra])
    print(f"# {what}: {done} kills, {promised} records synced, {lost} times some were lost", flush=True)
    tap.ok(done == KILLS and not faults, f"{what}: {KILLS} kills", *faults)


# -- A whole Debian -----------------------------------------------------------------------------------
ROOT_OFFSET = 34 << 20   # as tools/mkdebian has it
WRITE = ("mkdir -p log; i=$(ls log/*.sum | wc -l); while :; do i=$((i+1)); head -c 20000 /dev/urandom >log/$i; "
         "sha1sum log/$i >log/$i.sum; sync log/$i log/$i.sum log; echo synced $i; done 2>/dev/null\r")


def debian_kills(tap, work, fmt, count):
    image, pick, promised = os.path.join(work, "debian." + fmt), random.Random(SEED), 0
    tool(g.SOSIA, "disk", "convert", "-q", "-f", "raw", "-O", fmt, debianvm.IMAGE, image)
    for number in range(count + 1):
        what = f"Debian, {fmt}, after {number} kills"
        vm = debianvm.Debian(g.SOSIA, "run", "-m", "1G", "-c", "2", "-d", f"{image},format={fmt},bus=virtio")
        if not tap.ok(vm.boot() is not None and vm.log_in(), f"{what}: it comes up", vm.all[-1500:]):
            vm.end()
            return
        status, text = vm.shell("systemctl is-system-running --wait", 300)
        tap.ok(status == 0, f"{what}: no failed unit", text)
        held = vm.shell("ls log/*.sum 2>/dev/null | wc -l")[1].split()[-1]
        whole = vm.shell(f"[ {promised} -eq 0 ] || sha1sum -c --status $(seq -f log/%.0f.sum {promised})", 300)
        tap.ok(int(held) >= promised and whole[0] == 0, f"{what}: {promised} records are there", held, whole)
        vm.send(WRITE)
        vm.expect(r"synced \d+\n", 120)
        vm.expect("never", pick.uniform(2, 10))
        vm.end()
        promised = int(re.findall(r"synced (\d+)\n", vm.all)[-1])
        wrong = image_is_sound(image, fmt, os.path.join(work, "raw"), ROOT_OFFSET)
        tap.ok(not wrong, f"{what}: one more, and the image is sound", wrong)
    print(f"# Debian, {fmt}: {promised} records", flush=True)


def main():
    if not shutil.which("e2fsck", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        g.skip_all("no e2fsprogs")
    g.need_guests("cloud", "busybox")
    debianvm.need_image(make=True)
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        run = os.path.join(work, "run.sh")
        with open(run, "w", encoding="ascii") as f:
            f.write(SCRIPT)
        rd = g.initrd(os.path.join(work, "rd.gz"), "-m", f"{g.guest('cloud', 'modules')}:{MODULES}",
                      "-f", journal(work), "-f", run, "-r", "sh /bin/run.sh")
        for fmt, extra in (("raw", []), ("qcow2", []), ("qcow2", ["-o", "cluster_size=4096"])):
            kills(tap, work, fmt, extra, rd)
        for fmt in ("raw", "qcow2"):
            debian_kills(tap, work, fmt, KILLS // 10)
    tap.end()


main()
