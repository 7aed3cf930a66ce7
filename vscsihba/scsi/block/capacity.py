"""READ CAPACITY: capacity and block sizes of the medium."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def read_capacity_10(lu: LogicalUnit, _cdb: Cdb, buffer: Buffer) -> Response:
    """READ CAPACITY(10): SBC-4; a capacity over 32 bits is FFFFFFFFh: use READ CAPACITY(16)."""
    payload = struct.pack(">II", min(lu.blocks - 1, 0xFFFFFFFF), lu.block_size)
    return data_in(buffer, payload, len(payload))


def read_capacity_16(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """READ CAPACITY(16): SBC-4; no protection information, LBA 0 aligned."""
    ratio = lu.geometry.physical_block_size // lu.block_size
    provisioning = 0
    if lu.capabilities.unmap:
        provisioning = 0x80 | 0x40 * lu.capabilities.unmap_zeroes
    payload = struct.pack(
        ">QIBBBB16x",
        lu.blocks - 1,
        lu.block_size,
        0,  # P_TYPE, PROT_EN
        ratio.bit_length() - 1,  # LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT
        provisioning,  # LBPME, LBPRZ
        0,  # LOWEST ALIGNED LOGICAL BLOCK ADDRESS
    )
    return data_in(buffer, payload, cdb["allocation_length"])
