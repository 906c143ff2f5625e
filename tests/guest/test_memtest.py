#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""memtest86+ comes up by its Linux boot header and tests memory without an error."""
import memtest
from memtest import g

tap = g.Tap()
g.need_guests("memtest")
# It begins with test #0; that a later one runs says that some passed.
for bits in (64, 32):
    memtest.run(tap, bits, "bt", r"#[2-9] ", 60, "-m", "32M")
memtest.run(tap, 64, "interp", r"#[1-9] ", 60, "-m", "16M")
tap.end()
