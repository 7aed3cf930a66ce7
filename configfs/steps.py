"""Steps: the single changes that plans are made of, and what undoes each.

Values only. Who carries them out is `performer`'s business.
"""

from dataclasses import dataclass

from vscsihba.configfs.model import BackstoreSpec
from vscsihba.units import format_size


@dataclass(frozen=True, slots=True)
class CreateBackstore:
    """Make a backstore; nobody serves it yet."""

    spec: BackstoreSpec

    def __str__(self) -> str:
        return f"create backstore {self.spec.name} of {format_size(self.spec.size)}"

    def inverse(self) -> "Step":
        """Return the step that undoes this one."""
        return DeleteBackstore(self.spec.name, self.spec)


@dataclass(frozen=True, slots=True)
class Serve:
    """Open the ring of a backstore and begin to answer: the caller's part.

    Attributes:
        name: Of the backstore.
        adopted: It was there, unserved: going on with it is not undone, for its disk may be in use.
    """

    name: str
    adopted: bool = False

    def __str__(self) -> str:
        return f"serve {self.name}"

    def inverse(self) -> "Step | None":
        """Return the step that undoes this one, None if nothing shall."""
        return None if self.adopted else Release(self.name)


@dataclass(frozen=True, slots=True)
class Resize:
    """Tell the kernel of a new capacity: bytes before and after."""

    name: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"resize {self.name} from {format_size(self.old)} to {format_size(self.new)}"

    def inverse(self) -> "Step":
        """Return the step that undoes this one."""
        return Resize(self.name, self.new, self.old)


@dataclass(frozen=True, slots=True)
class SetAttribute:
    """Set an attribute of a backstore: value before and after."""

    name: str
    attribute: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"set {self.attribute} of {self.name} from {self.old} to {self.new}"

    def inverse(self) -> "Step":
        """Return the step that undoes this one."""
        return SetAttribute(self.name, self.attribute, self.new, self.old)


@dataclass(frozen=True, slots=True)
class CreateHba:
    """Make an HBA.

    Attributes:
        hba_id: 0..255.
        half_made: Complete a half-made one, which is not undone.
    """

    hba_id: int
    half_made: bool = False

    def __str__(self) -> str:
        return f"{'complete' if self.half_made else 'create'} HBA {self.hba_id}"

    def inverse(self) -> "Step | None":
        """Return the step that undoes this one, None if nothing shall."""
        return None if self.half_made else DeleteHba(self.hba_id)


@dataclass(frozen=True, slots=True)
class LinkLun:
    """Put a served backstore behind a new LUN."""

    hba_id: int
    lun: int
    backstore: str

    def __str__(self) -> str:
        return f"link LUN {self.lun} of HBA {self.hba_id} to {self.backstore}"

    def inverse(self) -> "Step":
        """Return the step that undoes this one."""
        return UnlinkLun(self.hba_id, self.lun, self.backstore)


@dataclass(frozen=True, slots=True)
class UnlinkLun:
    """Remove a LUN.

    Attributes:
        hba_id: Of the HBA.
        lun: Its number.
        backstore: What is behind it; None if it is half-made.
        served: Its ring is served.
        revive: Bring it back when the plan fails; not one that is half-made, or a dead process's.
    """

    hba_id: int
    lun: int
    backstore: str | None
    served: bool = True
    revive: bool = True

    def __str__(self) -> str:
        return f"unlink LUN {self.lun} of HBA {self.hba_id}"

    def inverse(self) -> "Step | None":
        """Return the step that undoes this one, None if nothing shall."""
        if self.backstore is None or not self.revive:
            return None
        return LinkLun(self.hba_id, self.lun, self.backstore)


@dataclass(frozen=True, slots=True)
class DeleteHba:
    """Remove an HBA that has no LUN any more.

    Attributes:
        hba_id: Of the HBA.
        revive: Bring it back when the plan fails; not one that is half-made, or a dead process's.
    """

    hba_id: int
    revive: bool = True

    def __str__(self) -> str:
        return f"delete HBA {self.hba_id}"

    def inverse(self) -> "Step | None":
        """Return the step that undoes this one, None if nothing shall."""
        return CreateHba(self.hba_id) if self.revive else None


@dataclass(frozen=True, slots=True)
class Release:
    """Finish what is under way in a ring, stop answering and close it: the caller's part."""

    name: str

    def __str__(self) -> str:
        return f"release {self.name}"

    def inverse(self) -> "Step":
        """Return the step that undoes this one."""
        return Serve(self.name)


@dataclass(frozen=True, slots=True)
class DeleteBackstore:
    """Remove a backstore; one that nobody served (`spec` None) is not brought back."""

    name: str
    spec: BackstoreSpec | None

    def __str__(self) -> str:
        return f"delete backstore {self.name}"

    def inverse(self) -> "Step | None":
        """Return the step that undoes this one, None if nothing shall."""
        return CreateBackstore(self.spec) if self.spec is not None else None


Step = (
    CreateBackstore
    | Serve
    | Resize
    | SetAttribute
    | CreateHba
    | LinkLun
    | UnlinkLun
    | DeleteHba
    | Release
    | DeleteBackstore
)
"""One change; ``str(step)`` says it in words."""
