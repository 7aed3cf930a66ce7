"""LUKS: which kind of container a disk holds, and making a new one."""

import os
from typing import Literal

from vscsihba.errors import HostError
from vscsihba.handlers import luks1, luks2
from vscsihba.handlers.base import Handler
from vscsihba.handlers.luks1 import Luks1
from vscsihba.handlers.luks2 import Luks2
from vscsihba.handlers.luks_crypto import Kdf, Pbkdf2
from vscsihba.handlers.vectored import read_bytes, write_bytes

Header = Luks1 | Luks2

_MOST = 4 << 20
"""Bytes of the largest LUKS2 header."""
_AT_ONCE = 1 << 20
_KEY_SIZE = 64
"""AES-256 in XTS mode takes two keys."""


def find(disk: Handler) -> Header | None:
    """Return the header of the container on a disk, None if there is none.

    Raises:
        HostError: It is damaged, or of a kind that is not known here.
        OSError: The disk cannot be read.
    """
    start = read_bytes(disk, 0, min(_MOST, disk.geometry.size))
    if start.startswith(luks1.MAGIC):
        return luks1.decode(start)
    copies = [luks2.decode(start, at=0)]
    copies += [luks2.decode(start[at:], at=at) for at in luks2.SECOND_COPIES if at + 4096 <= len(start)]
    whole = [copy for copy in copies if copy is not None]
    if whole:
        return max(whole, key=lambda copy: copy.sequence)
    if start.startswith(luks2.MAGICS[0]):
        raise HostError("both copies of the LUKS2 header are damaged", cure="restore a backup of the header")
    return None


def format_container(
    disk: Handler, version: Literal[1, 2], passphrase: bytes, kdf: Kdf, *, sector_size: int = 4096
) -> Header:
    """Make a new container on a disk; what was on it cannot be had back.

    Args:
        disk: Open and writable.
        version: Of LUKS.
        passphrase: Of the first key.
        kdf: What the passphrase goes through.
        sector_size: Bytes of a sector; LUKS1 has 512 only.

    Raises:
        HostError: The disk is too small for the header.
        OSError: The disk cannot be written.
    """
    key = os.urandom(_KEY_SIZE)
    digest_kdf = _digest_kdf()
    header: Header = (
        luks1.create(key, digest_kdf)
        if version == 1
        else luks2.create(key, digest_kdf, sector_size=sector_size)
    )
    if disk.geometry.size < header.payload + sector_size:
        raise HostError(
            f"a LUKS{version} header takes {header.payload >> 20} MiB, and something has to be behind it",
            cure="use a larger disk",
        )
    # Stripes of an earlier container must not be found any more.
    disk.write_zeroes(0, header.payload, may_unmap=False)
    return header.add_key(disk, key, passphrase, kdf)


def replace_key(disk: Handler, header: Header, passphrase: bytes, kdf: Kdf) -> Header:
    """Destroy the key of a container in every slot, and give it a new one; return the new header.

    When this is interrupted, the container may have no key that anything opens.

    Raises:
        OSError: The disk cannot be written.
    """
    start, end = header.stripes
    for at in range(start, end, _AT_ONCE):
        # Random bytes, since zeroes might become a hole and leave the old ones where they are.
        write_bytes(disk, at, os.urandom(min(_AT_ONCE, end - at)))
    disk.flush()
    key = os.urandom(header.key_size)
    return header.rekeyed(key, _digest_kdf()).add_key(disk, key, passphrase, kdf)


def _digest_kdf() -> Pbkdf2:
    """Return what a volume key goes through to be recognised; it is random, so it needs no slowness."""
    return Pbkdf2(os.urandom(32), "sha256", 1000)
