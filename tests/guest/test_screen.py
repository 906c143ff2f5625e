#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The screen for a remote viewer (VNC): SeaBIOS's text and Ctrl-Alt-Del; passwords; hostile clients;
a person who types into Linux on tty1 and sees what comes of it."""
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import rfb

SEABIOS = "/usr/share/seabios/bios-256k.bin"
CELL = 9 * 16  # pixels of a character
CTRL, ALT, DELETE, SHIFT = 0xffe3, 0xffe9, 0xffff, 0xffe1


def start(*args, display="vnc=0"):
    """A VM with a server; (terminal, port)."""
    t = g.Terminal(g.SOSIA, "run", "--display", display, *args)
    m = t.expect(r"vnc://127\.0\.0\.1:(\d+)\n", 30)
    return t, int(m.group(1)) if m else None


def same(one, other):
    """Two pictures differ by no more than a cursor that blinks."""
    return len(one) == len(other) and sum(
        one[i:i + 4] != other[i:i + 4] for i in range(0, len(one), 4)) <= CELL


def boot(t):
    """Go on, until after the mode is set, from what --paused began."""
    t.send("\x01ccont\n")
    t.expect("No bootable device", 60)
    time.sleep(1)


def firmware(tap):
    t, port = start("--firmware", "bios", "--paused")
    if not tap.ok(port is not None, "the server says where it is", t.all):
        t.end()
        return
    v = rfb.Viewer(port, late=lambda: boot(t))
    tap.ok(v.wait(lambda: v.width == 720 and any(v.pixels), 20 * g.PATIENCE),
           "SeaBIOS's text mode is seen, though it came before the encodings", v.width, v.height)
    tap.ok(v.extended, "keys can come by their own numbers")
    second = rfb.Viewer(port)
    tap.ok(second.wait(lambda: (v.poll(0.05), same(second.pixels, v.pixels))[1], 20 * g.PATIENCE),
           "a second viewer sees the same")
    for keysym in (CTRL, ALT, DELETE):
        second.key(keysym, 1)
    tap.ok(bool(t.expect("SeaBIOS .version", 30)), "Ctrl-Alt-Del restarts the machine", t.all[-300:])
    second.close()  # which lets go of the keys
    hostile(tap, port)
    seen = v.updates
    tap.ok(bool(t.expect("No bootable device", 60)) and v.wait(lambda: v.updates > seen, 10),
           "neither the machine nor a viewer minds", t.all[-300:])
    for n in range(100):
        v.pointer(n, n, n & 7)
    v.close()
    t.signal(15)
    tap.ok(t.wait(10) == 128 + 15, "and it ends at once", t.status)
    t.end()


def hostile(tap, port):
    """What makes no sense, or never comes to an end."""
    socks = []
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"RFB 003.008\n\x01\x01" + b"\xff" * 4096,
                 b"RFB 003.008\n\x01\x01" + b"\x06\0\0\0\xff\xff\xff\xff" + b"x" * 65536,
                 b"RFB 003.008\n\x01\x01" + b"\x02\0\xff\xff", b"RFB 003.003\n",
                 b"RFB 003.008\n\x01\x01" + b"\xff\0\0\1" + b"\xff" * 8):
        s = socket.create_connection(("127.0.0.1", port), 10)
        try:
            s.sendall(data)
        except OSError:
            pass  # refused sooner than sent
        socks.append(s)
    page = socket.create_connection(("127.0.0.1", port), 10)
    page.sendall(b"GET /websockify HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                 b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                 b"Origin: http://example.org\r\nSec-WebSocket-Protocol: binary\r\n"
                 b"Sec-WebSocket-Version: 13\r\n\r\n")
    page.settimeout(20 * g.PATIENCE)
    closed = False
    try:
        while page.recv(4096):
            pass  # the server's greeting, and nothing after it
        closed = True
    except ConnectionResetError:
        closed = True
    except socket.timeout:
        pass
    tap.ok(closed, "a page in a browser is turned away")
    for s in socks + [page]:
        s.close()


def passwords(tap, work):
    path = os.path.join(work, "password")
    with open(path, "w", encoding="ascii") as f:
        f.write("quercus\n")
    t, port = start("--firmware", "bios", display=f"vnc=127.0.0.1:0,password={path}")
    if rfb.vnc_des("quercus", bytes(16)) is None:
        tap.skip("the right password", "no openssl with DES")
    else:
        tap.ok(rfb.Viewer(port, "quercus").accepted, "the right password")
        tap.ok(not rfb.Viewer(port, "Quercus").accepted, "a wrong one")
    try:
        good = rfb.Viewer(port).accepted
    except (AssertionError, EOFError):
        good = False
    tap.ok(not good, "none")
    t.end()
    for display, words in (("vnc=0.0.0.0:0", "password="), ("vnc=localhost:0", "numeric"),
                           ("vnc=70000", "port number"), (f"vnc=0,password={work}/no", "No such"),
                           ("vnc=0,password=/dev/null", "no password"), ("vcn", "not none or vnc")):
        status, _, err = g.run("run", "--firmware", "bios", "--display", display, timeout=20)
        tap.ok(status == 1 and words in err and err.count("\n") == 1, f"--display {display}", err)


def linux(tap, work):
    rd = g.initrd(os.path.join(work, "rd.gz"), "-r", "echo ready >/dev/ttyS0; sh")
    iso = g.grub_iso(os.path.join(work, "cd.iso"), "linux /boot/vmlinuz console=tty0 quiet\n"
                     "initrd /boot/rd.gz\nboot\n", g.guest("cloud"), rd)
    if iso is None:
        tap.skip("typing into Linux", "no grub-mkrescue or xorriso, or it failed")
        return
    screen = os.path.join(work, "screen.txt")
    t, port = start("--cdrom", iso, "--screenshot", screen)
    v = rfb.Viewer(port)
    tap.ok(v.wait(lambda: t.expect("ready", 0.01), 120 * g.PATIENCE), "Linux with a shell on tty1",
           t.all[-300:])
    v.wait(lambda: False, 1)
    before = bytes(v.pixels)
    v.type("echo Seen $((6*7)) \"{~|}\"\n")
    tap.ok(v.wait(lambda: not same(v.pixels, before), 20 * g.PATIENCE), "typing changes the picture")
    v.wait(lambda: False, 2)
    for code in (0x12, 0x2e, 0x23, 0x18, 0x39, 0x1e, 0x1c):  # echo a
        v.extended_key(code)
    v.wait(lambda: False, 2)
    for code in (0x45, 0xc8, 0x1c):  # the last line again; NumLock wraps the arrow in shifts
        v.extended_key(code)
        v.wait(lambda: False, 1)
    v.type("poweroff -f\n")
    tap.ok(t.wait(60) == 0, "poweroff on tty1", t.status, t.all[-300:])
    with open(screen, encoding="ascii") as f:
        text = f.read()
    tap.ok(re.search(r"^Seen 42 \{~\|\}$", text, re.M) is not None, "what was typed, and its answer",
           text)
    tap.ok(len(re.findall(r"# echo a\na$", text, re.M)) == 2, "keys by their own numbers", text)
    v.close()
    t.end()


def main():
    about = subprocess.run([g.SOSIA, "--version"], stdout=subprocess.PIPE, check=True).stdout
    if b"vnc" not in about:
        g.skip_all("built without libvncserver")
    if not os.path.exists(SEABIOS):
        g.skip_all("no SeaBIOS")
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        firmware(tap)
        passwords(tap, work)
        linux(tap, work)
    tap.end()


main()
