"""The negotiation of a connection, by libnbd: the address, encryption, the export and its properties.

Sends no requests: see `transmission` and `encrypted`.
"""

import contextlib
import errno
import os
import re
import select
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from vscsihba.handlers.nbd.address import Address, libnbd
from vscsihba.handlers.nbd.requests import MOST, Export, UnknownExportError

ALLOCATION: Final = "base:allocation"
"""The metadata context that tells the allocation of a range."""
READ: Final = 1
WRITE: Final = 2
"""Directions of libnbd(3)."""
_SIZES: Final = 3
"""Kinds of block sizes that a server tells: minimum, preferred, maximum."""
_FUNCTION: Final = re.compile(r"^nbd_\w+: ")
_STEP: Final = 0.25
"""Seconds between two looks at whether connecting is still wanted."""


def text_of(error: Exception) -> str:
    """Return the text of an error in one line, of one of libnbd without the name of a function."""
    text = getattr(error, "strerror", None) or getattr(error, "string", error)
    return _FUNCTION.sub("", " ".join(str(text).split()))


class Negotiation:
    """Brings a handle of libnbd to an export.

    Args:
        address: The export.
        until: Time (CLOCK_MONOTONIC) to give up.
        wanted: Returns whether to go on.

    Attributes:
        handle: The handle.
    """

    def __init__(self, address: Address, until: float, wanted: Callable[[], bool]) -> None:
        self._nbd = libnbd()
        self._address = address
        self._until = until
        self._wanted = wanted
        self.handle: Any = self._nbd.NBD()

    def run(self) -> Export:
        """Connect, and return the properties of the export.

        Raises:
            UnknownExportError: The server has no such export.
            OSError: The server cannot be reached, or does not speak the protocol.
        """
        handle = self.handle
        try:
            handle.set_opt_mode(True)
            handle.add_meta_context(ALLOCATION)
            if hasattr(handle, "set_request_extended_headers"):  # libnbd 1.18: `transmission` has none
                handle.set_request_extended_headers(False)
            self._address.begin(handle)
            self._drive(lambda: not handle.aio_is_connecting())
            if handle.aio_is_negotiating():
                self._choose_export()
            if not handle.aio_is_ready():
                raise ConnectionAbortedError(errno.ECONNABORTED, f"{self._address.name}: the server hung up")
            return self._export()
        except self._nbd.Error as error:
            raise self._os_error(error) from error

    def _choose_export(self) -> None:
        handle, answers = self.handle, list[int]()
        handle.aio_opt_go(partial(_note_end, answers))
        self._drive(lambda: answers or handle.aio_is_dead() or handle.aio_is_closed())
        if answers and answers[0] == errno.ENOENT:
            raise UnknownExportError(
                f"{self._address.name}: the server refuses the export {self._address.export!r}",
                cure=self._names(),
            )
        if answers and answers[0]:
            plain = "" if self._address.encrypted else "; it may want an encrypted connection (nbds)"
            text = f"the server refuses the export: {os.strerror(answers[0])}{plain}"
            raise OSError(answers[0], f"{self._address.name}: {text}")
        self._drive(lambda: not (handle.aio_is_connecting() or handle.aio_is_negotiating()))

    def _names(self) -> str:
        """Ask for the names of the server's exports, and return them as a sentence."""
        handle, names, answers = self.handle, list[str](), list[int]()
        with contextlib.suppress(self._nbd.Error, OSError):

            def note(name: str, _description: str) -> int:
                names.append(name)
                return 0

            handle.aio_opt_list(note, partial(_note_end, answers))
            self._drive(lambda: answers or not handle.aio_is_connecting())
        if not names:
            return "it does not tell the names of its exports"
        return f"it has: {', '.join(repr(name) for name in sorted(names))}"

    def _drive(self, ended: Callable[[], object]) -> None:
        """Serve the handle until `ended`.

        Raises:
            OSError: ETIMEDOUT: it took too long; ECANCELED: it is not wanted any more.
            nbd.Error: The connection has failed.
        """
        while not ended():
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"{self._address.name}: the server does not answer")
            if not self._wanted():
                raise OSError(errno.ECANCELED, f"{self._address.name}: closed")
            poll = select.poll()
            poll.register(self.handle.aio_get_fd(), wanted_events(self.handle))
            for _, events in poll.poll(min(left, _STEP) * 1000):
                serve(self.handle, events)

    def _export(self) -> Export:
        handle = self.handle
        sizes = [handle.get_block_size(kind) for kind in range(_SIZES)]
        return Export(
            size=handle.get_size(),
            read_only=handle.is_read_only(),
            flush=handle.can_flush(),
            fua=handle.can_fua(),
            trim=handle.can_trim(),
            zero=handle.can_zero(),
            shared=handle.can_multi_conn(),
            extents=handle.can_meta_context(ALLOCATION),
            rotational=handle.is_rotational(),
            minimum=max(1, sizes[0]),
            preferred=sizes[1],
            maximum=min(MOST, sizes[2] or MOST),
        )

    def _os_error(self, error: Exception) -> OSError:
        number = getattr(errno, str(getattr(error, "errno", "")), errno.EIO)
        return OSError(number, f"{self._address.name}: {text_of(error)}")


def wanted_events(handle: Any) -> int:
    """Return the events that a handle of libnbd waits for, as of poll(2)."""
    direction = handle.aio_get_direction()
    return (select.POLLIN if direction & READ else 0) | (select.POLLOUT if direction & WRITE else 0)


def serve(handle: Any, events: int) -> None:
    """Serve a handle of libnbd after these events.

    Raises:
        nbd.Error: The connection has failed.
    """
    direction = handle.aio_get_direction()
    if direction & READ and events & ~select.POLLOUT:
        handle.aio_notify_read()
    elif direction & WRITE:
        handle.aio_notify_write()


def _note_end(ends: list[int], number: Any) -> int:
    """Note the errno of a completion, which libnbd passes in one of two ways; it is dealt with."""
    ends.append(int(getattr(number, "value", number)))
    return 1
