"""AES-XTS by libcrypto, the library of OpenSSL, through ctypes.

A cipher keeps its key schedule, and each sector costs two foreign calls: one sets the tweak, one encrypts.
The package ``cryptography`` makes a cipher for each sector, which takes several times as long
(docs/adr/0021-libcrypto.md). The functions are described in EVP_EncryptInit(3) of OpenSSL 1.1.1 and 3.0.

Each function is there twice: one form keeps the interpreter's lock during the call, the other releases it.
Another thread may take a lock that is released, and keep it for milliseconds, while a sector takes a
microsecond. So the thread that serves the ring uses the first form. Other threads use the second one, so
that they do not delay the serving thread.

This module knows no LUKS.
"""

import ctypes
import errno
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple

from vscsihba.block import Views

UNIT: Final = 512
"""Bytes that the tweak counts in, whatever the size of a sector (``plain64`` of dm-crypt)."""
_NAMES: Final = ("libcrypto.so.3", "libcrypto.so.1.1")
"""Versions of the library whose functions have the prototypes below."""
_CIPHERS: Final = {32: b"AES-128-XTS", 64: b"AES-256-XTS"}
"""Names of the ciphers by the bytes of their keys."""
KEY_SIZES: Final = tuple(_CIPHERS)
"""Bytes of the keys of AES-XTS that are known here: two of AES-128, two of AES-256."""
_DONE: Final = 1
"""Result of a function that has succeeded."""
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class _Calls(NamedTuple):
    """The functions that a sector takes, in one of their two forms."""

    encrypt_init: Callable[..., int]
    decrypt_init: Callable[..., int]
    update: Callable[..., int]


class _Tweak(ctypes.LittleEndianStructure):
    """The tweak of a sector: its number as 128 bits."""

    _fields_ = (("number", ctypes.c_uint64), ("high", ctypes.c_uint64))


class Library:
    """The functions of libcrypto that are used here.

    Args:
        name: Name of the shared library.

    Attributes:
        name: Name of the shared library.
        keeping: Functions that keep the interpreter's lock.
        releasing: The same functions; they release it.

    Raises:
        OSError: There is no such library.
        AttributeError: It lacks a function.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        keeping, releasing = ctypes.PyDLL(name), ctypes.CDLL(name)
        self.new_context = _function(keeping, "EVP_CIPHER_CTX_new", _POINTER)
        self.free_context = _function(keeping, "EVP_CIPHER_CTX_free", None, _POINTER)
        self.cipher_by_name = _function(keeping, "EVP_get_cipherbyname", _POINTER, ctypes.c_char_p)
        self.keeping, self.releasing = _calls(keeping), _calls(releasing)


class LibcryptoXts:
    """AES-XTS in one direction with one key, as an ``EVP_CIPHER_CTX``. For one thread at a time.

    Args:
        library: From `library`.
        key: 32 or 64 bytes: two AES keys.
        encrypts: The direction.

    Raises:
        MemoryError: There is no memory for it.
        OSError: EIO if the library refuses the key; it does if both halves are equal.
    """

    def __init__(self, library: Library, key: bytes | bytearray, *, encrypts: bool) -> None:
        self._context = None
        self._library = library
        self._keeping, self._releasing = (
            (calls.encrypt_init if encrypts else calls.decrypt_init, calls.update)
            for calls in (library.keeping, library.releasing)
        )
        self._tweak, self._written = _Tweak(), _INT()
        self._tweak_at, self._written_at = ctypes.addressof(self._tweak), ctypes.addressof(self._written)
        self._context = library.new_context()
        if self._context is None:
            raise MemoryError
        self._set_key(key)

    def close(self) -> None:
        """Free the context; the library overwrites the key schedule (EVP_CIPHER_CTX_free)."""
        context, self._context = self._context, None
        if context is not None:
            self._library.free_context(context)

    __del__ = close

    def transform(self, sources: Views, targets: Views, number: int, size: int, *, keep_lock: bool) -> None:
        """Encrypt or decrypt whole sectors; see `vscsihba.handlers.encrypt.xts.Xts.transform`."""
        init, update = self._keeping if keep_lock else self._releasing
        context, tweak, tweak_at, written_at = self._context, self._tweak, self._tweak_at, self._written_at
        for source, target in zip(sources, targets, strict=True):
            if len(source) != len(target) or len(target) % size:
                raise ValueError(f"sectors of {size} bytes: from {len(source)} bytes to {len(target)}")
            start, distance = _addresses(source, target)
            for at in range(start, start + len(target), size):
                tweak.number = number
                number += size // UNIT
                if (
                    init(context, None, None, tweak_at) != _DONE
                    or update(context, at, written_at, at + distance, size) != _DONE
                ):
                    raise OSError(errno.EIO, "libcrypto has failed to transform a sector")

    def _set_key(self, key: bytes | bytearray) -> None:
        cipher = self._library.cipher_by_name(_CIPHERS[len(key)])
        room = (ctypes.c_char * len(key)).from_buffer_copy(key)
        try:
            init = self._keeping[0]  # which fails if there is no such cipher
            if init(self._context, cipher, ctypes.addressof(room), self._tweak_at) != _DONE:
                raise OSError(errno.EIO, "libcrypto refuses the key")
        finally:
            ctypes.memset(room, 0, len(key))


@cache
def library() -> Library | None:
    """Return libcrypto, None if this machine has none that can do AES-XTS.

    A configuration of OpenSSL may lack the cipher. So it is tried, in both directions and with both sizes of
    key, before it is used.
    """
    for name in _NAMES:
        with suppress(OSError, AttributeError):
            found = Library(name)
            if _is_right(found):
                return found
    return None


def _is_right(found: Library) -> bool:
    """Return whether a library computes the test vectors of IEEE 1619-2007, annex B.

    These are the first blocks of vectors 2 and 10, which have the numbers 0x3333333333 and 0xff.
    """
    for key, plain, number, sealed in (
        ("11" * 16 + "22" * 16, "44" * 16, 0x3333333333, "c454185e6a16936e39334038acef838b"),
        (_VECTOR_10, bytes(range(16)).hex(), 0xFF, "1c3b3a102f770386e4836c99e370cf9b"),
    ):
        for encrypts, given, expected in ((True, plain, sealed), (False, sealed, plain)):
            cipher = LibcryptoXts(found, bytes.fromhex(key), encrypts=encrypts)
            block = [memoryview(bytearray.fromhex(given))]
            cipher.transform(block, block, number, 16, keep_lock=True)
            if block[0] != bytes.fromhex(expected):
                return False
    return True


_VECTOR_10: Final = (
    "2718281828459045235360287471352662497757247093699959574966967627"
    "3141592653589793238462643383279502884197169399375105820974944592"
)
"""The key of vector 10, of AES-256."""


def _addresses(source: memoryview, target: memoryview) -> tuple[int, int]:
    """Return the address of `target`, and the distance from there to the bytes of `source`.

    The address of memory that is read-only cannot be had, so its bytes are copied to `target` first.
    """
    start = ctypes.addressof(ctypes.c_char.from_buffer(target))
    if source is target:
        return start, 0
    if source.readonly:
        target[:] = source
        return start, 0
    return start, ctypes.addressof(ctypes.c_char.from_buffer(source)) - start


def _calls(library: ctypes.CDLL) -> _Calls:
    init = (_POINTER, _POINTER, _POINTER, _POINTER)
    return _Calls(
        _function(library, "EVP_EncryptInit", _INT, *init),
        _function(library, "EVP_DecryptInit", _INT, *init),
        _function(library, "EVP_CipherUpdate", _INT, _POINTER, _POINTER, _POINTER, _POINTER, _INT),
    )


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = library[name]
    function.restype, function.argtypes = result, arguments
    return function
