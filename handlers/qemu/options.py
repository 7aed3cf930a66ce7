"""Options of a disk image of QEMU."""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt.passphrase import PassphraseOptions
from vscsihba.handlers.options import BlockSize, FilePath, MediumPath, Positive, SecretPath, Size
from vscsihba.handlers.qemu.image import Format
from vscsihba.handlers.shared.private_file import check_private

CREATED = ("qcow2", "vmdk", "vhdx", "vdi", "vpc", "luks", "qed", "qcow", "parallels")
"""Formats of images that this handler creates."""


class QemuOptions(Handler.Options, kw_only=True):
    """Options of the handler qemu."""

    path: Annotated[MediumPath, Meta(description="The image file or block device.", min_length=1)]
    format: Annotated[
        Format | None,
        Meta(description="Format of the image; by default recognised by its magic number; raw has none."),
    ] = None
    size: Annotated[
        Size | None,
        Meta(
            description="Capacity of a new image, such as 10GiB; with backing, the default is its capacity. "
            "A missing image is created when the LUN is added, if format is set."
        ),
    ] = None
    backing: Annotated[
        FilePath,
        Meta(
            description="Create a missing image as an overlay of this image, which is never written; an "
            "image that exists must be one."
        ),
    ] = ""
    backing_format: Annotated[
        Format | None, Meta(description="Format of the backing image; by default recognised, as for format.")
    ] = None
    snapshot: Annotated[
        str, Meta(description="Name or number of an internal snapshot of a qcow2 image, which is read only.")
    ] = ""
    read_only: Annotated[
        bool, Meta(description="Open the image read-only; several disks may then share it.")
    ] = False
    cache: Annotated[
        Literal["writeback", "none", "writethrough", "directsync"],
        Meta(
            description="As for QEMU: none and directsync bypass the page cache (O_DIRECT); writethrough and "
            "directsync put each write on stable storage."
        ),
    ] = "writeback"
    passphrase_file: Annotated[
        SecretPath,
        Meta(description="File with the passphrase of an encrypted image, without a final newline."),
    ] = ""
    key_file: Annotated[
        SecretPath, Meta(description="File with the key: every byte of it, which must be UTF-8.")
    ] = ""
    credential: Annotated[
        str, Meta(description="Name of the systemd credential that is the passphrase (LoadCredential=).")
    ] = ""
    block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512
    physical_block_size: Annotated[int, Meta(description="Physical block in bytes.")] = 4096
    timeout: Annotated[
        Positive,
        Meta(description="Seconds that a request waits for a daemon that has died or does not answer."),
    ] = 25.0
    log_size: Annotated[
        Size,
        Meta(
            description="Memory in /run/vscsihba for acknowledged writes that are not flushed yet. If it is "
            "full, writes are flushed before they are acknowledged."
        ),
    ] = 32 << 20

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.backing and self.format is None:
            raise ValueError('"backing" needs a "format", as it may create the image')
        if (self.size is not None or self.backing) and (self.read_only or self.snapshot):
            raise ValueError('"size" and "backing" do not go with "read_only" or "snapshot"')
        if self.backing_format is not None and not self.backing:
            raise ValueError('"backing_format" needs a "backing"')
        if self.snapshot and self.format not in (None, "qcow2"):
            raise ValueError('only a qcow2 image has a "snapshot"')
        if sum(map(bool, (self.passphrase_file, self.key_file, self.credential))) > 1:
            raise ValueError('use only one of "passphrase_file", "key_file" and "credential"')
        if "/" in self.credential:
            raise ValueError("a credential has a name and no path")

    @property
    def is_read_only(self) -> bool:
        """Whether the disk is never written."""
        return self.read_only or bool(self.snapshot)

    @property
    def is_created(self) -> bool:
        """Whether a missing image is to be created."""
        return self.size is not None or bool(self.backing)

    @property
    def secret(self) -> PassphraseOptions | None:
        """The source of the key, None if there is none."""
        if not (self.passphrase_file or self.key_file or self.credential):
            return None
        return PassphraseOptions(
            passphrase_file=self.passphrase_file, key_file=self.key_file, credential=self.credential
        )

    def check_secret(self) -> None:
        """Check that the key is there, and that nobody else can read its file.

        Raises:
            UsageError: There is no such file, it is empty, or others can read it.
            HostError: systemd gave no credentials to this process.
        """
        secret, path = self.secret, self.passphrase_file or self.key_file
        if secret is None:
            return
        secret.check_secret()
        if path and Path(path).is_file():  # and no pipe
            check_private(path)

    @property
    def real_path(self) -> str:
        """The path without symbolic links."""
        return os.path.realpath(self.path)
