"""The command line of the VM runner: options, required programs, messages and exit codes.

Calls the other parts; knows nothing of QEMU's options and of pipes.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vagrant.runner import accel, choice, kernels, process, sandboxed, unpack, virtme
from vagrant.runner.errors import NOT_RUN, TIMED_OUT, VmError
from vagrant.runner.workdir import GuestResult, WorkDir
from vscsihba.errors import VscsihbaError

NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "file": "file",
    "mkfs.ext4": "e2fsprogs",
    "modprobe": "kmod",
    "setpriv": "util-linux",
}
"""The programs that a run needs, and the Debian package of each."""
SHELL = ("bash", "--login")
CONSOLE_LINES = 40
CPUS = 2
"""Virtual CPUs of a QEMU guest."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options and the command."""
    parser = argparse.ArgumentParser(
        prog="./dev vm",
        usage="%(prog)s [options] [--] [COMMAND ...]",
        description="Run COMMAND as root in a VM whose root is this machine's root (writes stay inside), "
        "or a shell. $VSCSIHBA_SCRATCH is a large ext4, $VSCSIHBA_RESULTS what --results names.",
        epilog=f"Exit code: COMMAND's; {TIMED_OUT}: the time limit was reached; {NOT_RUN}: the VM failed.",
    )
    parser.add_argument(
        "--kernel", metavar="VERSION", help="newest kernel of this version, downloaded if it is missing (6.1)"
    )
    parser.add_argument(
        "--runner",
        choices=choice.CHOICES,
        default="auto",
        help="QEMU with KVM, the sandbox, or QEMU without KVM; auto takes the first that works here (auto)",
    )
    parser.add_argument(
        "--cpus", type=int, default=0, metavar="N", help="virtual CPUs (1 in the sandbox, 2 in QEMU)"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="QEMU without KVM and without the settings that make such a guest quicker, for comparison",
    )
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="memory (2G)")
    parser.add_argument(
        "--scratch", default="8G", metavar="SIZE", help="size of the scratch disk, sparse (8G)"
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the VM after this time (none)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder here for results of COMMAND")
    parser.add_argument("--which", action="store_true", help="print the runner that would be used, and exit")
    parser.add_argument("--quiet", action="store_true", help="print no messages of the runner")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def say(text: str) -> None:
    """Print a message of the runner."""
    sys.stderr.write(f"vm: {text}\n")
    sys.stderr.flush()


def check_host() -> None:
    """Raise VmError unless this machine has everything that a run needs."""
    if platform.machine() != "x86_64":
        raise VmError(f"the VM runner knows x86_64 only, this is {platform.machine()}")
    if " " in str(virtme.HERE):
        raise VmError(f"virtme-ng cannot start from a folder with a space in its name: {virtme.HERE}")
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise VmError(f"not installed: {' '.join(missing)} (apt-get install {' '.join(missing)})")
    if not (Path(sys.executable).parent / "virtme-run").exists():
        raise VmError("virtme-ng is not in the virtual environment (pip install virtme-ng)")


def find_kernel(prefix: str | None) -> kernels.Kernel:
    """Return the kernel to boot, downloaded first if this machine has none of that version."""
    try:
        return kernels.choose(prefix)
    except VmError:
        if prefix is None:
            raise
    say(f"fetching Linux {prefix} ...")
    kernels.fetch(prefix)
    return kernels.choose(prefix)


def kvm_boots(kernel: kernels.Kernel) -> bool:
    """Boot a guest with KVM under a time limit and return whether it came up."""
    say("probing KVM ...")
    with WorkDir() as work:
        work.write_command(["true"], Path("/"), {})
        work.make_scratch("64M")
        line = virtme.command_line(virtme.Machine(kernel, "kvm"), work, None, interactive=False)
        try:
            process.run_streaming(line, work, accel.PROBE_LIMIT, process.discard)
        except process.TimeLimitError:
            return False
        return work.result().exit_code == 0


def verdict(work: WorkDir, result: GuestResult) -> int:
    """Return the exit code of a run that ended by itself, and explain one that ended too early."""
    if result.exit_code is not None:
        return result.exit_code
    if result.failure is not None:
        say(f"the guest could not be prepared: guest/enter.sh, {result.failure}")
    elif result.ready_at is None:
        say("the guest did not come up")
    else:
        say("the guest ended before its command did")
    if work.console.exists() and (lines := work.console.read_text(errors="replace").splitlines()):
        say("the last lines of its kernel:\n" + "\n".join(lines[-CONSOLE_LINES:]))
    return NOT_RUN


def run(options: argparse.Namespace) -> int:
    """Run a command according to the options and return the exit code."""
    interactive = not options.command
    if options.which:
        sys.stdout.write(f"{choose(options)}\n")
        return 0
    if interactive and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise VmError("a shell needs a terminal; for a command: ./dev vm -- COMMAND")
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
    chosen = choose(options)
    if chosen == "sandbox":
        return sandboxed.run(options, say)
    return run_in_qemu(options, chosen, interactive=interactive)


def choose(options: argparse.Namespace) -> str:
    """Return the runner for some options: ``kvm``, ``sandbox`` or ``tcg``.

    Raises:
        VmError: The options contradict each other, or the runner does not work here.
    """
    if options.plain and options.runner not in ("auto", "tcg"):
        raise VmError(f"--plain is a guest of QEMU without KVM, not of the runner {options.runner}")
    if options.plain:
        return "tcg"
    return choice.choose(options.runner, options.kernel, options.cpus, lambda: has_kvm(options.kernel))


def has_kvm(version: str | None) -> bool:
    """Return whether a guest boots with KVM here, with a kernel of that version."""
    if accel.unusable() is not None:
        return False
    try:
        check_host()
        kernel = find_kernel(version)
    except VmError:
        return False
    return accel.choose("auto", kernel.release, lambda: kvm_boots(kernel)) == "kvm"


def run_in_qemu(options: argparse.Namespace, chosen: str, *, interactive: bool) -> int:
    """Run a command in a QEMU guest, `kvm` or `tcg`, and return the exit code."""
    check_host()
    kernel = find_kernel(options.kernel)
    chosen = accel.choose(chosen, kernel.release, lambda: kvm_boots(kernel))
    cpus = options.cpus or CPUS
    unpacked = unpack.unpacked(kernel, accel.cache_folder()) if chosen == "tcg" else None
    machine = virtme.Machine(kernel, chosen, cpus, options.memory, unpacked, options.plain)
    with WorkDir() as work:
        work.make_scratch(options.scratch)
        work.write_command(options.command or SHELL, Path.cwd(), os.environ)
        results = None if options.results is None else options.results.resolve()
        line = virtme.command_line(machine, work, results, interactive=interactive)
        if not options.quiet:
            say(f"Linux {kernel.release}, {chosen}{', plain' * options.plain}, {cpus} CPUs, {options.memory}")
        started = time.time()
        try:
            run_machine = process.run_interactive if interactive else process.run_streaming
            run_machine(line, work, options.timeout)
        except process.TimeLimitError:
            say(f"the time limit of {options.timeout:g} s was reached, and the VM ended")
            return TIMED_OUT
        result = work.result()
        code = verdict(work, result)
        if not options.quiet and result.ready_at is not None:
            boot = result.ready_at - started
            say(f"exit code {code} after {time.time() - started:.1f} s, {boot:.1f} s of them to boot")
        return code


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the process's exit code."""
    options = make_parser().parse_args(arguments)
    try:
        with process.stop_signals_raise():
            return run(options)
    except (VmError, VscsihbaError) as error:
        say(str(error))
        return getattr(error, "exit_code", NOT_RUN)
    except process.StoppedError as stop:
        say(f"{stop}: the VM was ended")
        return 128 + stop.number
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
