"""The protocol between launcher and agent: frames on one byte stream, in both directions.

A frame is a type (1 byte), a length (2 bytes, little-endian) and that many bytes. The launcher sends only as
much standard input as the agent has requested (`WANT`), so that a command that does not read its input never
delays a signal. Imports nothing of the package: the agent is started as a plain script.
"""

import struct
from collections.abc import Iterator

HEADER = struct.Struct("<BH")
MOST = 0xFFFF
"""Bytes in the largest frame."""
NUMBER = struct.Struct("<I")
WINDOW = struct.Struct("<HH")
"""Rows and columns."""

# To the agent.
INPUT, INPUT_END, SIGNAL, RESIZE = range(1, 5)
"""Bytes for standard input; its end; a signal number; the terminal's size."""

# To the launcher.
READY, OUTPUT, ERROR, WANT, EXIT, FAILED = range(16, 22)
"""The command is about to start; its output and error output; bytes of input that may be sent; its exit
code; a sentence that says why it was not started, with an exit code before it."""

CREDIT = 2048
"""Bytes of standard input, including the headers of their frames, that may be in flight. They fit into the
buffer of the guest's serial line (4 KiB less 128 bytes, drivers/tty/n_tty.c): when that is full, User-Mode
Linux switches the input of the line off, and not on again (arch/um/drivers/line.c, line_throttle)."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(kind, len(payload)) + payload


def frames(kind: int, data: bytes) -> bytes:
    """Return data of any length as frames of one type."""
    parts = (data[at : at + MOST] for at in range(0, len(data), MOST))
    return b"".join(frame(kind, part) for part in parts)


class Decoder:
    """Finds frames in a stream of bytes."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes and yield each complete frame: its type and its payload."""
        self._pending += data
        while len(self._pending) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._pending)
            end = HEADER.size + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[HEADER.size : end])
            del self._pending[:end]
            yield kind, payload
