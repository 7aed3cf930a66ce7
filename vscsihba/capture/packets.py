"""Events of a trace as the packets of capture files, in the order of their times.

A command becomes known when it has ended, but the packet of its request has the time of its arrival. So
packets wait for half a second before they are written. Each file begins with an INQUIRY of each LUN, which
was never sent: Wireshark learns the type of the device from it.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from vscsihba.capture import envelope, iscsi, pcapng
from vscsihba.capture.seen import Seen
from vscsihba.records import Direction, Kind

PROGRAM: Final = "vscsihba"
SYNTHETIC: Final = "not sent: tells the type of the device"
"""Comment of the INQUIRY that begins a file."""

_HOLD: Final = 500_000_000
"""Nanoseconds for which packets wait for earlier ones."""

_INQUIRY: Final = bytes((0x12, 0, 0, 0, 36, 0))
_LENGTH: Final = 36


class Sink(Protocol):
    """Takes the blocks of a capture: one file, or one after the other."""

    def write(self, blocks: bytes) -> None:
        """Write whole blocks.

        Raises:
            HostError: They cannot be written; those before them are.
        """

    def is_full(self) -> bool:
        """Return whether the next blocks belong into a new file."""

    def next_file(self) -> None:
        """Begin a new file.

        Raises:
            HostError: It cannot be created.
        """


class _Waiting(NamedTuple):
    """A packet that waits for earlier ones; the first of them has the smallest `number` of the earliest time.

    Attributes:
        nanoseconds: Its time.
        number: Its place among packets of the same time.
        command: Number of its command.
        block: The packet.
        last: It is the last one of its command.
    """

    nanoseconds: int
    number: int
    command: int
    block: bytes
    last: bool


class CaptureWriter:
    """Writes events as packets.

    Args:
        sink: Takes the blocks.

    Attributes:
        commands: Commands that were written, or wait to be.
    """

    def __init__(self, sink: Sink) -> None:
        self.commands = 0
        self._sink = sink
        self._luns: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._interfaces: dict[int, int] = {}
        self._waiting: list[_Waiting] = []
        self._begun: set[int] = set()
        self._tags: dict[tuple[int, int, int], int] = {}
        self._numbers = 0
        self._exchanges = 0
        self._latest = 0
        self._sink.write(pcapng.section(PROGRAM))

    def add(self, seen: Seen) -> None:
        """Add an event."""
        kind = seen.record.kind
        if kind is Kind.COMMAND:
            self._add_command(seen)
        elif kind is Kind.MANAGEMENT:
            self._add_management(seen)
        elif kind is Kind.LUN and self._luns.get(seen.place, (0, b""))[1] != seen.record.data:
            self._luns[seen.place] = round(seen.time * 1e9), seen.record.data
            self._introduce(seen.place)

    def write_until(self, now: float) -> None:
        """Write the packets that need not wait any longer.

        Args:
            now: In seconds since 1970.

        Raises:
            HostError: The sink has failed.
        """
        until = round(now * 1e9) - _HOLD
        while self._waiting and self._waiting[0].nanoseconds <= until:
            ready: list[_Waiting] = []
            while self._waiting and self._waiting[0].nanoseconds <= until and len(ready) < 256:
                ready.append(heapq.heappop(self._waiting))
            self._write(ready)
            if self._sink.is_full():
                self._next_file()

    def close(self, lost: int, now: float) -> None:
        """Write all packets that wait, and the number of lost commands.

        Args:
            lost: Commands that the trace has lost.
            now: In seconds since 1970.

        Raises:
            HostError: The sink has failed.
        """
        self._write(sorted(self._waiting))
        self._waiting.clear()
        at = round(now * 1e9)
        blocks = [pcapng.statistics(number, at, lost) for number in list(self._interfaces.values())[:1]]
        self._sink.write(b"".join(blocks))

    def _write(self, packets: Iterable[_Waiting]) -> None:
        blocks = []
        for each in packets:
            blocks.append(each.block)
            if each.last:
                self._begun.discard(each.command)
            else:
                self._begun.add(each.command)
        self._sink.write(b"".join(blocks))

    def _next_file(self) -> None:
        """Begin a new file; the commands whose request is in the old one are finished there."""
        old = sorted(each for each in self._waiting if each.command in self._begun)
        self._waiting = [each for each in self._waiting if each.command not in self._begun]
        self._write(old)
        heapq.heapify(self._waiting)
        self._sink.next_file()
        self._sink.write(pcapng.section(PROGRAM))
        # Packets carry the number of their interface, so all are described again, in the same order.
        for hba in self._interfaces:
            self._sink.write(_interface(hba))
        for place in self._luns:
            self._introduce(place)

    def _introduce(self, place: tuple[int, int]) -> None:
        """Write an INQUIRY of a LUN and its answer."""
        hba, lun = place
        nanoseconds, data = self._luns[place]
        self._exchanges += 1
        data = data[:4] + bytes([_LENGTH - 5]) + data[5:_LENGTH].ljust(_LENGTH - 5, b"\0")
        exchange = iscsi.Exchange(
            self._exchanges,
            lun,
            _INQUIRY,
            is_read=True,
            is_write=False,
            length=_LENGTH,
            returned=_LENGTH,
            status=0,
            sense=b"",
            data=data,
        )
        number = self._interface_of(hba)
        pdus = [*iscsi.command(exchange), *iscsi.response(exchange)]
        blocks = (pcapng.packet(number, nanoseconds, *envelope.wrapped(pdu, hba), SYNTHETIC) for pdu in pdus)
        self._sink.write(b"".join(blocks))

    def _interface_of(self, hba: int) -> int:
        if hba not in self._interfaces:
            self._interfaces[hba] = len(self._interfaces)
            self._sink.write(_interface(hba))
        return self._interfaces[hba]

    def _add_command(self, seen: Seen) -> None:
        record = seen.record
        self.commands += 1
        self._exchanges += 1
        self._tags[seen.hba, record.lun, record.tag] = self._exchanges
        exchange = iscsi.Exchange(
            self._exchanges,
            record.lun,
            seen.cdb,
            record.direction is Direction.IN,
            record.direction is Direction.OUT,
            record.length,
            record.returned,
            record.status,
            record.sense,
            record.data,
        )
        begin = round(seen.time * 1e9)
        end = begin + round(record.seconds * 1e9)
        self._push(seen.hba, begin, iscsi.command(exchange), last=False)
        self._push(seen.hba, end, iscsi.response(exchange), last=True, comment=_comment(seen))

    def _add_management(self, seen: Seen) -> None:
        record = seen.record
        tags = [int.from_bytes(record.data[at : at + 8], "little") for at in range(0, len(record.data), 8)]
        referenced = self._tags.get((seen.hba, record.lun, tags[0]), 0) if tags else 0
        self._exchanges += 1
        function = record.sense.decode("ascii", "replace")
        request, answer = iscsi.management(self._exchanges, record.lun, function, referenced)
        at = round(seen.time * 1e9)
        self._push(seen.hba, at, iter([request]), last=False)
        self._push(seen.hba, at, iter([answer]), last=True, comment=f"{len(tags)} commands")

    def _push(
        self, hba: int, nanoseconds: int, pdus: Iterator[iscsi.Pdu], *, last: bool, comment: str = ""
    ) -> None:
        number = self._interface_of(hba)
        found = list(pdus)
        for index, pdu in enumerate(found):
            ends = last and index == len(found) - 1
            block = pcapng.packet(number, nanoseconds, *envelope.wrapped(pdu, hba), comment if ends else "")
            self._numbers += 1
            heapq.heappush(self._waiting, _Waiting(nanoseconds, self._numbers, self._exchanges, block, ends))


def _interface(hba: int) -> bytes:
    return pcapng.interface(envelope.LINK_TYPE, f"hba{hba}", f"SCSI commands of HBA {hba}, as iSCSI")


def _comment(seen: Seen) -> str:
    """Return the times of a command that iSCSI has no place for."""
    parts = [f"tag {seen.record.tag & 0xFFFF}"]
    if seen.queued is not None:
        parts.append(f"queued {seen.queued * 1e3:.3f} ms")
    if seen.storage is not None:
        parts.append(f"storage {seen.storage * 1e3:.3f} ms")
    return ", ".join(parts)
