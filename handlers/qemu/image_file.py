"""The file of an image: its lasting name, its place on this machine, and the write log that belongs to it.

Knows files, not what is in them.
"""

import hashlib
import json
import os
import stat
from typing import Final

from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.qemu.write_log import WriteLog
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.block_identity import block_identity
from vscsihba.handlers.shared.tmpfs_store import stored_names

_LOG: Final = "qemu-log"
_SLACK: Final = 60.0
"""Seconds that the image may be younger than its log: the daemon may write without a change of the log."""


class ImageFile:
    """A file or block device that holds an image.

    Args:
        path: It, without symbolic links.

    Attributes:
        path: As above.
        identity: Names the image, and no other, after a restart too.
        place: Changes when another file takes the place of this one.

    Raises:
        UsageError, HostError: It cannot be opened for reading.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise file_path.explain(path, error) from error
        try:
            self._status = os.fstat(fd)
            file_path.check_kind(self._status.st_mode, path)
            if self.is_device:
                lasting = block_identity(self._status.st_rdev)
                self.place = str(linux.disk_sequence(fd))
            else:
                lasting = None
                self.place = f"{self._status.st_ino}:{linux.inode_generation(fd)}"
        finally:
            os.close(fd)
        self.identity = f"qemu:{file_path.in_utf8(path)}" if lasting is None else f"qemu:block:{lasting}"

    @property
    def is_device(self) -> bool:
        """Whether it is a block device."""
        return stat.S_ISBLK(self._status.st_mode)

    @property
    def claim(self) -> str:
        """Names the file for every disk of this machine, by whatever path."""
        device = self._status.st_rdev if self.is_device else self._status.st_dev
        return f"qemu:{device}:{0 if self.is_device else self._status.st_ino}"

    def open_log(self, size: int) -> tuple[WriteLog, bool]:
        """Open the write log of the image; no process has the image open.

        Args:
            size: Bytes of data that it holds at most.

        Returns:
            The log, and whether it was there: the last daemon or its engine was killed.

        Raises:
            HostError: There are writes for another file of this name, or the image was changed since then.
            InUseError, OSError: The log cannot be opened.
        """
        name, place = self._log_name()
        for other in stored_names(f"{_LOG}.{_digest(self.path)}.*"):
            if other != name:
                self._refuse_log(other)
        was_there = False
        for other in stored_names(f"{_LOG}.*.{place}"):
            name, was_there = other, True  # the file may have had another name then
        about = json.dumps({"path": file_path.in_utf8(self.path), "place": place}).encode()
        log = WriteLog(name, about=about[:4000], size=size)
        if len(log) and not self.is_device and self._status.st_mtime > log.last_change() + _SLACK:
            log.close()
            raise HostError(
                f"{self.path} has been changed after the {len(log)} writes of a killed process in {log.path}",
                cure="remove that file to use the image without these writes",
            )
        return log, was_there

    def refuse_log(self) -> None:
        """Refuse an image with logged writes, for a disk that cannot repeat them.

        Raises:
            HostError: It has some.
        """
        for name in stored_names(f"{_LOG}.*.{self._log_name()[1]}"):
            self._refuse_log(name)

    def _refuse_log(self, name: str) -> None:
        try:
            log = WriteLog(name, about=b"", size=0)
        except InUseError:
            return  # of a living disk, whose image had this name before
        count, path = len(log), log.path
        log.close(keep=True)
        if count:
            raise HostError(
                f"{self.path} lacks {count} acknowledged writes of a killed process, which are in {path}",
                cure="open the same file for writing once, or remove that file to do without these writes",
            )

    def _log_name(self) -> tuple[str, str]:
        """Return the name of the log, and the part of it that stands for the file by whatever path."""
        place = _digest(f"{self.claim}:{self.place}")
        return f"{_LOG}.{_digest(self.path)}.{place}", place


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
