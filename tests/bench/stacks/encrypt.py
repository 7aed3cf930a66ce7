"""encrypt: LUKS2 with sectors of 4 KiB and of 512 bytes.

The bare cipher is AES-256-XTS of OpenSSL, as package cryptography calls it, over all bytes of a command in
one call with one tweak. A container has a tweak for each sector, so nothing compatible can be as quick.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from tests.bench.stacks.stack import SIZE, Bare, Stack, image, opened
from vscsihba.handlers.stack import Document

_HEADER: Final = 16 << 20
_SLACK: Final = 15
"""Bytes that ``update_into`` wants to have behind its output."""

Cipher = Callable[[memoryview, memoryview], int]
"""``cipher(data, out)``: write the result of `data` to `out`; return its bytes."""


def _make(sector_size: int) -> Callable[[Path], Document]:
    def make(folder: Path) -> Document:
        secret = folder / "secret"
        secret.touch(mode=0o600)
        secret.write_bytes(os.urandom(32))
        return {
            "handler": "encrypt",
            "key_file": str(secret),
            "create": True,
            "sector_size": sector_size,
            "kdf": "pbkdf2",
            "kdf_time": 0,
            "next": str(image(folder / "disk.luks", _HEADER + SIZE, hole=True)),
        }

    return make


@contextmanager
def _bare(folder: Path) -> Iterator[Bare]:
    cipher = ciphers.Cipher(algorithms.AES(os.urandom(64)), modes.XTS(bytes(16)))
    encrypt = cast(Cipher, cipher.encryptor().update_into)  # its stubs name bytes only
    decrypt = cast(Cipher, cipher.decryptor().update_into)
    sealed = memoryview(bytearray((1 << 20) + _SLACK))
    with opened(image(folder / "bare.img")) as fd:

        def read(view: memoryview, offset: int) -> None:
            length = os.preadv(fd, [view], offset)
            decrypt(view, sealed[: length + _SLACK])

        def write(view: memoryview, offset: int) -> None:
            length = encrypt(view, sealed[: len(view) + _SLACK])
            os.pwritev(fd, [sealed[:length]], offset)

        yield Bare(read, write)


_AGAINST: Final = "1 AES-XTS, 1 preadv or pwritev"
STACKS = (
    Stack("encrypt, 4 KiB sectors", _make(4096), _bare, _AGAINST),
    Stack("encrypt, 512-byte sectors", _make(512), _bare, _AGAINST),
)
