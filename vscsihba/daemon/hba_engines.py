"""The engines of one HBA and the LUNs that they serve together.

Every engine knows every LUN, so that each can take over from the others; the engines decide among
themselves which of them owns a LUN (`engine.owning.assignment`). LUNs that cannot be served are retried.

Knows the requests that engines take. The order in which LUNs are added and removed is the caller's.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, Final

import msgspec

from vscsihba.control.client import NoAnswerError
from vscsihba.daemon.engine_pool import EngineHandle, EnginePool
from vscsihba.daemon.leftovers import Leftovers
from vscsihba.engine.owning.appearance import Appearance, Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import HostError, UsageError, VscsihbaError

log = logging.getLogger(__name__)

_HANDOVER: Final = 30.0
"""Seconds for a LUN to get an owner."""

_DEAD: Final = object()
"""Stands for the answer of an engine that has ended."""


class HbaEngines:
    """The engines of one HBA.

    Args:
        hba_id: 0..255.
        size: Number of engines.
        start: Starts an engine.
        running: The engines that run already, the oldest first.
        check: Refuses a LUN with HostError when it is served again, such as after a restart.
        linked: Returns the LUNs of the HBA that the kernel has.

    Attributes:
        specs: The LUNs to serve, by number.
        failures: The reasons why some of these LUNs are not served, by number.
    """

    def __init__(
        self,
        hba_id: int,
        size: int,
        start: Callable[[int], EngineHandle],
        running: Sequence[EngineHandle] = (),
        check: Callable[[LunSpec], None] = lambda _request: None,
        *,
        linked: Callable[[], Collection[int]] = lambda: (),
    ) -> None:
        self.specs: dict[int, LunSpec] = {}
        self.failures: dict[int, str] = {}
        self._id = hba_id
        self._check = check
        self._leftovers = Leftovers(hba_id, linked)
        self._changed: int | None = None
        self._pool = EnginePool(
            hba_id,
            size,
            start,
            on_start=self._on_start,
            retry=self._retry,
            on_start_during_change=self._on_start_during_change,
            running=running,
        )

    @property
    def size(self) -> int:
        """The configured number of engines."""
        return self._pool.size

    @property
    def engines(self) -> list[EngineHandle]:
        """The engines, the oldest first; one may have died just now."""
        return self._pool.engines

    # All engines.

    def begin(self) -> None:
        """Start the configured number of engines and watch them.

        Raises:
            UsageError, HostError, OSError: An engine or the watching thread cannot be started; no engine is
                left running.
        """
        try:
            self._pool.ensure()
            self._pool.watch()
        except (VscsihbaError, OSError):
            with suppress(VscsihbaError):
                self._pool.shrink(0)
            self._pool.close()
            raise

    def resume(self, specs: Mapping[int, LunSpec], *, remove_others: bool = True) -> None:
        """Serve these LUNs after a restart of the service or of the machine; failures are retried.

        Args:
            specs: The LUNs.
            remove_others: Remove other LUNs that engines know, unless they are in use.
        """
        with self._pool.lock:
            self.specs = dict(specs)
            if remove_others:
                self._leftovers.expect()
            self._remove_leftovers()
            for engine in self._pool.engines:
                self._on_start(engine)
            try:
                self._pool.shrink(self.size)
                self._pool.ensure()
                self._remove_leftovers()
            except (VscsihbaError, OSError) as error:
                log.error("no engine for HBA %d: %s", self._id, error)  # noqa: TRY400 - it says all
                self._pool.retry_later()
            if self.failures or not self._leftovers.removed:
                self._pool.retry_later()
        self._pool.watch()

    def set_size(self, size: int) -> None:
        """Change the number of engines; LUNs are handed over while I/O goes on.

        Raises:
            UsageError, HostError: An engine cannot be started, or does not end; the old number is restored.
        """
        with self._pool.lock:
            before = self.size
            try:
                self._pool.size = size
                self._pool.ensure()
                self._pool.shrink(size)
            except VscsihbaError:
                self._pool.size = before
                self._pool.retry_later()
                raise
            if self.failures:  # of a new engine
                self._pool.retry_later()

    def end(self) -> None:
        """End all engines; the last one removes the HBA. Remove its LUNs before.

        Raises:
            HostError: An engine does not end.
        """
        before = self.size
        with self._pool.lock:
            try:
                self._pool.shrink(0)
            except VscsihbaError:
                self._pool.size = before
                self._pool.retry_later()
                raise
        self._pool.close()

    def end_when_free(self) -> None:
        """Tell the engines to end as soon as none of the disks is in use, and stop watching them."""
        engines = self.engines
        self._pool.size = 0  # none is replaced
        for engine in engines:
            try:
                engine.ask("end", {"when_free": True})
            except VscsihbaError as error:
                log.error("engine %d of HBA %d: %s", engine.pid, self._id, error)  # noqa: TRY400 - it says all

    def close(self) -> None:
        """Stop watching the engines; they keep running."""
        self._pool.close()

    # LUNs.

    def add(self, spec: LunSpec, *, make: bool = False) -> None:
        """Add a LUN on every engine.

        Args:
            spec: The LUN.
            make: The engine may create missing storage.

        Raises:
            UsageError, HostError: The LUN cannot be served; nothing of it is left.
        """
        with self._changing(spec.lun):
            reached: list[EngineHandle] = []
            try:
                self._ask_all("add_lun", {"request": asdict(spec), "make": make}, spec.lun, reached)
            except VscsihbaError:
                self._undo_add(spec.lun, reached)
                raise
            self.specs[spec.lun] = spec
            self.failures.pop(spec.lun, None)

    def restore(self, spec: LunSpec) -> None:
        """Add a LUN again that was removed; a failure is recorded in `failures` and retried later."""
        with self._changing(spec.lun):
            try:
                self._check(spec)
                self.add(spec, make=False)
            except (VscsihbaError, OSError) as error:
                log.error("LUN %d of HBA %d: %s", spec.lun, self._id, error)  # noqa: TRY400 - it says all
                self.specs[spec.lun] = spec
                self.failures[spec.lun] = str(error)
                self._pool.retry_later()

    def _undo_add(self, lun: int, reached: list[EngineHandle]) -> None:
        """Remove a LUN from the engines that may know it; the last of them removes it from the kernel."""
        while reached:
            engine = reached.pop()
            with suppress(VscsihbaError):  # the error of the LUN itself matters more
                engine.ask("remove_lun", {"lun": lun, "leave": bool(reached), "force": True})

    def remove(self, lun: int, *, force: bool) -> None:
        """Remove a LUN from every engine and from the kernel.

        Raises:
            HostError: Its disk is in use, or the kernel refuses; the LUN is served as before.
        """
        with self._changing(lun):
            owner, *standby = self._in_order(lun)
            try:
                for engine in standby:
                    with suppress(UsageError):  # it does not know the LUN, or no other engine does
                        self._ask(engine, "remove_lun", {"lun": lun, "leave": True})
                owner.ask("remove_lun", {"lun": lun, "force": force})
            except VscsihbaError:
                self._serve_again(lun)
                raise
            self.specs.pop(lun, None)
            self.failures.pop(lun, None)

    def _serve_again(self, lun: int) -> None:
        """Add a LUN again on every engine after its removal has failed."""
        for engine in self._pool.engines:
            if lun in self.specs and not self._serve(engine, self.specs[lun]):
                self._pool.retry_later()

    def enlarge(self, spec: LunSpec, size: int) -> None:
        """Enlarge the lowest layer of a LUN to `size` bytes; Linux reads the new capacity.

        Args:
            spec: The LUN with its new size.
            size: Bytes.

        Raises:
            UsageError, HostError: It cannot grow; the size is as before.
        """
        with self._changing(spec.lun):
            deadline = time.monotonic() + _HANDOVER
            while not self._enlarge(spec.lun, size):
                if time.monotonic() > deadline:
                    raise HostError(f"no engine serves LUN {spec.lun} of HBA {self._id} now")
                time.sleep(0.1)
            self.specs[spec.lun] = spec

    def _enlarge(self, lun: int, size: int) -> bool:
        """Send the new size to the engines, the likely owner first; return whether the owner answered."""
        answers = [self._ask(engine, "resize", {"lun": lun, "size": size}) for engine in self._in_order(lun)]
        return any(answer is not _DEAD and answer["owner"] for answer in answers)

    def give_up_old(self, lun: int) -> None:
        """End the commands of a LUN that storage has not answered for some seconds; their senders have gone.

        Waits for no change: one may wait for these commands.
        """
        for engine in self.engines:
            try:
                engine.ask("give_up_old", {"lun": lun})
            except VscsihbaError as error:
                log.warning("engine %d of HBA %d: %s", engine.pid, self._id, error)

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Change the initiator's settings of a LUN, such as its queue depth.

        Raises:
            HostError: The kernel refuses.
        """
        with self._changing(lun):
            before = self.specs[lun].tuning
            try:
                self._ask_all("tune_lun", {"lun": lun, "tuning": asdict(tuning)}, lun, [])
            except VscsihbaError:
                with suppress(VscsihbaError):
                    self._ask_all("tune_lun", {"lun": lun, "tuning": asdict(before)}, lun, [])
                raise
            self.specs[lun] = replace(self.specs[lun], tuning=tuning)

    def describe(self, spec: LunSpec) -> None:
        """Give new engines another description of the same disk from now on."""
        with self._changing(spec.lun):
            self.specs[spec.lun] = spec

    # Requests to engines, any of which may die before it answers; with the pool's lock held.

    def _in_order(self, lun: int) -> list[EngineHandle]:
        """Return the engines, the one that is to own a LUN first (`vscsihba.engine.owning.assignment`).

        Raises:
            UsageError, HostError: No engine runs, and none can be started.
        """
        self._pool.reap()
        if not self._pool.engines:
            self._pool.ensure()
        newcomers = self._pool.newcomers
        running = self._pool.engines
        engines = [engine for engine in running if engine not in newcomers] or running
        at = lun % len(engines)
        return engines[at:] + engines[:at]

    def _ask_all(
        self, verb: str, arguments: Mapping[str, object], lun: int, reached: list[EngineHandle]
    ) -> None:
        """Send a request to every engine; one that dies is skipped, since its successor gets all LUNs.

        Args:
            verb: The request.
            arguments: Its arguments.
            lun: The LUN that it concerns.
            reached: Collects the engines that have done it, and one that may have, since it did not answer.

        Raises:
            UsageError, HostError: An engine refuses, or all of them die.
        """
        for engine in self._in_order(lun):
            try:
                answer = self._ask(engine, verb, arguments)
            except NoAnswerError:
                reached.append(engine)
                raise
            if answer is not _DEAD:
                reached.append(engine)
        if not reached:
            raise HostError(f"every engine of HBA {self._id} ended meanwhile", cure="its log says why")

    def _ask(self, engine: EngineHandle, verb: str, arguments: Mapping[str, object]) -> Any:
        """Send a request to an engine and return its answer; `_DEAD` if the engine has ended.

        Raises:
            UsageError, HostError: The engine refuses.
        """
        try:
            return engine.ask(verb, arguments)
        except HostError:
            if engine.alive:
                raise
            log.warning("engine %d of HBA %d ended during the request %s", engine.pid, self._id, verb)
            return _DEAD

    # Engines that are started.

    @contextmanager
    def _changing(self, lun: int) -> Iterator[None]:
        """Change one LUN: engines that die during the change are replaced, and serve the other LUNs.

        A change may take minutes where storage does not answer. An engine that is started during the
        change gets the LUN afterwards.
        """
        with self._pool.lock:
            with self._pool.start_lock:
                outer, self._changed = self._changed, lun
            try:
                yield
            finally:
                with self._pool.start_lock:
                    self._changed = outer
                    newcomers = [] if outer is not None else self._pool.newcomers[:]
                    for engine in newcomers:
                        self._pool.newcomers.remove(engine)
                        if lun in self.specs and not self._serve(engine, self.specs[lun]):
                            self._pool.retry_later()

    def _on_start_during_change(self, engine: EngineHandle | None) -> bool:
        """Add all LUNs but the changing one to a new engine; False while the number of engines changes."""
        if self._changed is None:
            return False
        for spec in list(self.specs.values()) if engine is not None else ():
            if spec.lun != self._changed and engine is not None:
                self._serve(engine, spec)
        return True

    def _on_start(self, engine: EngineHandle) -> None:
        """Add all LUNs to a new engine, as far as they can be served."""
        for spec in list(self.specs.values()):
            self._serve(engine, spec)

    def _serve(self, engine: EngineHandle, spec: LunSpec) -> bool:
        """Add a LUN to an engine and return whether that worked; a failure is recorded in `failures`.

        It stays there until all engines have been asked again, since another one may have failed.
        """
        try:
            self._check(spec)
            self._ask(engine, "add_lun", {"request": asdict(spec)})
        except VscsihbaError as error:
            if self.failures.get(spec.lun) != str(error):
                log.error("LUN %d of HBA %d: %s", spec.lun, self._id, error)  # noqa: TRY400 - it says all
            self.failures[spec.lun] = str(error)
            return False
        return True

    def _retry(self) -> bool:
        """Retry LUNs that failed and leftovers; return whether every engine knows the wanted LUNs only."""
        self._remove_leftovers()
        engines = self._pool.engines
        for lun in list(self.failures):
            if engines and all(self._serve(engine, self.specs[lun]) for engine in engines):
                self.failures.pop(lun, None)
        return not self.failures and self._leftovers.removed

    def _remove_leftovers(self) -> None:
        self._leftovers.remove(self._pool.engines, self.specs.keys(), self._is_wanted)

    def _is_wanted(self, known: Mapping[str, Any]) -> bool:
        """Return whether a LUN that an engine knows is wanted, and is the same disk.

        Args:
            known: The LUN in the engine's status; engines of older versions tell less.
        """
        wanted = self.specs.get(known["lun"])
        if wanted is None or known["document"] is None:
            return wanted is not None
        appearance = known.get("appearance", asdict(wanted.appearance))
        return wanted.is_like(
            LunSpec(
                wanted.lun,
                known["document"],
                known.get("removable", wanted.removable),
                msgspec.convert(appearance, Appearance),
                local=known.get("local", True),
            )
        )
