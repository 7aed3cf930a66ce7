"""Changes of LUNs: disks that come, go, grow, are tuned, or are replaced by others under their number."""

from dataclasses import dataclass, replace
from typing import Self

import msgspec

from vscsihba.config.change import Change, with_lun, with_stack
from vscsihba.config.frame_changes import ChangeBackstore, layers
from vscsihba.config.model import Document, Lun, StackDocument
from vscsihba.units import exact_size


@dataclass(frozen=True, slots=True)
class AddLun(Change):
    """A disk appears.

    Attributes:
        hba: Id of its HBA, which is there.
        lun: What is wanted; its backstore is known.
        again: It was taken away before, to be replaced.
    """

    sign = "+"
    hba: int
    lun: Lun
    again: bool = False

    @property
    def text(self) -> str:
        """Its number and the backstore."""
        return f"add {_lun(self.hba, self.lun)}: {self.lun.backstore}"

    def carry_out(self, document: Document) -> Document:
        """Add it."""
        return with_lun(document, self.hba, self.lun.lun, self.lun)

    def inverse(self) -> "RemoveLun":
        """Remove it."""
        return RemoveLun(self.hba, self.lun, again=self.again)


@dataclass(frozen=True, slots=True)
class RemoveLun(Change):
    """A disk disappears.

    Attributes:
        hba: Id of its HBA.
        lun: What it was.
        again: It comes back as another one.
    """

    sign = "-"
    disturbs = True
    hba: int
    lun: Lun
    again: bool = False

    @property
    def replaces(self) -> bool:
        """It does if it comes back."""
        return self.again

    @property
    def text(self) -> str:
        """Its number and the backstore."""
        why = ", which comes back as another disk" if self.again else ""
        return f"remove {_lun(self.hba, self.lun)}: {self.lun.backstore}{why}"

    def carry_out(self, document: Document) -> Document:
        """Leave it out."""
        return with_lun(document, self.hba, self.lun.lun, None)

    def inverse(self) -> AddLun:
        """Add it again."""
        return AddLun(self.hba, self.lun, again=self.again)


@dataclass(frozen=True, slots=True)
class TuneLun(Change):
    """What can be changed while a disk works: its depth and timeouts, or the name of its backstore.

    Attributes:
        hba: Id of its HBA.
        old: What it was.
        new: What it is to be; the stack is the same.
    """

    sign = "~"
    hba: int
    old: Lun
    new: Lun

    @property
    def text(self) -> str:
        """Its number, and each key with both values."""
        return f"change {_lun(self.hba, self.new)}: {_differences(self.old, self.new)}"

    def carry_out(self, document: Document) -> Document:
        """Take the new values."""
        return with_lun(document, self.hba, self.new.lun, self.new)

    def inverse(self) -> Self:
        """Take the old values."""
        return replace(self, old=self.new, new=self.old)


@dataclass(frozen=True, slots=True)
class Resize(Change):
    """A disk grows while it works; Linux is told.

    Attributes:
        hba: Id of its HBA.
        lun: Its number.
        backstore: What it shows.
        old: The stack as it was.
        new: The stack as it is to be.
        old_size: Bytes of the source; None where the document leaves them to the medium.
        new_size: Likewise. What the disk gains is what the source gains; its own size may be another,
            as the filters above the source have it.
    """

    sign = "~"
    hba: int
    lun: int
    backstore: str
    old: StackDocument
    new: StackDocument
    old_size: int | None
    new_size: int

    @property
    def text(self) -> str:
        """The name, both sizes and the LUN."""
        before = "" if self.old_size is None else f" from {exact_size(self.old_size)}"
        where = f"LUN {self.lun} of HBA {self.hba}"
        return f"enlarge {self.backstore}{before} to {exact_size(self.new_size)}: {where}"

    def carry_out(self, document: Document) -> Document:
        """Take the new stack."""
        return with_stack(document, self.backstore, self.new)

    def inverse(self) -> Change:
        """Only say the old size again: no disk shrinks."""
        return ChangeBackstore(self.backstore, self.new, self.old)


@dataclass(frozen=True, slots=True)
class ReplaceLun(Change):
    """A disk goes, and another one comes in its place, because the difference cannot be made while it works.

    Attributes:
        hba: Id of its HBA.
        old: What it was.
        new: What it is to be.
        backstore: The backstore that it comes back with, and that may be described differently then.
        old_stack: What that was made of.
        new_stack: What that is made of.
    """

    sign = "!"
    disturbs = True
    hba: int
    old: Lun
    new: Lun
    backstore: str
    old_stack: StackDocument
    new_stack: StackDocument

    @property
    def replaces(self) -> bool:
        """It does."""
        return True

    @property
    def text(self) -> str:
        """Its number, and what differs."""
        why = _differences(self.old, self.new)
        if self.old_stack != self.new_stack:
            why = ", ".join(filter(None, [why, f"{self.backstore} is now {layers(self.new_stack)}"]))
        return f"replace {_lun(self.hba, self.new)}: {why}"

    def carry_out(self, document: Document) -> Document:
        """Take the new values and the new stack."""
        changed = with_stack(document, self.backstore, self.new_stack)
        return with_lun(changed, self.hba, self.new.lun, self.new)

    def inverse(self) -> Self:
        """Take the old ones."""
        return replace(self, old=self.new, new=self.old, old_stack=self.new_stack, new_stack=self.old_stack)


def _lun(hba_id: int, lun: Lun) -> str:
    return f"LUN {lun.lun} of HBA {hba_id}"


def _differences(old: Lun, new: Lun) -> str:
    """Return each key that differs with both values: ``queue_depth 64 -> 32``."""
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    return ", ".join(
        f"{key} {_shown(before[key])} -> {_shown(after[key])}" for key in after if before[key] != after[key]
    )


def _shown(value: object) -> str:
    match value:
        case None:
            return "default"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)
