#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Debian with its own drivers on AHCI and NVMe: disks, a CD-ROM, errors, two processors at once."""
import hashlib
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import guest as g

# Written raw and through a file system, read again past the cache; four writers at once; discarded.
DISK = """B=%s; D=/dev/$B
echo "== %s"
mkdir -p /mnt
dd if=/tmp/r of=$D bs=1M seek=1 oflag=direct 2>/dev/null
dd if=$D bs=64k skip=16 count=64 iflag=direct 2>/dev/null | cmp - /tmp/r && echo "raw same"
for i in 5 9 13 17; do dd if=/tmp/r of=$D bs=4k seek=$((i * 256)) oflag=direct 2>/dev/null & done
wait
for i in 5 9 13 17; do
    dd if=$D bs=1M skip=$i count=4 iflag=direct 2>/dev/null | cmp - /tmp/r || echo "differs at $i"
done && echo "four at once"
mke2fs $D >/dev/null 2>&1
mount $D /mnt && cp /tmp/r /bin/busybox /mnt && sync && umount /mnt && echo "fs written"
mount $D /mnt && cmp /tmp/r /mnt/r && cmp /bin/busybox /mnt/busybox && echo "fs same"
umount /mnt
blkdiscard $D && echo discarded
dd if=$D bs=64k count=4 2>/dev/null | md5sum
cat /sys/block/$B/queue/write_cache
"""
# The two NVMe disks come in any order.
START = """dd if=/dev/urandom of=/tmp/r bs=1M count=4 2>/dev/null
for NVME in nvme0n1 nvme1n1; do
    if [ $(cat /sys/block/$NVME/ro) = 0 ]; then break; fi
    echo "$NVME cannot be written"
done
[ $NVME = nvme1n1 ] || echo "nvme1n1 $(cat /sys/block/nvme1n1/ro)"
"""
END = """echo "== end"
md5sum /dev/sr0
dmesg | grep -i -E "error|exception|timeout|failed|frozen|I/O" | grep -i -E "ata|nvme|sd[ab]|blk"
grep -i -E "ahci|nvme" /proc/interrupts
"""
ZEROES = hashlib.md5(bytes(256 * 1024)).hexdigest()


def main():
    g.need_guests("amd64", "busybox")
    tap = g.Tap()
    with tempfile.TemporaryDirectory() as work:
        def image(name, data=b""):
            path = os.path.join(work, name)
            with open(path, "wb") as f:
                f.write(data)
                f.truncate(24 << 20)
            return path

        data = os.urandom(3 << 20)
        cd = os.path.join(work, "cd.iso")
        with open(cd, "wb") as f:
            f.write(data)
        disks = [("AHCI", "sda"), ("NVMe", "$NVME")]
        text = START + "".join(DISK % (node, what) for what, node in disks) + END
        script = os.path.join(work, "test.sh")
        with open(script, "w", encoding="ascii") as f:
            f.write(text)
        modules = "ahci,nvme,sd_mod,sr_mod,ext4,crc32c_generic"
        rd = g.initrd(os.path.join(work, "rd.gz"), "-m", f"{g.guest('amd64', 'modules')}:{modules}",
                      "-f", script, "-r", "sh /bin/test.sh")
        args = [a for name, option in (("a", "bus=ahci"), ("n", "bus=nvme"), ("r", "bus=nvme,readonly"))
                for a in ("-d", f"{image(name)},format=raw,{option}")]
        status, out, err = g.run("run", "-m", "384M", "-c", "2", "-k", g.guest("amd64"), "-i", rd, "-a",
                                 "console=ttyS0 quiet", "--no-reboot", *args,
                                 "--cdrom", f"{cd},bus=ahci", timeout=200)
        tap.ok(status == 0, "the guest comes to its end", out, err)
        for what, _ in disks:
            part = (out.split(f"== {what}", 1) + [""])[1].split("== ")[0]
            tap.ok("raw same" in part, f"{what}: written and read", part)
            tap.ok("four at once" in part and "differs" not in part, f"{what}: many at once", part)
            tap.ok("fs written" in part and "fs same" in part, f"{what}: a file system", part)
            tap.ok("discarded" in part and ZEROES in part, f"{what}: discard", part)
            tap.ok("write back" in part, f"{what}: a write cache", part)
        tap.ok("nvme0n1 cannot be written" in out or "nvme1n1 1" in out, "NVMe: a read-only disk", out)
        end = (out.split("== end", 1) + [""])[1]
        tap.ok(hashlib.md5(data).hexdigest() in end, "a CD-ROM on AHCI", end)
        tap.ok("exception" not in end and "timeout" not in end, "no errors", end)
        tap.ok(end.count("PCI-MSI") >= 4, "message-signalled interrupts", end)
    tap.end()


main()
