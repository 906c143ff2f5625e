#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""AVX-512 in a Linux guest of model host, on both software engines: avx512.c, whose libc picks its functions for
AVX-512 there. It must find nothing wrong, here or there. And models without AVX-512 do not show it."""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g  # noqa: E402

DONE = re.compile(r"avx512: \d{4,} checks, 0 wrong")


def host_flags():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        found = re.search(r"^flags\s*:(.*)$", f.read(), re.M)
    return set(found.group(1).split()) if found else set()


def build(out):
    """Whether there is a compiler with a static C library."""
    source = os.path.join(g.TOP, "tests/guest/avx512.c")
    made = subprocess.run(["gcc", "-O1", "-static", "-pthread", "-mavx512f", "-mavx512bw", "-o", out, source],
                          stderr=subprocess.DEVNULL, check=False)
    return made.returncode == 0


def boot(image, engine, model, cpus):
    return g.run("run", "-e", engine, "--cpu", model, "-c", cpus, "--no-reboot", "-k", g.guest("cloud"), "-i",
                 image, "-a", "console=ttyS0 quiet panic=-1", timeout=600)


def main():
    if not {"avx512f", "avx512bw", "avx512vl"} <= host_flags():
        g.skip_all("this host has no AVX-512")
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        program = os.path.join(work, "avx512")
        if not build(program):
            g.skip_all("no static C library")
        native = subprocess.run([program], stdout=subprocess.PIPE, timeout=120, check=False).stdout.decode()
        tap.ok(DONE.search(native), "on the host itself", native)
        image = g.initrd(os.path.join(work, "avx512.cpio"), "-f", program + ":/bin/avx512", "-r",
                         "grep -q avx512f /proc/cpuinfo && avx512 || echo no avx512")
        for engine, cpus in (("bt", "2"), ("interp", "1")):
            status, out, err = boot(image, engine, "host", cpus)
            tap.ok(status == 0 and DONE.search(out), f"in a guest on {engine}", out, err)
        status, out, err = boot(image, "bt", "x86-64-v3", "1")
        tap.ok(status == 0 and "no avx512" in out, "not in a guest of x86-64-v3", out, err)
    tap.end()


main()
