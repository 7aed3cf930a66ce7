#!/bin/bash
# Runs the tests that need a kernel, on this machine. Knows neither Vagrant nor the VM runner.
#
# Run it as root; arguments are passed to pytest. In /opt/vscsihba/tree, on a machine set up by provision.sh, it tests the
# installed program. In a working tree with a virtual environment (the guest of `./dev vm`), it tests the tree.
set -eu
cd "$(dirname "$0")/.."
vagrant/provision.sh kernel

export VSCSIHBA_IN_VM=1
export VSCSIHBA_SCRATCH="${VSCSIHBA_SCRATCH:-/var/tmp}"

python=.venv/bin/python
if [ ! -e $python ]; then python=/opt/vscsihba/bin/python; fi
# A test that waits for long shows where, before the time limit ends it.
options=(-p no:cacheprovider -o timeout=900 -o faulthandler_timeout=300 --durations=12)
if [ -n "${VSCSIHBA_RESULTS:-}" ]; then
    options+=("--junitxml=$VSCSIHBA_RESULTS/vm-tests-$(uname -r).xml")
fi
if [ $# -eq 0 ]; then
    set -- tests/vm
fi
exec $python -m pytest "${options[@]}" "$@"
