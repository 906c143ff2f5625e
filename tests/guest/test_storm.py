#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A short storm: see storm.py."""
from storm import main

main(seconds=3, rounds=2, caches=[("", ())])
