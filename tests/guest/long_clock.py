#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A minute by every clock source of Linux, on each software engine, idle and under load."""
import clock
from clock import g

tap = g.Tap()
g.need_guests("cloud", "amd64", "busybox")
for engine in ("bt", "interp"):
    for load in (False, True):
        clock.measure(tap, engine, 60, load=load, cpus=2)
        for source in ("kvm-clock", "tsc", "acpi_pm", "hpet", "jiffies"):
            clock.measure(tap, engine, 60, source=source, load=load)
tap.end()
