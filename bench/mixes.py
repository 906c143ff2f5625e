# SPDX-License-Identifier: Apache-2.0
"""The two benchmark mixes: what runs natively, and the initramfs in which the same runs as a guest."""
import os
import random
import shutil
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GUEST = os.path.join(TOP, "bench", "guest")

# What a day's work needs of Debian, beside its minimal system.
PACKAGES = "gcc,libc6-dev,xz-utils,gzip,openssl,python3,perl,sqlite3,gawk,bash,tar"
SUITE = "bookworm"


class Mix:
    """native: command line before the case names; initrd: file; memory: of the guest."""

    def __init__(self, native, initrd, memory):
        self.native, self.initrd, self.memory = native, initrd, memory


def cpio(entries):
    """An initramfs (newc): entries are (name, mode, data, (major, minor))."""
    parts = []
    for number, (name, mode, data, device) in enumerate(entries):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % v for v in fields) + encoded
        parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]
    return b"".join(parts)


CONSOLE = ("dev/console", 0o20600, b"", (5, 1))
END = ("TRAILER!!!", 0, b"", (0, 0))


def older(target, *sources):
    return not os.path.exists(target) or any(os.path.getmtime(target) < os.path.getmtime(s) for s in sources)


def loops(out):
    """bench/guest/mix.c as a static program, and as the only file of an initramfs."""
    program, initrd = os.path.join(out, "mix"), os.path.join(out, "mix.cpio")
    source = os.path.join(GUEST, "mix.c")
    if older(program, source):
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", program, source], check=True)
    with open(program, "rb") as f:
        data = f.read()
    with open(initrd, "wb") as f:
        f.write(cpio([("dev", 0o40755, b"", (0, 0)), CONSOLE, ("init", 0o100755, data, (0, 0)), END]))
    return Mix([program], initrd, 1024)


def large_source(functions=190):
    """A C file of 70 kB: arithmetic, loops, switches, calls and structs, the same one every time."""
    pick = random.Random(1)
    lines = ["struct s { int a, b; long c; double d; struct s *next; };", "static long sink[64];"]
    for n in range(functions):
        k = [pick.randrange(3, 97) for _ in range(8)]
        call = "f%d(p, x - 1)" % pick.randrange(n) if n else "x"
        lines.append("""long f%d(struct s *p, long x)
{
    long r = x * %d + p->a;
    for (int i = 0; i < %d; i++) {
        r ^= (r << %d) + sink[(i * %d + x) & 63];
        if (r %% %d == 0) { r += %s; p->d *= 1.0 + r; }
    }
    switch (x & 7) { case 0: r += p->b; break; case 3: r -= %d; break; case 5: p->c = r; break; default: r ^= p->c; }
    while (p->next && r > %d) { p = p->next; r -= p->c; }
    return r;
}""" % (n, k[0], k[1], k[2] % 13 + 1, k[3], k[4], call, k[5], k[6] * 1000))
    return "\n".join(lines) + "\n"


def text_lines(count):
    pick = random.Random(2)
    word = ["".join(pick.choice("etaoinshrdlucmfwyp") for _ in range(pick.randrange(2, 9))) for _ in range(4000)]
    return "\n".join(" ".join(word[int(pick.paretovariate(0.7)) % 4000] for _ in range(9)) for _ in range(count)) + "\n"


def day_tree(root):
    """Debian's userland with the day's inputs in /bench."""
    if not os.path.exists(os.path.join(root, "usr", "bin", "sqlite3")):
        shutil.rmtree(root, ignore_errors=True)
        no_docs = ["--dpkgopt=path-exclude=/usr/share/%s/*" % d for d in ("doc", "man", "locale", "info")]
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + PACKAGES, *no_docs, SUITE, root],
                       check=True, stdout=subprocess.DEVNULL)
        for cache in ("var/lib/apt/lists", "var/cache"):
            shutil.rmtree(os.path.join(root, cache), ignore_errors=True)
    bench = os.path.join(root, "bench")
    os.makedirs(bench, exist_ok=True)
    for name in ("day.sh", "work.py", "work.pl", "work.sql", "small.c"):
        shutil.copy(os.path.join(GUEST, name), bench)
    with open(os.path.join(bench, "large.c"), "w") as f:
        f.write(large_source())
    lines = text_lines(40000)
    with open(os.path.join(bench, "lines"), "w") as f:
        f.write(lines)
    # 11 MB, half of it text and half of it programs.
    data = lines.encode() * 3
    for name in ("usr/bin/perl", "usr/bin/openssl", "usr/bin/sqlite3", "usr/bin/bash"):
        with open(os.path.join(root, name), "rb") as f:
            data += f.read()
    with open(os.path.join(bench, "text"), "wb") as f:
        f.write(data[:11 << 20])


def tree_entries(root):
    """Every file, directory and link below root, as cpio entries; devices are the guest's own."""
    yield CONSOLE[0].split("/")[0], 0o40755, b"", (0, 0)
    yield CONSOLE
    yield "init", 0o120777, b"/bench/day.sh", (0, 0)
    for at, directories, files in os.walk(root):
        for name in sorted(directories + files):
            path = os.path.join(at, name)
            inside = os.path.relpath(path, root)
            mode = os.lstat(path).st_mode
            if inside.split("/")[0] == "dev" or (mode & 0o170000) not in (0o040000, 0o100000, 0o120000):
                continue
            if os.path.islink(path):
                yield inside, mode, os.readlink(path).encode(), (0, 0)
            elif os.path.isdir(path):
                yield inside, mode, b"", (0, 0)
            else:
                with open(path, "rb") as f:
                    yield inside, mode, f.read(), (0, 0)
    yield END


def day(out):
    """Natively by chroot, so that the very same programs run: in a user namespace if not as root."""
    root, initrd = os.path.join(out, "day"), os.path.join(out, "day.cpio")
    day_tree(root)
    with open(initrd, "wb") as f:
        f.write(cpio(tree_entries(root)))
    native = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    return Mix(native + ["chroot", root, "/bench/day.sh"], initrd, 3072)


MIXES = {"loops": loops, "day": day}
