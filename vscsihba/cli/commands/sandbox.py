"""``vscsihba sandbox``: runs a command on a real kernel with virtual disks, without root.

Reads the command line and starts the programs that create the disks; the sandbox itself is in
`vscsihba.sandbox`.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.program import Parser
from vscsihba.errors import SandboxError, UsageError, VscsihbaError
from vscsihba.sandbox import Plan, run_plan
from vscsihba.sandbox.plan import DEFAULT_MEMORY
from vscsihba.sandbox.surroundings import INSIDE, disk_service, environment, memory_size, writable_folder
from vscsihba.sandbox.terminal import Waiting
from vscsihba.units import parse_size

_EXAMPLES: Final = """\
  vscsihba sandbox --disk memory:64MiB                            start a shell with /dev/sda
  vscsihba sandbox --disk memory:64MiB -- mkfs.ext4 /dev/sda      run one command
  vscsihba sandbox --disk 'delay:seconds=2|memory:64MiB' -- ./my-test /dev/sda
  vscsihba sandbox --disks disks.json --writable . -- make check
  vscsihba sandbox --fetch                                        download the kernel, without root

The command runs as root in User-Mode Linux and sees the files of this machine. Its writes stay in memory and
are lost at the end, except in --writable folders. Input, output, signals and the exit code pass through.
Exit codes: 124 the time limit was reached, 125 the sandbox cannot start, 126 the command cannot run, 127 the
command was not found.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of(
        "sandbox",
        usage="[OPTIONS] [-- COMMAND ...]",
        examples=_EXAMPLES,
        json_help="print a report in JSON on standard error at the end",
    )
    made.add_argument("--disks", metavar="FILE", help="apply this configuration document first")
    made.add_argument(
        "--disk", metavar="STACK", action="append", default=[],
        help="add a disk: an image or a stack in one line, as for vscsitarget; may be given several times",
    )  # fmt: skip
    made.add_argument(
        "--writable", metavar="DIR", action="append", default=[],
        help="let the command change files in this folder; may be given several times",
    )  # fmt: skip
    made.add_argument(
        "--scratch", metavar="SIZE", type=parse_size, default=0,
        help="mount an ext4 file system of this size on /run/scratch, with O_DIRECT, holes and discard",
    )  # fmt: skip
    made.add_argument(
        "--memory",
        metavar="SIZE",
        type=memory_size,
        default=DEFAULT_MEMORY,
        help="memory of the sandbox (default: 1GiB)",
    )
    made.add_argument("--timeout", metavar="SECONDS", type=float, help="end the sandbox after this time")
    made.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[],
        help="set an environment variable of the command; may be given several times",
    )  # fmt: skip
    made.add_argument(
        "--kernel", metavar="VERSION", help="kernel version, 6.1 or 6.12, or path of a linux.uml"
    )
    made.add_argument("--fetch", action="store_true", help="download the kernel into your cache, and exit")
    made.add_argument("--verbose", action="store_true", help="show the kernel's messages")
    made.add_argument(
        "command", nargs="*", metavar="COMMAND", help="command and arguments (default: your shell)"
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:at])
    if options.command:
        raise UsageError(
            f"unexpected argument {options.command[0]!r}",
            cure=f'write "{PROGRAM} sandbox [OPTIONS] -- COMMAND"',
        )
    if options.fetch:
        return _fetch(options)
    if INSIDE in os.environ:
        raise SandboxError("this is already a sandbox", cure="run the command directly")
    plan = _plan(options, words[at + 1 :] or [os.environ.get("SHELL") or "/bin/sh"])
    with Waiting(quiet=options.verbose) as waiting:
        report = run_plan(plan, on_ready=waiting.over)
    if options.json:
        print(json.dumps(asdict(report)), file=sys.stderr)
    elif report.timed_out:
        print(
            f"{PROGRAM}: the time limit of {options.timeout:g} s was reached, and the sandbox ended",
            file=sys.stderr,
        )
        if report.diagnosis:
            print(report.diagnosis, file=sys.stderr)
    return report.exit_code


def _plan(options: Any, command: Sequence[str]) -> Plan:
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError("--timeout must be more than 0", cure="give seconds, such as --timeout 60")
    try:
        preparations, files = disk_service(options.disks, options.disk)
    except VscsihbaError as error:
        error.exit_code = SandboxError.exit_code
        raise
    return Plan(
        command=command,
        environ={**environment(scratch=bool(options.scratch)), **_settings(options.env)},
        cwd=Path.cwd(),
        preparations=preparations,
        files=files,
        writable=[writable_folder(name) for name in options.writable],
        kernel=options.kernel,
        memory=options.memory,
        scratch=options.scratch,
        timeout=options.timeout,
        verbose=options.verbose,
        diagnose=options.verbose,
    )


def _settings(words: Sequence[str]) -> Mapping[str, str]:
    for word in words:
        if "=" not in word.lstrip("="):
            raise UsageError(f"--env {word!r} has no value", cure="write --env NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def _fetch(options: Any) -> int:
    from vscsihba.sandbox.fetch import fetch  # noqa: PLC0415 - seldom wanted

    kernel = fetch(options.kernel, lambda step: print(f"{PROGRAM}: {step} ...", file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps({"kernel": kernel.release, "image": str(kernel.image)}))
    else:
        print(f"Linux {kernel.release} is in {kernel.image}")
    return 0
