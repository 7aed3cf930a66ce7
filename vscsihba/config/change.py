"""A change: one step between two documents, as a value.

It has both sides, so it can be undone; it has a line of text, and can be carried out on a document. It knows
neither the calls that change the machine nor the order of changes.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

import msgspec

from vscsihba.config.model import Document, Hba, Lun, StackDocument


class Change(ABC):
    """One step from a document to another; its kinds are frozen dataclasses.

    Attributes:
        sign: Its mark in a list of changes: ``+``, ``-``, ``~``, or ``!`` for a disk that is replaced.
        disturbs: Whether users of the disk notice: it disappears, for ever or for a moment.
    """

    __slots__ = ()
    sign: ClassVar[str]
    disturbs: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """Its kind in JSON, such as ``add_lun``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def replaces(self) -> bool:
        """Whether it is impossible while the disk works, so that the disk is replaced."""
        return False

    @property
    @abstractmethod
    def text(self) -> str:
        """A description in one line."""

    @abstractmethod
    def carry_out(self, document: Document) -> Document:
        """Return the document after the change."""

    @abstractmethod
    def inverse(self) -> "Change":
        """Return the change that undoes this one."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON: ``kind``, ``text``, ``sign``, ``disturbs``, ``replaces``, and its fields."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        common = {"text": self.text, "sign": self.sign, "disturbs": self.disturbs, "replaces": self.replaces}
        own: dict[str, object] = msgspec.json.decode(msgspec.json.encode(values))
        return {"kind": self.kind, **common, **own}


def as_written(value: object) -> str:
    """Return a value of a document as text: ``default`` for None, ``true`` and ``false``."""
    match value:
        case None:
            return "default"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def with_stack(document: Document, name: str, stack: StackDocument | None) -> Document:
    """Return the document with `stack` as the backstore of that name; without the backstore for None."""
    rest = {key: value for key, value in document.backstores.items() if key != name}
    stacks = rest if stack is None else {**rest, name: stack}
    return msgspec.structs.replace(document, backstores={key: stacks[key] for key in sorted(stacks)})


def with_hba(document: Document, hba_id: int, hba: Hba | None) -> Document:
    """Return the document with `hba` as the HBA of that id; without the HBA for None."""
    rest = [each for each in document.hbas if each.id != hba_id]
    hbas = rest if hba is None else [*rest, hba]
    return msgspec.structs.replace(document, hbas=tuple(sorted(hbas, key=lambda each: each.id)))


def with_lun(document: Document, hba_id: int, number: int, lun: Lun | None) -> Document:
    """Return the document with `lun` as the LUN of that number; without the LUN for None."""
    hba = hba_of(document, hba_id)
    rest = [each for each in hba.luns if each.lun != number]
    kept = rest if lun is None else [*rest, lun]
    luns = tuple(sorted(kept, key=lambda each: each.lun))
    return with_hba(document, hba_id, msgspec.structs.replace(hba, luns=luns))


def hba_of(document: Document, hba_id: int) -> Hba:
    """Return an HBA that must exist for a change."""
    hba = document.hba(hba_id)
    assert hba is not None, f"no HBA {hba_id}"  # noqa: S101  # changes come in the right order
    return hba
