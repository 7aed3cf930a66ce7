"""Cryptography that every run repeats with the same keys and data, computed once.

It makes no system call and shares nothing between threads, so neither a fault nor the order of threads
changes its results.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal

from vscsihba.handlers.encrypt import crypto, luks1, luks2
from vscsihba.handlers.encrypt.crypto import Sectors

_transform: Final = Sectors._each
_Way = Literal["encryptor", "decryptor"]


@lru_cache(64)
def _transformed(key: bytes, size: int, way: _Way, data: bytes, offset: int) -> bytes:
    return bytes(_transform(Sectors(key, size), way, memoryview(data), offset))


def _each(self: Sectors, way: _Way, data: memoryview, offset: int) -> memoryview:
    """`Sectors._each`; a key that was wiped is left to the real one."""
    if self._wiped:
        return _transform(self, way, data, offset)
    return memoryview(bytearray(_transformed(bytes(self._key), self.size, way, bytes(data), offset)))


@lru_cache(64)
def _gathered(stripes: bytes, length: int, hash_: str) -> bytes:
    return crypto.gather(stripes, length, hash_)


def _gather(stripes: bytes | memoryview, length: int, hash_: str) -> bytes:
    return _gathered(bytes(stripes), length, hash_)


_derive: Final = lru_cache(64)(crypto.derive)


def patches() -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, name and replacement of each function."""
    yield Sectors, "_each", _each
    for module in (luks1, luks2):
        yield module, "gather", _gather
        yield module, "derive", _derive
