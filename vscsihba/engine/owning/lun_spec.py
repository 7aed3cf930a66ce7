"""What is wanted of one LUN, and the note of it that later engines compare themselves with."""

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
"""Keys that make a medium rather than name it: the next engine finds it made."""


@dataclass(frozen=True, slots=True)
class LunSpec:
    """A logical unit, as wanted.

    Attributes:
        lun: Its number on the HBA.
        document: Its handler stack; paths in it are absolute, as engines have different folders.
        removable: Its medium can be ejected.
        appearance: How it presents itself, all its life.
        tuning: How Linux treats it.
    """

    lun: int
    document: Document
    removable: bool = False
    appearance: Appearance = Appearance()  # noqa: RUF009 - frozen
    tuning: Tuning = Tuning()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, lun: Lun, stack: StackDocument) -> Self:
        """Return what a document asks for.

        Args:
            lun: As in the document.
            stack: Of its backstore.
        """
        said = msgspec.structs.asdict(lun)
        appearance = Appearance(**{field.name: said[field.name] for field in fields(Appearance)})
        tuning = Tuning(**{field.name: said[field.name] for field in fields(Tuning)})
        return cls(lun.lun, stack, lun.removable, appearance, tuning)

    def build(self, *, make: bool = False) -> Stack:
        """Return the handler stack, not open.

        Args:
            make: Opening it may make media that are missing: right while the LUN is added, and only then.

        Raises:
            UsageError, HostError: As `vscsihba.handlers.stack.build`.
        """
        return build(self.document, place=f"LUN {self.lun}", make=make)

    def note(self, run: Path) -> None:
        """Leave a note in the run directory of what this LUN is; never half of one."""
        replace_file(self._path(run), self._text().encode())

    def resized(self, size: int) -> "LunSpec":
        """Return the request with a wanted size, in bytes, where its lowest layer says one."""
        return replace(self, document=_resized(self.document, size))

    def is_like(self, other: "LunSpec") -> bool:
        """Tell whether this is the same disk, however large and however Linux treats it."""
        return _noted(self._text()) == _noted(other._text())  # noqa: SLF001

    def as_noted(self, run: Path) -> "LunSpec":
        """Return the request with the stack that the last owner has noted: it may have changed since."""
        try:
            noted = json.loads(self._path(run).read_text())
        except FileNotFoundError:
            return self
        return self if noted["document"] == _lasting(self.document) else replace(self, document=noted["now"])

    def agrees(self, run: Path) -> bool:
        """Tell whether the LUN that is there is the one that is wanted here; True if there is no note."""
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
        if self.appearance != Appearance():  # else as noted by versions that knew no other
            noted["appearance"] = asdict(self.appearance)
        return json.dumps(noted, sort_keys=True)


class AnotherDiskError(UsageError):
    """A LUN that is there is not what this engine was told."""

    def __init__(self, hba_id: int, lun: int) -> None:
        super().__init__(
            f"LUN {lun} of HBA {hba_id} already exists with different backing storage",
            cure="name the same files in the same order with the same options, or choose another id",
        )


def _noted(text: str) -> dict[str, object]:
    """Return what a note says of the disk, be its stack changed since or not."""
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
    """Return what a document says of a disk for all its life, the same however that is written."""
    try:
        build(document)
        document = canonical(document, Registry())
    except VscsihbaError:  # whoever opens it tells why
        pass
    return _without_once(document)


def _without_once(document: object) -> object:
    """Leave out of a document, or a part of one, what is said only once."""
    if isinstance(document, list):
        return [_without_once(inner) for inner in document]
    if isinstance(document, Mapping):
        return {key: _without_once(value) for key, value in document.items() if key not in _ONCE}
    return document
