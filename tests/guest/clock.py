# SPDX-License-Identifier: Apache-2.0
"""A guest's clock against the host's: what test_ and long_clock share.

The guest prints its uptime clock when it is asked, and the host its own between sending the question
and reading the answer. Two such pairs far enough apart give the guest's rate.
"""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

# adjtimex -q has no monotonic clock; /proc/uptime is CLOCK_BOOTTIME in hundredths, the same
# here: nothing sleeps.
LOAD = "while :; do :; done & while :; do dd if=/dev/zero of=/dev/null bs=64k count=9 2>/dev/null; done & "
ASK = "while read x; do echo now $(cut -d' ' -f1 /proc/uptime) $(date +%s); done"
ERROR = 0.01


class Pair:
    """Guest time, and the host's interval that holds the moment when it was read."""

    def __init__(self, guest, real, before, after):
        self.guest, self.real, self.before, self.after = guest, real, before, after


def ask(t, patience):
    """The closest pair of a few tries."""
    best = None
    for _ in range(12):
        before = time.monotonic()
        t.send("x\r")
        m = t.expect(r"now ([\d.]+) (\d+)\n", patience)
        after = time.monotonic()
        if not m:
            return None
        if best is None or after - before < best.after - best.before:
            best = Pair(float(m.group(1)), int(m.group(2)), before, after)
        time.sleep(0.05)
    return best


def rate_error(first, last):
    """How far the rate is off at least: what the reading's own uncertainty cannot explain."""
    guest = last.guest - first.guest
    shortest = last.before - first.after
    longest = last.after - first.before
    if guest > longest + 0.01:
        return (guest - longest - 0.01) / longest
    if guest < shortest - 0.01:
        return (shortest - guest - 0.01) / shortest
    return 0.0


def measure(tap, engine, seconds, source=None, load=False, cpus=1, kernel="cloud"):
    name = (f"{kernel} on {engine}, {cpus} cpu(s), {source or 'its own'} clock source, "
            f"{'load' if load else 'idle'}, {seconds} s")
    # Stable or not: jiffies is the last resort of a kernel that was told to use nothing else.
    append = "console=ttyS0 quiet" + (f" clocksource={source} tsc=reliable" if source else "")
    if source == "jiffies":
        # One-shot timers are set when the last tick was taken, each a little late; periodic ones are not.
        append += " hpet=disable lapic=notscdeadline"
    with tempfile.TemporaryDirectory() as work:
        body = ("stty -echo; cat /sys/devices/system/clocksource/clocksource0/current_clocksource;" +
                (LOAD if load else "") + "echo ready;" + ASK)
        rd = g.initrd(os.path.join(work, "rd.gz"), "-r", body)
        t = g.Terminal(g.SOSIA, "run", "-e", engine, "-c", str(cpus), "-m", "512M", "-k",
                       g.guest(kernel), "-i", rd, "-a", append)
        m = t.expect(r"(?m)^(\S+)\nready\n", 240)
        used = m.group(1) if m else None
        first = ask(t, 60) if m else None
        time.sleep(seconds)
        last = ask(t, 60) if first else None
        t.end()
    if not last:
        tap.ok(False, name, t.all[-1000:])
        return
    off = rate_error(first, last)
    # The wall clock was read from the RTC at boot: that one may be a second late, and is no rate.
    wall = abs(last.real - time.time())
    good = off < ERROR and wall < 5 and (source is None or used == source)
    tap.ok(good, name, f"clock source {used}; rate off by {off:.4f}; wall clock off by {wall:.1f} s")
    print(f"# {used}: guest {last.guest - first.guest:.2f} s, host {last.before - first.before:.2f} s, "
          f"readings {(first.after - first.before) * 1000:.0f} and "
          f"{(last.after - last.before) * 1000:.0f} ms", flush=True)
