# SPDX-License-Identifier: Apache-2.0
# For a guest: a kernel that patches its own text while it runs on all processors. ftrace turns every
# function's entry into a call and back, events turn static keys, kprobes put breakpoints in.
# Usage: sh patch.sh ROUNDS
mount -t tracefs none /sys/kernel/tracing 2>/dev/null
cd /sys/kernel/tracing || exit 1
busy() {
    while [ ! -e /tmp/done ]; do
        dd if=/dev/zero of=/dev/null bs=4k count=200 2>/dev/null
        cat /proc/self/stat /proc/meminfo >/dev/null
        true | true
    done
}
rm -f /tmp/done
for n in $(seq $(nproc)); do busy & done
wrong=0
i=0
while [ $i -lt $1 ]; do
    i=$((i + 1))
    if grep -qw function available_tracers; then
        echo function >current_tracer || wrong=$((wrong + 1))
        [ -n "$(head -c 200 trace)" ] || wrong=$((wrong + 1))
        echo nop >current_tracer || wrong=$((wrong + 1))
    fi
    for e in sched syscalls; do
        echo 1 >events/$e/enable && echo 0 >events/$e/enable || wrong=$((wrong + 1))
    done
    echo 1 >/proc/sys/kernel/sched_schedstats 2>/dev/null
    echo 0 >/proc/sys/kernel/sched_schedstats 2>/dev/null
    if [ -e kprobe_events ]; then
        echo 'p:probe vfs_read' >kprobe_events && echo 1 >events/kprobes/probe/enable || wrong=$((wrong + 1))
        cat /proc/stat >/dev/null
        grep -q probe: trace || wrong=$((wrong + 1))
        echo 0 >events/kprobes/probe/enable
        echo >kprobe_events
    fi
    echo >trace
done
touch /tmp/done
wait
echo "patched: $i rounds, $wrong wrong, tracers $(cat available_tracers)"
