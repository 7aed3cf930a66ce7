"""A document is applied and the Nth call fails, for every N: all of it happens or nothing.

The calls are requests to engines, their starts and ends, and the system calls that write the state files. A
call is refused, or done with its answer lost, or the service is killed before or after it and another one
starts. The status must be true in every case.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.daemon.fake_engines import FakeEngine, Hba
from tests.daemon.test_service import World, said
from tests.polling import poll
from vscsihba import threads
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.control.client import NoAnswerError
from vscsihba.daemon import engine_pool
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import HostError, VscsihbaError

WRITING = (
    "open",
    "pwrite",
    "pwritev",
    "write",
    "fsync",
    "rename",
    "replace",
    "unlink",
    "link",
    "mkdir",
    "ftruncate",
)
"""System calls that fail in turn, if they concern the state files."""


_QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder in memory, where a sync takes no time."""


class KilledError(BaseException):
    """The service is killed."""


class Faults:
    """Counts the calls of the service's main thread, and makes one of them fail.

    Attributes:
        count: Calls so far.
        seen: Their names.
    """

    def __init__(self, at: int = -1, kind: str = "") -> None:
        self.count = 0
        self.seen: list[str] = []
        self.dead = False
        self.dies: Callable[[], None] = lambda: None
        self._at, self._kind = at, kind

    def call(self, name: str, act: Callable[[], Any], error: Exception) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return act()
        if self.dead:
            raise KilledError
        self.count += 1
        self.seen.append(name)
        if self.count - 1 != self._at:
            return act()
        if self._kind.startswith("killed"):
            self.dead = True
            self.dies()
        if self._kind in ("lost", "killed after"):
            act()
        if self.dead:
            raise KilledError
        raise error


class Rig:
    """A world with calls that can fail."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(folder)
        self.world.service.resume()
        for hba_id in (0, 1, 7):  # the marks by which engines of a dead service are found
            (folder / f"run/hba{hba_id}").mkdir()
        self.faults = Faults()
        self._monkeypatch = monkeypatch

    def fail(self, faults: Faults) -> None:
        """Count calls, and make one fail, from now on."""
        self.faults = faults
        faults.dies = self.forget_engines
        patch, folder = self._monkeypatch, str(self.world.folder)
        real_ask, real_start, real_end = FakeEngine.ask, Hba.start, FakeEngine.end

        def ask(engine: FakeEngine, verb: str, arguments: Any) -> Any:
            error = NoAnswerError("no answer") if faults._kind == "lost" else HostError("refused")
            return faults.call(f"{verb} of {engine.pid}", lambda: real_ask(engine, verb, arguments), error)

        def start(hba: Hba, hba_id: int) -> FakeEngine:
            before = len(hba.engines)
            try:
                engine: FakeEngine = faults.call(
                    "start", lambda: real_start(hba, hba_id), HostError("no process")
                )
            except HostError:
                for each in hba.engines[before:]:  # `Engine.start` kills what it has started then
                    each.close()
                raise
            return engine

        def end(engine: FakeEngine) -> None:
            faults.call("end", lambda: real_end(engine), HostError("does not end"))

        patch.setattr(FakeEngine, "ask", ask)
        patch.setattr(Hba, "start", start)
        if faults._kind != "lost":  # `Engine.end` looks whether it has ended
            patch.setattr(FakeEngine, "end", end)
        for name in WRITING:
            real = getattr(os, name)

            def system(*words: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                if not _concerns(words, folder):
                    return real(*words, **options)
                return faults.call(
                    name, lambda: real(*words, **options), OSError(5, f"Input/output error ({name})")
                )

            patch.setattr(os, name, system)

    def heal(self) -> None:
        """Make no more calls fail."""
        self._monkeypatch.undo()
        hurry(self._monkeypatch)

    def next_life(self) -> None:
        """Start another service after the death of the first one."""
        self.let_go()
        for hba in self.world.hbas.values():
            for engine in hba.engines:
                engine.closed = engine.closed and not engine.alive
        self.world.born().resume()

    def forget_engines(self) -> None:
        """Hide all engines from the threads of the service."""
        for hba in self.world.supervisor.hbas.values():
            hba._pool._engines = []
            hba._pool._closed = True

    def let_go(self) -> None:
        """End the threads of the service, and keep its engines."""
        self.forget_engines()
        self.world.supervisor.close()

    def close(self) -> None:
        """End service and engines."""
        self.let_go()
        for engine in [engine for hba in self.world.hbas.values() for engine in hba.living]:
            engine.closed = False
            engine.close()

    # Checks.

    def served(self) -> Any:
        """Return the number of engines and the LUNs of each HBA."""
        found: dict[int, Any] = {}
        for hba_id, hba in self.world.hbas.items():
            living = hba.living
            if living:
                requests = [
                    {lun: _plain(engine.requests[lun], engine.tunings[lun]) for lun in sorted(engine.known)}
                    for engine in living
                ]
                assert all(each == requests[0] for each in requests), "every engine knows every LUN"
                assert set(requests[0]) == hba.linked
                found[hba_id] = len(living), requests[0]
        return found

    def told(self, document: Document) -> Any:
        """Return the same for a document."""
        return {
            hba.id: (
                hba.engines,
                {
                    lun.lun: _plain(
                        asdict(request := LunSpec.of(lun, document.backstores[lun.backstore])),
                        asdict(request.tuning),
                    )
                    for lun in hba.luns
                },
            )
            for hba in document.hbas
        }

    def check_truth(self) -> None:
        """Check every record of the running document against the engines."""
        service = self.world.service
        hbas = self.world.supervisor.hbas
        poll(lambda: not any(hba.failures for hba in hbas.values()), limit=5, pause=0.001)
        assert [hba.failures for hba in hbas.values() if hba.failures] == []
        service.retry()
        status: Any = service.status()
        assert status["problems"] == []
        poll(lambda: self._agrees(service.document), limit=5, pause=0.001)
        assert self.served() == self.told(service.document)
        assert load(self.world.folder / "run/running.json") == service.document
        assert read(service.show(), Path("/")) == service.document
        assert not (self.world.folder / "run/changing.json").exists()
        left = [
            path.name for path in (self.world.folder / "run").iterdir() if path.name.startswith("running")
        ]
        assert left == ["running.json"]

    def _agrees(self, document: Document) -> bool:
        try:
            return bool(self.served() == self.told(document))
        except AssertionError:
            return False


def _concerns(words: tuple[Any, ...], folder: str) -> bool:
    """Return whether a system call concerns a state file, by its path or its descriptor."""
    first = words[0]
    if isinstance(first, int):
        try:
            first = os.readlink(f"/proc/self/fd/{first}")  # noqa: PTH115
        except OSError:
            return False
    return str(first).startswith(folder)


def _plain(request: Any, tuning: Any) -> Any:
    """Return the parts of a LUN to compare: after a failure its source may be larger than in the document."""
    document = {key: value for key, value in request["document"].items() if key != "size"}
    return document, request["removable"], request["appearance"], tuning


def memory(size: str = "1MiB", **options: object) -> dict[str, object]:
    return {"handler": "memory", "size": size, **options}


BEFORE: dict[str, Any] = {
    "version": 1,
    "backstores": {"a": memory(), "b": memory(label="b"), "c": memory(label="c"), "d": memory(label="d")},
    "hbas": [
        {
            "id": 0,
            "engines": 2,
            "luns": [
                {"lun": 0, "backstore": "a"},
                {"lun": 1, "backstore": "b"},
                {"lun": 2, "backstore": "c"},
            ],
        },
        {"id": 1, "luns": [{"lun": 0, "backstore": "d"}]},
    ],
}

AFTER: dict[str, Any] = {
    "version": 1,
    "backstores": {
        "a": memory("2MiB"),
        "b": memory(label="another"),
        "c": memory(label="c"),
        "e": memory(label="e"),
        "f": memory(label="f"),
    },
    "hbas": [
        {
            "id": 0,
            "engines": 1,
            "luns": [
                {"lun": 0, "backstore": "a", "queue_depth": 8},
                {"lun": 1, "backstore": "b"},
                {"lun": 3, "backstore": "c", "serial": "S"},
                {"lun": 4, "backstore": "e"},
            ],
        },
        {"id": 7, "engines": 2, "luns": [{"lun": 0, "backstore": "f"}]},
    ],
}
"""Grows, tunes, replaces, moves, adds and removes LUNs; adds and removes HBAs, and engines."""


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_pool, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(engine_pool, "repeat", partial(threads.repeat, pause=0.001))


@pytest.fixture
def rigs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Rig]]:
    made: list[Rig] = []

    def new() -> Rig:
        hurry(monkeypatch)
        folder = Path(stack.enter_context(TemporaryDirectory(dir=_QUICK)))
        made.append(Rig(folder, monkeypatch))
        made[-1].world.service.apply(BEFORE, said)
        return made[-1]

    with ExitStack() as stack:
        yield new
        for rig in made:
            rig.close()


def apply(rig: Rig) -> None:
    rig.world.service.apply(AFTER, said, "all", replace=True)


def calls_of(rig: Rig) -> list[str]:
    """Return the calls of an `apply` without failures."""
    rig.fail(counting := Faults())
    apply(rig)
    rig.heal()
    rig.check_truth()
    assert rig.world.service.document == read(AFTER, Path("/"))
    return counting.seen


@pytest.mark.parametrize("kind", ["refused", "lost"])
def test_a_call_that_fails_leaves_all_or_nothing(rigs: Callable[[], Rig], kind: str) -> None:
    calls = calls_of(rigs())
    assert len(calls) > 100
    before, after = read(BEFORE, Path("/")), read(AFTER, Path("/"))
    for number, name in enumerate(calls):
        rig = rigs()
        rig.fail(Faults(number, kind))
        failed = None
        try:
            apply(rig)
        except VscsihbaError as error:
            failed = error
        rig.heal()
        where = f"call {number}, {name}, {kind}: {failed}"
        assert rig.world.service.document == (after if failed is None else before), where
        try:
            rig.check_truth()
        except AssertionError as error:
            raise AssertionError(where) from error
        rig.close()


@pytest.mark.parametrize("kind", ["killed before", "killed after"])
def test_a_service_killed_at_any_call_leaves_all_or_nothing(rigs: Callable[[], Rig], kind: str) -> None:
    calls = calls_of(rigs())
    before, after = read(BEFORE, Path("/")), read(AFTER, Path("/"))
    outcomes = set()
    for number, name in enumerate(calls):
        rig = rigs()
        rig.fail(Faults(number, kind))
        with pytest.raises(KilledError):
            apply(rig)
        rig.heal()
        rig.next_life()
        where = f"call {number}, {name}, {kind}"
        assert rig.world.service.document in (before, after), where
        outcomes.add(rig.world.service.document == after)
        try:
            rig.check_truth()
        except AssertionError as error:
            raise AssertionError(where) from error
        rig.close()
    assert outcomes == {False, True}
