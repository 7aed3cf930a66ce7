"""How much one command may ask for, in logical blocks.

Published by the Block Limits VPD page and enforced by the commands: one source for both.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, in logical blocks unless said otherwise.

    Attributes:
        transfer_blocks: MAXIMUM TRANSFER LENGTH.
        write_same_blocks: MAXIMUM WRITE SAME LENGTH.
        unmap_blocks: MAXIMUM UNMAP LBA COUNT.
        unmap_descriptors: MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT (descriptors).
        compare_and_write_blocks: MAXIMUM COMPARE AND WRITE LENGTH.
    """

    transfer_blocks: int
    write_same_blocks: int
    unmap_blocks: int = 1 << 20
    unmap_descriptors: int = 256
    compare_and_write_blocks: int = 0

    @classmethod
    def for_medium(cls, block_size: int, max_transfer: int) -> "Limits":
        """Return the limits of a medium.

        Args:
            block_size: Logical block length in bytes.
            max_transfer: Bytes that the transport moves in one command.

        A WRITE SAME may cost as much as writing its whole range: 16 MiB is done well
        within any initiator's time limit.
        """
        return cls(transfer_blocks=max_transfer // block_size, write_same_blocks=(16 << 20) // block_size)
