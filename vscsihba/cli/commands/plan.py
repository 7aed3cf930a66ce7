"""``vscsihba plan``: what ``vscsihba apply`` would change. Changes nothing."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.change_lines import print_changes, print_warnings
from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.document_args import add_document_args, read_document
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba plan disks.json                  what would change
  vscsihba plan disks.json --prune all      and if everything else were to go
  vscsihba show | sed s/1GiB/2GiB/ | vscsihba plan -

+ is added, - removed, ~ changed while its disk works, ! replaced: taken away and made anew, which needs
--replace. Nothing is changed. Exit code 2: the document is wrong, at the place that the message names.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("plan", usage="FILE [--prune WHAT] [--json]", examples=_EXAMPLES)
    add_document_args(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print what would change."""
    options = parser().parse_args(arguments)
    document = read_document(options.file)
    found = Daemon().plan(document, prune=options.prune)
    if options.json:
        print_json(found)
        return 0
    print_warnings(PROGRAM, found["warnings"])
    print_changes(found)
    if any(change["replaces"] for change in found["changes"]):
        print("apply needs --replace for what is replaced")
    return 0
