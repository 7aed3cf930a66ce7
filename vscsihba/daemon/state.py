"""What the service remembers: what runs, for its own next life, and what was saved, for the machine's.

Both are documents in files that are replaced as a whole, on stable storage with their directory: whenever
the power goes, the old one or the new one is there. A third file has the saved entries that could not be
restored.
"""

import fcntl
import glob
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from vscsihba.config.awaited import Awaited
from vscsihba.config.dump import builtins, dump
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.config.salvage import Salvage, salvage
from vscsihba.errors import HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.shared.durable import replace_file, sync_directory
from vscsihba.units import counted

log = logging.getLogger(__name__)

RUN: Final = Path("/run/vscsihba")
SAVED: Final = Path("/etc/vscsihba/config.json")

KEPT: Final = 10
"""Versions of a saved document that are kept beside it."""

_STAMP: Final = f"{'[0-9]' * 8}T{'[0-9]' * 6}.{'[0-9]' * 9}"
"""Pattern of the time in the name of a version: another document's name may begin likewise."""


class State:
    """The documents of a service.

    Args:
        run: Where what runs is noted; emptied when the machine starts.
        saved: The document that is restored then.
    """

    def __init__(self, run: Path = RUN, saved: Path = SAVED) -> None:
        self.saved = saved
        self._run = run
        self._running = run / "running.json"
        self._awaited = run / "awaited.json"
        self._changing = run / "changing.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the machine's only service while the context is entered.

        Raises:
            InUseError: There is another one.
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
            for file in (self._running, self._awaited, self._changing, Path(os.path.realpath(self.saved))):
                _remove_unfinished(file)
            yield
        finally:
            os.close(fd)

    def running(self) -> Document | None:
        """Return what ran when it was noted last, None if nothing was since the machine started.

        Raises:
            VscsihbaError: The note cannot be read.
        """
        return load(self._running) if self._running.exists() else None

    def note(self, document: Document) -> None:
        """Note what runs.

        Raises:
            HostError: It cannot be written.
        """
        _replace(self._running, dump(document))

    def begin(self, before: Document, target: Document) -> None:
        """Note that changes begin, so that a later life takes them back if they are cut off.

        Args:
            before: What runs.
            target: What is to run after all of them.

        Raises:
            HostError: It cannot be written.
        """
        text = msgspec.json.encode({"before": builtins(before), "target": builtins(target)}).decode()
        _replace(self._changing, text)

    def end(self) -> None:
        """Note that changes have ended: all are done and noted, or all taken back.

        Raises:
            HostError: It cannot be written.
        """
        try:
            self._changing.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{self._changing}: {error.strerror}") from error

    def unfinished(self) -> tuple[Document, Document] | None:
        """Return what ran before changes that were cut off, and what they were to lead to; None if none were.

        Raises:
            VscsihbaError: The note cannot be read.
        """
        try:
            noted = msgspec.json.decode(self._changing.read_bytes(), type=dict[str, Any])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise HostError(f"{self._changing}: {error}") from error
        before, target = (read(noted.get(name), Path("/")) for name in ("before", "target"))
        return before, target

    def to_restore(self) -> Salvage:
        """Return the saved document as far as it can be read, an empty one if there is none."""
        return salvage(self.saved) if os.path.lexists(self.saved) else Salvage(Document())

    def awaited(self) -> Awaited:
        """Return the saved entries that could not be restored when the machine started.

        Raises:
            HostError: The record cannot be read.
        """
        try:
            return msgspec.json.decode(self._awaited.read_bytes(), type=Awaited)
        except FileNotFoundError:
            return Awaited()
        except (OSError, msgspec.DecodeError) as error:
            raise HostError(f"{self._awaited}: {error}") from error

    def note_awaited(self, awaited: Awaited) -> None:
        """Note which saved entries are not restored.

        Raises:
            HostError: That cannot be written.
        """
        if awaited.unread:
            _replace(self._awaited, msgspec.json.encode(awaited).decode())
            return
        try:
            self._awaited.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{self._awaited}: {error.strerror}") from error

    def save(self, document: Document, path: Path | None = None, *, force: bool = False) -> Path:
        """Save a document, and keep the ten versions before it in a folder ``versions`` beside it.

        Args:
            document: What to save.
            path: Absolute; the document that is restored at start by default.
            force: Also an empty document over one that is not, and over what is no document.

        Raises:
            UsageError: That is what would happen without.
            HostError: It cannot be written.
        """
        path = Path(os.path.realpath(path or self.saved))  # a link stays one, its target is replaced
        text = dump(document)
        if path.exists():
            if not force:
                _demand_harmless(path, document)
            if path.read_bytes() == text.encode():
                return path
            _keep(path)
        _replace(path, text)
        return path


def _lock(fd: int, path: Path) -> None:
    """Take the lock of the machine's only service.

    Raises:
        InUseError: Another one has it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = path.read_text(errors="replace").strip()
        raise InUseError(f"the service runs already, as process {other}", cure="end that first") from error


def _demand_harmless(path: Path, document: Document) -> None:
    """Refuse to put a document in the place of something better.

    Raises:
        UsageError: It would be.
    """
    try:
        before = load(path)
    except VscsihbaError as error:
        raise UsageError(
            f"{path} is no document that this program knows: {error.message}",
            cure="name another file, or use --force",
        ) from error
    if document.empty and not before.empty:
        raise UsageError(
            f"nothing runs, and {path} has {counted(len(before.hbas), 'HBA')} "
            f"and {counted(len(before.backstores), 'backstore')}",
            cure="use --force to save that nothing runs",
        )


def _keep(path: Path) -> None:
    """Keep a version of a file, and no more than `KEPT` of them."""
    folder = path.parent / "versions"
    seconds, rest = divmod(time.time_ns(), 10**9)
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{rest:09}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / f"{path.stem}-{stamp}{path.suffix}").hardlink_to(path)
        sync_directory(folder)
        kept = sorted(folder.glob(f"{glob.escape(path.stem)}-{_STAMP}{glob.escape(path.suffix)}"))
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    """Put a text in a file's place, on stable storage."""
    try:
        _make_folder(path.parent)
        replace_file(path, text.encode())
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def _remove_unfinished(file: Path) -> None:
    """Remove unfinished files of a killed process (`vscsihba.handlers.shared.durable`)."""
    for left in file.parent.glob(f".{glob.escape(file.name[:50])}.{'[0-9a-f]' * 16}"):
        try:
            left.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s", left, error.strerror)


def _make_folder(folder: Path) -> None:
    """Make a directory with those above it, each on stable storage."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)
        sync_directory(folder.parent)
