"""``vscsihba status``: every HBA, LUN and engine with its state, with and without a service."""

import sys
import time
from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.machine_state import machine_status
from vscsihba.cli.output import print_json, show, terminal_width
from vscsihba.cli.program import Parser
from vscsihba.cli.status_text import status_lines

_EXAMPLES: Final = """\
  vscsihba status                           the columns that fit into the terminal
  vscsihba status --wide                    every column: whole stacks, names in /dev/disk/by-id
  vscsihba status --json | jq -r '.hbas[].luns[].device'

If the service runs, it is asked; otherwise the kernel and the engines are. Objects of other programs are
listed at the end; vscsihba never changes them. A file or a pipe always gets every column.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("status", usage="[--wide] [--json]", examples=_EXAMPLES)
    made.add_argument(
        "--wide", action="store_true", help="show every column, even if lines become longer than the terminal"
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the status."""
    options = parser().parse_args(arguments)
    status = machine_status()
    if options.json:
        print_json(status)
    else:
        for line in status_lines(status, time.time(), None if options.wide else terminal_width()):
            show(line)
    sys.stdout.flush()
    return 0
