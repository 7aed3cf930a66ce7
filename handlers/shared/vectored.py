"""Scatter lists: complete transfers from partial ones, and transfers without a list.

preadv(2) and pwritev(2) take at most IOV_MAX views at once and may stop short; this
module turns them into "all, or up to the end". It knows views, not where they go.
"""

import errno
import os
from collections.abc import Callable
from typing import Protocol

from vscsihba.block import Views

IOV_MAX = os.sysconf("SC_IOV_MAX")


def transfer(move: Callable[[Views, int], int], offset: int, views: Views) -> int:
    """Move all bytes of `views` to or from `offset` on, in as many calls as it takes.

    Args:
        move: Moves some bytes, at least one unless the medium has ended.
        offset: Byte offset on the medium.
        views: The bytes, or the room for them.

    Returns:
        Bytes moved; fewer than asked for only if the medium has ended.

    Raises:
        OSError: `move` raised it.
    """
    wanted = sum(map(len, views))
    if len(views) <= IOV_MAX:
        done = move(views, offset)
        if done == wanted:
            return done
    else:
        done = move(views[:IOV_MAX], offset)
    while done < wanted:
        moved = move(tail(views, done)[:IOV_MAX], offset + done)
        if moved == 0:
            break
        done += moved
    return done


def store(move: Callable[[Views, int], int], offset: int, views: Views) -> None:
    """Move all bytes of `views` to a medium.

    Raises:
        OSError: `move` raised it; EIO if it stopped before the end.
    """
    wanted = sum(map(len, views))
    done = transfer(move, offset, views)
    if done < wanted:
        raise OSError(errno.EIO, f"only {done} of {wanted} bytes were stored at byte {offset}")


def tail(views: Views, start: int) -> list[memoryview]:
    """Return the rest of `views` after its first `start` bytes."""
    left = []
    for view in views:
        if start < len(view):
            left.append(view[start:])
        start = max(0, start - len(view))
    return left


class Readable(Protocol):
    """A source of bytes: a handler."""

    def read(self, offset: int, views: Views) -> None:
        """Fill `views`; see `vscsihba.handlers.base.Handler.read`."""


class Writable(Protocol):
    """A destination of bytes: a handler."""

    def write(self, offset: int, views: Views) -> None:
        """Store `views`; see `vscsihba.handlers.base.Handler.write`."""


def read_bytes(disk: Readable, offset: int, length: int) -> bytes:
    """Return `length` bytes of a handler.

    Raises:
        OSError: As its read.
    """
    room = bytearray(length)
    disk.read(offset, [memoryview(room)])
    return bytes(room)


def write_bytes(disk: Writable, offset: int, data: bytes | memoryview) -> None:
    """Store bytes in a handler.

    Raises:
        OSError: As its write.
    """
    disk.write(offset, [memoryview(data)])
