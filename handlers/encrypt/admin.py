"""Operations on the keys of a container that no disk uses: list, add, remove.

Each takes the open handler that the container lies on, such as a `file`.
"""

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt import luks
from vscsihba.handlers.encrypt.crypto import Kdf
from vscsihba.handlers.encrypt.luks1 import Luks1


def version(disk: Handler) -> int:
    """Return which version of LUKS the container on a disk is of: 1, 2, or 0 where there is none.

    Raises:
        HostError: It is damaged.
    """
    header = luks.find(disk)
    if header is None:
        return 0
    return 1 if isinstance(header, Luks1) else 2


def keys(disk: Handler) -> list[int]:
    """Return the numbers of the slots that hold a key.

    Raises:
        HostError: The disk holds no container.
    """
    return _container(disk).used


def add_key(disk: Handler, secret: bytes, new_secret: bytes, kdf: Kdf) -> int:
    """Let another secret open the container, too; return the slot that holds it.

    Args:
        disk: Open and writable.
        secret: One that opens the container.
        new_secret: The one that shall.
        kdf: Key derivation function of the new one.

    Raises:
        UsageError: `secret` opens no key, or there is no room for another one.
        HostError: The disk holds no container.
        OSError: The disk cannot be written.
    """
    header = _container(disk)
    unlocked = header.unlock(disk, secret)
    if unlocked is None:
        raise UsageError(f"the secret opens no key of {disk.identity}")
    changed = header.add_key(disk, header.seal(unlocked[1], new_secret, kdf))
    (slot,) = set(changed.used) - set(header.used)
    return slot


def remove_key(disk: Handler, slot: int) -> None:
    """Destroy a key; the others still open the container.

    Raises:
        UsageError: The slot holds none, or the only one that opens the data.
        HostError: The disk holds no container.
        OSError: The disk cannot be written.
    """
    _container(disk).remove_key(disk, slot)


def _container(disk: Handler) -> luks.Header:
    header = luks.find(disk)
    if header is None:
        raise HostError(f"{disk.identity} is not a LUKS container")
    return header
