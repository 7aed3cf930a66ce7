"""The part that runs where the kernel is: ``python -m tests.conformance.guest``, one JSON line a verdict.

Lanes (a kind of disk, and a way to reach it) are run side by side, as many as there are CPUs; the tests
of a lane one after the other, each in a process of its own with a time limit. Knows nothing of tables.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.conformance import profiles
from tests.conformance.disk import Disk
from tests.conformance.verdict import Verdict, judge

LIMIT: Final = 600.0
"""Seconds for one test: software emulation is slow, and jumps about."""
_DEAD: Final = 10.0
"""Seconds for a killed tool to go. One that waits for a command which is never answered does not."""
TOOL: Final = ("iscsi-test-cu", "--dataloss", "--allow-sanitize", "-V", "-t")


class StuckError(Exception):
    """The tool cannot be ended: a command of its waits in the kernel."""


SETTLE_LIMIT = 120
"""Seconds that udev may take on a machine with other work."""


def verdicts(disk: Disk, transport: str, tests: Sequence[str]) -> Iterator[Verdict]:
    """Run tests on a disk, one after the other; ends early when the disk cannot be used any longer."""
    for test in tests:
        disk.prepare(new=profiles.needs_new_disk(test), slow=profiles.needs_slow_disk(test))
        # udev opens a disk whose medium has changed, which locks a removable medium for that time.
        subprocess.run(["udevadm", "settle", f"--timeout={SETTLE_LIMIT}"], check=True)
        try:
            yield run(disk, transport, test)
        except StuckError as error:
            yield Verdict(disk.profile.name, transport, test, "crashed", (str(error),), LIMIT + _DEAD)
            return
        disk.restore()


def run(disk: Disk, transport: str, test: str) -> Verdict:
    """Run one test.

    Raises:
        StuckError: It does not end.
    """
    words = (*TOOL, f"ALL.{test}", *disk.addresses(transport, both=profiles.needs_two_paths(test)))
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        tool = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        code = _wait(tool)
        output.seek(0)
        text = output.read().decode(errors="replace")
    seconds = time.monotonic() - started
    _keep(f"{disk.profile.name}.{transport}.{test}", text)
    if code is None:
        return Verdict(
            disk.profile.name, transport, test, "crashed", (f"no end within {LIMIT:.0f} s",), seconds
        )
    return Verdict(disk.profile.name, transport, test, *judge(text, code), seconds)


def _wait(tool: subprocess.Popen[bytes]) -> int | None:
    """Return the tool's exit code, None when it had to be killed.

    Raises:
        StuckError: Killing it did not help.
    """
    try:
        return tool.wait(LIMIT)
    except subprocess.TimeoutExpired:
        tool.kill()
    try:
        tool.wait(_DEAD)
    except subprocess.TimeoutExpired as error:
        raise StuckError(f"no end within {LIMIT:.0f} s, and it cannot be killed: a command hangs") from error
    return None


def _keep(name: str, text: str) -> None:
    """Put the tool's output where the results go, if there is such a folder."""
    if folder := os.environ.get("VSCSIHBA_RESULTS"):
        Path(folder, f"{name}.txt").write_text(text)


def main() -> int:
    """Run the lanes and print verdicts; 0 when each lane came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lane", action="append", required=True, help="PROFILE:TRANSPORT")
    parser.add_argument("--test", action="append", default=[])
    options = parser.parse_args()
    tests = profiles.selected(profiles.listed(), options.test)
    lock = threading.Lock()

    def lane(number: int, name: str) -> None:
        profile, _, transport = name.partition(":")
        with Disk(profiles.PROFILES[profile], number, Path(folder)) as disk:
            for verdict in verdicts(disk, transport, tests):
                with lock:
                    print(json.dumps(verdict.document()), flush=True)

    print(json.dumps({"kernel": os.uname().release}), flush=True)
    scratch = os.environ.get("VSCSIHBA_SCRATCH")
    with tempfile.TemporaryDirectory(dir=scratch) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [
            error
            for task in [pool.submit(lane, number, name) for number, name in enumerate(options.lane)]
            if (error := task.exception()) is not None
        ]
    for failure in failures:
        sys.stderr.write(f"conformance: {type(failure).__name__}: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
