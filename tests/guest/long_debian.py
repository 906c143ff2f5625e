#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian from its disk through both firmwares, from each kind of disk, with either network card: see debian.py."""
from debian import buses, main

CARDS = {"bios": "virtio", "uefi": "e1000"}
main([{"firmware": firmware, "bus": bus, "card": CARDS[firmware], "reboot": True,
       "how": "power" if firmware == "bios" else "poweroff"}
      for bus in buses() for firmware in ("bios", "uefi")], make=True)
