#!/bin/bash
# Installs vscsihba on a Debian or Ubuntu machine, as a user would.
#
#   provision.sh                   everything: packages, kernel, program
#   provision.sh kernel [VERSION]  only the kernel: of that version, with its modules
#
# Run it as root, any number of times. It uses the wheels in build/wheels if they exist, else builds one from this tree.
# Knows nothing of Vagrant, nor of the VM runner, where test.sh needs `provision.sh kernel`.
set -eu
tree=$(cd "$(dirname "$0")/.." && pwd -P)
prefix=/opt/vscsihba
modules=(target_core_user tcm_loop sg)
export PATH=$PATH:/usr/sbin:/sbin

die() { printf 'provision.sh: %s\n' "$*" >&2; exit 1; }
say() { printf 'provision.sh: %s\n' "$*"; }

# Another version than the running one is only installed: the caller reboots the machine.
other_kernel() {
    local suite
    case $(uname -r) in
    "$1".*-cloud-*) ;;
    "$1".*) return 1 ;;
    esac
    suite=$(awk -v "version=$1" '$1 == version { print $NF }' "$tree/vagrant/packages/kernels.txt")
    [ -n "$suite" ] || die "the running kernel is $(uname -r), and vagrant/packages/kernels.txt has no version $1"
    "$tree/vagrant/debian-sources" "$suite" >/etc/apt/sources.list.d/vscsihba-kernel.list
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y -t "$suite" "linux-image-$(dpkg --print-architecture)"
    say "Linux $1 is installed: boot it, then run this again"
}

kernel() {
    local module missing=()
    for module in "${modules[@]}"; do
        modprobe --quiet "$module" 2>/dev/null || missing+=("$module")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        die "the kernel $(uname -r) lacks ${missing[*]}: boot one that has them, such as Debian's linux-image-amd64"
    fi
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
    # The folders in which the kernel keeps persistent reservations.
    mkdir -p /var/target/pr
}

# Returns whether packages must be downloaded; the machine of our own box has no network.
online() { [ ! -e /etc/vscsihba-box ]; }

program() {
    local options=(--disable-pip-version-check --no-compile --quiet) wheel=("$tree"/build/wheels/vscsihba-*.whl)
    local pip=("$prefix/bin/pip")
    rm -rf "$prefix"
    # An installed pip need not be installed again: that saves a third of the time on an emulated machine.
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv --system-site-packages --without-pip "$prefix"
        pip=(python3 -m pip --python "$prefix/bin/python")
    else
        python3 -m venv --system-site-packages "$prefix"
    fi
    online || options+=(--no-index)
    [ -e "${wheel[0]}" ] || wheel=("$tree")
    "${pip[@]}" install "${options[@]}" --find-links "$tree/build/wheels" "${wheel[0]}[encrypt,test]"
    ln -sf "$prefix/bin/vscsihba" "$prefix/bin/vscsitarget" /usr/local/bin/
    # The tests without the package, so that they import the installed one.
    mkdir "$prefix/tree"
    cp -a "$tree"/{tests,vagrant,docs,examples,pyproject.toml,start_target.sh} "$prefix/tree/"
}

# A running service is one of the previously installed program.
service() {
    "$prefix/bin/vscsihba" install-service
    if systemctl is-active --quiet vscsihba; then systemctl restart vscsihba; else systemctl enable --now vscsihba; fi
}

[ "$(id -u)" -eq 0 ] || die "must be run as root"
case ${1:-} in
kernel)
    [ -n "${2:-}" ] && other_kernel "$2" && exit
    kernel
    exit
    ;;
"") ;;
*) die "unknown step $1" ;;
esac
if online; then "$tree/dev" packages tests; fi
kernel
printf '%s\n' "${modules[@]}" >/etc/modules-load.d/vscsihba.conf
program
if [ -d /run/systemd/system ]; then service; fi
say "vscsihba $("$prefix/bin/vscsihba" --version | awk '{ print $NF }') is in $prefix; Linux $(uname -r); it took $SECONDS s"
