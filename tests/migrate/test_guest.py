#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Debian that checks its memory and its disk moves between processes while it works."""
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g
import moving

MOVES = 10


def back_and_forth(tap, v):
    for i in range(MOVES):
        options = ["--streams", "3"] if i % 3 == 1 else []
        t, address = v.listen(address="tcp:127.0.0.1:0" if i % 2 else None)
        status, said = v.migrate(address or "", *options)
        print("#", said, flush=True)
        if not tap.ok(status == 0, f"move {i + 1}", said, t.all):
            t.end()
            return False
        v.moved(t, said)
        if not tap.ok(v.goes_on(2), f"move {i + 1}: memory and disk are what they were",
                      v.terminal.all):
            return False
    return True


def refusals(tap, v):
    t, address = v.listen("-m", "1G")
    status, said = v.migrate(address)
    tap.ok(status == 1 and "brings its own machine" in said and t.wait(30) == 1 and v.goes_on(),
           "a target with a machine of its own: the source says so and goes on", said, t.all)
    t.end()
    status, said = v.migrate("unix:" + v.path("nobody"))
    tap.ok(status == 1 and "No such file" in said and v.goes_on(), "no target", said)
    t, address = v.listen()
    os.mkdir(v.path("elsewhere"))
    os.rename(v.path("disk"), v.path("elsewhere/disk"))
    status, said = v.migrate(address)
    os.rename(v.path("elsewhere/disk"), v.path("disk"))
    tap.ok(status == 1 and "disk: No such file" in said and v.goes_on(),
           "a target without the disk", said, t.all)
    t.end()


def who_runs(v, t):
    """Of source and target those that run it."""
    return [name for name, api in (("source", v.api()), ("target", v.api(v.hop + 1)))
            if moving.status(api) == "running"]


def links(tap, v):
    """The link is cut: in the beginning, while memory is sent, and at each message of the hand-over."""
    message = lambda kind, after=False: {"message": kind, "after": after}
    points = [("at once", {"limit": 100}, "source"), ("after 1 MiB", {"limit": 1 << 20}, "source"),
              ("after 20 MiB", {"limit": 20 << 20}, "source"),
              ("before LOADED", message(moving.LOADED), "source"),
              ("before GO", message(moving.GO), "source"),
              ("after GO", message(moving.GO, True), "source or target"),
              ("before RUNS", message(moving.RUNS), "target")]
    for name, where, owner in points:
        t, _ = v.listen()
        wire = moving.Wire(v.path("wire" + name.replace(" ", "")), v.path(f"m{v.hop + 1}"), **where)
        status, said = v.migrate(wire.address)
        wire.cut()
        if status != 0:
            t.wait(30)
        runs = who_runs(v, t)
        tap.ok(len(runs) == 1 and runs[0] in owner, f"the link is cut {name}: one of them runs it",
               runs, said, t.all)
        if runs == ["target"]:
            v.moved(t, said)
        else:
            t.end()
        tap.ok(v.goes_on(), f"the link is cut {name}: the guest goes on", said, v.terminal.all)


def slow_link(tap, v):
    """The guest writes memory faster than it may be sent."""
    slow = ["--bandwidth", "24M", "--downtime", "20"]
    t, address = v.listen()
    p = subprocess.Popen([g.SOSIA, "migrate", v.api(), address, "--no-throttle", *slow],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(2)
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=60 * g.PATIENCE)[0].decode()
    tap.ok(p.returncode == 1 and "cancelled" in said and t.wait(30) == 1 and v.goes_on(),
           "cancelled: it goes on at the source", said, t.all)
    t.end()
    t, address = v.listen()
    status, said = v.migrate(address, *slow)
    tap.ok(status == 0, "a slow link: the guest is slowed down until it can move", said, t.all)
    if status == 0:
        v.moved(t, said)
    tap.ok(v.goes_on(2), "a slow link: the guest goes on", v.terminal.all)


def kills(tap, v):
    t, address = v.listen()
    os.kill(t.pid, signal.SIGKILL)
    status, said = v.migrate(address)
    tap.ok(status == 1 and v.goes_on(), "the target was killed: it goes on at the source", said)
    t.end()


def main():
    g.need_guests("cloud", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        v = moving.Moving(work)
        if tap.ok(v.goes_on(3), "the guest works", v.terminal.all):
            refusals(tap, v)
            links(tap, v)
            kills(tap, v)
            slow_link(tap, v)
            v.times.clear()
            if back_and_forth(tap, v):
                left = sorted(f for f in os.listdir(work) if ".migrate-" in f)
                tap.ok(not left, "no ticket is left", left)
            print(f"# the guest stood still for {sorted(v.times)} ms")
        v.end()
    tap.end()


main()
