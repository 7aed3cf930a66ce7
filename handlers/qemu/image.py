"""An image file as qemu-img sees it: its format, its size, and the files below it.

Nothing is opened for writing here. The format of an image is recognised by its magic number; a file that has
none is never taken for a raw one: an initiator that writes the header of another format into a raw
image would otherwise have it opened as that format the next time, with any file as its backing file.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from vscsihba.errors import HostError, InUseError, NoSuchFileError, UsageError
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.image_formats import image_format
from vscsihba.handlers.qemu import programs

Format = Literal[
    "qcow2", "vmdk", "vhdx", "vdi", "vpc", "luks", "qed", "qcow", "parallels", "bochs", "cloop", "dmg", "raw"
]
"""Formats that an option can name, as QEMU calls them."""

_LUKS: Final = b"LUKS\xba\xbe"
_PROTOCOL: Final = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*:")
"""The beginning of a name that is not that of a local file, such as ``nbd:`` or ``json:``."""
_LONGEST_CHAIN: Final = 64


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image.

    Attributes:
        path: Its file.
        format: As QEMU calls it.
        size: Capacity of the disk in bytes.
        cluster: Unit of allocation in bytes, 0 if there is none.
        zeroes: Clusters can become zeroes without storage.
        in_place: A write overwrites the old bytes: there is no image or snapshot that keeps them.
        encrypted: A key is needed to read it.
        backing: The image below it, empty if there is none.
    """

    path: str
    format: str
    size: int
    cluster: int = 0
    zeroes: bool = False
    in_place: bool = True
    encrypted: bool = False
    backing: str = ""

    def check_backing(self, wanted: str) -> None:
        """Check that the image is an overlay of another one.

        Args:
            wanted: The path of that.

        Raises:
            UsageError: It is none, or one of a third image.
        """
        if not self.backing:
            raise UsageError(
                f"{self.path} has no backing image, and should be an overlay of {wanted}",
                cure='leave "backing" out, or choose another path',
            )
        if os.path.realpath(self.backing) != os.path.realpath(wanted):
            raise UsageError(
                f"{self.path} is an overlay of {self.backing}, not of {wanted}",
                cure='correct its "backing", or choose another path',
            )

    def file_node(self) -> dict[str, Any]:
        """Return the node of its file or block device, in the words of ``blockdev-add``."""
        driver = "host_device" if Path(self.path).is_block_device() else "file"
        return {"driver": driver, "filename": self.path}

    def key_options(self) -> dict[str, Any]:
        """Return the options of its node for the key that the object ``key`` has, in the same words."""
        if self.format == "luks":
            return {"key-secret": "key"}
        return {"encrypt": {"format": "luks", "key-secret": "key"}}


def find_format(path: str) -> str:
    """Return the format of an image by its magic number, empty if it has none.

    Raises:
        UsageError: There is no such file, or it holds something that is no image of QEMU.
    """
    try:
        file_path.check_kind(os.stat(path).st_mode, path)  # noqa: PTH116 - the type comes before opening
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise file_path.explain(path, error) from error
    try:
        found = image_format(fd, os.lseek(fd, 0, os.SEEK_END)).partition(" ")[0]
        if not found and os.pread(fd, len(_LUKS), 0) == _LUKS:
            found = "luks"
    finally:
        os.close(fd)
    if found and found not in get_args(Format):
        raise UsageError(
            f"{path} is {found}, which is no format of QEMU", cure=f'use the handler "{found}" for it'
        )
    return found


def examine(path: str, format_: str | None) -> ImageInfo:
    """Return the properties of an image, after a look at every file below it.

    Args:
        path: Its file.
        format_: Its format; None to recognise it.

    Raises:
        UsageError: There is no such file, its format is not known, or a file below it is not usable.
        HostError: qemu-img cannot read it.
    """
    format_ = format_ or find_format(path)
    if not format_:
        raise UsageError(
            f"{path} has no image format that can be recognised",
            cure='use the handler "file" for a raw image, or name the "format"',
        )
    top = below = _named(path, format_)
    base = ""
    for _ in range(_LONGEST_CHAIN):
        backing = _backing(below)
        if backing is None:
            break
        if below is top:
            base = backing[0]
        below = _info(*backing)
    else:
        raise UsageError(f"{path}: its chain of backing files has more than {_LONGEST_CHAIN} files")
    data = top.get("format-specific", {}).get("data", {})
    encrypted = format_ == "luks" or bool(top.get("encrypted"))
    return ImageInfo(
        path=path,
        format=format_,
        size=int(top["virtual-size"]),
        cluster=int(top.get("cluster-size", 0)),
        zeroes=format_ == "raw" or (format_ == "qcow2" and data.get("compat") != "0.10"),
        in_place=not (top.get("backing-filename") or top.get("snapshots")),
        encrypted=encrypted,
        backing=base,
    )


def _named(path: str, format_: str) -> dict[str, Any]:
    """Return the answer of ``qemu-img info`` about the image itself; name its format if that is another."""
    try:
        return _info(path, format_)
    except HostError as error:
        found = find_format(path)
        if not found or found == format_:
            raise
        raise UsageError(
            f"{path} is an image of the format {found}, not {format_}", cure='correct its "format"'
        ) from error


def _info(path: str, format_: str) -> dict[str, Any]:
    """Return the answer of ``qemu-img info`` about one file, without those below it."""
    done = programs.run("qemu-img", ["info", "-U", "--output=json", "-f", format_, "--", path])
    if done.returncode:
        raise failure(path, programs.in_one_line(done.stderr))
    answer = json.loads(done.stdout)
    return {"filename": path, **answer} if isinstance(answer, dict) else {}


def _backing(info: dict[str, Any]) -> tuple[str, str] | None:
    """Return the path and the format of the backing file, None if there is none."""
    name = info.get("backing-filename")
    if not name:
        return None
    path, format_ = str(info.get("full-backing-filename", name)), info.get("backing-filename-format")
    if _PROTOCOL.match(path):
        raise UsageError(
            f"{info['filename']}: its backing file {path} is not a local file",
            cure="copy it here, and name it by qemu-img rebase -u",
        )
    path = path.removeprefix("file:")
    if not os.path.lexists(path):
        raise UsageError(
            f"{info['filename']}: its backing file {path} does not exist",
            cure=f"restore it, or name the new one: qemu-img rebase -u -F FORMAT -b PATH {info['filename']}",
        )
    if not format_ and not (format_ := find_format(path)):
        raise UsageError(
            f"{info['filename']} does not record the format of its backing file {path}",
            cure=f"if it is raw, qemu-img rebase -u -F raw -b {path} {info['filename']}",
        )
    return path, str(format_)


def failure(path: str, message: str) -> UsageError | HostError:
    """Return the error for a message of QEMU about opening an image."""
    text = message if path in message else f"{path}: {message}"
    if "Failed to get" in message and "lock" in message:
        return InUseError(f"{path} is in use: another program has it open", cure="end that program first")
    if "No such file or directory" in message:
        return NoSuchFileError(text)
    if "Invalid password" in message:
        return UsageError(
            f"{path}: the key does not open it", cure="correct the file or the credential that has its key"
        )
    if "Can't find snapshot" in message:
        return HostError(
            f"{path} has no such snapshot", cure=f"qemu-img snapshot -l {path} lists those it has"
        )
    if "does not support temporarily loading internal snapshots" in message:
        return HostError(f"{path} has no internal snapshots", cure='only qcow2 has them; omit "snapshot"')
    return HostError(text)
