"""Overlay files: making, opening and sharing them, and telling one base from another."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from vscsihba.block import Extent
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow.format import Header, file_size
from vscsihba.handlers.cow.overlay import Overlay, format_overlay
from vscsihba.handlers.cow.overlay_note import place_of
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.file.reflink import publish
from vscsihba.handlers.shared.undo import Undo

_HEAD = 1 << 20
_SAMPLES = 64
_SAMPLE = 4096


def open_overlay(path: str, *, read_only: bool, frozen: bool = False, recover: bool | None = None) -> Overlay:
    """Open and lock an overlay file; closing the overlay unlocks it.

    Args:
        path: The file.
        read_only: It will never be written.
        frozen: It will not be written before `thaw`; others may read it.
        recover: Take over (True) or leave alone (False) what a killed process has left, where it is not clear
            for which file; None raises then.

    Raises:
        UsageError, InUseError: The file cannot be opened.
        HostError: It is no overlay, or is damaged.
        OSError: There is no room for the note of a writer.
    """
    store = FileHandler(
        FileHandler.Options(path=path, read_only=read_only, format="raw"), shared=read_only or frozen
    )
    store.open()
    with Undo() as failing:
        failing.callback(store.close)
        try:
            overlay = Overlay(store, place_of(path, store.status()), recover=recover)
        except HostError as error:
            raise HostError(f"{path}: {error.message}", cure=error.cure) from error
        if not (read_only or frozen):
            overlay.begin()
        failing.pop_all()
    return overlay


def place(overlay: Overlay) -> str:
    """Return a text that names the file of an overlay while the machine runs, by whatever path."""
    status = _file(overlay).status()
    return f"{status.st_dev}:{status.st_ino}"


def share(overlay: Overlay) -> None:
    """Let others read an overlay that is not written any more.

    Raises:
        HostError: The system has no locks left; nothing has changed.
    """
    _file(overlay).share(shared=True)


def freeze(overlay: Overlay) -> None:
    """End writing to an overlay, and let others read it, even if the flush fails.

    Raises:
        OSError: The flush failed.
    """
    with ExitStack() as sharing:
        sharing.callback(share, overlay)
        overlay.end()


def thaw(overlay: Overlay) -> None:
    """Keep others away from an overlay that is to be changed again.

    Raises:
        InUseError: Somebody reads it.
    """
    _file(overlay).share(shared=False)


def _file(overlay: Overlay) -> FileHandler:
    assert isinstance(overlay.store, FileHandler)  # noqa: S101  # it was opened above
    return overlay.store


def create_overlay(path: str, header: Header) -> None:
    """Make an overlay file in which nothing is stored, where there is no file yet.

    After a crash it is there as a whole, or not at all; a file ``overlay-*.part`` beside it may be
    left, which nobody needs.

    Args:
        path: Its name; a symbolic link to a file that is missing makes that file.
        header: The header of the new overlay.

    Raises:
        UsageError, HostError: The system refuses to make a file there, or there is one.
        OSError: There is no room for its map; nothing is left of it then.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f"overlay-{uuid.uuid4().hex}.part")
    file_making.create(str(part), file_size(header.clusters, header.cluster_size))
    with ExitStack() as finally_:
        finally_.callback(_remove, part)
        store = FileHandler(FileHandler.Options(path=str(part), format="raw"))
        store.open()
        with closing(store):
            format_overlay(store, header)
        try:
            publish(part, target)
        except FileExistsError as error:
            raise UsageError(f"{path}: there is a file of that name", cure="choose another name") from error


def _remove(path: Path) -> None:
    with suppress(OSError):  # what stays is a file that nobody needs
        path.unlink()


def digest(base: Handler) -> str:
    """Return a hash of samples of a medium: its beginning, its end, and places in between.

    It notices what happens to a base in practice, another image in its place or a file
    system that was mounted, and costs milliseconds. It is no proof that nothing changed.

    Raises:
        OSError: The medium cannot be read.
    """
    hashed = hashlib.sha256()
    room = bytearray(_HEAD)
    for sample in _samples(base.geometry.size):
        view = memoryview(room)[: sample.length]
        base.read(sample.offset, [view])
        hashed.update(view)
    return hashed.hexdigest()


def _samples(size: int) -> Iterator[Extent]:
    """Choose which parts of a medium stand for all of it."""
    yield Extent(0, min(_HEAD, size))
    if size > _HEAD:
        for number in range(1, _SAMPLES + 1):
            offset = (size - _SAMPLE) * number // _SAMPLES
            yield Extent(offset, min(_SAMPLE, size - offset))
