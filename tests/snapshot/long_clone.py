#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Twenty clones of Debian with systemd and sshd: each answers by ssh, and has random numbers of its own."""
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import debianvm
import guest as g

COUNT = 20
ASK = "cat /proc/sys/kernel/random/uuid; dmesg | grep -c 'reseeded due to virtual machine fork'"


def free_ports():
    """One of the source and as many above it."""
    while True:
        first = debianvm.free_port()
        if first + COUNT < 65536:
            return first


def memory(pid):
    """MiB of the host, shared pages counted in parts."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Pss:")) / 1024


def ask_all(ssh, began):
    """Per clone that answered: seconds, what it said."""
    answers = {}

    def ask(n):
        other = debianvm.Ssh.__new__(debianvm.Ssh)
        other.key, other.port = ssh.key, ssh.port + n
        status, out = other.run(ASK, 300)
        if status == 0:
            answers[n] = time.monotonic() - began, out.split()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, COUNT + 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def session(tap, vm, ssh):
    if not tap.ok(vm.boot() is not None and vm.log_in() and ssh.admit(vm) and
                  ssh.run("true")[0] == 0, "the source answers", vm.all[-1500:]):
        return
    source = memory(vm.pid)
    began = time.monotonic()
    status, out, err = g.run("clone", "source", "-n", str(COUNT), "--name-prefix", "c")
    took = time.monotonic() - began
    if not tap.ok(status == 0, "clones", out, err):
        return
    pids = [int(line.split()[1]) for line in out.splitlines()]
    at_once = sum(memory(pid) for pid in pids)
    answers = ask_all(ssh, began)
    after = sum(memory(pid) for pid in pids)
    tap.ok(len(answers) == COUNT, "each answers", answers)
    tap.ok(len({said[0] for _, said in answers.values()}) == len(answers), "differently", answers)
    tap.ok(all(said[1] == "1" for _, said in answers.values()), "its kernel knows why", answers)
    tap.ok(ssh.run("dmesg | grep -c 'virtual machine fork'")[1].strip() == "0",
           "the source is as before")
    print(f"# {COUNT} clones in {took:.2f} s, all answered after "
          f"{max([0, *(s for s, _ in answers.values())]):.1f} s; memory: source {source:.0f} MiB, "
          f"clones {at_once:.0f} MiB at first, {after:.0f} MiB then", flush=True)


def main():
    if shutil.which("ssh") is None:
        g.skip_all("no ssh client")
    debianvm.need_image(True)
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_RUNTIME_DIR"] = work
        os.chdir(work)
        ssh = debianvm.Ssh(work)
        ssh.port = free_ports()
        subprocess.run([g.SOSIA, "disk", "create", "-f", "qcow2", "-b", debianvm.IMAGE, "-F", "raw",
                        "disk"], check=True, stdout=subprocess.DEVNULL)
        vm = debianvm.Debian(g.SOSIA, "run", "--name", "source", "-e", "bt", "-m", "1G", "-d",
                             "disk,bus=virtio", "-n", f"user,fwd=tcp:{ssh.port}:22")
        try:
            session(tap, vm, ssh)
        finally:
            for n in range(1, COUNT + 1):
                g.run("quit", f"c-{n}")
            vm.end()
    tap.end()


main()
