"""Cryptography that every run repeats with the same keys and data, computed once.

It makes no system call and shares nothing between threads, so neither a fault nor the order of threads
changes its results.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from vscsihba.block import Views
from vscsihba.handlers.encrypt import crypto, luks1, luks2, xts
from vscsihba.handlers.encrypt.libcrypto import UNIT

_new_cipher: Final = xts.new_cipher


@lru_cache(64)
def _transformed(key: bytes, data: bytes, number: int, size: int, *, encrypts: bool) -> bytes:
    room = memoryview(bytearray(data))
    _new_cipher(key, encrypts=encrypts).transform([room], [room], number, size, keep_lock=True)
    return bytes(room)


class _CachedXts:
    """A cipher that remembers results."""

    def __init__(self, key: bytes | bytearray, *, encrypts: bool) -> None:
        self._key, self._encrypts = bytes(key), encrypts

    def transform(self, sources: Views, targets: Views, number: int, size: int, *, keep_lock: bool) -> None:
        for source, target in zip(sources, targets, strict=True):
            target[:] = _transformed(self._key, bytes(source), number, size, encrypts=self._encrypts)
            number += len(source) // UNIT

    def close(self) -> None:
        pass


@lru_cache(64)
def _gathered(stripes: bytes, length: int, hash_: str) -> bytes:
    return crypto.gather(stripes, length, hash_)


def _gather(stripes: bytes | memoryview, length: int, hash_: str) -> bytes:
    return _gathered(bytes(stripes), length, hash_)


_derive: Final = lru_cache(64)(crypto.derive)


def patches() -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, name and replacement of each function."""
    yield xts, "new_cipher", _CachedXts
    for module in (luks1, luks2):
        yield module, "gather", _gather
        yield module, "derive", _derive
