"""A simulated machine: scheduler, storage, system calls and a seed, put together.

The machine runs processes one after the other or at once; each is a function of the test that
uses the real code. It can kill a process, cut the power, and be used again after both.
"""

import gc
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.sim import cryptography
from tests.sim import scheduler as sim
from tests.sim.calls import Calls, patched
from tests.sim.faults import NoFaults, Plan
from tests.sim.scheduler import Killed, Process, Scheduler
from tests.sim.storage import Storage
from vscsihba.handlers.shared import abandonable_pool, tmpfs_store, token_lock


def _hook_that_ignores_death(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return an ``unraisablehook`` that is silent about generators of dead processes."""

    def ignore_death(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Killed):
            hook(unraisable)

    return ignore_death


class Life:
    """One process from its start to its end.

    Attributes:
        error: The exception that ended it, None if it returned or was killed.
        ended: It returned or raised.
    """

    def __init__(self, world: "World", name: str, body: Callable[[], object]) -> None:
        self.process = Process(name)
        self.error: BaseException | None = None
        self.ended = False
        self._world = world
        self._body = body
        world.scheduler.start(name, self.process, self._run)

    def _run(self) -> None:
        try:
            self._body()
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001 - the driver judges what ends a process
            self.error = error
        self.ended = True

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended or is dead, then let go of all that it had."""
        self._world.scheduler.wait(lambda: self.ended or self.process.dead, timeout)
        self.end()

    def end(self) -> None:
        """Kill it (``kill -9``), unless it has ended; daemon threads end with it."""
        self._world.reap(self.process)
        if self.died and self._world.calls.take_unrecorded(self.process):
            self._world.on_unrecorded()

    @property
    def died(self) -> bool:
        """Tell whether it was killed before it had ended."""
        return not self.ended


class World:
    """The machine; a context in which the real code meets it.

    Args:
        root: An empty directory on a tmpfs; the machine's files.
        seed: Of everything that is left to luck.
        tree: The files that it begins with, as `Storage.put` takes them; None for those that are there.
        switch: Probability that a fiber hands the baton on although it could go on.

    Attributes:
        on_unrecorded: Called when a process has died that met a failed sync and could record it nowhere.
        on_reap: Called when a process has ended, to let go of what it had beside files.
        on_power_cut: Called when the power is cut, for what stands beside the machine.
        opened: Return the descriptors that a process has beside files.
    """

    def __init__(
        self,
        root: Path,
        seed: int,
        tree: Mapping[str, bytes | None] | None = None,
        *,
        switch: float = 0.0,
    ) -> None:
        self.root = root
        self.seed = seed
        self.luck = random.Random(seed)
        self.run = root / "run"
        self.scheduler = Scheduler(self.luck, switch)
        self.storage = Storage(root, ("run",), tree)
        self.calls = Calls(self.scheduler, self.storage, self._note_power_cut)
        self.power_is_cut = False
        self.on_unrecorded: Callable[[], object] = lambda: None
        self.on_reap: list[Callable[[Process], object]] = []
        self.on_power_cut: list[Callable[[], object]] = []
        self.opened: list[Callable[[Process], list[str]]] = []
        self._patched = patched(self._patches())

    def __enter__(self) -> Self:
        gc.disable()  # what dead processes have left must not run, and unlink files, in a later life
        self._patched.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fiber in list(self.scheduler._fibers):
            if fiber is not self.scheduler.driver:
                self.reap(fiber.process)
        self._patched.__exit__(kind, error, traceback)
        gc.enable()

    def start(self, body: Callable[[], object], name: str = "engine") -> Life:
        """Start a process."""
        return Life(self, name, body)

    def live(self, body: Callable[[], object], name: str = "engine") -> Life:
        """Run a process from start to end, alone; cut the power if it asked for that."""
        life = self.start(body, name)
        life.wait()
        if self.power_is_cut:
            self.cut_power()
        return life

    def reap(self, process: Process) -> None:
        """End the remains of a process, and close its descriptors."""
        self.scheduler.kill(process)
        self.calls.close_all(process)
        for reaped in self.on_reap:
            reaped(process)

    def opened_by(self, process: Process) -> list[str]:
        """Return names of what a process has open."""
        others = (name for opened in self.opened for name in opened(process))
        return [*self.calls.opened_by(process), *others]

    def cut_power(self) -> None:
        """Cut the power, with every process dead already; the files are what is left then."""
        self.power_is_cut = False
        with self.untouched():
            self.storage.cut_power(self.luck)
        for cut in self.on_power_cut:
            cut()

    @contextmanager
    def faults(self, plan: Plan) -> Iterator[None]:
        """Let calls fail while the context is entered."""
        before, self.calls.plan = self.calls.plan, plan
        try:
            yield
        finally:
            self.calls.plan = before

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Use the files without being simulated."""
        self._patched.__exit__(None, None, None)
        try:
            yield
        finally:
            self._patched = patched(self._patches())
            self._patched.__enter__()

    def calm(self) -> None:
        """Let nothing fail any more."""
        self.calls.plan = NoFaults()

    def _note_power_cut(self) -> None:
        self.power_is_cut = True

    def _refuse_thread(self) -> None:
        self.calls.enter("thread", "")

    def _patches(self) -> Iterator[tuple[Any, str, Any]]:
        yield from self.calls.patches()
        yield from cryptography.patches()
        scheduler = self.scheduler
        for name in ("Lock", "RLock", "Condition", "Event"):
            yield threading, name, partial(getattr(sim, name), scheduler)
        yield threading, "Thread", partial(sim.Thread, scheduler)
        yield sys, "unraisablehook", _hook_that_ignores_death(sys.unraisablehook)
        yield threading, "current_thread", lambda: scheduler.current
        yield sim.Thread, "refuse", staticmethod(self._refuse_thread)
        yield token_lock, "TokenLock", partial(sim.TokenLock, scheduler)
        yield abandonable_pool, "SimpleQueue", partial(sim.SimpleQueue, scheduler)
        yield time, "monotonic", partial(sim.monotonic, scheduler)
        yield time, "time", partial(sim.monotonic, scheduler)
        for name in ("monotonic_ns", "time_ns"):
            yield time, name, lambda: int(scheduler.now * 1e9)
        yield time, "sleep", partial(sim.sleep, scheduler)
        yield os, "urandom", self.luck.randbytes
        yield tmpfs_store, "DIRECTORY", self.run
        # A fault a millisecond is no news here. `manager.disable` would be kept by each logger's own cache.
        yield logging.Logger, "isEnabledFor", lambda _logger, _level: False
