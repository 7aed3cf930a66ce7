"""Creating an image: it is there as a whole, on stable storage, or not at all."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from vscsihba.errors import HostError, NoSuchFileError, UsageError
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.reflink import publish
from vscsihba.handlers.qemu import image, programs
from vscsihba.handlers.qemu.options import CREATED, QemuOptions

_TRIES: Final = 20


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
            with programs.key_object(secret) as (files, key_options):
                command = [*_command(options, key_options), "--", str(part), *_size(options)]
                done = _run(command, files)
            if done.returncode:
                raise HostError(f"{path} cannot be created: {programs.in_one_line(done.stderr)}")
            part.chmod(0o600)  # as for any new disk
            _sync(part)
            publish(part, path)
    except OSError as error:
        raise file_path.explain(str(path), error) from error


def _run(command: list[str], files: list[int]) -> "subprocess.CompletedProcess[bytes]":
    """Run qemu-img; try again where it has not measured how long the derivation of a key takes.

    It measures by the processor time of its thread, which machines count in ticks of some milliseconds
    (qcrypto_pbkdf2_count_iters of QEMU's crypto/pbkdf.c).
    """
    for _ in range(_TRIES):
        done = programs.run("qemu-img", command, files=files)
        if b"Unable to get accurate CPU usage" not in done.stderr:
            break
    return done


def _command(options: QemuOptions, key_options: list[str]) -> list[str]:
    assert options.format is not None  # noqa: S101 - the options have been checked
    command = ["create", "-q", "-f", options.format]
    if options.backing:
        backing = image.examine(os.path.realpath(options.backing), options.backing_format)
        command += ["-b", backing.path, "-F", backing.format]
    if key_options:
        encryption = (
            "key-secret=key" if options.format == "luks" else "encrypt.format=luks,encrypt.key-secret=key"
        )
        command += [*key_options, "-o", encryption]
    return command


def _size(options: QemuOptions) -> list[str]:
    return [] if options.size is None else [str(options.size)]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_creatable(options: QemuOptions) -> None:
    """Check that a missing image can be created.

    Raises:
        UsageError: Its folder or its backing image is not usable, or it needs a format or a key.
    """
    if options.format not in CREATED:
        raise NoSuchFileError(
            f"{options.path}: no such image",
            cure=f'set "format" to that of a new one: {", ".join(CREATED)}'
            if options.format is None
            else f"create it: qemu-img create -f {options.format} {options.path} {options.size}",
        )
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
