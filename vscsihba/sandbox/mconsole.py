"""Requests to the management console of User-Mode Linux (arch/um/drivers/mconsole_kern.c).

It answers from an interrupt of the kernel, also while every process of the guest waits. Runs on the caller's
side; knows neither runs nor reports.
"""

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import Final

_REQUEST: Final = struct.Struct("=III512s")
"""``struct mconsole_request`` of arch/um/drivers/mconsole.h: magic, version, length, text."""
_REPLY: Final = struct.Struct("=III")
"""The head of ``struct mconsole_reply``: error, whether more replies follow, length of the text."""
_MAGIC: Final = 0xCAFEBABE
_VERSION: Final = 2


def ask(console: Path, request: str, limit: float = 5.0) -> str | None:
    """Return the kernel's answer to a request, such as ``sysrq w``; None if it does not answer.

    Args:
        console: The socket ``mconsole`` in the kernel's folder.
        request: A command of the management console; at most 512 bytes.
        limit: Seconds to wait for the answer.
    """
    text = request.encode()
    deadline = time.monotonic() + limit
    parts = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(b"")  # the kernel answers to an address, which Linux chooses
        line.settimeout(limit)
        line.sendto(_REQUEST.pack(_MAGIC, _VERSION, len(text), text), str(console))
        more = 1
        while more:
            line.settimeout(max(deadline - time.monotonic(), 0.01))
            reply = line.recv(1 << 16)
            _error, more, length = _REPLY.unpack_from(reply)
            parts.append(reply[_REPLY.size : _REPLY.size + length].rstrip(b"\0"))
    return b"".join(parts).decode(errors="replace") if parts else None
