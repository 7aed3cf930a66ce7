"""Ciphers for sectors: AES-XTS by libcrypto, or by the package ``cryptography`` where that cannot be used."""

from typing import Any, Protocol

from vscsihba.block import Views
from vscsihba.handlers.encrypt import libcrypto
from vscsihba.handlers.encrypt.libcrypto import UNIT
from vscsihba.handlers.shared.optional import need

_SLACK = 15
"""Bytes that ``update_into`` wants to have behind its output, and leaves alone."""


class Xts(Protocol):
    """AES-XTS in one direction with one key. For one thread at a time."""

    def transform(self, sources: Views, targets: Views, number: int, size: int, *, keep_lock: bool) -> None:
        """Encrypt or decrypt sectors that follow each other.

        Args:
            sources: The sectors; each view is contiguous and has whole ones.
            targets: Writable views of the same lengths; they may be the same views.
            number: Tweak of the first sector: its first byte on the volume, in units of 512 bytes.
            size: Bytes of a sector.
            keep_lock: Keep the interpreter's lock, if that can be chosen.

        Raises:
            OSError: EIO if the library fails; the targets are undefined.
            ValueError: The lengths are wrong.
        """

    def close(self) -> None:
        """Overwrite the key schedule; it is not used any more."""


def new_cipher(key: bytes | bytearray, *, encrypts: bool) -> Xts:
    """Return a cipher for a key of 32 or 64 bytes: two AES keys.

    Raises:
        HostError: This machine has neither libcrypto nor the package.
        OSError: EIO if the library refuses the key.
    """
    library = libcrypto.library()
    if library is None:
        return PackageXts(key, encrypts=encrypts)
    return libcrypto.LibcryptoXts(library, key, encrypts=encrypts)


def is_quick() -> bool:
    """Return whether a sector takes a few microseconds at most: libcrypto is used."""
    return libcrypto.library() is not None


class PackageXts:
    """The same by the package ``cryptography``, which makes a cipher for each sector.

    Raises:
        HostError: The package is missing.
    """

    def __init__(self, key: bytes | bytearray, *, encrypts: bool) -> None:
        ciphers: Any = need(
            "cryptography.hazmat.primitives.ciphers",
            package="cryptography",
            debian="libssl3 or python3-cryptography",
            extra="encrypt",
            user="encryption without OpenSSL's libcrypto",
        )
        self._aes = ciphers.algorithms.AES(key)
        self._cipher, self._xts = ciphers.Cipher, ciphers.modes.XTS
        self._encrypts = encrypts

    def transform(self, sources: Views, targets: Views, number: int, size: int, *, keep_lock: bool) -> None:
        """Encrypt or decrypt whole sectors."""
        room = memoryview(bytearray(size + _SLACK))
        for source, target in zip(sources, targets, strict=True):
            for at in range(0, len(source), size):
                cipher = self._cipher(self._aes, self._xts(number.to_bytes(16, "little")))
                context = cipher.encryptor() if self._encrypts else cipher.decryptor()
                context.update_into(source[at : at + size], room)
                target[at : at + size] = room[:size]
                number += size // UNIT

    def close(self) -> None:
        """Leave the key to the package, which has no way to overwrite it."""
