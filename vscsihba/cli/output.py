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


def print_table(rows: Iterable[Sequence[Cell]], headings: Sequence[str] = ()) -> None:
    """Print a table without frames, each column as wide as it must be; the last one may be folded."""
    table = Table(box=None, pad_edge=False, show_header=bool(headings), header_style="bold")
    rows = list(rows)
    width = max([len(headings), *map(len, rows)])
    for number in range(width):
        last = number == width - 1
        table.add_column(
            headings[number] if headings else "", no_wrap=not last, overflow="fold" if last else "ignore"
        )
    for row in rows:
        table.add_row(*row)
    show(table)


def show(renderable: RenderableType) -> None:
    """Print what rich can render, without blanks at the end of its lines."""
    target = console()
    with target.capture() as captured:
        target.print(renderable)
    for line in captured.get().splitlines():
        print(line.rstrip())
