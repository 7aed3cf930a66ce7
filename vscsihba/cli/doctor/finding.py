"""What a look at the machine finds: fine, or what to do about it. Knows no particular check."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from vscsihba.errors import VscsihbaError

State = Literal["ok", "note", "warning", "problem"]
"""As it should be; worth knowing; something will not work; nothing will."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check-up.

    Attributes:
        title: What was looked at.
        state: How it stands.
        text: What was found.
        cure: What to do, None where nothing has to be done.
    """

    title: str
    state: State
    text: str
    cure: str | None = None


def finding_of(title: str, check: Callable[[], str]) -> Finding:
    """Return what a check says: its text, or the problem that it raises."""
    try:
        return Finding(title, "ok", check())
    except VscsihbaError as error:
        return Finding(title, "problem", error.message, error.cure)


def collect(checks: Iterable[Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """Yield the findings of all checks, in order; one that may not look says so and stops no other."""
    for check in checks:
        try:
            yield from check()
        except PermissionError as error:
            yield Finding(
                str(error.filename or "system"), "warning", "cannot be looked at", "run it with sudo"
            )
