"""Findings of the checks: a state, a text and a remedy. Knows no particular check."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from vscsihba.errors import VscsihbaError

State = Literal["ok", "note", "warning", "problem"]
"""Fine; worth knowing; a feature will not work; disks will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the output.

    Attributes:
        title: Subject of the check.
        state: Result of the check.
        text: Details.
        cure: Remedy, None if none is needed.
    """

    title: str
    state: State
    text: str
    cure: str | None = None


def finding_of(title: str, check: Callable[[], str]) -> Finding:
    """Run a check; return its text, or the problem that it raises."""
    try:
        return Finding(title, "ok", check())
    except VscsihbaError as error:
        return Finding(title, "problem", error.message, error.cure)


def collect(checks: Iterable[Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """Yield the findings of all checks, in order; one without permission is reported and stops no other."""
    for check in checks:
        try:
            yield from check()
        except PermissionError as error:
            yield Finding(str(error.filename or "system"), "warning", "permission denied", "run it with sudo")
