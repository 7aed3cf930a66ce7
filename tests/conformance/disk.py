"""A disk under test: served by vscsitarget, with its paths, and made anew when a test has changed it.

A test may leave a disk write protected, ejected, reserved or in the middle of something. What a disk says
of itself is compared with what it said when it was new; when that differs, it gets a new process and image.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from tests.conformance.iscsi_export import IscsiExport
from tests.conformance.profiles import SLOWLY, Profile
from tests.vm.sg_io import Told, send
from tests.vm.target import CONFIGFS, Target
from vscsihba import configfs

_SECOND_PATH: Final = 128
"""Added to the number of an HBA: the HBA that is the second path to its disks."""
_TEST_UNIT_READY: Final = bytes(6)
_UNIT_ATTENTION: Final = 6
_MOST_ATTENTIONS: Final = 16
_ALLOW_REMOVAL: Final = bytes([0x1E, 0, 0, 0, 0, 0])
_LOOK: Final = (
    (_TEST_UNIT_READY, 0),
    (bytes([0x1A, 0, 0x3F, 0xFF, 255, 0]), 255),  # MODE SENSE(6), every page and subpage
    (bytes([0x25, *bytes(9)]), 8),  # READ CAPACITY(10)
    (bytes([0x5E, 0, *bytes(6), 64, 0]), 64),  # PERSISTENT RESERVE IN, READ KEYS
)
_KEYS: Final = 3
_GENERATION: Final = 4
"""Bytes that READ KEYS begins with: a counter of registrations, which is no state."""


@dataclass(frozen=True, slots=True)
class Paths:
    """How the tool is told of a disk: addresses of one logical unit, the first for most tests."""

    sg: tuple[str, str]
    iscsi: tuple[str, str]


class Disk:
    """A disk of some kind while the context is entered.

    Args:
        profile: The kind.
        hba: The number of its HBA, below 128.
        folder: For the image and what vscsitarget says.
    """

    def __init__(self, profile: Profile, hba: int, folder: Path) -> None:
        self.profile = profile
        self.made = 0
        self._hba = hba
        self._folder = folder
        self._slow = False
        self._new: tuple[Told, ...] = ()
        self._paths: Paths | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._make()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def addresses(self, transport: str, *, both: bool) -> tuple[str, ...]:
        """Return the tool's arguments for a transport: one path, or both."""
        assert self._paths is not None
        pair = self._paths.sg if transport == "sg" else self._paths.iscsi
        return pair if both else pair[:1]

    def prepare(self, *, new: bool, slow: bool) -> None:
        """Make ready for a test.

        Args:
            new: It wants a disk that was never written to.
            slow: It wants a slow one; the disk stays slow until a test is prepared for that wants none.
        """
        if new or slow != self._slow:
            self._slow = slow
            self.renew()

    def restore(self) -> None:
        """Make the disk anew if it does not say of itself what it said at first."""
        if self._look() != self._new:
            self.renew()

    def renew(self) -> None:
        """Make the disk anew."""
        self._undo.close()
        self._make()

    def _make(self) -> None:
        with ExitStack() as undo:
            # Another name each time: what a unit keeps for its next life goes by the name of its image.
            image = self._folder / f"{self.profile.name}-{self._hba}-{self.made}.img"
            undo.enter_context(_sparse(image, self.profile.size))
            stack = SLOWLY * self._slow + self.profile.stack.format(image=image)
            target = Target([stack], self._hba, self.profile.options, image.with_suffix(".err"))
            undo.callback(_finish, target)
            (lun,) = target.wait_ready()
            name = configfs.backstore_name(self._hba, lun.number)
            undo.enter_context(_second_path(self._hba + _SECOND_PATH, name))
            second = configfs.wait_for_generic(self._hba + _SECOND_PATH, 0)
            (backstore,) = CONFIGFS.glob(f"core/user_*/{name}")
            export = undo.enter_context(IscsiExport(name, backstore))
            self._paths = Paths((str(lun.sg), str(second)), (export.url, export.url))
            self._undo = undo.pop_all()
        self.made += 1
        self._new = self._look()

    def _look(self) -> tuple[Told, ...]:
        """Return the properties that the disk reports on its first path, with the unit attentions cleared."""
        assert self._paths is not None
        with suppress(OSError):
            for path in self._paths.sg:
                _let_go(path)
            fd = os.open(self._paths.sg[0], os.O_RDWR | os.O_NONBLOCK)
            try:
                return tuple(
                    _stable(at, send(fd, command, data_in=room)) for at, (command, room) in enumerate(_LOOK)
                )
            finally:
                os.close(fd)
        return ()


def _stable(at: int, reply: Told) -> Told:
    """Return a reply without what changes by itself."""
    if at == _KEYS:
        return replace(reply, data=reply.data[_GENERATION:])
    return reply


def _let_go(path: str) -> None:
    """Clear the state of a path: unit attentions, and the prevention of removal."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        for _ in range(_MOST_ATTENTIONS):
            if (reply := send(fd, _TEST_UNIT_READY)).sense[2:3] != bytes([_UNIT_ATTENTION]):
                break
        if reply.status == 0:
            send(fd, _ALLOW_REMOVAL)
    finally:
        os.close(fd)


@contextmanager
def _sparse(image: Path, size: int) -> Iterator[None]:
    with image.open("wb") as file:
        file.truncate(size)
    try:
        yield
    finally:
        image.unlink()


@contextmanager
def _second_path(hba: int, backstore: str) -> Iterator[None]:
    """Let an HBA of its own lead to a backstore, as LUN 0."""
    configfs.create_hba(hba)
    try:
        configfs.link_lun(hba, 0, backstore)
        try:
            yield
        finally:
            configfs.unlink_lun(hba, 0)
    finally:
        configfs.delete_hba(hba)


def _finish(target: Target) -> None:
    """End a vscsitarget.

    Raises:
        RuntimeError: It had to be killed.
    """
    if not target.finish():
        raise RuntimeError(f"{target} did not end after SIGTERM:\n{target.errors()}")
