#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The userland self-test in every Linux guest, on every CPU model and software engine."""
import selftest

selftest.main([(kernel, engine, model, 1) for kernel in selftest.BITS for model in selftest.MODELS
               for engine in ("bt", "interp")] +
              [(kernel, engine, "x86-64-v3", 4) for kernel in selftest.BITS
               for engine in ("bt", "interp")])
