"""The lane of engines: one LUN, engines that die or hand it over, and initiators that go on meanwhile.

The kernel's half of the ring is a loopback, which lives in the machine and not in an engine. What an
engine is made of is real: pump, SCSI state, task set, workers, journal, owned LUN, layers. A command
without an answer in ten minutes of virtual time is a hang, and a broken promise.
"""

import mmap
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from tests.engine.rig import rw10
from tests.sim import scheduler as sim
from tests.sim.calls import Calls, patched
from tests.sim.faults import Plan, RandomFaults
from tests.sim.histories import Outcome
from tests.sim.history import SECTOR, HistoryError, explain, stamped
from tests.sim.initiator import FAILURES, Step, random_steps
from tests.sim.layers import SECTORS
from tests.sim.runs import BrokenPromiseError, Lane, Run, broken_promise, run
from tests.sim.scheduler import Scheduler
from tests.sim.swaps import Cell
from tests.sim.world import Life, World
from vscsihba import configfs
from vscsihba.engine.owning import owned_lun as owned_lun_module
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.engine.serving import pump as pump_module
from vscsihba.engine.serving import workers
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import FlushError, TransportError
from vscsihba.loopback import Answer, Loopback
from vscsihba.tcmu import abi
from vscsihba.transport import Transport

LONGEST: Final = 600.0
"""Virtual seconds in which every command is answered."""
_FLUSH: Final = bytes([0x35]) + bytes(9)
_GOOD: Final = 0
_CHECK_CONDITION: Final = 2
_UNIT_ATTENTION: Final = 6
_MISCOMPARE: Final = 0xE
_PLAIN: Final = SECTORS - 2
"""Sectors that are read and written; the others are changed by COMPARE AND WRITE only."""
_VERBS: Final = ("write", "write", "write", "write_fua", "read", "read", "flush", "swap", "swap", "wait")
_FUNCTIONS: Final = (abi.TCMU_TMR_ABORT_TASK, abi.TCMU_TMR_LUN_RESET)
_real_epoll: Final = select.epoll


class Epoll:
    """``select.epoll`` of a simulated machine: whoever waits in it lets others run."""

    def __init__(self, scheduler: Scheduler, calls: Calls) -> None:
        self._scheduler = scheduler
        self._calls = calls
        self._epoll = _real_epoll()
        self.register, self.unregister = self._epoll.register, self._epoll.unregister
        self.close = self._epoll.close

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Wait in virtual time."""
        wanted = None if timeout is None or timeout < 0 else timeout
        self._calls.enter("poll", "")
        self._scheduler.wait(lambda: bool(self._epoll.poll(0, maxevents)), wanted)
        return self._epoll.poll(0, maxevents)


class Engines:
    """A LUN, its ring, and the engines that serve it one after the other.

    Args:
        machine: The run, with the history of the disk.
    """

    def __init__(self, machine: Run) -> None:
        self.machine = machine
        self.world: World = machine.world
        self.loopback = Loopback(blocks=512, journal=self.world.run / "lun0.journal")
        self.cells = {
            sector: Cell(next(iter(machine.history.allowed(sector)))) for sector in range(_PLAIN, SECTORS)
        }
        self._leaving: dict[int, bool] = {}
        self._sizes: list[int] = []
        self._saved = {0}
        self._under_way: set[int] = set()
        self._swaps = 0

    def start(self) -> Life:
        """Start an engine; it serves the LUN once no other one does."""
        number = len(self._leaving)
        self._leaving[number] = False
        return self.world.start(partial(self._serve, number), f"engine{number}")

    def leave(self, number: int) -> None:
        """Ask an engine to hand the LUN over."""
        self._leaving[number] = True

    def _serve(self, number: int) -> None:
        """Be an engine: own the LUN whenever nobody else does, until asked to leave."""
        try:
            pump = Pump(0.0)
            pump.start()
        except FAILURES:
            return  # the process ends, and another one is started
        request = LunSpec(0, self.machine.layer.document(self.world.root))
        while not self._leaving[number]:
            owned = OwnedLun(0, request, self.world.run, pump=pump, listeners=Listeners(), units=UnitsOfHba())
            with suppress(*FAILURES):
                if owned.open():
                    self._own(owned, number)
            time.sleep(0.1)
        pump.stop()

    def _own(self, owned: OwnedLun, number: int) -> None:
        """Serve until asked to leave, or until the LUN cannot be served any more; then give it up."""

        def over() -> bool:
            served = owned.served
            return self._leaving[number] or served is None or served.failure is not None

        while not over():
            self.world.scheduler.wait(lambda: over() or bool(self._sizes))
            if self._sizes and not over():
                self._resize(owned, self._sizes.pop())
        owned.close()

    def _resize(self, owned: OwnedLun, size: int) -> None:
        try:
            owned.resize(size)
        except FlushError:
            self.machine.history.flush_of_others_failed()
        except FAILURES:
            pass

    def enlarge(self, luck: random.Random, times: int) -> None:
        """Have the owner enlarge the disk, so many times; its initiators keep to the sectors that it had."""
        for number in range(1, times + 1):
            time.sleep(luck.choice((0.0002, 0.002, 0.02)))
            self._sizes.append(SECTORS * SECTOR + 4096 * 9 * number)

    @contextmanager
    def in_kernel(self) -> Iterator[None]:
        """Be the kernel of the engines while the context is entered."""
        with (
            mock.patch.object(owned_lun_module, "TcmuTransport", self.attach),
            mock.patch.object(configfs, "free_kept_buf", self.free_kept_buf),
            mock.patch.object(configfs, "reset_ring", self.reset_ring),
            mock.patch.object(configfs, "resize_backstore"),
        ):
            yield

    def forget_journal(self) -> None:
        """Remove the journal that the ring has made without an engine: the first engine makes it."""
        self.loopback.transport.close()
        with self.world.untouched():
            (self.world.run / "lun0.journal").unlink()

    def cut_power(self) -> None:
        """Cut the power, with every process dead already; the ring is a new one."""
        self.machine.history.cut_power()
        self.loopback.close()
        self.world.cut_power()
        self.loopback = Loopback(blocks=512, journal=self.world.run / "lun0.journal")
        self.forget_journal()
        self.cells.clear()  # a content that was not flushed may have gone
        self._under_way.clear()

    def attach(self, _device: object, _journal: Path) -> Transport:
        """Open the ring, as the engine that calls."""
        self.loopback.transport.attach()
        return self.loopback.transport

    def free_kept_buf(self, _name: str, number: int) -> None:
        """Free a buffer that an engine kept when it answered, as the kernel does."""
        self.loopback.free_kept_buf(number)

    def reset_ring(self, _name: str) -> None:
        """Answer every command with BUSY, and empty the ring, as the kernel does."""
        self.loopback.reset_ring()

    # Initiators.

    def send(self, steps: list[Step]) -> None:
        """Send requests, each when the one before was answered, and check what is read."""
        for step in steps:
            if step.verb == "wait":
                time.sleep(step.count / 100)
            else:
                self._request(step)
                self.machine.sent += 1

    def check_all(self) -> None:
        """Read all of the disk and judge it; flush it if a failed flush is to be told of."""
        for first in range(0, _PLAIN, 102):
            self._request(Step("read", first, 102), must=True)
        for sector, cell in self.cells.items():
            answer = self._ask(rw10(0x28, sector, 1), data_in=SECTOR)
            if answer.status != _GOOD:
                raise BrokenPromiseError(f"sector {sector} cannot be read: {answer}")
            if not self.world.storage.losses:  # else a content that was not flushed may have gone
                cell.judge(answer.data)
        if self.machine.history.untold is not None:
            self._flush()
        answer = self._ask(bytes([0x1A, 8, 0x0A, 0, 16, 0]), data_in=16)
        if answer.status != _GOOD or answer.data[6] >> 2 & 1 not in self._saved:
            raise BrokenPromiseError(f"the Control mode page is {answer}; D_SENSE may be {self._saved}")

    def manage(self, luck: random.Random, times: int) -> None:
        """Abort a command that is under way, or reset the unit, which ends all of them, so many times."""
        for _ in range(times):
            self.world.scheduler.wait(lambda: bool(self._under_way), 1.0)
            function, named = luck.choice(_FUNCTIONS), sorted(self._under_way)
            if function == abi.TCMU_TMR_ABORT_TASK:
                named = named and [luck.choice(named)]
            if named:
                with suppress(TransportError):  # the ring is full
                    self.loopback.manage(function, named)
            time.sleep(luck.choice((0.00002, 0.0002, 0.002, 0.05)))

    def _request(self, step: Step, *, must: bool = False) -> None:
        history = self.machine.history
        if step.verb == "flush":
            self._flush()
        elif step.verb == "read":
            began = history.begin_read()
            answer = self._ask(rw10(0x28, step.first, step.count), data_in=step.count * SECTOR)
            if answer.status == _GOOD:
                self._check(step.first, answer.data, began)
            elif must:
                raise BrokenPromiseError(f"{step} fails although nothing is broken: {answer}")
            history.end_read(began)
        elif step.verb == "swap":
            self._swap(_PLAIN + step.first)
        elif step.verb == "select":
            self._select(step.count)
        elif step.verb == "resize":
            self._sizes.append(step.count * SECTOR)
        else:
            self._write(step)

    def _flush(self) -> bool:
        """Flush; return whether that succeeded.

        Raises:
            BrokenPromiseError: It did, though a flush of a resize has failed before and no initiator knows.
        """
        history = self.machine.history
        untold, began = history.untold, history.begin_flush()
        if self._ask(_FLUSH).status != _GOOD:
            return False
        if untold is not None:
            raise BrokenPromiseError("no flush tells of one that has failed in a resize")
        history.flushed(began)
        return True

    def _check(self, first: int, data: bytes, began: int) -> None:
        """Judge the data of a read; if unflushed data was lost, the next flush has to tell of it.

        Raises:
            HistoryError: The data is wrong, also in view of what that flush has told.
        """
        try:
            self.machine.history.check(first, data, began=began, where="the LUN")
        except HistoryError:
            history = self.machine.history
            is_told = self.world.storage.losses == history.told and history.untold is None
            if is_told or self._flush():
                raise
            self.machine.history.check(first, data, began=began, where="the LUN")

    def _write(self, step: Step) -> None:
        history, fua = self.machine.history, step.verb == "write_fua"
        request = history.begin(step.first, step.count)
        data = b"".join(next(iter(content)) for content in request.contents)
        answer = self._ask(rw10(0x2A, step.first, step.count, 8 if fua else 0), data_out=data)
        history.end(request, acknowledged=answer.status == _GOOD, durable=fua)

    def _swap(self, sector: int) -> None:
        """Read a sector and replace what was read, unless another initiator has done so meanwhile."""
        cell = self.cells[sector]
        began = cell.tick()
        answer = self._ask(rw10(0x28, sector, 1), data_in=SECTOR)
        if answer.status != _GOOD:
            return
        cell.saw(answer.data, began)
        self._swaps += 1
        swap = cell.begin(answer.data, stamped(self._swaps, sector))
        cdb = bytes([0x89, 0]) + sector.to_bytes(8, "big") + bytes([0, 0, 0, 1, 0, 0])
        answer = self._ask(cdb, data_out=swap.old + swap.new)
        is_miscompare = answer.status == _CHECK_CONDITION and _sense_key(answer) == _MISCOMPARE
        cell.end(swap, True if answer.status == _GOOD else False if is_miscompare else None)

    def _select(self, descriptor_sense: int) -> None:
        """Change D_SENSE of the Control mode page, and save it."""
        page = bytes([0x0A, 10, descriptor_sense << 2, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0])
        self._saved.add(descriptor_sense)
        if self._ask(bytes([0x15, 0x11, 0, 0, 16, 0]), data_out=bytes(4) + page).status == _GOOD:
            self._saved = {descriptor_sense}

    def _ask(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Answer:
        """Send a command until it is not refused for an event of the unit; return the answer."""
        for _ in range(20):
            try:
                number = self.loopback.submit(cdb, data_out=data_out, data_in=data_in)
                self._note(f"command {number}: {cdb.hex()}", data_out)
                self._under_way.add(number)
                answer = self.loopback.wait(number, LONGEST)
                self._note(f"answer {number}: {answer.status:#x} {answer.sense.hex()}", answer.data)
                self._under_way.discard(number)
            except TransportError as error:
                raise BrokenPromiseError(f"a command hangs: {error}") from error
            if answer.status == _CHECK_CONDITION:
                if _sense_key(answer) == _UNIT_ATTENTION:
                    continue
                if _sense_key(answer) != _MISCOMPARE:
                    self._be_told()
            return answer
        raise BrokenPromiseError("unit attentions without end")

    def _note(self, line: str, data: bytes) -> None:
        """Add a command or an answer to the trace, with its first sectors."""
        if (trace := self.world.calls.trace) is not None:
            whole = range(0, min(len(data) // SECTOR, 3) * SECTOR, SECTOR)
            contents = ", ".join(explain(data[at : at + SECTOR]) for at in whole)
            trace.append(f"{self.world.scheduler.now:.6f}       {line} {contents}".rstrip())

    def _be_told(self) -> None:
        """Note that the initiator was told of a failure: what was lost until now may be lost."""
        self.machine.failed += 1
        history = self.machine.history
        if self.world.storage.losses > history.told or history.untold is not None:
            history.told = self.world.storage.losses
            history.doubt()


def _sense_key(answer: Answer) -> int:
    return answer.sense[1] & 0xF if answer.sense[0] & 0x7F >= 0x72 else answer.sense[2] & 0xF


class Handovers(Lane):
    """Random histories of engines that die and hand over."""

    def play(self, seed: int, plan: Plan | None = None, *, trace: bool = False) -> Outcome:
        """Run the history of a seed.

        Args:
            seed: Says everything.
            plan: Says which calls fail; by default the seed does.
            trace: Keep a line for each system call, command and answer.
        """
        luck = random.Random(seed)
        outcome = Outcome(self.layer.name, seed)
        chosen = plan or RandomFaults(random.Random(luck.random()), luck.choice((0.0, 0.001, 0.005)))
        with (
            run(self.layer, self.template, self.root, seed, switch=luck.choice((0.02, 0.2))) as machine,
            patched(patches(machine.world)),
        ):
            engines = Engines(machine)
            machine.world.calls.trace = outcome.trace if trace else None
            with engines.in_kernel():
                outcome.message = broken_promise(partial(_lead, engines, luck, chosen))
            outcome.requests, outcome.failed = machine.sent, machine.failed
            if isinstance(chosen, RandomFaults):
                outcome.faults = [fault for fault, _ in chosen.injected]
        return outcome


def _lead(engines: Engines, luck: random.Random, plan: Plan) -> None:
    """Let engines come and go while initiators send, then judge."""
    world = engines.world
    scripts = [random_steps(luck, _PLAIN, luck.randrange(5, 30), _VERBS) for _ in range(luck.randrange(2, 5))]
    manage = partial(engines.manage, random.Random(luck.random()), luck.choice((0, 3, 30)))
    enlarge = partial(engines.enlarge, random.Random(luck.random()), luck.choice((0, 2, 8)))
    with world.faults(plan):
        serving = [engines.start()]
        initiators = [world.start(partial(engines.send, script), "initiator") for script in scripts]
        manager = world.start(manage, "manager")
        administrator = world.start(enlarge, "administrator")
        while not all(initiator.ended for initiator in initiators):
            world.scheduler.wait(lambda: False, luck.choice((0.0002, 0.001, 0.01, 0.1)))
            bury(serving)
            _replace_engine(engines, serving, luck)
    world.calm()
    bury(serving)
    # After a failed flush an engine refuses what may be lost; the next one knows what is there.
    if serving[-1].process.dead or serving[-1].ended or world.storage.failed_syncs:
        serving.append(engines.start())
    for number, life in enumerate(serving[:-1]):
        engines.leave(number)
        life.wait(LONGEST)
    manager.wait()
    administrator.wait()
    for life in (*initiators, manager, administrator, *serving):
        if life.error is not None:
            raise BrokenPromiseError(f"{life.process.name}: {life.error!r}") from life.error
    judge = world.start(engines.check_all, "initiator")
    judge.wait()
    if judge.error is not None:
        raise BrokenPromiseError(f"in the end: {judge.error}") from judge.error


def _replace_engine(engines: Engines, serving: list[Life], luck: random.Random) -> None:
    """Start an engine where there is none, or at times, and let the one before it die or leave."""
    if luck.random() < 0.3 and len(serving) < 8:
        serving.append(engines.start())
        if luck.random() < 0.5:
            serving[-2].end()
        else:
            engines.leave(len(serving) - 2)
    elif serving[-1].process.dead or serving[-1].ended:
        serving.append(engines.start())


def bury(lives: list[Life]) -> None:
    """End the remains of processes that have ended or died by themselves, as the kernel does."""
    for life in lives:
        if life.process.dead or life.ended:
            life.end()


def patches(world: World) -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, name and replacement of what an engine has beside the handlers."""
    scheduler = world.scheduler

    def vital(run: Callable[[], object], name: str, *, died: Callable[..., object]) -> sim.Thread:
        def body() -> None:
            try:
                run()
            except sim.Killed:
                raise
            except BaseException as error:  # noqa: BLE001 - as the real one
                died(name, error)

        return sim.Thread(scheduler, body, name)

    def leave_at_once(_code: int) -> None:
        scheduler.current.process.dead = True
        raise sim.Killed

    yield os, "_exit", leave_at_once
    yield select, "select", lambda *_: ([], [], [])
    yield select, "epoll", partial(Epoll, scheduler, world.calls)
    yield workers, "SimpleQueue", partial(sim.SimpleQueue, scheduler)
    yield pump_module, "VitalThread", vital
    yield mmap, "mmap", world.calls.mmap
    yield owned_lun_module, "UnitState", partial(UnitState, directory=world.root / "units")
    yield OwnedLun, "_device", lambda *_, **__: SimpleNamespace()
    yield threading, "Timer", partial(sim.Timer, scheduler)
