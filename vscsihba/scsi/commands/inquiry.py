"""INQUIRY: standard data, and the vital product data pages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi import vpd
from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.identity import Product
    from vscsihba.scsi.logical_unit import LogicalUnit

VERSION_SPC_4 = 0x06
"""VERSION. SPC-5's 07h would be right as well, but common tools treat it as an error."""

VERSION_DESCRIPTORS = {
    "SAM-5": 0x00A0,
    "SPC-4": 0x0460,
    "SPC-5": 0x05C0,
    "SBC-3": 0x04C0,
    "SBC-4": 0x0600,
}
"""Standards that the unit conforms to (SPC-5 "Version descriptor values")."""


def inquiry(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """INQUIRY: SPC-5; a PAGE CODE without EVPD is refused."""
    if cdb["evpd"]:
        payload = vpd.page(lu, cdb)
    elif cdb["page_code"]:
        raise cdb.invalid("page_code")
    else:
        payload = lu.inquiry_data
        # The transport does not tell when an initiator comes or goes. INQUIRY marks a new one, to which
        # results of earlier copies do not belong (SPC-4 allows to drop them at any time).
        lu.copies.forget()
    return data_in(buffer, payload, cdb["allocation_length"])


def standard_data(product: Product, *, removable: bool) -> bytes:
    """Return the standard INQUIRY data: 96 bytes (SPC-5 "Standard INQUIRY data")."""
    data = bytearray(96)
    data[1] = 0x80 * removable  # RMB
    data[2] = VERSION_SPC_4
    data[3] = 0x10 | 0x02  # HISUP, RESPONSE DATA FORMAT
    data[4] = len(data) - 5
    data[5] = 0x08  # 3PC
    data[7] = 0x02  # CMDQUE
    data[8:36] = product.encode()
    struct.pack_into(f">{len(VERSION_DESCRIPTORS)}H", data, 58, *VERSION_DESCRIPTORS.values())
    return bytes(data)
