"""The fast path: plain READs and WRITEs from the ring to the handler and back, in one call.

It uses the same parts as the slow path: the field layout of the opcode table, the capacity of the logical
unit, the inline verbs of the handler. A command that is not plain is left untouched, and takes the slow path,
which can wait and refuse. A flag in the CDB, a pending unit attention, a page that is not cached and any
exception of the handler make a command not plain.
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
    """Conditions of the fast path, updated by the serving thread.

    Attributes:
        clear: Plain commands may take it.
        writable: Plain writes may take it too.
        blocks: Capacity in blocks.
    """

    clear: bool = False
    writable: bool = False
    blocks: int = 0


class UnitFastPath(NamedTuple):
    """The fast path of one logical unit.

    Attributes:
        execute: Executes one command; see `vscsihba.transport.FastPath`.
        end_batch: To be called after each batch, before `stats.batches` is increased. It never raises.
    """

    execute: FastPath
    end_batch: Callable[[], None]


def make_fast_path(
    memory: memoryview, state: FastPathState, unit: LogicalUnit, inline: InlineVerbs, stats: LunStats
) -> UnitFastPath:
    """Return the fast path of one logical unit.

    It is a closure, so that all its names are local variables: it runs once a command.
    """
    parts = batched(inline.write or _refuse)
    plain = _plain(unit, inline, parts.first)
    shift = unit.block_size.bit_length() - 1
    write_on, end_writes = parts.rest, parts.end
    written_in: int | None = None

    def execute(cdb_at: int, views: list[memoryview], length: int, _cmd_id: int) -> bool:
        nonlocal written_in
        entry = plain[memory[cdb_at]]
        if entry is None or not state.clear:
            return False
        unpack_from, move, move_flags, most, is_write = entry
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
    """Return the CDB decoder and the inline verb, with its limits, for each opcode of the fast path."""
    limit = unit.max_transfer_blocks * unit.block_size
    reads = (inline.read, inline.read_flags, limit)
    writes = (inline.write and write, inline.write_flags, min(limit, inline.write_limit))
    plain: list[tuple[Any, ...] | None] = [None] * 256
    for opcode, (unpack_from, is_write) in FAST_PATH_OPCODES.items():
        if (verb := writes if is_write else reads)[0] is not None:
            plain[opcode] = (unpack_from, *verb, is_write)
    return plain


def _refuse(_views: Any, _offset: int, _flags: int) -> int:
    """Stand in for an inline verb that the handler does not have."""
    raise BlockingIOError
