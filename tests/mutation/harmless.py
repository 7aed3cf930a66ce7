"""Faults that no test can or should notice, each with the reason. A table, and nothing else."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Harmless:
    """A fault that changes nothing that matters.

    Attributes:
        path: Of the module, below the top of the tree.
        code: The line, without its indentation.
        what: The fault, as `mutants` calls it.
        why: The reason, a sentence.
    """

    path: str
    code: str
    what: str
    why: str


_TASKS: Final = "vscsihba/engine/serving/task_set.py"
_FAST: Final = "vscsihba/engine/serving/fast_path.py"
_SAID_FIRST: Final = "The unit sets all of them before its first command."
_TWO_CLUSTERS: Final = "if len(view) <= count + size:  # two clusters, as most commands that touch several"
_SAME_READ: Final = "It reads the same, by the way for other clusters."
_REFUSED: Final = "Calling None raises an exception, too, and every exception leads to the slow path."

_SOON: Final = "A moment sooner or later makes no difference."
_RECORD: Final = "vscsihba/tcmu/record.py"
_RING: Final = "vscsihba/tcmu/ring.py"

_PRIVATE: Final = 'private = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")'
_LENGTH: Final = "Any length does that fits into a name and that nobody guesses."
_ZEROES: Final = "zeroes = memoryview(bytes(1 << 20))"
_NO_FD: Final = "No negative number is a descriptor, so that using one fails with EBADF."
_BUFFER: Final = "A buffer of any multiple of 4 KiB does; longer requests take several turns."
_WINDOW: Final = "It limits how long a search keeps other threads waiting, not the result of the search."

_AT_ONCE: Final = "Dirty blocks are the same below, whether one write takes 1 MiB of them or 2 MiB."

_MARK: Final = "handlers/mirror/mark.py"
_STATE: Final = "handlers/mirror/state.py"
_RANGES: Final = "handlers/shared/range_lock.py"
_FIRST_OF_ALL: Final = "if len(queue) > 1 and self._must_wait(mine):"
_NOBODY_ELSE: Final = "A range that is alone in the queue never waits; the comparison saves a call."
_UNCHANGED: Final = "Nothing assigns to a field of one, and each is made with the names of its fields."

_BORDER: Final = "border = border if found < 0 else found"
_BEHIND_THE_FIRST: Final = "The search begins behind the first cluster, so that nothing is found at 0."
_EXTEND: Final = "self.states.extend(bytes(max(0, clusters - len(self.states))))"

_ANY_PLACE: Final = "Any place of an empty ring does."
_LOG: Final = "handlers/qemu/write_log.py"
_FLUSHES: Final = "vscsihba/scsi/failed_flush.py"

HARMLESS: Final = (
    Harmless(_LOG, "self._at = 0", "0 -> 1", "Nothing is appended before the log is empty."),
    Harmless(_LOG, "self._at = 0  # memory that was used before is used first", "0 -> 1", _ANY_PLACE),
    Harmless(
        "handlers/cow/state_note.py", "first = last = -1", "1 -> 2", "No cluster has a negative number."
    ),
    Harmless("handlers/cow/admin.py", "_AT_ONCE = 1 << 20", "1 -> 2", "Any size of the buffer does."),
    Harmless("handlers/cow/admin.py", "_AT_ONCE = 1 << 20", "20 -> 21", "Any size of the buffer does."),
    Harmless(
        "handlers/encrypt/luks1.py",
        "_FIRST_STRIPES, _ALIGN = 8, 8",
        "8 -> 9",
        "The header says where they are.",
    ),
    Harmless("handlers/encrypt/luks.py", "_AT_ONCE = 1 << 20", "1 -> 2", "Any size of the buffer does."),
    Harmless("handlers/encrypt/luks.py", "_AT_ONCE = 1 << 20", "20 -> 21", "Any size of the buffer does."),
    Harmless(_FLUSHES, "WINDOW: Final = 30_000", "30000 -> 30001", _SOON),
    Harmless(
        _FLUSHES,
        "clock: Callable[[], int] = lambda: 0,",
        "0 -> 1",
        "A clock that stands still may say anything.",
    ),
    Harmless(
        "vscsihba/scsi/faults.py",
        "return Sense(*SENSE_OF_ERRNO.get(fault.errno or 0, _UNKNOWN))",
        "drop '0'",
        "The table has neither.",
    ),
    Harmless("handlers/shared/durable.py", _PRIVATE, "50 -> 51", _LENGTH),
    Harmless("handlers/shared/durable.py", _PRIVATE, "8 -> 9", _LENGTH),
    Harmless("handlers/file/making.py", _ZEROES, "1 -> 2", "Any size of the buffer does."),
    Harmless("handlers/file/making.py", _ZEROES, "20 -> 21", "Any size of the buffer does."),
    Harmless("handlers/file/direct.py", "fd, self._fd = self._fd, -1", "1 -> 2", _NO_FD),
    Harmless("handlers/file/direct.py", "_ROOM = 1 << 20", "1 -> 2", _BUFFER),
    Harmless("handlers/file/direct.py", "_ROOM = 1 << 20", "20 -> 21", _BUFFER),
    Harmless(
        "handlers/shared/tmpfs_store.py",
        "if length > 0 and start // _PAGE != (start + length - 1) // _PAGE:",
        "0 -> 1",
        "A range of one byte is inside one page.",
    ),
    Harmless("handlers/cow/cluster_map.py", "_LONGEST_LOOK = 1 << 20", "1 -> 2", _WINDOW),
    Harmless("handlers/cow/cluster_map.py", "_LONGEST_LOOK = 1 << 20", "20 -> 21", _WINDOW),
    Harmless("handlers/cache/write_back.py", "_AT_ONCE = 1 << 20", "1 -> 2", _AT_ONCE),
    Harmless("handlers/cache/write_back.py", "_AT_ONCE = 1 << 20", "20 -> 21", _AT_ONCE),
    Harmless(
        "handlers/cache/write_back.py",
        "start, end, parts = 0, -1, list[Part]()",
        "0 -> 1",
        "The first part sets it before it is used.",
    ),
    Harmless(
        "handlers/cache/write_back.py",
        "start, end, parts = 0, -1, list[Part]()",
        "1 -> 2",
        "The first part sets it before it is used.",
    ),
    Harmless("handlers/cache/handler.py", "_GAP = 64 << 10", "64 -> 65", "Blocks have 4 KiB at least."),
    Harmless(
        "handlers/cache/handler.py",
        "kept = self._lines.hold(number, touched(within, count, size), part) and kept",
        "drop 'kept'",
        "The blocks that were not kept are fetched once more, alone; then the write goes past the cache.",
    ),
    Harmless(
        "handlers/cache/inline.py",
        "if within + length > line_size:",
        "Gt -> GtE",
        "A request for a whole line is cut into one piece then, and read by the same call.",
    ),
    Harmless(_STATE, "period: int = 0", "0 -> 1", "Where there are no regions, no period matters."),
    Harmless(_RANGES, _FIRST_OF_ALL, "drop 'len(queue) > 1'", _NOBODY_ELSE),
    Harmless(_RANGES, _FIRST_OF_ALL, "Gt -> GtE", _NOBODY_ELSE),
    Harmless(
        _RANGES,
        'raise AssertionError("a range that waits is in the queue")',
        "leave out 'raise AssertionError('a range that waits is in the queue')'",
        "Whoever asks is in the queue, so that this line is never reached.",
    ),
    Harmless(_STATE, "class _LegOf1(msgspec.Struct, frozen=True):", "True -> False", _UNCHANGED),
    Harmless(
        _STATE, "class _HeaderOf1(msgspec.Struct, frozen=True, kw_only=True):", "True -> False", _UNCHANGED
    ),
    Harmless(
        _MARK,
        "mark = _read(disk, _at_end(disk)).metadata if _at_end(disk) >= 0 else None",
        "GtE -> Gt",
        "A mark at byte 0 would be that of a disk without a byte.",
    ),
    Harmless(
        _MARK,
        "end, beginning = _at_end(disk), length_with_mark(min(sizes, default=0)) - MARK",
        "0 -> 1",
        "A mark at byte 0 would be that of a disk without a byte.",
    ),
    Harmless(
        _MARK,
        "readings = [_read(disk, at) for at in sorted(places, reverse=True) if beginning <= at <= end]",
        "True -> False",
        "The event count decides; the order says which of two damaged marks is spoken of.",
    ),
    Harmless(
        _MARK,
        "write_bytes(disk, at, superblock.encode(sequence + 1, encode(mark), _MAGIC, _KIND))",
        "1 -> 2",
        "Any higher sequence counts.",
    ),
    Harmless(_STATE, "if want < have:", "Lt -> LtE", "Where the size stays, nothing is cut off."),
    Harmless("handlers/mirror/reading.py", "_SPREAD = 1 << 20", "1 -> 2", "Any length of a turn does."),
    Harmless("handlers/mirror/reading.py", "_SPREAD = 1 << 20", "20 -> 21", "Any length of a turn does."),
    Harmless(
        "handlers/mirror/reading.py",
        "if under_way > _FAR_MORE:",
        "Gt -> GtE",
        "The comparison two lines below decides the same for it.",
    ),
    Harmless(
        "handlers/mirror/reading.py",
        "if regions.unsettled and not regions.are_settled(offset, length):",
        "drop 'regions.unsettled'",
        "No region is in an empty set; asking for that first is quicker.",
    ),
    Harmless(
        "handlers/mirror/sync.py",
        "return False",
        "False -> True",
        "The loop that calls it looks first at whether the thread is to end.",
    ),
    Harmless("handlers/cow/inline.py", "if first != last and (", "drop 'first != last'", _SAME_READ),
    Harmless("handlers/cow/inline.py", _TWO_CLUSTERS, "negate the condition", _SAME_READ),
    Harmless("handlers/cow/inline.py", _TWO_CLUSTERS, "LtE -> Lt", _SAME_READ),
    Harmless("handlers/cow/inline.py", _TWO_CLUSTERS, "Add -> Sub", _SAME_READ),
    Harmless("handlers/cow/cluster_map.py", _BORDER, "Lt -> LtE", _BEHIND_THE_FIRST),
    Harmless("handlers/cow/cluster_map.py", _BORDER, "0 -> 1", _BEHIND_THE_FIRST),
    Harmless(
        "handlers/cow/overlay.py",
        _EXTEND,
        f"leave out '{_EXTEND[:57]}...'",
        "The call of `mark` on the next line appends the states of the new clusters as well.",
    ),
    Harmless(
        "handlers/encrypt/luks2.py",
        "sealed = Sectors(derive(kdf, passphrase, size), luks2_json.AREA_SECTOR).encrypt(stripes, 0)",
        "0 -> 1",
        "Byte 1 is in sector 0, too, and the tweak is the number of the sector.",
    ),
    Harmless(
        "handlers/cow/disk.py",
        "if start < end and not self.overlay.is_all(ZERO, start, end - start):",
        "Lt -> LtE",
        "An empty range is at the border of a cluster, where `is_all` is true: it touches no cluster.",
    ),
    Harmless(
        "handlers/encrypt/handler.py",
        "super().write_zeroes(offset, length, may_unmap=False)",
        "False -> True",
        "The method of the base class writes zeroes, whatever `may_unmap` says.",
    ),
    Harmless(
        "handlers/encrypt/handler.py",
        "if rest < stop and self.next.capabilities.unmap_zeroes:",
        "drop 'rest < stop'",
        "For an empty range no byte is written.",
    ),
    Harmless("handlers/encrypt/payload.py", "INLINE_SECTORS = 256", "256 -> 257", "Any limit does."),
    Harmless("handlers/encrypt/payload.py", "INLINE_BYTES = 512 << 10", "10 -> 11", "Any limit does."),
    Harmless("handlers/encrypt/sectors.py", "_BUFFER = 512 << 10", "512 -> 513", "Any size does."),
    Harmless(
        "handlers/encrypt/sectors.py",
        "if length > _BUFFER:",
        "Gt -> GtE",
        "A buffer that is made for a length of just that size is kept like the others.",
    ),
    Harmless("handlers/cow/disk.py", "_EXTENTS_AT_ONCE = 1024", "1024 -> 1025", "Any limit does."),
    Harmless(
        "handlers/cow/disk.py",
        "if start < stop and self.overlay.is_all(DATA, start, stop - start):",
        "Lt -> LtE",
        "Giving back an empty range does nothing.",
    ),
    Harmless(
        "handlers/shared/superblock.py",
        "if found != magic or end > len(slot) or zlib.crc32(slot[_CHECKED:end]) != crc:",
        "drop 'end > len(slot)'",
        "The checksum covers the length, so a wrong one would have to match by chance.",
    ),
    Harmless(
        "vscsihba/engine/owning/ownership.py",
        "if owned.failed and not owned.lost and now - owned.since >= RETRY",
        "GtE -> Gt",
        _SOON,
    ),
    Harmless(
        "vscsihba/engine/serving/aborts.py",
        "continue",
        "leave out",
        "A command that was given up is not open: the transport refuses to complete it a second time.",
    ),
    Harmless(
        "vscsihba/engine/serving/aborts.py",
        "self._give_up([task for task in named if time.monotonic() - task.started >= PATIENCE])",
        "GtE -> Gt",
        _SOON,
    ),
    Harmless(
        _RECORD,
        "if unit >= UNITS or unit in chain:",
        "drop 'unit in chain'",
        "A chain that leads back into itself has another checksum; this only ends it sooner.",
    ),
    Harmless(
        _RING,
        "if end >= limit or not start + 112 <= cdb_off < end:  # 112: abi.CMD_ENTRY_SIZE",
        "112 -> 113",
        "The closer look decides the same.",
    ),
    Harmless(
        _RING,
        "return self._positions.end if head < start else head + 1",
        "Add -> Sub",
        "One more command gets the closer look, which finds nothing wrong with it.",
    ),
    Harmless(
        _RING,
        "return self._positions.end if head < start else head + 1",
        "Lt -> LtE",
        "Where head and start are the same, no entry is held against the limit.",
    ),
    Harmless("vscsihba/tcmu/positions.py", "UNKNOWN = -1", "1 -> 2", "Any number does that is no position."),
    Harmless(_FAST, "clear: bool = False", "False -> True", _SAID_FIRST),
    Harmless(_FAST, "writable: bool = False", "False -> True", _SAID_FIRST),
    Harmless(_FAST, "blocks: int = 0", "0 -> 1", _SAID_FIRST),
    Harmless(_FAST, "parts = batched(inline.write or _refuse)", "drop '_refuse'", _REFUSED),
    Harmless(
        _FAST, "raise BlockingIOError", "leave out 'raise BlockingIOError'", "None is no length, either."
    ),
    Harmless(_FAST, "or not 0 < length <= most", "0 -> 1", "A length is a multiple of the block size."),
    Harmless(_FAST, "plain: list[tuple[Any, ...] | None] = [None] * 256", "256 -> 257", "Opcodes are bytes."),
    Harmless(
        _TASKS,
        "waiting = self._waiting or self._visits",
        "drop 'self._visits'",
        "Visits wait only for commands that are under way.",
    ),
    Harmless(
        _TASKS,
        "return not (self._running or self._background or self._abandoned or waiting)",
        "drop 'waiting'",
        "At its end a unit holds nothing back, so what waits then waits for a command that is under way.",
    ),
    Harmless(
        _TASKS,
        "task.command.close()",
        "leave out 'task.command.close()'",
        "Python closes a generator that is forgotten.",
    ),
    Harmless(
        _TASKS,
        "elif task.follows and not isinstance(op, Keep | Execute):",
        "drop 'not isinstance(op, Keep | Execute)'",
        "In background work only the state of the unit is stored: as a visit, after an exclusive command.",
    ),
    Harmless(
        _TASKS,
        "self.start_waiting()",
        "leave out 'self.start_waiting()'",
        "The next operation of the erasure begins what waits, too.",
    ),
)


def reason(path: str, code: str, what: str) -> str:
    """Return why a fault is harmless, empty if that is not known."""
    return next(
        (each.why for each in HARMLESS if (each.path, each.code, each.what) == (path, code, what)), ""
    )
