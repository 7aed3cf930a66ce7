"""The commands of LUNs that this process serves, kept in memory: for tests."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vscsihba.capture.files import CaptureFiles
from vscsihba.capture.packets import CaptureWriter
from vscsihba.capture.seen import Seen
from vscsihba.engine.serving.tap import Taps, TraceBuffer
from vscsihba.records import Kind, records

ALL: Final = 64 << 20
"""Bytes of data of each command that are kept, unless fewer are wanted."""

_LIMIT: Final = 1 << 30
"""Bytes of records; commands above them are lost."""


class Recording:
    """Events of some LUNs, from its beginning to its end; use `record` to make one.

    Args:
        hba: 0..255.
        buffer: Takes the records.
    """

    def __init__(self, hba: int, buffer: TraceBuffer) -> None:
        self._hba = hba
        self._buffer = buffer
        self._events: list[Seen] = []
        self._device_types: dict[int, int] = {}
        self._epoch = time.time() - time.monotonic()

    @property
    def events(self) -> list[Seen]:
        """All events until now, in the order in which they ended."""
        for batch in iter(self._buffer.take_out, b""):
            for record in records(batch):
                if record.kind is Kind.LUN and record.data:
                    self._device_types[record.lun] = record.data[0] & 0x1F
                device_type = self._device_types.get(record.lun, 0)
                self._events.append(Seen(self._hba, record.arrived + self._epoch, record, device_type))
        return self._events

    @property
    def commands(self) -> list[Seen]:
        """The commands that have ended until now."""
        return [seen for seen in self.events if seen.is_command]

    @property
    def lost(self) -> int:
        """Commands for which there was no room: more than 1 GiB of data has to be kept."""
        return self._buffer.lost

    def save(self, path: Path) -> None:
        """Write a capture that Wireshark and ``vscsihba replay`` read.

        Raises:
            HostError: It cannot be written.
        """
        with CaptureFiles(path) as files:
            writer = CaptureWriter(files)
            for seen in self.events:
                writer.add(seen)
            writer.close(self.lost, time.time())


@contextmanager
def record(taps: Taps, hba: int, luns: frozenset[int] | None, snaplen: int = ALL) -> Iterator[Recording]:
    """Record the commands of some LUNs while the context is entered.

    Args:
        taps: Taps of the LUNs, such as `vscsihba.hba.VirtualHba.taps`.
        hba: 0..255.
        luns: Numbers of the LUNs; None: all.
        snaplen: Bytes of data of each command that are kept, at most.
    """
    buffer = TraceBuffer(_LIMIT, snaplen)
    taps.observe(buffer, luns)
    try:
        yield Recording(hba, buffer)
    finally:
        taps.forget(buffer)
