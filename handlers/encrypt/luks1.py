"""LUKS1: the older header, which QEMU, nbdkit and every cryptsetup know.

After the LUKS On-Disk Format Specification 1.2.3: a header of 592 bytes with eight key
slots, the stripes of each slot's key, then the payload in sectors of 512 bytes. There
is one copy of the header.
"""

import hmac
import os
import struct
import uuid
from dataclasses import dataclass, replace
from typing import ClassVar

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt.crypto import STRIPES, Kdf, Pbkdf2, SealedKey, derive, gather, spread
from vscsihba.handlers.encrypt.libcrypto import KEY_SIZES
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

MAGIC = b"LUKS\xba\xbe\x00\x01"
_SECTOR = 512
_HEADER = struct.Struct(">8s32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_SLOTS = 8
_SIZE = _HEADER.size + _SLOTS * _SLOT.size
_ACTIVE, _DISABLED = 0x00AC71F3, 0x0000DEAD
_DIGEST = 20
_FIRST_STRIPES, _ALIGN = 8, 8
_PAYLOAD = 4096
"""Where cryptsetup puts the payload, in sectors."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One key slot.

    Attributes:
        active: It holds a key.
        kdf: Key derivation function of its passphrase.
        place: First sector of its stripes.
    """

    active: bool
    kdf: Pbkdf2
    place: int


@dataclass(frozen=True, slots=True)
class Luks1:
    """A LUKS1 header.

    Attributes:
        uuid: Names the container.
        key_size: Bytes of the volume key.
        payload: Byte offset of the payload.
        size: Bytes of the payload; None for all the rest.
        sector_size: Bytes of a sector of the payload.
        digest: Digest by which the volume key is recognised.
        digest_kdf: Key derivation function of that digest.
        slots: Eight.
    """

    version: ClassVar[int] = 1
    sector_size: ClassVar[int] = _SECTOR
    size: ClassVar[None] = None
    uuid: str
    key_size: int
    payload: int
    digest: bytes
    digest_kdf: Pbkdf2
    slots: tuple[Slot, ...]

    @property
    def used(self) -> list[int]:
        """The numbers of the slots that hold a key."""
        return [number for number, slot in enumerate(self.slots) if slot.active]

    @property
    def data_slots(self) -> list[int]:
        """The numbers of the slots whose key opens the data: in LUKS1, all that hold one."""
        return self.used

    @property
    def stripes(self) -> tuple[int, int]:
        """First byte and end of the key area."""
        return min(slot.place for slot in self.slots) * _SECTOR, self.end

    @property
    def end(self) -> int:
        """Byte behind the header and everything that belongs to it."""
        return max(slot.place for slot in self.slots) * _SECTOR + self._stripes_size

    def rekeyed(self, key: bytes, digest_kdf: Pbkdf2) -> "Luks1":
        """Return a header for another volume key, with no slot used yet."""
        digest_kdf = replace_hash(digest_kdf, self.digest_kdf.hash)
        return replace(
            self,
            digest=derive(digest_kdf, key, _DIGEST),
            digest_kdf=digest_kdf,
            slots=tuple(replace(slot, active=False) for slot in self.slots),
        )

    def unlock(self, disk: Handler, passphrase: bytes) -> tuple[int, bytes] | None:
        """Return a slot that `passphrase` opens and the volume key, None if there is none.

        Raises:
            OSError: The disk cannot be read.
        """
        for number in self.used:
            slot = self.slots[number]
            sealed = read_bytes(disk, slot.place * _SECTOR, self._stripes_size)
            sectors = Sectors(derive(slot.kdf, passphrase, self.key_size), _SECTOR)
            key = gather(sectors.decrypt(sealed, 0), self.key_size, slot.kdf.hash)
            if hmac.compare_digest(derive(self.digest_kdf, key, _DIGEST), self.digest):
                return number, key
        return None

    def seal(self, key: bytes, passphrase: bytes, kdf: Kdf) -> SealedKey:
        """Return the volume key sealed with a passphrase.

        Raises:
            UsageError: LUKS1 has no such key derivation.
        """
        if not isinstance(kdf, Pbkdf2):
            raise UsageError("LUKS1 has no argon2", cure="use pbkdf2, or LUKS2")
        kdf = replace_hash(kdf, self.digest_kdf.hash)
        stripes = spread(key, kdf.hash).ljust(self._stripes_size, b"\0")
        sealed = Sectors(derive(kdf, passphrase, self.key_size), _SECTOR).encrypt(stripes, 0)
        return SealedKey(kdf, len(key), bytes(sealed))

    def add_key(self, disk: Handler, key: SealedKey) -> "Luks1":
        """Put a sealed key into a free slot; return the new header.

        Raises:
            UsageError: All slots are used.
            OSError: The disk cannot be written.
        """
        assert isinstance(key.kdf, Pbkdf2)  # noqa: S101 - by `seal`
        free = [number for number, slot in enumerate(self.slots) if not slot.active]
        if not free:
            raise UsageError("all eight key slots are used", cure="remove a key first")
        place = self.slots[free[0]].place
        write_bytes(disk, place * _SECTOR, key.stripes)
        disk.flush()
        return self._with_slot(disk, free[0], Slot(active=True, kdf=key.kdf, place=place))

    def remove_key(self, disk: Handler, number: int) -> "Luks1":
        """Destroy the key material of a slot; return the new header.

        Raises:
            UsageError: It holds nothing, or the only key.
            OSError: The disk cannot be written.
        """
        if number not in self.used:
            raise UsageError(f"key slot {number} holds no key", cure=f"slots with a key: {self.used}")
        if len(self.used) == 1:
            raise UsageError("this is the only key that opens the data", cure="add another one first")
        slot = self.slots[number]
        write_bytes(disk, slot.place * _SECTOR, os.urandom(self._stripes_size))
        disk.flush()
        return self._with_slot(disk, number, replace(slot, active=False))

    def write(self, disk: Handler) -> None:
        """Put the header on stable storage."""
        write_bytes(disk, 0, self.encode())
        disk.flush()

    def encode(self) -> bytes:
        """Return the header as it lies on the disk."""
        head = _HEADER.pack(
            MAGIC,
            b"aes",
            b"xts-plain64",
            self.digest_kdf.hash.encode(),
            self.payload // _SECTOR,
            self.key_size,
            self.digest,
            self.digest_kdf.salt,
            self.digest_kdf.iterations,
            self.uuid.encode(),
        )
        slots = (
            _SLOT.pack(
                _ACTIVE if slot.active else _DISABLED,
                slot.kdf.iterations if slot.active else 0,
                slot.kdf.salt if slot.active else b"",
                slot.place,
                STRIPES,
            )
            for slot in self.slots
        )
        return head + b"".join(slots)

    @property
    def _stripes_size(self) -> int:
        """Bytes of a slot's stripes, in whole sectors."""
        return -(-self.key_size * STRIPES // _SECTOR) * _SECTOR

    def _with_slot(self, disk: Handler, number: int, slot: Slot) -> "Luks1":
        header = replace(self, slots=(*self.slots[:number], slot, *self.slots[number + 1 :]))
        header.write(disk)
        return header


def replace_hash(kdf: Pbkdf2, hash_: str) -> Pbkdf2:
    """Return a key derivation with the hash of the header, the only one that LUKS1 has."""
    return Pbkdf2(kdf.salt, hash_, kdf.iterations)


def decode(data: bytes) -> Luks1:
    """Return the header at the beginning of a disk, of which `data` are the first 592 bytes.

    Raises:
        HostError: It is one of a kind that is not known here, or damaged.
    """
    if len(data) < _SIZE:
        raise HostError("the LUKS1 header is cut off", cure="restore a backup of the header")
    _, cipher, mode, hash_, payload, key_size, digest, salt, iterations, name = _HEADER.unpack_from(data)
    spec = f"{_text(cipher)}-{_text(mode)}"
    if spec != "aes-xts-plain64":
        raise HostError(f"the container is encrypted with {spec}", cure="only aes-xts-plain64 is known here")
    if key_size not in KEY_SIZES:
        raise HostError(f"the LUKS1 header has a key of {key_size} bytes", cure=f"known are {KEY_SIZES}")
    hash_ = _text(hash_)
    slots = []
    for number in range(_SLOTS):
        active, slot_iterations, slot_salt, place, stripes = _SLOT.unpack_from(
            data, _HEADER.size + number * _SLOT.size
        )
        if active == _ACTIVE and stripes != STRIPES:
            raise HostError(f"key slot {number} has {stripes} stripes, known are {STRIPES}")
        slots.append(Slot(active == _ACTIVE, Pbkdf2(slot_salt, hash_, slot_iterations), place))
    return Luks1(
        uuid=_text(name),
        key_size=key_size,
        payload=payload * _SECTOR,
        digest=digest,
        digest_kdf=Pbkdf2(salt, hash_, iterations),
        slots=tuple(slots),
    )


def create(key: bytes, digest_kdf: Pbkdf2, *, detached: bool = False) -> Luks1:
    """Return a new header for a volume key, with no slot used yet."""
    stripes = -(-len(key) * STRIPES // _SECTOR // _ALIGN) * _ALIGN
    empty = Pbkdf2(b"", digest_kdf.hash, 0)
    return Luks1(
        uuid=str(uuid.uuid4()),
        key_size=len(key),
        payload=0 if detached else _PAYLOAD * _SECTOR,
        digest=derive(digest_kdf, key, _DIGEST),
        digest_kdf=digest_kdf,
        slots=tuple(
            Slot(active=False, kdf=empty, place=_FIRST_STRIPES + number * stripes) for number in range(_SLOTS)
        ),
    )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")
