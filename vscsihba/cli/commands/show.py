"""``vscsihba show``: the running configuration, as a document that ``vscsihba apply`` accepts."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.program import Parser
from vscsihba.config.dump import dump
from vscsihba.config.load import read
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba show                             print the running configuration
  vscsihba show > disks.json                write a document, to edit and apply

The output is JSON, with and without --json.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("show", usage="[--json]", examples=_EXAMPLES)


def run(arguments: Sequence[str]) -> int:
    """Print the document."""
    parser().parse_args(arguments)
    sys.stdout.write(dump(read(Daemon().show(), Path("/"))))
    return 0
