"""The envelope of a PDU in a capture: Wireshark's "exported PDU" tags (epan/exported_pdu.h).

They name the dissector and two addresses, so that Wireshark matches commands and answers without a TCP
connection around them. The initiator of HBA 3 is 127.3.0.1, its target is 127.3.0.2.
"""

import struct
from functools import lru_cache
from typing import Final

from vscsihba.capture.iscsi import Pdu

LINK_TYPE: Final = 252
"""LINKTYPE_WIRESHARK_UPPER_PDU."""

_DISSECTOR, _SOURCE, _DESTINATION, _PORT_TYPE, _SOURCE_PORT, _DESTINATION_PORT = 12, 20, 21, 24, 25, 26
_TCP: Final = 2
_ISCSI_PORT: Final = 3260
_INITIATOR_PORT: Final = 49152


@lru_cache
def tags(hba: int, *, to_target: bool) -> bytes:
    """Return the tags in front of a PDU."""
    initiator, target = bytes((127, hba, 0, 1)), bytes((127, hba, 0, 2))
    ends = [(initiator, _INITIATOR_PORT), (target, _ISCSI_PORT)]
    (source, source_port), (destination, destination_port) = ends if to_target else reversed(ends)
    parts = (
        (_DISSECTOR, b"iscsi".ljust(8, b"\0")),
        (_SOURCE, source),
        (_DESTINATION, destination),
        (_PORT_TYPE, struct.pack(">I", _TCP)),
        (_SOURCE_PORT, struct.pack(">I", source_port)),
        (_DESTINATION_PORT, struct.pack(">I", destination_port)),
        (0, b""),
    )
    return b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in parts)


def wrapped(pdu: Pdu, hba: int) -> tuple[bytes, int]:
    """Return the bytes of a packet with a PDU, and its whole length."""
    front = tags(hba, to_target=pdu.to_target)
    return front + pdu.data, len(front) + pdu.length


def unwrapped(data: bytes, dissector: str) -> bytes:
    """Return the PDU of a packet.

    Raises:
        ValueError: The tags are malformed, or name another dissector.
    """
    at, name = 0, ""
    while True:
        if at + 4 > len(data):
            raise ValueError("the tags of a packet have no end")
        tag, length = struct.unpack_from(">HH", data, at)
        value = data[at + 4 : at + 4 + length]
        at += 4 + length
        if not tag:
            if name != dissector:
                raise ValueError(f"it is a packet of {name!r}, not of {dissector!r}")
            return data[at:]
        if tag == _DISSECTOR:
            name = value.rstrip(b"\0").decode("ascii", "replace")
