"""The Third-party Copy VPD page: supported copy commands and their limits.

The commands come from the opcode table, the limits from the modules that enforce them
(SPC-5 "Third-party Copy VPD page", SBC-4 "Block Device ROD Token Limits").
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.copy import extended_copy, token_copy
from vscsihba.scsi.copy.token_source import MADE_TYPES
from vscsihba.scsi.copy.tokens import BLOCK_DEVICE_ZERO

if TYPE_CHECKING:
    from vscsihba.scsi.logical_unit import LogicalUnit

_COPY_OPCODES = (0x83, 0x84)


def third_party_copy(lu: LogicalUnit) -> bytes:
    """Return the third-party copy descriptors, ascending by type."""
    descriptors = {
        0x0000: _block_device_rod_limits(lu),
        0x0001: _supported_commands(lu),
        0x0004: _parameter_data(),
        0x0008: _supported_descriptors(),
        0x000C: bytes.fromhex("0002 f800"),  # Supported CSCD IDs: those in ROD tokens
        0x0106: _rod_token_features(),
        0x0108: _supported_rod_types(),
        0x8001: _general_copy_operations(),
    }
    return b"".join(_descriptor(code, body) for code, body in descriptors.items())


def _descriptor(code: int, body: bytes) -> bytes:
    """Return a third-party copy descriptor, padded to a multiple of 4 bytes."""
    body += bytes(-len(body) % 4)
    return struct.pack(">HH", code, len(body)) + body


def _block_device_rod_limits(lu: LogicalUnit) -> bytes:
    """Return the limits of the token commands; the optimal transfer is the longest one."""
    most = token_copy.MOST_BYTES // lu.block_size
    return struct.pack(
        ">6xHIIQQ", token_copy.MOST_RANGES, token_copy.LONGEST_TIMEOUT, token_copy.DEFAULT_TIMEOUT, most, most
    )


def _supported_commands(lu: LogicalUnit) -> bytes:
    """Return the copy commands of the opcode table, by operation code."""
    body = b""
    for opcode in _COPY_OPCODES:
        actions = [action for code, action in lu.table if code == opcode and action is not None]
        body += bytes([opcode, len(actions), *actions])
    return bytes([len(body)]) + body


def _parameter_data() -> bytes:
    """Return the number of descriptors that an EXTENDED COPY may have; no inline data."""
    return struct.pack(
        ">4xHHI16x",
        extended_copy.MOST_TARGETS,
        extended_copy.MOST_SEGMENTS,
        extended_copy.MOST_DESCRIPTOR_BYTES,
    )


def _supported_descriptors() -> bytes:
    """Return the types of segment and target descriptors."""
    types = bytes([extended_copy.BLOCK_TO_BLOCK, extended_copy.IDENTIFICATION])
    return bytes([len(types)]) + types


def _general_copy_operations() -> bytes:
    """Return the limits of concurrent copies and of a segment."""
    return struct.pack(
        ">IIIB19x",
        extended_copy.MOST_CONCURRENT,
        extended_copy.MOST_CONCURRENT,
        extended_copy.MOST_SEGMENT_BYTES,
        extended_copy.GRANULARITY,
    )


def _rod_token_features() -> bytes:
    """Return the features of tokens: valid within this HBA only, timeouts in seconds, bytes."""
    default, longest = token_copy.DEFAULT_TIMEOUT, token_copy.LONGEST_TIMEOUT
    most = token_copy.MOST_BYTES
    # Block ROD device type specific features: granularity 0, then maximum and optimal bytes.
    features = struct.pack(">HHHHQQQQ8x", 0, 0x2C, 0, 0, most, most, most, most)
    return struct.pack(">12xIII18xH", default, longest, longest, len(features)) + features


def _supported_rod_types() -> bytes:
    """Return the types of token, and whether each is made (TOKEN_OUT) or accepted (TOKEN_IN)."""
    token_in, token_out = 0x02, 0x01
    types = dict.fromkeys(MADE_TYPES.values(), token_in | token_out) | {BLOCK_DEVICE_ZERO: token_in}
    listed = b"".join(struct.pack(">IB59x", kind, types[kind]) for kind in sorted(types))
    return struct.pack(">2xH", len(listed)) + listed
