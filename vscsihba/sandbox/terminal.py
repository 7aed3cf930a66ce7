"""The caller's terminal: its size, raw mode for a command, a message while the kernel boots."""

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Self


def is_interactive() -> bool:
    """Return whether standard input and output are a terminal, and this process is its foreground job."""
    try:
        return os.isatty(0) and os.isatty(1) and not is_in_background()
    except OSError:
        return False


def is_in_background() -> bool:
    """Return whether this process is a background job (``&`` in a shell) of the terminal on standard input.

    Reading from it or changing its mode would stop this process (SIGTTIN and SIGTTOU of termios(3)).
    """
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # no terminal, or not the controlling one
        return False


def size() -> tuple[int, int]:
    """Return the rows and columns of the terminal on standard output; 24 and 80 if they are not known."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """Pass every key on unchanged; the old mode is restored at the end."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class Waiting:
    """A message on the terminal while the kernel boots, removed when the command starts."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._shown:
            self._show("starting the sandbox ...")
        return self

    def __exit__(self, *_error: object) -> None:
        self.over()

    def over(self) -> None:
        """Remove the message."""
        if self._shown:
            self._shown = False
            self._show("\r\033[K")

    def _show(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
