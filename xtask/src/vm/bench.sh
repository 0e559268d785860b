# What reads and syncs of a pool cost with nothing attached, with what any
# probe costs at least, with bpftrace and with kldtrace, in turn.
set -e
rounds=3
# A disk in the guest's memory: one of QEMU's answers in the time of the machine
# below, which a clock that counts instructions does not count.
modprobe brd rd_nr=1 rd_size=524288
zpool create -f -O atime=off -O compression=off bench /dev/ram0
cat > /tmp/config <<END
[signals]
enable = ["zfs.*"]
[listen]
address = "off"
END

settle() {
    xtask bench-load cached-reads /bench/reads 2000 >/dev/null
    xtask bench-load fsyncs /bench/syncs 20 >/dev/null
}
measure() {
    settle
    echo "$1 $(xtask bench-load cached-reads /bench/reads 20000) $(xtask bench-load fsyncs /bench/syncs 300)"
}
with_bpftrace() {
    : > /tmp/bpftrace
    bpftrace -e "BEGIN { printf(\"attached\\n\"); } $2" > /tmp/bpftrace &
    probe=$!
    until grep -q attached /tmp/bpftrace; do sleep 1; done
    sleep 1
    measure "$1"
    kill $probe
    wait $probe || true
}
with_kldtrace() {
    kldtrace daemon --config /tmp/config 2>/tmp/daemon &
    probe=$!
    until kldtrace doctor >/dev/null 2>&1; do sleep 1; done
    measure kldtrace
    kill $probe
    wait $probe || true
}

for round in $(seq $rounds); do
    measure nothing
    with_bpftrace empty 'kprobe:zpl_iter_read {} kretprobe:zpl_iter_read {}'
    with_bpftrace bpftrace 'kprobe:zpl_iter_read { @start[tid] = nsecs; }
        kretprobe:zpl_iter_read /@start[tid]/ { @ns = hist(nsecs - @start[tid]); delete(@start[tid]); }'
    with_kldtrace
done
zpool destroy bench
