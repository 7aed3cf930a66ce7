"""encrypt: LUKS2 with sectors of 4 KiB and of 512 bytes.

The bare cipher is AES-256-XTS of libcrypto, called through ctypes as the handler does: for each sector one
call that sets the tweak, and one that encrypts or decrypts.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tests.bench.stacks.stack import SIZE, Bare, Stack, image, opened
from vscsihba.handlers.encrypt import libcrypto
from vscsihba.handlers.encrypt.libcrypto import LibcryptoXts
from vscsihba.handlers.stack import Document

_HEADER: Final = 16 << 20

Cipher = Callable[[int, int, int], None]
"""``cipher(source, target, length)``: transform whole sectors; source and target are addresses."""


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


def _cipher(sector_size: int, *, encrypts: bool) -> Cipher:
    """Return the calls of libcrypto, and nothing else."""
    library = libcrypto.library()
    if library is None:
        raise RuntimeError("this machine has no libcrypto to compare with")
    xts = LibcryptoXts(library, os.urandom(64), encrypts=encrypts)
    calls = library.keeping
    init, update = calls.encrypt_init if encrypts else calls.decrypt_init, calls.update
    context, tweak, written = xts._context, ctypes.create_string_buffer(16), ctypes.c_int()
    tweak_at, written_at = ctypes.addressof(tweak), ctypes.addressof(written)

    def cipher(source: int, target: int, length: int, _keep: object = (xts, tweak, written)) -> None:
        for at in range(0, length, sector_size):
            init(context, None, None, tweak_at)
            update(context, target + at, written_at, source + at, sector_size)

    return cipher


def _bare(sector_size: int) -> Callable[[Path], AbstractContextManager[Bare]]:
    @contextmanager
    def bare(folder: Path) -> Iterator[Bare]:
        encrypt, decrypt = (_cipher(sector_size, encrypts=encrypts) for encrypts in (True, False))
        sealed = memoryview(bytearray(1 << 20))
        sealed_at = _address(sealed)
        with opened(image(folder / "bare.img")) as fd:

            def read(view: memoryview, offset: int) -> None:
                length = os.preadv(fd, [view], offset)
                decrypt(_address(view), _address(view), length)

            def write(view: memoryview, offset: int) -> None:
                encrypt(_address(view), sealed_at, len(view))
                os.pwritev(fd, [sealed[: len(view)]], offset)

            yield Bare(read, write)

    return bare


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


_AGAINST: Final = "2 calls of libcrypto for each sector, 1 preadv or pwritev"
STACKS = (
    Stack("encrypt, 4 KiB sectors", _make(4096), _bare(4096), _AGAINST),
    Stack("encrypt, 512-byte sectors", _make(512), _bare(512), _AGAINST),
)
