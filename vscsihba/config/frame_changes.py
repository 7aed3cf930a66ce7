"""Changes around the LUNs: backstores, HBAs and the number of engines. Disks do not notice them."""

from dataclasses import dataclass, replace
from typing import Self

import msgspec

from vscsihba.config.change import Change, hba_of, with_hba, with_stack
from vscsihba.config.model import Document, Hba, StackDocument
from vscsihba.units import exact_size


@dataclass(frozen=True, slots=True)
class AddBackstore(Change):
    """A backstore is added."""

    sign = "+"
    backstore: str
    stack: StackDocument

    @property
    def text(self) -> str:
        """The name and the layers."""
        return f"add backstore {self.backstore}: {layers(self.stack)}"

    def carry_out(self, document: Document) -> Document:
        """Add it."""
        return with_stack(document, self.backstore, self.stack)

    def inverse(self) -> "RemoveBackstore":
        """Remove it."""
        return RemoveBackstore(self.backstore, self.stack)


@dataclass(frozen=True, slots=True)
class RemoveBackstore(Change):
    """A backstore without a LUN is removed; its storage is kept."""

    sign = "-"
    backstore: str
    stack: StackDocument

    @property
    def text(self) -> str:
        """The name and the layers."""
        return f"remove backstore {self.backstore}: {layers(self.stack)}"

    def carry_out(self, document: Document) -> Document:
        """Remove it."""
        return with_stack(document, self.backstore, None)

    def inverse(self) -> AddBackstore:
        """Add it again."""
        return AddBackstore(self.backstore, self.stack)


@dataclass(frozen=True, slots=True)
class ChangeBackstore(Change):
    """The stack of a backstore changes: no LUN shows the backstore, or its disk does not notice."""

    sign = "~"
    backstore: str
    old: StackDocument
    new: StackDocument

    @property
    def text(self) -> str:
        """The name and the layers."""
        return f"change backstore {self.backstore}: {layers(self.new)}"

    def carry_out(self, document: Document) -> Document:
        """Set the new stack."""
        return with_stack(document, self.backstore, self.new)

    def inverse(self) -> Self:
        """Set the old stack."""
        return replace(self, old=self.new, new=self.old)


@dataclass(frozen=True, slots=True)
class AddHba(Change):
    """An HBA without LUNs is added."""

    sign = "+"
    hba: int
    engines: int

    @property
    def text(self) -> str:
        """The id and the engines."""
        return f"add HBA {self.hba}" + (f", served by {self.engines} engines" if self.engines > 1 else "")

    def carry_out(self, document: Document) -> Document:
        """Add it."""
        return with_hba(document, self.hba, Hba(self.hba, engines=self.engines))

    def inverse(self) -> "RemoveHba":
        """Remove it."""
        return RemoveHba(self.hba, self.engines)


@dataclass(frozen=True, slots=True)
class RemoveHba(Change):
    """An HBA without LUNs is removed."""

    sign = "-"
    hba: int
    engines: int

    @property
    def text(self) -> str:
        """The id."""
        return f"remove HBA {self.hba}"

    def carry_out(self, document: Document) -> Document:
        """Remove it."""
        return with_hba(document, self.hba, None)

    def inverse(self) -> AddHba:
        """Add it again."""
        return AddHba(self.hba, self.engines)


@dataclass(frozen=True, slots=True)
class SetEngines(Change):
    """The number of processes that share the LUNs of an HBA changes; LUNs are handed over during I/O."""

    sign = "~"
    hba: int
    old: int
    new: int

    @property
    def text(self) -> str:
        """Both numbers."""
        return f"change HBA {self.hba}: engines {self.old} -> {self.new}"

    def carry_out(self, document: Document) -> Document:
        """Set the new number."""
        hba = hba_of(document, self.hba)
        return with_hba(document, self.hba, msgspec.structs.replace(hba, engines=self.new))

    def inverse(self) -> Self:
        """Set the old number."""
        return replace(self, old=self.new, new=self.old)


def layers(stack: StackDocument) -> str:
    """Return the handlers of a stack from the top down, with the source's place: ``encrypt, file /srv/a``."""
    name = str(stack["handler"])
    if isinstance(below := stack.get("next"), dict):
        return f"{name}, {layers(below)}"
    if isinstance(legs := stack.get("legs"), list):
        return f"{name} of {len(legs)}"
    values = [stack[key] for key in ("path", "uri", "pool", "image", "size") if key in stack]
    # A number is a size in bytes, after a layer was resized.
    return " ".join([name, *(str(exact_size(each) if isinstance(each, int) else each) for each in values)])
