"""Overlay files: making, opening and replacing them, and telling one base from another."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from vscsihba.block import Extent
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow_format import Header, file_size
from vscsihba.handlers.durable import sync_directory
from vscsihba.handlers.file import FileHandler
from vscsihba.handlers.overlay import Overlay, format_overlay

_HEAD = 1 << 20
_SAMPLES = 64
_SAMPLE = 4096


def open_overlay(path: str, *, read_only: bool, frozen: bool = False) -> Overlay:
    """Open and lock an overlay file; closing the overlay lets go of it.

    Args:
        path: The file.
        read_only: It will never be written.
        frozen: It will not be written before `thaw`; others may read it.

    Raises:
        UsageError, InUseError: The file cannot be opened.
        HostError: It is no overlay, or is damaged.
    """
    store = FileHandler(FileHandler.Options(path=path, read_only=read_only), shared=read_only or frozen)
    store.open()
    with ExitStack() as failing:
        failing.callback(store.close)
        try:
            overlay = Overlay(store)
        except HostError as error:
            raise HostError(f"{path}: {error.message}", cure=error.cure) from error
        if not (read_only or frozen):
            overlay.begin()
        failing.pop_all()
    return overlay


def freeze(overlay: Overlay) -> None:
    """Be done with writing to an overlay, and let others read it.

    Raises:
        OSError: The flush failed; writing goes on.
    """
    overlay.end()
    _file(overlay).share(shared=True)


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
    """Make an overlay file in which nothing is stored, in place of one that may be there.

    After a crash there is the new file or what was there before.

    Raises:
        UsageError, HostError: The system refuses to make a file there.
        OSError: There is no room for its map.
    """
    new = Path(path + ".new")
    new.unlink(missing_ok=True)
    size = file_size(header.clusters, header.cluster_size)
    store = FileHandler(FileHandler.Options(path=str(new), create=True, size=size))
    store.open()
    with closing(store), ExitStack() as failing:
        failing.callback(new.unlink, missing_ok=True)
        format_overlay(store, header)
        new.replace(path)
        sync_directory(Path(path).parent)
        failing.pop_all()


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
