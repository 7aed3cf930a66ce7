"""The sandbox as a machine of the runner: turns the runner's options into a plan of `vscsihba.sandbox`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vagrant.runner.errors import TIMED_OUT
from vscsihba.errors import SandboxError
from vscsihba.sandbox import Plan, kernels, run_plan
from vscsihba.sandbox.fetch import fetch
from vscsihba.sandbox.surroundings import environment
from vscsihba.units import parse_size

_SHELL: Final = ("bash", "--login")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run a command according to the options and return the exit code.

    Raises:
        SandboxError: The sandbox could not be started.
        UsageError: A size is not valid.
    """
    release = _kernel(options.kernel, say)
    results = None if options.results is None else options.results.resolve()
    plan = Plan(
        command=options.command or _SHELL,
        environ={**environment(scratch=True), "VSCSIHBA_IN_VM": "1", **_results(results)},
        cwd=Path.cwd(),
        writable=[] if results is None else [results],
        kernel=options.kernel,
        memory=parse_size(options.memory),
        scratch=parse_size(options.scratch),
        timeout=options.timeout,
        diagnose=True,
    )
    if not options.quiet:
        say(f"Linux {release}, sandbox, 1 CPU, {options.memory}")
    report = run_plan(plan)
    if report.exit_code == TIMED_OUT and report.timed_out:
        say(f"the time limit of {options.timeout:g} s was reached, and the sandbox ended")
        say(report.diagnosis)
    elif not options.quiet:
        boot = f"{report.boot_seconds:.1f} s of them to boot"
        say(f"exit code {report.exit_code} after {report.seconds:.1f} s, {boot}")
    return report.exit_code


def _results(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {"VSCSIHBA_RESULTS": str(folder)}


def _kernel(version: str | None, say: Callable[[str], None]) -> str:
    """Return the release of the kernel for a run, downloaded first if this machine lacks the version."""
    try:
        return kernels.choose(version).release
    except SandboxError:
        return fetch(version, say).release
