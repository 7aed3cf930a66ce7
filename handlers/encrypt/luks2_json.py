"""The JSON of a LUKS2 header: its keys and its payload, as far as they are supported here.

After the LUKS2 On-Disk Format Specification 1.1. Knows the words of the JSON; the binary
header around it, and what is done with a key, are `luks2`'s business.
"""

import base64
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from vscsihba.errors import HostError
from vscsihba.handlers.encrypt.crypto import STRIPES, Argon2i, Kdf, Pbkdf2, derive
from vscsihba.handlers.encrypt.libcrypto import KEY_SIZES

Json = dict[str, Any]

SPEC = "aes-xts-plain64"
"""The one way of encryption that is known here, of the payload and of the keys."""
AREA_SECTOR = 512
"""Bytes of a sector where keys are kept."""
PAYLOAD = 16 << 20
"""Byte offset of the payload in a new container."""
_ALIGN = 4096

_Number = Annotated[str, Meta(pattern=r"^[0-9]{1,19}$")]
"""A number of bytes, as text, since JSON's numbers are too short for it."""
_Names = Annotated[list[_Number], Meta(max_length=64)]
"""Numbers of slots or segments."""


class _Segment(Struct):
    type: str
    offset: _Number
    size: Annotated[str, Meta(pattern=r"^([0-9]{1,19}|dynamic)$")]
    encryption: str = ""
    iv_tweak: str = "0"
    sector_size: Literal[512, 1024, 2048, 4096] = 512
    integrity: Any = None


class _Digest(Struct):
    type: str
    keyslots: _Names
    segments: _Names


class _Area(Struct):
    offset: _Number
    size: _Number


class _Slot(Struct):
    type: str
    key_size: Annotated[int, Meta(ge=0)]
    area: _Area


class _Config(Struct):
    json_size: _Number
    keyslots_size: _Number
    requirements: dict[str, Any] | None = None


class _Metadata(Struct):
    """The parts of the JSON that this module relies on."""

    keyslots: dict[_Number, _Slot]
    segments: dict[_Number, _Segment]
    digests: dict[_Number, _Digest]
    config: _Config
    tokens: dict[str, dict[str, Any]] = {}


class _KnownDigest(_Digest):
    hash: str
    iterations: Annotated[int, Meta(ge=1, lt=1 << 31)]
    salt: bytes
    digest: bytes


class _Spread(Struct):
    type: str
    stripes: int
    hash: str


class _KnownArea(_Area):
    encryption: str
    key_size: int


class _KnownSlot(Struct):
    key_size: int
    area: _KnownArea
    af: _Spread
    kdf: Kdf


def new_json(
    key: bytes,
    digest_kdf: Pbkdf2,
    *,
    sector_size: int,
    header_size: int,
    binary_size: int,
    detached: bool = False,
) -> Json:
    """Return the JSON of a new container, with no slot used yet.

    Args:
        key: The volume key.
        digest_kdf: Key derivation function of its digest.
        sector_size: Bytes of a sector of the payload.
        header_size: Bytes of one copy of the header.
        binary_size: Bytes of these that are not JSON.
        detached: The payload is on another disk, from its first byte on.
    """
    return {
        "keyslots": {},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": "0" if detached else str(PAYLOAD),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": SPEC,
                "sector_size": sector_size,
            }
        },
        "digests": {"0": digest_json(key, digest_kdf)},
        "config": {
            "json_size": str(header_size - binary_size),
            "keyslots_size": str(PAYLOAD - 2 * header_size),
        },
    }


def digest_json(key: bytes, kdf: Pbkdf2) -> Json:
    """Return the digest of a volume key, for a header whose slots are all free."""
    return {
        "type": "pbkdf2",
        "keyslots": [],
        "segments": ["0"],
        "hash": kdf.hash,
        "iterations": kdf.iterations,
        "salt": _base64(kdf.salt),
        "digest": _base64(derive(kdf, key, 32)),
    }


def slot_json(place: int, key_size: int, hash_: str, kdf: Kdf) -> Json:
    """Return a key slot.

    Args:
        place: Byte offset of its stripes.
        key_size: Bytes of the key.
        hash_: With which the stripes are spread.
        kdf: Key derivation function.
    """
    name = "pbkdf2" if isinstance(kdf, Pbkdf2) else "argon2i" if isinstance(kdf, Argon2i) else "argon2id"
    return {
        "type": "luks2",
        "key_size": key_size,
        "af": {"type": "luks1", "stripes": STRIPES, "hash": hash_},
        "area": {
            "type": "raw",
            "offset": str(place),
            "size": str(area_size(key_size)),
            "encryption": SPEC,
            "key_size": key_size,
        },
        "kdf": {"type": name, **msgspec.structs.asdict(kdf), "salt": _base64(kdf.salt)},
    }


def check_known(json: Json) -> None:
    """Refuse a container of a kind that is not known here, and metadata that does not make sense.

    Raises:
        HostError: It is one, or they do not.
    """
    try:
        metadata = msgspec.convert(json, _Metadata)
        _check_kind(metadata)
        msgspec.convert(json["digests"][data_digest(json)], _KnownDigest)
    except msgspec.ValidationError as error:
        raise HostError(f"the LUKS2 header has metadata that is not understood: {error}") from error


def _check_kind(metadata: _Metadata) -> None:
    segments = metadata.segments
    if any((metadata.config.requirements or {}).values()):
        raise HostError("the container is being re-encrypted", cure="complete that with cryptsetup")
    if list(segments) != ["0"] or segments["0"].type != "crypt" or segments["0"].integrity is not None:
        raise HostError("the container has segments that are not known here", cure="open it with cryptsetup")
    spec = segments["0"].encryption
    if spec != SPEC or segments["0"].iv_tweak != "0":
        raise HostError(f"the container is encrypted with {spec}", cure=f"only {SPEC} is known here")


def data_digest(json: Json) -> str:
    """Return the number of the digest that recognises the key of the data.

    A new container has digest 0; a re-encrypted one has another, and a key that is not bound to the data
    has a digest of its own without a segment.

    Raises:
        HostError: There is none.
    """
    for number, digest in json["digests"].items():
        if "0" in digest["segments"]:
            return str(number)
    raise HostError("the LUKS2 header has no digest for its data", cure="restore a backup of the header")


def data_slots(json: Json) -> list[int]:
    """Return the numbers of the slots whose key opens the data."""
    bound = json["digests"][data_digest(json)]["keyslots"]
    return sorted(int(number) for number in bound if number in json["keyslots"])


def is_known_slot(slot: Json) -> bool:
    """Return whether a key slot can be opened here."""
    try:
        known = msgspec.convert(slot, _KnownSlot)
    except msgspec.ValidationError:
        return False
    return (
        slot["type"] == "luks2"
        and (known.area.encryption, known.af.type, known.af.stripes) == (SPEC, "luks1", STRIPES)
        and known.key_size in KEY_SIZES
        and known.area.key_size in KEY_SIZES
    )


def kdf_of(json: Json) -> Kdf:
    """Return the key derivation function of a key slot (``kdf``)."""
    known: Kdf = msgspec.convert(json, Kdf)
    return known


def stripes_size(key_size: int) -> int:
    """Return the bytes of a key's stripes, in whole sectors."""
    return -(-key_size * STRIPES // AREA_SECTOR) * AREA_SECTOR


def area_size(key_size: int) -> int:
    """Return the bytes that are set aside for them."""
    return -(-key_size * STRIPES // _ALIGN) * _ALIGN


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
