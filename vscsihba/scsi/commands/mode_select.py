"""MODE SELECT: changing settings.

The whole parameter list is checked before any of it takes effect, and it takes effect once it is stored: a
MODE SELECT that fails has changed nothing. No other command runs meanwhile (it is exclusive in the opcode
table), so every write after a change of WCE follows the new value, and the flush covers all writes before.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.block import Flush
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.mode_pages import CACHING, PAGES, ModePages, PageKey, write_cache_enabled
from vscsihba.scsi.response import GOOD, Steps
from vscsihba.scsi.sense import illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


_WRITE_CACHE = b"\0\0\x04"
"""The head of a Caching page with WCE=1."""


def mode_select(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """MODE SELECT(6), (10): SPC-5; pages in T10's format only (PF=1).

    No unit attention follows: the transport does not distinguish the sender from other initiators.
    """
    length = cdb["parameter_list_length"]
    if not length:
        return GOOD
    if not cdb["pf"]:
        raise cdb.invalid("pf")
    if buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    parameters = buffer.gather(0, length)
    pages = _parse_pages(lu.mode_pages, parameters, _parse_header(lu, cdb, parameters))
    if lu.mode_pages.write_cache_enabled and not write_cache_enabled(pages.get(CACHING, _WRITE_CACHE)):
        yield Flush()
    if cdb["sp"]:
        saved = lu.mode_pages.saved | pages
        yield lu.keep(saved=saved)
        lu.mode_pages.saved = saved
    lu.mode_pages.current |= pages
    lu.refresh()
    return GOOD


def _parse_header(lu: LogicalUnit, cdb: Cdb, parameters: bytes) -> int:
    """Check header and block descriptor; return the byte at which the pages begin."""
    short = cdb.command.length == 6
    size = 4 if short else 8
    if len(parameters) < size:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    medium_type = 1 if short else 2
    if parameters[medium_type]:
        raise invalid_parameter(medium_type)
    long_lba = not short and parameters[4] & 0x01
    descriptors = parameters[3] if short else int.from_bytes(parameters[6:8], "big")
    if descriptors not in (0, 16 if long_lba else 8):
        raise invalid_parameter(3 if short else 6)
    start = size + descriptors
    if len(parameters) < start:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if descriptors:
        mask = (1 << (64 if long_lba else 32)) - 1
        blocks, block_size = struct.unpack(">Q4xI" if long_lba else ">II", parameters[size:start])
        if blocks not in (0, mask, min(lu.blocks, mask)):
            raise invalid_parameter(size)
        if block_size != lu.block_size:
            raise invalid_parameter(start - (4 if long_lba else 3))
    return start


def _parse_pages(mode_pages: ModePages, parameters: bytes, at: int) -> dict[PageKey, bytes]:
    """Return the pages of a parameter list from byte `at` on, checked against their changeable bits."""
    pages: dict[PageKey, bytes] = {}
    while at < len(parameters):
        size = 4 if parameters[at] & 0x40 else 2
        header = parameters[at : at + size]
        if len(header) < size:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        key = (header[0] & 0x3F, header[1] if size == 4 else 0)
        if key not in mode_pages.current:
            raise invalid_parameter(at, 5)
        current = mode_pages.current[key]
        if header[1:] != current[1:size]:
            raise invalid_parameter(at + size // 2)
        values = parameters[at : at + len(current)]
        if len(values) < len(current):
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        _check_changeable(key, values, current, at)
        pages[key] = current[:1] + values[1:]
        at += len(current)
    return pages


def _check_changeable(key: PageKey, values: bytes, current: bytes, at: int) -> None:
    """Check that a page, at byte `at` of the list, changes only changeable bits.

    Raises:
        CheckCondition: INVALID FIELD IN PARAMETER LIST, pointing at the first such bit.
    """
    page = PAGES[key]
    for byte in range(page.header, len(current)):
        wrong = (values[byte] ^ current[byte]) & ~page.changeable[byte]
        if wrong:
            raise invalid_parameter(at + byte, wrong.bit_length() - 1)
