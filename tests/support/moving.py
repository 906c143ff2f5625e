# SPDX-License-Identifier: Apache-2.0
"""What tests of migration share: a guest that checks its memory and disk, and its way from process to process."""
import json
import os
import re
import socket
import struct
import subprocess
import threading

import guest as g

# Random bytes in memory and on a disk, each round what the rounds before left is read again.
LOAD = """mke2fs /dev/vda >/dev/null 2>&1; mount /dev/vda /mnt; mkdir /tmp/m
n=0
while :; do
    n=$((n + 1))
    dd if=/dev/urandom of=/mnt/$((n % 8)) bs=64k count=4 2>/dev/null
    cp /mnt/$((n % 8)) /tmp/m/; sync; echo 3 >/proc/sys/vm/drop_caches
    for f in /mnt/[0-7]; do cmp $f /tmp/m/${f##*/} || echo BAD $f; done
    echo "round $n at $(date +%s)."
done
"""


class Moving:
    """A Debian kernel under load that goes from one sosia to the next."""

    def __init__(self, work, memory="256M", engine="bt", disk_format="raw"):
        self.work, self.engine, self.hop = work, engine, 0
        self.path = lambda name: os.path.join(work, name)
        self.times = []
        disk = self.path("disk")
        subprocess.run([g.SOSIA, "disk", "create", "-f", disk_format, disk, "64M"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(self.path("load.sh"), "w", encoding="ascii") as f:
            f.write(LOAD)
        rd = g.initrd(self.path("rd.gz"), "-m",
                      g.guest("cloud", "modules") + ":virtio_pci,virtio_blk,ext2", "-f",
                      self.path("load.sh"), "-r", "sh /bin/load.sh")
        self.terminal = g.Terminal(g.SOSIA, "run", "-e", engine, "-m", memory, "-k", g.guest("cloud"),
                                   "-i", rd, "--api", self.api(), "-d",
                                   f"{disk},format={disk_format}", "-a", "console=ttyS0 quiet")
        self.round = 0

    def api(self, hop=None):
        return self.path(f"api{self.hop if hop is None else hop}")

    def goes_on(self, rounds=1, seconds=120):
        """So many more rounds, and none that finds a fault."""
        for _ in range(rounds):
            m = self.terminal.expect(r"round (\d+) at (\d+)\.\n", seconds)
            if m is None or int(m.group(1)) <= self.round or "BAD" in self.terminal.all:
                return False
            self.round, self.clock = int(m.group(1)), int(m.group(2))
        return True

    def listen(self, *args, address=None):
        """Another process that waits for it; where."""
        address = address or "unix:" + self.path(f"m{self.hop + 1}")
        t = g.Terminal(g.SOSIA, "run", "--incoming", address, "-e", self.engine, "--api",
                       self.api(self.hop + 1), *args)
        m = t.expect(r"may come to (\S+)\n", 30)
        return t, m.group(1) if m else None

    def migrate(self, address, *args):
        """Ends when `sosia migrate` does."""
        r = subprocess.run([g.SOSIA, "migrate", self.api(), address, *args], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False, timeout=300 * g.PATIENCE)
        return r.returncode, r.stdout.decode(errors="replace").strip()

    def moved(self, t, said):
        """It is t's now."""
        m = re.search(r"stood still for ([\d.]+) ms", said)
        self.times.append(float(m.group(1)) if m else float("inf"))
        self.terminal.wait(30)
        self.terminal.end()
        self.terminal = t
        self.hop += 1

    def end(self):
        self.terminal.end()


# Messages of docs/migration.md at which a link may be cut.
LOADED, GO, RUNS = 9, 10, 11


class Wire:
    """A connection that can be cut: what comes to .address goes to a Unix socket, until .cut() or so many bytes,
    or until a message of one kind, which still passes (after) or does not."""

    def __init__(self, path, to, limit=None, message=None, after=False):
        self.to, self.sockets, self.passed = to, [], 0
        self.limit, self.message, self.after = limit, message, after
        self.address = "unix:" + path
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                a, _ = self.listener.accept()
                b = socket.socket(socket.AF_UNIX)
                b.connect(self.to)
            except OSError:
                return
            self.sockets += [a, b]
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.copy, args=(x, y), daemon=True).start()

    def copy(self, x, y):
        try:
            while True:
                header = x.recv(12, socket.MSG_WAITALL)
                if len(header) < 12:
                    break
                kind, length, _ = struct.unpack("<III", header)
                if kind == self.message and not self.after:
                    break
                data = header
                while len(data) < 12 + length:
                    more = x.recv(12 + length - len(data))
                    if not more:
                        break
                    data += more
                if self.limit is not None and self.passed + len(data) >= self.limit:
                    y.sendall(data[:self.limit - self.passed])
                    break
                y.sendall(data)
                self.passed += len(data)
                if kind == self.message:
                    break
        except OSError:
            pass
        self.cut()

    def cut(self):
        with self.lock:
            for s in self.sockets + [self.listener]:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def status(path):
    """What query-status says at a control socket; None when nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30 * g.PATIENCE)
            s.connect(path)
            s.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}')
            for line in s.makefile():
                answer = json.loads(line).get("return", {})
                if "status" in answer:
                    return answer["status"]
    except (OSError, ValueError):
        pass
    return None
