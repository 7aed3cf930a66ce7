"""The command line of the lane: its machines and tests, messages, exit codes.

Calls the other parts; knows nothing of namespaces and daemons.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vagrant.lane.virtual_machine import MachineResult, run_machine
from vagrant.runner import firmware_probe
from vagrant.runner.errors import NOT_RUN, TIMED_OUT, VmError
from vagrant.runner.process import StoppedError, stop_signals_raise

TREE = Path(__file__).resolve().parents[2]
KERNELS = TREE / "vagrant/packages/kernels.txt"
TESTS = ("tests/installed", "tests/vm/test_attach.py", "tests/vm/test_disk.py")
"""The default tests: the installed program, and a smoke test of disks. The VM runner runs all tests."""
LIMIT = 1500.0
"""Seconds for one machine in all."""


def versions() -> list[str]:
    """Return the kernel versions that have a machine, Debian's own first."""
    lines = (line.split() for line in KERNELS.read_text().splitlines())
    return [words[0] for words in lines if words and words[0][0].isdigit()]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options and the tests."""
    parser = argparse.ArgumentParser(
        prog="vagrant/ci",
        usage="%(prog)s [options] [--] [TEST ...]",
        description="Start a Vagrant machine for each kernel, one after the other; install vscsihba there "
        "from its wheel, run TESTs, reboot it, check that everything is back, destroy it.",
        epilog=f"Exit code: the tests'; {TIMED_OUT}: the time limit was reached; {NOT_RUN}: a machine "
        "failed. On failure console, journal and libvirt's log are in build/vagrant-logs.",
    )
    parser.add_argument(
        "--kernel",
        action="append",
        choices=versions(),
        metavar="VERSION",
        help="use only this kernel; repeatable",
    )
    parser.add_argument(
        "--timeout", type=float, default=LIMIT, metavar="SECONDS", help="for each machine (%(default).0f)"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the machine running after its tests and show how to enter it, until Ctrl-C or the limit",
    )
    parser.add_argument(
        "tests", nargs="*", metavar="TEST", help=f"files, folders, options of pytest ({' '.join(TESTS)})"
    )
    return parser


def say(text: str) -> None:
    """Print a message of the lane."""
    sys.stderr.write(f"ci: {text}\n")
    sys.stderr.flush()


def output_of(program: str) -> str:
    """Run a program of this folder and return its output; it is killed when this process ends."""
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
    """Run all chosen machines and return the first exit code that is not 0."""
    if os.geteuid() != 0:
        raise VmError("must be run as root: it makes namespaces and runs libvirt in them")
    output_of("build-box")
    output_of("wheels")
    os.environ["VM_ACCEL"] = os.environ.get("VM_ACCEL") or firmware_probe.main()
    if options.keep:
        os.environ["VM_KEEP"] = "1"
    results = []
    for version in options.kernel or versions():
        started = time.monotonic()
        say(f"Linux {version}, {os.environ['VM_ACCEL']}")
        result = run_machine(version, options.tests or list(TESTS), TREE / "build", options.timeout)
        results.append((version, result, time.monotonic() - started))
    for version, result, seconds in results:
        report(version, result, seconds)
    return next((result.code for _, result, _ in results if result.code != 0), 0)


def report(version: str, result: MachineResult, seconds: float) -> None:
    """Print the result of one machine; the summary lines of the tests come last."""
    say(f"Linux {version}: exit code {result.code} after {seconds:.0f} s")
    if result.times:
        say(f"of them {', '.join(result.times)}")
    if result.logs is not None:
        say(f"its logs are in {result.logs}")
    sys.stdout.write("".join(f"{line}\n" for line in result.closing))
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the process's exit code."""
    options = make_parser().parse_args(arguments)
    try:
        with stop_signals_raise():
            return run_all(options)
    except VmError as error:
        say(str(error))
        return NOT_RUN
    except StoppedError as stop:
        say(f"{stop}: the machine was ended")
        return 128 + stop.number
