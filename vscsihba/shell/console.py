"""The console of configshell: a terminal with colours if it is one, and no log.

Stands in for configshell's own console and log, which write colours and stack traces by
themselves, share their state between all instances, and look up their caller for every line.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

_ESCAPE: Final = "\033["
_STYLES: Final = {"bold": 1, "underline": 4}
_WIDEST: Final = 110
"""Largest width of a tree, in columns."""


class Console:
    """Writes text; the names of the methods, and of the colours, are configshell's."""

    colors = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")

    @property
    def coloured(self) -> bool:
        """Whether standard output shows colours; NO_COLOR prevents it (no-color.org)."""
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def display(self, text: str, *, no_lf: bool = False, error: bool = False) -> None:
        """Print text, and the end of a line unless `no_lf`."""
        self.raw_write(text + "\n" * (not no_lf), sys.stderr if error else sys.stdout)

    def raw_write(self, text: str, output: TextIO | None = None) -> None:
        """Print text as it is."""
        stream = output or sys.stdout
        stream.write(text)
        stream.flush()

    def get_width(self) -> int:
        """Return the width of the terminal in columns."""
        return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)

    def render_text(
        self,
        text: str,
        fgcolor: str | None = None,
        bgcolor: str | None = None,
        styles: Sequence[str] | None = None,
    ) -> str:
        """Return text in a colour and in styles, where they are shown."""
        codes = [str(_STYLES[style]) for style in styles or ()]
        if fgcolor is not None:
            codes.append(str(30 + self.colors.index(fgcolor)))
        if bgcolor is not None:
            codes.append(str(40 + self.colors.index(bgcolor)))
        if not codes or not self.coloured:
            return text
        return f"{_ESCAPE}{';'.join(codes)}m{text}{_ESCAPE}0m"


class Silence:
    """A log that drops everything: errors are raised, and printed once."""

    def __getattr__(self, level: str) -> Any:
        """Return a level's method, which does nothing."""
        return lambda *_message, **_details: None
