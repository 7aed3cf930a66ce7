"""Options of an encrypted disk: places of header and secret, and how a new container is made."""

from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.handlers.encrypt.crypto import Kdf, new_kdf
from vscsihba.handlers.encrypt.passphrase import PassphraseOptions
from vscsihba.handlers.options import Count, MediumPath, Size


class EncryptOptions(PassphraseOptions, kw_only=True):
    """Options of the encrypt filter."""

    header: Annotated[
        MediumPath,
        Meta(
            description="File or block device with the header, if it is not with the data "
            "(cryptsetup --header)."
        ),
    ] = ""
    create: Annotated[
        bool,
        Meta(description="Create a container if there is none and the disk begins with zeroes."),
    ] = False
    luks: Annotated[Literal[1, 2], Meta(description="Version of a new container.")] = 2
    sector_size: Annotated[
        Literal[512, 4096], Meta(description="Sector of a new LUKS2 container in bytes; 512 is slow.")
    ] = 4096
    kdf: Annotated[
        Literal["argon2id", "pbkdf2"] | None,
        Meta(description="Key derivation function of a new container; argon2id, for LUKS1 pbkdf2."),
    ] = None
    kdf_memory: Annotated[
        Size, Meta(description="Memory for argon2id, at most half of the machine's memory.")
    ] = 1 << 30
    kdf_time: Annotated[Count, Meta(description="Passes of argon2id, or seconds of pbkdf2.")] = 4
    discard: Annotated[
        bool,
        Meta(description="Pass unmapped sectors to the layer below; this reveals which sectors are unused."),
    ] = False

    def __post_init__(self) -> None:
        """Refuse options that LUKS1 does not have."""
        super().__post_init__()
        if self.luks == 1 and self.kdf == "argon2id":
            raise ValueError("LUKS1 has no argon2id")

    def new_kdf(self, luks: int) -> Kdf:
        """Return the key derivation of a new key, with a new salt.

        Args:
            luks: Version of the container that gets it; version 1 has pbkdf2 only.
        """
        argon2 = luks == 2 and self.kdf != "pbkdf2"
        return new_kdf(argon2=argon2, time=self.kdf_time, memory=self.kdf_memory)
