#!/bin/sh
# The first program in User-Mode Linux (pid 1): mounts this machine's files as the root, with all writes kept in memory,
# then becomes the agent. Its argument is the run's folder, whose file "settings" sets the variables used here.
# Knows nothing of the command that is run later.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$1

# In a user namespace, files of this machine's root belong to nobody here, and a setuid program such as mount would run
# as nobody. Started by the loader it runs as root; the overlay is nosuid.
mount() { /lib64/ld-linux-x86-64.so.2 /bin/mount "$@"; }
umount() { /lib64/ld-linux-x86-64.so.2 /bin/umount "$@"; }

mount -t proc proc /proc
failed() { echo "init.sh: $step failed" >/dev/kmsg; sync; }
trap '[ $? -eq 0 ] || failed' EXIT
step="reading $folder/settings"
mount -t tmpfs -o mode=755,size=75% run /run
mkdir -p /run/.folder /run/.modules/lib/modules /run/.upper /run/.work /run/.root
mount -t hostfs -o "$folder" none /run/.folder
# shellcheck source=/dev/null
. /run/.folder/settings
: "${modules:?}" "${python:?}" "${agent:?}" "${guest:?}" "${scratch?}"

# This machine's files below a layer that takes all writes.
step="the overlay over this machine's files"
ln -s "$modules" "/run/.modules/lib/modules/$(uname -r)"
modprobe -d /run/.modules overlay
mount -t overlay -o nosuid,xino=off,lowerdir=/,upperdir=/run/.upper,workdir=/run/.work root /run/.root
cd /run/.root
mount -t sysfs sys sys
mount --move /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mkdir run/.sandbox
mount --move /run/.folder run/.sandbox
umount /proc
pivot_root . mnt
umount -l /mnt

step="the folders of a running system"
mkdir -p /dev/pts /dev/shm /dev/mqueue /run/lock
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -sfn /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${number%:*}" "/dev/${number#*:}"; done
mkdir -p /lib/modules
ln -sfn "$modules" "/lib/modules/$(uname -r)"
# The sandbox does not use the saved disks and states of this machine.
for private in /etc/vscsihba /var/lib/vscsihba; do
    mkdir -p "$private"
    mount -t tmpfs -o mode=755 private "$private"
done

step="the kernel modules"
modprobe -a target_core_user tcm_loop sd_mod sg
if command -v systemd-udevd >/dev/null; then udevd=systemd-udevd; else udevd=/lib/systemd/systemd-udevd; fi
step="udev ($udevd)"
mkdir -p /run/udev
"$udevd" --daemon --resolve-names=never
udevadm trigger --action=add --subsystem-match=block

step="guest/prepare.sh"
# shellcheck source=vscsihba/sandbox/guest/prepare.sh
. "$guest/prepare.sh"

trap - EXIT
step="the agent"
exec "$python" -I "$agent" /run/.sandbox
