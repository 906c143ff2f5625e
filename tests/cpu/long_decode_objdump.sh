#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Our disassembler against objdump over whole programs.
exec "$(dirname "$0")/test_decode_objdump.py" --long
