"""Disks of the simulator whose storage is on another machine: ``./dev sim nbd``.

They stand beside the others of `layers`, since engines do not hand them over. What a server keeps survives
the death of the client, and the client survives that of the server. If both die before a flush, writes that
were acknowledged may be lost without a report (docs/trust.md), and `Deaths` notes that.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.sim import scheduler as sim
from tests.sim.calls import patched
from tests.sim.initiator import Step
from tests.sim.layers import SECTORS, Layer, content_of
from tests.sim.nbd_server import NbdServer
from tests.sim.network import Network
from tests.sim.runs import Run
from tests.sim.scheduler import Process
from vscsihba import threads
from vscsihba.errors import FlushError
from vscsihba.handlers import asynchronous
from vscsihba.handlers.base import Done
from vscsihba.handlers.nbd import connection as nbd_connection
from vscsihba.handlers.nbd import handler as nbd_handler
from vscsihba.handlers.nbd import link as nbd_link
from vscsihba.handlers.nbd.requests import MOST, Export
from vscsihba.handlers.nbd.transmission import SocketTransmission
from vscsihba.handlers.nbd.unflushed import UnflushedWrites
from vscsihba.handlers.stack import Document

KEPT: Final = 96 << 10
"""Bytes of unflushed writes above which the handler flushes by itself."""


class Deaths:
    """Deaths of engines and of the server since the last flush of an initiator.

    Args:
        machine: The run, with the history.
    """

    def __init__(self, machine: Run) -> None:
        self._history = machine.history
        self._losses = machine.world.storage
        self._engine: int | None = None
        self._server: int | None = None
        self._unflushed: UnflushedWrites | None = None

    def keep(self, unflushed: UnflushedWrites) -> None:
        """Note the writes that the engine keeps from now on."""
        self._unflushed = unflushed

    def of_engine(self) -> None:
        """Note that the engine has ended: its copies of writes are gone."""
        if self._unflushed is not None and self._unflushed.pending:
            self._engine = self._history.time
            if self._server is not None:
                self._history.doubt()
        self._unflushed = None

    def of_server(self) -> None:
        """Note that the server has lost its cache."""
        self._server = self._history.time
        if self._engine is not None:
            self._history.doubt(until=self._engine)

    def not_repeated(self) -> None:
        """Note that writes were not kept, so that the server's death may have lost them: a flush tells."""
        if self._server is not None:
            self._losses.losses += 1

    def flushed(self, began: int) -> None:
        """Note that a flush that began at some time was acknowledged."""
        if self._engine is not None and self._engine < began:
            self._engine = None
        if self._server is not None and self._server < began:
            self._server = None


class _Kept(UnflushedWrites):
    """The writes that an engine keeps, as `Deaths` sees them."""

    def __init__(self, limit: int, *, deaths: Deaths) -> None:
        super().__init__(limit)
        self._deaths = deaths
        deaths.keep(self)

    @property
    def incomplete(self) -> bool:
        if found := super().incomplete:
            self._deaths.not_repeated()
        return found


class _Handle:
    """In place of a handle of libnbd: it closes its descriptor when nobody needs it any more."""

    def __init__(self, sock: socket.socket, *, structured: bool) -> None:
        self._fd = sock.detach()
        self._structured = structured

    def aio_get_fd(self) -> int:
        return self._fd

    def get_structured_replies_negotiated(self) -> bool:
        return self._structured

    def __del__(self) -> None:
        os.close(self._fd)


class _Negotiation:
    """In place of libnbd: connects to the simulated server."""

    def __init__(self, server: NbdServer, _address: object, until: float, wanted: Callable[[], bool]) -> None:
        self._server = server
        self._until = until
        self._wanted = wanted
        self.handle: Any = None

    def run(self) -> Export:
        sock, structured = self._server.accept(self._until, self._wanted)
        self.handle = _Handle(sock, structured=structured)
        return Export(
            size=len(self._server.content),
            read_only=False,
            flush=True,
            fua=True,
            trim=True,
            zero=True,
            shared=True,
            extents=False,
            rotational=False,
            minimum=1,
            preferred=4096,
            maximum=MOST,
        )


def _wait_and_tell(machine: Run, begin: Callable[[Done], None]) -> None:
    """Wait for an asynchronous verb; an initiator is told of a failed flush when its result is handed on."""

    def begin_to_tell(done: Done) -> None:
        def tell(error: OSError | None) -> None:
            if isinstance(error, FlushError):
                machine.history.told = machine.world.storage.losses
                machine.history.doubt()
            done(error)

        begin(tell)

    asynchronous.wait(begin_to_tell)


@contextmanager
def _served(machine: Run) -> Iterator[None]:
    """Let a server run beside the machine."""
    world, deaths = machine.world, Deaths(machine)
    network = Network(world)
    server = NbdServer(world, content_of(1), deaths.of_server)

    def reaped(process: Process) -> None:
        network.close_all(process)
        if process.name == "engine":
            deaths.of_engine()

    def vital(target: Callable[[], None], name: str, **_: object) -> sim.Thread:
        return sim.Thread(world.scheduler, target, name)

    def transmission(sock: socket.socket, *arguments: Any, **more: Any) -> SocketTransmission:
        ours: Any = network.client(sock)
        return SocketTransmission(ours, *arguments, **more)

    def flushed(began: int, real: Callable[[int], None] = machine.history.flushed) -> None:
        real(began)
        deaths.flushed(began)

    world.on_reap.append(reaped)
    world.on_power_cut.append(server.die)
    world.opened.append(network.opened_by)

    def patches() -> Iterator[tuple[Any, str, Any]]:
        yield from network.patches()
        yield threads, "VitalThread", vital
        yield nbd_handler, "libnbd", lambda: None
        yield nbd_handler, "wait", partial(_wait_and_tell, machine)
        yield nbd_connection, "Negotiation", partial(_Negotiation, server)
        yield nbd_connection, "SocketTransmission", transmission
        yield nbd_link, "UnflushedWrites", partial(_Kept, deaths=deaths)
        yield machine.history, "flushed", flushed

    with patched(patches()):
        yield


def _export(_root: Path) -> Document:
    return {
        "handler": "nbd",
        "uri": "nbd+unix:///disk?socket=/simulated",
        "timeout": 5,
        "connections": 2,
        "unflushed": KEPT,
    }


_SCRIPT: Final = (
    Step("write", 3, 2),
    Step("read", 0, 8),
    Step("write", 120, 24),
    Step("flush"),
    Step("write_fua", 130, 3),
    Step("unmap", 8, 24),
    Step("write", 9, 1),
    Step("write", 129, 2),
    Step("write_zeroes", 121, 3),
    Step("read", 0, 140),
    Step("flush"),
    Step("write", 3, 1),
    Step("write", 200, 250),
    Step("read", 0, SECTORS),
)

REMOTE: Final = {
    "nbd": Layer(
        "nbd",
        lambda _root: None,
        _export,
        _SCRIPT,
        (
            *("write", "write", "write", "write_fua", "read", "flush", "unmap", "write_zeroes", "wait"),
            *("write", "read"),
        ),
        stable=False,
        content=content_of(1),
        around=_served,
    )
}
