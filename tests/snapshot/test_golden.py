#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A snapshot that an older sosia wrote still loads, and the guest in it goes on.

format1.snapshot.xz.base64: a multiboot kernel that echoes what it reads from COM1 (vmtest_echo in
tests/machine/vmtest.h) and has echoed an x; 2 MiB, --cpu x86-64-v1, made on a processor by AMD.
A change of a state table must not make this fail: see "Changing a table" in docs/state-format.md.
"""
import base64
import lzma
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
import guest as g


def main():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        if "AuthenticAMD" not in f.read():
            g.skip_all("the golden snapshot is of a processor by AMD")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "golden")
        with open(os.path.join(HERE, "format1.snapshot.xz.base64"), "rb") as f:
            data = lzma.decompress(base64.b64decode(f.read()))
        with open(path, "wb") as f:
            f.write(data)
        for engine in ("interp", "bt"):
            # A byte above 127 goes to the exit port: (5 << 1) | 1.
            status, out, err = g.run("restore", path, "-e", engine, stdin=b"golden\x85", timeout=60)
            tap.ok(status == 11 and out == "golden", f"{engine}: format 1", status, out, err)
        status, _, err = g.run("restore", path, "--cpu", "host")
        tap.ok(status == 1 and "brings its own machine" in err, "no other processor", err)
        status, _, err = g.run("restore", path, "another")
        tap.ok(status == 1 and "one snapshot" in err, "one at a time", err)
        with open(path, "wb") as f:
            f.write(data[:-1])
        status, _, err = g.run("restore", path)
        tap.ok(status == 1 and "were written" in err, "a file that is cut short", err)
    tap.end()


main()
