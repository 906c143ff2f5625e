#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""memtest86+ through a whole pass: all its tests, with 1 and 2 processors."""
import memtest
from memtest import g

tap = g.Tap()
g.need_guests("memtest")
for bits in (64, 32):
    for cpus in (1, 2):
        memtest.run(tap, bits, "bt", r"Pass: +[1-9]", 1800, "-m", "32M", "-c", str(cpus))
tap.end()
