#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian's own kernels come up, run a program and power off; broken kernels are refused in one line.
# TAP.
set -u

top=${TOP:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${BUILD:-$top/build}
sosia=${SOSIA:-$build/sosia}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0

report() { # STATUS NAME
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

# boots KERNEL BITS ENGINE CPUS [OPTIONS...]
boots() {
    kernel=$1 bits=$2 engine=$3 cpus=$4
    shift 4
    timeout 240 "$sosia" run -e "$engine" -c "$cpus" --no-reboot -k "$build/guests/$kernel/vmlinuz" \
        -i "$work/initrd$bits.gz" -a "console=ttyS0 quiet" "$@" </dev/null >"$work/out" 2>&1
    status=$?
    [ $status -eq 0 ] && grep -q "^status 0" "$work/out" && grep -q "^cpus $cpus" "$work/out"
    status=$?
    report $status "$kernel on $engine, $cpus cpu(s) $*"
    [ $status -eq 0 ] || tail -n 15 "$work/out" | sed 's/^/# /'
}

# refused NAME WORD ARGUMENTS...: status 1 and one line that has WORD
refused() {
    name=$1 word=$2
    shift 2
    timeout 60 "$sosia" run "$@" </dev/null >"$work/out" 2>"$work/err"
    status=$?
    [ $status -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -q "$word" "$work/err"
    status=$?
    report $status "$name"
    [ $status -eq 0 ] || sed 's/^/# /' "$work/err"
}

if ! "$top/tools/fetch-guests" cloud amd64 686 686-pae busybox busybox-i386 >"$work/fetch" 2>&1; then
    echo "1..0 # SKIP no guests: $(tail -n 1 "$work/fetch")"
    exit 0
fi
command='echo cpus $(nproc)'
"$top/tools/mkinitrd" -b "$build/guests/busybox/busybox" -r "$command" -o "$work/initrd64.gz"
"$top/tools/mkinitrd" -b "$build/guests/busybox-i386/busybox" -r "$command" -o "$work/initrd32.gz"

boots cloud 64 bt 1
boots cloud 64 interp 1
boots cloud 64 bt 4
boots cloud 64 bt 1 --cpu x86-64-v1
boots amd64 64 bt 2
boots 686 32 bt 1
boots 686-pae 32 bt 4

good=$build/guests/cloud/vmlinuz
head -c 300 "$good" >"$work/short"
head -c 3000000 "$good" >"$work/cut"
head -c 65536 /dev/zero >"$work/zeros"
refused "a missing kernel" "none" -k "$work/none"
refused "a kernel cut in its header" "short" -k "$work/short"
refused "a kernel cut in its middle" "cut" -k "$work/cut"
refused "a file that is no kernel" "zeros" -k "$work/zeros"
refused "a missing initrd" "none" -k "$good" -i "$work/none"
refused "an unknown CPU model" "pentium9" -k "$good" --cpu pentium9
refused "a size that is none" "lots" -k "$good" -m lots
refused "an option of later" "not built yet" -k "$good" --display web
echo "1..$n"
