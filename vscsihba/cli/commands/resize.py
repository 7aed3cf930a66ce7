"""``vscsihba resize``: enlarges a backstore while its disk works; Linux notices at once."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import UsageError
from vscsihba.units import format_size, parse_size

_EXAMPLES: Final = """\
  vscsihba resize boot 20GiB                20 GiB altogether
  vscsihba resize boot +512M                512 MiB more than it has

A disk never shrinks. "vscsihba save" keeps the new size for the next start.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("resize", usage="BACKSTORE SIZE [--json]", examples=_EXAMPLES)
    made.add_argument("backstore", metavar="BACKSTORE", help='its name, as in "vscsihba status"')
    made.add_argument("size", metavar="SIZE", type=_size, help='"20GiB", or "+512M" for that much more')
    return made


def _size(word: str) -> tuple[bool, int]:
    """Read a size; return whether it comes on top of what there is, and the bytes."""
    try:
        return word.startswith("+"), parse_size(word.removeprefix("+"))
    except UsageError as error:
        raise ArgumentTypeError(str(error)) from error


def run(arguments: Sequence[str]) -> int:
    """Have it enlarged."""
    options = parser().parse_args(arguments)
    daemon = Daemon()
    more, size = options.size
    if more:
        size += _present(daemon, options.backstore)
    done = daemon.resize(options.backstore, size)
    if options.json:
        print_json(done)
    else:
        print(f"{options.backstore} has {format_size(size)} now")
    return 0


def _present(daemon: Daemon, backstore: str) -> int:
    """Return the bytes that the disk of a backstore has."""
    for hba in daemon.status()["hbas"]:
        for lun in hba["luns"]:
            if lun["backstore"] == backstore and lun["size"] is not None:
                return lun["size"]
    raise UsageError(
        f"no disk shows a backstore {backstore!r}", cure='see "vscsihba status", or say the whole size'
    )
