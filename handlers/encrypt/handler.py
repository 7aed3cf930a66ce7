"""encrypt: a disk that is encrypted below, in a container that cryptsetup opens too.

LUKS2 and LUKS1, AES-XTS. This module has the verbs, and completes requests to whole sectors;
`payload` knows how these are read and written, `luks` the header, `passphrase` where a secret comes from.
"""

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from vscsihba.block import Buffer, Capabilities, Geometry, Views
from vscsihba.errors import HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.encrypt import luks, xts
from vscsihba.handlers.encrypt.options import EncryptOptions
from vscsihba.handlers.encrypt.passphrase import Secret
from vscsihba.handlers.encrypt.payload import Payload
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.filter import Transform
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.claims import NameClaim
from vscsihba.handlers.shared.medium_errors import shift_medium_errors
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.shared.vectored import read_bytes


class EncryptHandler(Transform):
    """Encryption as a LUKS container, compatible with cryptsetup."""

    name = "encrypt"
    example = "encrypt:key_file=/etc/disk.key|/srv/disk.luks"
    workers = 64

    class Options(EncryptOptions, kw_only=True):
        """Options of the encrypt filter."""

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._gate = RWLock()
        self._secret = Secret(options)
        self._container = below
        self._payload: Payload
        self._header: luks.Header

    def check(self) -> None:
        """Check that the secret is there, and a detached header."""
        self.options.check_secret()
        path = self.options.header
        if path and file_path.look(path, read_only=True) is None:
            if not self.options.create:
                raise UsageError(f"{path}: no such header", cure='"create": true makes one')
            if not self.may_make:
                raise file_path.lost(path)
            file_path.check_room(path)

    def open(self) -> None:
        """Find the container, or make it, and unlock it.

        Raises:
            HostError: There is none, or it is damaged, or a package is missing.
            UsageError: The secret opens none of its keys.
            InUseError: A disk has a copy of this container.
        """
        linux.forbid_core_dumps()
        secret = self._secret.get()
        with ExitStack() as failing:
            failing.callback(self._secret.forget)
            if self.options.header:
                self._container = failing.enter_context(self._header_file())
            header = luks.find(self._container) or self._create(secret)
            luks.check_data(header, self._container, self.next)
            failing.enter_context(self._claim(header.uuid))
            self._unlock(header, secret)
            failing.callback(self._wipe)  # of the key that there is then
            size = self.next.geometry.size - header.payload if header.size is None else header.size
            self._geometry = self._shape(size // header.sector_size * header.sector_size)
            self._opened = failing.pop_all()

    def close(self) -> None:
        """Wipe the key."""
        self._opened.close()

    @property
    def geometry(self) -> Geometry:
        """Geometry of the payload behind the header, in sectors of the container."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the layer below that apply to encrypted sectors."""
        below = self.next.capabilities
        unmap = self.options.discard and below.unmap
        return replace(
            super().capabilities,
            unmap=unmap,
            unmap_zeroes=unmap and below.unmap_zeroes,
            unmap_granularity=below.unmap_granularity if unmap else 0,
            # Where a write leaves the bytes of before in a layer below, the key stays there.
            crypto_erase=not below.read_only and below.in_place,
        )

    @property
    def identity(self) -> str:
        """The container's UUID."""
        return f"encrypt:{self._header.uuid}"

    @property
    def inline(self) -> InlineVerbs:
        """Inline verbs for whole sectors, if the cipher is quick."""
        return self._payload.inline(self._gate) if xts.is_quick() else InlineVerbs()

    def read(self, offset: int, views: Views) -> None:
        """Read whole sectors, decrypt them, and return the bytes of the range."""
        length = sum(map(len, views))
        start, end = self._whole(offset, length)
        if (start, end) == (offset, offset + length):
            self._payload.read(offset, views)
        else:
            around = memoryview(bytearray(end - start))
            self._payload.read(start, [around])
            Buffer(views).scatter(around[offset - start :])

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Encrypt whole sectors and write them; partial sectors are read first."""
        length = sum(map(len, views))
        start, end = self._whole(offset, length)
        if (start, end) == (offset, offset + length):
            with self._gate.together():
                self._payload.write(offset, views, fua=fua)
            return
        with self._gate.alone():
            around = memoryview(bytearray(end - start))
            self._payload.read(start, [around])
            around[offset - start : offset - start + length] = Buffer(views).gather()
            self._payload.write(start, [around], fua=fua)

    def flush(self) -> None:
        """Pass down: this layer has no cache."""
        self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Unmap whole sectors below; make the rest zeroes if the others are."""
        if not self.capabilities.unmap:
            raise OSError(errno.EOPNOTSUPP, "discard is not switched on for this encrypted disk")
        size = self._header.sector_size
        start, end = -(-offset // size) * size, (offset + length) // size * size
        if start >= end:
            if self.next.capabilities.unmap_zeroes:
                super().write_zeroes(offset, length, may_unmap=False)
            return
        with self._gate.together(), shift_medium_errors(-self._header.payload):
            self.next.unmap(self._header.payload + start, end - start)
        for rest, stop in ((offset, start), (end, offset + length)):
            if rest < stop and self.next.capabilities.unmap_zeroes:
                super().write_zeroes(rest, stop - rest, may_unmap=False)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes, encrypted like everything else, unless they may be holes."""
        if may_unmap and self.capabilities.unmap_zeroes:
            self.unmap(offset, length)
            if fua:
                self.flush()
        else:
            super().write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    def resize(self, size: int) -> None:
        """Resize the layer below; new sectors read as noise unless unmapped sectors read as zeroes."""
        if self._header.size is not None:
            raise OSError(errno.EOPNOTSUPP, "the container has a fixed size")
        shape = self._shape(size)
        self.next.resize(self._header.payload + size)
        self._geometry = shape

    def crypto_erase(self) -> None:
        """Destroy the key in all its slots, and go on with a new one under the same secret.

        What can fail without a write (the secret, the memory for the key derivation) is done before anything
        is destroyed.

        Raises:
            OSError: EIO for these, and nothing has changed; or a write failed, and the key is destroyed.
        """
        with self._gate.alone():
            try:
                kdf = self.options.new_kdf(self._header.version)
                new = luks.new_key(self._header, self._secret.get(), kdf)
            except VscsihbaError as error:
                raise OSError(errno.EIO, str(error)) from error
            self._payload.sectors.wipe()
            self._header = luks.replace_key(self._container, self._header, new)
            self._payload.sectors = Sectors(bytearray(new.key), self._header.sector_size)

    def _claim(self, uuid: str) -> AbstractContextManager[None]:
        """Return a context in which no other disk has this container, or a copy of it."""
        taken = InUseError(
            f"another disk has the LUKS container {uuid}, of which {self.next.identity} is a copy",
            cure="give the copy a UUID of its own (cryptsetup luksUUID --uuid)",
        )
        shared = self.next.capabilities.read_only
        return NameClaim(f"encrypt {uuid}", shared=shared, taken=taken, place=self.next.place)

    @contextmanager
    def _header_file(self) -> Iterator[Handler]:
        """Open the header that is apart from the data; make a file for it if there is none.

        A file that was made is removed when what follows fails.
        """
        path, read_only = self.options.header, self.next.capabilities.read_only
        with ExitStack() as failing:
            if file_path.look(path, read_only=True) is None:
                if not self.may_make:
                    raise file_path.lost(path)
                file_making.create(path, luks.DETACHED_SIZE)
                failing.callback(Path(path).unlink)
            file = FileHandler(FileHandler.Options(path=path, read_only=read_only))
            file.open()
            with closing(file):
                yield file
                failing.pop_all()

    def _create(self, secret: bytes) -> luks.Header:
        """Make a container where nothing else is."""
        if self.options.create and not self.may_make:
            raise HostError(
                f"{self.next.identity} is no longer a LUKS container, and only adding the LUN makes one",
                cure="bring its content back; for a new, empty one remove the LUN and add it again",
            )
        if not self.options.create:
            raise HostError(
                f"{self._container.identity} is not a LUKS container",
                cure='"create": true makes one on an empty disk',
            )
        for disk in {self._container, self.next}:
            if any(read_bytes(disk, 0, min(4 << 20, disk.geometry.size))):
                raise UsageError(
                    f"{disk.identity} is not empty, so no container is made on it",
                    cure="if nothing on it is needed, zero its first 4 MiB",
                )
        wanted = self.options
        return luks.format_container(
            self._container,
            wanted.luks,
            secret,
            wanted.new_kdf(wanted.luks),
            sector_size=wanted.sector_size,
            detached=bool(wanted.header),
        )

    def _unlock(self, header: luks.Header, secret: bytes) -> None:
        unlocked = header.unlock(self._container, secret)
        if unlocked is None:
            raise UsageError(f"the secret opens no key of {self._container.identity}")
        self._header = header
        sectors = Sectors(bytearray(unlocked[1]), header.sector_size)
        holes = self.options.discard and self.next.capabilities.unmap
        self._payload = Payload(self.next, header.payload, sectors, holes=holes)

    def _wipe(self) -> None:
        self._payload.sectors.wipe()

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
