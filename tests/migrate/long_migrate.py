#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hundred moves of Debian under load, then deaths at random moments: never two run it, never none."""
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import moving

MOVES = int(os.environ.get("MOVES", "100"))
DEATHS = int(os.environ.get("DEATHS", "20"))
OPTIONS = [[], ["--streams", "2"], ["--compress"], []]


def moves(tap, v):
    seconds = []
    for i in range(MOVES):
        t, address = v.listen(address="tcp:127.0.0.1:0" if i % 2 else None)
        begin = time.monotonic()
        status, said = v.migrate(address or "", *OPTIONS[i % len(OPTIONS)])
        seconds.append(time.monotonic() - begin)
        if status != 0:
            tap.ok(False, f"move {i + 1}", said, t.all)
            t.end()
            return seconds
        v.moved(t, said)
        if not v.goes_on():
            tap.ok(False, f"move {i + 1}: it goes on", v.terminal.all)
            return seconds
    tap.ok(True, f"{MOVES} moves, memory and disk are what they were")
    print(f"# the guest stood still for {statistics.median(v.times):.1f} ms in the median, "
          f"{min(v.times):.1f} to {max(v.times):.1f}; a move took {statistics.median(seconds):.1f} s")
    return seconds


def death(tap, v, kind, delay, n):
    """kind dies so long after the beginning. Is the guest still there?"""
    t, _ = v.listen()
    wire = moving.Wire(v.path(f"wire{n}"), v.path(f"m{v.hop + 1}"))
    act = {"source": lambda: os.kill(v.terminal.pid, signal.SIGKILL),
           "target": lambda: os.kill(t.pid, signal.SIGKILL), "link": wire.cut}[kind]
    timer = threading.Timer(delay, act)
    timer.start()
    status, said = v.migrate(wire.address)
    timer.cancel()
    timer.join()
    wire.cut()
    if status != 0:
        t.wait(40)
    runs = [name for name, api in (("source", v.api()), ("target", v.api(v.hop + 1)))
            if moving.status(api) == "running"]
    name = f"{kind} dies after {delay:.2f} s"
    lost = kind == "source" and not runs  # it was its own, and died with it
    tap.ok(len(runs) == 1 or lost, f"{name}: {'it was of the source' if lost else runs}",
           said, v.terminal.all, t.all)
    if runs == ["target"]:
        v.moved(t, said)
    else:
        t.end()
    if runs:
        tap.ok(v.goes_on(2), f"{name}: the guest goes on", v.terminal.all)
    return bool(runs)


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    chance = random.Random(int(os.environ.get("SEED", "5")))
    with tempfile.TemporaryDirectory() as work:
        v = moving.Moving(work, disk_format="qcow2")
        if not tap.ok(v.goes_on(3), "the guest works", v.terminal.all):
            tap.end()
        seconds = moves(tap, v)
        usual = statistics.median(seconds or [2])
        for n in range(DEATHS):
            kind = ("target", "link", "source")[n % 3]
            if not death(tap, v, kind, chance.uniform(0, usual * 1.1), n):
                v.end()
                v = moving.Moving(tempfile.mkdtemp(dir=work), disk_format="qcow2")
                v.goes_on(3)
        v.end()
    tap.end()


main()
