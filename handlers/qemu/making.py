"""Creating an image: it is there as a whole, on stable storage, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.reflink import publish
from vscsihba.handlers.qemu import image, programs
from vscsihba.handlers.qemu.options import QemuOptions


def create(options: QemuOptions, secret: bytes | None) -> None:
    """Create the image that the options describe, which is missing.

    Args:
        options: Its path, format, size and backing image.
        secret: Its key, None for an image that is not encrypted.

    Raises:
        UsageError: Its folder or its backing image is not usable, or its size is no multiple of its block.
        HostError: It cannot be created; nothing is left of it then.
    """
    path = Path(options.real_path)
    if options.size is not None and (over := options.size % options.block_size):
        raise UsageError(
            f"{path}: the size {options.size} is not a multiple of the block size {options.block_size}",
            cure=f'use "size": {options.size - over + options.block_size}',
        )
    file_path.check_room(str(path))
    try:
        # In a folder of its own under its own name, which some formats record.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            with _key(secret) as (files, key):
                done = programs.run(
                    "qemu-img", [*_command(options, key), "--", str(part), *_size(options)], files=files
                )
            if done.returncode:
                raise HostError(f"{path} cannot be created: {programs.in_one_line(done.stderr)}")
            part.chmod(0o600)  # as for any new disk
            _sync(part)
            publish(part, path)
    except OSError as error:
        raise file_path.explain(str(path), error) from error


def _command(options: QemuOptions, key: str) -> list[str]:
    assert options.format is not None  # noqa: S101 - the options have been checked
    command = ["create", "-q", "-f", options.format]
    if options.backing:
        backing = image.examine(os.path.realpath(options.backing), options.backing_format)
        command += ["-b", backing.path, "-F", backing.format]
    if key:
        command += ["--object", f"secret,id=key,file={key}"]
        encryption = (
            "key-secret=key" if options.format == "luks" else "encrypt.format=luks,encrypt.key-secret=key"
        )
        command += ["-o", encryption]
    return command


def _size(options: QemuOptions) -> list[str]:
    return [] if options.size is None else [str(options.size)]


@contextmanager
def _key(secret: bytes | None) -> Iterator[tuple[list[int], str]]:
    """Yield descriptors that a program inherits, and the path of the key for it; empty without a key."""
    if secret is None:
        yield [], ""
        return
    fd = os.memfd_create("key", 0)
    try:
        os.write(fd, secret)
        os.lseek(fd, 0, os.SEEK_SET)
        yield [fd], f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_creatable(options: QemuOptions) -> None:
    """Check that a missing image can be created.

    Raises:
        UsageError: Its folder or its backing image is not usable, or it needs a size or a key.
    """
    file_path.check_room(options.real_path)
    if options.format == "luks" and options.secret is None:
        raise UsageError(f"{options.path}: a new luks image needs a key", cure='name a "passphrase_file"')
    if options.backing:
        image.examine(os.path.realpath(options.backing), options.backing_format)
    if options.secret is not None and options.format not in ("luks", "qcow2"):
        raise UsageError(
            f"{options.path}: an image of the format {options.format} is not encrypted",
            cure="leave the key out",
        )
