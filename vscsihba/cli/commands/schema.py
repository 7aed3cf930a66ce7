"""``vscsihba schema``: the JSON Schema of the document, with the options of all installed handlers."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.config.schema import schema

_EXAMPLES: Final = """\
  vscsihba schema > vscsihba.schema.json    for an editor that completes and checks JSON

The output is JSON, with and without --json.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("schema", usage="[--json]", examples=_EXAMPLES)


def run(arguments: Sequence[str]) -> int:
    """Print the schema."""
    parser().parse_args(arguments)
    print_json(schema())
    return 0
