"""Records of a journal: the layout of the table, and reading one back.

A record holds one command in a unit of the table, or in several that are linked if its entry is long.
Nothing is trusted before its checksum is verified: the process that wrote it may have died at any store.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache

from vscsihba.errors import JournalDamagedError
from vscsihba.tcmu import abi
from vscsihba.tcmu.completions import Completion

UNITS = 1536
"""Records of one unit that there is room for; tcm_loop has 1024 commands under way at most (can_queue)."""
UNIT = 512
"""Bytes of a unit; a record whose entry is larger takes more than one."""

STATES = 4096
"""Byte of the table at which the state of each unit is, as a 32-bit word."""
LINKS = STATES + 4 * UNITS
"""Likewise the number of the unit that goes on where this one ends."""
FIRST = LINKS + 4 * UNITS
"""The first unit."""
SIZE = FIRST + UNITS * UNIT
"""Bytes of the table."""

FREE = 0
ACCEPTED, BEGUN, DONE = (int.from_bytes(word, "big") for word in (b"ACPT", b"BEGN", b"DONE"))
"""States of a record: handed out; changing the medium in a way that must not be repeated; being completed."""

HEAD = struct.Struct("=QII")
"""First in a unit: sequence, position of the entry, its length; a CRC of these and the entry follows."""
HEAD_CRC = HEAD.size
HEAD_AND_CRC = struct.Struct(f"{HEAD.format}I")
COMPLETION_AT = 32
COMPLETION = struct.Struct(f"=BB2xI{abi.TCMU_SENSE_BUFFERSIZE}s")
"""uflags, scsi_status, valid, sense; a CRC of these follows."""
COMPLETION_CRC = COMPLETION_AT + COMPLETION.size
COMPLETION_END = COMPLETION_CRC + 4
CRC = struct.Struct("=I")
ENTRY_AT = 144
INLINE = UNIT - ENTRY_AT
"""Bytes of the entry in the first unit."""

_CMD_ID = struct.Struct("=H")


@dataclass(frozen=True, slots=True)
class Record:
    """One command as it is in the table.

    Attributes:
        sequence: Its place in the order of arrival.
        at: Where its entry was, in bytes from the start of the map.
        entry: The whole entry.
        state: `ACCEPTED`, `BEGUN` or `DONE`.
        units: The units that it takes of the table.
        completion: With `DONE`, its completion.
    """

    sequence: int
    at: int
    entry: bytes
    state: int
    units: tuple[int, ...]
    completion: Completion | None

    @property
    def cmd_id(self) -> int:
        """The kernel's name for the command."""
        (cmd_id,) = _CMD_ID.unpack_from(self.entry, abi.tcmu_cmd_entry_hdr.cmd_id.offset)
        return int(cmd_id)


@lru_cache
def pack_completion(completion: Completion) -> bytes:
    """Return the bytes of a completion in a record, with their CRC; most completions are alike."""
    packed = COMPLETION.pack(*completion)
    return packed + CRC.pack(zlib.crc32(packed))


class Records:
    """Reader of a table; see `vscsihba.tcmu.journal.Journal` for how it is written.

    Args:
        memory: The table.
        states: Its states.
        links: Its links.
    """

    def __init__(self, memory: memoryview, states: memoryview, links: memoryview) -> None:
        self._memory = memory
        self._states = states
        self._links = links

    def load(self) -> list[Record]:
        """Return all records, in order of arrival.

        Raises:
            JournalDamagedError: A record is not as it was stored.
        """
        records = [self._read(unit, state) for unit, state in enumerate(self._states) if state != FREE]
        taken = [unit for record in records for unit in record.units]
        if len(taken) != len(set(taken)):
            raise JournalDamagedError("two records of the journal share a place")
        return sorted(records, key=lambda record: record.sequence)

    def _read(self, unit: int, state: int) -> Record:
        begin = FIRST + unit * UNIT
        head = bytes(self._memory[begin : begin + HEAD.size])
        sequence, at, length = HEAD.unpack(head)
        units = self._chain(unit, length)
        entry = b"".join(self._pieces(units))[:length]
        (crc,) = CRC.unpack_from(self._memory, begin + HEAD_CRC)
        if state not in (ACCEPTED, BEGUN, DONE) or crc != zlib.crc32(entry, zlib.crc32(head)):
            raise JournalDamagedError(f"record {unit} of the journal is damaged")
        completion = None
        if state == DONE:
            packed = bytes(self._memory[begin + COMPLETION_AT : begin + COMPLETION_CRC])
            (crc,) = CRC.unpack_from(self._memory, begin + COMPLETION_CRC)
            if crc != zlib.crc32(packed):
                raise JournalDamagedError(f"the completion in record {unit} of the journal is damaged")
            completion = Completion(*COMPLETION.unpack(packed))
        return Record(sequence, at, entry, state, units, completion)

    def _chain(self, unit: int, length: int) -> tuple[int, ...]:
        chain = [unit]
        while INLINE + (len(chain) - 1) * UNIT < length:
            unit = self._links[unit]
            if unit >= UNITS or unit in chain:
                raise JournalDamagedError(f"record {chain[0]} of the journal is damaged")
            chain.append(unit)
        return tuple(chain)

    def _pieces(self, units: tuple[int, ...]) -> list[memoryview]:
        begins = [FIRST + unit * UNIT for unit in units]
        return [
            self._memory[begin + (ENTRY_AT if index == 0 else 0) : begin + UNIT]
            for index, begin in enumerate(begins)
        ]
