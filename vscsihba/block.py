"""The vocabulary between SCSI and storage: extents, block operations, geometry, buffers.

A SCSI command is a generator that yields the operations below; whoever drives it (the
engine's pump, a test) performs them on a handler and sends the result back in. Both
sides speak of bytes only: logical blocks end at the door of `vscsihba.scsi`.

This module does no I/O and knows neither SCSI nor any handler.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vscsihba.errors import UsageError

Views = Sequence[memoryview]
"""A scatter list: writable or read-only byte views, in the order of the medium."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes on a medium.

    Attributes:
        offset: First byte.
        length: Number of bytes; 0 is allowed and means nothing.
    """

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class ExtentStatus:
    """What a medium knows of one extent.

    Attributes:
        extent: The bytes in question.
        allocated: Storage is set aside for them (False: deallocated, a hole).
        zero: They are known to read as zeroes.
    """

    extent: Extent
    allocated: bool
    zero: bool


_MOST_RATIO = 1 << 15
"""Logical blocks in a physical one that READ CAPACITY(16) can tell of: its exponent has 4 bits (SBC-4)."""
_MOST_SIZE = (1 << 63) - 1
"""Bytes that a file offset can have (``loff_t``)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a medium.

    Attributes:
        size: Capacity in bytes, a multiple of `block_size`.
        block_size: Logical block length in bytes, a power of two from 512 to 4096.
        physical_block_size: What the medium writes at once, a power-of-two multiple of `block_size`, at most
            2^15 of them.
        optimal_io: Bytes of the transfer that the medium likes best, 0 if it has no wish.
    """

    size: int
    block_size: int = 512
    physical_block_size: int = 512
    optimal_io: int = 0

    def __post_init__(self) -> None:
        """Refuse a shape that no disk can have.

        Raises:
            UsageError: The block sizes or the capacity contradict each other.
        """
        if self.block_size not in (512, 1024, 2048, 4096):
            raise UsageError(f"block size {self.block_size} is not one of 512, 1024, 2048, 4096")
        ratio, rest = divmod(self.physical_block_size, self.block_size)
        if rest or ratio < 1 or ratio.bit_count() != 1:
            raise UsageError(
                f"physical block size {self.physical_block_size} is no power-of-two multiple "
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
            raise UsageError(f"the size {self.size} is no multiple of the block size {self.block_size}")

    @property
    def blocks(self) -> int:
        """Capacity in logical blocks."""
        return self.size // self.block_size


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a medium can do beyond reading and writing.

    Attributes:
        read_only: Writes, unmaps and write-zeroes are refused.
        flush: Written data may sit in a volatile cache until `Flush`.
        unmap: The medium is thin: it has holes, and `Unmap` makes one, unless `read_only`.
        unmap_zeroes: Unmapped bytes are sure to read as zeroes (LBPRZ).
        extents: `Extents` tells more than "everything is allocated".
        rotational: Seeks cost; Linux schedules accordingly.
        unmap_granularity: Bytes below which an unmap frees nothing.
        crypto_erase: The medium can be made unreadable by destroying its key.
        whole_cdbs: `Execute` is all that it does: commands go to a device that answers for itself.
        device_type: PERIPHERAL DEVICE TYPE of such a device (SPC-5 "INQUIRY").
        in_place: A write takes the place of what was there; False where the bytes of before stay in a layer
            below, as under an overlay.
        atomic_write: Bytes that one `Write` stores wholly or not at all, whatever dies meanwhile.
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


@dataclass(frozen=True, slots=True)
class Read:
    """Fill `views` from the medium at `offset`. Answered with None."""

    offset: int
    views: Views


@dataclass(frozen=True, slots=True)
class Write:
    """Store `views` at `offset`; with `fua`, they are on stable storage when done. Answered with None."""

    offset: int
    views: Views
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """Put all that was written and acknowledged on stable storage. Answered with None."""


@dataclass(frozen=True, slots=True)
class Unmap:
    """Deallocate: the bytes are no longer needed. Answered with None."""

    extent: Extent


@dataclass(frozen=True, slots=True)
class WriteZeroes:
    """Make the extent read as zeroes; storage may be freed if `may_unmap`. Answered with None."""

    extent: Extent
    may_unmap: bool
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Extents:
    """Ask what is allocated.

    Answered with a list of `ExtentStatus` that covers a non-empty head of `extent` without a gap.
    """

    extent: Extent


@dataclass(frozen=True, slots=True)
class CryptoErase:
    """Make the whole medium unreadable by destroying its key. Answered with None."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Change the capacity to `size` bytes; what is cut off is lost. Answered with None."""

    size: int


@dataclass(frozen=True, slots=True)
class Space:
    """Room for the bytes of a medium, where that may be less than its capacity.

    Attributes:
        available: Bytes that can still be allocated, by this medium or whatever else has its share.
        used: Bytes that it has allocated.
    """

    available: int
    used: int


@dataclass(frozen=True, slots=True)
class AskSpace:
    """Ask what room there is. Answered with a `Space`, or None where that is not known."""


MediumOp = Read | Write | Flush | Unmap | WriteZeroes | Extents | CryptoErase | Resize | AskSpace
"""What can be asked of a medium."""


@dataclass(frozen=True, slots=True)
class OnUnit:
    """Do `operation` on the medium of another logical unit of the same HBA. Answered as it is."""

    lun: int
    operation: MediumOp


@dataclass(frozen=True, slots=True)
class Execute:
    """Hand a whole command to the device behind. Answered with `Executed`.

    Attributes:
        cdb: The command descriptor block; what follows its end is to be ignored.
        views: Data-out, or room for data-in, as the command goes.
    """

    cdb: bytes
    views: Views


@dataclass(frozen=True, slots=True)
class Executed:
    """How a device has answered a command.

    Attributes:
        status: SAM status code.
        sense: Sense data, if it gave any.
        data_in: Valid bytes at the head of the data; None for a command without data-in.
    """

    status: int
    sense: bytes = b""
    data_in: int | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Put what the unit keeps for its next life on stable storage, in place of what it kept before.

    Answered with None.
    """

    state: bytes


BlockOp = MediumOp | OnUnit | Execute | Keep
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
        self.views = list(views)
        self.length = sum(map(len, self.views))

    def take(self, start: int, length: int) -> list[memoryview]:
        """Return the views of `length` bytes from byte `start` on.

        Raises:
            ValueError: The buffer ends before that.
        """
        if start < 0 or length < 0 or start + length > self.length:
            raise ValueError(f"bytes {start}+{length} lie outside a buffer of {self.length}")
        taken = []
        for view in self.views:
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
        """Copy `data` in from byte `start` on, as far as there is room; return the bytes copied."""
        count = max(0, min(len(data), self.length - start))
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
