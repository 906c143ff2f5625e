#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The userland self-test in one guest of each kind; long_selftest.py has every combination."""
import selftest

selftest.main([
    ("cloud", "bt", "x86-64-v3", 2),
    ("cloud", "interp", "x86-64-v3", 1),
    ("cloud", "bt", "x86-64-v1", 1),
    ("686-pae", "bt", "host", 1),
])
