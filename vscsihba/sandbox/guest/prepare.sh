# shellcheck shell=sh
# Prepares a guest for disks, in any virtual machine: sourced by root with the caller's `set -e`, after /proc, /sys,
# /dev and /run are mounted and udev runs. $scratch: block device with an ext4 to mount on /run/scratch, or
# empty. Knows nothing of the command that is run later.
mkdir -p /run/lock /run/lvm /var/target/pr /etc/target/pr
: >/etc/fstab
modprobe -a configfs
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
kmod static-nodes --format=devname --output=/proc/self/fd/1 | while read -r _ node device; do
    case $node in
    fuse | loop-control | mapper/control)
        numbers=${device#c}
        mkdir -p "$(dirname "/dev/$node")"
        [ -e "/dev/$node" ] || mknod -m 600 "/dev/$node" c "${numbers%:*}" "${numbers#*:}"
        ;;
    esac
done
udevadm settle --timeout=60
if [ -n "${scratch?}" ]; then
    mkdir -p /run/scratch
    mount -o noinit_itable,discard "$scratch" /run/scratch
fi
