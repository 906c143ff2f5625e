#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian with systemd under load: how long snapshots make it stand still, how soon one answers.

Figures, not verdicts: a busy host makes them any number. That memory is right is checked.
"""
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import debianvm
import guest as g

ROUNDS = 9
# 600 MB that stay, whose sum is asked for afterwards, and 100 MB that are always new.
LOAD = ("head -c 600M /dev/zero | tr '\\0' x >/dev/shm/a; cksum </dev/shm/a >/root/sum; "
        "(while :; do head -c 100M /dev/urandom >/dev/shm/b; done) >/dev/null 2>&1 & true")
CHECK = "cksum </dev/shm/a | cmp - /root/sum && (dmesg | grep -iwE 'lockup|stall|stalls|hung task|unstable'; true)"


def pauses():
    """ms of each of the snapshots; the last one's file stays."""
    found = []
    for _ in range(ROUNDS):
        status, out, err = g.run("snapshot", "source", "s", timeout=300)
        m = re.search(r"stood still for ([\d.]+) ms", out)
        if status != 0 or not m:
            print("#", out, err, flush=True)
            return []
        print("#", out.strip(), flush=True)
        found.append(float(m.group(1)))
    return found


def restored(ssh):
    """Seconds to the guest's first instruction and to an answer by ssh; the answer."""
    began = time.monotonic()
    with subprocess.Popen([g.SOSIA, "restore", "s", "-v", "-e", "bt", "--ephemeral", "--serial", "none",
                           "-n", f"user,fwd=tcp:{ssh.port}:22"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as p:
        runs = None
        for line in p.stderr:
            if b"the guest runs" in line:
                runs = time.monotonic() - began
                break
        status, _ = ssh.run("true")
        answers = time.monotonic() - began if status == 0 else None
        said = ssh.run(CHECK)
        p.terminate()
        p.stderr.read()
    return runs, answers, said


def session(tap, vm, ssh):
    if not tap.ok(vm.boot() is not None and vm.log_in() and ssh.admit(vm) and
                  ssh.run("true")[0] == 0, "the source answers", vm.all[-1500:]):
        return
    vm.shell(LOAD, 600)
    found = pauses()
    tap.ok(len(found) == ROUNDS, "snapshots", found)
    vm.end()
    firsts, answers = [], []
    for _ in range(3):
        runs, answer, said = restored(ssh)
        tap.ok(runs and answer and said == (0, ""), "taken up, memory is right, no complaints",
               runs, answer, said)
        firsts.append(runs or 0)
        answers.append(answer or 0)
    print(f"# pause: median {statistics.median(found or [0]):.0f} ms of {found}; first instruction "
          f"after {statistics.median(firsts) * 1000:.0f} ms of {firsts}; ssh answers after "
          f"{statistics.median(answers) * 1000:.0f} ms of {answers}", flush=True)


def main():
    if shutil.which("ssh") is None:
        g.skip_all("no ssh client")
    debianvm.need_image(True)
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_RUNTIME_DIR"] = work
        os.chdir(work)
        ssh = debianvm.Ssh(work)
        subprocess.run([g.SOSIA, "disk", "create", "-f", "qcow2", "-b", debianvm.IMAGE, "-F", "raw",
                        "disk"], check=True, stdout=subprocess.DEVNULL)
        vm = debianvm.Debian(g.SOSIA, "run", "--name", "source", "-e", "bt", "-m", "1G", "-d",
                             "disk,bus=virtio", "-n", f"user,fwd=tcp:{ssh.port}:22")
        try:
            session(tap, vm, ssh)
        finally:
            vm.end()
    tap.end()


main()
