"""Recovery scan: the journal of a killed predecessor compared with the ring.

These hold at every moment of a predecessor's life, hence at its death:

- the slots from `cmd_tail` up to the journal's position hold completions, each of which counts;
- behind it lie as many fetched command slots as there are records of open
  commands: a completion ends one record and takes one slot. So the number of records
  tells where fetching goes on, and no request is looked for in a slot that may hold
  the completion of another command;
- only the first of these slots may be half overwritten, by a completion that did not count yet;
- with no record there is no such slot: commands that the fast path has executed and not published lie
  behind the position with their entries whole but for iov_cnt (`DataArea.views`), and are fetched again.

The scan changes nothing, so it may end in an error at any point.
"""

import struct
from dataclasses import dataclass

from vscsihba.errors import JournalDamagedError, RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.data_area import DataArea
from vscsihba.tcmu.journal import DISTRUSTED, Journal
from vscsihba.tcmu.positions import Positions
from vscsihba.tcmu.record import DONE, Record

_FIELDS = struct.Struct("=I12xQ")
"""From byte 8 of an entry: iov_cnt, cdb_off."""
_CMD_ID = struct.Struct("=H")


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """An open command: its record, and the CDB and buffer that the record names."""

    record: Record
    cdb: bytes
    views: list[memoryview]


@dataclass(frozen=True, slots=True)
class RecoveryScan:
    """The state from which a successor goes on.

    Attributes:
        completed: The place of the next completion.
        fetched: The first entry that was not fetched.
        completed_slots: Slots whose completions count and may not have been published.
        open: Commands that are owed a completion, in order of arrival.
    """

    completed: int
    fetched: int
    completed_slots: tuple[int, ...]
    open: tuple[RecordedCommand, ...]


def scan(memory: memoryview, positions: Positions, tail: int, head: int, journal: Journal) -> RecoveryScan:
    """Compare the journal with the ring between `tail` and `head`, both in bytes from the start of the map.

    Raises:
        JournalDamagedError: It is damaged, or contradicts the ring.
    """
    position = journal.position
    if position == DISTRUSTED:
        raise JournalDamagedError("the journal was of no known device and had to be replaced")
    counts = journal.intent == position  # of the latest completion
    records = [record for record in journal.load() if record.state != DONE or not counts]
    try:
        commands = tuple(_read(record, memory, positions.end) for record in records)
        completed = _completed(positions, tail, head, position)
        taken, fetched = _taken(positions, position, head, len(records))
    except RingCorruptError as error:
        raise JournalDamagedError(f"the journal contradicts the ring: {error.message}") from error
    _compare(memory, completed, taken, commands, torn=journal.intent)
    return RecoveryScan(position, fetched, tuple(at for at, _ in completed), commands)


def _read(record: Record, memory: memoryview, data: int) -> RecordedCommand:
    """Return the command of a recorded entry, its buffer as views of the data area at byte `data`."""
    entry = memoryview(record.entry)
    count, cdb_off = _FIELDS.unpack_from(entry, abi.REQ_OFFSET)
    cdb_at = cdb_off - record.at
    if not abi.CMD_ENTRY_SIZE <= cdb_at < len(entry):
        raise RingCorruptError(f"command {record.cmd_id} is recorded with a CDB at {cdb_off}")
    views = DataArea(memory, data).views(entry, 0, count, cdb_at)
    return RecordedCommand(record, record.entry[cdb_at:], views)


def _completed(positions: Positions, tail: int, head: int, position: int) -> list[tuple[int, int]]:
    """Return the command slots from the tail up to the position, each with the next entry's."""
    slots, at = [], tail
    while at != position:
        if at == head:
            raise RingCorruptError(f"position {position} is not between {tail} and {head}")
        at, op, after = next(positions.walk(at, head))
        if op == abi.TCMU_OP_CMD:
            slots.append((at, after))
        at = after
    return slots


def _taken(positions: Positions, position: int, head: int, count: int) -> tuple[list[tuple[int, int]], int]:
    """Return the next `count` command slots from the position on, and the first entry behind them."""
    slots: list[tuple[int, int]] = []
    fetched = position
    for at, op, after in positions.walk(position, head) if count else ():
        if op == abi.TCMU_OP_CMD:
            slots.append((at, after))
        if len(slots) == count:
            fetched = after
            break
    if len(slots) != count:
        raise RingCorruptError(f"{count} commands are recorded, {len(slots)} are in the ring")
    return slots, fetched


def _compare(
    memory: memoryview,
    completed: list[tuple[int, int]],
    taken: list[tuple[int, int]],
    commands: tuple[RecordedCommand, ...],
    *,
    torn: int,
) -> None:
    """Compare the ids of records and completions, and the records with those requests that are whole.

    The kernel reuses an id only after its completion was published: so the last slot of an
    id that is recorded is the recorded command's own.

    Raises:
        JournalDamagedError: They cannot be of one and the same ring.
    """
    ids = [command.record.cmd_id for command in commands]
    ids += [_cmd_id(memory, at) for at, _ in completed]
    if len(ids) != len(set(ids)):
        raise JournalDamagedError("the journal contradicts the ring: a command is recorded and completed")
    if sum(command.record.state == DONE for command in commands) > 1:
        raise JournalDamagedError("the journal has two completions under way")
    whole = taken[1:] if taken and taken[0][1] == torn else taken
    own = {_cmd_id(memory, at): at for at, _ in whole}
    for command in commands:
        at, entry = own.get(command.record.cmd_id), command.record.entry
        if at is not None and (at != command.record.at or memory[at : at + len(entry)] != entry):
            raise JournalDamagedError(
                f"the journal contradicts the ring: command {command.record.cmd_id} is a different one"
            )


def _cmd_id(memory: memoryview, at: int) -> int:
    (cmd_id,) = _CMD_ID.unpack_from(memory, at + abi.tcmu_cmd_entry_hdr.cmd_id.offset)
    return int(cmd_id)
