"""Surroundings of the service on a simulated machine: engine processes, and their LUNs in the kernel.

An engine outlives the service. It answers requests as the fakes of the service's own tests do; each request
is a call that can fail: the engine refuses, its answer is lost, or it dies. The module knows neither
documents nor files of the service.
"""

import os
import select
import selectors
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Self

from tests.daemon.fake_engines import FakeEngine, Hba
from tests.sim import scheduler as sim
from tests.sim.calls import Calls
from tests.sim.faults import DIES, LOST, REFUSED
from tests.sim.scheduler import Scheduler
from tests.sim.service_targets import FAULTS as TARGET_FAULTS
from tests.sim.service_targets import Targets
from tests.sim.world import World
from vscsihba.configfs import backstore_name
from vscsihba.control.client import NoAnswerError
from vscsihba.daemon import engine_pool, supervisor
from vscsihba.daemon.engine_pool import EngineHandle
from vscsihba.errors import HostError

FAULTS: Final = {
    "request": (REFUSED, LOST, DIES),
    "start": (REFUSED, LOST, DIES),
    "end": (REFUSED,),
    "find": (REFUSED,),
    **TARGET_FAULTS,
}
"""What a call to an engine can fail with, by kind of call."""

_real_eventfd: Final = os.eventfd
_real_mkdir: Final = os.mkdir
_real_close: Final = os.close


class Handle:
    """The service's side of an engine; each life of the service has handles of its own."""

    def __init__(self, engine: FakeEngine, calls: Calls) -> None:
        self.pid, self.since = engine.pid, engine.since
        self._engine = engine
        self._calls = calls

    @property
    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self._engine.alive

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process ends."""
        return self._engine.fileno()

    def ask(self, verb: str, arguments: Mapping[str, object]) -> Any:
        """Send a request and return the answer."""
        how = self._calls.enter("request", f"{verb} of engine {self.pid}")
        if how == REFUSED:
            raise HostError("refused")
        if how == DIES:
            self._engine.die()
        answer = self._engine.ask(verb, arguments)
        if how == LOST:
            raise NoAnswerError("no answer")
        return answer

    def end(self) -> None:
        """Tell the process to end, and wait for that."""
        if self._calls.enter("end", f"engine {self.pid}"):
            raise HostError("does not end")
        self._engine.end()

    def close(self) -> None:
        """Release the process; the descriptor of a dead one is closed."""
        if not self._engine.alive and not self._engine.closed:
            self._engine.close()


class Machine:
    """The engines of a machine, and its kernel.

    Args:
        world: Counts the calls, and lets them fail.

    Attributes:
        hbas: By id.
        targets: Those of exports.
    """

    def __init__(self, world: World) -> None:
        self.hbas: dict[int, Hba] = {}
        self.targets = Targets(world.calls, self._backstores)
        self._world = world
        self._eventfds: set[int] = set()

    def start(self, hba_id: int) -> EngineHandle:
        """Start an engine, as `Engine.start`."""
        how = self._world.calls.enter("start", f"engine of HBA {hba_id}")
        if how == REFUSED:
            raise HostError("no process")
        with suppress(FileExistsError):
            _real_mkdir(self._world.run / f"hba{hba_id}")
        engine = self.hbas.setdefault(hba_id, Hba()).start(hba_id)
        if how == LOST:  # it is killed then
            engine.close()
            raise HostError("a new engine ended before it was ready")
        if how == DIES:
            engine.die()
        return Handle(engine, self._world.calls)

    def find(self, hba_id: int) -> Sequence[EngineHandle]:
        """Return the engines of an HBA that run, as `Engine.find`."""
        if self._world.calls.enter("find", f"engines of HBA {hba_id}"):
            raise HostError("they do not answer")
        living = self.hbas[hba_id].living if hba_id in self.hbas else []
        return [Handle(engine, self._world.calls) for engine in living]

    def linked(self, hba_id: int) -> set[int]:
        """Return the LUNs of an HBA that the kernel has."""
        if self._world.calls.enter("find", f"LUNs of HBA {hba_id}"):
            raise HostError("configfs does not answer")
        return set(self.hbas[hba_id].linked) if hba_id in self.hbas else set()

    def _backstores(self) -> list[str]:
        return [backstore_name(hba_id, lun) for hba_id, hba in self.hbas.items() for lun in hba.linked]

    def switch_off(self) -> None:
        """End everything that is not on storage."""
        self.targets.found.clear()
        for engine in [engine for hba in self.hbas.values() for engine in hba.engines]:
            if not engine.closed:
                engine.close()
        self.hbas.clear()
        for fd in self._eventfds:
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]":  # noqa: PTH115
                    _real_close(fd)
        self._eventfds.clear()

    def patches(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield owner, name and replacement of what the service's own threads wait with."""
        scheduler = self._world.scheduler
        yield os, "eventfd", self._eventfd
        yield selectors, "DefaultSelector", partial(Selector, scheduler)
        yield supervisor, "ThreadPoolExecutor", partial(Pool, scheduler)
        yield engine_pool, "VitalThread", partial(_vital, scheduler)

    def _eventfd(self, value: int, flags: int = 0) -> int:
        fd = _real_eventfd(value, flags)
        self._eventfds.add(fd)
        return fd


def _vital(scheduler: Scheduler, target: Callable[[], None], name: str) -> sim.Thread:
    """Return a `VitalThread`: the process ends with it."""

    def body() -> None:
        try:
            target()
        except Exception:  # noqa: BLE001 - as the real one
            scheduler.current.process.dead = True
            raise sim.Killed from None

    return sim.Thread(scheduler, body, name, daemon=True)


class Key(NamedTuple):
    """A ready descriptor."""

    fileobj: object


class Selector:
    """``selectors.DefaultSelector`` of a simulated machine: whoever waits in it lets others run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._poll = select.poll()
        self._files: dict[int, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def register(self, file: Any, _events: int) -> None:
        """Wait for a descriptor too."""
        fd = file if isinstance(file, int) else file.fileno()
        self._files[fd] = file
        self._poll.register(fd, select.POLLIN)

    def select(self, timeout: float | None) -> list[tuple[Key, int]]:
        """Wait in virtual time; return those that are readable."""
        self._scheduler.wait(lambda: bool(self._poll.poll(0)), timeout)
        return [(Key(self._files[fd]), events) for fd, events in self._poll.poll(0)]


class Pool:
    """``ThreadPoolExecutor`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler, _most: int) -> None:
        self._scheduler = scheduler

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Call a function with each item, all of them at once, and return the results."""
        results: list[Any] = []
        errors: list[BaseException] = []

        def work(place: int, item: Any) -> None:
            try:
                results[place] = call(item)
            except Exception as error:  # noqa: BLE001 - raised in the caller
                errors.append(error)

        threads = []
        try:
            for place, item in enumerate(items):
                results.append(None)
                threads.append(threading.Thread(target=partial(work, place, item)))
                threads[-1].start()
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if errors:
            raise errors[0]
        return results
