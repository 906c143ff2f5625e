#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A day's work, in Debian's userland: what people run, not loops. One line per case:
# "bench NAME NANOSECONDS CHECK". As /init of the benchmark guest, and natively in the same tree by
# chroot. Its inputs are in /bench, made by bench/mixes.py.
#
# Usage: day.sh [CASE...]
export PATH=/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C HOME=/root PYTHONHASHSEED=0
if [ $$ -eq 1 ]; then
    mount -t proc none /proc
    mount -t devtmpfs none /dev 2>/dev/null
fi
work=$(mktemp -d /tmp/day.XXXXXX)
cd "$work" || exit 1

# The object file is the result: the same compiler makes the same bytes.
case_gcc() { gcc -O2 -c /bench/large.c -o large.o && cat large.o; }
case_small() {
    local n
    for n in 1 2 3 4 5; do
        sed "s/SEED/$n/" /bench/small.c >"small$n.c" && gcc -O1 "small$n.c" -o "small$n" && "./small$n"
    done
}
case_xz() { xz -3 -T1 -c /bench/text | cksum; }
case_gzip() { gzip -n -c /bench/text | cksum; }
case_dgst() { openssl dgst -sha256 -r /bench/text && openssl dgst -sha512 -r /bench/text && openssl dgst -md5 -r /bench/text; }
case_enc() {
    openssl enc -aes-256-cbc -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff \
        -iv 000102030405060708090a0b0c0d0e0f -in /bench/text | cksum
    openssl enc -chacha20 -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff \
        -iv 000102030405060708090a0b0c0d0e0f -in /bench/text | cksum
}
case_python() { python3 /bench/work.py; }
case_perl() { perl /bench/work.pl; }
case_sqlite() { sqlite3 work.db </bench/work.sql; }
case_shell() {
    local n
    for ((n = 0; n < 300; n++)); do
        /bin/true
    done
    echo $n
}
case_tar() { tar -C /usr/share --sort=name --mtime=@0 --owner=0 --group=0 -cf work.tar perl && tar -tf work.tar | cksum; }
case_awk() { awk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) if (n[w] > 9) c += n[w]; print c }' /bench/lines; }
case_sort() { sort /bench/lines | cksum; sort -k2 -u /bench/lines | cksum; }

echo
for name in ${*:-gcc small xz gzip dgst enc python perl sqlite shell tar awk sort}; do
    begin=${EPOCHREALTIME/./}
    check=$("case_$name" 2>&1 | md5sum)
    end=${EPOCHREALTIME/./}
    echo "bench $name $(((end - begin) * 1000)) ${check%% *}"
done
cd / && rm -rf "$work"
echo "bench end"
if [ $$ -eq 1 ]; then
    echo o >/proc/sysrq-trigger
    sleep 60
fi
