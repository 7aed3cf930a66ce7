"""Blocks of pcapng files (draft-ietf-opsawg-pcapng): sections, interfaces, packets and statistics.

Blocks are written in little-endian byte order, and read in either. Knows the layout of blocks, not the
meaning of a packet.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from vscsihba.errors import UsageError

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
STATISTICS: Final = 5
PACKET: Final = 6
_MAGIC: Final = 0x1A2B3C4D
_COMMENT: Final = 1
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9
_NANOSECONDS: Final = b"\x09"
_PROGRAM: Final = 4
_DROPPED: Final = 5
_LARGEST: Final = 64 << 20
"""Bytes of the largest block that is read."""

Option = tuple[int, bytes]
"""Code and value of an option."""


def block(kind: int, body: bytes) -> bytes:
    """Return a block; `body` is padded to a multiple of 4 bytes."""
    length = 12 + len(body) + -len(body) % 4
    return struct.pack("<II", kind, length) + body + bytes(-len(body) % 4) + struct.pack("<I", length)


def section(program: str) -> bytes:
    """Return the header of a section, whose length is not known."""
    options = _options([(_PROGRAM, program.encode())])
    return block(SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + options)


def interface(link_type: int, name: str, description: str) -> bytes:
    """Return the description of an interface with times in nanoseconds, and no limit to its packets."""
    options = [(_NAME, name.encode()), (_DESCRIPTION, description.encode()), (_RESOLUTION, _NANOSECONDS)]
    return block(INTERFACE, struct.pack("<HHI", link_type, 0, 0) + _options(options))


def packet(number: int, nanoseconds: int, data: bytes, length: int, comment: str = "") -> bytes:
    """Return a packet.

    Args:
        number: Number of its interface in the section.
        nanoseconds: Its time, since 1970.
        data: Its bytes, as far as they are kept.
        length: Its length before it was cut.
        comment: A comment; empty for none.
    """
    head = struct.pack(
        "<IIIII", number, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(data), max(length, len(data))
    )
    options = _options([(_COMMENT, comment.encode())]) if comment else b""
    return block(PACKET, head + data + bytes(-len(data) % 4) + options)


def statistics(number: int, nanoseconds: int, dropped: int) -> bytes:
    """Return the statistics of an interface at the end of a section.

    Args:
        number: Number of the interface.
        nanoseconds: Time of the statistics, since 1970.
        dropped: Packets that were lost.
    """
    head = struct.pack("<III", number, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)
    return block(STATISTICS, head + _options([(_DROPPED, struct.pack("<Q", dropped))]))


def _options(options: Sequence[Option]) -> bytes:
    packed = [
        struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options
    ]
    return b"".join(packed) + bytes(4)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of a file.

    Attributes:
        link_type: Link type of its interface.
        interface: Name of its interface.
        nanoseconds: Its time, since 1970.
        data: Its bytes, as far as they were kept.
        length: Its length before it was cut.
        comment: Its comment, empty if it has none.
    """

    link_type: int
    interface: str
    nanoseconds: int
    data: bytes
    length: int
    comment: str


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    name: str
    per_second: int


def packets(file: BinaryIO, name: str) -> Iterator[Packet]:
    """Yield the packets of a file.

    Args:
        file: The file, at its beginning.
        name: Its name, for messages.

    Raises:
        UsageError: It is not a pcapng file, or is damaged.
        OSError: It cannot be read.
    """
    reader = _Reader(file, name)
    interfaces: list[_Interface] = []
    for kind, body in reader.blocks():
        try:
            if kind == SECTION:
                interfaces = []
            elif kind == INTERFACE:
                interfaces.append(_interface(body, reader.order))
            elif kind == PACKET:
                yield _packet(body, reader.order, interfaces)
        except (struct.error, IndexError, ValueError) as error:
            raise reader.damaged("a block is malformed") from error


class _Reader:
    """Reads blocks.

    Attributes:
        order: Byte order of the section, as `struct` has it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.order = "<"
        self._file = file
        self._name = name
        self._at = 0

    def damaged(self, reason: str) -> UsageError:
        """Return the error of a damaged file."""
        return UsageError(f"{self._name}: {reason} at byte {self._at}", cure="is it a capture of vscsihba?")

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the type and the body of each block."""
        first = True
        while head := self._file.read(8):
            if len(head) == 8 and struct.unpack("<I", head[:4])[0] == SECTION:
                magic = self._file.read(4)
                self.order = "<" if magic == struct.pack("<I", _MAGIC) else ">"
                if magic != struct.pack(f"{self.order}I", _MAGIC):
                    raise self.damaged("no pcapng section begins")
                already = len(magic)
            elif first:
                raise UsageError(f"{self._name} is not a pcapng file")
            else:
                already, magic = 0, b""
            first = False
            if len(head) < 8:
                raise self.damaged("the file is cut off")
            kind, length = struct.unpack(f"{self.order}II", head)
            if length % 4 or not 12 + already <= length <= _LARGEST:
                raise self.damaged(f"a block of {length} bytes is claimed")
            rest = self._file.read(length - 8 - already)
            if len(rest) < length - 8 - already:
                raise self.damaged("the file is cut off")
            if rest[-4:] != head[4:]:
                raise self.damaged("a block has two lengths")
            yield kind, magic + rest[:-4]
            self._at += length


def _interface(body: bytes, order: str) -> _Interface:
    (link_type,) = struct.unpack_from(f"{order}H", body)
    options = dict(_read_options(body[8:], order))
    resolution = options.get(_RESOLUTION, b"\x06")[0]
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    return _Interface(link_type, options.get(_NAME, b"").decode(errors="replace"), per_second)


def _packet(body: bytes, order: str, interfaces: Sequence[_Interface]) -> Packet:
    number, high, low, kept, length = struct.unpack_from(f"{order}IIIII", body)
    found = interfaces[number]
    data = body[20 : 20 + kept]
    if len(data) < kept:
        raise ValueError("a packet is cut off")
    nanoseconds = (high << 32 | low) * 1_000_000_000 // found.per_second
    options = dict(_read_options(body[20 + kept + -kept % 4 :], order))
    comment = options.get(_COMMENT, b"").decode(errors="replace")
    return Packet(found.link_type, found.name, nanoseconds, data, length, comment)


def _read_options(stored: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(stored):
        code, length = struct.unpack_from(f"{order}HH", stored, at)
        if not code:
            return
        yield code, stored[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
