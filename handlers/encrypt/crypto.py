"""The cryptography of keys that LUKS1 and LUKS2 share: key derivation, anti-forensic split of keys.

A key is *spread* over thousands of stripes before it is stored, so that destroying any part of
them destroys it (the anti-forensic splitter of the LUKS1 on-disk format, section 2.4). This module knows
no header; `sectors` knows how the stripes and the payload are encrypted.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vscsihba.errors import HostError
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.optional import need
from vscsihba.handlers.shared.tmpfs_store import private_directory
from vscsihba.units import format_size

STRIPES = 4000
_MOST_MEMORY = 4 << 30
"""Bytes that cryptsetup lets a key derivation take at most (``DEFAULT_LUKS2_MEMORY_KB``'s limit)."""
_MOST_ITERATIONS = (1 << 31) - 1
"""Of PBKDF2 in OpenSSL."""


class Pbkdf2(msgspec.Struct, frozen=True, tag="pbkdf2"):
    """PBKDF2 (RFC 8018), as LUKS2 writes it down.

    Attributes:
        salt: Random.
        hash: Of HMAC.
        iterations: How often.
    """

    salt: bytes
    hash: str
    iterations: Annotated[int, Meta(ge=1, le=_MOST_ITERATIONS)]


class Argon2(msgspec.Struct, frozen=True, tag="argon2id"):
    """Argon2id (RFC 9106), as LUKS2 writes it down.

    Attributes:
        salt: Random.
        time: Passes.
        memory: KiB.
        cpus: Lanes.
    """

    salt: bytes
    time: Annotated[int, Meta(ge=1, lt=1 << 32)]
    memory: Annotated[int, Meta(ge=8, lt=1 << 32)]
    cpus: Annotated[int, Meta(ge=1, lt=1 << 24)]


class Argon2i(Argon2, frozen=True, tag="argon2i"):
    """Argon2i, the older variant."""


Kdf = Pbkdf2 | Argon2 | Argon2i


@dataclass(frozen=True, slots=True)
class SealedKey:
    """An encrypted key, as a slot stores it.

    Attributes:
        kdf: Key derivation function of the passphrase.
        size: Bytes of the key.
        stripes: The key, spread and encrypted, in whole sectors.
    """

    kdf: Kdf
    size: int
    stripes: bytes


def derive(kdf: Kdf, passphrase: bytes, length: int) -> bytes:
    """Return `length` bytes derived from a passphrase.

    Raises:
        HostError: The package or the hash is missing, or this machine has too little memory.
    """
    if isinstance(kdf, Pbkdf2):
        try:
            return hashlib.pbkdf2_hmac(kdf.hash, passphrase, kdf.salt, kdf.iterations, length)
        except (ValueError, OverflowError) as error:
            raise HostError(
                f"the encryption header asks for {kdf.iterations} iterations of PBKDF2 "
                f"with the hash {kdf.hash!r}: {error}"
            ) from error
    return _argon2(kdf, passphrase, length)


def _argon2(kdf: Argon2, passphrase: bytes, length: int) -> bytes:
    """Run Argon2, if this machine has the memory for it.

    Without this check the kernel would end the process, which may serve other disks, when the pages are
    touched.
    """
    argon2: Any = need(
        "argon2.low_level",
        package="argon2-cffi",
        debian="python3-argon2",
        extra="encrypt",
        user="a key with argon2",
    )
    variant = argon2.Type.I if isinstance(kdf, Argon2i) else argon2.Type.ID
    wanted = kdf.memory << 10
    with _one_at_a_time():
        available = linux.memory_available()
        if wanted > available:
            raise _too_little_memory(wanted, f"{format_size(available)} is available")
        try:
            key: bytes = argon2.hash_secret_raw(
                passphrase, kdf.salt, kdf.time, kdf.memory, kdf.cpus, length, variant, version=19
            )
        except argon2.HashingError as error:
            raise _too_little_memory(wanted, str(error)) from error
    return key


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one thread of one process take the memory for a derivation, as cryptsetup does with its own.

    Engines that open their disks at once would each find the memory available, and take it together.
    """
    path = private_directory() / "argon2.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _too_little_memory(wanted: int, why: str) -> HostError:
    return HostError(
        f"a key derivation (argon2) takes {format_size(wanted)} of memory: {why}",
        cure="free some memory, or give the key another derivation (cryptsetup luksConvertKey)",
    )


def new_kdf(*, argon2: bool, time: int, memory: int) -> Kdf:
    """Return a key derivation with a new salt.

    Args:
        argon2: Argon2id, else PBKDF2.
        time: Passes of Argon2id; seconds that PBKDF2 takes on this machine.
        memory: Bytes for Argon2id at most; half of this machine's memory bounds it, as in cryptsetup.
    """
    salt = os.urandom(32)
    if argon2:
        bounded = min(memory, linux.memory_total() // 2, _MOST_MEMORY)
        return Argon2(salt, max(1, time), max(32, bounded >> 10), min(4, os.cpu_count() or 1))
    trial = 20_000
    start = perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"trial", salt, trial, 64)
    iterations = max(1000, int(trial * time / (perf_counter() - start)))
    return Pbkdf2(salt, "sha256", min(iterations, _MOST_ITERATIONS))


def spread(key: bytes, hash_: str) -> bytes:
    """Spread a key over stripes."""
    stripes = os.urandom(len(key) * (STRIPES - 1))
    mixed = _mixed(stripes, len(key), hash_)
    return stripes + _xor(mixed, key)


def gather(stripes: bytes | memoryview, length: int, hash_: str) -> bytes:
    """Return the key of `length` bytes that was spread over stripes."""
    last = length * (STRIPES - 1)
    return _xor(_mixed(stripes[:last], length, hash_), bytes(stripes[last : last + length]))


def _mixed(stripes: bytes | memoryview, length: int, hash_: str) -> bytes:
    mixed = bytes(length)
    for at in range(0, len(stripes), length):
        mixed = _diffuse(_xor(mixed, bytes(stripes[at : at + length])), hash_)
    return mixed


def _diffuse(block: bytes, hash_: str) -> bytes:
    """Hash a block piece by piece, each with its number in front."""
    size = hashlib.new(hash_).digest_size
    pieces = (block[at : at + size] for at in range(0, len(block), size))
    return b"".join(
        hashlib.new(hash_, number.to_bytes(4, "big") + piece).digest()[: len(piece)]
        for number, piece in enumerate(pieces)
    )


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")
