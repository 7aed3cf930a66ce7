"""Settings of a disk besides its storage: how it presents itself, and how Linux treats it.

None leaves the choice to the program or the kernel. Knows the values; `owned_lun`, `assembly` and `tuning`
know where they go.
"""

from dataclasses import dataclass
from typing import Any

from vscsihba import scsi

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a disk presents itself; fixed for its lifetime.

    Attributes:
        read_only: Every write is refused.
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
        """Return the arguments of `scsi.LogicalUnit` that differ from its defaults."""
        transfer = None if self.max_sectors is None else self.max_sectors * _SECTOR
        wanted = {"vendor": self.vendor, "product": self.product, "max_transfer": transfer}
        given = {key: value for key, value in wanted.items() if value is not None}
        return {"read_only": self.read_only} | given

    def hw_max_sectors(self, block_size: int) -> int:
        """Return the largest command in logical blocks, 0 to leave it to the transport."""
        return 0 if self.max_sectors is None else self.max_sectors * _SECTOR // block_size


@dataclass(frozen=True, slots=True)
class Tuning:
    """How Linux treats a disk; can be changed while it is in use.

    Attributes:
        queue_depth: Greatest number of commands under way.
        command_timeout: Seconds until a command is aborted.
        queue_full_timeout: Seconds that a command waits for room in a full ring.
    """

    queue_depth: int | None = None
    command_timeout: int | None = None
    queue_full_timeout: int | None = None
