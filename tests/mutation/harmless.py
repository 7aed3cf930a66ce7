"""Faults that no test can or should notice, each with the reason. A table, and nothing else."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Harmless:
    """A fault that changes nothing that matters.

    Attributes:
        path: Of the module, below the top of the tree.
        code: The line, without its indentation.
        what: The fault, as `mutants` calls it.
        why: The reason, a sentence.
    """

    path: str
    code: str
    what: str
    why: str


HARMLESS: Final[tuple[Harmless, ...]] = ()


def reason(path: str, code: str, what: str) -> str:
    """Return why a fault is harmless, empty if that is not known."""
    return next(
        (each.why for each in HARMLESS if (each.path, each.code, each.what) == (path, code, what)), ""
    )
