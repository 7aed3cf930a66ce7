"""The commands of a capture file, in the order of their arrival.

Reads the files that `packets` writes: iSCSI PDUs in exported packets. Everything is checked, since a file may
be damaged.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vscsihba.capture import envelope, iscsi, pcapng
from vscsihba.capture.packets import SYNTHETIC
from vscsihba.errors import UsageError

_READ, _WRITE = 0x40, 0x20
_MOST_OPEN: Final = 1 << 16
"""Commands that may be under way at the same time; a damaged file may claim any number."""

_LONGEST: Final = 256 << 20
"""Bytes of data of one command."""


@dataclass(slots=True)
class SavedCommand:
    """A command of a capture.

    Attributes:
        number: Its place in the file, from 1.
        hba: Name of its HBA, such as ``hba0``.
        lun: Logical unit number.
        nanoseconds: Time of its arrival, since 1970.
        cdb: The CDB.
        is_read: The data went to the initiator.
        is_write: The data went to the target.
        length: Bytes of the initiator's buffer.
        data: The data, as far as it was kept.
        cut: Some of the data was not kept.
        status: SAM status; None if the capture ends before.
        sense: Sense data.
        residual: Bytes of the buffer that were not transferred.
    """

    number: int
    hba: str
    lun: int
    nanoseconds: int
    cdb: bytes
    is_read: bool
    is_write: bool
    length: int
    data: bytearray
    cut: bool = False
    status: int | None = None
    sense: bytes = b""
    residual: int = 0


def saved_commands(path: Path) -> Iterator[SavedCommand]:
    """Yield the commands of a capture, in the order of their arrival, without those that have no answer.

    Raises:
        UsageError: It is not a capture of vscsihba, or is damaged.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        reader = _Commands(str(path))
        for packet in pcapng.packets(file, str(path)):
            reader.add(packet)
            yield from reader.finished()
        reader.end()
        yield from reader.finished()


class _Commands:
    """Puts commands together from packets."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: dict[tuple[str, int], SavedCommand] = {}
        self._order: list[SavedCommand] = []
        self._number = 0

    def add(self, packet: pcapng.Packet) -> None:
        """Take a packet.

        Raises:
            UsageError: It is not one of ours.
        """
        if packet.link_type != envelope.LINK_TYPE:
            raise UsageError(f"{self._name} is a capture of something else than SCSI commands")
        try:
            pdu = envelope.unwrapped(packet.data, "iscsi")
            if packet.comment != SYNTHETIC:
                self._add(packet, pdu, cut=packet.length > len(packet.data))
        except (ValueError, struct.error, IndexError) as error:
            raise UsageError(f"{self._name}: packet {self._number + 1} is malformed: {error}") from error

    def _add(self, packet: pcapng.Packet, pdu: bytes, *, cut: bool) -> None:
        if len(pdu) < iscsi.BHS:
            raise ValueError("a PDU is cut off")
        opcode, key = pdu[0] & 0x3F, (packet.interface, int.from_bytes(pdu[16:20], "big"))
        begin = iscsi.BHS + 4 * pdu[4]
        data = pdu[begin : begin + int.from_bytes(pdu[5:8], "big")]
        if opcode == iscsi.Opcode.COMMAND:
            self._begin(packet, pdu, begin, key)
            self._take(key, 0, data, cut=cut)
        elif opcode in (iscsi.Opcode.DATA_OUT, iscsi.Opcode.DATA_IN):
            self._take(key, int.from_bytes(pdu[40:44], "big"), data, cut=cut)
        elif opcode == iscsi.Opcode.RESPONSE and (command := self._open.pop(key, None)) is not None:
            command.status = pdu[3]
            command.sense = data[2 : 2 + int.from_bytes(data[:2], "big")]
            command.residual = int.from_bytes(pdu[44:48], "big")

    def _begin(self, packet: pcapng.Packet, pdu: bytes, end: int, key: tuple[str, int]) -> None:
        if len(self._open) >= _MOST_OPEN:
            raise ValueError(f"more than {_MOST_OPEN} commands have no answer")
        cdb = pdu[32 : iscsi.BHS]
        if end > iscsi.BHS:
            length = int.from_bytes(pdu[48:50], "big")
            cdb += pdu[52 : 51 + length]
        self._number += 1
        length = int.from_bytes(pdu[20:24], "big")
        if length > _LONGEST:
            raise ValueError(f"a command has {length} bytes of data")
        command = SavedCommand(
            self._number,
            packet.interface,
            iscsi.lun_of(int.from_bytes(pdu[8:16], "big")),
            packet.nanoseconds,
            cdb,
            bool(pdu[1] & _READ),
            bool(pdu[1] & _WRITE),
            length,
            bytearray(),
        )
        self._open[key] = command
        self._order.append(command)

    def _take(self, key: tuple[str, int], at: int, data: bytes, *, cut: bool) -> None:
        """Add a piece of a command's data."""
        command = self._open.get(key)
        if command is None:
            return
        command.cut |= cut
        if at == len(command.data) and at + len(data) <= command.length:
            command.data += data
        elif data:
            command.cut = True

    def finished(self) -> Iterator[SavedCommand]:
        """Yield the commands that have an answer, up to the first one without."""
        done = 0
        for command in self._order:
            if command.status is None:
                break
            done += 1
        if done:
            yield from self._order[:done]
            del self._order[:done]

    def end(self) -> None:
        """Forget the commands without an answer: the file has ended."""
        self._order = [command for command in self._order if command.status is not None]
        self._open.clear()
