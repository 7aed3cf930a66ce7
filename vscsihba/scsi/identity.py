"""Who a logical unit is, in a way that survives a restart.

Knows how names are made, not which VPD page carries them.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The names of one logical unit.

    Attributes:
        serial: PRODUCT SERIAL NUMBER: printable ASCII.
        naa: NAA designator, 8 bytes: locally assigned (3h), as nobody gave us an OUI.
    """

    serial: str
    naa: bytes

    @classmethod
    def derive(cls, text: str) -> "Identity":
        """Return the identity that always belongs to `text`, such as the identity of a backing file."""
        digest = hashlib.sha256(text.encode()).digest()
        return cls(serial=digest[8:20].hex(), naa=bytes([0x30 | digest[0] & 0x0F]) + digest[1:8])
