"""Whom an engine tells of what happens: commands, failures, and words for a person."""

from collections.abc import Callable
from dataclasses import dataclass

from vscsihba.trace import TraceSink


def _ignore(_text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listeners of an engine; they are called on its threads and must not block.

    Attributes:
        trace: Told of every finished command; None if nobody looks, which is quicker.
        failed: Told, in a line of text, of a ring that can no longer be served.
        notice: Told, in a line of text, what a person should know.
    """

    trace: TraceSink | None = None
    failed: Callable[[str], None] = _ignore
    notice: Callable[[str], None] = _ignore
