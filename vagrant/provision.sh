#!/bin/bash
# Makes a Debian or Ubuntu machine ready for vscsihba: packages, the virtual environment, the kernel's modules.
#
# For a person's own VM, of whatever make; to be run as root, as often as one likes. Knows nothing of Vagrant.
set -eu
cd "$(dirname "$0")/.."

modules=(target_core_user tcm_loop sg)

if [ "$(id -u)" -ne 0 ]; then
    echo "provision.sh: must be run as root" >&2
    exit 1
fi

./dev setup

if ! modprobe -a "${modules[@]}"; then
    ./dev setup --kernel
    echo "provision.sh: the running kernel $(uname -r) has not all of the modules ${modules[*]}." >&2
    echo "provision.sh: a kernel that has them is installed: boot it, then run this again." >&2
    exit 1
fi
printf '%s\n' "${modules[@]}" >/etc/modules-load.d/vscsihba.conf

mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p /var/target/pr
echo "provision.sh: ready: try sudo ./dev demo"
