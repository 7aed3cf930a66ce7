"""One leg of a mirror: a stack that may have all the data, be behind, be gone, or hang."""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import msgspec

from vscsihba.block import Capabilities, Geometry, Views
from vscsihba.errors import VscsihbaError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.fan import Leg
from vscsihba.handlers.lanes import Lanes, Outcome

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds to wait for what a leg was asked last, when the mirror closes."""

T = TypeVar("T")


class Standing(Enum):
    """What a leg is good for."""

    WHOLE = "whole"
    """It has all the data: it is read and written."""
    BEHIND = "behind"
    """It is written, and being made equal to the others."""
    GONE = "gone"
    """It cannot be used."""


@dataclass(frozen=True, slots=True)
class LegStatus:
    """What is known of a leg, for those who look.

    Attributes:
        number: Where it stands.
        identity: Of its medium; empty if it was never open.
        standing: ``whole``, ``behind`` or ``gone``.
        error: Why it is gone.
    """

    number: int
    identity: str
    standing: str
    error: str


class MirrorLeg:
    """A leg.

    Everything that is asked of it runs on threads of its own, on memory of its own, since it
    may go on after nobody waits for it any more.

    Args:
        stack: The leg, unopened.
        number: Where it stands, for messages.

    Attributes:
        key: Tells it from the other legs, today and after a restart.
        identity: Of its medium, once it was open.
        standing: What it is good for.
        error: Why it is gone.
        geometry: Its shape, once it was open.
        capabilities: What it can do, once it was open.
    """

    def __init__(self, stack: Leg, number: int) -> None:
        text = msgspec.json.encode(stack.document, order="sorted")
        self.key = hashlib.sha256(text).hexdigest()[:16]
        self.number = number
        self.identity = self.error = ""
        self.standing = Standing.GONE
        self.geometry = Geometry(512)
        self.capabilities = Capabilities()
        self._stack = stack
        self._lanes: Lanes | None = None
        self._inline = InlineVerbs()
        self._inline_use = threading.Lock()
        self._closing: threading.Thread | None = None

    def __str__(self) -> str:
        """Name the leg as people know it."""
        return f"leg {self.number} ({self.identity})" if self.identity else f"leg {self.number}"

    @property
    def status(self) -> LegStatus:
        """What is known of it."""
        return LegStatus(self.number, self.identity, self.standing.value, self.error)

    def check(self) -> None:
        """Look whether it can open; see `Handler.check`."""
        self._stack.check()

    def open(self, timeout: float | None) -> Handler | None:
        """Try to open the leg; return it, or None and remember why not.

        What it is good for then is for others to say.
        """
        if self._closing is not None:
            self._closing.join(timeout)
            if self._closing.is_alive():
                self.error = "what it was asked last has not ended yet"
                return None
            self._closing = None
        self._lanes = Lanes(f"leg{self.number}", self._stack.workers)
        try:
            self._disk = self._lanes.submit(self._stack.open).get(timeout)
        except (VscsihbaError, OSError) as error:
            self.error = str(error)
            self._lanes.close()
            return None
        self.identity, self.error = self._disk.identity, ""
        self.geometry, self.capabilities = self._disk.geometry, self._disk.capabilities
        self._inline = self._disk.inline
        return self._disk

    def submit(self, verb: Callable[[Handler], T]) -> Outcome[T]:
        """Let one of the leg's threads do something with it.

        Raises:
            OSError: It was dropped.
        """
        assert self._lanes is not None  # noqa: S101  # a leg that was never open is not asked
        disk = self._disk
        return self._lanes.submit(lambda: verb(disk))

    def read_inline(self, views: Views, offset: int) -> int:
        """Read without blocking; see `vscsihba.handlers.base.InlineVerbs`."""
        # The lock keeps a descriptor from being closed, and given to another file, under the read.
        if not self._inline_use.acquire(blocking=False):
            raise BlockingIOError
        try:
            if self._inline.read is None:
                raise BlockingIOError
            return self._inline.read(views, offset, self._inline.read_flags)
        finally:
            self._inline_use.release()

    def drop(self, error: Exception) -> None:
        """Use the leg no more, because of `error`, and close it when what it was asked has ended."""
        self.standing, self.error = Standing.GONE, str(error)
        if self._lanes is not None:
            self._lanes.close()
            self._closing = threading.Thread(target=self._close, name=f"leg{self.number}-close", daemon=True)
            self._closing.start()

    def close(self) -> None:
        """Close the leg, once what it was asked has ended; one that hangs is left to the kernel.

        Raises:
            OSError: As the stack's close.
        """
        if self._closing is not None:
            self._closing.join(_PATIENCE)
        elif self.standing is not Standing.GONE and self._lanes is not None:
            self.standing = Standing.GONE
            self._lanes.close()
            self._forget_inline()
            if self._lanes.join(_PATIENCE):
                self._stack.close()
            else:
                log.error("%s hangs, and is left open", self)

    def _close(self) -> None:
        assert self._lanes is not None  # noqa: S101  # it was open
        self._forget_inline()
        self._lanes.join()
        try:
            self._stack.close()
        except OSError as error:
            log.warning("%s: closing it failed: %s", self, error)

    def _forget_inline(self) -> None:
        with self._inline_use:
            self._inline = InlineVerbs()
