"""Names of a logical unit that survive a restart: serial number, NAA designator, INQUIRY strings.

Knows how names are derived, not which VPD page carries them.
"""

import hashlib
from dataclasses import dataclass

from vscsihba.errors import UsageError

_NAA_LENGTHS = {2: 8, 3: 8, 5: 8, 6: 16}
"""Bytes of an NAA designator by its type."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The names of one logical unit.

    Attributes:
        serial: PRODUCT SERIAL NUMBER: printable ASCII.
        naa: NAA designator (SPC-5 "NAA designator format"): 16 bytes of type 6h, 8 bytes of the others.
    """

    serial: str
    naa: bytes

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UsageError: The serial number or the designator is malformed.
        """
        _check_text("serial number", self.serial, 200)
        if len(self.naa) != _NAA_LENGTHS.get(self.naa[0] >> 4 if self.naa else 0):
            raise UsageError(
                f"{self.naa.hex()!r} is no NAA designator: 16 bytes of type 6, or 8 of type 2, 3 or 5"
            )

    @classmethod
    def derive(cls, text: str, *, serial: str | None = None, naa: bytes | None = None) -> "Identity":
        """Return the identity derived from `text`; the same text always gives the same identity.

        The NAA designator is locally assigned (3h), since the project has no OUI.

        Args:
            text: A stable name, such as the identity of a backing file.
            serial: A serial number to use instead of the derived one.
            naa: A designator to use instead of the derived one.

        Raises:
            UsageError: The serial number or the designator is malformed.
        """
        digest = hashlib.sha256(text.encode()).digest()
        local = bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]
        return cls(serial=digest[8:20].hex() if serial is None else serial, naa=local if naa is None else naa)


@dataclass(frozen=True, slots=True)
class Product:
    """The strings of standard INQUIRY data.

    Attributes:
        vendor: T10 VENDOR IDENTIFICATION, at most 8 characters.
        name: PRODUCT IDENTIFICATION, at most 16 characters.
        revision: PRODUCT REVISION LEVEL, at most 4 characters.
    """

    vendor: str
    name: str
    revision: str

    def __post_init__(self) -> None:
        """Check the strings.

        Raises:
            UsageError: One is empty, too long, or not printable ASCII.
        """
        _check_text("vendor", self.vendor, 8)
        _check_text("product", self.name, 16)
        _check_text("product revision", self.revision, 4)

    def encode(self) -> bytes:
        """Return bytes 8 to 35 of standard INQUIRY data."""
        return f"{self.vendor:8}{self.name:16}{self.revision:4}".encode()


def _check_text(what: str, text: str, longest: int) -> None:
    if not text or len(text) > longest or not (text.isascii() and text.isprintable()):
        raise UsageError(f"the {what} {text!r} is not 1 to {longest} printable ASCII characters")
