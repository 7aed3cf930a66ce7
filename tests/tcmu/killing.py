"""Ending a server at a given line of its code."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import vscsihba.tcmu

STEPPED = frozenset(str(path) for path in Path(vscsihba.tcmu.__path__[0]).glob("[!k]*.py"))
"""Files whose lines count: all of `vscsihba.tcmu` but the kernel's half."""


class Killed(BaseException):
    """Ends a server in this process: no code of the server catches it."""


def raise_killed() -> NoReturn:
    """End a server that lives in this process."""
    raise Killed


def run_lines(
    call: Callable[[], object],
    lines: int | None,
    die: Callable[[], NoReturn] = raise_killed,
    *,
    stepped: frozenset[str] = STEPPED,
) -> None:
    """Call `call`; after so many lines call `die` (None: never)."""
    left = -1 if lines is None else lines

    def on_line(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal left
        if event == "line":
            if not left:
                die()
            left -= 1
        return on_line

    def on_call(frame: FrameType, _event: str, _arg: Any) -> Any:
        return on_line if frame.f_code.co_filename in stepped else None

    before = sys.gettrace()
    if lines is not None:
        sys.settrace(on_call)
    try:
        call()
    finally:
        sys.settrace(before)
