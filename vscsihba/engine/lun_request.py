"""What is wanted of one LUN, and the note of it that later engines compare themselves with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vscsihba.errors import UsageError
from vscsihba.handlers.stack import Document, Stack, build

_ONCE = ("create", "size")
"""Keys that make a medium rather than name it: the next engine finds it made."""


@dataclass(frozen=True, slots=True)
class LunRequest:
    """A logical unit, as wanted.

    Attributes:
        lun: Its number on the HBA.
        document: Its handler stack; paths in it are absolute, as engines have different folders.
        removable: Its medium can be ejected.
    """

    lun: int
    document: Document
    removable: bool = False

    def build(self) -> Stack:
        """Return the handler stack, not open.

        Raises:
            UsageError, HostError: As `vscsihba.handlers.stack.build`.
        """
        return build(self.document, place=f"LUN {self.lun}")

    def note(self, run: Path) -> None:
        """Leave a note in the run directory of what this LUN is."""
        draft = self._path(run).with_suffix(".draft")
        draft.write_text(self._text())
        draft.replace(self._path(run))  # never half a note, whenever its writer is killed

    def as_noted(self, run: Path) -> "LunRequest":
        """Return the request with the stack that the last owner has noted: it may have changed since."""
        try:
            noted = json.loads(self._path(run).read_text())
        except FileNotFoundError:
            return self
        return self if noted["document"] == _lasting(self.document) else replace(self, document=noted["now"])

    def agrees(self, run: Path) -> bool:
        """Tell whether the LUN that is there is the one that is wanted here; True if there is no note."""
        try:
            noted = json.loads(self._path(run).read_text())
        except FileNotFoundError:
            return True
        return {**noted, "now": None} == {**json.loads(self._text()), "now": None}

    def forget(self, run: Path) -> None:
        """Remove the note."""
        self._path(run).unlink(missing_ok=True)

    def _path(self, run: Path) -> Path:
        return run / f"lun{self.lun}.json"

    def _text(self) -> str:
        noted = {"document": _lasting(self.document), "now": self.document, "removable": self.removable}
        return json.dumps(noted, sort_keys=True)


class AnotherDiskError(UsageError):
    """A LUN that is there is not what this engine was told."""

    def __init__(self, hba_id: int, lun: int) -> None:
        super().__init__(
            f"LUN {lun} of id={hba_id} exists and is another disk",
            cure="name the same files in the same order with the same options, or choose another id",
        )


def _lasting(document: object) -> object:
    """Leave out of a document what is said only once."""
    if not isinstance(document, Mapping):
        return document
    return {key: _lasting(value) for key, value in document.items() if key not in _ONCE}
