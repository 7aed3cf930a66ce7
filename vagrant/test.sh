#!/bin/bash
# Runs the tests that need a kernel, in whatever machine this is. Knows neither Vagrant nor the quick VM runner.
#
# To be run as root in a machine that provision.sh has prepared, or in the guest of `./dev vm`; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."

export VSCSIHBA_IN_VM=1
export VSCSIHBA_SCRATCH="${VSCSIHBA_SCRATCH:-/var/tmp}"

options=(-p no:cacheprovider -o timeout=900)
if [ -n "${VSCSIHBA_RESULTS:-}" ]; then
    options+=("--junitxml=$VSCSIHBA_RESULTS/vm-tests-$(uname -r).xml")
fi
if [ $# -eq 0 ]; then
    set -- tests/vm
fi
exec .venv/bin/python -m pytest "${options[@]}" "$@"
