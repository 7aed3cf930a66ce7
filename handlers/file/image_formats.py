"""Formats of disk images other than raw: how a file in one of them is recognised.

Such a file holds tables beside the data. As a raw disk it would show these tables to an initiator, who
would destroy them. The magic numbers are those by which QEMU's block drivers probe (``block/*.c``).
"""

import os
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Magic:
    """Bytes that a format has at a place.

    Attributes:
        name: Of the format, as qemu-img calls it.
        offset: Of the bytes; if negative, from the end of the file.
        magic: The bytes.
    """

    name: str
    offset: int
    magic: bytes


_MAGICS: Final = (
    _Magic("qcow2", 0, b"QFI\xfb\x00\x00\x00\x02"),
    _Magic("qcow2", 0, b"QFI\xfb\x00\x00\x00\x03"),
    _Magic("qcow", 0, b"QFI\xfb\x00\x00\x00\x01"),
    _Magic("qed", 0, b"QED\x00"),
    _Magic("vmdk", 0, b"KDMV"),
    _Magic("vmdk", 0, b"COWD"),
    _Magic("vmdk", 0, b"# Disk DescriptorFile"),
    _Magic("vhdx", 0, b"vhdxfile"),
    _Magic("vpc (VHD)", 0, b"conectix"),
    _Magic("vpc (VHD)", -512, b"conectix"),
    _Magic("vpc (VHD)", -511, b"conectix"),  # of old versions of Virtual PC
    _Magic("vdi", 64, b"\x7f\x10\xda\xbe"),
    _Magic("parallels", 0, b"WithoutFreeSpace"),
    _Magic("parallels", 0, b"WithouFreSpacExt"),
    _Magic("bochs", 0, b"Bochs Virtual HD Image"),
    _Magic("dmg", -512, b"koly"),
    # Of the two slots of a superblock (`superblock`), only one may have been written.
    *(_Magic("cow", at, b"VSCSICOW") for at in (0, 4096)),
    *(_Magic("mirror", at, b"VSCSIMIR") for at in (0, 4096)),
)
_CURES: Final = {
    "cow": 'use it with "handler": "cow", above its base',
    "mirror": "it is the state of a mirror, whose legs have the data",
}
HEAD: Final = 8192
"""Bytes from the beginning in which a format is looked for."""
TAIL: Final = 512
"""Bytes at the end in which a format is looked for."""


def image_format(fd: int, size: int) -> str:
    """Return the format of an open file or device of `size` bytes, empty if it seems to be raw."""
    try:
        return format_of(os.pread(fd, HEAD, 0), os.pread(fd, TAIL, max(0, size - TAIL)))
    except OSError:  # a disk may have a bad sector there
        return ""


def format_of(head: bytes, tail: bytes) -> str:
    """Return the format of an image, empty if it seems to be raw.

    Args:
        head: Its first `HEAD` bytes.
        tail: Its last `TAIL` bytes.
    """
    for each in _MAGICS:
        end = tail if each.offset < 0 else head
        if end.startswith(each.magic, each.offset % TAIL if each.offset < 0 else each.offset):
            return each.name
    return ""


def cure_for(format_: str) -> str:
    """Return the cure for an image of a format that is not raw."""
    cure = _CURES.get(format_, 'use the handler "qemu" for it')
    return f'{cure}, or use "format": "raw" to serve it as it is'
