#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The real gdb at the stub: breakpoints by symbol, steps, watchpoints, registers; and the guest does not notice."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

HERE = os.path.dirname(os.path.abspath(__file__))
METAL = os.path.join(HERE, "../metal")
FLAGS = ("-std=gnu17 -O1 -g -mno-red-zone -ffreestanding -nostdlib -fno-pic -fno-pie "
         "-fno-stack-protector -fno-asynchronous-unwind-tables -mgeneral-regs-only -fcf-protection=none "
         "-fno-strict-aliasing -static -Wl,--build-id=none -Wl,-n,--no-warn-rwx-segments").split()


def kernel(work, bits):
    """(multiboot kernel, the same with symbols for gdb)"""
    symbols, image = os.path.join(work, f"k.{bits}"), os.path.join(work, f"k{bits}.elf")
    subprocess.run(["gcc", f"-m{bits}", *FLAGS, "-I", METAL, "-Wl,-T," + os.path.join(METAL, "link.ld"),
                    "-o", symbols, os.path.join(METAL, f"rt{bits}.S"), os.path.join(METAL, "rt.c"),
                    os.path.join(HERE, "gdb_kernel.c")], check=True)
    subprocess.run(["objcopy", "-O", "elf32-i386", symbols, image], check=True)
    return image, symbols


class Machine:
    """sosia with a stub, at a Unix socket in a directory of ours."""

    def __init__(self, work, *args, option=""):
        self.socket = os.path.join(work, "gdb")
        self.child = subprocess.Popen([g.SOSIA, "run", "--gdb", self.socket + option, *args], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = self.child.stderr.readline()
        self.listens = b"target remote" in first

    def end(self, seconds=120):
        """(status, output); status None: it does not end by itself"""
        try:
            out, _ = self.child.communicate(timeout=seconds * g.PATIENCE)
            return self.child.returncode, out.decode(errors="replace")
        except subprocess.TimeoutExpired:
            self.child.kill()
            return None, self.child.communicate()[0].decode(errors="replace")


def gdb(machine, symbols, *commands):
    """What gdb says to commands, one script."""
    first = ["set pagination off", "set confirm off", "set width 0", f"target remote {machine.socket}"]
    args = [a for c in first + list(commands) for a in ("-ex", c)]
    r = subprocess.run(["gdb", "-q", "-nx", "-batch", *args, *([symbols] if symbols else [])],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=180 * g.PATIENCE, check=False)
    return r.stdout.decode(errors="replace")


def has(text, *patterns):
    """All in this order?"""
    at = 0
    for p in patterns:
        m = re.compile(p, re.M).search(text, at)
        if m is None:
            return False
        at = m.end()
    return True


def session(tap, work, engine, image, symbols):
    m = Machine(work, "-e", engine, "-m", "64M", "-k", image, "--exit-port", "0xf4", "--no-reboot", "-S")
    if not tap.ok(m.listens, f"{engine}: the stub says where it listens"):
        m.end(0)
        return
    text = gdb(m, symbols, "print $rip == _start", "break tick", "continue", "backtrace", "info breakpoints",
               "p/x *(unsigned char *)tick == *(unsigned char *)copy", "info registers", "stepi", "stepi",
               "p $rip > tick && $rip < tick + 64", "finish", "delete",
               "break tick if n == 500", "continue", "print n", "print total", "detach")
    tap.ok(has(text, r"\$1 = 1"), f"{engine}: it stands at the kernel's first instruction", text)
    tap.ok(has(text, r"Breakpoint 1, tick \(n=", r"#1 .* in test_main"),
           f"{engine}: a breakpoint by symbol, and who called", text)
    tap.ok(has(text, r"\$2 = 0x1"), f"{engine}: memory shows no breakpoint", text)
    tap.ok(has(text, r"^rip .*<tick>", r"^eflags .*\[", r"^gs_base ", r"^cr0 .*PE.*PG", r"^cr4 .*PAE",
               r"^efer .*LMA"), f"{engine}: registers of a processor in 64-bit mode", text)
    tap.ok(has(text, r"\$3 = 1", r"^test_main \(\)"), f"{engine}: steps, and to the caller", text)
    tap.ok(has(text, r"Breakpoint 2, tick \(n=[^)]*500\)", r"= 500\n", r"= 124750\n"),
           f"{engine}: a condition, evaluated 500 times", text)
    # Again, while it runs, or has come to its end already.
    status, out = m.end()
    tap.ok(status == 1 and "not ok" not in out and "1..2" in out,
           f"{engine}: detached, the guest goes on, and has noticed nothing", status, out)


def watching(tap, work, engine, image, symbols):
    m = Machine(work, "-e", engine, "-m", "64M", "-k", image, "--exit-port", "0xf4", "--no-reboot", "-S")
    text = gdb(m, symbols, "break test_main", "continue", "delete", "watch seldom", "continue", "continue",
               "backtrace 1", "delete", "rwatch copy[3]", "awatch total", "continue", "print n",
               "delete", "break tick", "continue", "set var total = total + 1", "delete", "info threads", "monitor info memory", "detach")
    tap.ok(has(text, r"Old value = 0\n", r"New value = 99\n", r"Old value = 99\n", r"New value = 199\n",
               r"#0 .* in tick \(n=[^)]*199\)"), f"{engine}: a variable is watched", text)
    tap.ok(has(text, r"access \(read/write\) watchpoint .*: total", r"= 200\n"),
           f"{engine}: accesses of another", text)
    tap.ok(has(text, r"\* 1 .*cpu0", r"64 MiB of RAM"), f"{engine}: threads; monitor", text)
    status, out = m.end()
    tap.ok(status != 1 and out.count("not ok") == 1 and "2 - and so is the code" in out,
           f"{engine}: gdb's change of the variable was the only one", status, out)


def narrow(tap, work, engine, image, symbols):
    m = Machine(work, "-e", engine, "-m", "64M", "-k", image, "--exit-port", "0xf4", "--no-reboot", "-S",
                option=",arch=i386")
    text = gdb(m, symbols, "break tick", "continue", "backtrace", "info registers", "delete", "watch seldom",
               "continue", "detach")
    tap.ok(has(text, r"Breakpoint 1, tick \(n=", r"in test_main", r"^eax ", r"^eip .*<tick>", r"^cr0 .*PE",
               r"New value = 99\n"), f"{engine}: a 32-bit kernel, with its own registers", text)
    status, out = m.end()
    tap.ok(status == 1 and "not ok" not in out, f"{engine}: which has noticed nothing", status, out)


def main():
    if not shutil.which("gdb"):
        g.skip_all("no gdb")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        image, symbols = kernel(work, 64)
        image32, symbols32 = kernel(work, 32)
        for engine in os.environ.get("ENGINES", "interp bt").split():
            session(tap, work, engine, image, symbols)
            watching(tap, work, engine, image, symbols)
            narrow(tap, work, engine, image32, symbols32)
    tap.end()


main()
