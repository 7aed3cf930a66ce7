"""Backstores, HBAs and LUNs of vscsihba as they are in the kernel, some of them incomplete.

Frozen values, made by `observer`; they do not know how they are read or changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vscsihba.configfs.model import BackstoreSpec


@dataclass(frozen=True, slots=True)
class Backstore:
    """A backstore of vscsihba in the kernel.

    Attributes:
        spec: Its settings.
        index: N of its directory ``core/user_N``.
        enabled: Whether it works; False if its creation was cut short.
        uio: Device node of its ring, None while there is none.
    """

    spec: BackstoreSpec
    index: int
    enabled: bool
    uio: Path | None

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Lun:
    """A LUN of vscsihba in the kernel.

    Attributes:
        number: Number of the LUN.
        backstore: Name of its backstore; None if its creation was cut short.
        address: ``host:channel:target:lun`` as in ``/sys/bus/scsi/devices``, None without a SCSI device.
        disk: ``/dev/sdX``, None if it has none (yet).
        generic: ``/dev/sgN``, likewise.
        local: Linked to the HBA; else only exports show its backstore.
    """

    number: int
    backstore: str | None
    address: str | None = None
    disk: Path | None = None
    generic: Path | None = None
    local: bool = True

    @property
    def complete(self) -> bool:
        """Whether it works: it has a backstore, and Linux has a SCSI device for it if it is local."""
        return self.backstore is not None and (self.address is not None or not self.local)


@dataclass(frozen=True, slots=True)
class Hba:
    """An HBA of vscsihba in the kernel.

    Attributes:
        id: 0..255.
        luns: By number.
        host: N of ``/sys/class/scsi_host/hostN``, None where there is none.
        complete: Whether it works; False if its creation was cut short.
    """

    id: int
    luns: Mapping[int, Lun] = field(default_factory=dict)
    host: int | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """All objects of vscsihba in the kernel.

    Attributes:
        backstores: By name.
        hbas: By id.
        foreign: Ids whose WWN belongs to a target of another program.
    """

    backstores: Mapping[str, Backstore] = field(default_factory=dict)
    hbas: Mapping[int, Hba] = field(default_factory=dict)
    foreign: frozenset[int] = frozenset()
