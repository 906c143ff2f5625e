#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small systems and boot loaders, each as people start it: from floppies, CDs, as firmware, by multiboot; under both software
engines. The last screen or log of each is kept in BUILD/guests/seen."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

ENGINES = ("bt", "interp")
FLOPPY = 1440 * 1024
MODULES = ("libcom32.c32", "libutil.c32", "libmenu.c32", "libgpl.c32", "hdt.c32", "mboot.c32", "menu.c32")


def on_screen(tap, name, engine, wanted, *options, typed="", then="", seconds=240):
    """wanted comes on the screen; what is typed then brings what comes then."""
    t = g.Terminal(g.SOSIA, "run", "-e", engine, *options)
    text = g.wait_for_screen(t, wanted, seconds)
    good = wanted in text
    if good and then:
        t.send(typed)
        text = g.wait_for_screen(t, then, seconds)
        good = then in text
    g.keep(f"{name.replace(' ', '-')}-{engine}.txt", text)
    tap.ok(good, f"{name}, {engine}", text or t.all[-1500:])
    t.end()


def on_line(tap, name, engine, wanted, *options, seconds=240):
    """wanted comes on the serial line."""
    t = g.Terminal(g.SOSIA, "run", "-e", engine, *options)
    good = bool(t.expect(wanted, seconds))
    g.keep(f"{name.replace(' ', '-')}-{engine}.txt", t.all)
    tap.ok(good, f"{name}, {engine}", t.all[-1500:])
    t.end()


def legacy_floppy(path):
    """GRUB 0.97 as its manual says: stage 1 in the boot sector, stage 2 right after it."""
    with open(path, "wb") as f:
        for stage in ("stage1", "stage2"):
            with open(g.guest("grub-legacy", stage), "rb") as s:
                f.write(s.read())
        f.truncate(FLOPPY)
    return path


def syslinux_floppy(work):
    """A FAT floppy whose loader starts a multiboot game."""
    path, config = os.path.join(work, "syslinux.img"), os.path.join(work, "syslinux.cfg")
    with open(config, "w", encoding="ascii") as f:
        f.write("DEFAULT game\nPROMPT 0\nLABEL game\n  KERNEL mboot.c32\n  APPEND invaders.exec\n")
    files = [g.guest("syslinux-modules", m) for m in MODULES] + [g.guest("invaders", "invaders.exec"), config]
    subprocess.run(["mformat", "-C", "-i", path, "-f", "1440", "::"], check=True)
    subprocess.run(["mcopy", "-i", path, *files, "::"], check=True)
    subprocess.run([g.guest("syslinux", "syslinux"), "--install", path], check=True)
    return path


def isolinux_cd(work, name, config, *files):
    """An El Torito CD-ROM without emulation of a disk."""
    top, path = os.path.join(work, name + ".d"), os.path.join(work, name + ".iso")
    os.makedirs(top)
    for file in [g.guest("isolinux", "isolinux.bin"), g.guest("syslinux-modules", "memdisk"), *files,
                 *(g.guest("syslinux-modules", m) for m in MODULES + ("ldlinux.c32",))]:
        shutil.copy(file, top)
    with open(os.path.join(top, "isolinux.cfg"), "w", encoding="ascii") as f:
        f.write(config)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-b", "isolinux.bin", "-c", "boot.cat",
                    "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", top], check=True,
                   stderr=subprocess.DEVNULL)
    return path


def emulated_floppy_cd(work, floppy):
    """An El Torito CD-ROM that is drive A: to what starts from it."""
    top, path = os.path.join(work, "emulated.d"), os.path.join(work, "emulated.iso")
    os.makedirs(top)
    shutil.copy(floppy, top)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-b", os.path.basename(floppy), "-c", "boot.cat",
                    top], check=True, stderr=subprocess.DEVNULL)
    return path


def loaders(tap, engine, images):
    rescue = g.guest("grub-rescue", "grub-rescue-")
    on_screen(tap, "GRUB 2 from a floppy", engine, "GNU GRUB  version 2", "--floppy", rescue + "floppy.img")
    on_screen(tap, "GRUB 2 from a CD", engine, "GNU GRUB  version 2", "--cdrom", rescue + "cdrom.iso")
    on_screen(tap, "GRUB 0.97 from a floppy", engine, "grub>", "--floppy", images["legacy"],
              typed="geometry (fd0)\r", then="C/H/S = 80/2/18")
    on_screen(tap, "SYSLINUX and a multiboot game", engine, "-*-", "--floppy", images["syslinux"])
    on_screen(tap, "ISOLINUX and HDT", engine, "Hardware Detection Tool", "--cdrom", images["hdt"])
    on_screen(tap, "MEMDISK from a CD", engine, "-*-", "--cdrom", images["memdisk"])
    on_screen(tap, "a CD with an emulated floppy", engine, "grub>", "--cdrom", images["emulated"],
              typed="geometry (fd0)\r", then="C/H/S = 80/2/18")
    on_screen(tap, "GRUB as firmware", engine, "GNU GRUB  version 2", "--firmware", g.guest("grub-firmware", "grub.bin"))
    on_line(tap, "U-Boot as firmware", engine, r"\n=> $", "--firmware", g.guest("u-boot", "u-boot.rom"))


def systems(tap, engine):
    for bits in ("x64", "ia32"):
        on_screen(tap, f"memtest86+ {bits} from its CD", engine, "Test #2", "--cdrom",
                  g.guest("memtest-iso", f"memtest86+{bits}.iso"), "-m", "64M", seconds=400)
    on_line(tap, "GNU Mach by multiboot", engine, "No bootstrap code loaded with the kernel", "-k",
            g.guest("gnumach", "gnumach"), "-a", "console=com0")
    on_screen(tap, "a multiboot game without firmware", engine, "-*-", "-k", g.guest("invaders", "invaders.exec"),
              "--display", "vnc=127.0.0.1:0")


def xen_cd(work):
    """Xen by multiboot 2, as it is installed on disks."""
    rd = g.initrd(os.path.join(work, "rd.gz"))
    return g.grub_iso(os.path.join(work, "xen.iso"), f"""
multiboot2 /boot/xen com1=115200,8n1 console=com1 no-real-mode
module2 /boot/vmlinuz console=hvc0
module2 /boot/{os.path.basename(rd)}
boot
""", g.guest("xen", "xen"), g.guest("amd64"), rd, modules="multiboot2")


def main():
    g.need_guests("grub-rescue", "grub-legacy", "grub-firmware", "syslinux", "isolinux", "syslinux-modules", "u-boot",
                  "gnumach", "invaders", "memtest-iso", "xen", "amd64", "busybox")
    if not shutil.which("mformat") or not shutil.which("xorriso"):
        g.skip_all("no mtools, or no xorriso")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        syslinux = syslinux_floppy(work)
        legacy = legacy_floppy(os.path.join(work, "legacy.img"))
        images = {
            "legacy": legacy,
            "syslinux": syslinux,
            "hdt": isolinux_cd(work, "hdt", "DEFAULT hdt.c32\nPROMPT 0\n"),
            "memdisk": isolinux_cd(work, "memdisk", "DEFAULT disk\nPROMPT 0\nLABEL disk\n  KERNEL memdisk\n"
                                   "  APPEND initrd=syslinux.img\n", syslinux),
            "emulated": emulated_floppy_cd(work, legacy),
        }
        xen = xen_cd(work)
        for engine in ENGINES:
            loaders(tap, engine, images)
            systems(tap, engine)
            if xen is None:
                tap.skip(f"Xen by multiboot 2, {engine}", "no grub-mkrescue, or no GRUB for BIOS")
            else:
                on_line(tap, "Xen by multiboot 2", engine, r"busybox userland on Linux", "-m", "1G", "--cdrom", xen,
                        seconds=600)
    tap.end()


main()
