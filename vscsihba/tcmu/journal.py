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

import zlib

from vscsihba.errors import JournalDamagedError
from vscsihba.tcmu.record import (
    ACCEPTED,
    ANSWER,
    ANSWER_AT,
    ANSWER_CRC,
    BEGUN,
    CRC,
    DONE,
    ENTRY_AT,
    FIRST,
    FREE,
    HEAD,
    HEAD_CRC,
    INLINE,
    LINKS,
    SIZE,
    STATES,
    UNIT,
    UNITS,
    Record,
    Records,
)
from vscsihba.tcmu.response import Response

VOID, DISTRUSTED = 0, 1
"""Positions that no answer has: nothing is recorded; the ring must be reset before anything else."""

_POSITION, _INTENT = 64, 72  # the 64 bytes before are the file's header
_MASK = 0xFFFFFFFF


class Journal:
    """The table over `SIZE` bytes of memory, all zeroes if new.

    Its owner alone writes to it, from one thread.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._position = memory[_POSITION : _POSITION + 8].cast("Q")
        self._intent = memory[_INTENT : _INTENT + 4].cast("I")
        self._states = memory[STATES : STATES + 4 * UNITS].cast("I")
        self._links = memory[LINKS : LINKS + 4 * UNITS].cast("I")
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
        head = HEAD.pack(self._sequence, at, len(entry))
        begin = FIRST + first * UNIT
        memory[begin : begin + HEAD.size] = head
        CRC.pack_into(memory, begin + HEAD_CRC, zlib.crc32(entry, zlib.crc32(head)))
        inline = entry[:INLINE]
        memory[begin + ENTRY_AT : begin + ENTRY_AT + len(inline)] = inline
        if len(units) > 1:
            self._store_rest(units, entry[INLINE:])
        self._states[first] = ACCEPTED
        self._units[cmd_id] = units
        self._sequence += 1
        return True

    def _take(self, length: int) -> tuple[int, ...]:
        free = self._free
        more = -(-(length - INLINE) // UNIT) if length > INLINE else 0
        if len(free) <= more:
            return ()
        return (free.pop(),) if not more else tuple(free.pop() for _ in range(more + 1))

    def _store_rest(self, units: tuple[int, ...], rest: memoryview) -> None:
        for index, unit in enumerate(units[1:]):
            piece = rest[index * UNIT : (index + 1) * UNIT]
            begin = FIRST + unit * UNIT
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
        packed = ANSWER.pack(*response)
        begin = FIRST + units[0] * UNIT
        self._memory[begin + ANSWER_AT : begin + ANSWER_CRC] = packed
        CRC.pack_into(self._memory, begin + ANSWER_CRC, zlib.crc32(packed))
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
        return Records(self._memory, self._states, self._links).load()

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
        self._memory[STATES : STATES + 4 * UNITS] = bytes(4 * UNITS)
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
