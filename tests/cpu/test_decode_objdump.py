#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our disassembler against objdump: a part of some programs; all of many in long_decode_objdump."""
import os
import random
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('BUILD', os.path.join(TOP, 'build'))
DISASM = os.path.join(BUILD, 'tests/cpu/test_decode_rows')
RAW = {'16': 'i8086', '32': 'i386', '64': 'i386:x86-64'}


def noise(path, size):
    """Random bytes, thick with escapes, prefixes and VEX, and NOPs to fall into step again."""
    rng = random.Random(5)
    out = bytearray()
    while len(out) < size:
        out += rng.choice([
            b'', b'\x0f', b'\x0f\x38', b'\x0f\x3a', b'\x66\x0f', b'\xf2\x0f', b'\xf3\x0f',
            bytes([rng.choice([0x66, 0xf2, 0xf3, 0x67])]),
            bytes([0xc5, 0x80 | rng.getrandbits(7)]),
            bytes([0xc4, 0xe0 | rng.choice([1, 2, 3]), rng.getrandbits(8)]),
            bytes([0xc4, 0xe0 | rng.choice([1, 2, 3]), rng.getrandbits(8) | 0x78]),
            bytes([0x62, 0xf0 | rng.choice([1, 2, 3]), rng.getrandbits(8) | 4, rng.getrandbits(8)]),
            bytes([0x62, 0xf0 | rng.choice([1, 2, 3]), rng.getrandbits(8) | 0x7c,
                   8 | rng.choice([0, 32, 64])]),
            bytes([rng.randrange(0xd8, 0xe0)])])
        out += rng.randbytes(rng.randint(1, 5)) + b'\x90' * rng.choice([0, 6, 8])
    open(path, 'wb').write(out)


def main():
    long_run = len(sys.argv) > 1 and sys.argv[1] == '--long'
    limit = '0' if long_run else '10000'
    cc1 = subprocess.run(['gcc', '-print-prog-name=cc1'], capture_output=True, text=True).stdout
    libs = '/lib/x86_64-linux-gnu/'
    todo = [('64', p, []) for p in ['/bin/busybox', libs + 'libc.so.6', libs + 'libm.so.6']]
    if long_run:
        todo += [('64', p, []) for p in ['/usr/lib/x86_64-linux-gnu/libcrypto.so.3',
                                         '/usr/bin/qemu-system-x86_64', cc1.strip()]]
    todo.append(('32', '/lib32/libc.so.6', []))
    todo.append(('32', '/boot/memtest86+ia32.bin', ['-D', '-b', 'binary', '-m', 'i386']))
    todo.append(('16', '/usr/share/seabios/bios-256k.bin', ['-D', '-b', 'binary', '-m', 'i8086']))
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, 'noise')
        noise(path, 800000 if long_run else 60000)
        todo += [(bits, path, ['-D', '-b', 'binary', '-m', arch]) for bits, arch in RAW.items()]
        print(f'1..{len(todo)}')
        failed = 0
        for i, (bits, file, options) in enumerate(todo, 1):
            name = f'{i} - {os.path.basename(file)} {bits}-bit as objdump has it'
            if not shutil.which('objdump') or not os.path.exists(file):
                print(f'ok {name} # skip not installed')
                continue
            r = subprocess.run([os.path.join(TOP, 'tools/cmpobjdump'), DISASM, bits, file, limit]
                               + options, capture_output=True, text=True)
            if r.returncode:
                failed = 1
                print('\n'.join('# ' + l for l in (r.stdout + r.stderr).splitlines()))
            print(('not ok ' if r.returncode else 'ok ') + name, flush=True)
    sys.exit(failed)


main()
