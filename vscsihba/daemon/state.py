"""The documents on disk: the running one, for a restart of the service, and the saved one, for a reboot.

Each file is replaced as a whole and synced with its directory: after a power failure either the old or the
new content exists. Three more files have the saved entries that could not be restored, an unfinished
change, and the identities of block devices.
"""

import fcntl
import glob
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from vscsihba.config.awaited import Awaited
from vscsihba.config.dump import builtins, dump
from vscsihba.config.load import load, parse, read
from vscsihba.config.model import Document
from vscsihba.config.salvage import Salvage, salvage
from vscsihba.errors import HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.shared.durable import make_directory, replace_file, sync_directory
from vscsihba.units import counted

log = logging.getLogger(__name__)

RUN: Final = Path("/run/vscsihba")
SAVED: Final = Path("/etc/vscsihba/config.json")
DEVICES: Final = Path("/var/lib/vscsihba/devices.json")

KEPT: Final = 10
"""Versions of a saved document that are kept beside it."""

_STAMP: Final = f"{'[0-9]' * 8}T{'[0-9]' * 6}.{'[0-9]' * 9}"
"""Pattern of the time in the name of a version, since another document's name may have the same beginning."""


class RecordError(HostError):
    """A record cannot be read now, so its content is not known: nothing may be done as if there were none."""


class State:
    """The documents of a service.

    Args:
        run: The folder of the running document; emptied when the machine starts.
        saved: The document that is restored when the machine starts.
        devices: The file of the identities of block devices.
    """

    def __init__(self, run: Path = RUN, saved: Path = SAVED, devices: Path = DEVICES) -> None:
        self.saved = saved
        self._run = run
        self._running = run / "running.json"
        self._awaited = run / "awaited.json"
        self._changing = run / "changing.json"
        self._devices = devices

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the machine's only service while the context is entered.

        Raises:
            InUseError: Another service runs.
            HostError: The directory cannot be used.
        """
        path = self._run / "daemon.lock"
        try:
            self._run.mkdir(parents=True, exist_ok=True)
            self._run.chmod(0o755)  # whatever the umask: members of a group may pass
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error
        try:
            _lock(fd, path)
            os.pwrite(fd, f"{os.getpid():<16}\n".encode(), 0)
            for file in (
                self._running,
                self._awaited,
                self._changing,
                self._devices,
                Path(os.path.realpath(self.saved)),
            ):
                _remove_unfinished(file)
            yield
        finally:
            os.close(fd)

    def running(self) -> Document | None:
        """Return the recorded running document, None if there is none since the machine started.

        Raises:
            RecordError: The record cannot be read now.
            VscsihbaError: It is not a document that this version can read.
        """
        data = _content(self._running)
        return None if data is None else parse(data, self._running.parent)

    def note(self, document: Document) -> None:
        """Record the running document.

        Raises:
            HostError: It cannot be written.
        """
        _replace(self._running, dump(document))

    def begin(self, before: Document, target: Document) -> None:
        """Record that a change begins, so that the next service undoes it if it is cut off.

        Args:
            before: The running document.
            target: The document after all steps.

        Raises:
            HostError: It cannot be written.
        """
        text = msgspec.json.encode({"before": builtins(before), "target": builtins(target)}).decode()
        _replace(self._changing, text)

    def end(self) -> None:
        """Record that a change has ended: all of its steps are done and recorded, or all are undone.

        Raises:
            HostError: It cannot be written.
        """
        try:
            self._changing.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{self._changing}: {error.strerror}") from error

    def unfinished(self) -> tuple[Document, Document] | None:
        """Return the documents before and after a change that was cut off; None if none was.

        Raises:
            RecordError: The record cannot be read now.
            VscsihbaError: It is not a record that this version can read.
        """
        if (data := _content(self._changing)) is None:
            return None
        try:
            record = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise HostError(f"{self._changing}: {error}") from error
        before, target = (read(record.get(name), Path("/")) for name in ("before", "target"))
        return before, target

    def to_restore(self) -> Salvage:
        """Return the saved document as far as it can be read, an empty one if there is no file."""
        try:
            self.saved.lstat()
        except FileNotFoundError:
            return Salvage(Document())
        except OSError:  # `salvage` says why
            pass
        return salvage(self.saved)

    def awaited(self) -> Awaited:
        """Return the saved entries that could not be restored when the machine started.

        Raises:
            RecordError: The record cannot be read now.
            HostError: It is not a record that this version can read.
        """
        if (data := _content(self._awaited)) is None:
            return Awaited()
        try:
            return msgspec.json.decode(data, type=Awaited)
        except msgspec.DecodeError as error:
            raise HostError(f"{self._awaited}: {error}") from error

    def note_awaited(self, awaited: Awaited) -> None:
        """Record the saved entries that are not restored.

        Raises:
            HostError: The record cannot be written.
        """
        if awaited.unread:
            _replace(self._awaited, msgspec.json.encode(awaited).decode())
            return
        try:
            self._awaited.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{self._awaited}: {error.strerror}") from error

    def devices(self) -> dict[str, str]:
        """Return the recorded identities of block devices, by path; none if the record is not valid.

        Raises:
            RecordError: The record cannot be read now.
        """
        if (data := _content(self._devices)) is None:
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, str])
        except msgspec.DecodeError as error:
            log.error("%s: %s: no block device is checked", self._devices, error)  # noqa: TRY400 - it says all
            return {}

    def devices_to_check(self) -> dict[str, str]:
        """Return the recorded identities of block devices; none if the record cannot be read."""
        try:
            return self.devices()
        except RecordError as error:
            log.error("%s: no block device is checked", error)  # noqa: TRY400 - it says all
            return {}

    def note_devices(self, devices: Mapping[str, str]) -> None:
        """Record the identities of block devices.

        Raises:
            HostError: The record cannot be read or written.
        """
        if devices != self.devices():
            _replace(self._devices, msgspec.json.format(msgspec.json.encode(devices)).decode())

    def save(self, document: Document, path: Path | None = None, *, force: bool = False) -> Path:
        """Save a document, and keep its last ten versions in the folder ``versions`` beside it.

        Args:
            document: The document.
            path: An absolute path; by default the document that is restored when the machine starts.
            force: Replace a document by an empty one, and a file that is no document.

        Raises:
            UsageError: `force` is needed.
            HostError: It cannot be written.
        """
        path = Path(os.path.realpath(path or self.saved))  # a symbolic link is kept
        text = dump(document)
        if path.exists():
            if not force:
                _check_replaceable(path, document)
            if path.read_bytes() == text.encode():
                return path
            _keep(path)
        _replace(path, text)
        return path


def _lock(fd: int, path: Path) -> None:
    """Take the lock of the machine's only service.

    Raises:
        InUseError: Another service has it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = path.read_text(errors="replace").strip()
        raise InUseError(
            f"the service is already running as process {other}", cure="stop it first"
        ) from error


def _check_replaceable(path: Path, document: Document) -> None:
    """Refuse to replace a file that is no document, or a document by an empty one.

    Raises:
        UsageError: The file would be replaced.
    """
    try:
        before = load(path)
    except VscsihbaError as error:
        raise UsageError(
            f"{path} is not a document that this version can read: {error.message}",
            cure="name another file, or use --force",
        ) from error
    if document.empty and not before.empty:
        raise UsageError(
            f"nothing runs, and {path} has {counted(len(before.hbas), 'HBA')} "
            f"and {counted(len(before.backstores), 'backstore')}",
            cure="use --force to save an empty configuration",
        )


def _keep(path: Path) -> None:
    """Keep the current version of a file, and remove the oldest if there are more than `KEPT`."""
    folder = path.parent / "versions"
    seconds, rest = divmod(time.time_ns(), 10**9)
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{rest:09}"
    try:
        make_directory(folder, 0o700)
        (folder / f"{path.stem}-{stamp}{path.suffix}").hardlink_to(path)
        sync_directory(folder)
        kept = sorted(folder.glob(f"{glob.escape(path.stem)}-{_STAMP}{glob.escape(path.suffix)}"))
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    """Replace the content of a file, on stable storage."""
    try:
        make_directory(path.parent)
        replace_file(path, text.encode())
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    except MemoryError as error:
        raise HostError(f"{path}: no memory is free") from error


def _content(path: Path) -> bytes | None:
    """Return the content of a file, None if there is no such file.

    Raises:
        RecordError: It cannot be read now.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, MemoryError) as error:
        raise RecordError(f"{path}: {getattr(error, 'strerror', None) or 'no memory is free'}") from error


def _remove_unfinished(file: Path) -> None:
    """Remove unfinished files of a killed process (`vscsihba.handlers.shared.durable`)."""
    for left in file.parent.glob(f".{glob.escape(file.name[:50])}.{'[0-9a-f]' * 16}"):
        try:
            left.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s", left, error.strerror)
