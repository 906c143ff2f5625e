#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Debian with its own drivers on virtio devices and the e1000: disks, network, the small ones."""
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

DHCP = """#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
route add default gw $router
echo "lease $ip dns $dns"
"""

NET = """ifconfig eth0 up
udhcpc -i eth0 -s /bin/dhcp.sh -n -q -t 8 2>&1 | grep lease
ping -c 1 -W 5 10.0.2.2 | grep received
wget -q -O - http://10.0.2.2:%d/blob | md5sum
dd if=/bin/busybox bs=64k 2>/dev/null | nc 10.0.2.2 %d
(echo "hello from port 7" | timeout 20 nc -l -p 7 >/tmp/in); cat /tmp/in
for i in 1 2 3 4 5 6 7 8 9 10; do
    ip -6 addr show dev eth0 | grep -q fec0 && { echo "has IPv6"; break; }
    sleep 1
done
"""

DISK = """D=/dev/%s
echo "== $D"
dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null
dd if=/tmp/r of=$D bs=64k seek=7 oflag=direct 2>/dev/null
dd if=$D bs=64k skip=7 count=16 iflag=direct 2>/dev/null | cmp - /tmp/r && echo "raw same"
mke2fs $D >/dev/null 2>&1
mount $D /mnt && cp /tmp/r /bin/busybox /mnt && sync && umount /mnt && echo "fs written"
mount $D /mnt && cmp /tmp/r /mnt/r && cmp /bin/busybox /mnt/busybox && echo "fs same"
umount /mnt
blkdiscard $D && echo discarded
dd if=$D bs=64k count=4 2>/dev/null | md5sum
"""
ZEROES = hashlib.md5(bytes(256 * 1024)).hexdigest()

SMALL = """dd if=/dev/hwrng bs=32 count=1 2>/dev/null | wc -c
echo "to the console" >/dev/hvc0
cat /sys/class/virtio-ports/*/name
sleep 1
awk '/MemFree/ { print ($2 < 200000) ? "balloon blown up" : "balloon flat" }' /proc/meminfo
vsock_tool connect 1234
vsock_tool echo 5000
"""


class Server:
    """A TCP port of the host that answers every connection with what fn makes of it."""

    def __init__(self, fn):
        self.fn = fn
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            c, _ = self.socket.accept()
            with c:
                try:
                    self.fn(c)
                except OSError:
                    pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def script(work, name, text):
    path = os.path.join(work, name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def boot(work, kernel, modules, text, *args, files=()):
    rd = g.initrd(os.path.join(work, "rd.gz"), "-m", f"{g.guest(kernel, 'modules')}:{modules}",
                  "-f", script(work, "test.sh", text), "-f", script(work, "dhcp.sh", DHCP),
                  *[a for f in files for a in ("-f", f)], "-r", "sh /bin/test.sh")
    return g.run("run", "-m", "384M", "-k", g.guest(kernel), "-i", rd, "-a", "console=ttyS0 quiet",
                 "--no-reboot", *args, timeout=150)


def network(tap, work, what, kernel, modules, net):
    blob = os.urandom(3 << 20)
    received = []

    def http(c):
        c.recv(4096)
        c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(blob) + blob)

    def sink(c):
        data = b""
        while True:
            part = c.recv(1 << 16)
            if not part:
                break
            data += part
        received.append(data)

    forwarded = []
    port = free_port()

    def client():
        until = time.monotonic() + 150 * g.PATIENCE
        while time.monotonic() < until and not forwarded:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as c:
                    c.sendall(b"hello from the host\n")
                    c.shutdown(socket.SHUT_WR)
                    data = c.makefile("rb").read()
                    if data:
                        forwarded.append(data)
            except OSError:
                pass
            time.sleep(0.2)

    threading.Thread(target=client, daemon=True).start()
    text = NET % (Server(http).port, Server(sink).port)
    status, out, err = boot(work, kernel, modules, text, "-n", f"{net},fwd=tcp:{port}:7")
    if "without libslirp" in err:
        tap.skip(f"{what}: network", "built without libslirp")
        return
    tap.ok(status == 0 and "lease 10.0.2.15 dns 10.0.2.3" in out, f"{what}: DHCP", out, err)
    tap.ok("1 packets received" in out, f"{what}: ping of the router", out)
    tap.ok(hashlib.md5(blob).hexdigest() in out, f"{what}: 3 MB from the host", out)
    with open(g.guest("busybox", "busybox"), "rb") as f:
        tap.ok(received == [f.read()], f"{what}: 2 MB to the host", [len(r) for r in received])
    tap.ok("hello from the host" in out and forwarded == [b"hello from port 7\n"],
           f"{what}: a forwarded port", out, forwarded)
    tap.ok("has IPv6" in out, f"{what}: an IPv6 address", out)


def disks(tap, work):
    def image(name):
        path = os.path.join(work, name)
        with open(path, "wb") as f:
            f.truncate(24 << 20)
        return path

    qcow2 = os.path.join(work, "qcow2")
    kinds = [("virtio-blk", "vda", image("a") + ",format=raw"),
             ("virtio-blk, packed", "vdb", image("b") + ",format=raw,packed"),
             ("virtio-scsi", "sda", image("c") + ",format=raw,bus=scsi")]
    if subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, "24M"],
                      check=False).returncode == 0:
        kinds.append(("virtio-blk, qcow2", "vdc", qcow2 + ",format=qcow2"))
    text = "".join(DISK % node for _, node, _ in kinds)
    status, out, err = boot(work, "cloud", "virtio_pci,virtio_blk,virtio_scsi,sd_mod", text,
                            *[a for _, _, option in kinds for a in ("-d", option)])
    tap.ok(status == 0, "disks: the guest comes to its end", out, err)
    for what, node, _ in kinds:
        part = (out.split(f"== /dev/{node}", 1) + [""])[1].split("== ")[0]
        tap.ok("raw same" in part, f"{what}: written and read", part)
        tap.ok("fs written" in part and "fs same" in part, f"{what}: a file system", part)
        tap.ok("discarded" in part and ZEROES in part, f"{what}: discard", part)
    if len(kinds) == 4:
        check = subprocess.run(["qemu-img", "check", qcow2], check=False, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        tap.ok(check.returncode == 0, "virtio-blk, qcow2: the image is clean", check.stdout)


def small(tap, work):
    tool = os.path.join(work, "vsock_tool")
    source = os.path.join(g.TOP, "tests/guest/vsock_tool.c")
    if subprocess.run(["gcc", "-O1", "-static", "-o", tool, source], check=False,
                      stderr=subprocess.DEVNULL).returncode != 0:
        tap.skip("small devices", "no static C library")
        return
    path = os.path.join(work, "vs")
    data = os.urandom(1 << 20)
    got = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + "_1234")
    listener.listen(1)

    def serve():
        c, _ = listener.accept()
        text = c.makefile("rb").read()
        c.sendall(b"the host got: " + text)
        c.close()

    def client():
        until = time.monotonic() + 150 * g.PATIENCE
        while time.monotonic() < until:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(path)
                s.sendall(b"CONNECT 5000\n")
                if s.recv(64).startswith(b"OK "):
                    break
            except OSError:
                pass
            time.sleep(0.2)
        threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)),
                         daemon=True).start()
        got.append(s.makefile("rb").read())

    threading.Thread(target=serve, daemon=True).start()
    threading.Thread(target=client, daemon=True).start()
    console = os.path.join(work, "console")
    status, out, err = boot(
        work, "cloud", "virtio_pci,virtio_rng,virtio_console,virtio_balloon,"
        "vmw_vsock_virtio_transport", SMALL, "--rng", "--console", f"file={console}", "--console",
        "none,name=org.agent", "--balloon=192M", "--vsock", path, files=[tool])
    tap.ok(status == 0 and "32" in out.split(), "rng: 32 bytes", out, err)
    with open(console, encoding="ascii") as f:
        tap.ok("to the console" in f.read(), "console: output", out)
    tap.ok("org.agent" in out, "console: a named port", out)
    tap.ok("balloon blown up" in out, "balloon: the guest gives memory back", out)
    tap.ok("the host got: from the guest" in out, "vsock: to the host", out)
    tap.ok(got == [data], "vsock: 1 MB to the guest and back", [len(d) for d in got])


def main():
    g.need_guests("cloud", "amd64", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        disks(tap, work)
        network(tap, work, "virtio-net, 2 queues", "cloud", "virtio_pci,virtio_net",
                "user,packed,queues=2")
        network(tap, work, "e1000", "amd64", "e1000", "user,model=e1000")
        small(tap, work)
    tap.end()


main()
