#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What people boot first: Debian's installer to its language screen, GRUB's rescue prompt, iPXE to a lease on each
network card, Xen with a stock kernel as its first domain to a shell. Logs and screens are kept in BUILD/guests/seen."""
import collections
import os
import subprocess
import sys
import tempfile
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

PROMPT = r"# (\x1b\[6n)?$"


def pixels(path):
    """How many pixels of each colour a picture of ours has, whose rows have no filter."""
    with open(path, "rb") as f:
        data = f.read()
    width = int.from_bytes(data[16:20], "big")
    body, at = b"", 8
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            body += data[at + 8:at + 8 + size]
        at += size + 12
    raw, row = zlib.decompress(body), 1 + 3 * width
    return collections.Counter(raw[y + x:y + x + 3] for y in range(0, len(raw), row) for x in range(1, row, 3))


def installer(tap):
    """On the screen, which is a frame buffer: its list of languages is grey on blue, with a red bar."""
    os.makedirs(g.SEEN, exist_ok=True)
    shot = os.path.join(g.SEEN, "installer.png")
    t = g.Terminal(g.SOSIA, "run", "--name", f"installer-{os.getpid()}", "-m", "1200M", "-k", g.guest("installer"),
                   "-i", g.guest("installer", "initrd.gz"), "-a", "quiet", "--screenshot", shot)
    until = time.monotonic() + 400 * g.PATIENCE
    grey = red = 0
    while time.monotonic() < until and not (grey > 400000 and 3000 < red < 10000):
        t.read(5)
        if subprocess.run([g.SOSIA, "screenshot", f"installer-{os.getpid()}", shot], check=False).returncode == 0:
            seen = pixels(shot)
            grey, red = seen[b"\xaa\xaa\xaa"], seen[b"\xaa\0\0"]
    tap.ok(grey > 400000 and 3000 < red < 10000, "Debian's installer asks for the language", grey, red, t.all[-500:])
    t.send("\x01x")
    tap.ok(t.wait(30) == 0, "and ends when told", t.status)
    t.end()


def grub(tap, work):
    iso = g.grub_iso(os.path.join(work, "grub.iso"), "")
    if iso is None:
        tap.skip("GRUB's prompt", "no grub-mkrescue, or no GRUB for BIOS")
        return
    t = g.Terminal(g.SOSIA, "run", "--cdrom", iso)
    text = g.wait_for_screen(t, "grub>", 120)
    g.keep("grub.txt", text)
    tap.ok("Minimal BASH-like line editing" in text and "grub>" in text, "a GRUB rescue CD comes to its prompt", text)
    t.end()


def ipxe(tap, model):
    t = g.Terminal(g.SOSIA, "run", "-m", "256M", "--cdrom", g.guest("ipxe", "ipxe.iso"), "-n", f"user,model={model}")
    leased = t.expect(r"net0: 10\.0\.2\.15/255\.255\.255\.0 gw 10\.0\.2\.2", 300)
    text = g.screen(t)
    g.keep(f"ipxe-{model}.txt", text)
    tap.ok("iPXE" in text and "Open Source Network Boot Firmware" in text, f"iPXE on {model}: its banner", text)
    tap.ok(bool(leased), f"iPXE on {model}: a lease", t.all)
    t.end()


def xen(tap, work):
    rd = g.initrd(os.path.join(work, "rd.gz"))
    t = g.Terminal(g.SOSIA, "run", "-m", "1G", "-k", g.guest("xen", "xen"), "-a",
                   "sosia com1=115200,8n1 console=com1 no-real-mode", "-i",
                   f"{g.guest('amd64')} console=hvc0,{rd}")
    tap.ok(bool(t.expect(r"\(XEN\) Xen version 4\.\d+", 60)), "Xen's boot log", t.all)
    tap.ok(bool(t.expect(r"\(XEN\) .*Dom0 kernel: 64-bit", 120)),
           "it makes its first domain", t.all)
    tap.ok(bool(t.expect(r"busybox userland on Linux", 240) and t.expect(PROMPT, 60)),
           "a stock Debian kernel in it comes to a shell", t.all)
    t.send("cat /sys/hypervisor/type; poweroff\r")
    tap.ok(bool(t.expect(r"\nxen\n", 60)), "which knows where it is", t.all[-300:])
    tap.ok(t.wait(120) == 0, "and powers off", t.status, t.all[-600:])
    g.keep("xen.txt", t.all)
    t.end()


def main():
    g.need_guests("installer", "ipxe", "xen", "amd64", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        grub(tap, work)
        ipxe(tap, "e1000")
        ipxe(tap, "virtio")
        xen(tap, work)
        installer(tap)
    tap.end()


main()
