"""What commands print: tables and JSON. Colours and the width of lines are a terminal's business only."""

import io
import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

Cell = Text | str

_WIDE = 4096
"""Columns where nobody looks: lines in a file or a pipe are never broken."""


def console(stream: io.TextIOBase | None = None) -> Console:
    """Return a console on standard output, or on `stream`, that takes text as it is."""
    file = stream or sys.stdout
    width = None if file.isatty() else _WIDE
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)  # type: ignore[arg-type]


def print_json(value: object) -> None:
    """Print a JSON document."""
    print(json.dumps(value, indent=2))


def print_table(
    rows: Iterable[Sequence[Cell]], headings: Sequence[str] = (), *, folding: Sequence[str] = ()
) -> None:
    """Print a table without frames, each column as wide as it must be.

    Args:
        rows: What stands in it.
        headings: Of the columns.
        folding: Headings of the columns that are folded on a narrow terminal; the last one always is.
    """
    table = Table(box=None, pad_edge=False, show_header=bool(headings), header_style="bold")
    rows = list(rows)
    if not rows and not headings:
        return
    width = max([len(headings), *map(len, rows)])
    for number in range(width):
        heading = headings[number] if headings else ""
        folds = number == width - 1 or heading in folding
        table.add_column(heading, no_wrap=not folds, overflow="fold" if folds else "ignore")
    for row in rows:
        table.add_row(*row)
    show(table)


def show(renderable: RenderableType) -> None:
    """Print what rich can render, without blanks at the end of its lines."""
    target = console()
    with target.capture() as captured:
        # Lines are left to the terminal, so that they can be copied; only tables are folded here.
        target.print(renderable, soft_wrap=isinstance(renderable, Text))
    for line in captured.get().splitlines():
        print(line.rstrip())
