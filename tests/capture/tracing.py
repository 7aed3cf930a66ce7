"""A served LUN in this process, and the events that a reader of its trace gets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.rig import Rig
from vscsihba.capture.files import CaptureFiles
from vscsihba.capture.packets import CaptureWriter
from vscsihba.capture.seen import Seen
from vscsihba.engine.serving.tap import Taps, TraceBuffer
from vscsihba.records import Direction, Kind, Record, records

HBA = 3
INQUIRY = bytes([0, 0, 6, 0x12, 91, 0, 0, 2]) + b"VSCSIHBA" + b"a disk".ljust(16) + b"0001"


class Watched:
    """A trace of a rig.

    Args:
        taps: The taps of the LUNs.
        snaplen: Bytes of data of each command.
    """

    def __init__(self, taps: Taps, snaplen: int) -> None:
        self._buffer = TraceBuffer(1 << 30, snaplen)
        self._device_types: dict[int, int] = {}
        taps.observe(self._buffer)

    def events(self) -> list[Seen]:
        """Return the events since the last call."""
        epoch = time.time() - time.monotonic()
        found = []
        for batch in iter(self._buffer.take_out, b""):
            for record in records(batch):
                if record.kind is Kind.LUN:
                    self._device_types[record.lun] = record.data[0] & 0x1F
                device_type = self._device_types.get(record.lun, 0)
                found.append(Seen(HBA, record.arrived + epoch, record, device_type))
        return found


@contextmanager
def watched_rig(snaplen: int = 64, size: str = "4MiB") -> Iterator[tuple[Rig, Watched]]:
    """Serve a disk in memory whose unit attentions are told already, and watch it."""
    with Rig({"handler": "memory", "size": size}) as rig:
        for _ in range(4):
            rig.run(bytes(6))
        watched = Watched(rig.taps, snaplen)
        yield rig, watched


def write_capture(path: Path, events: list[Seen], lost: int = 0) -> int:
    """Write events as a capture; return the number of commands."""
    with CaptureFiles(path) as files:
        writer = CaptureWriter(files)
        for seen in events:
            writer.add(seen)
        writer.close(lost, time.time())
    return writer.commands


def command(cdb: str, **parts: object) -> Seen:
    """Return a command that ended with GOOD after 1 ms, unless other parts are given."""
    fields: dict[str, object] = {
        "kind": Kind.COMMAND,
        "lun": 1,
        "arrived": 10.0,
        "ended": 10.001,
        "cdb": bytes.fromhex(cdb),
        "direction": Direction.NONE,
        **parts,
    }
    device_type = int(str(fields.pop("device_type", 0)))
    moment = float(str(fields.pop("time", 1000.25)))
    return Seen(HBA, moment, Record(**fields), device_type)  # type: ignore[arg-type]


def introduction(lun: int, inquiry: bytes = INQUIRY) -> Seen:
    """Return the event that a LUN is served."""
    return Seen(HBA, 1000.0, Record(Kind.LUN, lun, 9.0, 9.0, length=512, data=inquiry))
