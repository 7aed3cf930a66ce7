"""``vscsihba plan``: the changes that ``vscsihba apply`` would make. Changes nothing itself."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.change_lines import print_changes, print_warnings
from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.document_args import add_document_args, read_document
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba plan disks.json                  changes that "apply disks.json" would make
  vscsihba plan disks.json --prune all      changes that "apply disks.json --prune all" would make
  vscsihba show | sed s/1GiB/2GiB/ | vscsihba plan -

Signs: + add, - remove, ~ change while the disk is in use, ! replace: detach and recreate the disk, which
needs --replace. Exit code 2: the document is wrong, at the place that the message names.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("plan", usage="FILE [--prune WHAT] [--json]", examples=_EXAMPLES)
    add_document_args(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the changes."""
    options = parser().parse_args(arguments)
    document = read_document(options.file)
    changes = Daemon().plan(document, prune=options.prune)
    if options.json:
        print_json(changes)
        return 0
    print_warnings(PROGRAM, changes["warnings"])
    print_changes(changes)
    if any(change["replaces"] for change in changes["changes"]):
        print("to replace disks, use apply --replace")
    return 0
