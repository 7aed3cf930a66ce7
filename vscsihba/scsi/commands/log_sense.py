"""LOG SENSE and LOG SELECT: reading and clearing counters."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.log_pages import (
    LOGICAL_BLOCK_PROVISIONING,
    PAGES,
    SUPPORTED_PAGES,
    SUPPORTED_PAGES_AND_SUBPAGES,
    LogKey,
)
from vscsihba.scsi.response import GOOD, Response, Steps, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

_CUMULATIVE = 0b01
"""PC: cumulative values. Thresholds are not supported."""


def log_sense(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """LOG SENSE: SPC-5; cumulative values, from the parameter pointer on."""
    if cdb["pc"] != _CUMULATIVE:
        raise cdb.invalid("pc")
    key = cdb["page_code"], cdb["subpage_code"]
    if key in (SUPPORTED_PAGES, SUPPORTED_PAGES_AND_SUBPAGES):
        body = _supported(key)
    elif key in PAGES:
        if key == LOGICAL_BLOCK_PROVISIONING:
            yield from lu.look_at_space()
        body = _parameters(lu, cdb, key)
    else:
        known = any(page == key[0] for page, _ in PAGES) or key[0] == 0
        raise cdb.invalid("subpage_code" if known else "page_code")
    flags = 0x40 if key[1] else 0  # SPF
    payload = struct.pack(">BBH", flags | key[0], key[1], len(body)) + body
    return data_in(buffer, payload, cdb["allocation_length"])


def _supported(key: LogKey) -> bytes:
    """Return the page codes, with subpage codes if requested."""
    listed = sorted([SUPPORTED_PAGES, SUPPORTED_PAGES_AND_SUBPAGES, *PAGES])
    if key == SUPPORTED_PAGES_AND_SUBPAGES:
        return bytes(code for page in listed for code in page)
    return bytes(page for page, subpage in listed if not subpage)


def _parameters(lu: LogicalUnit, cdb: Cdb, key: LogKey) -> bytes:
    """Return a page's parameters from the parameter pointer on.

    Raises:
        CheckCondition: The pointer is behind the last one.
    """
    parameters = PAGES[key][1](lu)
    pointer = cdb["parameter_pointer"]
    if pointer and pointer > max(parameters, default=0):
        raise cdb.invalid("parameter_pointer")
    return b"".join(parameter.encode(code) for code, parameter in parameters.items() if code >= pointer)


def log_select(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response:
    """LOG SELECT: SPC-5; PCR clears the counters of all pages; a single page or new values are refused."""
    if cdb["pcr"]:
        lu.counters.clear()
        lu.readiness.transitions.clear()
    return GOOD
