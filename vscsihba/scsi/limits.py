"""Limits of one command, in logical blocks.

The Block Limits VPD page reports them, and the commands enforce them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, in logical blocks unless stated otherwise.

    Attributes:
        transfer_blocks: MAXIMUM TRANSFER LENGTH.
        write_same_blocks: MAXIMUM WRITE SAME LENGTH.
        compare_and_write_blocks: MAXIMUM COMPARE AND WRITE LENGTH; the data-out is twice as long.
        atomic_blocks: MAXIMUM ATOMIC TRANSFER LENGTH.
        unmap_blocks: MAXIMUM UNMAP LBA COUNT.
        unmap_descriptors: MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT (descriptors).
    """

    transfer_blocks: int
    write_same_blocks: int
    compare_and_write_blocks: int
    atomic_blocks: int
    unmap_blocks: int = 1 << 20
    unmap_descriptors: int = 256

    @classmethod
    def for_medium(cls, block_size: int, max_transfer: int, atomic_write: int) -> "Limits":
        """Return the limits of a medium.

        Args:
            block_size: Logical block length in bytes.
            max_transfer: Bytes that the transport moves in one command.
            atomic_write: Bytes that the medium writes wholly or not at all.

        A WRITE SAME may take as long as writing its whole range: 16 MiB are written well
        within any initiator's time limit.
        """
        transfer_blocks = max_transfer // block_size
        return cls(
            transfer_blocks=transfer_blocks,
            write_same_blocks=(16 << 20) // block_size,
            compare_and_write_blocks=min(transfer_blocks // 2, 0xFF),
            atomic_blocks=min(atomic_write // block_size, transfer_blocks),
        )
