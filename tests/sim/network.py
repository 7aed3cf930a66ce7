"""Sockets of a simulated machine: connected pairs, and waiting for them in virtual time.

The sockets are real ones of this process, and never block: whoever waits lets other threads run. A call may
fail, move a part, or end the process, as the plan says. A connection that fails is over for both sides.

This module knows no protocol.
"""

import itertools
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from tests.sim.faults import SHORT
from tests.sim.scheduler import Process
from tests.sim.world import World

_real_poll: Final = select.poll
_numbers: Final = itertools.count(1 << 30)
"""Descriptor numbers of what is no socket; those of simulated files are smaller."""


class Network:
    """The sockets of one machine's processes.

    Args:
        world: The machine.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._ready: dict[int, Callable[[], bool]] = {}
        self._owners: dict[int, Process] = {}
        self._counters: dict[int, int] = {}
        self._sockets: list[tuple[Process, ClientSocket]] = []

    def client(self, real: socket.socket) -> "ClientSocket":
        """Return the socket of the calling process, in place of a real one."""
        found = ClientSocket(self.world, real)
        self._sockets.append((self.world.scheduler.current.process, found))
        return found

    def opened_by(self, process: Process) -> list[str]:
        """Return names of what a process has open."""
        sockets = ["a socket" for owner, each in self._sockets if owner is process and not each.closed]
        return sockets + [f"descriptor {fd}" for fd, owner in self._owners.items() if owner is process]

    def close_all(self, process: Process) -> None:
        """Close everything of a dead process, as the kernel does."""
        for owner, each in self._sockets:
            if owner is process:
                each.close()
        self._sockets = [pair for pair in self._sockets if pair[0] is not process]
        for fd in [fd for fd, owner in self._owners.items() if owner is process]:
            self._forget(fd)

    def readable(self, fd: int, events: int) -> int:
        """Return which events of poll(2) a descriptor has now."""
        if fd in self._ready:
            return select.POLLIN if self._ready[fd]() else 0
        poll = _real_poll()
        poll.register(fd, events)
        return next((found for _, found in poll.poll(0)), 0)

    def add(self, ready: Callable[[], bool]) -> int:
        """Return a descriptor of the calling process that is readable when `ready` says so."""
        fd = next(_numbers)
        self.world.calls.elsewhere[fd] = partial(self._forget, fd)
        self._ready[fd], self._owners[fd] = ready, self.world.scheduler.current.process
        return fd

    def _forget(self, fd: int) -> None:
        self._owners.pop(fd, None)
        self._ready.pop(fd, None)
        self._counters.pop(fd, None)

    # System calls.

    def eventfd(self, count: int = 0, _flags: int = 0) -> int:
        fd = self.add(lambda: self._counters.get(fd, 0) > 0)
        self._counters[fd] = count
        return fd

    def eventfd_write(self, fd: int, count: int) -> None:
        self.world.scheduler.pause()
        self._counters[fd] += count

    def eventfd_read(self, fd: int) -> int:
        count, self._counters[fd] = self._counters[fd], 0
        return count

    def patches(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield module, name and replacement of each function."""
        for name in ("eventfd", "eventfd_write", "eventfd_read"):
            yield os, name, getattr(self, name)
        yield select, "poll", partial(Poll, self)
        yield select, "epoll", partial(Epoll, self)


class Poll:
    """``select.poll`` of a simulated machine."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._wanted: dict[int, int] = {}

    def register(self, fd: int, events: int = select.POLLIN) -> None:
        self._wanted[fd] = events

    modify = register

    def unregister(self, fd: int) -> None:
        del self._wanted[fd]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait in virtual time, for some milliseconds."""
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        self._network.world.scheduler.wait(self.has_events, seconds)
        return self._events()

    def has_events(self) -> bool:
        return bool(self._events())

    def _events(self) -> list[tuple[int, int]]:
        found = ((fd, self._network.readable(fd, events)) for fd, events in self._wanted.items())
        return [(fd, events) for fd, events in found if events]


class Epoll(Poll):
    """``select.epoll`` of a simulated machine: it is readable itself while one of its descriptors is."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._fd = network.add(self.has_events)

    def fileno(self) -> int:
        return self._fd

    def poll(self, timeout: float | None = None, _most: int = -1) -> list[tuple[int, int]]:
        """Wait in virtual time, for some seconds."""
        return super().poll(None if timeout is None else timeout * 1000)

    def close(self) -> None:
        os.close(self._fd)


class ClientSocket:
    """A socket of a simulated process, whose calls may fail.

    Args:
        world: The machine.
        real: The socket.

    Attributes:
        closed: It is closed.
    """

    def __init__(self, world: World, real: socket.socket) -> None:
        self._world = world
        self._real = real
        self.closed = False
        self.fileno, self.settimeout = real.fileno, real.settimeout

    def sendmsg(self, pieces: Sequence[Any], *more: Any) -> int:
        if self._enter("send"):
            pieces = _first_bytes(pieces, self._world.luck.randrange(1, sum(map(len, pieces)) + 1))
        return self._real.sendmsg(pieces, *more)

    def send(self, data: bytes, flags: int = 0) -> int:
        return self._real.send(data[: len(data) // 2] if self._enter("send") else data, flags)

    def recv_into(self, room: Any) -> int:
        return self._real.recv_into(memoryview(room)[: self._most(len(room))])

    def recvmsg_into(self, rooms: Sequence[Any]) -> tuple[Any, ...]:
        return self._real.recvmsg_into(_first_bytes(rooms, self._most(sum(map(len, rooms)))))

    def shutdown(self, how: int) -> None:
        self._real.shutdown(how)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._real.close()

    def _most(self, length: int) -> int:
        return self._world.luck.randrange(1, 40) if self._enter("receive") else length

    def _enter(self, kind: str) -> bool:
        """Count a call; return whether it is to move less than it was asked to.

        Raises:
            OSError: The connection is lost.
        """
        try:
            return self._world.calls.enter(kind, "") == SHORT
        except OSError:
            self._real.shutdown(socket.SHUT_RDWR)
            raise


def _first_bytes(pieces: Sequence[Any], left: int) -> list[memoryview]:
    """Return the first bytes of a scatter list."""
    kept = []
    for piece in pieces:
        if left > 0:
            kept.append(memoryview(piece)[:left])
        left -= len(piece)
    return kept
