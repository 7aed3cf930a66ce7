#!/bin/sh
# The original's name for the command: takes the same words as vscsitarget.
here=$(cd "$(dirname "$0")" && pwd -P)
if [ -x "$here/.venv/bin/vscsitarget" ]; then
    exec "$here/.venv/bin/vscsitarget" "$@"
fi
exec vscsitarget "$@"
