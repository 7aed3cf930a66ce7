"""The protocol between launcher and agent: frames on one byte stream, in both directions.

A frame is a type (1 byte), a length (2 bytes, little-endian) and so many bytes. Standard input is sent
only as far as the agent has asked for it (`WANT`), so a command that does not read its input never holds
up a signal behind it. Imports nothing of the package: the agent is started as a bare script.
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
"""Bytes of standard input, with the headers of their frames, that may be under way. They fit into the buffer
of the guest's serial line (4 KiB less 128 bytes, drivers/tty/n_tty.c): when that is full, User-Mode Linux
switches the input of the line off, and not on again (arch/um/drivers/line.c, line_throttle)."""


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
        """Take bytes and yield each complete frame: its type and its payload."""
        self._pending += data
        while len(self._pending) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._pending)
            end = HEADER.size + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[HEADER.size : end])
            del self._pending[:end]
            yield kind, payload
