"""The terminal of the caller: its size, and raw mode while a command in the sandbox uses it."""

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator


def is_interactive() -> bool:
    """Tell whether standard input and output are a terminal."""
    try:
        return os.isatty(0) and os.isatty(1)
    except OSError:
        return False


def size() -> tuple[int, int]:
    """Return the rows and columns of the terminal on standard output; 24 and 80 where it does not tell."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """Pass every key on unchanged; the terminal is put right at the end."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)
