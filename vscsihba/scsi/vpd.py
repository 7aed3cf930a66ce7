"""Vital product data pages: names, limits and characteristics of a logical unit.

Each page is a function that returns the bytes after its header of four; one
table lists the pages (SPC-5 and SBC-4 "Vital product data parameters").
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.copy.vpd import third_party_copy
from vscsihba.scsi.space import THRESHOLD_SET

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def page(lu: LogicalUnit, cdb: Cdb) -> bytes:
    """Return the page that an INQUIRY asks for.

    Raises:
        CheckCondition: The page does not exist.
    """
    code = cdb["page_code"]
    if code not in PAGES:
        raise cdb.invalid("page_code")
    body = PAGES[code][1](lu)
    return struct.pack(">BBH", 0, code, len(body)) + body


def supported_vpd_pages(_lu: LogicalUnit) -> bytes:
    """Return the page codes in ascending order."""
    return bytes(sorted(PAGES))


def unit_serial_number(lu: LogicalUnit) -> bytes:
    """Return the serial number, ASCII."""
    return lu.identity.serial.encode()


def device_identification(lu: LogicalUnit) -> bytes:
    """Return the designators of the logical unit: NAA, T10 vendor ID, SCSI name string."""
    naa = lu.identity.naa
    t10 = lu.product.encode()[:24] + lu.identity.serial.encode()
    name = f"naa.{naa.hex().upper()}".encode()
    name += bytes(-len(name) % 4 or 4)
    return designator(1, 3, naa) + designator(2, 1, t10) + designator(3, 8, name)


def designator(code_set: int, kind: int, value: bytes) -> bytes:
    """Return a designation descriptor of the logical unit.

    Args:
        code_set: 1 binary, 2 ASCII, 3 UTF-8.
        kind: DESIGNATOR TYPE.
        value: The designator, at most 255 bytes.
    """
    return bytes([code_set, kind, 0, len(value)]) + value


def management_network_addresses(_lu: LogicalUnit) -> bytes:
    """Return no addresses: units are managed with programs on the host."""
    return b""


def mode_page_policy(_lu: LogicalUnit) -> bytes:
    """Return one policy for all pages and subpages: shared among initiators."""
    return bytes([0x3F, 0xFF, 0x00, 0x00])


def extended_inquiry_data(_lu: LogicalUnit) -> bytes:
    """Return further capabilities: all three task attributes, descriptor sense, a volatile cache."""
    body = bytearray(60)
    body[1] = 0x07  # HEADSUP, ORDSUP, SIMPSUP
    body[2] = 0x01  # V_SUP
    return bytes(body)


def block_limits(lu: LogicalUnit) -> bytes:
    """Return maximum and optimal transfer lengths, in logical blocks."""
    limits = lu.limits
    block = lu.block_size
    unmap = lu.capabilities.unmap
    granularity = max(lu.capabilities.unmap_granularity, lu.geometry.physical_block_size) // block
    return struct.pack(
        ">BBHIIIIIIIQI16x",
        1,  # WSNZ: WRITE SAME needs a number of blocks
        limits.compare_and_write_blocks,
        lu.geometry.physical_block_size // block,  # OPTIMAL TRANSFER LENGTH GRANULARITY
        limits.transfer_blocks,
        min(lu.geometry.optimal_io // block, limits.transfer_blocks),  # OPTIMAL TRANSFER LENGTH
        0,  # MAXIMUM PREFETCH LENGTH: no limit
        limits.unmap_blocks if unmap else 0,
        limits.unmap_descriptors if unmap else 0,
        granularity if unmap else 0,
        0x80000000 if unmap else 0,  # UGAVALID, alignment 0
        limits.write_same_blocks,
        limits.atomic_blocks,  # and neither alignment, granularity nor boundaries
    )


def block_device_characteristics(lu: LogicalUnit) -> bytes:
    """Return the rotation rate: 7200 a minute if seeks take time, else "non-rotating".

    WABEREQ and WACEREQ are 01b with block erase and cryptographic erase: a block can be read right after it.
    RBWZ: a lost block is reassigned as zeroes. FUAB: FUA and flushes reach the medium. VBULS:
    unmapped blocks can be verified.
    """
    rate = 7200 if lu.capabilities.rotational else 1
    reads_after_erase = lu.capabilities.unmap << 6 | lu.capabilities.crypto_erase << 4
    behaviour = 0x08 | 0x02 | 0x01
    return struct.pack(">HxBB55x", rate, reads_after_erase, behaviour)


def logical_block_provisioning(lu: LogicalUnit) -> bytes:
    """Return the ways to unmap blocks: UNMAP and both WRITE SAMEs, or none."""
    capabilities = lu.capabilities
    if not capabilities.unmap:
        return bytes(4)
    # LBPU, LBPWS, LBPWS10; LBPRZ is a field of three bits, 001b "reads zeroes".
    flags = 0xE0 | 0x04 * capabilities.unmap_zeroes
    exponent = (THRESHOLD_SET // lu.block_size).bit_length() - 1
    return bytes([exponent, flags, 2, 0])  # PROVISIONING TYPE: thin


PAGES: dict[int, tuple[str, Callable[[LogicalUnit], bytes]]] = {
    0x00: ("Supported VPD Pages", supported_vpd_pages),
    0x80: ("Unit Serial Number", unit_serial_number),
    0x83: ("Device Identification", device_identification),
    0x85: ("Management Network Addresses", management_network_addresses),
    0x86: ("Extended INQUIRY Data", extended_inquiry_data),
    0x87: ("Mode Page Policy", mode_page_policy),
    0x8F: ("Third-party Copy", third_party_copy),
    0xB0: ("Block Limits", block_limits),
    0xB1: ("Block Device Characteristics", block_device_characteristics),
    0xB2: ("Logical Block Provisioning", logical_block_provisioning),
}
"""Every page by PAGE CODE: T10's name, and the function that returns it."""
