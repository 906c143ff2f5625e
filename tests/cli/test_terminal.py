#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The terminal is raw while a guest has it, and as it was on every way out; ctrl-a does what it says.

The guest is a dozen instructions that send back every byte that comes in on COM1; a byte above 127
goes to the exit port instead.
"""
import os
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

ECHO = bytes([
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x3e, 0xee,  # mov dx, 0x3f8; mov al, '>'; out dx, al
    0x66, 0xba, 0xfd, 0x03,                    # 1: mov dx, 0x3fd
    0xec, 0xa8, 0x01, 0x74, 0xf7,              # in al, dx; test al, 1; jz 1b
    0x66, 0xba, 0xf8, 0x03, 0xec,              # mov dx, 0x3f8; in al, dx
    0xa8, 0x80, 0x75, 0x03,                    # test al, 0x80; jnz 2f
    0xee, 0xeb, 0xeb,                          # out dx, al; jmp 1b
    0x24, 0x7f, 0xe6, 0xf4,                    # 2: and al, 0x7f; out 0xf4, al
    0xf4,                                      # hlt
])
TRIPLE = bytes([
    0x0f, 0x01, 0x1d, 0x40, 0x00, 0x10, 0x00,  # lidt [0x100040]: limit 0
    0xcc,                                      # int3
])


def multiboot(code):
    header = struct.pack("<8I", 0x1badb002, 0x10000, -(0x1badb002 + 0x10000) & 0xffffffff, 0x100000,
                         0x100000, 0x101000, 0x101000, 0x100020)
    return (header + code).ljust(4096, b"\0")


class Test:
    def __init__(self, tap, work):
        self.tap = tap
        self.kernel = os.path.join(work, "echo.elf")
        with open(self.kernel, "wb") as f:
            f.write(multiboot(ECHO))
        self.triple = os.path.join(work, "triple.elf")
        with open(self.triple, "wb") as f:
            f.write(multiboot(TRIPLE))

    def start(self, *args):
        t = g.Terminal("/bin/sh", "-c", 'read go; exec "$@"', "sh", g.SOSIA, "run", "-m", "16M",
                       *(args or (self.kernel, "--exit-port", "0xf4")))
        t.before = t.modes()
        t.send("go\r")
        self.up = bool(t.expect(">", 30))
        return t

    def restored(self, t):
        return t.modes() == t.before

    def ends(self, name, t, status):
        got = t.wait()
        self.tap.ok(self.up and got == status and self.restored(t), name,
                    f"status {got}, restored {self.restored(t)}", t.all)
        t.end()


def is_raw(modes):
    return not modes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


def keys(x):
    t = x.start()
    x.tap.ok(x.up and is_raw(t.modes()), "raw while the guest runs", t.all)
    t.send("k")
    x.tap.ok(bool(t.expect("k", 10)), "a key goes to the guest and back", t.all)
    t.send("\x03\x1a\x1c")
    x.tap.ok(bool(t.expect("\x03\x1a\x1c", 10)), "ctrl-c, ctrl-z and ctrl-\\ go to the guest", t.all)
    t.send("\x01\x01")
    x.tap.ok(bool(t.expect("\x01", 10)), "ctrl-a ctrl-a is a ctrl-a", t.all)
    t.send("\x01h")
    x.tap.ok(bool(t.expect("quit", 10)), "ctrl-a h helps", t.all)
    t.signal(signal.SIGWINCH)
    t.send("w")
    x.tap.ok(bool(t.expect("w", 10)), "SIGWINCH changes nothing", t.all)
    t.send("\x01x")
    x.ends("ctrl-a x quits, status 0", t, 0)


def commands(x):
    t = x.start()
    t.send("\x01c")
    x.tap.ok(bool(t.expect("sosia> ", 10)), "ctrl-a c prompts", t.all)
    t.send("info registers\r")
    x.tap.ok(bool(t.expect("rip [0-9a-f]{16}", 10)) and bool(t.expect("sosia> ", 10)),
             "info registers", t.all)
    for topic in ("devices", "memory", "engine"):
        t.send(f"info {topic}\r")
        x.tap.ok(bool(t.expect("sosia> ", 10)), f"info {topic}", t.all)
    t.send("nonsense\r")
    x.tap.ok(bool(t.expect("unknown command", 10)), "an unknown command", t.all)
    t.send("paux\x7fse\r\x01cq")
    t.expect("sosia> .*sosia> ", 10)
    quiet = not t.expect("q", 1.5)
    x.tap.ok(quiet, "a paused guest does nothing", t.all)
    t.send("\x01ccont\r\x01c")
    x.tap.ok(bool(t.expect("q", 10)), "cont: it goes on with what it had", t.all)
    t.send("\x01creset\r\x01c")
    x.tap.ok(bool(t.expect(r"(?s)reset\n.*>.*>", 10)), "reset: it starts again", t.all)
    t.send("\x01cquit\r")
    x.ends("quit", t, 0)


def signals(x):
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        t = x.start()
        t.signal(sig)
        x.ends(f"{sig.name} ends it by that signal", t, 128 + sig)
    for sig in (signal.SIGSEGV, signal.SIGABRT):
        t = x.start()
        t.signal(sig)
        x.ends(f"{sig.name}: a crash leaves the terminal as it was", t, 128 + sig)
    t = x.start()
    t.signal(signal.SIGTSTP)
    pid, status = os.waitpid(t.pid, os.WUNTRACED)
    x.tap.ok(pid == t.pid and os.WIFSTOPPED(status) and x.restored(t), "SIGTSTP stops, restored",
             status)
    t.signal(signal.SIGCONT)
    for _ in range(200):
        if is_raw(t.modes()):
            break
        time.sleep(0.05)
    t.send("c")
    x.tap.ok(bool(t.expect("c", 10)) and is_raw(t.modes()), "SIGCONT: raw again, going on", t.all)
    t.send("\x01x")
    x.ends("and quits", t, 0)


def ends(x):
    t = x.start()
    os.write(t.fd, bytes([0x80 | 5]))
    x.ends("exit port: status (5 << 1) | 1", t, 11)
    t = x.start(x.triple, "--no-reboot", "--serial", "stdio")
    x.up = True
    x.ends("triple fault under --no-reboot: status 2", t, 2)
    t = x.start(x.kernel + ".none")
    x.up = True
    x.ends("a failure at the start", t, 1)


def pipes(x):
    args = [g.SOSIA, "run", "-m", "16M", x.kernel, "--exit-port", "0xf4"]
    r = subprocess.run(args, input=b"abc" + bytes([0x83]), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=30 * g.PATIENCE, check=False)
    x.tap.ok(r.returncode == 7 and r.stdout == b">abc" and r.stderr == b"",
             "pipes: input to the guest, output of the guest and nothing else", r)
    r = subprocess.run(args, input=b"a\x01x", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=30 * g.PATIENCE, check=False)
    x.tap.ok(r.returncode == 0, "pipes: ctrl-a x", r)
    p = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.read(1)
    p.stdout.close()
    p.stdin.write(b"more")
    p.stdin.flush()
    try:
        status = p.wait(30 * g.PATIENCE)
    except subprocess.TimeoutExpired:
        p.kill()
        status = p.wait()
    err = p.stderr.read()
    x.tap.ok(status == 1 and err.count(b"\n") == 1, "nobody reads the output: status 1", status, err)


def backends(x, work):
    path = os.path.join(work, "serial.sock")
    out = os.path.join(work, "serial.out")
    p = subprocess.Popen([g.SOSIA, "run", "-m", "16M", x.kernel, "--serial", f"unix={path}",
                          "--serial", f"file={out}", "--exit-port", "0xf4"],
                         stdin=subprocess.DEVNULL)
    import socket
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10 * g.PATIENCE)
    for _ in range(200):
        try:
            s.connect(path)
            break
        except OSError:
            time.sleep(0.05)
    s.sendall(b"socket")
    got = b""
    while len(got) < 6:
        data = s.recv(64)
        if not data:
            break
        got += data.replace(b">", b"")
    x.tap.ok(got == b"socket", "--serial unix", got)
    s.close()
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10 * g.PATIENCE)
    s.connect(path)
    s.sendall(b"again")
    x.tap.ok(s.recv(64)[:1] == b"a", "--serial unix: a second client after the first")
    s.sendall(bytes([0x81]))
    x.tap.ok(p.wait(20 * g.PATIENCE) == 3 and not os.path.exists(path) and os.path.exists(out),
             "--serial unix: the socket is gone at the end")
    s.close()
    p = subprocess.Popen([g.SOSIA, "run", "-m", "16M", x.kernel, "--serial", "pty", "--exit-port",
                          "0xf4"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    line = p.stderr.readline().decode()
    fd = os.open(line.split()[-1], os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b"p\x82")
    x.tap.ok(p.wait(20 * g.PATIENCE) == 5, "--serial pty", line)
    os.close(fd)
    p.stderr.close()


def main():
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        x = Test(tap, work)
        keys(x)
        commands(x)
        signals(x)
        ends(x)
        pipes(x)
        backends(x, work)
    tap.end()


main()
