"""Mode pages: the settings of a logical unit, with their default, changeable, current and saved values.

One table describes all pages. Knows bytes and masks; what a setting does is up to
whoever reads it (SPC-5 and SBC-4 "Mode parameters").
"""

from dataclasses import dataclass
from enum import IntEnum

PageKey = tuple[int, int]
"""PAGE CODE and SUBPAGE CODE."""

CONTROL: PageKey = (0x0A, 0x00)
CACHING: PageKey = (0x08, 0x00)
ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF


class PageControl(IntEnum):
    """PC, which values MODE SENSE returns."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True, slots=True)
class ModePage:
    """One page.

    Attributes:
        key: Page and subpage code.
        name: T10's name.
        default: Default values, header included.
        changeable: Mask of the bits that MODE SELECT may change, 0 in the header.
    """

    key: PageKey
    name: str
    default: bytes
    changeable: bytes


def _page(page: int, subpage: int, name: str, length: int, bits: dict[int, tuple[int, int]]) -> ModePage:
    """Describe a page of `length` bytes; `bits` gives default and changeable mask by byte."""
    default, changeable = bytearray(length), bytearray(length)
    for byte, (value, mask) in bits.items():
        default[byte], changeable[byte] = value, mask
    if subpage:
        default[:4] = bytes([0x80 | 0x40 | page, subpage]) + (length - 4).to_bytes(2, "big")
    else:
        default[:2] = bytes([0x80 | page, length - 2])
    return ModePage((page, subpage), name, bytes(default), bytes(changeable))


PAGES = {
    page.key: page
    for page in (
        # AWRE and ARRE are what a file system below does by itself: not ours to claim.
        _page(0x01, 0x00, "Read-Write Error Recovery", 12, {}),
        _page(0x08, 0x00, "Caching", 20, {2: (0x04, 0x04)}),  # WCE
        # D_SENSE; QUEUE ALGORITHM MODIFIER 1 (unrestricted reordering); SWP.
        # BUSY TIMEOUT PERIOD: unlimited.
        _page(
            0x0A,
            0x00,
            "Control",
            12,
            {2: (0x00, 0x04), 3: (0x10, 0x00), 4: (0x00, 0x08), 8: (0xFF, 0), 9: (0xFF, 0)},
        ),
        _page(0x1C, 0x00, "Informational Exceptions Control", 12, {2: (0x08, 0x00)}),  # DEXCPT
    )
}
"""Every page by its key, in ascending order; PS is set: each can be saved."""


class ModePages:
    """The pages' values in one logical unit.

    Attributes:
        current: Values in force, by key.
        saved: Values that a reset brings back, by key.
    """

    def __init__(self, *, write_cache: bool = True) -> None:
        self._defaults = {key: page.default for key, page in PAGES.items()}
        if not write_cache:
            caching = bytearray(self._defaults[CACHING])
            caching[2] &= ~0x04
            self._defaults[CACHING] = bytes(caching)
        self.saved = dict(self._defaults)
        self.current = dict(self._defaults)

    def values(self, control: PageControl, key: PageKey) -> bytes:
        """Return one page, header included."""
        page = PAGES[key]
        match control:
            case PageControl.CURRENT:
                return self.current[key]
            case PageControl.CHANGEABLE:
                header = 4 if key[1] else 2
                return page.default[:header] + page.changeable[header:]
            case PageControl.DEFAULT:
                return self._defaults[key]
            case PageControl.SAVED:
                return self.saved[key]

    def reset(self) -> None:
        """Bring the saved values back (SPC-5: after a reset)."""
        self.current = dict(self.saved)

    @property
    def write_cache_enabled(self) -> bool:
        """WCE: written data may stay in a volatile cache."""
        return bool(self.current[CACHING][2] & 0x04)

    @property
    def descriptor_sense(self) -> bool:
        """D_SENSE: sense data is returned in descriptor format."""
        return bool(self.current[CONTROL][2] & 0x04)

    @property
    def software_write_protect(self) -> bool:
        """SWP: the medium is write protected by software."""
        return bool(self.current[CONTROL][4] & 0x08)
