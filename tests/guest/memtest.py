# SPDX-License-Identifier: Apache-2.0
"""memtest86+ on its serial console: what test_ and long_memtest share."""
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

# It draws a screen by cursor movements: only changed fields are sent, each drawn at one go.
MOVE = re.compile(r"\x1b\[(\d+);(\d+)H|\x1b\[[0-9;]*[a-zA-Z]")
WIDTH, HEIGHT = 80, 25


class Screen:
    def __init__(self):
        self.rows = [[" "] * WIDTH for _ in range(HEIGHT)]
        self.y = self.x = 0
        self.rest = ""

    def feed(self, text):
        text = self.rest + text
        self.rest = ""
        at = 0
        while at < len(text):
            c = text[at]
            if c == "\x1b":
                m = MOVE.match(text, at)
                if not m:
                    if len(text) - at < 12:
                        self.rest = text[at:]
                        return
                    at += 1
                    continue
                if m.group(1):
                    self.y, self.x = int(m.group(1)) - 1, int(m.group(2)) - 1
                at = m.end()
                continue
            if c.isprintable() and 0 <= self.y < HEIGHT and 0 <= self.x < WIDTH:
                self.rows[self.y][self.x] = c
                self.x += 1
            at += 1

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.rows)


def run(tap, bits, engine, until, seconds, *options):
    """Until the screen matches; it must say that there are no errors then."""
    name = f"memtest86+, {bits} bits, on {engine} {' '.join(options)}".strip()
    t = g.Terminal(g.SOSIA, "run", "-e", engine, *options, "-k",
                   g.guest("memtest", f"memtest{bits}.bin"), "-a", "console=ttyS0,115200")
    screen = Screen()
    start = time.monotonic()
    there = False
    while not there and time.monotonic() - start < seconds * g.PATIENCE and t.read(1):
        screen.feed(t.text)
        t.text = ""
        there = re.search(until, screen.text()) is not None
    text = screen.text()
    tap.ok(there and re.search(r"Errors: 0\s", text + "\n") is not None, name, text, t.all[-500:])
    print(f"# {time.monotonic() - start:.1f} s", flush=True)
    t.end()
    return text
