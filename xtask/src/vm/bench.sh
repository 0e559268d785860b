# What reads and syncs of a pool cost with nothing attached, with what any
# probe costs at least, with bpftrace and with kldtrace, in turn; and with
# another kldtrace, where there is one in /host.
set -e
rounds=3
# Disks in the guest's memory: one of QEMU's answers in the time of the machine
# below, which a clock that counts instructions does not count. One takes no
# time, and the other a millisecond for each write.
modprobe brd rd_nr=2 rd_size=524288
modprobe dm_delay
echo "0 1048576 delay /dev/ram1 0 0 /dev/ram1 0 1" | dmsetup create slow --noudevsync
mknod /tmp/slow b $(dmsetup info -c --noheadings --separator ' ' -o major,minor slow)
zpool create -f -O atime=off -O compression=off bench /dev/ram0
zpool create -f -O atime=off -O compression=off slow /tmp/slow
cat > /tmp/config <<END
[signals]
enable = ["zfs.*"]
[listen]
address = "off"
END

load() {
    xtask bench-load "$@"
}
# Reads are measured several times, as other threads' work falls into some of the
# times, which are half a second each: on each side, every ten seconds or so.
reads() {
    for time in 1 2 3 4 5 6 7; do
        load cached-reads /bench/reads 20000
        sleep 0.3
    done | sort -n | sed -n 4p
}
# No transaction group is synced but between rounds: whether one falls into a
# round makes more of a difference than all that is measured here.
echo 3600 > /sys/module/zfs/parameters/zfs_txg_timeout
measure() {
    zpool sync
    load cached-reads /bench/reads 2000 >/dev/null
    load fsyncs /bench/syncs 20 >/dev/null
    load fsyncs /slow/syncs 20 >/dev/null
    echo "$1 $(reads) $(load fsyncs /bench/syncs 5000) $(load fsyncs /slow/syncs 1000)"
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
    $2 daemon --config /tmp/config 2>/tmp/daemon &
    probe=$!
    # Not by doctor, which attaches probes of its own as long as no daemon answers.
    until grep -q 'attached programs' /tmp/daemon; do sleep 1; done
    # What it does at its start, which is seconds of an emulated CPU, is not the load's.
    sleep 15
    measure "$1"
    kill $probe
    wait $probe || true
}

for round in $(seq $rounds); do
    measure nothing
    with_bpftrace empty 'kprobe:zpl_iter_read {} kretprobe:zpl_iter_read {}'
    with_bpftrace bpftrace 'kprobe:zpl_iter_read { @start[tid] = nsecs; }
        kretprobe:zpl_iter_read /@start[tid]/ { @ns = hist(nsecs - @start[tid]); delete(@start[tid]); }'
    # Each of the two before the other in turn.
    [ -e /host/kldtrace ] && [ $round = 2 ] && with_kldtrace other /host/kldtrace
    with_kldtrace kldtrace kldtrace
    [ -e /host/kldtrace ] && [ $round != 2 ] && with_kldtrace other /host/kldtrace
done
zpool destroy bench
zpool destroy slow
