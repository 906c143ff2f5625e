#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clones of a VM that runs, and of a snapshot: each goes on, as somebody else; and all or none."""
import glob
import os
import re
import socket
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import qmp

COUNT = 3

# What it wrote to its disk before must be there, and what it writes is its own. When it is told that
# it is a clone it binds its network driver again.
SCRIPT = """address() { cat /sys/class/net/eth0/address; }
card=$(basename $(readlink /sys/class/net/eth0/device))
echo shared | dd of=/dev/vda bs=512 conv=sync 2>/dev/null
sleep() { busybox usleep 200000; }
n=0
while :; do
    n=$((n + 1))
    echo $n | dd of=/dev/vda bs=512 seek=1 conv=sync oflag=direct 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    event=$(sed 's/^ *//; s/ .*//' /sys/firmware/acpi/interrupts/gpe02)
    echo "round $n: $(head -c 6 /dev/vda), $(dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | head -n 1), $event."
    if [ "$event" != 0 ] && [ -n "$card" ]; then
        old=$(address)
        echo $card >/sys/bus/virtio/drivers/virtio_net/unbind
        echo $card >/sys/bus/virtio/drivers/virtio_net/bind
        echo "card: $old, $(address)."
        card=
    fi
    sleep
done
"""
ROUND = r"round (\d+): shared, (\d+), (\d+)\."


def free_ports(count):
    """The first of so many that are free, one after the other, after another that is."""
    for first in range(20000, 40000, 50):
        sockets = []
        try:
            for i in range(count + 1):
                s = socket.socket()
                sockets.append(s)
                s.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    return None


def generation(env, name):
    q = qmp.Client(os.path.join(env["XDG_RUNTIME_DIR"], "sosia", name + ".sock"))
    guid = q("query-vm-generation-id")["guid"]
    q.socket.close()
    return guid


def names(env):
    _, out, _ = g.run("ls", env=env)
    return sorted(line.split()[0] for line in out.splitlines()[1:])


def rounds(path, more):
    """The last round in a clone's console, when there are so many, or after half a minute."""
    found = []
    for _ in range(int(300 * g.PATIENCE)):
        if os.path.exists(path):
            with open(path, "rb") as f:
                found = re.findall(ROUND, f.read().decode(errors="replace"))
        if len(found) >= more:
            break
        time.sleep(0.1)
    return found


def counters(env, name):
    """Of its engine."""
    _, out, _ = g.run("info", name, "engine", env=env)
    return {w[0]: int(w[1]) for w in (line.split() for line in out.splitlines()) if len(w) == 2 and
            w[1].isdigit()}


def new_cards(path):
    with open(path, "rb") as f:
        text = f.read().decode(errors="replace")
    return re.findall(r"card: 52:54:00:12:34:56, (52:56:[0-9a-f:]+)\.", text)


def check_clones(tap, env, prefix, log, event, net):
    for i in range(1, COUNT + 1):
        found = rounds(log.replace("{n}", str(i)), 3)
        tap.ok(len(found) >= 3 and all(n == own for n, own, _ in found),
               f"{prefix}-{i} runs, on a disk of its own", found)
        tap.ok(found and found[-1][2] == event, f"{prefix}-{i} was told", found)
    cards = {card for i in range(1, COUNT + 1) for card in new_cards(log.replace("{n}", str(i)))}
    tap.ok(not net or len(cards) == COUNT, "each has a MAC address for a driver that begins", cards)
    ids = {generation(env, f"{prefix}-{i}") for i in range(1, COUNT + 1)}
    tap.ok(len(ids) == COUNT, "each has a generation ID", ids)
    return ids


def quit_all(env, prefix):
    for i in range(1, COUNT + 1):
        g.run("quit", f"{prefix}-{i}", env=env)


def session(tap, work, env):
    here = lambda name: os.path.join(work, name)
    port = free_ports(COUNT)
    net = [] if " user" not in g.run("--version")[1] else ["-n", f"user,fwd=tcp:{port}:22"]
    with open(here("disk"), "wb") as f:
        f.truncate(1 << 20)
    with open(here("work.sh"), "w", encoding="ascii") as f:
        f.write(SCRIPT)
    rd = g.initrd(here("rd.gz"), "-m", g.guest("cloud", "modules") + ":virtio_pci,virtio_blk,virtio_net",
                  "-f", here("work.sh"), "-r", "sh /bin/work.sh")
    t = g.Terminal(g.SOSIA, "run", "--name", "web", "-e", "bt", "-m", "128M", "-k",
                   g.guest("cloud"), "-i", rd, "-d", here("disk") + ",format=raw", "-a",
                   "console=ttyS0 quiet", *net)
    if not tap.ok(bool(t.expect(ROUND, 120)), "the source works", t.all):
        t.end()
        return
    before = generation(env, "web")
    began = time.monotonic()
    status, out, err = g.run("clone", "web", "-n", str(COUNT), "--serial",
                             "file=" + here("web-{n}.log"), env=env)
    print(f"# {time.monotonic() - began:.2f} s", flush=True)
    if tap.ok(status == 0 and "web-3" in out, "clones of a VM that runs", out, err):
        ids = check_clones(tap, env, "web", here("web-{n}.log"), "1", net)
        tap.ok(before not in ids and generation(env, "web") == before, "the source keeps its own")
        c = counters(env, "web-2")
        tap.ok(c.get("bt.inherited_blocks", 0) > 10 * c.get("bt.blocks", 0),
               "what the source had translated is not translated again", c)
    tap.ok(names(env) == ["web", "web-1", "web-2", "web-3"], "all are there", names(env))
    t.text = ""
    m = t.expect(ROUND, 60) and t.expect(ROUND, 60)
    tap.ok(m and m.group(3) == "0", "the source runs on, and was not told", t.all)
    for i in range(COUNT + 1 if net else 0):
        with socket.socket() as s:
            s.settimeout(10)
            tap.ok(s.connect_ex(("127.0.0.1", port + i)) == 0, f"port {i} up is forwarded")
    tap.ok(not glob.glob(here("web.clones-*")), "no snapshot is left", os.listdir(work))

    status, out, err = g.run("snapshot", "web", here("saved"), env=env)
    tap.ok(status == 0, "a snapshot", out, err)
    files = set(os.listdir(work))
    g.run("quit", "web-1", env=env)
    again = ["clone", here("saved"), "-n", str(COUNT), "--name-prefix", "web"]
    if net:
        status, out, err = g.run(*again, env=env)
        tap.ok(status == 1 and "forward TCP port" in err, "a port that is taken", out, err)
        again += ["--net", "user"]
    status, out, err = g.run(*again, env=env)
    tap.ok(status == 1 and out == "" and "running already" in err and err.count("\n") == 1,
           "a name that is taken: none is made", out, err)
    tap.ok(set(os.listdir(work)) == files, "and no file is left", set(os.listdir(work)) - files)
    tap.ok(names(env) == ["web", "web-2", "web-3"], "nor a VM", names(env))
    quit_all(env, "web")
    g.run("quit", "web", env=env)
    t.end()
    status, out, err = g.run("clone", here("saved"), "-n", str(COUNT), "--name-prefix", "b", "-e",
                             "interp", "--ephemeral", "--serial", "file=" + here("b-{n}.log"),
                             env=env)
    if tap.ok(status == 0, "clones of a snapshot, under interp", out, err):
        check_clones(tap, env, "b", here("b-{n}.log"), "1", net)
    tap.ok(not glob.glob(here("b-*.qcow2")), "ephemeral: no overlays", os.listdir(work))
    quit_all(env, "b")


def refusals(tap, env):
    for args, text in ((["web"], "how many"), (["-n", "3"], "of what"),
                       (["web", "-n", "0"], "number of clones"),
                       (["web", "-n"], "needs an argument"),
                       (["web", "-n", "2", "--name", "x"], "--name-prefix"),
                       (["web", "-n", "2", "--name-prefix", "a/b"], "no name"),
                       (["nobody", "-n", "2"], "nobody")):
        status, out, err = g.run("clone", *args, env=env)
        tap.ok(status == 1 and out == "" and text in err and err.count("\n") == 1,
               "clone " + " ".join(args), out, err)


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_RUNTIME_DIR"] = work
        os.chdir(work)
        env = dict(os.environ)
        refusals(tap, env)
        try:
            session(tap, work, env)
        finally:
            for name in names(env):
                g.run("quit", name, env=env)
    tap.end()


main()
