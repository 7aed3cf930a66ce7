"""The command line of the lane: which machines and tests, messages, exit codes.

Brings the parts together; knows no namespace and no daemon.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vagrant.lane.machine import Outcome, run_machine
from vagrant.runner import firmware_probe
from vagrant.runner.errors import NOT_RUN, TIMED_OUT, VmError
from vagrant.runner.process import StoppedError, stop_signals_raise

TREE = Path(__file__).resolve().parents[2]
KERNELS = TREE / "vagrant/packages/kernels.txt"
TESTS = ("tests/installed", "tests/vm/test_attach.py", "tests/vm/test_disk.py")
"""Run where no test is named: the program as installed, and a smoke of disks. The quick runner runs all."""
LIMIT = 1500.0
"""Seconds for one machine, everything included."""


def versions() -> list[str]:
    """Return the kernel versions that there are machines for, the first one being Debian's own."""
    lines = (line.split() for line in KERNELS.read_text().splitlines())
    return [words[0] for words in lines if words and words[0][0].isdigit()]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options and the tests."""
    made = argparse.ArgumentParser(
        prog="vagrant/ci",
        usage="%(prog)s [options] [--] [TEST ...]",
        description="Make a Vagrant machine of each kernel, one after the other; install vscsihba there from "
        "its wheel, run TESTs, boot the machine again, look whether everything is back, destroy it.",
        epilog=f"Exit code: the tests'; {TIMED_OUT}: the time limit was reached; {NOT_RUN}: a machine "
        "failed. On failure console, journal and libvirt's log are in build/vagrant-logs.",
    )
    made.add_argument(
        "--kernel",
        action="append",
        choices=versions(),
        metavar="VERSION",
        help="this kernel only; repeatable",
    )
    made.add_argument(
        "--timeout", type=float, default=LIMIT, metavar="SECONDS", help="for each machine (%(default).0f)"
    )
    made.add_argument(
        "--keep",
        action="store_true",
        help="leave the machine up after its tests and say how to enter it, until Ctrl-C or the time limit",
    )
    made.add_argument(
        "tests", nargs="*", metavar="TEST", help=f"files, folders, options of pytest ({' '.join(TESTS)})"
    )
    return made


def say(text: str) -> None:
    """Print a line of the lane's own."""
    sys.stderr.write(f"ci: {text}\n")
    sys.stderr.flush()


def output_of(program: str) -> str:
    """Run one of our programs, its messages passed on, and return what it printed; it ends with us."""
    command = ["setpriv", "--pdeathsig", "TERM", "--", str(TREE / "vagrant" / program)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except StoppedError:
            process.terminate()
            raise
    if process.returncode != 0:
        raise VmError(f"vagrant/{program} failed")
    return output.strip()


def run_all(options: argparse.Namespace) -> int:
    """Run every machine that is asked for and return the first exit code that is not 0."""
    if os.geteuid() != 0:
        raise VmError("must be run as root: it makes namespaces and runs libvirt in them")
    output_of("build-box")
    output_of("wheels")
    os.environ["VM_ACCEL"] = os.environ.get("VM_ACCEL") or firmware_probe.main()
    if options.keep:
        os.environ["VM_KEEP"] = "1"
    outcomes = []
    for version in options.kernel or versions():
        started = time.monotonic()
        say(f"Linux {version}, {os.environ['VM_ACCEL']}")
        found = run_machine(version, options.tests or list(TESTS), TREE / "build", options.timeout)
        outcomes.append((version, found, time.monotonic() - started))
    for version, found, seconds in outcomes:
        report(version, found, seconds)
    return next((found.code for _, found, _ in outcomes if found.code != 0), 0)


def report(version: str, found: Outcome, seconds: float) -> None:
    """Print what became of one machine; the tests' own closing lines come last, as they were."""
    say(f"Linux {version}: exit code {found.code} after {seconds:.0f} s")
    if found.times:
        say(f"of them {', '.join(found.times)}")
    if found.logs is not None:
        say(f"its logs are in {found.logs}")
    sys.stdout.write("".join(f"{line}\n" for line in found.closing))
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the process's exit code."""
    options = parser().parse_args(arguments)
    try:
        with stop_signals_raise():
            return run_all(options)
    except VmError as error:
        say(str(error))
        return NOT_RUN
    except StoppedError as stop:
        say(f"{stop}: the machine was ended")
        return 128 + stop.number
