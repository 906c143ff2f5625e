#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`sosia disk` beside qemu-img: every format in both directions, and each command."""
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

MIB = 1 << 20
SIZE = 24 * MIB + 512
FORMATS = [  # ours, theirs, our options, their options
    ("raw", "raw", "", ""),
    ("qcow2", "qcow2", "", ""),
    ("qcow2", "qcow2", "cluster_size=512", "cluster_size=512"),
    ("qcow2", "qcow2", "compat=0.10", "compat=0.10"),
    ("qcow2", "qcow2", "compression_type=zstd,refcount_bits=64", "compression_type=zstd"),
    ("vdi", "vdi", "", ""),
    ("vdi", "vdi", "subformat=fixed", "static=on"),
    ("vhd", "vpc", "", ""),
    ("vhd", "vpc", "subformat=fixed", "subformat=fixed"),
    ("vhdx", "vhdx", "block_size=1M", "block_size=1M"),
    ("vhdx", "vhdx", "subformat=fixed", "subformat=fixed"),
] + [("vmdk", "vmdk", "subformat=" + s, "subformat=" + s)
     for s in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
               "streamOptimized")]

tap = g.Tap()
have_qemu = shutil.which("qemu-img") is not None


def run(*args):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL)


def sosia(*args):
    return run(g.SOSIA, "disk", *args)


def good(name, *args):
    r = sosia(*args)
    tap.ok(r.returncode == 0, name, r.stderr, r.stdout)
    return r.stdout


def refused(name, needle, *args):
    """Status 1, one line that says why, nothing on standard output."""
    r = sosia(*args)
    tap.ok(r.returncode == 1 and needle in r.stderr and r.stderr.count("\n") == 1 and
           r.stdout == "", name, r.returncode, r.stderr, r.stdout)


def digest(path, size=SIZE):
    with open(path, "rb") as f:
        data = f.read(size)
    return hashlib.sha256(data).hexdigest(), len(data)


def make_source(path):
    rng = random.Random(7)
    with open(path, "wb") as f:
        f.truncate(SIZE)
        for _ in range(60):
            f.seek(rng.randrange(SIZE // 4096 - 20) * 4096)
            f.write((rng.randbytes(1500) + b"text, text, " * 100) * rng.randrange(1, 12))
        f.seek(SIZE - 512)
        f.write(b"the end " * 64)


def formats(source):
    for ours, theirs, options, their_options in FORMATS:
        label = ours + (" " + options if options else "")
        image = "image." + ours
        o = ["-o", options] if options else []
        r = sosia("convert", "-q", "-O", ours, *o, source, image)
        tap.ok(r.returncode == 0, label + " is written", r.stderr)
        back = sosia("convert", "-q", "-f", ours, "-O", "raw", image, "back")
        tap.ok(back.returncode == 0 and digest("back") == digest(source), label + " is read",
               back.stderr)
        if have_qemu:
            r = run("qemu-img", "compare", "-q", "-f", "raw", "-F", theirs, source, image)
            tap.ok(r.returncode == 0, label + ": qemu-img reads the same", r.stdout, r.stderr)
            r = run("qemu-img", "check", "-q", "-f", theirs, image)
            tap.ok(r.returncode in (0, 63), label + ": qemu-img finds no error", r.stdout, r.stderr)
        clean()
        if have_qemu:
            o = ["-o", their_options] if their_options else []
            r = run("qemu-img", "convert", "-f", "raw", "-O", theirs, *o, source, image)
            if r.returncode == 0:
                back = sosia("convert", "-q", "-f", ours, "-O", "raw", image, "back")
                tap.ok(back.returncode == 0 and digest("back") == digest(source),
                       label + " of qemu-img's is read", back.stderr)
                tap.ok(ours == "raw" or sosia("check", "-f", ours, image).returncode == 0,
                       label + " of qemu-img's is good")
            clean()


def clean():
    for name in os.listdir("."):
        if name != "source":
            os.unlink(name)


def compressed(source):
    for kind in ("zlib", "zstd"):
        good("compressed by " + kind, "convert", "-c", "-O", "qcow2", "-o",
             "compression_type=" + kind, source, "small.qcow2")
        good("plain", "convert", "-O", "qcow2", source, "large.qcow2")
        tap.ok(os.path.getsize("small.qcow2") < os.path.getsize("large.qcow2") / 2,
               kind + " makes it smaller")
        good("read again", "convert", "-O", "raw", "small.qcow2", "back")
        tap.ok(digest("back") == digest(source), kind + " comes back the same")
    refused("raw is not compressed", "cannot be compressed", "convert", "-c", "-O", "raw", source,
            "x")
    tap.ok(not os.path.exists("x"), "nothing is left of what was refused")
    clean()


def sparse():
    with open("empty", "wb") as f:
        f.truncate(1 << 40)
    start = time.time()
    good("an empty terabyte", "convert", "-O", "qcow2", "empty", "t.qcow2")
    good("and back", "convert", "-O", "raw", "t.qcow2", "t.raw")
    tap.ok(time.time() - start < 20 * g.PATIENCE, "takes no time")
    tap.ok(os.stat("t.raw").st_size == 1 << 40 and os.stat("t.raw").st_blocks < 100,
           "and no space")
    clean()


def backing(source):
    good("base", "convert", "-O", "qcow2", source, "base.qcow2")
    refused("its format must be said", "format", "create", "-f", "qcow2", "-b", "base.qcow2", "top")
    good("overlay", "create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    info = json.loads(good("info", "info", "--json", "top.qcow2"))
    tap.ok(info["backing-filename"] == "base.qcow2" and info["virtual-size"] == SIZE and
           info["backing-filename-format"] == "qcow2", "info names it", info)
    good("overlay reads through", "convert", "-O", "raw", "top.qcow2", "back")
    tap.ok(digest("back") == digest(source), "the same")
    chain = json.loads(good("chain", "info", "--chain", "--json", "top.qcow2"))
    tap.ok([i["filename"] for i in chain] == ["top.qcow2", "base.qcow2"], "chain of two", chain)

    # A changed copy on the same base, holding only what differs.
    with open(source, "rb") as f:
        data = bytearray(f.read())
    data[5 * MIB:5 * MIB + 300000] = b"changed " * 37500
    data[9 * MIB:9 * MIB + 200000] = bytes(200000)
    with open("changed", "wb") as f:
        f.write(data)
    good("against a base", "convert", "-O", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "changed",
         "top.qcow2")
    tap.ok(os.path.getsize("top.qcow2") < MIB, "is small")
    good("reads", "convert", "-O", "raw", "top.qcow2", "back")
    tap.ok(digest("back") == digest("changed"), "as the changed one")
    if have_qemu:
        r = run("qemu-img", "compare", "-q", "changed", "top.qcow2")
        tap.ok(r.returncode == 0, "qemu-img agrees", r.stdout)

    before = digest("base.qcow2", 1 << 30)
    good("rebase onto nothing", "merge", "-b", "", "top.qcow2")
    tap.ok("backing-filename" not in json.loads(good("info", "info", "--json", "top.qcow2")),
           "has no base")
    good("reads", "convert", "-O", "raw", "top.qcow2", "back")
    tap.ok(digest("back") == digest("changed"), "as before")
    good("rebase onto the base", "merge", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    tap.ok(digest("base.qcow2", 1 << 30) == before, "the base is not touched")
    good("merge", "merge", "top.qcow2")
    good("base reads", "convert", "-O", "raw", "base.qcow2", "back")
    tap.ok(digest("back") == digest("changed"), "the base has what was merged")
    good("top reads", "convert", "-O", "raw", "top.qcow2", "back")
    tap.ok(digest("back") == digest("changed"), "the top shows it")
    runs = json.loads(good("map", "map", "--json", "top.qcow2"))
    tap.ok(all(r["depth"] == 1 for r in runs if r["data"]), "and holds nothing itself", runs)
    for name in ("top.qcow2", "base.qcow2"):
        good("check " + name, "check", name)
    good("vmdk base", "convert", "-O", "vmdk", source, "base.vmdk")
    good("vmdk on it", "convert", "-O", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "changed",
         "top.vmdk")
    if have_qemu:
        r = run("qemu-img", "compare", "-q", "changed", "top.vmdk")
        tap.ok(r.returncode == 0, "qemu-img agrees", r.stdout)
    good("merge", "merge", "top.vmdk")
    for name in ("top.vmdk", "base.vmdk"):
        good(name + " reads", "convert", "-O", "raw", name, "back")
        tap.ok(digest("back") == digest("changed"), "what was merged")
    clean()


def sizes():
    """Disks of nothing, of a sector, and as large as a format can be."""
    for fmt, most in (("raw", "8191P"), ("qcow2", "2048T"), ("vmdk", "2047G"), ("vdi", "4T"),
                      ("vhd", "2040G"), ("vhdx", "64T")):
        for size in ("0", "512", most):
            if fmt == "raw" and size == most:
                continue  # more than a file of the host can be
            name = "x." + fmt
            good("%s of %s" % (fmt, size), "create", "-f", fmt, name, size)
            r = sosia("check", "-q", "-f", fmt, name)
            tap.ok(r.returncode == 0 or fmt == "raw", "is good", r.stderr)
            if have_qemu and size != "0":
                theirs = "vpc" if fmt == "vhd" else fmt
                r = run("qemu-img", "info", "-f", theirs, "--output=json", name)
                ours = json.loads(good("info", "info", "-f", fmt, "--json", name))
                tap.ok(r.returncode == 0 and
                       json.loads(r.stdout)["virtual-size"] == ours["virtual-size"],
                       "qemu-img sees the same size", r.stdout, r.stderr, ours)
            os.unlink(name)
    refused("too large", "too large", "create", "-f", "vhd", "x", "2041G")
    clean()


def snapshots():
    good("create", "create", "-f", "qcow2", "s.qcow2", "8M")
    good("snapshot", "snapshot", "create", "s.qcow2", "first")
    refused("once", "already", "snapshot", "create", "s.qcow2", "first")
    good("another", "snapshot", "create", "s.qcow2", "second one")
    text = good("list", "snapshot", "list", "s.qcow2")
    tap.ok("first" in text and "second one" in text, "both are listed", text)
    if have_qemu:
        r = run("qemu-img", "snapshot", "-l", "s.qcow2")
        tap.ok("second one" in r.stdout, "qemu-img lists them", r.stdout)
        run("qemu-img", "snapshot", "-c", "third", "s.qcow2")
        good("qemu-img's is applied", "snapshot", "apply", "s.qcow2", "third")
        r = run("qemu-img", "check", "s.qcow2")
        tap.ok(r.returncode == 0, "qemu-img check", r.stdout)
    good("delete", "snapshot", "delete", "s.qcow2", "first")
    refused("is gone", "no snapshot", "snapshot", "apply", "s.qcow2", "first")
    good("one of them converted", "convert", "-l", "second one", "-O", "raw", "s.qcow2", "back")
    good("another format", "create", "-f", "vdi", "v.vdi", "4M")
    refused("has none", "no snapshots", "snapshot", "create", "v.vdi", "x")
    clean()


def resize():
    for name, fmt in (("r.raw", "raw"), ("r.qcow2", "qcow2")):
        good("create", "create", "-f", fmt, name, "4M")
        good("grow", "resize", name, "+1G")
        size = json.loads(good("info", "info", "--json", name))["virtual-size"]
        tap.ok(size == 4 * MIB + (1 << 30), fmt + " grew", size)
        refused("not by accident", "--shrink", "resize", name, "1M")
        good("shrink", "resize", "--shrink", name, "1M")
        tap.ok(json.loads(good("info", "info", "--json", name))["virtual-size"] == MIB, "shrank")
    good("less", "resize", "--shrink", "r.qcow2", "-512K")
    tap.ok(json.loads(good("info", "info", "--json", "r.qcow2"))["virtual-size"] == MIB // 2, "half")
    good("check", "check", "r.qcow2")
    clean()


def repair(source):
    good("image", "convert", "-O", "qcow2", source, "d.qcow2")
    with open("d.qcow2", "r+b") as f:
        f.seek(2 * 65536 + 2 * 7)  # refcounts of the clusters 7 to 10
        f.write(b"\0\0\0\5\0\0\0\2")
    r = sosia("check", "d.qcow2")
    tap.ok(r.returncode == 2 and "error" in r.stdout, "damage is seen", r.returncode, r.stdout)
    r = sosia("check", "--repair", "d.qcow2")
    tap.ok(r.returncode == 0, "and repaired", r.stdout, r.stderr)
    good("clean", "check", "d.qcow2")
    if have_qemu:
        r = run("qemu-img", "check", "d.qcow2")
        tap.ok(r.returncode == 0, "qemu-img check", r.stdout)
    good("reads", "convert", "-O", "raw", "d.qcow2", "back")
    tap.ok(digest("back") == digest(source), "nothing is lost")
    # As a VM with lazy refcounts leaves it that is killed: nothing counted, the dirty bit set.
    good("image", "convert", "-O", "qcow2", "-o", "lazy_refcounts=on", source, "d.qcow2")
    with open("d.qcow2", "r+b") as f:
        f.seek(72 + 7)
        f.write(b"\1")
        f.seek(2 * 65536 + 2 * 5)
        f.write(bytes(200))
    good("merging it counts again", "resize", "d.qcow2", "+1M")
    good("clean", "check", "d.qcow2")
    clean()


def refusals(source):
    refused("no command", "unknown command", "frobnicate")
    refused("no size", "how large", "create", "x")
    refused("bad size", "not a size", "create", "x", "10Q")
    refused("bad option", "unknown", "create", "-f", "qcow2", "-o", "colour=red", "x", "1M")
    refused("option of another format", "do not know", "create", "-f", "raw", "-o",
            "cluster_size=4096", "x", "1M")
    refused("bad cluster size", "cluster_size", "create", "-f", "qcow2", "-o", "cluster_size=1000",
            "x", "1M")
    refused("missing", "No such file", "info", "missing")
    refused("format", "cannot be made", "create", "-f", "zip", "x", "1M")
    refused("itself", "is the source", "convert", "-O", "qcow2", source, source)
    refused("a directory", "", "convert", "-O", "qcow2", source, "/")
    tap.ok(not os.path.exists("x"), "nothing was made")
    if have_qemu:
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "e.qcow2", "1M")
        refused("extended L2", "extended L2", "info", "e.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=e.raw", "f.qcow2", "1M")
        refused("data file", "data file", "info", "f.qcow2")
        # It measures the host's speed first, and gives up where that comes out as nothing.
        run("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100", "l.qcow2", "1M")
        if os.path.exists("l.qcow2"):
            refused("encrypted", "encrypted (LUKS)", "info", "l.qcow2")
        else:
            tap.skip("encrypted", "qemu-img made no such image")
    clean()


def interrupted(source):
    """A conversion that is stopped leaves the old target, and nothing else; so does a killed one,
    but for its own leavings."""
    good("target", "create", "-f", "qcow2", "t.qcow2", "1M")
    before = digest("t.qcow2")
    with open("big", "wb") as f:
        for _ in range(100):
            f.write(os.urandom(MIB))
    seen = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        p = subprocess.Popen([g.SOSIA, "disk", "convert", "-c", "-O", "qcow2", "big", "t.qcow2"],
                             stderr=subprocess.DEVNULL)
        # While it writes: its staging file is there, and is not the target yet.
        until = time.monotonic() + 10
        while (set(os.listdir(".")) <= {"source", "big", "t.qcow2"} and p.poll() is None and
               time.monotonic() < until):
            time.sleep(0.005)
        p.send_signal(number)
        status = p.wait()
        seen += status == -number
        left = [n for n in os.listdir(".") if n not in ("source", "big", "t.qcow2")]
        tap.ok(digest("t.qcow2") == before, "target after signal %d" % number)
        tap.ok(number == signal.SIGKILL or not left, "nothing left after signal %d" % number, left)
    tap.ok(seen == 3, "ends by the signal")
    for name in os.listdir("."):
        if os.path.isdir(name):
            shutil.rmtree(name)
    clean()


def locks():
    good("create", "create", "-f", "qcow2", "l.qcow2", "4M")
    if have_qemu and shutil.which("qemu-io"):
        p = subprocess.Popen(["qemu-io", "-f", "qcow2", "l.qcow2"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        p.stdin.write("write 0 4k\n")
        p.stdin.flush()
        while "ops" not in p.stdout.readline():
            pass
        refused("QEMU has it", "in use by another VM", "resize", "l.qcow2", "8M")
        p.stdin.close()
        p.wait()
    good("free", "resize", "l.qcow2", "8M")
    clean()


def nbd(source):
    """From and to a server on a Unix socket, which keeps a qcow2 image."""
    if "libnbd" not in run(g.SOSIA, "--version").stdout or shutil.which("qemu-nbd") is None:
        return tap.ok(True, "nbd # SKIP no libnbd or no qemu-nbd here")
    good("image", "create", "-f", "qcow2", "n.qcow2", str(SIZE))
    server = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", os.path.abspath("socket"),
                               "--discard=unmap", "n.qcow2"])
    uri = "nbd+unix:///?socket=" + os.path.abspath("socket")
    try:
        for _ in range(200):
            if os.path.exists("socket"):
                break
            time.sleep(0.05)
        info = json.loads(good("info", "info", "--json", uri))
        tap.ok(info["virtual-size"] == SIZE and info["format"] == "nbd", "info of a server", info)
        good("to a server", "convert", "-O", "nbd", source, uri)
        good("from a server", "convert", "-O", "raw", uri, "back")
        tap.ok(digest("back") == digest(source), "the same")
        runs = json.loads(good("map", "map", "--json", uri))
        tap.ok(any(not r["data"] for r in runs), "the server knows its holes")
    finally:
        server.terminate()
        server.wait()
    refused("nobody there", "socket", "info", uri)
    clean()


def main():
    with tempfile.TemporaryDirectory(
            dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as work:
        os.chdir(work)
        make_source("source")
        before = digest("source")
        formats("source")
        compressed("source")
        sparse()
        backing("source")
        sizes()
        snapshots()
        resize()
        repair("source")
        refusals("source")
        interrupted("source")
        locks()
        nbd("source")
        tap.ok(digest("source") == before, "the source was never touched")
        os.chdir("/")
    print("1..%d" % tap.count)
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
