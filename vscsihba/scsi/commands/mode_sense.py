"""MODE SENSE: reading settings.

Lays out headers, block descriptors and pages; does not know what a page means.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.mode_pages import ALL_PAGES, ALL_SUBPAGES, PageControl, PageKey
from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from collections.abc import KeysView

    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def mode_sense(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """MODE SENSE(6), (10): SPC-5."""
    control = PageControl(cdb["pc"])
    pages = b"".join(
        lu.mode_pages.values(control, key) for key in _selected(lu.mode_pages.current.keys(), cdb)
    )
    descriptor = b"" if cdb["dbd"] else _block_descriptor(lu, long=bool(cdb.get("llbaa")))
    device_specific = 0x80 * (not lu.writable) | 0x10  # WP, DPOFUA
    body_length = len(descriptor) + len(pages)
    if cdb.command.length == 6:
        header = struct.pack(">BBBB", min(3 + body_length, 255), 0, device_specific, len(descriptor))
    else:
        long_lba = len(descriptor) == 16
        header = struct.pack(">HBBBxH", 6 + body_length, 0, device_specific, long_lba, len(descriptor))
    return data_in(buffer, header + descriptor + pages, cdb["allocation_length"])


def _selected(present: KeysView[PageKey], cdb: Cdb) -> list[PageKey]:
    """Return the pages of `present` that a CDB selects (SPC-5 "Mode page code usage").

    Raises:
        CheckCondition: The page or the subpage does not exist.
    """
    page, subpage = cdb["page_code"], cdb["subpage_code"]
    if page == ALL_PAGES and subpage not in (0, ALL_SUBPAGES):
        raise cdb.invalid("subpage_code")
    if page != ALL_PAGES and not any(key[0] == page for key in present):
        raise cdb.invalid("page_code")
    keys = [key for key in present if page in (ALL_PAGES, key[0]) and subpage in (ALL_SUBPAGES, key[1])]
    if not keys:
        raise cdb.invalid("subpage_code")
    return keys


def _block_descriptor(lu: LogicalUnit, *, long: bool) -> bytes:
    """Return the one block descriptor, short or long LBA (SBC-4 "Mode parameter block descriptors")."""
    if long:
        return struct.pack(">Q4xI", lu.blocks, lu.block_size)
    return struct.pack(">II", min(lu.blocks, 0xFFFFFFFF), lu.block_size)
