"""The specification of a LUN, and its note in the run directory, which later engines compare with theirs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

import msgspec

from vscsihba.config.model import Lun, StackDocument
from vscsihba.config.sizes import ONCE
from vscsihba.config.stacks import canonical
from vscsihba.engine.owning.appearance import Appearance, Tuning
from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.shared.durable import replace_file
from vscsihba.handlers.stack import Document, Stack, build

_ONCE = (*ONCE, "size")
"""Options that only matter when storage is created: later engines ignore them."""


@dataclass(frozen=True, slots=True)
class LunSpec:
    """A wanted logical unit.

    Attributes:
        lun: Its number on the HBA.
        document: Its handler stack; paths are absolute, since engines have different current folders.
        removable: Its medium can be ejected.
        appearance: How it presents itself.
        tuning: How Linux treats it.
        local: It is a disk of this computer; else only exports show it.
    """

    lun: int
    document: Document
    removable: bool = False
    appearance: Appearance = Appearance()  # noqa: RUF009 - frozen
    tuning: Tuning = Tuning()  # noqa: RUF009 - frozen
    local: bool = True

    @classmethod
    def of(cls, lun: Lun, stack: StackDocument) -> Self:
        """Return the specification of a LUN in a configuration document.

        Args:
            lun: The LUN in the document.
            stack: Stack of its backstore.
        """
        options = msgspec.structs.asdict(lun)
        appearance = Appearance(**{field.name: options[field.name] for field in fields(Appearance)})
        tuning = Tuning(**{field.name: options[field.name] for field in fields(Tuning)})
        return cls(lun.lun, stack, lun.removable, appearance, tuning, lun.local)

    def build(self, *, make: bool = False) -> Stack:
        """Return the handler stack, closed.

        Args:
            make: Opening it may create storage that is missing; only for a LUN that is being added.

        Raises:
            UsageError, HostError: As `vscsihba.handlers.stack.build`.
        """
        return build(self.document, place=f"LUN {self.lun}", make=make)

    def note(self, run: Path) -> None:
        """Write the note of this LUN into the run directory, atomically."""
        replace_file(self._path(run), self._text().encode())

    def resized(self, size: int) -> "LunSpec":
        """Return the specification with another size in bytes, if its lowest layer has one."""
        return replace(self, document=_resized(self.document, size))

    def is_like(self, other: "LunSpec") -> bool:
        """Return whether `other` is the same disk; size and tuning do not matter."""
        return _noted(self._text()) == _noted(other._text())  # noqa: SLF001

    def as_noted(self, run: Path) -> "LunSpec":
        """Return the specification with the stack in the note: an action may have changed it."""
        try:
            noted = json.loads(self._path(run).read_text())
        except FileNotFoundError:
            return self
        return self if noted["document"] == _lasting(self.document) else replace(self, document=noted["now"])

    def agrees(self, run: Path) -> bool:
        """Return whether the LUN in the note is the same disk; True if there is no note."""
        try:
            return _noted(self._path(run).read_text()) == _noted(self._text())
        except FileNotFoundError:
            return True

    def forget(self, run: Path) -> None:
        """Remove the note."""
        self._path(run).unlink(missing_ok=True)

    def _path(self, run: Path) -> Path:
        return run / f"lun{self.lun}.json"

    def _text(self) -> str:
        noted = {"document": _lasting(self.document), "now": self.document, "removable": self.removable}
        if self.appearance != Appearance():  # otherwise the note is the same as of older versions
            noted["appearance"] = asdict(self.appearance)
        if not self.local:
            noted["local"] = False
        return json.dumps(noted, sort_keys=True)


class AnotherDiskError(UsageError):
    """An existing LUN is another disk than the specified one."""

    def __init__(self, hba_id: int, lun: int) -> None:
        super().__init__(
            f"LUN {lun} of HBA {hba_id} already exists with different backing storage",
            cure="name the same files in the same order with the same options, or choose another id",
        )


def _noted(text: str) -> dict[str, object]:
    """Return the parts of a note that identify the disk; its current stack does not."""
    noted: dict[str, object] = json.loads(text)
    return {key: value for key, value in noted.items() if key != "now"}


def _resized(document: Document, size: int) -> Document:
    if isinstance(document, str):
        return document
    changed = dict(document)
    if isinstance(below := document.get("next"), str | Mapping):
        changed["next"] = _resized(below, size)
    elif "size" in document:
        changed["size"] = size
    return changed


def _lasting(document: Document) -> object:
    """Return the canonical form of a document, without options for creation."""
    try:
        build(document)
        document = canonical(document, Registry())
    except VscsihbaError:  # opening the stack reports the error
        pass
    return _without_once(document)


def _without_once(document: object) -> object:
    """Return a document, or a part of one, without options for creation."""
    if isinstance(document, list):
        return [_without_once(inner) for inner in document]
    if isinstance(document, Mapping):
        return {key: _without_once(value) for key, value in document.items() if key not in _ONCE}
    return document
