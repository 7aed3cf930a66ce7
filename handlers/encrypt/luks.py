"""LUKS: finding the container on a disk, and creating a new one."""

import os
from dataclasses import dataclass
from typing import Literal

from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt import luks1, luks2
from vscsihba.handlers.encrypt.crypto import Kdf, Pbkdf2, SealedKey
from vscsihba.handlers.encrypt.luks1 import Luks1
from vscsihba.handlers.encrypt.luks2 import Luks2
from vscsihba.handlers.shared.signatures import find_signature
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

Header = Luks1 | Luks2

_MOST = 4 << 20
"""Bytes of the largest LUKS2 header."""
DETACHED_SIZE = 16 << 20
"""Bytes of the file of a new detached header, as cryptsetup makes it."""
_AT_ONCE = 1 << 20
_KEY_SIZE = 64
"""AES-256 in XTS mode takes two keys."""


def find(disk: Handler) -> Header | None:
    """Return the header of the container on a disk, None if there is none.

    Raises:
        HostError: It is damaged, or of a kind that is not known here, or something else may have taken its
            place.
        OSError: The disk cannot be read.
    """
    start = read_bytes(disk, 0, min(_MOST, disk.geometry.size))
    if start.startswith(luks1.MAGIC):
        return luks1.decode(start)
    first = luks2.decode(start, at=0)
    if first is not None:
        return _newer(first, luks2.decode(start[first.header_size :], at=first.header_size))
    copies = [luks2.decode(start[at:], at=at) for at in luks2.SECOND_COPIES if at < len(start)]
    seconds = [copy for copy in copies if copy is not None]
    if seconds:
        _check_unambiguous(disk, start, seconds)
        return seconds[0]
    if start.startswith(luks2.MAGICS[0]):
        raise HostError("both copies of the LUKS2 header are damaged", cure="restore a backup of the header")
    return None


def check_data(header: Header, disk: Handler, data: Handler) -> None:
    """Check that the data of a container can be where its header says.

    Args:
        header: Of the container.
        disk: Where the header is.
        data: Where the data is: the same, or another disk.

    Raises:
        HostError: The data would begin inside of the header, or behind the end of the disk.
    """
    if data is disk and header.payload < header.end:
        raise HostError(
            f"{disk.identity} is the detached header of a LUKS container whose data is elsewhere",
            cure='name the disk with the data, and this file as its option "header"',
        )
    if header.end > disk.geometry.size:
        raise HostError(
            f"the LUKS header takes {header.end} bytes, {disk.identity} has {disk.geometry.size}",
            cure="restore a backup of the header",
        )
    size = header.sector_size if header.size is None else header.size
    if header.payload + size > data.geometry.size:
        raise HostError(
            f"the data of the LUKS container takes {header.payload + size} bytes, "
            f"{data.identity} has {data.geometry.size}",
            cure="is this the whole disk?",
        )


def _newer(first: Luks2, second: Luks2 | None) -> Luks2:
    """Return the copy that was written last, of those that belong to one container."""
    if second is None or second.uuid != first.uuid:
        return first
    return max(first, second, key=lambda copy: copy.sequence)


def _check_unambiguous(disk: Handler, start: bytes, seconds: list[Luks2]) -> None:
    """Refuse to go by the second copy where the first may have been replaced by something newer.

    cryptsetup does likewise (``detect_device_signatures`` in lib/luks2/luks2_disk_metadata.c).

    Raises:
        HostError: Something else is at the beginning, or there are copies of several containers.
    """
    name = find_signature(start)
    if name is not None:
        raise HostError(
            f"{disk.identity} has a {name} at its beginning, and only the second copy of a LUKS2 header",
            cure=f"if the container is what is wanted, wipe the {name} signature (wipefs), or restore a "
            "backup of the header",
        )
    if len({copy.uuid for copy in seconds}) > 1:
        raise HostError(
            f"{disk.identity} has second copies of the LUKS2 headers of several containers",
            cure="restore a backup of the header that is wanted",
        )


def format_container(
    disk: Handler,
    version: Literal[1, 2],
    passphrase: bytes,
    kdf: Kdf,
    *,
    sector_size: int = 4096,
    detached: bool = False,
) -> Header:
    """Create a container on a disk; earlier data on it are lost.

    Args:
        disk: Open and writable.
        version: Of LUKS.
        passphrase: Of the first key.
        kdf: Key derivation function of the passphrase.
        sector_size: Bytes of a sector; LUKS1 has 512 only.
        detached: The data is on another disk, from its first byte on.

    Raises:
        HostError: The disk is too small for the header.
        OSError: The disk cannot be written.
    """
    key = os.urandom(_KEY_SIZE)
    digest_kdf = _digest_kdf()
    header: Header = (
        luks1.create(key, digest_kdf, detached=detached)
        if version == 1
        else luks2.create(key, digest_kdf, sector_size=sector_size, detached=detached)
    )
    taken = header.end if detached else header.payload
    if disk.geometry.size < taken + (0 if detached else sector_size):
        behind = "" if detached else ", and something has to be behind it"
        raise HostError(
            f"a LUKS{version} header takes {-(-taken >> 20)} MiB{behind}", cure="use a larger disk"
        )
    sealed = header.seal(key, passphrase, kdf)
    # Stripes of an earlier container must not be found any more.
    disk.write_zeroes(0, taken, may_unmap=False)
    return header.add_key(disk, sealed)


@dataclass(frozen=True, slots=True)
class NewKey:
    """Another volume key for a container, before anything of it is written.

    Attributes:
        header: The header with this key, and no slot used yet.
        key: The key.
        sealed: The same as a slot keeps it.
    """

    header: Header
    key: bytes
    sealed: SealedKey


def new_key(header: Header, passphrase: bytes, kdf: Kdf) -> NewKey:
    """Return a new volume key for a container.

    Raises:
        UsageError: Its version of LUKS has no such key derivation.
        HostError: This machine has too little memory for it.
    """
    key = os.urandom(header.key_size)
    changed = header.rekeyed(key, _digest_kdf())
    return NewKey(changed, key, changed.seal(key, passphrase, kdf))


def replace_key(disk: Handler, header: Header, new: NewKey) -> Header:
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
    return new.header.add_key(disk, new.sealed)


def _digest_kdf() -> Pbkdf2:
    """Return the key derivation function of a volume key's digest; a random key needs no slow one."""
    return Pbkdf2(os.urandom(32), "sha256", 1000)
