#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ten minutes of storm on four processors, and many changes of the kernel's text: see storm.py."""
from storm import SMALL, main

main(seconds=600, rounds=40, caches=[("", ()), SMALL])
