"""A change: one small step between two documents, as a value.

It knows both sides, so it can be taken back; it says itself in a line, and can be carried out on a
document. What the machine does for it, and in which order changes come, is not known here.
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
        sign: How a list of changes marks it: ``+``, ``-``, ``~``, or ``!`` for what is taken away and
            comes back as another.
        disturbs: Whoever uses the disk notices: it goes away, for ever or for a moment.
    """

    __slots__ = ()
    sign: ClassVar[str]
    disturbs: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What it is in JSON: ``add_lun``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def replaces(self) -> bool:
        """It changes what cannot be changed while the disk works."""
        return False

    @property
    @abstractmethod
    def text(self) -> str:
        """What it does, in one line for a person."""

    @abstractmethod
    def carry_out(self, document: Document) -> Document:
        """Return the document after it."""

    @abstractmethod
    def inverse(self) -> "Change":
        """Return the change that takes it back."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON: ``kind``, ``text``, ``sign``, ``disturbs``, ``replaces``, and its fields."""
        about = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        said = {"text": self.text, "sign": self.sign, "disturbs": self.disturbs, "replaces": self.replaces}
        about_json: dict[str, object] = msgspec.json.decode(msgspec.json.encode(about))
        return {"kind": self.kind, **said, **about_json}


def with_stack(document: Document, name: str, stack: StackDocument | None) -> Document:
    """Return the document with a backstore that is `stack`, or without it."""
    rest = {key: value for key, value in document.backstores.items() if key != name}
    found = rest if stack is None else {**rest, name: stack}
    return msgspec.structs.replace(document, backstores={key: found[key] for key in sorted(found)})


def with_hba(document: Document, hba_id: int, hba: Hba | None) -> Document:
    """Return the document with `hba` in the place of that id, or without it."""
    rest = [each for each in document.hbas if each.id != hba_id]
    found = rest if hba is None else [*rest, hba]
    return msgspec.structs.replace(document, hbas=tuple(sorted(found, key=lambda each: each.id)))


def with_lun(document: Document, hba_id: int, number: int, lun: Lun | None) -> Document:
    """Return the document with `lun` in the place of that number, or without it."""
    hba = hba_of(document, hba_id)
    rest = [each for each in hba.luns if each.lun != number]
    found = rest if lun is None else [*rest, lun]
    luns = tuple(sorted(found, key=lambda each: each.lun))
    return with_hba(document, hba_id, msgspec.structs.replace(hba, luns=luns))


def hba_of(document: Document, hba_id: int) -> Hba:
    """Return an HBA that a change takes for granted."""
    hba = document.hba(hba_id)
    assert hba is not None, f"no HBA {hba_id}"  # noqa: S101  # changes come in the right order
    return hba
