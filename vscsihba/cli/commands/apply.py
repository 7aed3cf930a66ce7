"""``vscsihba apply``: applies a configuration document; disks that it does not change keep running."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from vscsihba.cli.change_lines import line_of, print_warnings
from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.document_args import add_document_args, read_document
from vscsihba.cli.output import console, print_json, show
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Changes, Daemon, Step
from vscsihba.units import counted

_EXAMPLES: Final = """\
  vscsihba apply disks.json                 apply the document
  vscsihba apply disks.json --prune all     remove every HBA and LUN that is not in it
  vscsihba apply disks.json --replace       also detach and recreate disks, where a change needs it
  vscsihba apply - < disks.json             relative paths begin in the current directory

Disks that the document does not change keep running. If a step fails, the steps before it are undone.
No question is asked: removing a disk that is in use needs --force.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    usage = "FILE [--prune WHAT] [--replace] [--force] [--json]"
    made = parser_of("apply", usage=usage, examples=_EXAMPLES)
    add_document_args(made)
    made.add_argument(
        "--replace", action="store_true", help="also detach and recreate disks, where a change needs it"
    )
    made.add_argument("--force", action="store_true", help="also remove disks that are in use")
    return made


def run(arguments: Sequence[str]) -> int:
    """Apply the document and print the changes."""
    options = parser().parse_args(arguments)
    document = read_document(options.file)
    with _progress(quiet=options.json) as progress:
        done = Daemon().apply(
            document,
            prune=options.prune,
            replace=options.replace,
            force=options.force,
            progress=progress,
        )
    if options.json:
        print_json(done)
        return 0
    print_warnings(PROGRAM, done["warnings"])
    _print_done(done)
    return 0


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Show the progress: a bar on a terminal, which disappears at the end, or plain lines elsewhere."""
    if quiet:
        yield lambda _step: None
    elif sys.stdout.isatty():
        columns = (SpinnerColumn(), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console(), transient=True) as bar:
            task = bar.add_task("asking the service", total=None)
            yield lambda step: bar.update(
                task, total=step["of"], completed=step["step"] - 1, description=step["text"]
            )
    else:
        yield lambda step: print(f"[{step['step']}/{step['of']}] {step['text']}", flush=True)


def _print_done(done: Changes) -> None:
    """Print the changes; without a terminal, the progress has printed them already."""
    count = len(done["changes"])
    if sys.stdout.isatty():
        for change in done["changes"]:
            show(line_of(change))
    print(f"done: {counted(count, 'change')}" if count else "no changes")
