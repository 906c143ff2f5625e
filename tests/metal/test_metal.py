#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the bare-metal kernels of this directory on each engine.

One TAP line for each kernel, engine, number of processors and CPU model; a kernel's own failures
follow as comments. Kernels end through port 0xf4 with status 1; t32_triple ends in a triple fault (status 2).
METAL="name name" selects kernels, METAL_ENGINES engines.
"""
import glob
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.environ.get("TOP") or os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BUILD") or os.path.join(TOP, "build")
SOSIA = os.environ.get("SOSIA") or os.path.join(BUILD, "sosia")
OUT = os.path.join(BUILD, "metal")
SECONDS = 120
EXPECTED_STATUS = {"t32_triple": 2}
PROCESSORS = {"t64_smp": [1, 2, 4]}
MODELS = {"t64_absent": ["x86-64-v1", "x86-64-v2", "x86-64-v3", "host"],
          "t64_fpu": ["", "host"]}


def hardware():
    """Is there KVM with VT-x or SVM behind it? Without, it is the kernel's emulator that is tested."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        flags = f.read().split()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and ("vmx" in flags or "svm" in flags)


ENGINES = os.environ.get("METAL_ENGINES", "interp bt kvm" if hardware() else "interp bt").split()


def run(kernel, engine, cpus, model):
    """(good, lines of the kernel's output that tell why not)"""
    command = [SOSIA, "run", "-e", engine, "-m", "64M", "-c", str(cpus), "-k", kernel, "--exit-port",
               "0xf4", "--no-reboot"] + (["--cpu", model] if model else [])
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
        output, status = child.stdout, child.returncode
    except subprocess.TimeoutExpired as e:
        output, status = e.stdout or b"", "time is up"
    lines = output.decode(errors="replace").splitlines()
    name = os.path.splitext(os.path.basename(kernel))[0]
    bad = []
    for i, line in enumerate(lines):
        if line.startswith("not ok"):
            bad += lines[i:i + 2]
    planned = any(line.startswith("1..") for line in lines)
    if status != EXPECTED_STATUS.get(name, 1) or not planned:
        bad += [f"status {status}"] + lines[-2:]
    return not bad, bad


def main():
    made = subprocess.run(["make", "-s", "-C", HERE, "OUT=" + OUT], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if made.returncode != 0:
        print("1..1\nnot ok 1 - kernels build")
        print("# " + made.stdout.decode(errors="replace").replace("\n", "\n# "))
        return 1
    wanted = os.environ.get("METAL", "").split()
    names = sorted(os.path.splitext(os.path.basename(p))[0]
                   for p in glob.glob(os.path.join(HERE, "t[36][24]_*.c")))
    jobs = [(n, e, c, m) for n in names if not wanted or n in wanted for e in ENGINES
            for c in PROCESSORS.get(n, [1]) for m in MODELS.get(n, [""])]
    print(f"1..{len(jobs)}", flush=True)
    failed = 0
    for number, (name, engine, cpus, model) in enumerate(jobs, 1):
        good, why = run(os.path.join(OUT, name + ".elf"), engine, cpus, model)
        failed += not good
        text = f"{name} on {engine}" + (f" with {cpus} processors" if name in PROCESSORS else "")
        text += f", {model}" if model else ""
        print(("ok" if good else "not ok") + f" {number} - {text}")
        for line in why:
            print("#   " + line)
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
