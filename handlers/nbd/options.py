"""Options of an NBD disk, and the shape that they and the export give it.

Connects nothing.
"""

from typing import Annotated

from msgspec import Meta

from vscsihba.block import Geometry
from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.nbd.address import Address
from vscsihba.handlers.nbd.connecting import LinkOptions
from vscsihba.handlers.nbd.requests import Export
from vscsihba.handlers.options import BlockSize, FilePath, Ordinal, Positive, SecretPath, Size

_PAGE = 4096


class NbdOptions(Handler.Options, kw_only=True):
    """Options of an NBD disk."""

    uri: Annotated[
        str,
        Meta(description="Export: nbd://HOST[:PORT]/NAME, or nbd+unix:///NAME?socket=PATH; nbds for TLS."),
    ]
    read_only: Annotated[bool, Meta(description="Never write to the export.")] = False
    timeout: Annotated[
        Positive,
        Meta(description="Seconds until a request fails; until then, a lost connection is replaced."),
    ] = 25.0
    connections: Annotated[
        Ordinal, Meta(description="Connections, if the server allows several (multi-conn).")
    ] = 4
    unflushed: Annotated[
        Size,
        Meta(
            description="Acknowledged writes that are kept until a flush, and sent again to a restarted "
            "server; 0: none, and the flush after a lost connection fails."
        ),
    ] = 64 << 20
    block_size: Annotated[
        BlockSize | None, Meta(description="Logical block in bytes; default: 512, or the server's minimum.")
    ] = None
    tls_certificates: Annotated[
        FilePath,
        Meta(description="Folder with ca-cert.pem, and client-cert.pem with client-key.pem if needed."),
    ] = ""
    tls_psk_file: Annotated[SecretPath, Meta(description="File with the pre-shared key.")] = ""
    tls_username: Annotated[str, Meta(description="Name of the pre-shared key.")] = ""

    @property
    def address(self) -> Address:
        """The export."""
        return Address(self.uri, self.tls_certificates, self.tls_psk_file, self.tls_username)

    @property
    def link(self) -> LinkOptions:
        """The settings of the link."""
        return LinkOptions(self.timeout, self.connections, self.unflushed)

    def shape(self, export: Export) -> Geometry:
        """Return the geometry of a disk on an export.

        Raises:
            UsageError: No disk can have this size, or not these blocks, or it cannot be written to.
        """
        name = self.address.name
        if export.read_only and not self.read_only:
            raise UsageError(
                f"{name}: the server does not allow writing", cure="use read_only, or change its settings"
            )
        block = self.block_size or max(512, export.minimum)
        if block < export.minimum or block > _PAGE or block % export.minimum:
            raise UsageError(
                f"{name}: the server wants blocks of {export.minimum} bytes, and the disk has {block}",
                cure=f"use a block_size from {export.minimum} to {_PAGE}"
                if export.minimum <= _PAGE
                else "lower the server's minimum block size",
            )
        if rest := export.size % block:
            raise UsageError(
                f"{name}: the size {export.size} is not a multiple of the block size {block}",
                cure=f"enlarge the export by {block - rest} bytes, or use nbdkit's truncate filter",
            )
        preferred = export.preferred
        power = preferred > 0 and preferred.bit_count() == 1
        physical = max(block, preferred) if power and preferred <= _PAGE else max(block, _PAGE)
        try:
            return Geometry(
                export.size,
                block_size=block,
                physical_block_size=physical,
                optimal_io=preferred if power and preferred > _PAGE else 0,
            )
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", cure=error.cure) from error
