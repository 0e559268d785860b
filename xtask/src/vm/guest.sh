#!/bin/sh
# The first process of a guest: mounts, loads modules, waits for the disk of its
# run, runs the script there with its output on the port named "results", says
# how it ended there, and powers off.
# busybox comes last, and its own shell is not used: it would prefer its own
# modprobe, ip and losetup to the real ones.
export PATH=/usr/sbin:/sbin:/bin
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /tmp /run /root /etc /var/tmp
mount -t devpts devpts /dev/pts
for place in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $place; done
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
ln -sf /proc/self/mounts /etc/mtab
ln -sf /proc/self/fd /dev/fd
echo guest > /proc/sys/kernel/hostname
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
echo 'root:x:0:' > /etc/group
ip link set lo up
ulimit -n 65536
for module in virtio_pci virtio_blk virtio_console nvme loop tun; do
    modprobe $module 2>/dev/null
done

# Ports come a moment after their driver.
for try in 1 2 3 4 5 6 7 8 9 10; do
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat $port/name 2>/dev/null)" = results ] && results=/dev/${port##*/}
    done
    [ -n "$results" ] && [ -e "$results" ] && break
    sleep 0.2
done
# Opened once: a port has one writer, and what the script has left running in
# the background may be it.
exec 3>"$results"

modprobe zfs && modprobe wireguard || {
    echo 'zfs or wireguard cannot be loaded' >&3
    poweroff -f
}

# Here the guest is saved. It goes on with a disk that is not empty.
echo kldtrace-guest-ready >&3
until mount -t ext4 -o ro /dev/vdg /given 2>/dev/null; do sleep 0.1; done
date -s "@$(cat /given/now)" >/dev/null
cp -rs /given/root/. /
ln -s /given/host /host

if [ -e /given/shell ]; then
    echo 'A shell in the guest; kldtrace is in PATH. exit ends the guest.' >/dev/ttyS0
    setsid -c sh -l </dev/ttyS0 >/dev/ttyS0 2>&1
    poweroff -f
fi
sh /given/run.sh >&3 2>&3
printf '\nkldtrace-guest-ended %d\n' $? >&3
poweroff -f
