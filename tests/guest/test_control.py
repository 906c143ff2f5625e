#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stock Debian kernel under the control socket: boot, screendump, disks and networks that come and go,
power-off; by a client of our own and by that of Debian's ganeti; and the commands by a VM's name."""
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import types
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import qmp

# What it waits for comes and goes by hot-plug; then it waits for the power button.
SCRIPT = """wait_for() { for i in $(seq 1200); do eval "$1" && return; sleep 0.1; done; echo "no: $1"; }
echo "guest: ready"
wait_for '[ -b /dev/vda ]'
echo "guest: disk $(dd if=/dev/vda bs=16 count=1 2>/dev/null) $(cat /sys/block/vda/size)"
dd if=/dev/zero of=/dev/vda bs=512 seek=1 count=1 oflag=direct 2>/dev/null && echo "guest: wrote"
wait_for '[ "$(cat /sys/block/vda/size)" = 4096 ]'
echo "guest: grown"
wait_for '! [ -e /dev/vda ]'
echo "guest: disk gone"
wait_for '[ -e /sys/class/net/eth0 ]'
echo "guest: card $(cat /sys/class/net/eth0/address)"
wait_for '! [ -e /sys/class/net/eth0 ]'
echo "guest: card gone"
event=$(sed -n '/Power Button/,/Handlers/s/.*\\(event[0-9]*\\).*/\\1/p' /proc/bus/input/devices)
mknod /tmp/button c 13 $((64 + ${event#event}))
echo "guest: at the button"
head -c 24 /tmp/button >/dev/null && echo "guest: pressed"
"""


def ganeti_client():
    """QmpConnection of Debian's package: the real file, with the rest of ganeti stood in for."""
    folder = os.path.join(g.GUESTS, "ganeti")
    r = subprocess.run([os.path.join(g.TOP, "tools/fetch-guests"), "ganeti"], check=False,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    if r.returncode != 0:
        return None
    package = types.ModuleType("ganeti")
    sys.modules["ganeti"] = package
    for name in ("utils", "constants", "serializer", "errors"):
        setattr(package, name, types.ModuleType("ganeti." + name))
    package.serializer.LoadJson = json.loads
    package.serializer.DumpJson = lambda data: json.dumps(data).encode()
    package.serializer.Load = package.serializer.LoadJson
    package.serializer.Dump = package.serializer.DumpJson
    if "bitarray" not in sys.modules:
        sys.modules["bitarray"] = types.ModuleType("bitarray")
        sys.modules["bitarray"].bitarray = list

    for name in ("HypervisorError", "ProgrammerError"):
        setattr(package.errors, name, type(name, (Exception,), {}))
    spec = importlib.util.spec_from_file_location("ganeti.monitor",
                                                  os.path.join(folder, "monitor.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.QmpConnection


def png_size(path):
    """Width and height of a whole PNG file; None when it is none."""
    with open(path, "rb") as f:
        data = f.read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    at, pixels = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if zlib.crc32(kind + body) != struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]:
            return None
        pixels += body if kind == b"IDAT" else b""
        at += 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    line = 1 + (width * channels * depth + 7) // 8
    return (width, height) if len(zlib.decompress(pixels)) == line * height else None


def start(work, name, *args):
    env = dict(os.environ, XDG_RUNTIME_DIR=work)
    rd = os.path.join(work, "rd.gz")
    if not os.path.exists(rd):
        script = os.path.join(work, "test.sh")
        with open(script, "w", encoding="ascii") as f:
            f.write(SCRIPT)
        g.initrd(rd, "-m", g.guest("cloud", "modules") +
                 ":virtio_pci,virtio_blk,virtio_net,evdev,button", "-f", script,
                 "-r", "sh /bin/test.sh")
    # pylint: disable=consider-using-with
    with open(os.path.join(work, name + ".log"), "wb") as log:
        return subprocess.Popen([g.SOSIA, "run", "-m", "256M", "-c", "2", "-k", g.guest("cloud"),
                                 "-i", rd, "-a", "console=ttyS0 quiet", "--no-reboot",
                                 "--name", name, "--api", os.path.join(work, "sock"),
                                 "--serial", "file=" + os.path.join(work, name + ".out"), *args],
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)


def shows(work, name, text, seconds=120):
    """Wait until the guest's console has shown the text."""
    until = time.monotonic() + seconds * g.PATIENCE
    path = os.path.join(work, name + ".out")
    while time.monotonic() < until:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                if text in f.read():
                    return True
        time.sleep(0.05)
    return False


def console(work, name):
    with open(os.path.join(work, name + ".out"), encoding="utf-8", errors="replace") as f:
        return f.read()


def sosia(work, *args):
    r = subprocess.run([g.SOSIA, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, check=False, timeout=120 * g.PATIENCE, cwd=work,
                       env=dict(os.environ, XDG_RUNTIME_DIR=work))
    return r.returncode, r.stdout.decode(errors="replace")


def disk_node(work, name):
    return {"driver": "raw", "node-name": name,
            "file": {"driver": "file", "filename": os.path.join(work, "disk.img")}}


def plug_disk(tap, work, name, execute):
    """Plug a disk in and let the guest look at it; execute(command, arguments)."""
    with open(os.path.join(work, "disk.img"), "wb") as f:
        f.write(b"sixteen-letters!" + b"x" * ((1 << 20) - 16))
    execute("blockdev-add", disk_node(work, "d1"))
    execute("device_add", {"driver": "virtio-blk-pci", "id": "vd1", "drive": "d1"})
    tap.ok(shows(work, name, "guest: disk sixteen-letters! 2048") and
           shows(work, name, "guest: wrote"), name + ": the guest uses a disk that was plugged in",
           console(work, name))
    execute("block_resize", {"node-name": "d1", "size": 2 << 20})
    tap.ok(shows(work, name, "guest: grown"), name + ": and sees it grow", console(work, name))


def screendump(tap, work, name, execute):
    path = os.path.join(work, name + ".png")
    execute("screendump", {"filename": path})
    tap.ok(png_size(path) is not None, name + ": screendump is a whole PNG")


def by_own_client(tap, work):
    vm = start(work, "own", "--screenshot", os.path.join(work, "end.png"))
    c = qmp.Client(os.path.join(work, "sock"))
    watcher = qmp.Client(os.path.join(work, "sock"))

    def execute(command, arguments):
        return c(command, **{k.replace("-", "_"): v for k, v in arguments.items()})
    shows(work, "own", "guest: ready")
    tap.ok(c("query-status")["running"] and len(c("query-cpus-fast")) == 2, "own: it runs")
    screendump(tap, work, "own", execute)
    plug_disk(tap, work, "own", execute)
    tap.ok(c.refused("blockdev-del", node_name="d1")[1] == "Node d1 is in use",
           "own: a disk in use stays")
    c("device_del", id="vd1")
    gone = watcher.wait("DEVICE_DELETED")["data"]
    tap.ok(gone == {"device": "vd1", "path": "/machine/peripheral/vd1"} and
           shows(work, "own", "guest: disk gone"), "own: the guest lets go of it",
           gone, console(work, "own"))
    c("blockdev-del", node_name="d1")
    tap.ok(c("query-block") == [], "own: no disk is left")
    kind, why = c.refused("netdev_add", type="user", id="n1")
    if kind:
        tap.skip("own: a network card", why)
    else:
        c("device_add", driver="virtio-net-pci", id="nic1", netdev="n1", mac="52:54:00:ab:cd:ef")
        tap.ok(shows(work, "own", "guest: card 52:54:00:ab:cd:ef"), "own: a card comes",
               console(work, "own"))
        c("device_del", id="nic1")
        watcher.wait("DEVICE_DELETED")
        c("netdev_del", id="n1")
        tap.ok(shows(work, "own", "guest: card gone"), "own: and goes", console(work, "own"))
    shows(work, "own", "guest: at the button")
    c("system_powerdown")
    end = watcher.wait("SHUTDOWN")["data"]
    tap.ok(end == {"guest": True, "reason": "guest-shutdown"} and vm.wait(120 * g.PATIENCE) == 0 and
           "guest: pressed" in console(work, "own"), "own: the power button", end,
           console(work, "own"))


def by_debian_client(tap, work):
    client = ganeti_client()
    if client is None:
        tap.skip("ganeti: Debian's client", "the package is not to be had")
        return
    vm = start(work, "ganeti", "--screenshot", os.path.join(work, "end.png"))
    shows(work, "ganeti", "guest: ready")
    with client(os.path.join(work, "sock")) as c:
        tap.ok(c.version == (7, 2, 0) and "device_add" in c.supported_commands,
               "ganeti: Debian's client takes the greeting", c.version)
        screendump(tap, work, "ganeti", c.Execute)
        plug_disk(tap, work, "ganeti", c.Execute)
        c.Execute("device_del", {"id": "vd1"})
        tap.ok(shows(work, "ganeti", "guest: disk gone"), "ganeti: the guest lets go of it")
        c.Execute("quit")
    tap.ok(vm.wait(60 * g.PATIENCE) == 0, "ganeti: quit")


def by_name(tap, work):
    vm = start(work, "web-1", "--screenshot", os.path.join(work, "end.png"))
    shows(work, "web-1", "guest: ready")
    status, out = sosia(work, "ls")
    tap.ok(status == 0 and len(out.splitlines()) == 2 and
           out.splitlines()[1].split()[:4] == ["web-1", str(vm.pid), "running", "2"], "sosia ls", out)
    tap.ok(sosia(work, "stop", "web-1")[0] == 0 and
           "paused" in sosia(work, "info", str(vm.pid))[1], "sosia stop, info by process")
    status, out = sosia(work, "info", "web-1", "registers")
    tap.ok(status == 0 and "rip" in out and "cpu 1" in out, "sosia info registers", out)
    tap.ok(sosia(work, "screenshot", "web-1", "shot.png")[0] == 0 and
           png_size(os.path.join(work, "shot.png")) is not None, "sosia screenshot")
    for args, text in ((("info", "nobody"), "no VM called 'nobody'"),
                       (("info", "web-1", "nonsense"), "unknown"), (("stop",), "missing")):
        status, out = sosia(work, *args)
        tap.ok(status == 1 and text in out, "sosia " + " ".join(args), out)
    env = dict(os.environ, XDG_RUNTIME_DIR=work)
    r = subprocess.run([g.SOSIA, "run", "-k", g.guest("cloud"), "--name", "web-1"], check=False,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       env=env)
    tap.ok(r.returncode == 1 and b"running already" in r.stderr, "a name is one VM's", r.stderr)
    tap.ok(sosia(work, "cont", "web-1")[0] == 0, "sosia cont")
    vm.kill()
    vm.wait()
    left = os.listdir(os.path.join(work, "sosia"))
    status, out = sosia(work, "ls")
    tap.ok(left == ["web-1.sock"] and status == 0 and out == "" and
           os.listdir(os.path.join(work, "sosia")) == [], "what a dead VM left goes away", out)


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    work = tempfile.mkdtemp(prefix="sosia-control-")
    try:
        if "control socket: no" in g.run("--version")[1]:
            g.skip_all("a build without jansson")
        by_own_client(tap, work)
        by_debian_client(tap, work)
        by_name(tap, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    tap.end()


if __name__ == "__main__":
    main()
