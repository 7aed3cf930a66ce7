"""Which system calls of a simulated machine fail, and how.

A `Fault` strikes the call of one number; a plan is asked at every call. What a call can fail with
is in one table. The module knows no files: `calls` carries a fault out.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

KILL: Final = "kill"
POWER: Final = "power"
SHORT: Final = "short"
MEMORY: Final = "ENOMEM"
TORN: Final = "torn"
"""The call writes less than it was asked to, and the next one on the same file finds no room."""
SLOW: Final = "slow"
"""The call succeeds, after many seconds of virtual time."""
REFUSED: Final = "refused"
"""Another process refuses a request."""
LOST: Final = "lost"
"""Another process carries out a request, and its answer does not arrive."""
DIES: Final = "dies"
"""Another process dies instead of carrying out a request."""

_ANY: Final = ("EIO", "ESTALE")
_ROOM: Final = ("ENOSPC", "EDQUOT")

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "open": (*_ANY, *_ROOM, "EMFILE", "ENFILE", "EACCES"),
    "close": ("EIO", "EDQUOT"),
    "read": (*_ANY, SHORT, MEMORY, SLOW),
    "write": (*_ANY, *_ROOM, SHORT, TORN, MEMORY, SLOW),
    "sync": (*_ANY, *_ROOM, SLOW),
    "sync_directory": ("EIO", "EINVAL"),
    "truncate": ("EIO", *_ROOM),
    "allocate": (*_ANY, *_ROOM, "EINTR"),
    "hole": (*_ANY, "ENOSPC", "EINTR"),
    "rename": (*_ANY, *_ROOM),
    "unlink": _ANY,
    "make_directory": (*_ANY, *_ROOM),
    "stat": _ANY,
    "list": (*_ANY, "EMFILE"),
    "lock": ("ENOLCK", "EINTR"),
    "seek": _ANY,
    "clone": ("EIO", "EOPNOTSUPP"),
    "map": ("EAGAIN", MEMORY),
    "thread": ("thread",),
    "poll": (MEMORY,),
    "connect": (REFUSED, SLOW),
    "send": ("ECONNRESET", SHORT),
    "receive": ("ECONNRESET", SHORT),
    "serve": ("EIO", "ENOSPC", SHORT, SLOW, REFUSED, LOST, DIES),
}
"""What a call can fail with, by kind of call; ``serve`` is the execution of a request on another machine,
whose answer may be cut short, slow or lost, or which is refused. Python repeats a call that gives EINTR
itself (PEP 475), but for the two that are reached through ctypes and for locks."""

_STAYS: Final = 0.3
"""Probability that a file that has failed goes on failing for a while."""

DEATHS: Final = (KILL, POWER)
"""What can happen at any call, and ends the process before the call has an effect."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        number: Of the call that it strikes, counted from 0.
        how: An errno's name, ``short``, ``thread``, ``kill`` or ``power``.
    """

    number: int
    how: str

    def __str__(self) -> str:
        """Name it for messages."""
        return f"{self.how}@{self.number}"


class Plan(Protocol):
    """Says which calls fail."""

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return how a call is to fail, empty if it is not."""


class NoFaults:
    """A plan in which nothing fails."""

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return that the call succeeds."""
        return ""


class OneFault:
    """A plan in which one call fails.

    Attributes:
        struck: The call that failed, as ``kind path``; empty if the run was too short.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.struck = self._full = ""

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return the fault for its call, nothing for any other."""
        if self._full and kind == "write" and path == self._full:
            self._full = ""
            return "ENOSPC"
        if number != self.fault.number:
            return ""
        self.struck = f"{kind} {path}"
        if self.fault.how == TORN:
            self._full = path
            return SHORT
        return self.fault.how


class ListedFaults:
    """A plan of known faults, for running a history again with some of them left out.

    Args:
        faults: The faults, each with the number of its call.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = {fault.number: fault.how for fault in faults}

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return the fault of a call, if it is one that this kind of call can have."""
        how = self._faults.get(number, "")
        return how if how in (*FAULTS[kind], *DEATHS) else ""


class RandomFaults:
    """A plan in which calls fail with some probability, and some files fail for a while.

    Args:
        luck: Says which.
        rate: Probability that a call fails.
        deaths: Probability that the process is killed, or the power cut, at a call.

    Attributes:
        injected: Every fault until now, with the kind of call that it struck.
    """

    def __init__(self, luck: random.Random, rate: float, deaths: float = 0.0) -> None:
        self.rate = rate
        self.deaths = deaths
        self.injected: list[tuple[Fault, str]] = []
        self._luck = luck
        self._bad: dict[str, tuple[int, str]] = {}

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return how a call is to fail, empty if it is not."""
        how = self._choose(kind, path)
        if how:
            self.injected.append((Fault(number, how), kind))
        return how

    def _choose(self, kind: str, path: str) -> str:
        chance = self._luck.random()
        if chance < self.deaths:
            return self._luck.choice(DEATHS)
        left, how = self._bad.get(path, (0, ""))
        if left > 0 and how in FAULTS[kind]:
            self._bad[path] = (left - 1, how)
            return how
        if chance >= self.deaths + self.rate:
            return ""
        how = self._luck.choice(FAULTS[kind])
        if how == TORN:
            self._bad[path] = (1, "ENOSPC")
            return SHORT
        if path and self._luck.random() < _STAYS:
            self._bad[path] = (self._luck.randrange(1, 12), how)
        return how
