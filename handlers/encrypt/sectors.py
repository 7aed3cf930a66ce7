"""Sectors: encrypted and decrypted on any number of threads, until their key is wiped.

A sector is AES-XTS with the number of its first 512 bytes as tweak (``aes-xts-plain64`` of dm-crypt). This
module knows no header; `xts` knows the ciphers.
"""

import errno
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Final, TypeVar

from vscsihba.block import Views
from vscsihba.handlers.encrypt import xts
from vscsihba.handlers.encrypt.libcrypto import UNIT
from vscsihba.handlers.encrypt.xts import Xts

_BUFFER = 512 << 10
"""Bytes of a buffer that is kept for later writes."""
_MOST_BUFFERS = 4
"""Buffers that are kept while no write uses them."""

_TURN: Final = threading.Lock()
"""Held while a cipher releases the interpreter's lock. Threads side by side gain nothing, for a sector takes
a microsecond; several that take that lock from each other for each sector need up to twice the time."""

_NO_TURN: Final = nullcontext()

T = TypeVar("T")


class Sectors:
    """Encrypts and decrypts sectors.

    Each thread takes a cipher for the time of a call, so that there are as many as threads have been here
    at once. No lock is needed: taking from a list and adding to it are atomic, and a thread that adds a
    cipher looks afterwards whether the key has been wiped since.

    Args:
        key: 32 or 64 bytes: two AES keys.
        size: Bytes of a sector.

    Raises:
        HostError: This machine has neither libcrypto nor the package ``cryptography``.
        OSError: EIO if the library refuses the key.
    """

    def __init__(self, key: bytes | bytearray, size: int) -> None:
        self.size = size
        self._key, self._wiped = key, False
        self._decryptors = [xts.new_cipher(key, encrypts=False)]
        self._encryptors: list[Xts] = []
        self._buffers: list[memoryview] = []

    def wipe(self) -> None:
        """Overwrite the key, as far as Python lets us: if it came as a bytearray.

        Nothing is encrypted or decrypted any more then. A thread that does so at this moment goes on, and
        frees its cipher at the end.
        """
        self._wiped = True
        if isinstance(self._key, bytearray):
            self._key[:] = bytes(len(self._key))
        self._close_idle()

    def encrypt(self, data: memoryview | bytes | bytearray, offset: int) -> memoryview:
        """Return the ciphertext of whole sectors that begin at `offset` bytes of the volume."""
        out = memoryview(bytearray(len(data)))
        self._transform([memoryview(data)], [out], offset, encrypts=True)
        return out

    def decrypt(self, data: memoryview | bytes | bytearray, offset: int) -> memoryview:
        """Return the plaintext of whole sectors that begin at `offset` bytes of the volume."""
        out = memoryview(bytearray(len(data)))
        self._transform([memoryview(data)], [out], offset, encrypts=False)
        return out

    def decrypt_in_place(self, views: Views, offset: int, *, keep_lock: bool = False) -> None:
        """Replace the ciphertext of sectors that follow each other by their plaintext.

        Args:
            views: Writable; each has whole sectors.
            offset: First byte on the volume.
            keep_lock: Keep the interpreter's lock; for the thread that serves the ring.

        Raises:
            OSError: EIO if the key is wiped, or the library fails.
        """
        self._transform(views, views, offset, encrypts=False, keep_lock=keep_lock)

    def pass_encrypted(
        self, views: Views, offset: int, write: Callable[[memoryview], T], *, keep_lock: bool = False
    ) -> T:
        """Encrypt whole sectors into a buffer that is used again, pass it to `write`, return the result.

        The buffer serves no other volume. It is used again only if it has nothing but ciphertext.

        Args:
            views: Each has whole sectors; they are left as they are.
            offset: First byte on the volume.
            write: Uses the ciphertext until it returns.
            keep_lock: Keep the interpreter's lock; for the thread that serves the ring.

        Raises:
            OSError: EIO if the key is wiped, or the library fails; or `write` raised it.
        """
        length = sum(map(len, views))
        buffer = self._take_buffer(length)
        sealed = buffer[:length]
        self._transform(views, _cut_like(views, sealed), offset, encrypts=True, keep_lock=keep_lock)
        try:
            return write(sealed)
        finally:
            self._give_back_buffer(buffer)

    def _transform(
        self, sources: Views, targets: Views, offset: int, *, encrypts: bool, keep_lock: bool = False
    ) -> None:
        idle = self._encryptors if encrypts else self._decryptors
        if self._wiped:
            raise _destroyed()
        try:
            cipher = idle.pop()
        except IndexError:
            cipher = self._new_cipher(encrypts=encrypts)
        try:
            with _NO_TURN if keep_lock else _TURN:
                cipher.transform(sources, targets, offset // UNIT, self.size, keep_lock=keep_lock)
        finally:
            idle.append(cipher)
            if self._wiped:
                self._close_idle()

    def _new_cipher(self, *, encrypts: bool) -> Xts:
        cipher = xts.new_cipher(self._key, encrypts=encrypts)
        if self._wiped:  # meanwhile: it may have a key of zeroes
            cipher.close()
            raise _destroyed()
        return cipher

    def _close_idle(self) -> None:
        for idle in (self._encryptors, self._decryptors):
            with suppress(IndexError):
                while True:
                    idle.pop().close()

    def _take_buffer(self, length: int) -> memoryview:
        if length > _BUFFER:
            return memoryview(bytearray(length))
        try:
            return self._buffers.pop()
        except IndexError:
            return memoryview(bytearray(_BUFFER))

    def _give_back_buffer(self, buffer: memoryview) -> None:
        if len(buffer) == _BUFFER and len(self._buffers) < _MOST_BUFFERS:
            self._buffers.append(buffer)


def _cut_like(views: Views, whole: memoryview) -> Views:
    """Return a view cut into pieces as long as others."""
    if len(views) == 1:
        return [whole]
    cut, at = [], 0
    for view in views:
        cut.append(whole[at : at + len(view)])
        at += len(view)
    return cut


def _destroyed() -> OSError:
    return OSError(errno.EIO, "the key of this disk was destroyed")
