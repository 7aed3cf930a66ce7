"""A logical unit on a bytearray, and a driver that performs its block operations."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

from vscsihba.block import (
    AskSpace,
    BlockOp,
    BlockResult,
    Buffer,
    Capabilities,
    CryptoErase,
    Extent,
    Extents,
    ExtentStatus,
    Flush,
    Geometry,
    Keep,
    OnUnit,
    Read,
    Space,
    Unmap,
    Write,
    WriteZeroes,
)
from vscsihba.errors import MediumError
from vscsihba.scsi import Asc, Identity, LogicalUnit, SenseKey, Status

Result = TypeVar("Result")
BLOCK = 512
THIN = Capabilities(flush=True, unmap=True, unmap_zeroes=True, extents=True)


@dataclass(frozen=True)
class Answer:
    """The response to one command, as the initiator sees it."""

    status: int
    data: bytes
    sense: bytes

    @property
    def good(self) -> bool:
        return self.status == Status.GOOD

    @property
    def condition(self) -> tuple[int, int] | None:
        """Sense key and additional sense code."""
        if not self.sense:
            return None
        if self.sense[0] & 0x7E == 0x72:
            return self.sense[1], int.from_bytes(self.sense[2:4], "big")
        return self.sense[2], int.from_bytes(self.sense[12:14], "big")

    @property
    def field(self) -> tuple[int, int | None] | None:
        """Byte and bit of the field pointer (fixed format)."""
        specific = self.sense[15:18]
        if len(specific) < 3 or not specific[0] & 0x80:
            return None
        return int.from_bytes(specific[1:], "big"), specific[0] & 7 if specific[0] & 8 else None

    @property
    def information(self) -> int | None:
        return int.from_bytes(self.sense[3:7], "big") if self.sense[0] & 0x80 else None


ALL = replace(THIN, crypto_erase=True, atomic_write=1 << 20)


def invalid_field(answer: Answer) -> tuple[int, int | None] | None:
    """Return the field pointer of an INVALID FIELD IN CDB; assert that it is one."""
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    return answer.field


def wrong_data_length(answer: Answer) -> bool:
    """Return whether a command was refused for the length of its data-out."""
    return answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)


class Disk:
    """An initiator, a logical unit and its medium in one."""

    def __init__(
        self, blocks: int = 64, block_size: int = BLOCK, capabilities: Capabilities = THIN, **options: object
    ) -> None:
        physical = options.pop("physical_block_size", block_size)
        assert isinstance(physical, int)
        geometry = Geometry(blocks * block_size, block_size, physical)
        identity = options.pop("identity", None) or Identity.derive(str(options.pop("name", "test")))
        assert isinstance(identity, Identity)
        on_save = options.pop("on_save", None)
        self._on_save: Callable[[bytes], None] = on_save if callable(on_save) else lambda _state: None
        self.lu = LogicalUnit(geometry, capabilities, identity, **options)  # type: ignore[arg-type]
        self.medium = bytearray(blocks * block_size)
        self.holes: set[int] = set()
        self.operations: list[BlockOp] = []
        self.faults: dict[type, OSError] = {}
        self.bad_offsets: set[int] = set()
        self.hba_units: dict[int, Disk] = {}
        self.space: Space | None = None

    def run(self, cdb: bytes | str, out: bytes | None = None, room: int = 4096) -> Answer:
        """Send a command; `out` is its data-out, else there are `room` bytes for data-in."""
        cdb = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        memory = bytearray(b"\xee" * room if out is None else out)
        half = len(memory) // 2
        buffer = Buffer([memoryview(memory)[:half], memoryview(memory)[half:]])
        response = self.drive(self.lu.execute(cdb, buffer))
        if response.background is not None:
            self.drive(response.background)
        if out is None and response.data_in is not None:
            assert memory[response.data_in :] == b"\xee" * (room - response.data_in), "wrote past its data"
            return Answer(response.status, bytes(memory[: response.data_in]), response.sense)
        return Answer(response.status, b"", response.sense)

    def join(self, lun: int, peer: "Disk") -> None:
        """Make another disk visible as `lun`."""
        self.hba_units[lun] = peer
        self.lu.hba_units = {number: disk.lu for number, disk in self.hba_units.items()}

    def no_data(self) -> Buffer:
        return Buffer()

    def drive(self, steps: Generator[BlockOp, BlockResult, Result]) -> Result:
        """Run `steps` to its end, performing its block operations."""
        try:
            operation = next(steps)
            while True:
                if not isinstance(operation, Keep):
                    self.operations.append(operation)
                try:
                    answer = self.perform(operation)
                except OSError as fault:
                    operation = steps.throw(fault)
                else:
                    operation = steps.send(answer)
        except StopIteration as stop:
            result: Result = stop.value
            return result

    def perform(self, operation: BlockOp) -> BlockResult:
        """Do one block operation on the bytearray, and check it."""
        if type(operation) in self.faults:
            raise self.faults[type(operation)]
        match operation:
            case Read(offset, views) | Write(offset, views):
                self._transfer(offset, views, write=isinstance(operation, Write))
            case Unmap(extent) | WriteZeroes(extent):
                self._check(extent.offset, extent.length)
                self.medium[extent.offset : extent.end] = bytes(extent.length)
                self._set_holes(extent, holes=isinstance(operation, Unmap) or operation.may_unmap)
            case Extents(extent):
                return self._extents(extent)
            case Flush():
                pass
            case OnUnit(lun, there):
                return self.hba_units[lun].perform(there)
            case AskSpace():
                return self.space
            case Keep(state):
                self._on_save(state)
            case CryptoErase():
                self.medium[:] = b"\x5c" * len(self.medium)
            case _:
                raise AssertionError(operation)
        return None

    def _check(self, offset: int, length: int) -> None:
        assert length > 0
        assert offset % self.lu.block_size == 0
        assert length % self.lu.block_size == 0
        assert 0 <= offset <= offset + length <= len(self.medium)

    def _transfer(self, offset: int, views: "list[memoryview] | object", *, write: bool) -> None:
        assert isinstance(views, list)
        self._check(offset, sum(map(len, views)))
        for view in views:
            end = offset + len(view)
            bad = [at for at in self.bad_offsets if offset <= at < end]
            if bad:
                raise MediumError(min(bad), "lost")
            if write:
                self.medium[offset:end] = view
                self._set_holes(Extent(offset, len(view)), holes=False)
            else:
                view[:] = self.medium[offset:end]
            offset = end

    def _extents(self, extent: Extent) -> list[ExtentStatus]:
        """Return one run at a time, as a handler may."""
        self._check(extent.offset, extent.length)
        first = extent.offset // self.lu.block_size
        last = extent.end // self.lu.block_size
        end = first
        while end < last and (end in self.holes) == (first in self.holes):
            end += 1
        run = Extent(extent.offset, (end - first) * self.lu.block_size)
        return [ExtentStatus(run, allocated=first not in self.holes, zero=first in self.holes)]

    def _set_holes(self, extent: Extent, *, holes: bool) -> None:
        blocks = range(extent.offset // self.lu.block_size, extent.end // self.lu.block_size)
        self.holes = self.holes | set(blocks) if holes else self.holes - set(blocks)


def everything(**options: object) -> Disk:
    """Return a disk with all features."""
    offers = {"removable": True, "target_core": True, "variable_length": True, "capabilities": ALL}
    return Disk(**{**offers, **options})  # type: ignore[arg-type]
