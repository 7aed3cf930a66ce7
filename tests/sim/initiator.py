"""An initiator: sends requests to a disk, notes them in the history, and checks what it reads."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.sim.history import SECTOR, History, HistoryError
from tests.sim.world import World
from vscsihba.errors import FlushError, UsageError, VscsihbaError
from vscsihba.handlers import actions
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.stack import Stack

FAILURES = (OSError, MemoryError, RuntimeError, VscsihbaError)
"""What a verb may fail with; RuntimeError comes from a thread that cannot start. Anything else is a bug."""

_INLINE: Final = ("read_inline", "write_inline", "write_aborted")
_ON_SECTORS = ("read", "write", "write_fua", "write_zeroes", "unmap", *_INLINE)
SIZES = (512, 256, 384, 511, 513, 640, 773, 900, 129, 500)
"""Sectors that a disk may get: at borders of regions and clusters, and near them."""


@dataclass(frozen=True)
class Step:
    """One request, in sectors, or a time to wait, or an action of a layer.

    Attributes:
        verb: ``read``, ``write``, ``write_fua``, ``write_zeroes``, ``unmap``, ``flush``, ``wait`` (`count`
            seconds), ``resize`` (to `count` sectors), or the name of an action. ``read_inline`` and
            ``write_inline`` try the inline verb first, as the thread that serves a ring does;
            ``write_aborted`` tries nothing else, like a command that is aborted before its turn.
        first: The first sector.
        count: Sectors.
        argument: Of an action.
    """

    verb: str
    first: int = 0
    count: int = 0
    argument: str = ""

    def __str__(self) -> str:
        """Name it for messages."""
        return f"{self.verb} {self.argument or f'{self.first}+{self.count}'}"


class Legs:
    """The legs of a mirror that is open: its document, and the numbers that it gave them.

    Args:
        document: The mirror's; it follows each leg that was added or removed.
        asked_for: The files of all legs for which either was asked are put here.
    """

    def __init__(self, document: dict[str, Any], asked_for: set[str]) -> None:
        self._document = document
        self._asked_for = asked_for
        self._numbers = {_name(leg): number for number, leg in enumerate(document["legs"])}
        self._folder = Path(document["path"]).parent

    def arguments(self, step: Step) -> dict[str, Any]:
        """Return the arguments of an action that is about to be asked for, on the leg that a step names."""
        self._asked_for.add(f"{step.argument}.img")
        if step.verb == "remove_leg":
            return {"number": self._numbers.get(step.argument, 99)}
        return {"leg": self._leg(step.argument), "overwrite": True}

    def note(self, step: Step, number: object) -> None:
        """Note that an action was acknowledged."""
        legs = [leg for leg in self._document["legs"] if _name(leg) != step.argument]
        self._numbers.pop(step.argument, None)
        if step.verb == "add_leg":
            assert isinstance(number, int)
            legs.append(self._leg(step.argument))
            self._numbers[step.argument] = number
        self._document["legs"] = legs

    def _leg(self, name: str) -> dict[str, str]:
        return {"handler": "file", "path": str(self._folder / f"{name}.img")}


def _name(leg: dict[str, str]) -> str:
    return Path(leg["path"]).stem


class Initiator:
    """One sender of requests.

    Args:
        world: The machine.
        stack: The layers of the disk, for actions.
        disk: The open stack.
        history: Where everything is noted; several initiators may share it.

    Attributes:
        legs: Of a mirror whose legs are added and removed.
        stable: Data that was read once is read again, though it was never acknowledged.
        failed: How many requests were answered with an error.
        sent: How many were answered at all.
    """

    def __init__(
        self, world: World, stack: Stack, disk: Handler, history: History, gate: RWLock | None = None
    ) -> None:
        self.world = world
        self.stack = stack
        self.disk = disk
        self.history = history
        self.stable = True
        self.legs: Legs | None = None
        self.sent = self.failed = 0
        self.gate = gate or RWLock()
        self._serving = threading.Lock()  # one thread serves the ring of a disk
        self._inline: InlineVerbs | None = None

    def send(self, steps: Sequence[Step]) -> None:
        """Send requests, each when the one before was answered."""
        for step in steps:
            if step.verb == "resize":
                with self.gate.alone():
                    self.perform(step)
            elif step.verb in _ON_SECTORS:
                with self.gate.together():
                    count = min(step.count, self.history.sectors - step.first)
                    if count > 0:
                        self.perform(replace(step, count=count))
            elif step.verb == "flush":
                with self.gate.together():
                    self.perform(step)
            else:
                self.perform(step)

    def perform(self, step: Step) -> bool:
        """Send a request; return whether it succeeded."""
        losses = self.world.storage.losses
        self.world.calls.tell(f"{step} ...")
        try:
            self._do(step)
            self.world.calls.tell(f"{step} done")
        except FAILURES as error:
            self.world.calls.tell(f"{step} failed: {error!r}")
            self.failed += 1
            # A sync of a thread's own may have failed before; a flush tells of that. A resize or another
            # action is asked for by somebody else, so its failure tells no initiator.
            if step.verb in (*_ON_SECTORS, "flush"):
                self.doubt_since(self.history.told if step.verb == "flush" else losses)
            # It is told of by the handler's own word, even if the storage has lost nothing.
            if isinstance(error, FlushError):
                if step.verb in ("flush", "write_fua"):
                    self.history.doubt()
                elif step.verb not in _ON_SECTORS:
                    self.history.flush_of_others_failed()
            return False
        finally:
            self.sent += 1
        return True

    def doubt_since(self, losses: int) -> None:
        """Note that unflushed data may be gone if there were losses since a request began, which has failed.

        A process that dies between a failed sync and its answer cannot tell; the record of an engine's last
        flush does, for one that is closing.
        """
        self.history.doubt_since(losses, self.world.storage.losses)

    def _do(self, step: Step) -> None:
        match step.verb:
            case "resize":
                self._resize(step.count)
            case "read" | "read_inline":
                self._read(step)
            case "write" | "write_fua" | "write_zeroes" | "unmap" | "write_inline" | "write_aborted":
                self._change(step)
            case "flush":
                began = self.history.begin_flush()
                self.disk.flush()
                self.history.flushed(began)
            case "wait":
                self.world.scheduler.wait(lambda: False, step.count)
            case "add_leg" | "remove_leg":
                self._change_legs(step)
            case _:
                self._act(step)

    def _read(self, step: Step) -> None:
        self._read_and_judge(step.first, step.count, "the disk", inline=step.verb == "read_inline")

    def _change(self, step: Step) -> None:
        offset, length = step.first * SECTOR, step.count * SECTOR
        fua = step.verb == "write_fua"
        zeroes = step.verb in ("write_zeroes", "unmap")
        if step.verb == "unmap" and not self.disk.capabilities.unmap_zeroes:
            request = self.history.begin_unmap(step.first, step.count)
        else:
            request = self.history.begin(step.first, step.count, zeroes=zeroes)
        acknowledged = False
        try:
            if step.verb == "unmap":
                self.disk.unmap(offset, length)
            elif step.verb == "write_zeroes":
                self.disk.write_zeroes(offset, length, may_unmap=bool(step.first % 2))
            else:
                data = memoryview(b"".join(next(iter(content)) for content in request.contents))
                if not (step.verb in _INLINE and self._move_inline(data, offset, write=True)):
                    if step.verb == "write_aborted":
                        return
                    self.disk.write(offset, [data], fua=fua)
            acknowledged = True
        finally:
            if not self.world.scheduler.current.process.dead:  # else the death has ended it
                self.history.end(request, acknowledged=acknowledged, durable=fua)

    def _move_inline(self, data: memoryview, offset: int, *, write: bool) -> bool:
        """Try an inline verb as the fast path does; return whether it has done all of the request."""
        with self._serving:
            if self._inline is None:
                self._inline = self.disk.inline
            inline = self._inline
            move, flags = (inline.write, inline.write_flags) if write else (inline.read, inline.read_flags)
            if move is None or (write and len(data) > inline.write_limit):
                return False
            try:
                return move([data], offset, flags) == len(data)
            except Exception:  # noqa: BLE001 - would block, or failed
                return False

    def _resize(self, sectors: int) -> None:
        history, acknowledged = self.history, False
        request = history.begin_resize(sectors)
        try:
            self.disk.resize(sectors * SECTOR)
            acknowledged = True
        finally:
            if not self.world.scheduler.current.process.dead:  # else the death has ended it
                history.end_resize(request, sectors, acknowledged=acknowledged)
                self._check_size(Step("resize", count=sectors), acknowledged=acknowledged)

    def _check_size(self, step: Step, *, acknowledged: bool) -> None:
        found = self.disk.geometry.size // SECTOR
        if found != self.history.sectors:
            raise HistoryError(f"{step}: {acknowledged=}, and the disk has {found} sectors")

    def _act(self, step: Step) -> None:
        request, history = None, self.history
        if step.verb == "roll_back" and step.argument in history.unknown:
            return
        size = len(history.snapshots.get(step.argument, ()))
        if step.verb == "take":
            history.begin_snapshot(step.argument)
        elif step.verb == "roll_back" and size:
            request = history.begin_restore(history.snapshots[step.argument])
        acknowledged = False
        began = history.begin_flush()
        try:
            arguments = {"name": step.argument} if step.argument else {}
            actions.ask(self._layer_with(step.verb), step.verb, arguments)
            acknowledged = True
        except UsageError:
            if step.verb == "take":
                history.refused(step.argument)
            raise
        finally:
            if request is not None and not self.world.scheduler.current.process.dead:
                history.end_resize(request, size, acknowledged=acknowledged)
                self._check_size(step, acknowledged=acknowledged)
        if step.verb == "take":
            history.flushed(began)
            history.took(step.argument)
        elif step.verb == "delete":
            history.deleted(step.argument)

    def _change_legs(self, step: Step) -> None:
        assert self.legs is not None
        self.legs.note(step, actions.ask(self._layer_with(step.verb), step.verb, self.legs.arguments(step)))

    def _layer_with(self, action: str) -> Handler:
        """Return the topmost layer that has an action."""
        return next(layer for layer in reversed(self.stack.layers) if action in layer.actions())

    def check_all(self, where: str) -> None:
        """Read all of the disk and judge it.

        Raises:
            HistoryError: It has broken a promise.
        """
        self._read_and_judge(0, self.history.sectors, where)

    def _read_and_judge(self, first: int, count: int, where: str, *, inline: bool = False) -> None:
        """Read and judge; if unflushed data was lost, the next flush has to tell of it."""
        began = self.history.begin_read()
        try:
            room = bytearray(b"\xa5") * (count * SECTOR)
            if not (inline and self._move_inline(memoryview(room), first * SECTOR, write=False)):
                self.disk.read(first * SECTOR, [memoryview(room)])
            try:
                self.history.check(first, bytes(room), began=began, where=where)
            except HistoryError:
                if self.world.storage.losses == self.history.told or self.perform(Step("flush")):
                    raise
                self.history.check(first, bytes(room), began=began, where=where)
            if self.stable and not self.world.storage.losses:
                self.history.pin(first, bytes(room), began=began)
        finally:
            self.history.end_read(began)


def random_steps(luck: random.Random, sectors: int, count: int, verbs: Sequence[str]) -> list[Step]:
    """Choose requests that overlap often, with times to wait between them."""
    found = []
    for _ in range(count):
        verb = luck.choice(verbs)
        if verb == "wait":
            found.append(Step(verb, count=luck.choice([0, 1, 6, 12])))
        elif verb == "flush":
            found.append(Step(verb))
        elif verb == "swap":
            found.append(Step(verb, luck.randrange(2)))
        elif verb in ("take", "roll_back", "delete"):
            found.append(Step(verb, argument=luck.choice(("one", "two", "three"))))
        elif verb == "resize":
            found.append(Step(verb, count=luck.choice(SIZES)))
        elif verb in ("add_leg", "remove_leg"):
            found.append(Step(verb, argument=luck.choice("abcc")))
        else:
            length = luck.choice([1, 1, 3, 8, 16, luck.randrange(1, sectors)])
            first = luck.choice([0, 7, 8, sectors // 2, luck.randrange(sectors)])
            found.append(Step(verb, first, min(length, sectors - first)))
    return found
