"""``vscsihba doctor``: checks the machine, and prints for each problem how to correct it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from rich.text import Text

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.doctor.finding import Finding, collect
from vscsihba.cli.doctor.kernel_objects import check_kernel_objects
from vscsihba.cli.doctor.machine import check_kernel, check_packages, check_rights
from vscsihba.cli.doctor.service import check_service
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.units import counted

_EXAMPLES: Final = """\
  vscsihba doctor                        check everything
  vscsihba doctor --json | jq -e .ok     check in a script

Checks change nothing. Lines are OK, note, warn (a feature will not work) or FAIL (disks will not work); the
line below says what to do. Exit code 1: at least one check is FAIL.
"""

_MARKS: Final = {
    "ok": ("OK", "green"),
    "note": ("note", "cyan"),
    "warning": ("warn", "yellow"),
    "problem": ("FAIL", "bold red"),
}

GROUPS: Final = (check_rights, check_kernel, check_service, check_kernel_objects, check_packages)
"""Checks, in the order of the output."""


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("doctor", usage="[--json]", examples=_EXAMPLES)


def run(arguments: Sequence[str]) -> int:
    """Check the machine; return 1 if there is a problem."""
    options = parser().parse_args(arguments)
    findings = list(collect(GROUPS))
    problems = sum(finding.state == "problem" for finding in findings)
    if options.json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        print_table([row for finding in findings for row in _rows(finding)])
        print(_verdict(problems))
    return 1 if problems else 0


def _rows(finding: Finding) -> Iterator[list[Text | str]]:
    mark, style = _MARKS[finding.state]
    yield [Text(mark, style=style), finding.title, finding.text]
    if finding.cure is not None:
        yield ["", "", Text(f"-> {finding.cure}", style=style)]


def _verdict(problems: int) -> str:
    if not problems:
        return "\nno problems: this machine can have virtual disks"
    return f"\n{counted(problems, 'problem')}: see the lines marked FAIL"
