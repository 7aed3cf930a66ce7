"""A server for tests: fetches commands from a loopback and completes them one by one."""

from collections.abc import Callable
from dataclasses import dataclass

from vscsihba.loopback import Answer, Loopback
from vscsihba.tcmu.ring import Ring
from vscsihba.transport import TaskManagement

READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
SENSE = bytes((0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0))
"""MEDIUM ERROR, UNRECOVERED READ ERROR."""


@dataclass(slots=True)
class Fetched:
    """A command as `Ring.drain` handed it out."""

    cdb: bytes
    views: list[memoryview]

    @property
    def data(self) -> bytes:
        return b"".join(self.views)

    def fill(self, data: bytes) -> None:
        """Write `data` to the head of the buffer."""
        for view in self.views:
            head, data = data[: len(view)], data[len(view) :]
            view[: len(head)] = head


def never(_cdb_at: int, _views: list[memoryview], _length: int, _cmd_id: int) -> bool:
    """Leave every command to the slow path."""
    return False


def always(_cdb_at: int, _views: list[memoryview], _length: int, _cmd_id: int) -> bool:
    """Execute every command on the fast path, without doing anything."""
    return True


class Server:
    """Serves a loopback under the control of a test.

    Attributes:
        loopback: Initiator and kernel.
        fetched: Commands on the slow path, by tag, in the order in which they came.
        managed: Task management requests, likewise.
    """

    def __init__(self, loopback: Loopback) -> None:
        self.loopback = loopback
        self.fetched: dict[int, Fetched] = {}
        self.managed: list[TaskManagement] = []

    @property
    def ring(self) -> Ring:
        return self.loopback.transport.ring

    def park(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        """Accept a command and leave it open."""
        self.fetched[tag] = Fetched(cdb, views)

    def fetch(self, cut: Callable[[int, list[memoryview], int, int], bool] = never) -> int:
        """Fetch all waiting commands, past task management requests; return their number."""
        count = self.ring.drain(cut, self.park)
        while requests := self.ring.take_management():
            self.managed += requests
            count += self.ring.drain(cut, self.park)
        return count

    def answer(self, tag: int, status: int = 0, sense: bytes = b"", data_in: int | None = None) -> None:
        """Complete one command."""
        self.ring.complete(tag, status, sense, data_in)
        del self.fetched[tag]

    def answer_all(self) -> None:
        """Complete all commands with GOOD and publish."""
        for tag in list(self.fetched):
            self.answer(tag)
        self.ring.publish()

    def one(self, *, data_out: bytes = b"", data_in: int = 0) -> int:
        """Submit one command and fetch it."""
        tag = self.loopback.submit(READ_10, data_out=data_out, data_in=data_in)
        self.fetch()
        return tag

    def result(self, tag: int) -> Answer:
        """Publish, and return the response to `tag`."""
        self.ring.publish()
        return self.loopback.answers.pop(tag)
