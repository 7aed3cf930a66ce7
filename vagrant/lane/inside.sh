#!/bin/bash
# One Vagrant machine from up to destroy, in the namespaces of vagrant/lane, which end with libvirt and all processes.
#
#   inside.sh WORK MACHINE TEST...   the tests before a reboot of the machine; after it, tests/installed/after_reboot
#
# With VM_KEEP=1 the machine keeps running after them, until it is ended from outside.
# WORK is an empty folder for all written files, including the daemons' own folders, which are mounted from there. The
# results are WORK/logs, WORK/results, WORK/closing with the summary lines of the tests, WORK/times with a line
# "SECONDS STEP" for each step, and WORK/code: 0, or the tests' exit code, or 125 if the machine could not be started.
# Knows vagrant, libvirt and ssh, and the path of the tests.
set -u
work=$1 machine=$2
shift 2
vagrant=$(cd "$(dirname "$0")/.." && pwd -P)
tree=/opt/vscsihba/tree
not_run=125
after=tests/installed/after_reboot
logs=$work/logs results=$work/results began=0
export VAGRANT_CWD=$vagrant VAGRANT_HOME=$work/home VAGRANT_DOTFILE_PATH=$work/dot VAGRANT_NO_COLOR=1
export VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt VM_WHEELS=ready VM_CONSOLE=$logs/console.log
export HOME=$work/root XDG_CACHE_HOME=$work/root/cache LIBVIRT_DEFAULT_URI=qemu:///system

say() { printf 'ci: %s\n' "$*" >&2; }
# Record the duration of the step before this one.
took() {
    echo "$((SECONDS - began)) $1" >>"$work/times"
    began=$SECONDS
}
give_up() { say "$*"; finish $not_run; }
# Write the exit code to a file: a killed first process would have another one.
finish() { echo "$1" >"$work/code"; exit "$1"; }
remote() { ssh -F "$work/ssh" -o BatchMode=yes -o ConnectTimeout=20 -o LogLevel=ERROR "$machine" "$@"; }

start_libvirt() {
    local folder
    for folder in /var/lib/libvirt /run/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
        mkdir -p "$folder" "$work/host$folder" || return
    done
    cp -a /etc/libvirt/. "$work/host/etc/libvirt/" || return
    mkdir -p "$work/host/var/lib/libvirt/images" "$work/host/var/lib/libvirt/qemu"
    chown libvirt-qemu:libvirt-qemu "$work/host/var/lib/libvirt/qemu"
    for folder in /var/lib/libvirt /run/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
        mount --bind "$work/host$folder" "$folder" || return
    done
    # /sys shows the network in which it was mounted. Without cgroups there, libvirt leaves none behind.
    umount --recursive /sys && mount -t sysfs sysfs /sys || return
    ip link set lo up || return
    virtlogd --daemon && libvirtd --daemon || return
    for _ in $(seq 600); do
        virsh list >/dev/null 2>&1 && return
        sleep 0.1
    done
    return 1
}

boot_id() { remote cat /proc/sys/kernel/random/boot_id 2>/dev/null; }

# Reboot the machine from within, and wait until it answers again.
reboot_machine() {
    local before now
    before=$(boot_id)
    say "booting $machine ($release) again ..."
    remote sudo systemctl --no-block reboot
    for _ in $(seq 300); do
        now=$(boot_id)
        if [ -n "$now" ] && [ "$now" != "$before" ]; then return; fi
        sleep 1
    done
    return 1
}

# Arguments are passed to test.sh. The summary line of the tests is kept.
run_tests() {
    local code
    # ssh joins its arguments to one line for a shell there.
    remote "sudo env VSCSIHBA_RESULTS=/var/tmp/results-$1 $tree/vagrant/test.sh $(printf '%q ' "${@:2}")" 2>&1 |
        tee "$work/output"
    code=${PIPESTATUS[0]}
    grep -E '^=+ .* in [0-9.]+s' "$work/output" | tail -n 1 >>"$work/closing"
    return "$code"
}

bring_logs() {
    remote 'sudo journalctl --no-pager --boot=all' >"$logs/journal.log" 2>/dev/null
    cp "$work"/host/var/log/libvirt/qemu/*.log "$logs/" 2>/dev/null
    # shellcheck disable=SC2016 # expanded there
    remote 'cd /var/tmp && sudo tar -cf - results-*' 2>/dev/null | tar -C "$results" -xf - 2>/dev/null
}

mkdir -p "$logs" "$results" "$work/root" && chmod 777 "$logs"
start_libvirt >"$logs/libvirt.log" 2>&1 || { cat "$logs/libvirt.log" >&2; give_up "libvirt did not start"; }
took libvirt
say "vagrant up $machine ..."
vagrant --no-tty up "$machine" </dev/null || { bring_logs; give_up "vagrant up $machine failed"; }
vagrant ssh-config --host "$machine" "$machine" >"$work/ssh" || give_up "no ssh to $machine"
release=$(remote uname -r)
[[ $release == "${machine#linux-}".* ]] || give_up "$machine has booted Linux $release"
took up

code=0
run_tests before "--ignore=$after" "$@" || code=$?
took tests
if reboot_machine; then
    took reboot
    run_tests after "$after" || [ $code -ne 0 ] || code=$?
    took restored
else
    say "$machine did not come back"
    [ $code -ne 0 ] || code=$not_run
fi
bring_logs
if [ "${VM_KEEP:-}" = 1 ]; then
    say "exit code $code; $machine stays until this is ended. To enter it:"
    say "  nsenter --target $VM_OUTER --net --mount ssh -F $work/ssh $machine"
    sleep infinity
fi
vagrant --no-tty destroy --force "$machine" </dev/null || [ $code -ne 0 ] || code=$not_run
took destroy
finish $code
