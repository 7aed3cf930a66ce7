"""A superblock: one text of a file that is replaced atomically.

It lies in one of two slots at the beginning of the file, and a new one goes to the slot that
does not hold the newest. Each says where it stands in the sequence and has a checksum over
that and the text, so that a slot that was torn is known for one, and the other one counts.

    magic 8 bytes, crc32, length, sequence, text, zeroes
"""

import struct
import zlib
from collections.abc import Callable

from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.shared.undo import Undo

SLOT = 4096
SLOTS = 2
END = SLOT * SLOTS
"""The first byte behind the superblock."""

_HEAD = struct.Struct("<8sIIQ")
_CHECKED = 12
"""Where the part begins that the checksum covers."""


class Superblock:
    """The superblock of an open store.

    Args:
        store: The file's bytes.
        magic: Eight bytes that tell its kind.
        kind: A noun for it, for the messages.

    Attributes:
        text: The newest one.

    Raises:
        HostError: There is none, or both are damaged.
    """

    def __init__(self, store: Handler, magic: bytes, kind: str) -> None:
        self._store, self._magic, self._kind = store, magic, kind
        self._is_settled = True
        slots = [_read(store, number * SLOT) for number in range(SLOTS)]
        whole = [found for slot in slots if (found := decode(slot, magic)) is not None]
        if whole:
            self._sequence, self.text = max(whole)
        elif any(slot.startswith(magic) for slot in slots):
            raise HostError(f"the {kind} is damaged in both headers", cure="restore it from a copy")
        else:
            raise HostError(f"no {kind} found", cure="is it the right file?")

    def replace(self, text: bytes, *, flush: Callable[[], object] | None = None) -> None:
        """Put a new text on stable storage; everything written before it is there then, too.

        One that fails is taken back, and the next one goes to the same slot: the other slot holds
        the text that counts. If that fails as well, `settle` has to be called before the store is flushed.

        Args:
            text: The new one.
            flush: Flushes the store; by default the store's own verb.

        Raises:
            OSError: As the store's; the old one counts then. After a power cut the new one may count,
                if the store failed after it had taken it.
        """
        self.settle()
        sequence = self._sequence + 1
        slot = encode(sequence, text, self._magic, self._kind)
        flush = flush or self._store.flush
        flush()
        with Undo() as failing:
            failing.callback(self.settle)
            self._is_settled = False
            self._store.write(sequence % SLOTS * SLOT, [memoryview(slot)])
            flush()
            self._is_settled = True
            failing.pop_all()
        self._sequence, self.text = sequence, text

    def settle(self) -> None:
        """Take back a text that could not be put on stable storage; nothing is done if there is none.

        A flush of the store would put it there.

        Raises:
            OSError: As the store's; it may count when the store is opened again.
        """
        if not self._is_settled:
            self._store.write((self._sequence + 1) % SLOTS * SLOT, [memoryview(bytes(SLOT))])
            self._is_settled = True


def create(store: Handler, text: bytes, magic: bytes, kind: str) -> None:
    """Give a new store its first superblock, after all that was written to it before.

    Raises:
        OSError: As the store's.
    """
    slot = encode(0, text, magic, kind)
    store.flush()
    store.write(0, [memoryview(slot)])
    store.flush()


def encode(sequence: int, text: bytes, magic: bytes, kind: str) -> bytes:
    """Return a slot.

    Raises:
        HostError: The text is too long.
    """
    if len(text) > SLOT - _HEAD.size:
        raise HostError(f"the header of the {kind} is too long", cure="use shorter paths")
    rest = struct.pack("<IQ", len(text), sequence) + text
    return (magic + struct.pack("<I", zlib.crc32(rest)) + rest).ljust(SLOT, b"\0")


def decode(slot: bytes, magic: bytes) -> tuple[int, bytes] | None:
    """Return sequence and text of a slot, None if it is not whole."""
    if len(slot) < SLOT:
        return None
    found, crc, length, sequence = _HEAD.unpack_from(slot)
    end = _HEAD.size + length
    if found != magic or end > len(slot) or zlib.crc32(slot[_CHECKED:end]) != crc:
        return None
    return sequence, slot[_HEAD.size : end]


def _read(store: Handler, offset: int) -> bytes:
    if offset + SLOT > store.geometry.size:
        return b""
    room = bytearray(SLOT)
    store.read(offset, [memoryview(room)])
    return bytes(room)
