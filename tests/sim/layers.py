"""The disks under test: one small disk for each handler that keeps state, and a short script for each.

A layer's media are made once by the real code, unsimulated, and put back before every run. The
scripts are short, for every one of their system calls is made to fail in turn.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from tests.sim.history import SECTOR
from tests.sim.initiator import Step
from vscsihba.handlers.encrypt import luks2_json
from vscsihba.handlers.mirror.handler import MirrorHandler
from vscsihba.handlers.stack import Document, Stack, build

SIZE: Final = 256 << 10
"""Bytes of a disk: four regions of a mirror, 64 clusters of an overlay, 512 sectors."""
SECTORS: Final = SIZE // SECTOR


def content_of(seed: int) -> bytes:
    """Return a content in which every sector differs."""
    return b"".join(bytes([seed, at % 251, at // 251, 7]) * (SECTOR // 4) for at in range(SECTORS))


NOTHING: Final = "nothing"
FOREIGN: Final = "foreign"
EMPTY: Final = "empty"
OLDER: Final = "older"
"""What is found in the place of a medium: nothing, one of something else, zeroes, an older copy of it."""


@dataclass(frozen=True)
class Medium:
    """A file or directory of a disk that may be replaced.

    Attributes:
        name: Its path below the root.
        kinds: Substitutes that may be in its place. A base that is a plain file is known by its path, so
            another one is not noticed.
        is_the_disk: The disk reads as whatever the medium has.
        has_copies: With a substitute the disk has all that it promised, or is refused.
        is_a_leg: The disk can be used with a substitute, which may become a part of it.
    """

    name: str
    kinds: tuple[str, ...] = (NOTHING, FOREIGN, EMPTY, OLDER)
    is_the_disk: bool = False
    has_copies: bool = False
    is_a_leg: bool = False

    def __str__(self) -> str:
        """Name it for messages."""
        return self.name


@dataclass(frozen=True)
class Layer:
    """A disk of one kind.

    Attributes:
        name: Its name on the command line.
        make: Makes the media in an empty directory.
        document: The disk made of them.
        script: A few requests that reach all of its states.
        verbs: Requests that random initiators choose from.
        alone: Requests that one chooses from besides while it is the only one.
        audit: Compares the media after a quiet end; raises AssertionError.
        stable: Data that was read once is read again, even if it was never acknowledged. A mirror whose legs
            differ after a crash reads from one of them, and from another one if that is lost.
        settle: Virtual seconds after which everything is equal and at rest.
        media: Those that may be replaced while the disk is closed.
        legs: Legs are added and removed.
        is_at_rest: Tells of the open stack whether all of its media are in use, and equal.
        cluster: Sectors that a write to one of them may store with it, 0 if none: if a sync fails, and the
            process dies before it could record that, all of them may be what the medium had in their place.
        content: First content of the disk, if that is not in its media.
        around: Returns the context of a `Run`, for what stands beside the machine.
        every_end: The run with each fault is ended in every way, not in one of them in turn; what
            derives keys, or makes many calls, takes too long for that.
    """

    name: str
    make: Callable[[Path], None]
    document: Callable[[Path], Document]
    script: tuple[Step, ...]
    verbs: tuple[str, ...]
    audit: Callable[[Document, int], None] = lambda _document, _size: None
    stable: bool = True
    settle: float = 0.0
    cluster: int = 0
    every_end: bool = True
    alone: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    legs: bool = False
    is_at_rest: Callable[[Stack], bool] = lambda _stack: True
    content: bytes = b""
    around: Callable[[Any], AbstractContextManager[object]] = nullcontext


_DISK: Final = (Medium("disk.img", (NOTHING, FOREIGN, OLDER), is_the_disk=True),)
_CONTAINER: Final = (Medium("disk.img"),)
_BASE: Final = Medium("base.img", (NOTHING,))

_PLAIN: Final = (
    Step("write", 3, 2),
    Step("read", 0, 8),
    Step("write", 120, 24),
    Step("flush"),
    Step("write_fua", 130, 3),
    Step("unmap", 8, 24),
    Step("write", 9, 1),
    Step("read", 0, 40),
    Step("write_zeroes", 121, 3),
    Step("flush"),
    Step("write", 3, 1),
    Step("read", 0, SECTORS),
)
_VERBS: Final = (
    "write",
    "write",
    "write",
    "write_fua",
    "read",
    "read",
    "flush",
    "unmap",
    "write_zeroes",
    "wait",
)


def _image(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).write_bytes(content_of(1))

    return make


def _opened_once(document: Callable[[Path], Document], *images: str) -> Callable[[Path], None]:
    """Make images, then what the document makes beside them when it is first opened."""

    def make(root: Path) -> None:
        for name in images:
            _image(name)(root)
        with build(document(root)):
            pass

    return make


_LAYERED: Final = (
    Step("write", 3, 2),
    Step("read_inline", 0, 8),
    Step("write_inline", 120, 24),
    Step("flush"),
    Step("write_fua", 130, 3),
    Step("unmap", 8, 24),
    Step("write_inline", 9, 1),
    Step("read_inline", 0, 40),
    Step("write_zeroes", 121, 3),
    Step("write_aborted", 128, 16),
    Step("flush"),
    Step("write_inline", 3, 1),
    Step("read", 0, SECTORS),
)
"""Plain requests, most of them inline."""
_INLINE_VERBS: Final = ("write_inline", "write_inline", "write_aborted", "read_inline")


# A plain file


def _file(root: Path) -> Document:
    return {"handler": "file", "path": str(root / "disk.img")}


def _direct(root: Path) -> Document:
    return {"handler": "file", "path": str(root / "disk.img"), "direct": True}


# Overlays


_CLUSTER: Final = 4096


def _base(root: Path) -> Document:
    return {"handler": "file", "path": str(root / "base.img"), "read_only": True}


def _cow(root: Path, *, create: bool = False) -> Document:
    path = str(root / "over.cow")
    return {"handler": "cow", "path": path, "create": create, "cluster_size": _CLUSTER, "next": _base(root)}


def _snapshot(root: Path, *, create: bool = False) -> Document:
    path = str(root / "set")
    return {
        "handler": "snapshot",
        "path": path,
        "create": create,
        "cluster_size": _CLUSTER,
        "next": _base(root),
    }


_SNAPSHOT_SCRIPT: Final = (
    Step("write", 3, 2),
    Step("take", argument="one"),
    Step("write_inline", 0, 12),
    Step("take", argument="two"),
    Step("write_fua", 130, 3),
    Step("roll_back", argument="one"),
    Step("write_inline", 9, 1),
    Step("read_inline", 0, SECTORS),
    Step("delete", argument="two"),
    Step("flush"),
    Step("delete", argument="one"),
    Step("read", 0, SECTORS),
)


# Caches


def _cache(mode: str, blocks: int) -> Callable[[Path], Document]:
    def document(root: Path) -> Document:
        return {
            "handler": "cache",
            "size": blocks * 4096,
            "mode": mode,
            "next": {"handler": "file", "path": str(root / "disk.img")},
        }

    return document


# Encryption


LUKS2_PAYLOAD: Final = 1 << 20
"""Bytes before the data of a small LUKS2 container, which has room for three keys."""
_NEW_CONTAINER: Final = {"create": True, "kdf": "pbkdf2", "kdf_time": 0, "sector_size": SECTOR}


def _encrypt(version: str, *, create: bool = False) -> Callable[[Path], Document]:
    def document(root: Path) -> Document:
        return {
            "handler": "encrypt",
            "passphrase_file": str(root / "secret"),
            **(_NEW_CONTAINER | {"luks": int(version[-1])} if create else {}),
            "next": {"handler": "file", "path": str(root / "disk.img")},
        }

    return document


def _make_encrypted(version: str, header: int) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / "secret").write_bytes(b"correct horse\n")
        with (root / "disk.img").open("wb") as file:
            file.truncate(header + SIZE)
        with (
            mock.patch.object(luks2_json, "PAYLOAD", LUKS2_PAYLOAD),
            build(_encrypt(version, create=True)(root)),
        ):
            pass

    return make


# Mirrors


def _mirror(root: Path, *, create: bool = False) -> Document:
    return {
        "handler": "mirror",
        "path": str(root / "mirror.state"),
        "create": create,
        "region_size": 65536,
        "retry": 5,
        "legs": [{"handler": "file", "path": str(root / f"{name}.img")} for name in "ab"],
    }


def _make_mirror(root: Path) -> None:
    import time  # noqa: PLC0415

    _image("a.img")(root)
    for name in "bc":
        (root / f"{name}.img").write_bytes(bytes(SIZE))
    with build(_mirror(root, create=True)) as disk:
        status = _status_of(disk)
        while set(status()) != {"whole"}:
            time.sleep(0.005)
        disk.flush()


def _status_of(disk: object) -> Callable[[], list[str]]:
    below = getattr(disk, "next")  # noqa: B009
    return lambda: [leg.standing for leg in below.status()]


def _are_legs_whole(stack: Stack) -> bool:
    mirror = next(layer for layer in stack.layers if isinstance(layer, MirrorHandler))
    return {leg.standing for leg in mirror.status()} == {"whole"}


def _audit_mirror(document: Document, size: int) -> None:
    assert isinstance(document, dict)
    first, *others = [Path(leg["path"]).read_bytes()[:size] for leg in document["legs"]]
    differing = [
        at // SECTOR
        for leg in others
        if leg != first
        for at in range(0, size, SECTOR)
        if leg[at : at + SECTOR] != first[at : at + SECTOR]
    ]
    assert not differing, f"the legs of the mirror differ for good in sectors {differing[:8]}..."


_MIRROR_SCRIPT: Final = (
    Step("write", 3, 2),
    Step("read", 0, 8),
    Step("write", 120, 24),
    Step("write_inline", 4, 2),
    Step("read_inline", 0, 8),
    Step("flush"),
    Step("wait", count=6),
    Step("write_fua", 130, 3),
    Step("write_aborted", 131, 3),
    Step("flush"),
    Step("unmap", 8, 24),
    Step("wait", count=12),
    Step("write_inline", 300, 1),
    Step("flush"),
    Step("write", 3, 1),
    Step("read", 0, SECTORS),
)


LAYERS: Final = {
    layer.name: layer
    for layer in (
        Layer("file", _image("disk.img"), _file, _PLAIN, _VERBS, media=_DISK),
        Layer("direct", _image("disk.img"), _direct, _PLAIN, _VERBS, media=_DISK),
        Layer(
            "cow",
            _opened_once(lambda root: _cow(root, create=True), "base.img"),
            _cow,
            _LAYERED,
            (*_VERBS, *_INLINE_VERBS),
            cluster=_CLUSTER // SECTOR,
            media=(Medium("over.cow"), _BASE),
        ),
        Layer(
            "snapshot",
            _opened_once(lambda root: _snapshot(root, create=True), "base.img"),
            _snapshot,
            _SNAPSHOT_SCRIPT,
            (*_VERBS, *_INLINE_VERBS),
            cluster=_CLUSTER // SECTOR,
            every_end=False,
            alone=("take", "take", "roll_back", "delete"),
            media=(Medium("set"), _BASE),
        ),
        # The one has lines of one block, the other of two; both evict all the time.
        *(
            Layer(
                mode,
                _image("disk.img"),
                _cache(mode, blocks),
                _LAYERED,
                (*_VERBS, *_INLINE_VERBS),
                media=_DISK,
            )
            for mode, blocks in (("write-through", 4), ("write-back", 8))
        ),
        *(
            Layer(
                version,
                _make_encrypted(version, payload),
                _encrypt(version),
                tuple(step for step in _PLAIN if step.verb != "unmap"),
                tuple(verb for verb in _VERBS if verb != "unmap"),
                every_end=False,
                media=_CONTAINER,
            )
            for version, payload in (("luks1", 2 << 20), ("luks2", LUKS2_PAYLOAD))
        ),
        Layer(
            "mirror",
            _make_mirror,
            _mirror,
            _MIRROR_SCRIPT,
            (*_VERBS, *_INLINE_VERBS, "add_leg", "remove_leg"),
            _audit_mirror,
            stable=False,
            settle=60.0,
            media=(
                *(Medium(f"{name}.img", has_copies=True, is_a_leg=True) for name in "ab"),
                Medium("mirror.state", has_copies=True),
            ),
            legs=True,
            is_at_rest=_are_legs_whole,
        ),
    )
}
