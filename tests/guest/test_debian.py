#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian from its disk, once, when its image has been made: see debian.py."""
from debian import main

main([{"firmware": "bios", "bus": "virtio", "card": "virtio"}], make=False)
