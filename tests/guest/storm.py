# SPDX-License-Identifier: Apache-2.0
"""The storm and the kernel that patches itself: what test_storm.py and long_storm.py share."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from guest import TOP, BUILD, Tap, guest, initrd, need_guests, run  # noqa: E402

SOURCES = os.path.join(TOP, "tests", "guest", "storm")


def program():
    out = os.path.join(BUILD, "guests", "storm")
    source = os.path.join(SOURCES, "storm.c")
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(source):
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", out, source], check=True)
    return out


def libraries(path):
    """The shared libraries of a program of the host's, its loader first."""
    text = subprocess.run(["ldd", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    return sorted(set(re.findall(r"(/\S+) \(0x", text)))


def shows(tap, name, command, pattern, files, timeout, *options):
    image = os.path.join(BUILD, "guests", "storm-%d.cpio" % os.getpid())
    arguments = []
    for f in files:
        arguments += ["-f", f]
    initrd(image, *arguments, "-r", command)
    status, out, err = run("run", "-m", "1G", "--no-reboot", "-k", guest("cloud"), "-i", image, "-a",
                           "console=ttyS0 quiet panic=-1", *options, timeout=timeout)
    os.unlink(image)
    found = re.search(pattern, out)
    print("# " + (found.group(0) if found else "nothing"), flush=True)
    tap.ok(status == 0 and found and "Call Trace" not in out, name, out, err)


SMALL = (" in a code cache of 1 MiB", ("--bt-cache", "1M"))


def main(seconds, rounds, caches):
    need_guests("cloud", "busybox")
    tap = Tap()
    storm = [program() + ":/bin/storm"]
    for name, options in caches:
        shows(tap, "a storm on 4 processors" + name, "storm %d 8" % seconds, r"storm: [1-9]\d* rounds, 0 wrong",
              storm, seconds * 4 + 240, "-e", "bt", "-c", "4", *options)
        shows(tap, "a kernel that patches itself" + name, "sh /bin/patch.sh %d" % rounds,
              r"patched: \d+ rounds, 0 wrong", [os.path.join(SOURCES, "patch.sh") + ":/bin/patch.sh"],
              rounds * 60 + 240, "-e", "bt", "-c", "4", *options)
    luajit = "/usr/bin/luajit"
    if os.path.exists(luajit):
        script = os.path.join(SOURCES, "jit.lua")
        want = subprocess.run([luajit, script], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        files = [luajit, script + ":/jit.lua"] + ["%s:%s" % (lib, lib) for lib in libraries(luajit)]
        for name, options in (("", ()), SMALL):
            shows(tap, "luajit" + name, "luajit /jit.lua", re.escape(want), files, 300, "-e", "bt", *options)
    else:
        tap.skip("luajit", "it is not installed")
    tap.end()
