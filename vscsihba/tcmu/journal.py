"""The journal of one ring: the record from which a successor finishes the commands under way.

A killed process leaves the ring behind, but not all that it knew of it: completions go into
the oldest open slot, so the request of a command that is still open may be overwritten
or recycled. So each command on the slow path is recorded here until its completion counts:
a copy of its entry, whether it has begun to change the medium, and at last its completion.

The table is plain memory that outlives the process. Its owner may be killed between any
two stores, so each change ends in one aligned store that makes it valid: the `state` of
a record, or the `position`, the place of the next completion. A completion counts from the
moment at which the position has moved over its slot; before that, `intent` says where
the position will move. Damage shows as a wrong checksum, word or combination.

Commands of the fast path leave no record and no position: see `vscsihba.tcmu.recovery_scan`
for the consequences. This module knows neither the ring nor files.
"""

import zlib

from vscsihba.errors import JournalDamagedError
from vscsihba.tcmu.completions import Completion
from vscsihba.tcmu.record import (
    ACCEPTED,
    BEGUN,
    COMPLETION_AT,
    COMPLETION_END,
    DONE,
    ENTRY_AT,
    FIRST,
    FREE,
    HEAD,
    HEAD_AND_CRC,
    INLINE,
    LINKS,
    SIZE,
    STATES,
    UNIT,
    UNITS,
    Record,
    Records,
    pack_completion,
)

VOID, DISTRUSTED = 0, 1
"""Positions that no completion has: nothing is recorded; the ring must be reset before anything else."""

_POSITION, _INTENT = 64, 72  # the 64 bytes before are the file's header
_MASK = 0xFFFFFFFF
_WORD = _MASK << 32
"""The word of position 0; that of `position` has the complement of it in its upper half: `_MASK` less."""


class Journal:
    """The table over `SIZE` bytes of memory, all zeroes if new.

    Its owner alone writes to it, from one thread.

    Attributes:
        free: Units without a record.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._position = memory[_POSITION : _POSITION + 8].cast("Q")
        self._intent = memory[_INTENT : _INTENT + 4].cast("I")
        self._states = memory[STATES:LINKS].cast("I")
        self._links = memory[LINKS:FIRST].cast("I")
        self.free = list(reversed(range(UNITS)))
        self._units: dict[int, tuple[int, ...]] = {}
        self._sequence = 0
        if not self._position[0]:
            self.move_to(VOID)

    @property
    def position(self) -> int:
        """The place of the next completion, or `VOID`, or `DISTRUSTED`.

        Raises:
            JournalDamagedError: The word and its complement do not match.
        """
        word: int = self._position[0]
        if (word ^ word >> 32) & _MASK != _MASK:
            raise JournalDamagedError(f"the position {word:#x} in the journal is damaged")
        return word & _MASK

    @property
    def is_void(self) -> bool:
        """Return whether it is new and holds nothing."""
        return self._position[0] == _MASK << 32

    def move_to(self, position: int) -> None:
        """Store the place of the next completion: all completions before it count from now on."""
        self._position[0] = _WORD - position * _MASK

    @property
    def intent(self) -> int:
        """The position after the latest completion that was written one by one; it may not count yet."""
        return int(self._intent[0])

    def accept(self, cmd_id: int, at: int, entry: memoryview) -> bool:
        """Record a command with a copy of its entry; return False if there is no room."""
        free, length = self.free, len(entry)
        more = (ENTRY_AT + length - 1) // UNIT  # the first unit has ENTRY_AT bytes of its own
        if len(free) <= more:
            return False
        units = (free.pop(),) if not more else tuple(free.pop() for _ in range(more + 1))
        first, sequence = units[0], self._sequence
        crc = zlib.crc32(entry, zlib.crc32(HEAD.pack(sequence, at, length)))
        begin = FIRST + first * UNIT
        HEAD_AND_CRC.pack_into(self._memory, begin, sequence, at, length, crc)
        inline = entry if not more else entry[:INLINE]
        self._memory[begin + ENTRY_AT : begin + ENTRY_AT + len(inline)] = inline
        if more:
            self._store_rest(units, entry[INLINE:])
        self._states[first] = ACCEPTED
        self._units[cmd_id] = units
        self._sequence = sequence + 1
        return True

    def _store_rest(self, units: tuple[int, ...], rest: memoryview) -> None:
        for index, unit in enumerate(units[1:]):
            piece = rest[index * UNIT : (index + 1) * UNIT]
            begin = FIRST + unit * UNIT
            self._links[units[index]] = unit
            self._memory[begin : begin + len(piece)] = piece

    def begin(self, cmd_id: int) -> None:
        """Record that a command is about to do what must not be done twice."""
        units = self._units.get(cmd_id)
        if units:
            self._states[units[0]] = BEGUN

    def complete(self, cmd_id: int, after: int, completion: Completion) -> None:
        """Record a completion that is about to be written, after which the position will be `after`.

        A command without a record is completed in one step with its execution: only the intent is stored.
        """
        self._intent[0] = after
        units = self._units.get(cmd_id)
        if units is None:
            return
        begin = FIRST + units[0] * UNIT
        self._memory[begin + COMPLETION_AT : begin + COMPLETION_END] = pack_completion(completion)
        self._states[units[0]] = DONE

    def settle(self, cmd_id: int, after: int) -> None:
        """Let a completion that was written count: move the position to `after`, and clear its record."""
        self._position[0] = _WORD - after * _MASK
        units = self._units.pop(cmd_id, None)
        if units:
            self._states[units[0]] = FREE
            self.free.extend(units)

    def forget(self, cmd_id: int) -> None:
        """Clear the record of a command whose completion counts."""
        units = self._units.pop(cmd_id, None)
        if units:
            self._states[units[0]] = FREE
            self.free.extend(units)

    def load(self) -> list[Record]:
        """Return all records, in order of arrival.

        Raises:
            JournalDamagedError: A record is not as it was stored.
        """
        return Records(self._memory, self._states, self._links).load()

    def adopt(self, records: list[Record]) -> None:
        """Take over the `records` of a predecessor."""
        self._units = {record.cmd_id: record.units for record in records}
        taken = {unit for record in records for unit in record.units}
        self.free = [unit for unit in reversed(range(UNITS)) if unit not in taken]
        self._sequence = max((record.sequence + 1 for record in records), default=0)
        stale = {unit for unit, state in enumerate(self._states) if state != FREE} - taken
        for unit in stale:  # of a completion that counts
            self._states[unit] = FREE

    def restart(self, position: int) -> None:
        """Clear everything: the ring begins anew at `position`."""
        self.move_to(VOID)
        self._memory[STATES:LINKS] = bytes(LINKS - STATES)
        self._intent[0] = 0
        self._units.clear()
        self.free = list(reversed(range(UNITS)))
        self.move_to(position)

    def release(self) -> None:
        """Release the memory; the table stays for a successor."""
        for view in (self._position, self._intent, self._states, self._links, self._memory):
            view.release()


def make_journal() -> Journal:
    """Return a journal that ends with the process, for a ring that nobody takes over."""
    return Journal(memoryview(bytearray(SIZE)))
