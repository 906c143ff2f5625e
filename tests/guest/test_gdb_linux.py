#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gdb and a stock Debian kernel on two processors: symbols from its /proc/kallsyms, breakpoints, steps, threads."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

PROMPT = r"# (\x1b\[6n)?$"
WANTED = "_text|do_sys_openat2|vfs_read|jiffies|jiffies_64|do_syscall_64|entry_SYSCALL_64|linux_banner"


def symbols(t, work):
    """A file for gdb; None when the guest does not say."""
    t.send(f"grep -E ' ({WANTED})$' /proc/kallsyms; echo E''ND\r")
    m = t.expect(r"(?s)(ffffffff.*)END\n")
    if m is None:
        return None
    table, out = os.path.join(work, "kallsyms"), os.path.join(work, "symbols")
    with open(table, "w", encoding="ascii") as f:
        f.write(m.group(1))
    subprocess.run([os.path.join(g.TOP, "tools/mksymbols"), table, "-o", out], check=True)
    return out


def session(tap, engine, work):
    socket = os.path.join(work, "gdb")
    rd = g.initrd(os.path.join(work, "rd.gz"))
    t = g.Terminal(g.SOSIA, "run", "-e", engine, "-m", "512M", "-c", "2", "-k", g.guest("cloud"), "-i", rd,
                   "-a", "console=ttyS0 quiet nokaslr", "--gdb", socket)
    t.expect(r"busybox userland on Linux", 180)
    t.expect(PROMPT, 60)
    file = symbols(t, work)
    if not tap.ok(file is not None, f"{engine}: symbols of the running kernel", t.all):
        t.end()
        return
    t.send("while read x < /proc/uptime; do :; done & sleep 1\r")
    gdb = g.Gdb(socket, file)
    text = gdb.say("printf \"%.14s\\n\", &linux_banner")
    tap.ok("Linux version " in text, f"{engine}: a string of the kernel's", text)
    gdb.say("break do_sys_openat2", "continue")
    text = gdb.say("backtrace 1", "print $cs", "print $cr0 & 1", "print $efer", "x/2i $pc")
    tap.ok(re.search(r"#0 .* do_sys_openat2", text) and re.search(r"=> 0xffffffff", text),
           f"{engine}: it stands in do_sys_openat2", text)
    text = gdb.say("stepi", "stepi", "stepi", "info symbol $pc")
    tap.ok("do_sys_openat2" in text, f"{engine}: three steps on it is still there", text)
    text = gdb.say("delete", "break vfs_read", "continue", "continue", "continue", "info symbol $pc")
    tap.ok("vfs_read in section" in text, f"{engine}: another breakpoint, three times", text)
    text = gdb.say("info threads", "thread 2", "info registers rip", "thread 1", "print $rip")
    tap.ok(re.search(r"Thread 2.*cpu1", text) and text.count("0x") >= 3, f"{engine}: two processors", text)
    text = gdb.say("delete", "watch *(long *)&jiffies_64", "continue", "continue", "delete")
    tap.ok(len(re.findall(r"New value = ", text)) == 2, f"{engine}: the clock's variable is watched", text)
    gdb.run("continue")
    t.send("echo $((6 * 7))\r")
    tap.ok(bool(t.expect(r"\n42\n")), f"{engine}: it runs again", t.all[-300:])
    text = gdb.interrupt()
    tap.ok("SIGINT" in text, f"{engine}: ctrl-c stops it", text)
    gdb.say("detach")
    gdb.end()
    t.send("kill %1; poweroff\r")
    tap.ok(t.wait(90) == 0, f"{engine}: detached, the guest powers off", t.status, t.all[-400:])
    t.end()


def main():
    if not shutil.which("gdb"):
        g.skip_all("no gdb")
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    for engine in os.environ.get("ENGINES", "bt").split():
        with tempfile.TemporaryDirectory() as work:
            session(tap, engine, work)
    tap.end()


main()
