#!/bin/bash
# Prepares the guest and runs its one command; the runner reads the result from the share. Knows the names of the
# share's files (vagrant/runner/workdir.py), and nothing of the command.
set -eu
share=/run/vm-share
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset nr_open

trap 'echo "line $LINENO: $BASH_COMMAND" >"$share/failure"' ERR

# Folders and mounts of a booted Debian that virtme-ng's init leaves out.
modprobe -a virtio_blk ext4
scratch=/dev/disk/by-id/virtio-scratch
# shellcheck source=vscsihba/sandbox/guest/prepare.sh
. "$(dirname "$0")/../../vscsihba/sandbox/guest/prepare.sh"
export VSCSIHBA_IN_VM=1 VSCSIHBA_RESULTS=$share/results VSCSIHBA_SCRATCH=/run/scratch

trap - ERR
set +e
if [ -t 1 ]; then
    touch "$share/ready"
    # shellcheck source=/dev/null
    (. "$share/command")
    echo $? >"$share/exit"
    exit
fi

# The command writes to pipes, as it would on the host: /dev/stdout can be opened again, which a virtio port cannot.
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mkfifo /run/stdout /run/stderr
cat /run/stdout &
readers=($!)
cat /run/stderr >&2 &
readers+=($!)
touch "$share/ready"
# shellcheck source=/dev/null
(. "$share/command") >/run/stdout 2>/run/stderr
code=$?
# Processes of the command that still run may hold its output open; wait for the rest of the output at most this long.
(sleep 2 && kill "${readers[@]}") >/dev/null 2>&1 &
wait "${readers[@]}"
echo $code >"$share/exit"
