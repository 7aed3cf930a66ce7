"""The finds: objects of ours as they are in the kernel, some of them half-made.

Frozen values; `observer` makes them, `planner` compares them with what is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from vscsihba.configfs.model import BackstoreSpec, HbaSpec, Layout


@dataclass(frozen=True, slots=True)
class Backstore:
    """A backstore of ours that exists in the kernel.

    Attributes:
        spec: What it is.
        index: N of its directory ``core/user_N``.
        enabled: It works; False where its making was cut short.
        uio: Device node of its ring, None while there is none.
        unknown: Fields of `spec` that this kernel does not tell; they hold the default.
    """

    spec: BackstoreSpec
    index: int
    enabled: bool
    uio: Path | None
    unknown: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.spec.name

    def differences(self, wanted: BackstoreSpec) -> frozenset[str]:
        """Return the names of the fields in which the backstore is not as wanted."""
        return frozenset(
            entry.name
            for entry in fields(BackstoreSpec)
            if entry.name not in self.unknown
            and getattr(self.spec, entry.name) != getattr(wanted, entry.name)
        )


@dataclass(frozen=True, slots=True)
class Lun:
    """A LUN of ours that exists in the kernel.

    Attributes:
        number: Of the LUN.
        backstore: Name of what is behind it; None where its making was cut short.
        address: ``host:channel:target:lun`` as in ``/sys/bus/scsi/devices``, None without a SCSI device.
        disk: ``/dev/sdX``, None if it has none (yet).
        generic: ``/dev/sgN``, likewise.
    """

    number: int
    backstore: str | None
    address: str | None = None
    disk: Path | None = None
    generic: Path | None = None

    @property
    def complete(self) -> bool:
        """It works: a backstore is behind it, and Linux has a SCSI device for it."""
        return self.backstore is not None and self.address is not None


@dataclass(frozen=True, slots=True)
class Hba:
    """An HBA of ours that exists in the kernel.

    Attributes:
        id: 0..255.
        luns: By number.
        host: N of ``/sys/class/scsi_host/hostN``, None where there is none.
        complete: It works; False where its making was cut short.
    """

    id: int
    luns: Mapping[int, Lun] = field(default_factory=dict)
    host: int | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """What of ours was found in the kernel.

    Attributes:
        backstores: By name.
        hbas: By id.
        foreign: Ids whose WWN is taken by a target that is not ours.
    """

    backstores: Mapping[str, Backstore] = field(default_factory=dict)
    hbas: Mapping[int, Hba] = field(default_factory=dict)
    foreign: frozenset[int] = frozenset()

    def layout(self) -> Layout:
        """Return what works of it as a layout; what was cut short is left out."""
        backstores = {name: found.spec for name, found in self.backstores.items() if found.enabled}
        hbas = {
            key: HbaSpec(
                key,
                {
                    number: lun.backstore
                    for number, lun in hba.luns.items()
                    if lun.complete and lun.backstore is not None and lun.backstore in backstores
                },
            )
            for key, hba in self.hbas.items()
            if hba.complete
        }
        return Layout(backstores, hbas)
