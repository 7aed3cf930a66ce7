"""Fake engines of one HBA, without processes: they know LUNs, answer requests, and can die."""

import os
import time
from collections.abc import Mapping
from typing import Any

from vscsihba.errors import HostError, UsageError

LIMIT = 60.0


class Hba:
    """An HBA and its engines.

    Attributes:
        engines: All engines ever started.
        linked: The LUNs in the kernel.
        refuse: LUNs that cannot be served, with the reason.
        asked: All requests: number of the engine, verb, LUN.
        deadly: The verb on which an engine dies, once.
        makes: For each LUN that was added, whether its storage could be created.
    """

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []
        self.linked: set[int] = set()
        self.refuse: dict[int, str] = {}
        self.cannot_start: list[str | Exception] = []
        self.asked: list[tuple[int, str, int]] = []
        self.deadly: tuple[int, str] | None = None
        self.makes: list[bool] = []

    def start(self, _hba_id: int) -> "FakeEngine":
        if self.cannot_start:
            reason = self.cannot_start.pop(0)
            raise reason if isinstance(reason, Exception) else HostError(reason)
        self.engines.append(FakeEngine(self, len(self.engines)))
        return self.engines[-1]

    @property
    def living(self) -> list["FakeEngine"]:
        return [engine for engine in self.engines if engine.alive]


class FakeEngine:
    """One engine: `pid` is its number, `stacks` has the documents of its LUNs."""

    def __init__(self, hba: Hba, number: int) -> None:
        self.pid = number
        self.since = time.time()
        self.known: set[int] = set()
        self.stacks: dict[int, object] = {}
        self.requests: dict[int, Mapping[str, Any]] = {}
        self.tunings: dict[int, object] = {}
        self.closed = False
        self._hba = hba
        self._reader, self._writer = os.pipe()
        self._dead = False

    @property
    def alive(self) -> bool:
        return not self._dead

    def fileno(self) -> int:
        return self._reader

    def die(self) -> None:
        if not self._dead:
            self._dead = True
            os.close(self._writer)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        os.close(self._reader)
        self.die()

    def end(self) -> None:
        self.known.clear()
        self.close()

    def ask(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        lun = arguments["request"]["lun"] if "request" in arguments else arguments.get("lun", -1)
        self._hba.asked.append((self.pid, verb, lun))
        if self._hba.deadly == (self.pid, verb):
            self.die()
        if self._dead:
            raise HostError("ended without an answer")
        return getattr(self, f"_{verb}")(lun, arguments)

    def _status(self, _lun: int, _arguments: object) -> Any:
        return {"luns": [{"lun": lun, **self._how(lun)} for lun in sorted(self.known)]}

    def _how(self, lun: int) -> dict[str, object]:
        owner = self._hba.living[lun % len(self._hba.living)]
        more = {key: self.requests[lun][key] for key in ("removable", "appearance") if lun in self.requests}
        return {"owner": owner is self, "document": self.stacks.get(lun), **more}

    def _add_lun(self, lun: int, arguments: Mapping[str, Any]) -> None:
        if lun in self._hba.refuse:
            raise HostError(self._hba.refuse[lun])
        self._hba.makes.append(arguments.get("make", False))
        self.known.add(lun)
        self.requests[lun] = arguments["request"]
        self.stacks[lun] = arguments["request"]["document"]
        self.tunings[lun] = arguments["request"]["tuning"]
        self._hba.linked.add(lun)

    def _remove_lun(self, lun: int, arguments: Mapping[str, Any]) -> None:
        others = [each for each in self._hba.living if each is not self and lun in each.known]
        if arguments.get("leave"):
            if lun not in self.known or not others:
                raise UsageError("no other engine knows it")
            self.known.discard(lun)
            return
        assert not others
        if lun in self._hba.refuse and not arguments.get("force"):
            raise HostError(self._hba.refuse[lun])
        self.known.discard(lun)
        self._hba.linked.discard(lun)

    def _resize(self, lun: int, _arguments: object) -> dict[str, bool]:
        owner = self._hba.living[lun % len(self._hba.living)]
        if owner is self and lun in self._hba.refuse:
            raise HostError(self._hba.refuse[lun])
        return {"owner": owner is self}

    def _end(self, _lun: int, _arguments: object) -> None:
        return

    def _tune_lun(self, lun: int, arguments: Mapping[str, Any]) -> None:
        self.tunings[lun] = arguments["tuning"]
