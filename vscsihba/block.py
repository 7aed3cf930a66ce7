"""Types between SCSI and storage: extents, block operations, geometry, buffers.

A SCSI command is a generator that yields the operations below; its driver (the
engine, a test) performs them on a handler and sends the result back in. All offsets and lengths
are in bytes: logical blocks are known to `vscsihba.scsi` only.

This module does no I/O and knows neither SCSI nor any handler.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vscsihba.errors import UsageError

Views = Sequence[memoryview]
"""A scatter list: writable or read-only byte views, in the order of the medium."""


class Extent(NamedTuple):
    """A run of bytes on a medium.

    Attributes:
        offset: First byte.
        length: Number of bytes, 0 or more.
    """

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class ExtentStatus:
    """The status of one extent of a medium.

    Attributes:
        extent: The bytes.
        allocated: They have storage (False: deallocated, a hole).
        zero: They are known to read as zeroes.
    """

    extent: Extent
    allocated: bool
    zero: bool


_MOST_RATIO = 1 << 15
"""Logical blocks of a physical one at most: the exponent in READ CAPACITY(16) has 4 bits (SBC-4)."""
_MOST_SIZE = (1 << 63) - 1
"""The largest file offset (``loff_t``)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a medium.

    Attributes:
        size: Capacity in bytes, a multiple of `block_size`.
        block_size: Logical block length in bytes, a power of two from 512 to 4096.
        physical_block_size: Bytes that the medium writes at once: `block_size` times a power of two, at most
            2^15.
        optimal_io: Optimal transfer length in bytes, 0 if unknown.
    """

    size: int
    block_size: int = 512
    physical_block_size: int = 512
    optimal_io: int = 0

    def __post_init__(self) -> None:
        """Check the block sizes and the capacity.

        Raises:
            UsageError: One is invalid, or they contradict each other.
        """
        if self.block_size not in (512, 1024, 2048, 4096):
            raise UsageError(f"block size {self.block_size} is not one of 512, 1024, 2048, 4096")
        ratio, rest = divmod(self.physical_block_size, self.block_size)
        if rest or ratio < 1 or ratio.bit_count() != 1:
            raise UsageError(
                f"physical block size {self.physical_block_size} is not a power-of-two multiple "
                f"of the block size {self.block_size}"
            )
        if ratio > _MOST_RATIO:
            raise UsageError(
                f"physical block size {self.physical_block_size} is more than {_MOST_RATIO} logical blocks "
                f"of {self.block_size}"
            )
        if self.size > _MOST_SIZE:
            raise UsageError(f"the size {self.size} is larger than Linux can address, 8 EiB less one block")
        if self.size <= 0:
            raise UsageError("the size is 0", cure="give the medium at least one block")
        if self.size % self.block_size:
            raise UsageError(f"the size {self.size} is not a multiple of the block size {self.block_size}")

    @property
    def blocks(self) -> int:
        """Capacity in logical blocks."""
        return self.size // self.block_size


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities of a medium beyond reading and writing.

    Attributes:
        read_only: Writes, unmaps and write-zeroes are refused.
        flush: Written data may be in a volatile cache until `Flush`.
        unmap: The medium is thin: it has holes, and `Unmap` makes one, unless `read_only`.
        unmap_zeroes: Unmapped bytes always read as zeroes (LBPRZ).
        extents: `Extents` returns more than "everything is allocated".
        rotational: Seeks take time; Linux schedules accordingly.
        unmap_granularity: Bytes below which an unmap frees nothing.
        crypto_erase: The medium is encrypted and can destroy its key.
        whole_cdbs: `Execute` is the only operation: commands go to a device that implements SCSI itself.
        device_type: PERIPHERAL DEVICE TYPE of such a device (SPC-5 "INQUIRY").
        in_place: A write overwrites the old bytes; False if these stay in a layer below, as with an overlay.
        atomic_write: Bytes that one `Write` stores wholly or not at all, even in a crash.
    """

    read_only: bool = False
    flush: bool = False
    unmap: bool = False
    unmap_zeroes: bool = False
    extents: bool = False
    rotational: bool = False
    unmap_granularity: int = 0
    crypto_erase: bool = False
    whole_cdbs: bool = False
    device_type: int = 0
    in_place: bool = True
    atomic_write: int = 0


class Read(NamedTuple):
    """Fill `views` from the medium at `offset`. Result: None."""

    offset: int
    views: Views


class Write(NamedTuple):
    """Store `views` at `offset`; with `fua`, on stable storage. Result: None."""

    offset: int
    views: Views
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """Put all written and acknowledged data on stable storage. Result: None."""


@dataclass(frozen=True, slots=True)
class Unmap:
    """Deallocate: the bytes are no longer needed. Result: None."""

    extent: Extent


@dataclass(frozen=True, slots=True)
class WriteZeroes:
    """Make the extent read as zeroes; storage may be freed if `may_unmap`. Result: None."""

    extent: Extent
    may_unmap: bool
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Extents:
    """Get the allocation of an extent.

    Result: a list of `ExtentStatus` that covers a non-empty head of `extent` without a gap.
    """

    extent: Extent


@dataclass(frozen=True, slots=True)
class CryptoErase:
    """Make the whole medium unreadable by destroying its key. Result: None."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Change the capacity to `size` bytes; data behind a smaller size is lost. Result: None."""

    size: int


@dataclass(frozen=True, slots=True)
class Space:
    """Free and used space of a medium whose storage may be smaller than its capacity.

    Attributes:
        available: Bytes that can still be allocated, by this medium or others on the same storage.
        used: Bytes that it has allocated.
    """

    available: int
    used: int


@dataclass(frozen=True, slots=True)
class AskSpace:
    """Get free and used space. Result: a `Space`, None if unknown."""


MediumOp = Read | Write | Flush | Unmap | WriteZeroes | Extents | CryptoErase | Resize | AskSpace
"""Operations on a medium."""


@dataclass(frozen=True, slots=True)
class OnUnit:
    """Do `operation` on the medium of another logical unit of the same HBA. Result: that of the operation."""

    lun: int
    operation: MediumOp


@dataclass(frozen=True, slots=True)
class Execute:
    """Pass a whole command to a device. Result: `Executed`.

    Attributes:
        cdb: The command descriptor block; bytes after its end are ignored.
        views: Data-out, or room for data-in, depending on the command.
    """

    cdb: bytes
    views: Views


@dataclass(frozen=True, slots=True)
class Executed:
    """The response of a device to a command.

    Attributes:
        status: SAM status code.
        sense: Sense data, empty if it sent none.
        data_in: Valid bytes at the head of the data; None for a command without data-in.
    """

    status: int
    sense: bytes = b""
    data_in: int | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Store the state of the unit that survives its engine, in place of the old one.

    Result: None.
    """

    state: bytes


BlockOp = MediumOp | OnUnit | Execute | Keep
CHANGES = (Write, WriteZeroes, Unmap, CryptoErase, OnUnit, Execute)
"""Block operations that may change a medium."""
BlockResult = list[ExtentStatus] | Space | Executed | None


class Buffer:
    """The data buffer of one task: a scatter list with a length.

    The transport owns the memory; after the task is complete no view of it may be touched.

    Attributes:
        views: The scatter list, in order; every view has format ``B``.
        length: Total bytes.
    """

    __slots__ = ("length", "views")

    def __init__(self, views: Iterable[memoryview] = ()) -> None:
        self.views = views = list(views)
        self.length = len(views[0]) if len(views) == 1 else sum(map(len, views))

    def take(self, start: int, length: int) -> list[memoryview]:
        """Return the views of `length` bytes from byte `start` on.

        Raises:
            ValueError: The buffer ends before that.
        """
        if start < 0 or length < 0 or start + length > self.length:
            raise ValueError(f"bytes {start}+{length} lie outside a buffer of {self.length}")
        views = self.views
        if len(views) == 1:
            return [views[0][start : start + length]] if length else []
        taken = []
        for view in views:
            if not length:
                break
            size = len(view)
            if start >= size:
                start -= size
                continue
            piece = view[start : start + length]
            taken.append(piece)
            length -= len(piece)
            start = 0
        return taken

    def gather(self, start: int = 0, length: int | None = None) -> bytes:
        """Return a copy of `length` bytes (default: the rest) from byte `start` on.

        Raises:
            ValueError: The buffer ends before that.
        """
        return b"".join(self.take(start, self.length - start if length is None else length))

    def scatter(self, data: bytes | memoryview, start: int = 0) -> int:
        """Copy `data` in from byte `start` on, as far as there is room; return the number of bytes copied."""
        room = self.length - start
        count = len(data) if len(data) <= room else max(0, room)
        if not start and len(self.views) == 1:
            self.views[0][:count] = data[:count]
            return count
        done = 0
        for view in self.take(start, count) if count else ():
            view[:] = data[done : done + len(view)]
            done += len(view)
        return count

    def zero(self, start: int = 0) -> None:
        """Overwrite everything from byte `start` on with zeroes."""
        for view in self.take(start, self.length - start) if start < self.length else ():
            view[:] = bytes(len(view))
