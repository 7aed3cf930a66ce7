"""A device of this machine that commands are replayed to, through its ``/dev/sgN``."""

from pathlib import Path
from typing import Final, Self

from vscsihba.capture.replay import Reply
from vscsihba.handlers.sg.cdb import Direction
from vscsihba.handlers.sg.device import SgDevice
from vscsihba.handlers.sg.sg_io import send

_PATIENCE: Final = 60.0
"""Seconds for a command."""


class SgTarget:
    """An open device, which nobody else uses, while the context is entered.

    Args:
        path: ``/dev/sgN``.

    Raises:
        UsageError: There is no such device.
        InUseError: Its disk is mounted, or used otherwise.
        HostError: It does not answer.
    """

    def __init__(self, path: Path) -> None:
        self._device = SgDevice(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._device.close()

    def send(self, cdb: bytes, data: bytes, length: int) -> Reply:
        """Send a command; see `vscsihba.capture.replay.Target`."""
        if data:
            result = send(self._device.fd, cdb, [memoryview(data)], Direction.OUT, _PATIENCE)
            return Reply(result.status, result.sense, b"")
        room = bytearray(length)
        views = [memoryview(room)] if length else []
        direction = Direction.IN if length else Direction.NONE
        result = send(self._device.fd, cdb, views, direction, _PATIENCE)
        views.clear()
        return Reply(result.status, result.sense, bytes(room[: result.moved]))
