"""The model of a document: backstores, and the HBAs, LUNs and exports that show them.

Frozen values with the ranges of their fields. `vscsihba.config.load` creates them and checks the rules
between fields; nothing here reads a file or knows a handler.
"""

from typing import Annotated, Final, Literal

import msgspec

from vscsihba.config.annotations import number, text
from vscsihba.config.export import Export

VERSION: Final = 1
"""Version of the documents that this program reads."""

SCHEMA_KEY: Final = "$schema"
"""A key for editors, which the program ignores."""

StackDocument = dict[str, object]
"""The layers of a disk, as `vscsihba.handlers.stack.build` takes them: ``{"handler": "file", ...}``."""


BackstoreName = Annotated[
    str,
    text(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?!\n)$",
        'up to 64 letters, digits, ".", "_" and "-", with a letter or digit first',
        "Name of a backstore, which LUNs refer to.",
    ),
]

_Serial = Annotated[
    str,
    text(
        r"^[!-.0-~]([ -.0-~]{0,198}[!-.0-~])?(?!\n)$",
        "1 to 200 printable ASCII characters without a slash, and no blank at either end",
        "Unit serial number; derived from the storage, if left out.",
    ),
]
_Wwn = Annotated[
    str,
    text(
        r"^naa\.([235][0-9a-f]{15}|6[0-9a-f]{31})(?!\n)$",
        '"naa." and 16 hexadecimal digits that begin with 2, 3 or 5, or 32 that begin with 6',
        "World wide name; derived from the storage, if left out.",
    ),
]
_Vendor = Annotated[
    str,
    text(
        r"^[!-~]([ -~]{0,6}[!-~])?(?!\n)$",
        "1 to 8 printable ASCII characters",
        "Vendor of the disk; VSCSIHBA, if left out.",
    ),
]
_Product = Annotated[
    str,
    text(
        r"^[!-~]([ -~]{0,14}[!-~])?(?!\n)$",
        "1 to 16 printable ASCII characters",
        "Product name of the disk; VIRTUAL DISK, if left out.",
    ),
]
_QueueDepth = Annotated[
    int,
    number(1, 1024, "Commands that Linux sends to the disk at once; the HBA's default, if left out."),
]
_MaxSectors = Annotated[
    int,
    msgspec.Meta(
        ge=8,
        le=2048,
        multiple_of=8,
        description="Largest command in sectors of 512 bytes, for any block size; default: 2048.",
        extra={"use": "a multiple of 8 from 8 to 2048"},
    ),
]
_CommandTimeout = Annotated[int, number(1, 86400, "Seconds until Linux aborts a command; default: 30.")]
_QueueFullTimeout = Annotated[
    int, number(0, 86400, "Seconds that a command waits for space in a full ring; 30, if left out.")
]


class Lun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One logical unit of an HBA; None means the default of the program or the kernel."""

    lun: Annotated[int, number(0, 16383, "Number of the LUN.")]
    backstore: Annotated[str, msgspec.Meta(description="Name of its backstore.")]
    read_only: Annotated[bool, msgspec.Meta(description="Write-protect the disk.")] = False
    removable: Annotated[
        bool, msgspec.Meta(description="Present a removable medium, which can be ejected.")
    ] = False
    local: Annotated[
        bool, msgspec.Meta(description="Show the disk on this computer; false: only exports show it.")
    ] = True
    serial: _Serial | None = None
    wwn: _Wwn | None = None
    vendor: _Vendor | None = None
    product: _Product | None = None
    queue_depth: _QueueDepth | None = None
    max_sectors: _MaxSectors | None = None
    command_timeout: _CommandTimeout | None = None
    queue_full_timeout: _QueueFullTimeout | None = None


class Hba(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One HBA; its LUNs are ordered by number."""

    id: Annotated[int, number(0, 255, "Number of the HBA.")]
    engines: Annotated[
        int, number(1, 16, "Processes that share its LUNs, and take over from each other.")
    ] = 1
    luns: Annotated[tuple[Lun, ...], msgspec.Meta(description="Its LUNs.")] = ()

    def lun(self, number: int) -> Lun | None:
        """Return the LUN of that number, None if it does not exist."""
        return next((lun for lun in self.luns if lun.lun == number), None)


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The disks of a machine; HBAs are ordered by id, exports by name."""

    version: Literal[1] = 1
    backstores: Annotated[
        dict[BackstoreName, StackDocument], msgspec.Meta(description="The storage of disks, by name.")
    ] = {}
    hbas: Annotated[tuple[Hba, ...], msgspec.Meta(description="Virtual HBAs.")] = ()
    exports: Annotated[
        tuple[Export, ...], msgspec.Meta(description="Targets that show backstores to other computers.")
    ] = ()

    def hba(self, hba_id: int) -> Hba | None:
        """Return the HBA of that id, None if it does not exist."""
        return next((hba for hba in self.hbas if hba.id == hba_id), None)

    def place_of(self, backstore: str) -> tuple[int, int] | None:
        """Return the id of the HBA and the number of the LUN that show a backstore, None if no LUN does."""
        return next(
            ((hba.id, lun.lun) for hba in self.hbas for lun in hba.luns if lun.backstore == backstore), None
        )

    def export(self, name: str) -> Export | None:
        """Return the export of that name, None if it does not exist."""
        return next((export for export in self.exports if export.name == name), None)

    @property
    def empty(self) -> bool:
        """Whether it has no backstore, no HBA and no export."""
        return not (self.backstores or self.hbas or self.exports)
