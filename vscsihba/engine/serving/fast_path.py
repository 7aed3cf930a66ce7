"""The fast path: plain READs and WRITEs from the ring to the medium and back, in one call.

It is made of the slow path's own parts: the opcode table's field layout, the logical
unit's range, the handler's inline verbs. Whatever is not plain (a flag, an attention
pending, a page that is not cached, any exception of a handler) is left untouched to the
slow path, which knows how to wait and how to refuse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from vscsihba.handlers.base import InlineVerbs, Mover, batched
from vscsihba.scsi import FAST_PATH_OPCODES, LogicalUnit
from vscsihba.stats import LunStats
from vscsihba.transport import FastPath


@dataclass(slots=True)
class FastPathState:
    """Whether the fast path may be taken, kept by the serving thread.

    Attributes:
        clear: Nothing stands in the way of plain commands.
        writable: ... nor of plain writes.
        blocks: Capacity in blocks.
    """

    clear: bool = False
    writable: bool = False
    blocks: int = 0


class UnitFastPath(NamedTuple):
    """The fast path of one logical unit.

    Attributes:
        execute: Executes one command; see `vscsihba.transport.FastPath`.
        end_batch: To be called after each batch, before `stats.batches` is counted on. It never raises.
    """

    execute: FastPath
    end_batch: Callable[[], None]


def make_fast_path(
    memory: memoryview, state: FastPathState, unit: LogicalUnit, inline: InlineVerbs, stats: LunStats
) -> UnitFastPath:
    """Return the fast path of one logical unit.

    A closure, because every name in it is then a local one: this runs once a command.
    """
    parts = batched(inline.write or _refuse)
    plain = _plain(unit, inline, parts.first)
    shift = unit.block_size.bit_length() - 1
    write_on, end_writes = parts.rest, parts.end
    written_in = -1

    def execute(cdb_at: int, views: list[memoryview], length: int) -> bool:
        nonlocal written_in
        found = plain[memory[cdb_at]]
        if found is None or not state.clear:
            return False
        unpack_from, move, move_flags, most, is_write = found
        flags, lba, count, control = unpack_from(memory, cdb_at)
        if (
            flags
            or control
            or length != count << shift
            or not 0 < length <= most
            or lba + count > state.blocks
            or (is_write and not state.writable)
        ):
            return False
        if is_write and stats.batches == written_in:
            move = write_on
        try:
            if move(views, lba << shift, move_flags) != length:
                return False
        except (Exception, SystemExit):  # noqa: BLE001 - would block, or failed: the slow path tries again and answers
            return False
        if is_write:
            written_in = stats.batches
            stats.writes += 1
            stats.write_bytes += length
        else:
            stats.reads += 1
            stats.read_bytes += length
        return True

    def end_batch() -> None:
        if stats.batches == written_in:
            end_writes()

    return UnitFastPath(execute, end_batch)


def _plain(unit: LogicalUnit, inline: InlineVerbs, write: Mover) -> list[tuple[Any, ...] | None]:
    """Return for each opcode of the fast path how its CDB is read, and what moves its bytes."""
    limit = unit.max_transfer_blocks * unit.block_size
    reads = (inline.read or _refuse, inline.read_flags, limit)
    writes = (write, inline.write_flags, min(limit, inline.write_limit))
    plain: list[tuple[Any, ...] | None] = [None] * 256
    for opcode, (unpack_from, is_write) in FAST_PATH_OPCODES.items():
        plain[opcode] = (unpack_from, *(writes if is_write else reads), is_write)
    return plain


def _refuse(_views: Any, _offset: int, _flags: int) -> int:
    """Stand in for a verb that the handler cannot do inline."""
    raise BlockingIOError
