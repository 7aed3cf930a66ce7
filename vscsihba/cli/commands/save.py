"""``vscsihba save``: writes what runs into the file that is restored when the service starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba save                             have it restored when the service starts
  vscsihba save /root/disks.json            keep a copy somewhere else

The old or the new document is there afterwards, never a part of one, and the last ten versions are kept
beside it. An empty document never replaces one that is not, unless --force is said.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("save", usage="[FILE] [--force] [--json]", examples=_EXAMPLES)
    made.add_argument("file", metavar="FILE", nargs="?", help="default: what is restored at start")
    made.add_argument("--force", action="store_true", help="also replace a document by an empty one")
    return made


def run(arguments: Sequence[str]) -> int:
    """Have it saved."""
    options = parser().parse_args(arguments)
    # The service has a working directory of its own.
    wanted = None if options.file is None else Path(options.file).absolute()
    path = Daemon().save(wanted, force=options.force)
    if options.json:
        print_json({"path": str(path)})
    else:
        print(f"saved in {path}")
    return 0
