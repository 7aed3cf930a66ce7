"""The JSON of a LUKS2 header: what it says of keys and of the payload, and what of it is known here.

After the LUKS2 On-Disk Format Specification 1.1. Knows the words of the JSON; the binary
header around it, and what is done with a key, are `luks2`'s business.
"""

import base64
from typing import Any

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers.luks_crypto import STRIPES, Argon2i, Kdf, Pbkdf2, derive

Json = dict[str, Any]

SPEC = "aes-xts-plain64"
"""The one way of encryption that is known here, of the payload and of the keys."""
AREA_SECTOR = 512
"""Bytes of a sector where keys are kept."""
PAYLOAD = 16 << 20
"""Byte offset of the payload in a new container."""
_ALIGN = 4096


def new_json(key: bytes, digest_kdf: Pbkdf2, *, sector_size: int, header_size: int, binary_size: int) -> Json:
    """Return the JSON of a new container, with no slot used yet.

    Args:
        key: The volume key.
        digest_kdf: What it is recognised with.
        sector_size: Bytes of a sector of the payload.
        header_size: Bytes of one copy of the header.
        binary_size: Bytes of these that are not JSON.
    """
    return {
        "keyslots": {},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": str(PAYLOAD),
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
    """Return what a volume key is recognised by, for a header whose slots are all free."""
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
        kdf: What slows a guesser down.
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


def demand_known(json: Json) -> None:
    """Refuse a container that is of another kind.

    Raises:
        HostError: It is.
    """
    segments = json["segments"]
    if list(segments) != ["0"] or segments["0"]["type"] != "crypt" or "integrity" in segments["0"]:
        raise HostError("the container has segments that are not known here", cure="open it with cryptsetup")
    spec = segments["0"]["encryption"]
    if spec != SPEC or segments["0"]["iv_tweak"] != "0":
        raise HostError(f"the container is encrypted with {spec}", cure=f"only {SPEC} is known here")
    if json["config"].get("requirements"):
        raise HostError("the container is being re-encrypted", cure="complete that with cryptsetup")


def is_known_slot(slot: Json) -> bool:
    """Tell whether a key slot can be opened here."""
    area, spread = slot["area"], slot["af"]
    return bool(area["encryption"] == SPEC and spread["type"] == "luks1" and spread["stripes"] == STRIPES)


def kdf_of(json: Json) -> Kdf:
    """Return what a key slot says under ``kdf``."""
    known: Kdf = msgspec.convert({**json, "salt": base64.b64decode(json["salt"])}, Kdf)
    return known


def stripes_size(key_size: int) -> int:
    """Return the bytes of a key's stripes, in whole sectors."""
    return -(-key_size * STRIPES // AREA_SECTOR) * AREA_SECTOR


def area_size(key_size: int) -> int:
    """Return the bytes that are set aside for them."""
    return -(-key_size * STRIPES // _ALIGN) * _ALIGN


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
