"""Changes as lines for people: a sign and a text each, coloured on a terminal, and a count."""

import sys
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from vscsihba.cli.output import show
from vscsihba.daemon.calls import Change, Changes

_STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "!": "bold magenta"}

_COUNTED: Final = {"+": "to add", "~": "to change", "!": "to replace", "-": "to remove"}


def print_changes(changes: Changes) -> None:
    """Print changes and their count."""
    for change in changes["changes"]:
        show(line_of(change))
    if not changes["changes"]:
        print("no changes")
        return
    signs = [change["sign"] for change in changes["changes"]]
    counts = [f"{signs.count(sign)} {what}" for sign, what in _COUNTED.items() if sign in signs]
    print(f"\n{', '.join(counts)}")


def line_of(change: Change) -> Text:
    """Return one change as a line."""
    text = Text(f"{change['sign']} {change['text']}", style=_STYLES.get(change["sign"], ""))
    if change["disturbs"]:
        text.append("  (interrupts the disk)", style="default")
    return text


def print_warnings(program: str, warnings: Sequence[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        print(f"{program}: warning: {warning}", file=sys.stderr)
