#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lint tools find what they are for: each case is a small tree with, or without, one fault."""
import os
import subprocess
import sys
import tempfile

TOP = os.environ.get("TOP") or os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
LICENCE = "/* SPDX-License-Identifier: Apache-2.0 */\n"

# (what it shows, file in src/, its text, words in the complaint; None: no complaint)
INCLUDES = [
    ("a clean file passes", "bus/x.c", '#include "bus/y.h"\n#include "mem/z.h"\n#include <stdio.h>\n',
     None),
    ("base includes nothing above", "base/x.c", '#include "mem/gmem.h"\n', "base may not include mem"),
    ("the CPU knows no bus", "cpu/x.h", '#include "bus/bus.h"\n', "cpu may not include bus"),
    ("engines do not know each other", "engine/bt/x.c", '#include "engine/interp/i.h"\n',
     "engine/bt may not include engine/interp"),
    ("engines may use engine and cpu", "engine/bt/x.c",
     '#include "engine/engine.h"\n#include "cpu/cpu.h"\n', None),
    ("a device knows no CPU", "dev/pc/x.c", '#include "cpu/cpu.h"\n', "dev/pc may not include cpu"),
    ("the machine may include a device", "machine/pc.c",
     '#include "dev/pc/pit.h"\n#include "engine/kvm/k.h"\n', None),
    ("snapshot names no device", "snapshot/x.c", '#include "dev/pc/pit.h"\n',
     "snapshot may not include dev/pc"),
    ("KVM's header has one home", "machine/x.c", "#include <linux/kvm.h>\n", "belongs to engine/kvm"),
    ("and is at home there", "engine/kvm/x.c", "#include <linux/kvm.h>\n", None),
    ("no relative paths", "bus/x.c", '#include "../mem/gmem.h"\n', "no relative paths"),
    ("paths begin at src/", "bus/x.c", '#include "bus.h"\n', "paths begin at src/"),
    ("no own header in angle brackets", "bus/x.c", "#include <machine/pc.h>\n", "with quotes"),
    ("no included macro", "bus/x.c", "#include HEADER\n", "must be literal"),
    ("spaces hide nothing", "base/x.c", '  #  include "bus/bus.h"\n', "base may not include bus"),
    ("a directory that nobody planned", "misc/x.c", "", "no directory of the matrix"),
    ("the public header is for the top", "bus/x.c", '#include "sosia.h"\n',
     "bus may not include sosia.h"),
    ("the api includes the public header", "api/x.c", '#include "sosia.h"\n', None),
]

STYLE = [
    ("a clean file passes", LICENCE + "int x;\n", None),
    ("licence", "int x;\n", "licence"),
    ("columns", LICENCE + "/* " + "x" * 100 + " */\n", "columns"),
    ("tab", LICENCE + "\tint x;\n", "tab"),
    ("trailing space", LICENCE + "int x; \n", "white space"),
    ("no newline at the end", LICENCE + "int x;", "newline"),
    ("typedef of a struct", LICENCE + "typedef struct foo foo;\n", "typedef"),
    ("typedef of a function is fine", LICENCE + "typedef struct foo *fn(int);\n", None),
]


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def check(self, good, name, detail=""):
        self.count += 1
        self.failed += not good
        print("%s %d - %s" % ("ok" if good else "not ok", self.count, name))
        if not good:
            for line in detail.splitlines():
                print("# " + line)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=TOP,
                          universal_newlines=True, check=False)
    return done.returncode, done.stdout


def as_expected(status, output, words):
    if words is None:
        return status == 0 and output == ""
    return status == 1 and words in output


def write(root, name, text):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def main():
    tap = Tap()
    print("1..%d" % (len(INCLUDES) + len(STYLE) + 3))
    for name, path, text, words in INCLUDES:
        with tempfile.TemporaryDirectory() as root:
            write(root, path, text)
            status, output = run("tools/checkincludes", root)
            tap.check(as_expected(status, output, words), "includes: " + name, output)
    for name, text, words in STYLE:
        with tempfile.TemporaryDirectory() as root:
            status, output = run("tools/checkstyle", write(root, "x.c", text))
            tap.check(as_expected(status, output, words), "style: " + name, output)

    status, output = run("tools/checkincludes")
    tap.check(status == 0, "includes: this tree keeps the matrix", output)

    # The runner itself: what was planned and not reported failed, and so did who died.
    with tempfile.TemporaryDirectory() as root:
        cases = {"a": "echo 1..2; echo ok 1; echo ok 2", "b": "echo 1..3; echo ok 1; kill -9 $$",
                 "c": "echo 1..2; echo not ok 1; echo ok 2 '# skip'", "d": "exit 0",
                 "e": "echo 1..1; echo ok 1; exit 3"}
        paths = []
        for name, body in cases.items():
            paths.append(write(root, name, "#!/bin/sh\n" + body + "\n"))
            os.chmod(paths[-1], 0o755)
        status, output = run("tools/runtests", *paths)
        tap.check(status == 1 and output.endswith("1 skipped\n4 passed, 5 failed\n"),
                  "runtests counts what did not report", output)
        hang = write(root, "f", "#!/bin/sh\necho 1..1; sleep 100\n")
        os.chmod(hang, 0o755)
        status, output = run("tools/runtests", "-t", "1", hang)
        tap.check(status == 1 and "stopped after 1 s" in output, "runtests ends what hangs", output)
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
