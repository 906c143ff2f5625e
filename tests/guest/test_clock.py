#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ten seconds in a guest are ten seconds of the host's, idle and under load."""
import clock
from clock import g

tap = g.Tap()
g.need_guests("cloud", "busybox")
clock.measure(tap, "bt", 10, load=True)
clock.measure(tap, "interp", 10)
tap.end()
