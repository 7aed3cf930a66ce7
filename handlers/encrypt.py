"""encrypt: a disk that is encrypted below, in a container that cryptsetup opens too.

LUKS2 and LUKS1, AES-XTS. This module knows how the sectors of the payload are read and
written; `luks` knows the header, `luks_crypto` the cryptography, `passphrase` where a
secret comes from.
"""

import errno
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, Geometry, Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers import linux, luks
from vscsihba.handlers.base import Handler
from vscsihba.handlers.filter import Transform
from vscsihba.handlers.gate import Gate
from vscsihba.handlers.losses import losses_moved
from vscsihba.handlers.luks_crypto import Kdf, Sectors, new_kdf
from vscsihba.handlers.options import Count, Size
from vscsihba.handlers.passphrase import PassphraseOptions
from vscsihba.handlers.vectored import read_bytes


class EncryptHandler(Transform):
    """A LUKS container, as cryptsetup makes and opens them."""

    name = "encrypt"
    example = "encrypt:key_file=/etc/disk.key|/srv/disk.luks"
    workers = 64

    class Options(PassphraseOptions, kw_only=True):
        """Options of the encrypt filter."""

        create: Annotated[
            bool,
            Meta(description="Make a container if there is none and the beginning of the disk is zeroes."),
        ] = False
        luks: Annotated[Literal[1, 2], Meta(description="Version of a new container.")] = 2
        sector_size: Annotated[
            Literal[512, 4096], Meta(description="Sector of a new LUKS2 container in bytes; 512 is slow.")
        ] = 4096
        kdf: Annotated[
            Literal["argon2id", "pbkdf2"] | None,
            Meta(description="What slows a guesser down in a new container; argon2id, for LUKS1 pbkdf2."),
        ] = None
        kdf_memory: Annotated[Size, Meta(description="Memory that argon2id takes.")] = 1 << 30
        kdf_time: Annotated[Count, Meta(description="Passes of argon2id, seconds of pbkdf2.")] = 4
        discard: Annotated[
            bool,
            Meta(description="Let unmapped sectors go to the layer below; shows which ones are not used."),
        ] = False

        def __post_init__(self) -> None:
            """Refuse what LUKS1 has not."""
            super().__post_init__()
            if self.luks == 1 and self.kdf == "argon2id":
                raise ValueError("LUKS1 has no argon2id")

        def new_kdf(self) -> Kdf:
            """Return what a new key's passphrase goes through."""
            argon2 = (self.kdf or ("argon2id" if self.luks == 2 else "pbkdf2")) == "argon2id"
            return new_kdf(argon2=argon2, time=self.kdf_time, memory=self.kdf_memory)

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._gate = Gate()

    def check(self) -> None:
        """Look whether the secret is there."""
        self.options.secret()

    def open(self) -> None:
        """Find the container, or make it, and unlock it.

        Raises:
            HostError: There is none, or it is damaged, or a package is missing.
            UsageError: The secret opens none of its keys.
        """
        linux.forbid_core_dumps()
        secret = self.options.secret()
        header = luks.find(self.next)
        if header is None:
            header = self._create(secret)
        self._unlock(header, secret)
        size = self.next.geometry.size - header.payload if header.size is None else header.size
        self._geometry = self._shape(size // header.sector_size * header.sector_size)
        # Then an encrypted sector that is all zeroes was never written, or was unmapped.
        self._holes = self.options.discard and self.next.capabilities.unmap_zeroes

    def close(self) -> None:
        """Wipe the key."""
        self._sectors.wipe()

    @property
    def geometry(self) -> Geometry:
        """What is behind the header, in sectors of the container."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """What the layer below can do to encrypted sectors."""
        below = self.next.capabilities
        unmap = self.options.discard and below.unmap
        return replace(
            super().capabilities,
            unmap=unmap,
            unmap_zeroes=unmap and self._holes,
            unmap_granularity=below.unmap_granularity if unmap else 0,
            crypto_erase=not below.read_only,
        )

    @property
    def identity(self) -> str:
        """The container's UUID."""
        return f"encrypt:{self._header.uuid}"

    def read(self, offset: int, views: Views) -> None:
        """Read whole sectors, decrypt them, and give what was asked for."""
        buffer = Buffer(views)
        start, end = self._whole(offset, buffer.length)
        buffer.scatter(self._load(start, end)[offset - start : offset - start + buffer.length])

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Encrypt whole sectors and write them; read the rest of those that are not whole."""
        data = Buffer(views).gather()
        start, end = self._whole(offset, len(data))
        if (start, end) == (offset, offset + len(data)):
            with self._gate.together():
                self._store(offset, data, fua=fua)
            return
        with self._gate.alone():
            around = bytearray(self._load(start, end))
            around[offset - start : offset - start + len(data)] = data
            self._store(start, around, fua=fua)

    def flush(self) -> None:
        """Pass down: nothing is kept here."""
        self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Unmap whole sectors below; make the rest zeroes if the others are."""
        if not self.capabilities.unmap:
            raise OSError(errno.EOPNOTSUPP, "discard is not switched on for this encrypted disk")
        size = self._header.sector_size
        start, end = -(-offset // size) * size, (offset + length) // size * size
        if start >= end:
            if self._holes:
                super().write_zeroes(offset, length, may_unmap=False)
            return
        with losses_moved(-self._header.payload):
            self.next.unmap(self._header.payload + start, end - start)
        for rest, stop in ((offset, start), (end, offset + length)):
            if rest < stop and self._holes:
                super().write_zeroes(rest, stop - rest, may_unmap=False)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes, encrypted like everything else, unless they may be holes."""
        if may_unmap and self._holes and self.next.capabilities.unmap:
            self.unmap(offset, length)
            if fua:
                self.flush()
        else:
            super().write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    def resize(self, size: int) -> None:
        """Resize the layer below; what is new reads as noise unless unmapped sectors read as zeroes."""
        if self._header.size is not None:
            raise OSError(errno.EOPNOTSUPP, "the container has a fixed size")
        shape = self._shape(size)
        self.next.resize(self._header.payload + size)
        self._geometry = shape

    def crypto_erase(self) -> None:
        """Destroy the key in all its slots, and go on with a new one under the same secret."""
        secret = self.options.secret()
        with self._gate.alone():
            self._sectors.wipe()
            header = luks.replace_key(self.next, self._header, secret, self.options.new_kdf())
            self._unlock(header, secret)

    def _create(self, secret: bytes) -> luks.Header:
        """Make a container where nothing else is."""
        if self.options.create and not self.may_make:
            raise HostError(
                f"{self.next.identity} is no LUKS container any more, and only adding the LUN makes one",
                cure="bring its content back; for a new, empty one remove the LUN and add it again",
            )
        if not self.options.create:
            raise HostError(
                f"{self.next.identity} is no LUKS container", cure='"create": true makes one on an empty disk'
            )
        if any(read_bytes(self.next, 0, min(4 << 20, self.next.geometry.size))):
            raise UsageError(
                f"{self.next.identity} is not empty, so no container is made on it",
                cure="if nothing on it is needed, zero its first 4 MiB",
            )
        wanted = self.options
        return luks.format_container(
            self.next, wanted.luks, secret, wanted.new_kdf(), sector_size=wanted.sector_size
        )

    def _unlock(self, header: luks.Header, secret: bytes) -> None:
        found = header.unlock(self.next, secret)
        if found is None:
            raise UsageError(f"the secret opens no key of {self.next.identity}")
        self._header = header
        self._sectors = Sectors(bytearray(found[1]), header.sector_size)

    def _shape(self, size: int) -> Geometry:
        below, sector = self.next.geometry, self._header.sector_size
        return Geometry(
            size,
            block_size=sector,
            physical_block_size=max(sector, below.physical_block_size),
            optimal_io=0 if below.optimal_io % sector else below.optimal_io,
        )

    def _whole(self, offset: int, length: int) -> tuple[int, int]:
        """Return first byte and end of the sectors that a range touches."""
        size = self._header.sector_size
        return offset // size * size, -(-(offset + length) // size) * size

    def _load(self, start: int, end: int) -> memoryview:
        """Return the plaintext of whole sectors."""
        with losses_moved(-self._header.payload):
            sealed = read_bytes(self.next, self._header.payload + start, end - start)
        plain = self._sectors.decrypt(sealed, start)
        if self._holes:
            size = self._header.sector_size
            hole = bytes(size)
            for at in range(0, len(sealed), size):
                if sealed[at : at + size] == hole:
                    plain[at : at + size] = hole
        return plain

    def _store(self, start: int, data: bytes | bytearray, *, fua: bool) -> None:
        """Store whole sectors, encrypted."""
        with losses_moved(-self._header.payload):
            self.next.write(self._header.payload + start, [self._sectors.encrypt(data, start)], fua=fua)
