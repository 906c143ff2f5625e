# SPDX-License-Identifier: Apache-2.0
"""What tests that run the sosia program share: TAP, a guest at the other end of a terminal, guests."""
import errno
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.environ.get("TOP") or os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BUILD") or os.path.join(TOP, "build")
SOSIA = os.environ.get("SOSIA") or os.path.join(BUILD, "sosia")
GUESTS = os.path.join(BUILD, "guests")
SEEN = os.path.join(GUESTS, "seen")   # logs and screens that tests keep

# Tests run beside each other on slow machines: patience costs nothing when all is well.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, good, name, *details):
        self.count += 1
        self.failed += not good
        print(("ok" if good else "not ok") + f" {self.count} - {name}", flush=True)
        if not good:
            for text in details:
                for line in str(text).splitlines()[-20:]:
                    print("#   " + printable(line)[:300], flush=True)
        return good

    def skip(self, name, why):
        self.count += 1
        print(f"ok {self.count} - {name} # SKIP {why}", flush=True)

    def end(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.failed else 0)


def skip_all(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


def printable(text):
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def need_guests(*names):
    """Fetch guests, or skip the whole test."""
    r = subprocess.run([os.path.join(TOP, "tools/fetch-guests"), *names], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if r.returncode != 0:
        last = r.stdout.decode(errors="replace").strip().splitlines()[-1:]
        skip_all("no guests: " + "".join(last))


def guest(name, file="vmlinuz"):
    return os.path.join(GUESTS, name, file)


def initrd(out, *args):
    subprocess.run([os.path.join(TOP, "tools/mkinitrd"), *args, "-o", out], check=True)
    return out


def grub_iso(out, config, *files, modules="linux"):
    """A CD-ROM that boots by GRUB, with files in /boot; None where there are no tools for it."""
    grub = "/usr/lib/grub/i386-pc"
    if not os.path.isdir(grub) or not shutil.which("grub-mkrescue") or not shutil.which("xorriso"):
        return None
    top = out + ".d"
    os.makedirs(os.path.join(top, "boot/grub"))
    for path in files:
        shutil.copy(path, os.path.join(top, "boot"))
    with open(os.path.join(top, "boot/grub/grub.cfg"), "w", encoding="ascii") as f:
        f.write(config)
    made = subprocess.run(["grub-mkrescue", "-d", grub, "-o", out, "--locales=", "--fonts=",
                           "--themes=", f"--install-modules=normal iso9660 biosdisk echo {modules}", top],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return out if made.returncode == 0 else None


def run(*args, timeout=240, stdin=b"", env=None):
    """sosia with args; (status, stdout, stderr), status None when time was up."""
    try:
        r = subprocess.run([SOSIA, *args], input=stdin, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=timeout * PATIENCE, check=False, env=env)
        return r.returncode, r.stdout.decode(errors="replace"), r.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        return None, (e.stdout or b"").decode(errors="replace"), (e.stderr or b"").decode(
            errors="replace")


class Terminal:
    """A program on a pseudo-terminal of its own, as a person would have it."""

    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # A test run in the background of a script inherits that these are ignored.
            for sig in (signal.SIGINT, signal.SIGQUIT):
                signal.signal(sig, signal.SIG_DFL)
            try:
                os.execv(args[0], args)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.text = ""   # not yet expected
        self.all = ""
        self.status = None

    def read(self, seconds):
        """Wait for more output; False at its end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            data = b""
        # Guests send carriage returns, and so does our terminal for their line feeds.
        text = data.decode(errors="replace").replace("\r", "")
        self.text += text
        self.all += text
        return bool(data)

    def expect(self, pattern, timeout=60):
        """The match, with what came before it dropped; None when it did not come."""
        until = time.monotonic() + timeout * PATIENCE
        while True:
            m = re.search(pattern, self.text)
            if m:
                self.text = self.text[m.end():]
                return m
            left = until - time.monotonic()
            if left <= 0 or not self.read(min(left, 1)):
                return None

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.fd, data):]

    def signal(self, sig):
        os.kill(self.pid, sig)

    def wait(self, timeout=30):
        """Exit status as the shell counts it, None while it still runs."""
        until = time.monotonic() + timeout * PATIENCE
        while self.status is None and time.monotonic() < until:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = (128 + os.WTERMSIG(status) if os.WIFSIGNALED(status)
                               else os.WEXITSTATUS(status))
        return self.status

    def end(self):
        """Once or more often."""
        if self.fd < 0:
            return
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.status = 128 + signal.SIGKILL if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.close(self.fd)
        self.fd = -1

    def modes(self):
        return termios.tcgetattr(self.fd)


def keep(name, text):
    os.makedirs(SEEN, exist_ok=True)
    with open(os.path.join(SEEN, name), "w", encoding="utf-8") as f:
        f.write(text)


def screen(t):
    """The text on the screen, by the command prompt behind ctrl-a c."""
    t.text = ""
    t.send("\x01c")
    t.expect("sosia> ")
    t.send("info screen\r")
    m = t.expect(r"(?s)info screen\n(.*)sosia> ")
    t.send("\x01c")
    return m.group(1) if m else ""


def wait_for_screen(t, wanted, seconds):
    until = time.monotonic() + seconds * PATIENCE
    text = ""
    while time.monotonic() < until and wanted not in text:
        t.read(2)
        text = screen(t)
    return text


class Gdb(Terminal):
    """The real gdb, attached to a stub."""

    def __init__(self, target, symbols=None):
        super().__init__("/usr/bin/env", "gdb", "-q", "-nx", *([symbols] if symbols else []))
        self.expect(r"\(gdb\) $")
        self.said = self.say("set pagination off", "set confirm off", "set width 0", "set style enabled off",
                             f"target remote {target}")

    def run(self, command):
        """A command after which there is no prompt."""
        self.send(command + "\r")
        self.expect("Continuing|Run till")

    def prompt(self, timeout=60):
        """What comes before the next prompt."""
        m = self.expect(r"(?s)(.*)\(gdb\) $", timeout)
        return m.group(1) if m else ""

    def say(self, *commands):
        """What gdb says to them."""
        answer = ""
        for command in commands:
            self.send(command + "\r")
            answer += self.prompt()
        return answer

    def interrupt(self):
        self.send("\x03")
        return self.prompt()
