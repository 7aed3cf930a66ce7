"""The journal of one ring: what a successor must know to finish what was under way.

A killed process leaves the ring behind, but not all that it knew of it: answers go into
the oldest open slot, so the request of a command that is still open may be overwritten
or recycled. So each command on the long road is recorded here until its answer counts:
a copy of its entry, whether it has begun to change the medium, and at last its answer.

The table is plain memory that outlives the process. Its owner may be killed between any
two stores, so each change ends in one aligned store that makes it valid: the `state` of
a record, or the `position`, the place of the next answer. An answer counts from the
moment on at which the position has moved over its slot; `intent` tells beforehand where
it will move to. Damage shows as a checksum, a word or a combination that cannot be.

Commands of the short cut leave no record and no position: see `vscsihba.tcmu.survey`
for what follows from the table. This module knows neither the ring nor files.
"""

import struct
import zlib
from dataclasses import dataclass

from vscsihba.errors import JournalDamagedError
from vscsihba.tcmu import abi
from vscsihba.tcmu.response import Response

UNITS = 1536
"""Records of one unit that there is room for; tcm_loop has 1024 commands under way at most (can_queue)."""
UNIT = 512
"""Bytes of a unit; a record whose entry is larger takes more than one."""

_POSITION, _INTENT = 64, 72  # the 64 bytes before are the file's header
_STATES = 4096
_LINKS = _STATES + 4 * UNITS
_FIRST = _LINKS + 4 * UNITS
SIZE = _FIRST + UNITS * UNIT

VOID, DISTRUSTED = 0, 1
"""Positions that no answer has: nothing is recorded; the ring must be reset before anything else."""

FREE = 0
ACCEPTED, BEGUN, DONE = (int.from_bytes(word, "big") for word in (b"ACPT", b"BEGN", b"DONE"))
"""States of a record: handed out; changing the medium in a way that must not be repeated; being answered."""

_HEAD = struct.Struct("=QII")
"""sequence, position of the entry, its length; a CRC of these and the entry follows."""
_HEAD_CRC = _HEAD.size
_ANSWER_AT = 32
_ANSWER = struct.Struct(f"=BB2xI{abi.TCMU_SENSE_BUFFERSIZE}s")
"""uflags, scsi_status, valid, sense; a CRC of these follows."""
_ANSWER_CRC = _ANSWER_AT + _ANSWER.size
_CRC = struct.Struct("=I")
_CMD_ID = struct.Struct("=H")
_ENTRY_AT = 144
_INLINE = UNIT - _ENTRY_AT
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One command as it is in the table.

    Attributes:
        sequence: Its place in the order of arrival.
        at: Where its entry was, in bytes from the start of the map.
        entry: The whole entry.
        state: `ACCEPTED`, `BEGUN` or `DONE`.
        units: What it takes of the table.
        answer: With `DONE`, what it is answered with.
    """

    sequence: int
    at: int
    entry: bytes
    state: int
    units: tuple[int, ...]
    answer: Response | None

    @property
    def cmd_id(self) -> int:
        """The kernel's name for the command."""
        (cmd_id,) = _CMD_ID.unpack_from(self.entry, abi.tcmu_cmd_entry_hdr.cmd_id.offset)
        return int(cmd_id)


class Journal:
    """The table over `SIZE` bytes of memory, all zeroes if new.

    Its owner alone writes to it, from one thread.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._position = memory[_POSITION : _POSITION + 8].cast("Q")
        self._intent = memory[_INTENT : _INTENT + 4].cast("I")
        self._states = memory[_STATES : _STATES + 4 * UNITS].cast("I")
        self._links = memory[_LINKS : _LINKS + 4 * UNITS].cast("I")
        self._free = list(range(UNITS - 1, -1, -1))
        self._units: dict[int, tuple[int, ...]] = {}
        self._sequence = 0
        if not self._position[0]:
            self.move_to(VOID)

    @property
    def position(self) -> int:
        """Where the next answer goes, or `VOID`, or `DISTRUSTED`.

        Raises:
            JournalDamagedError: The word and its complement do not match.
        """
        word: int = self._position[0]
        if (word ^ word >> 32) & _MASK != _MASK:
            raise JournalDamagedError(f"the position {word:#x} in the journal is damaged")
        return word & _MASK

    @property
    def is_void(self) -> bool:
        """Tell whether it says nothing, being new."""
        return self._position[0] == _MASK << 32

    def move_to(self, position: int) -> None:
        """Store where the next answer goes: all answers before it count from now on."""
        self._position[0] = position | (position ^ _MASK) << 32

    @property
    def room(self) -> int:
        """Units that are free."""
        return len(self._free)

    @property
    def intent(self) -> int:
        """Where the latest answer that was written one by one has moved, or was to move, the position."""
        return int(self._intent[0])

    def accept(self, cmd_id: int, at: int, entry: memoryview) -> bool:
        """Record a command with a copy of its entry; return False if there is no room."""
        units = self._take(len(entry))
        if not units:
            return False
        first, memory = units[0], self._memory
        head = _HEAD.pack(self._sequence, at, len(entry))
        begin = _FIRST + first * UNIT
        memory[begin : begin + _HEAD.size] = head
        _CRC.pack_into(memory, begin + _HEAD_CRC, zlib.crc32(entry, zlib.crc32(head)))
        inline = entry[:_INLINE]
        memory[begin + _ENTRY_AT : begin + _ENTRY_AT + len(inline)] = inline
        if len(units) > 1:
            self._store_rest(units, entry[_INLINE:])
        self._states[first] = ACCEPTED
        self._units[cmd_id] = units
        self._sequence += 1
        return True

    def _take(self, length: int) -> tuple[int, ...]:
        free = self._free
        more = -(-(length - _INLINE) // UNIT) if length > _INLINE else 0
        if len(free) <= more:
            return ()
        return (free.pop(),) if not more else tuple(free.pop() for _ in range(more + 1))

    def _store_rest(self, units: tuple[int, ...], rest: memoryview) -> None:
        for index, unit in enumerate(units[1:]):
            piece = rest[index * UNIT : (index + 1) * UNIT]
            begin = _FIRST + unit * UNIT
            self._links[units[index]] = unit
            self._memory[begin : begin + len(piece)] = piece

    def begin(self, cmd_id: int) -> None:
        """Note that a command is about to do what must not be done twice."""
        units = self._units.get(cmd_id)
        if units:
            self._states[units[0]] = BEGUN

    def answer(self, cmd_id: int, after: int, response: Response) -> None:
        """Record the answer that is about to be written, after which the position will be `after`.

        A command without a record is answered in one piece with its execution: nothing but the
        intent is noted.
        """
        self._intent[0] = after
        units = self._units.get(cmd_id)
        if units is None:
            return
        packed = _ANSWER.pack(*response)
        begin = _FIRST + units[0] * UNIT
        self._memory[begin + _ANSWER_AT : begin + _ANSWER_CRC] = packed
        _CRC.pack_into(self._memory, begin + _ANSWER_CRC, zlib.crc32(packed))
        self._states[units[0]] = DONE

    def forget(self, cmd_id: int) -> None:
        """Clear the record of a command whose answer counts."""
        units = self._units.pop(cmd_id, None)
        if units:
            self._states[units[0]] = FREE
            self._free.extend(units)

    def load(self) -> list[Record]:
        """Return what is recorded, in order of arrival.

        Raises:
            JournalDamagedError: A record is not as it was stored.
        """
        records = [self._read(unit, state) for unit, state in enumerate(self._states) if state != FREE]
        taken = [unit for record in records for unit in record.units]
        if len(taken) != len(set(taken)):
            raise JournalDamagedError("two records of the journal share a place")
        return sorted(records, key=lambda record: record.sequence)

    def _read(self, unit: int, state: int) -> Record:
        begin = _FIRST + unit * UNIT
        head = bytes(self._memory[begin : begin + _HEAD.size])
        sequence, at, length = _HEAD.unpack(head)
        units = self._chain(unit, length)
        entry = b"".join(self._pieces(units))[:length]
        (crc,) = _CRC.unpack_from(self._memory, begin + _HEAD_CRC)
        if state not in (ACCEPTED, BEGUN, DONE) or crc != zlib.crc32(entry, zlib.crc32(head)):
            raise JournalDamagedError(f"record {unit} of the journal is damaged")
        answer = None
        if state == DONE:
            packed = bytes(self._memory[begin + _ANSWER_AT : begin + _ANSWER_CRC])
            (crc,) = _CRC.unpack_from(self._memory, begin + _ANSWER_CRC)
            if crc != zlib.crc32(packed):
                raise JournalDamagedError(f"the answer in record {unit} of the journal is damaged")
            answer = Response(*_ANSWER.unpack(packed))
        return Record(sequence, at, entry, state, units, answer)

    def _chain(self, unit: int, length: int) -> tuple[int, ...]:
        chain = [unit]
        while _INLINE + (len(chain) - 1) * UNIT < length:
            unit = self._links[unit]
            if unit >= UNITS or unit in chain:
                raise JournalDamagedError(f"record {chain[0]} of the journal is damaged")
            chain.append(unit)
        return tuple(chain)

    def _pieces(self, units: tuple[int, ...]) -> list[memoryview]:
        begins = [_FIRST + unit * UNIT for unit in units]
        return [
            self._memory[begin + (_ENTRY_AT if index == 0 else 0) : begin + UNIT]
            for index, begin in enumerate(begins)
        ]

    def adopt(self, records: list[Record]) -> None:
        """Go on with the `records` of a predecessor."""
        self._units = {record.cmd_id: record.units for record in records}
        taken = {unit for record in records for unit in record.units}
        self._free = [unit for unit in range(UNITS - 1, -1, -1) if unit not in taken]
        self._sequence = max((record.sequence + 1 for record in records), default=0)
        stale = {unit for unit, state in enumerate(self._states) if state != FREE} - taken
        for unit in stale:  # of an answer that counts
            self._states[unit] = FREE

    def restart(self, position: int) -> None:
        """Forget everything: the ring begins anew at `position`."""
        self.move_to(VOID)
        self._memory[_STATES : _STATES + 4 * UNITS] = bytes(4 * UNITS)
        self._intent[0] = 0
        self._units.clear()
        self._free = list(range(UNITS - 1, -1, -1))
        self.move_to(position)

    def release(self) -> None:
        """Let go of the memory; the table stays for whoever comes next."""
        for view in (self._position, self._intent, self._states, self._links, self._memory):
            view.release()


def make_journal() -> Journal:
    """Return a journal that ends with the process, for a ring that nobody takes over."""
    return Journal(memoryview(bytearray(SIZE)))
