#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every Debian kernel with 1 and 4 processors on each software engine: all online, power-off."""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

KERNELS = {"cloud": 64, "amd64": 64, "686": 32, "686-pae": 32}
COMMAND = "echo cpus $(cat /sys/devices/system/cpu/online) $(grep -c ^processor /proc/cpuinfo)"


def boot(tap, kernel, initrd, engine, cpus):
    start = time.monotonic()
    status, out, err = g.run("run", "-v", "-e", engine, "-c", str(cpus), "--no-reboot", "-k",
                             g.guest(kernel), "-i", initrd, "-a", "console=ttyS0 quiet", timeout=600)
    took = time.monotonic() - start
    online = "0" if cpus == 1 else f"0-{cpus - 1}"
    # The kernel of 1 processor at most is none of Debian's: each is to bring up all.
    good = status == 0 and f"cpus {online} {cpus}" in out and "status 0" in out
    tap.ok(good, f"{kernel} on {engine}, {cpus} cpu(s)", out, err)
    print(f"# {took:.1f} s; {err.strip().splitlines()[-1] if err else ''}", flush=True)


def main():
    tap = g.Tap()
    g.need_guests(*KERNELS, "busybox", "busybox-i386")
    with tempfile.TemporaryDirectory() as work:
        initrds = {64: g.initrd(os.path.join(work, "64.gz"), "-r", COMMAND),
                   32: g.initrd(os.path.join(work, "32.gz"), "-b",
                                g.guest("busybox-i386", "busybox"), "-r", COMMAND)}
        for kernel, bits in KERNELS.items():
            for engine in ("interp", "bt"):
                for cpus in (1, 4):
                    boot(tap, kernel, initrds[bits], engine, cpus)
    tap.end()


main()
