"""Mode pages: the settings of a logical unit, with their default, changeable, current and saved values.

One table describes all pages (SPC-5 and SBC-4 "Mode parameters"). Knows bytes and masks, not the
effect of a setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

PageKey = tuple[int, int]
"""PAGE CODE and SUBPAGE CODE."""

READ_WRITE_ERROR_RECOVERY: PageKey = (0x01, 0x00)
CACHING: PageKey = (0x08, 0x00)
CONTROL: PageKey = (0x0A, 0x00)
LOGICAL_BLOCK_PROVISIONING: PageKey = (0x1C, 0x02)
ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF


class PageControl(IntEnum):
    """PC: the kind of values that MODE SENSE returns."""

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

    @property
    def header(self) -> int:
        """Bytes of the header: page code, length, and subpage code if there is one."""
        return 4 if self.key[1] else 2


def _page(key: PageKey, name: str, length: int, bits: dict[int, tuple[int, int]]) -> ModePage:
    """Describe a page of `length` bytes; `bits` gives default and changeable mask by byte."""
    default, changeable = bytearray(length), bytearray(length)
    for byte, (value, mask) in bits.items():
        default[byte], changeable[byte] = value, mask
    page, subpage = key
    if subpage:
        default[:4] = bytes([0x80 | 0x40 | page, subpage]) + (length - 4).to_bytes(2, "big")
    else:
        default[:2] = bytes([0x80 | page, length - 2])
    return ModePage(key, name, bytes(default), bytes(changeable))


_UNLIMITED = (0xFF, 0)

PAGES: Mapping[PageKey, ModePage] = {
    page.key: page
    for page in (
        # LBPERE. AWRE and ARRE are 0: reallocation is up to the storage below.
        _page(READ_WRITE_ERROR_RECOVERY, "Read-Write Error Recovery", 12, {7: (0x00, 0x80)}),
        _page((0x02, 0x00), "Disconnect-Reconnect", 16, {}),
        # WCE. RCD is 0: reads are cached below, which cannot be switched off.
        _page(CACHING, "Caching", 20, {2: (0x04, 0x04)}),
        # D_SENSE; QUEUE ALGORITHM MODIFIER (unrestricted reordering); SWP; BUSY TIMEOUT PERIOD.
        _page(
            CONTROL,
            "Control",
            12,
            {2: (0x00, 0x04), 3: (0x10, 0), 4: (0x00, 0x08), 8: _UNLIMITED, 9: _UNLIMITED},
        ),
        _page((0x0A, 0x01), "Control Extension", 32, {}),
        # No protection information, hence no application tag.
        _page((0x0A, 0x02), "Application Tag", 16, {}),
        # No timers: only START STOP UNIT changes the power condition.
        _page((0x1A, 0x00), "Power Condition", 40, {}),
        # DEXCPT: failures are not predicted.
        _page((0x1C, 0x00), "Informational Exceptions Control", 12, {2: (0x08, 0)}),
        # One threshold: of the available resource (01h), armed when it decreases (010b);
        # initiators enable it and set its count.
        _page(
            LOGICAL_BLOCK_PROVISIONING,
            "Logical Block Provisioning",
            24,
            {16: (0x02, 0x80), 17: (0x01, 0)} | dict.fromkeys(range(20, 24), (0, 0xFF)),
        ),
    )
}
"""Every page by its key, in ascending order; PS is set, since each can be saved."""


class ModePages:
    """The pages' values in one logical unit.

    Args:
        write_cache: Default of WCE.
        thin: The unit has the pages of logical block provisioning.

    Attributes:
        current: Values in force, by key.
        saved: Values that a reset restores, by key.
    """

    def __init__(self, *, write_cache: bool = True, thin: bool = False) -> None:
        absent = set() if thin else {LOGICAL_BLOCK_PROVISIONING}
        self._defaults = {key: page.default for key, page in PAGES.items() if key not in absent}
        if not write_cache:
            caching = bytearray(self._defaults[CACHING])
            caching[2] &= ~0x04
            self._defaults[CACHING] = bytes(caching)
        self.saved = dict(self._defaults)
        self.current = dict(self._defaults)

    def values(self, control: PageControl, key: PageKey) -> bytes:
        """Return one page, header included."""
        match control:
            case PageControl.CURRENT:
                return self.current[key]
            case PageControl.CHANGEABLE:
                page = PAGES[key]
                return page.default[: page.header] + page.changeable[page.header :]
            case PageControl.DEFAULT:
                return self._defaults[key]
            case PageControl.SAVED:
                return self.saved[key]

    def reset(self) -> None:
        """Restore the saved values (SPC-5: after a reset)."""
        self.current = dict(self.saved)

    @property
    def write_cache_enabled(self) -> bool:
        """WCE: written data may stay in a volatile cache."""
        return write_cache_enabled(self.current[CACHING])

    @property
    def descriptor_sense(self) -> bool:
        """D_SENSE: sense data is returned in descriptor format."""
        return bool(self.current[CONTROL][2] & 0x04)

    @property
    def software_write_protect(self) -> bool:
        """SWP: the medium is write protected by software."""
        return bool(self.current[CONTROL][4] & 0x08)

    @property
    def space_threshold(self) -> int | None:
        """Free space, in threshold sets, below which a unit attention is due; None if it is not enabled.

        Both LBPERE and the threshold itself must be enabled (SBC-4 "Thin provisioned logical unit
        capacity thresholds").
        """
        page = self.current.get(LOGICAL_BLOCK_PROVISIONING)
        reporting = self.current[READ_WRITE_ERROR_RECOVERY][7] & 0x80
        if page is None or not reporting or not page[16] & 0x80:
            return None
        return int.from_bytes(page[20:24], "big")


def write_cache_enabled(page: bytes) -> bool:
    """Return WCE of a Caching page."""
    return bool(page[2] & 0x04)
