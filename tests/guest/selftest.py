# SPDX-License-Identifier: Apache-2.0
"""The userland self-test (tests/guest/selftest/) in Linux guests: what test_ and long_selftest share.

Its "hash" lines are results of instructions: they must be the host's own. Its "ok" lines must be ok.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(g.GUESTS, "selftest")
BITS = {"cloud": [64, 32], "amd64": [64, 32], "686": [32], "686-pae": [32]}
MODELS = ["x86-64-v1", "x86-64-v2", "x86-64-v3", "host"]
# Groups of hash lines that a model must not lack.
GROUPS = {
    "x86-64-v1": {"int", "x87", "mmx", "sse", "sse2"},
    "x86-64-v2": {"sse3", "ssse3", "sse4_1", "sse4_2"},
    "x86-64-v3": {"avx", "avx2", "fma", "f16c"},
}
# Marks where one program's lines begin.
HEAD = re.compile(r"# selftest, (\d+)-bit$")
DONE = re.compile(r"selftest done: (\d+) tests, 0 failed$")


def hashes(lines):
    """{name: value} of hash lines."""
    found = [line.split() for line in lines if line.startswith("hash ")]
    return {(w[1], w[2]): w[3] for w in found if len(w) == 4}


def build():
    """The programs; None, or why there are none."""
    made = subprocess.run(["make", "-s", "-f", os.path.join(HERE, "selftest/Makefile"), "OUT=" + OUT],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return None if made.returncode == 0 else made.stdout.decode(errors="replace")


class Host:
    """What this host's processor answers."""

    def __init__(self):
        self.hashes = {}
        for bits in (64, 32):
            r = subprocess.run([os.path.join(OUT, f"selftest{bits}"), "hashes"], timeout=120,
                               stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
            self.hashes[bits] = hashes(r.stdout.decode(errors="replace").splitlines())


def make_initrds(work):
    """{bits: path}. The 64-bit kernels run both programs."""
    both = [os.path.join(OUT, f"selftest{bits}") for bits in (64, 32)]
    return {
        64: g.initrd(os.path.join(work, "64.gz"), "-f", both[0], "-f", both[1], "-r",
                     "/bin/selftest64 && /bin/selftest32"),
        32: g.initrd(os.path.join(work, "32.gz"), "-b", g.guest("busybox-i386", "busybox"), "-f",
                     both[1], "-r", "/bin/selftest32"),
    }


def needed_groups(model):
    need = set()
    for m in MODELS[:3]:
        need |= GROUPS[m]
        if m == model:
            return need
    return set()


def judge(host, kernel, model, lines):
    """What is wrong with a guest's output."""
    bad = [line for line in lines if line.startswith("not ok")]
    parts, now = {}, None
    for line in lines:
        m = HEAD.match(line)
        if m:
            now = parts.setdefault(int(m.group(1)), [])
        elif now is not None:
            now.append(line)
    for bits in BITS[kernel]:
        part = parts.get(bits, [])
        done = [m for m in map(DONE.match, part) if m]
        if not done or int(done[0].group(1)) < 30:
            bad.append(f"the {bits}-bit program did not finish well")
        got = hashes(part)
        want = host.hashes[bits]
        bad += [f"{bits}-bit {' '.join(n)}: {v}, the host has {want.get(n)}"
                for n, v in got.items() if want.get(n) != v]
        # What the host lacks it cannot give.
        need = needed_groups(model) & {n[0] for n in want}
        lack = need - {n[0] for n in got}
        if lack or (model == "host" and set(got) != set(want)):
            bad.append(f"{bits}-bit results are missing: {' '.join(sorted(lack)) or 'some'}")
    return bad


def run(tap, host, initrds, kernel, engine, model, cpus=1):
    name = f"{kernel} on {engine}, {model}, {cpus} cpu(s)"
    status, out, err = g.run("run", "-e", engine, "-c", str(cpus), "--cpu", model, "--no-reboot",
                             "-k", g.guest(kernel), "-i", initrds[max(BITS[kernel])], "-a",
                             "console=ttyS0 quiet vsyscall=emulate", timeout=600)
    lines = [line.rstrip("\r") for line in out.splitlines()]
    bad = judge(host, kernel, model, lines)
    if status != 0:
        bad += [f"status {status}"] + err.splitlines()[-3:] + lines[-5:]
    tap.ok(not bad, name, *bad[:20])


def main(jobs):
    """jobs: (kernel, engine, model, cpus)"""
    import tempfile
    tap = g.Tap()
    g.need_guests(*sorted({job[0] for job in jobs}), "busybox", "busybox-i386")
    why = build()
    if why:
        tap.ok(False, "the self-test builds", why)
        tap.end()
    host = Host()
    with tempfile.TemporaryDirectory() as work:
        initrds = make_initrds(work)
        for job in jobs:
            run(tap, host, initrds, *job)
    tap.end()
