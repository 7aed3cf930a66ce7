"""What can be wanted of a disk besides its medium: how it presents itself, and how Linux treats it.

What is None is the program's, or the kernel's, own choice. Knows the values; `owned_lun`, `assembly` and
`tuning` know where they go.
"""

from dataclasses import dataclass
from typing import Any

from vscsihba import scsi

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a disk presents itself, all its life.

    Attributes:
        read_only: It refuses every write.
        serial: Unit serial number.
        wwn: ``naa.`` and the hexadecimal digits of an NAA designator.
        vendor: At most 8 characters.
        product: At most 16 characters.
        max_sectors: Largest command in sectors of 512 bytes, whatever its blocks are; a multiple of 8.
    """

    read_only: bool = False
    serial: str | None = None
    wwn: str | None = None
    vendor: str | None = None
    product: str | None = None
    max_sectors: int | None = None

    def identity(self, storage: str) -> scsi.Identity:
        """Return the names of the unit, derived from the identity of its storage where none is wanted.

        Raises:
            UsageError: A name is malformed.
        """
        naa = None if self.wwn is None else bytes.fromhex(self.wwn.removeprefix("naa."))
        return scsi.Identity.derive(storage, serial=self.serial, naa=naa)

    def unit_options(self) -> dict[str, Any]:
        """Return those arguments of `scsi.LogicalUnit` that are wanted otherwise than it has them."""
        transfer = None if self.max_sectors is None else self.max_sectors * _SECTOR
        said = {"vendor": self.vendor, "product": self.product, "max_transfer": transfer}
        return {"read_only": self.read_only} | {key: said[key] for key in said if said[key] is not None}

    def hw_max_sectors(self, block_size: int) -> int:
        """Return the largest command in logical blocks, 0 if it is left to the transport."""
        return 0 if self.max_sectors is None else self.max_sectors * _SECTOR // block_size


@dataclass(frozen=True, slots=True)
class Tuning:
    """How Linux treats a disk; changed while it works.

    Attributes:
        queue_depth: Commands that are sent to it at once.
        command_timeout: Seconds until a command is aborted.
        queue_full_timeout: Seconds that a command waits for room in a full ring.
    """

    queue_depth: int | None = None
    command_timeout: int | None = None
    queue_full_timeout: int | None = None
