#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tablet under Linux's driver: a viewer's pointer and the control socket's, where they are, as evdev's events."""
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import qmp
import rfb

DEVICES = "/proc/bus/input/devices"
TABLET = f"sed -n '/tablet/,/^$/s/.*\\(event[0-9]*\\).*/\\1/p' {DEVICES}"


def events(t, count):
    """The next events as (type, code, value); what evdev prints of each behind 16 bytes of time."""
    found = []
    while len(found) < count:
        m = t.expect(r"(?:[0-9a-f]{8} ){4}([0-9a-f]{4})([0-9a-f]{4}) ([0-9a-f]{8})", 60)
        if not m:
            return found
        found.append((int(m.group(2), 16), int(m.group(1), 16), int(m.group(3), 16)))
    return found


def main():
    g.need_guests("amd64", "busybox")
    if not re.search("displays:.*vnc", g.run("--version")[1]):
        g.skip_all("built without libvncserver")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        rd = g.initrd(os.path.join(work, "rd.gz"), "-m", g.guest("amd64", "modules") + ":virtio_pci,virtio_input,evdev")
        api = os.path.join(work, "api")
        t = g.Terminal(g.SOSIA, "run", "-m", "512M", "-k", g.guest("amd64"), "-i", rd, "-a", "console=ttyS0 quiet",
                       "--display", "vnc=127.0.0.1:0", "--api", api)
        port = t.expect(r"vnc://127\.0\.0\.1:(\d+)", 60)
        c = qmp.Client(api)
        there = c.refused("input-send-event", events=[{"type": "abs", "data": {"axis": "x", "value": 1}}])
        tap.ok("tablet" in there[1], "without a driver there is no place to be", there)
        t.expect(r"# ", 240)
        t.send(f"cat {DEVICES}; od -v -A n -t x4 -w24 /dev/input/$({TABLET}) &\r")
        t.send("until ls -l /proc/$!/fd | grep -q event; do sleep 0.1; done; echo lis''tens\r")
        tap.ok(bool(t.expect("sosia virtio tablet", 60)), "Linux finds the tablet", t.all[-800:])
        t.expect("listens", 60)
        c("input-send-event", events=[{"type": "abs", "data": {"axis": "x", "value": 0x1234}},
                                      {"type": "abs", "data": {"axis": "y", "value": 0x4321}},
                                      {"type": "btn", "data": {"button": "left", "down": True}}])
        seen = events(t, 4)
        tap.ok(seen == [(3, 0, 0x1234), (3, 1, 0x4321), (1, 0x110, 1), (0, 0, 0)], "a click at a place", seen, t.all[-800:])
        viewer = rfb.Viewer(int(port.group(1)))
        viewer.pointer(viewer.width - 1, 0, 0)
        seen = events(t, 4)
        tap.ok(seen == [(3, 0, 0x7fff), (3, 1, 0), (1, 0x110, 0), (0, 0, 0)], "a viewer's corner is the guest's", seen,
               t.all[-800:])
        t.send("\x01x")
        tap.ok(t.wait(30) == 0, "the end", t.status)
        t.end()
    tap.end()


main()
