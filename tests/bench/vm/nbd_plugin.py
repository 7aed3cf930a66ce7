"""A file plugin for nbdkit, in Python: the peer nearest to us in kind. Started by nbdkit, not by Python."""

import os
from dataclasses import dataclass

import nbdkit  # type: ignore[import-not-found]  # nbdkit itself provides it

API_VERSION = 2


@dataclass
class _Served:
    path: str = ""


_served = _Served()


def config(key: str, value: str) -> None:
    """Take ``file=PATH``."""
    if key == "file":
        _served.path = value


def thread_model() -> int:
    """Let nbdkit run as many requests at once as it likes."""
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def open(readonly: bool) -> int:  # noqa: A001 - nbdkit's name
    """Open the file for a connection."""
    return os.open(_served.path, os.O_RDONLY if readonly else os.O_RDWR)


def close(handle: int) -> None:
    """Close it."""
    os.close(handle)


def get_size(handle: int) -> int:
    """Return its size in bytes."""
    return os.fstat(handle).st_size


def can_flush(_handle: int) -> bool:
    """Say that there is a flush."""
    return True


def pread(handle: int, buffer: bytearray, offset: int, _flags: int) -> None:
    """Read into the buffer."""
    os.preadv(handle, [buffer], offset)


def pwrite(handle: int, buffer: bytearray, offset: int, _flags: int) -> None:
    """Write the buffer."""
    os.pwrite(handle, buffer, offset)


def flush(handle: int, _flags: int) -> None:
    """Put everything on stable storage."""
    os.fdatasync(handle)
