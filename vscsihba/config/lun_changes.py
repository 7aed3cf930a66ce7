"""Changes of LUNs: disks are added, removed, enlarged, tuned, or replaced."""

from dataclasses import dataclass, replace
from typing import Self

import msgspec

from vscsihba.config.change import Change, as_written, with_lun, with_stack
from vscsihba.config.frame_changes import ChangeBackstore, layers
from vscsihba.config.model import Document, Lun, StackDocument
from vscsihba.units import exact_size


@dataclass(frozen=True, slots=True)
class AddLun(Change):
    """A disk is added.

    Attributes:
        hba: Id of its HBA, which exists.
        lun: The LUN, whose backstore exists.
        again: Whether it was removed before, to be replaced.
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
    """A disk is removed.

    Attributes:
        hba: Id of its HBA.
        lun: The LUN.
        again: Whether it is added again as another disk.
    """

    sign = "-"
    disturbs = True
    hba: int
    lun: Lun
    again: bool = False

    @property
    def replaces(self) -> bool:
        """Whether it is added again."""
        return self.again

    @property
    def text(self) -> str:
        """Its number and the backstore."""
        why = ", to recreate it as another disk" if self.again else ""
        return f"remove {_lun(self.hba, self.lun)}: {self.lun.backstore}{why}"

    def carry_out(self, document: Document) -> Document:
        """Remove it."""
        return with_lun(document, self.hba, self.lun.lun, None)

    def inverse(self) -> AddLun:
        """Add it again."""
        return AddLun(self.hba, self.lun, again=self.again)


@dataclass(frozen=True, slots=True)
class TuneLun(Change):
    """A disk is tuned while it works: queue depth, timeouts, or the name of its backstore change.

    Attributes:
        hba: Id of its HBA.
        old: The LUN before.
        new: The LUN after; its stack is the same.
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
        """Set the new values."""
        return with_lun(document, self.hba, self.new.lun, self.new)

    def inverse(self) -> Self:
        """Set the old values."""
        return replace(self, old=self.new, new=self.old)


@dataclass(frozen=True, slots=True)
class Resize(Change):
    """A disk grows while it works; Linux reads its new capacity.

    Attributes:
        hba: Id of its HBA.
        lun: Its number.
        backstore: Its backstore.
        old: The stack before.
        new: The stack after.
        old_size: Size of the source in bytes; None if the document does not say it.
        new_size: New size of the source. The disk grows by the same number of bytes; its own size may
            differ, because of the filters above the source.
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
        """Set the new stack."""
        return with_stack(document, self.backstore, self.new)

    def inverse(self) -> Change:
        """Set the old size in the document only: no disk shrinks."""
        return ChangeBackstore(self.backstore, self.new, self.old)


@dataclass(frozen=True, slots=True)
class ReplaceLun(Change):
    """A disk is removed and added again as another one, because it cannot change while it works.

    Attributes:
        hba: Id of its HBA.
        old: The LUN before.
        new: The LUN after.
        backstore: The backstore after; its stack may change, too.
        old_stack: The stack before.
        new_stack: The stack after.
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
        """True: that is its purpose."""
        return True

    @property
    def text(self) -> str:
        """Its number, and the differences."""
        why = _differences(self.old, self.new)
        if self.old_stack != self.new_stack:
            why = ", ".join(filter(None, [why, f"{self.backstore} is now {layers(self.new_stack)}"]))
        return f"replace {_lun(self.hba, self.new)}: {why}"

    def carry_out(self, document: Document) -> Document:
        """Set the new values and the new stack."""
        changed = with_stack(document, self.backstore, self.new_stack)
        return with_lun(changed, self.hba, self.new.lun, self.new)

    def inverse(self) -> Self:
        """Set the old ones."""
        return replace(self, old=self.new, new=self.old, old_stack=self.new_stack, new_stack=self.old_stack)


def _lun(hba_id: int, lun: Lun) -> str:
    return f"LUN {lun.lun} of HBA {hba_id}"


def _differences(old: Lun, new: Lun) -> str:
    """Return each key that differs with both values: ``queue_depth 64 -> 32``."""
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    changed = [key for key in after if before[key] != after[key]]
    return ", ".join(f"{key} {as_written(before[key])} -> {as_written(after[key])}" for key in changed)
