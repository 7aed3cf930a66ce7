"""Signatures: marks of other programs at the beginning of a disk that they use.

The table has the file systems, volume managers and partition tables that libblkid knows and that
are in use (``libblkid/src`` of util-linux). It tells that a disk holds something, not whether that is whole.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Signature:
    """The mark of one use of a disk.

    Attributes:
        name: For messages.
        offset: Byte offset of `magic`.
        magic: The bytes that are there.
    """

    name: str
    offset: int
    magic: bytes


_PAGES: Final = (4096, 8192, 16384, 65536)
"""Bytes of a page of memory on the machines that have made a swap space."""
_BLOCKS: Final = (512, 1024, 2048, 4096)

_SIGNATURES: Final = (
    Signature("XFS", 0, b"XFSB"),
    Signature("SquashFS", 0, b"hsqs"),
    Signature("cramfs", 0, b"\x45\x3d\xcd\x28"),
    Signature("NTFS", 3, b"NTFS    "),
    Signature("exFAT", 3, b"EXFAT   "),
    Signature("BitLocker", 3, b"-FVE-FS-"),
    Signature("FAT", 54, b"FAT1"),
    Signature("FAT", 82, b"FAT32"),
    Signature("ext2/ext3/ext4", 1024 + 56, b"\x53\xef"),
    Signature("F2FS", 1024, b"\x10\x20\xf5\xf2"),
    Signature("EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    Signature("HFS+", 1024, b"H+"),
    Signature("HFS+", 1024, b"HX"),
    Signature("NILFS2", 1024 + 6, b"\x34\x34"),
    Signature("MD RAID", 0, b"\xfc\x4e\x2b\xa9"),
    Signature("MD RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    Signature("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    Signature("Stratis", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    Signature("VDO", 0, b"dmvdo001"),
    Signature("ISO 9660", 32769, b"CD001"),
    Signature("JFS", 32768, b"JFS1"),
    Signature("ReiserFS", 65536 + 52, b"ReIsEr"),
    Signature("Btrfs", 65536 + 64, b"_BHRfS_M"),
    Signature("GFS2", 65536, b"\x01\x16\x19\x70"),
    Signature("ZFS", 128 * 1024, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
    *(Signature("LVM2", at, b"LABELONE") for at in (0, 512, 1024, 1536)),
    *(Signature("OCFS2", 2 * block, b"OCFSV2") for block in _BLOCKS),
    *(Signature("GPT", block, b"EFI PART") for block in _BLOCKS),
    *(Signature("swap", page - 10, magic) for page in _PAGES for magic in (b"SWAPSPACE2", b"SWAP-SPACE")),
    Signature("MBR", 510, b"\x55\xaa"),
)

LENGTH: Final = max(each.offset + len(each.magic) for each in _SIGNATURES)
"""Bytes from the beginning of a disk that `find_signature` looks at."""


def find_signature(start: bytes) -> str | None:
    """Return the name of the use that the beginning of a disk shows, None if it shows none.

    Args:
        start: The first `LENGTH` bytes, or all there are.
    """
    names = (each.name for each in _SIGNATURES if start.startswith(each.magic, each.offset))
    return next(names, None)
