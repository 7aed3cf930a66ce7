"""Changes as a person reads them: a sign and a line each, in colours on a terminal, and a count."""

import sys
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from vscsihba.cli.output import show
from vscsihba.daemon.calls import Change, Changes

_STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "!": "bold magenta"}

_COUNTED: Final = {"+": "to add", "~": "to change", "!": "to replace", "-": "to remove"}


def print_changes(found: Changes) -> None:
    """Print what would change, and how much that is."""
    for change in found["changes"]:
        show(line_of(change))
    if not found["changes"]:
        print("no changes: what runs is what is wanted")
        return
    signs = [change["sign"] for change in found["changes"]]
    counts = [f"{signs.count(sign)} {what}" for sign, what in _COUNTED.items() if sign in signs]
    print(f"\n{', '.join(counts)}")


def line_of(change: Change) -> Text:
    """Return one change as a line."""
    text = Text(f"{change['sign']} {change['text']}", style=_STYLES.get(change["sign"], ""))
    if change["disturbs"]:
        text.append("  (users of the disk notice)", style="default")
    return text


def print_warnings(program: str, warnings: Sequence[str]) -> None:
    """Print what is allowed but hardly meant on standard error."""
    for warning in warnings:
        print(f"{program}: warning: {warning}", file=sys.stderr)
