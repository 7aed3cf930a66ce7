"""LUKS2: the header that cryptsetup makes today.

After the LUKS2 On-Disk Format Specification 1.1: two copies of a binary header, each with a
checksum and followed by the same JSON, then the stripes of the keys, then the payload.
Unknown keys of the JSON are kept as they are.

This module knows the binary header and what is done with keys; `luks2_json` the words of the JSON.
"""

import base64
import hashlib
import hmac
import os
import struct
import uuid
from dataclasses import dataclass, replace
from typing import ClassVar

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt import luks2_json
from vscsihba.handlers.encrypt.crypto import Kdf, Pbkdf2, SealedKey, derive, gather, spread
from vscsihba.handlers.encrypt.luks2_json import Json
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

MAGICS = (b"LUKS\xba\xbe\x00\x02", b"SKUL\xba\xbe\x00\x02")
"""Of the first and the second copy, with the version."""
SECOND_COPIES = tuple(0x4000 << power for power in range(9))
"""Where the second copy may be, in bytes: as large as the header is."""
_BINARY = struct.Struct(">8sQQ48s32s64s40s48sQ184s64s")
_BINARY_SIZE = 4096
_CHECKSUM_AT = 448
_HEADER_SIZE = 0x4000
_SLOTS = 32
_SPREAD_HASH = "sha256"
"""With which the stripes of a new key are spread."""


@dataclass(frozen=True, slots=True)
class Luks2:
    """A LUKS2 header.

    Attributes:
        uuid: Names the container.
        sequence: Counts the changes of the header.
        header_size: Bytes of one copy.
        label: A person's name for it.
        subsystem: Another one.
        json: Everything else, as the specification calls it.
    """

    version: ClassVar[int] = 2
    uuid: str
    sequence: int
    header_size: int
    label: bytes
    subsystem: bytes
    json: Json

    @property
    def _segment(self) -> Json:
        segment: Json = self.json["segments"]["0"]
        return segment

    @property
    def payload(self) -> int:
        """Byte offset of the payload."""
        return int(self._segment["offset"])

    @property
    def size(self) -> int | None:
        """Bytes of the payload; None for all the rest."""
        size = self._segment["size"]
        return None if size == "dynamic" else int(size)

    @property
    def sector_size(self) -> int:
        """Bytes of a sector of the payload."""
        return int(self._segment["sector_size"])

    @property
    def used(self) -> list[int]:
        """The numbers of the slots that hold a key."""
        return sorted(map(int, self.json["keyslots"]))

    @property
    def data_slots(self) -> list[int]:
        """The numbers of the slots whose key opens the data; others hold keys of their own."""
        return luks2_json.data_slots(self.json)

    @property
    def key_size(self) -> int:
        """Bytes of the volume key."""
        return int(self.json["keyslots"][str(self.data_slots[0])]["key_size"])

    @property
    def stripes(self) -> tuple[int, int]:
        """First byte and end of the key area."""
        start = 2 * self.header_size
        return start, start + int(self.json["config"]["keyslots_size"])

    @property
    def end(self) -> int:
        """Byte behind the header and everything that belongs to it."""
        return self.stripes[1]

    def check_areas(self) -> None:
        """Refuse key slots that lie outside of the room for them, where writing one would destroy more.

        Raises:
            HostError: One does.
        """
        start, end = self.stripes
        for number, slot in self.json["keyslots"].items():
            offset, size = int(slot["area"]["offset"]), int(slot["area"]["size"])
            if offset < start or offset + size > end:
                raise HostError(f"key slot {number} of the LUKS2 header lies outside of the room for keys")

    def rekeyed(self, key: bytes, digest_kdf: Pbkdf2) -> "Luks2":
        """Return a header for another volume key, with no slot used yet."""
        changed = self._copy_of_json()
        changed.update(keyslots={}, tokens={}, digests={"0": luks2_json.digest_json(key, digest_kdf)})
        return replace(self, json=changed)

    def unlock(self, disk: Handler, passphrase: bytes) -> tuple[int, bytes] | None:
        """Return a slot that `passphrase` opens and the volume key, None if there is none.

        Raises:
            HostError: None of those that are known here, and there is one that is not, or that this machine
                cannot open.
            OSError: The disk cannot be read.
        """
        unknown: HostError | None = None
        for number in self.data_slots:
            try:
                key = self._open_slot(disk, number, passphrase)
            except HostError as error:
                unknown = unknown or error
                continue
            if self._is_volume_key(key):
                return number, key
        if unknown is not None:
            raise unknown
        return None

    def _open_slot(self, disk: Handler, number: int, passphrase: bytes) -> bytes:
        """Return the content of a slot: the key, if the passphrase is the right one."""
        slot = self.json["keyslots"][str(number)]
        if not luks2_json.is_known_slot(slot):
            raise HostError(f"key slot {number} is of a kind that is not known here")
        area, size = slot["area"], int(slot["key_size"])
        wrapping = derive(luks2_json.kdf_of(slot["kdf"]), passphrase, int(area["key_size"]))
        sealed = read_bytes(disk, int(area["offset"]), luks2_json.stripes_size(size))
        return gather(Sectors(wrapping, luks2_json.AREA_SECTOR).decrypt(sealed, 0), size, slot["af"]["hash"])

    def seal(self, key: bytes, passphrase: bytes, kdf: Kdf) -> SealedKey:
        """Return the volume key sealed with a passphrase."""
        size = len(key)
        stripes = spread(key, _SPREAD_HASH).ljust(luks2_json.stripes_size(size), b"\0")
        sealed = Sectors(derive(kdf, passphrase, size), luks2_json.AREA_SECTOR).encrypt(stripes, 0)
        return SealedKey(kdf, size, bytes(sealed))

    def add_key(self, disk: Handler, key: SealedKey) -> "Luks2":
        """Put a sealed key into a free slot; return the new header.

        Raises:
            UsageError: There is no room for another one.
            OSError: The disk cannot be written.
        """
        place = self._free_area(key.size)
        write_bytes(disk, place, key.stripes)
        disk.flush()
        number = next(number for number in range(_SLOTS) if number not in self.used)
        slot = luks2_json.slot_json(place, key.size, _SPREAD_HASH, key.kdf)
        changed = self._copy_of_json()
        changed["keyslots"][str(number)] = slot
        changed["digests"][luks2_json.data_digest(changed)]["keyslots"].append(str(number))
        return self._changed(disk, changed)

    def remove_key(self, disk: Handler, number: int) -> "Luks2":
        """Destroy the key material of a slot; return the new header.

        Raises:
            UsageError: It holds nothing, or the only key that opens the data.
            OSError: The disk cannot be written.
        """
        if number not in self.used:
            raise UsageError(f"key slot {number} holds no key", cure=f"slots with a key: {self.used}")
        if self.data_slots == [number]:
            raise UsageError("this is the only key that opens the data", cure="add another one first")
        changed = self._copy_of_json()
        area = changed["keyslots"].pop(str(number))["area"]
        for owner in (*changed["digests"].values(), *changed.get("tokens", {}).values()):
            if str(number) in owner.get("keyslots", ()):
                owner["keyslots"].remove(str(number))
        write_bytes(disk, int(area["offset"]), os.urandom(int(area["size"])))
        disk.flush()
        return self._changed(disk, changed)

    def write(self, disk: Handler) -> None:
        """Put both copies on stable storage, one after the other, so that one is always whole."""
        for second in (False, True):
            write_bytes(disk, self.header_size if second else 0, self.encode(second=second))
            disk.flush()

    def encode(self, *, second: bool) -> bytes:
        """Return one of the copies.

        Raises:
            HostError: The JSON has outgrown its area.
        """
        text = msgspec.json.encode(self.json)
        if len(text) >= self.header_size - _BINARY_SIZE:
            raise HostError("the LUKS2 header has no room for more", cure="remove keys or tokens")
        fields = (
            MAGICS[second],
            self.header_size,
            self.sequence,
            self.label,
            b"sha256",
            os.urandom(64),
            self.uuid.encode(),
            self.subsystem,
            self.header_size if second else 0,
            b"",
        )
        rest = text.ljust(self.header_size - _BINARY_SIZE, b"\0")
        blank = _BINARY.pack(*fields, b"").ljust(_BINARY_SIZE, b"\0")
        checksum = hashlib.sha256(blank + rest).digest()
        return _BINARY.pack(*fields, checksum).ljust(_BINARY_SIZE, b"\0") + rest

    def _is_volume_key(self, key: bytes) -> bool:
        digest = self.json["digests"][luks2_json.data_digest(self.json)]
        wanted = base64.b64decode(digest["digest"])
        kdf = Pbkdf2(base64.b64decode(digest["salt"]), digest["hash"], int(digest["iterations"]))
        return hmac.compare_digest(derive(kdf, key, len(wanted)), wanted)

    def _free_area(self, key_size: int) -> int:
        """Return the byte offset of room for the stripes of a key."""
        start, end = self.stripes
        areas = [slot["area"] for slot in self.json["keyslots"].values()]
        for offset, size in sorted((int(area["offset"]), int(area["size"])) for area in areas):
            if offset - start >= luks2_json.area_size(key_size):
                break
            start = offset + size
        if start + luks2_json.area_size(key_size) > end or len(areas) == _SLOTS:
            raise UsageError("all key slots are in use", cure="remove a key first")
        return start

    def _copy_of_json(self) -> Json:
        copy: Json = msgspec.json.decode(msgspec.json.encode(self.json))
        return copy

    def _changed(self, disk: Handler, json: Json) -> "Luks2":
        header = replace(self, json=json, sequence=self.sequence + 1)
        header.write(disk)
        return header


def decode(data: bytes, *, at: int) -> Luks2 | None:
    """Return a copy of the header that begins `at` bytes of a disk, None if it is not whole.

    Raises:
        HostError: It is whole, and of a kind that is not known here.
    """
    if len(data) < _BINARY_SIZE:
        return None
    magic, size, sequence, label, algorithm, _, name, subsystem, offset, _, checksum = _BINARY.unpack_from(
        data
    )
    if magic not in MAGICS or offset != at or len(data) < size or size < _BINARY_SIZE:
        return None
    blank = data[:_CHECKSUM_AT] + bytes(64) + data[_CHECKSUM_AT + 64 : size]
    try:
        digest = hashlib.new(_text(algorithm), blank).digest()
    except ValueError:
        return None
    if not hmac.compare_digest(digest, checksum[: len(digest)]):
        return None
    try:
        json = msgspec.json.decode(data[_BINARY_SIZE:size].rstrip(b"\0"))
    except msgspec.DecodeError as error:
        raise HostError(f"the LUKS2 header has metadata that is not understood: {error}") from error
    luks2_json.check_known(json)
    header = Luks2(_text(name), sequence, size, label, subsystem, json)
    header.check_areas()
    return header


def create(key: bytes, digest_kdf: Pbkdf2, *, sector_size: int, detached: bool = False) -> Luks2:
    """Return a new header for a volume key, with no slot used yet."""
    json = luks2_json.new_json(
        key,
        digest_kdf,
        sector_size=sector_size,
        header_size=_HEADER_SIZE,
        binary_size=_BINARY_SIZE,
        detached=detached,
    )
    return Luks2(str(uuid.uuid4()), 1, _HEADER_SIZE, b"", b"", json)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")
