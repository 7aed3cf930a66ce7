"""Options of the rbd handler, and the checks that need no cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import BlockSize, FilePath, Positive, Seconds, SecretPath, Size
from vscsihba.handlers.shared.private_file import check_private

_OBJECTS = (4 << 10, 32 << 20)
"""Bytes of the smallest and of the largest object of an image (librbd takes orders from 12 to 25)."""


class RbdOptions(Handler.Options, kw_only=True):
    """Options of the rbd handler."""

    pool: Annotated[str, Meta(description="Pool of the image.", min_length=1)]
    image: Annotated[str, Meta(description="Name of the image.", min_length=1)]
    namespace: Annotated[str, Meta(description="RBD namespace in the pool.")] = ""
    snapshot: Annotated[str, Meta(description="Snapshot of the image; the disk is read-only.")] = ""
    user: Annotated[str, Meta(description="Ceph user without `client.`.", min_length=1)] = "admin"
    conf: Annotated[FilePath, Meta(description="Configuration file of the cluster.", min_length=1)] = (
        "/etc/ceph/ceph.conf"
    )
    keyring: Annotated[
        SecretPath, Meta(description="File with the key of the user; default: as the configuration says.")
    ] = ""
    size: Annotated[
        Size | None,
        Meta(
            description="Size of the image, such as 10GiB. When the LUN is added, a missing image is created "
            "and a smaller one is enlarged; a larger one keeps its size."
        ),
    ] = None
    create: Annotated[bool, Meta(description="Use size only to create the image; never enlarge it.")] = False
    data_pool: Annotated[str, Meta(description="Pool for the data of a new image.")] = ""
    object_size: Annotated[
        Size | None,
        Meta(
            description="Bytes of each object of a new image, a power of two from 4KiB to 32MiB; default: "
            "that of the cluster (4MiB)."
        ),
    ] = None
    features: Annotated[
        list[str] | None, Meta(description="Features of a new image; default: those of the cluster.")
    ] = None
    lock: Annotated[
        Literal["exclusive", "none"],
        Meta(description="exclusive: no other client can write; none: others may write at the same time."),
    ] = "exclusive"
    lock_wait: Annotated[
        Seconds,
        Meta(description="Seconds to wait at opening for the lock of a client that does not answer."),
    ] = 45
    timeout: Annotated[
        Positive, Meta(description="Seconds after which a request fails that the cluster does not answer.")
    ] = 25
    block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512
    read_only: Annotated[bool, Meta(description="Open the image read-only, without its lock.")] = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.create and self.size is None:
            raise ValueError('"create" needs a "size"')
        if self.writes_nothing and self.size is not None:
            raise ValueError('an image cannot be given a "size" with "read_only" or "snapshot"')
        if self.size is None and (self.data_pool or self.object_size or self.features is not None):
            raise ValueError(
                '"data_pool", "object_size" and "features" are for an image that is created, so they need a '
                '"size"'
            )
        if self.object_size is not None and (
            self.object_size.bit_count() != 1 or not _OBJECTS[0] <= self.object_size <= _OBJECTS[1]
        ):
            raise ValueError('"object_size" must be a power of two from 4KiB to 32MiB')
        if self.timeout < 1:
            raise ValueError('"timeout" must be 1 or more: librados counts whole seconds')
        if self.features is not None and self.lock == "exclusive" and "exclusive-lock" not in self.features:
            raise ValueError('"features" must have "exclusive-lock", unless "lock" is "none"')

    @classmethod
    def cure_for_missing(cls, name: str, document: Mapping[str, object]) -> str | None:
        """Return how an image is named, for ``pool/image`` as the program `rbd` writes it."""
        parts = str(document.get("pool", "POOL")).split("/")
        readable = all(part.isprintable() for part in parts)
        if name != "image" or not all(parts) or len(parts) > 3 or not readable:
            return None
        pool, *between, image = parts if len(parts) > 1 else [*parts, "IMAGE"]
        namespace = f";namespace={between[0]}" if between else ""
        image, _, snapshot = image.partition("@")
        return f"write rbd:{pool}{namespace};image={image}" + (f";snapshot={snapshot}" if snapshot else "")

    @property
    def writes_nothing(self) -> bool:
        """Whether the image is opened for reading only."""
        return self.read_only or bool(self.snapshot)

    @property
    def spec(self) -> str:
        """The image as the program `rbd` writes it: ``pool/namespace/image@snapshot``."""
        parts = [self.pool, self.namespace, self.image] if self.namespace else [self.pool, self.image]
        return "/".join(parts) + (f"@{self.snapshot}" if self.snapshot else "")

    def check_files(self) -> None:
        """Check that the configuration exists, and that nobody else can read the keyring of the options.

        Raises:
            UsageError: It is not so.
        """
        if not Path(self.conf).is_file():
            raise UsageError(
                f"{self.conf}: no such Ceph configuration",
                cure='copy it from the cluster, or name it in "conf"',
            )
        if self.keyring:
            check_private(self.keyring, "keyring")
