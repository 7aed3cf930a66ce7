"""Tables, text and JSON as commands print them. Only a terminal gets colours, and lines of its width."""

import io
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

Cell = Text | str

_WIDE = 4096
"""Columns where nobody looks: lines in a file or a pipe are never broken."""

_GAP = 2
"""Blanks between two columns."""

_NARROW = 30
"""Columns that are too few for the last cell of a row: it then begins on a line of its own."""

_INDENT = 4

_NO_BREAK = "\N{NO-BREAK SPACE}"


def console(stream: io.TextIOBase | None = None) -> Console:
    """Return a console on standard output, or on `stream`, that takes text as it is."""
    file = stream or sys.stdout
    width = None if file.isatty() else _WIDE
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)  # type: ignore[arg-type]


def terminal_width() -> int | None:
    """Return the columns of standard output, None if it is no terminal."""
    return console().width if sys.stdout.isatty() else None


def print_json(value: object) -> None:
    """Print a JSON document."""
    print(json.dumps(value, indent=2))


def print_table(rows: Iterable[Sequence[Cell]], headings: Sequence[str] = ()) -> None:
    """Print a table without frames, each column as wide as it must be.

    Args:
        rows: Cells of each row; a row may be shorter than the others.
        headings: Headings of the columns.
    """
    for line in table_lines(list(rows), headings, terminal_width()):
        show(line)


def table_lines(rows: Sequence[Sequence[Cell]], headings: Sequence[str], width: int | None) -> Iterator[Text]:
    """Yield the lines of a table. The last cell of a row is wrapped between words, the others never.

    Args:
        rows: Cells of each row; a row may be shorter than the others.
        headings: Headings of the columns; empty for a table without.
        width: Columns of the terminal; None to wrap nothing.
    """
    cells = [[Text(cell, style="bold") for cell in headings]] if headings else []
    cells += [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    columns = max(map(len, cells), default=0)
    widths = [max((row[at].cell_len for row in cells if at < len(row)), default=0) for at in range(columns)]
    for row in cells:
        line = Text()
        for cell, wide in zip(row[: columns - 1], widths, strict=False):
            line.append_text(cell)
            line.append(" " * (wide + _GAP - cell.cell_len))
        if len(row) < columns:
            line.rstrip()
            yield line
        else:
            yield from _with_last(line, row[-1], width)


def _with_last(front: Text, last: Text, width: int | None) -> Iterator[Text]:
    """Yield a row whose last cell is wrapped below its own beginning, or begins on the next line."""
    begin = front.cell_len
    if width is not None and begin + last.cell_len > width and width - begin < _NARROW:
        front.rstrip()
        yield front
        front, begin = Text(" " * _INDENT), _INDENT
    for line in wrapped(last, None if width is None else width - begin):
        shown = front.copy().append_text(line)
        shown.rstrip()
        yield shown
        front = Text(" " * begin)


def wrapped(text: Text, width: int | None) -> Iterator[Text]:
    """Yield a text in lines of at most `width` columns.

    A longer word, such as a path, stays whole, and so does a command in quotes.
    """
    if width is None or text.cell_len <= width:
        yield text
        return
    quoted = re.sub('"[^"]*"', lambda match: match[0].replace(" ", _NO_BREAK), text.plain)
    at = 0
    for line in textwrap.wrap(
        quoted,
        max(width, 1),
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    ):
        at = quoted.index(line, at)
        yield text[at : at + len(line)]
        at += len(line)


def show(text: Text) -> None:
    """Print a text, without blanks at the end of its lines; a long line is left to the terminal to wrap."""
    target = console()
    with target.capture() as captured:
        target.print(text, soft_wrap=True)
    for line in captured.get().splitlines():
        print(line.rstrip())
