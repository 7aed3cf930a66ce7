"""Commands with verbs: ``vscsihba cow status FILE``, ``vscsihba snapshot take hba0/lun0 NAME``.

Knows parsing and progress, not the work of any verb.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from vscsihba.cli.program import Parser

Verb = Callable[[argparse.Namespace], object]
"""Function of a verb; its result is printed with ``--json``."""


class Verbs:
    """Verbs of a command.

    Args:
        parser: Parser of the command, from `vscsihba.cli.command_table.parser_of`.
    """

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self._words = parser.add_subparsers(
            title="verbs", metavar="VERB", dest="verb", required=True, prog=parser.prog
        )

    def add(self, name: str, summary: str, verb: Verb, *arguments: tuple[str, str]) -> Parser:
        """Add a verb and return its parser, for its options.

        Args:
            name: Name of the verb.
            summary: Purpose, in one line.
            verb: Function that gets the parsed arguments.
            arguments: Names and descriptions of its positional arguments.
        """
        made: Parser = self._words.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        for argument, description in arguments:
            made.add_argument(argument, metavar=argument.upper(), help=description)
        made.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text"
        )
        made.set_defaults(call=verb)
        return made

    def run(self, arguments: Sequence[str], show: Callable[[argparse.Namespace, Any], None]) -> int:
        """Run the verb in `arguments`, and print its result with `show`."""
        options = self.parser.parse_args(arguments)
        show(options, options.call(options))
        return 0


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error, if that is a terminal, while the context is entered."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
