# SPDX-License-Identifier: Apache-2.0
"""A real Debian on a disk comes up without a failed unit, is reached by ssh, reboots and switches off:
what test_debian.py and long_debian.py share."""
import hashlib
import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import debianvm  # noqa: E402
import guest as g  # noqa: E402

OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"


def buses():
    """What this sosia can attach a disk to, as it says itself."""
    return re.search(r"\[,bus=([a-z|]+)\]", g.run("run", "--help")[1]).group(1).split("|")


def machine(firmware, bus, card, port, engine):
    return [g.SOSIA, "run", "-e", engine, "-m", "1G", "-c", "2", "--firmware", firmware, "-d",
            f"{debianvm.IMAGE},format=raw,bus={bus},ephemeral", "-n",
            f"user,model={card},fwd=tcp:{port}:22"]


def units(tap, vm, what):
    """systemd has started all it wanted, and none of it failed."""
    status, text = vm.shell("systemctl is-system-running --wait", 300)
    tap.ok(status == 0, f"{what}: no failed unit", text,
           vm.shell("systemctl --failed --no-pager; journalctl -p err -b --no-pager | tail -20")[1])


def network(tap, vm, ssh, what):
    status, out = ssh.run("hostname; uname -s")
    tap.ok(status == 0 and out.split() == ["debian", "Linux"], f"{what}: ssh", status, out)
    file = "base64 -w0 /usr/bin/ssh"
    status, out = ssh.run(file)
    tap.ok(hashlib.md5(out.encode()).hexdigest() in vm.shell(f"{file} | md5sum")[1],
           f"{what}: a file through ssh", status, len(out))


def switch_off(tap, vm, how, what):
    """By its own poweroff, or by the power button."""
    if how == "poweroff":
        vm.send("poweroff\r")
    else:
        vm.send("\x01c")
        vm.send("power\r")
    tap.ok(vm.wait(180) == 0, f"{what}: {how} ends with status 0", vm.status, vm.all[-600:])


def life(tap, work, firmware, bus, card, reboot=False, how="poweroff", engine="auto"):
    """From power-on to power-off."""
    what = f"{firmware}, {bus}, {card}"
    if firmware == "uefi" and not os.path.exists(OVMF):
        tap.skip(what, "no OVMF")
        return
    ssh = debianvm.Ssh(work) if shutil.which("ssh") else None
    vm = debianvm.Debian(*machine(firmware, bus, card, ssh.port if ssh else debianvm.free_port(), engine))
    seconds = vm.boot()
    if tap.ok(seconds is not None and vm.log_in(), f"{what}: a login prompt", vm.all[-1500:]):
        print(f"# {what}: {seconds:.1f} s", flush=True)
        units(tap, vm, what)
        if ssh and ssh.admit(vm):
            network(tap, vm, ssh, what)
        else:
            tap.skip(f"{what}: ssh", "no ssh client")
        if reboot:
            vm.send("reboot\r")
            tap.ok(vm.boot() is not None and vm.log_in(), f"{what}: reboot", vm.all[-1500:])
            units(tap, vm, f"{what}, again")
        switch_off(tap, vm, how, what)
    vm.end()


def main(lives, make):
    debianvm.need_image(make)
    tap = g.Tap()
    for options in lives:
        with tempfile.TemporaryDirectory() as work:
            life(tap, work, **options)
    tap.end()
