#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Debian comes to a shell on the terminal, works there, and `poweroff` ends it with status 0."""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

PROMPT = r"# (\x1b\[6n)?$"


def session(tap, engine):
    with tempfile.TemporaryDirectory() as work:
        rd = g.initrd(os.path.join(work, "rd.gz"))
        start = time.monotonic()
        t = g.Terminal(g.SOSIA, "run", "-e", engine, "-m", "512M", "-k", g.guest("cloud"), "-i", rd,
                       "-a", "console=ttyS0 quiet")
        up = t.expect(r"busybox userland on Linux [\d.]+", 120) and t.expect(PROMPT, 30)
        took = time.monotonic() - start
        if not tap.ok(bool(up), f"{engine}: a shell prompt", t.all):
            t.end()
            return
        print(f"# {took:.1f} s to the prompt, {os.getloadavg()[0]:.1f} load")
        t.send("echo $((6 * 7)) $(tty)\r")
        tap.ok(bool(t.expect(r"\n42 /dev/ttyS0\n")), f"{engine}: a command and its output", t.all)
        t.send("seq 1 300 | md5sum; cat\r")
        tap.ok(bool(t.expect("bf4fa7116e26846bba3502a134f9bcba  -")), f"{engine}: a pipe", t.all)
        t.send("typed\r")
        tap.ok(bool(t.expect("typed\ntyped\n")), f"{engine}: keys reach a program", t.all)
        t.send("\x03")
        tap.ok(bool(t.expect(PROMPT)), f"{engine}: ctrl-c ends it", t.all)
        t.send("stty -echo; wc -c\r")
        t.expect(r"echo; wc -c\n")
        text = "0123456789abcdef " * 3 + "\r"
        t.send(text * 200)
        t.send("\x04")
        tap.ok(bool(t.expect(str(len(text) * 200))), f"{engine}: 10 kB of pasted text", t.text)
        t.send("stty echo; poweroff\r")
        tap.ok(t.wait(60) == 0, f"{engine}: poweroff ends with status 0", t.status, t.all[-400:])
        t.end()


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    for engine in os.environ.get("ENGINES", "interp bt").split():
        session(tap, engine)
    tap.end()


main()
