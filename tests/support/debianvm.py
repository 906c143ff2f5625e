# SPDX-License-Identifier: Apache-2.0
"""The Debian of tools/mkdebian in a machine: its disk, its serial console, ssh into it."""
import os
import socket
import subprocess
import time

import guest as g

IMAGE = os.path.join(g.GUESTS, "debian", "disk.img")
LOGIN = 400   # seconds to the login prompt, on a busy machine


def need_image(make):
    """Make the image, or skip the whole test."""
    if not make and not os.path.exists(IMAGE):
        g.skip_all("no Debian image yet: tools/mkdebian or `make check-long` makes it")
    r = subprocess.run([os.path.join(g.TOP, "tools/mkdebian")], stdin=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, check=False)
    if r.returncode != 0:
        last = r.stderr.decode(errors="replace").strip().splitlines()[-1:]
        g.skip_all("no Debian image: " + "".join(last))


def copy(path):
    """An image of one's own to write to."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", IMAGE, path], check=True)
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Debian(g.Terminal):
    """A virtual machine with the image, whatever runs it; a person at its serial console."""

    def __init__(self, *command):
        super().__init__(*command)
        self.started = time.monotonic()

    def boot(self):
        """Seconds to the login prompt; None when it does not come."""
        if not self.expect(r"debian login: ", LOGIN):
            return None
        return time.monotonic() - self.started

    def log_in(self):
        self.send("root\r")
        if not self.expect(r"root@debian:~# ", 120):
            return False
        # What is typed is not wanted among what is answered, nor are prompts.
        self.send("bind 'set enable-bracketed-paste off'; stty -echo; PS1=; echo in''side\r")
        return bool(self.expect(r"inside\n", 60))

    def shell(self, command, timeout=120):
        """Status and output of a command; status None when it does not end."""
        self.send(command + '; echo "<$?>"\r')
        start = len(self.all) - len(self.text)
        m = self.expect(r"<(\d+)>\n", timeout)
        if not m:
            return None, self.text
        output = self.all[start:len(self.all) - len(self.text) - len(m.group(0))]
        return int(m.group(1)), output


class Ssh:
    """A key of its own, for one guest behind a forwarded port."""

    def __init__(self, work):
        self.key = os.path.join(work, "key")
        self.port = free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)

    def admit(self, vm):
        with open(self.key + ".pub", encoding="ascii") as f:
            return vm.shell(f"mkdir -p .ssh; echo '{f.read().strip()}' >.ssh/authorized_keys")[0] == 0

    def run(self, command, timeout=120):
        """Status, output of a command in the guest, asked again until its sshd answers."""
        ask = ["ssh", "-p", str(self.port), "-i", self.key, "-o", "StrictHostKeyChecking=no", "-o",
               "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o",
               "ConnectTimeout=20", "root@127.0.0.1", command]
        until = time.monotonic() + timeout * g.PATIENCE
        while True:
            try:
                r = subprocess.run(ask, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=timeout * g.PATIENCE, check=False)
                status, text = r.returncode, r.stdout.decode(errors="replace")
            except subprocess.TimeoutExpired:
                status, text = None, "no answer"
            # 255 is ssh's own word: no connection.
            if status != 255 or time.monotonic() > until:
                return status, text
            time.sleep(1)
