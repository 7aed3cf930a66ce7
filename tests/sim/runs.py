"""One run of a disk on a simulated machine: lives with faults, then one without, then the verdict."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.sim.faults import NoFaults, Plan
from tests.sim.history import SECTOR, History
from tests.sim.initiator import FAILURES, Initiator, Legs, Step
from tests.sim.layers import SECTORS, Layer
from tests.sim.world import Life, World
from vscsihba.errors import FlushError
from vscsihba.handlers.shared.vectored import read_bytes
from vscsihba.handlers.stack import build

_REST: Final = 300.0
"""Virtual seconds in which everything has to be closed that is closed in the background."""


@dataclass(frozen=True)
class Template:
    """The media of a layer as they are before every run.

    Attributes:
        tree: The files.
        content: Content of the disk.
    """

    tree: dict[str, bytes | None]
    content: bytes


def make_template(layer: Layer, root: Path) -> Template:
    """Make the media of a layer in an empty directory, and read the disk once."""
    layer.make(root)
    content = layer.content
    if not content:
        with build(layer.document(root)) as disk:
            content = read_bytes(disk, 0, SECTORS * SECTOR)
    tree = {str(path): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))}
    return Template({path: found for path, found in tree.items() if "/run/" not in path}, content)


class BrokenPromiseError(AssertionError):
    """A run has ended as no run must; the message says how, and how to see it again."""


def broken_promise(body: Callable[[], object]) -> str:
    """Do something to a disk, and return the promise that was broken, empty if none was."""
    try:
        body()
    except AssertionError as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Lane:
    """One kind of runs of one layer.

    Args:
        layer: The disk.
        root: An empty directory on a tmpfs.
    """

    def __init__(self, layer: Layer, root: Path) -> None:
        self.layer = layer
        self.root = root
        self.template = make_template(layer, root)


class RefusedError(BrokenPromiseError):
    """A disk does not open, although nothing fails."""


@dataclass
class Run:
    """A machine with one disk, and what is known of its history.

    Attributes:
        world: The machine.
        layer: The disk's kind.
        history: The requests of its initiators.
        document: Describes the disk; adding a leg to a mirror, or removing one, changes it.
        failed: How many requests were answered with an error.
        opened: The disk was open in the last life.
        openings: How often it was opened.
        exchanged: A medium was replaced, so some may not be in use in the end.
        legs_asked_for: Files of the legs that were added to a mirror or removed from it, or perhaps were.
        notes: Failures to open or close the disk.
    """

    world: World
    layer: Layer
    history: History
    sent: int = 0
    failed: int = 0
    opened: bool = False
    openings: int = 0
    exchanged: bool = False
    legs_asked_for: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Describe the disk as it is at first."""
        document = self.layer.document(self.world.root)
        assert not isinstance(document, str)
        self.document = dict(document)
        if self.layer.cluster:
            self.world.on_unrecorded = partial(self.history.lose_clusters, self.layer.cluster)

    def live(self, work: Callable[[Initiator], None], plan: Plan, *, leave_open: bool = False) -> Life:
        """Open the disk in a process of its own, work with it, and close it; faults are as the plan says.

        Args:
            work: The work of its initiators.
            plan: Which calls fail.
            leave_open: Die in the end instead of closing.

        Raises:
            BrokenPromiseError: It failed in a way that nothing may fail.
        """
        before = len(self.world.scheduler.failures)
        with self.world.faults(plan):
            life = self.world.start(partial(self._use, work, leave_open=leave_open))
            self.world.scheduler.wait(lambda: life.ended or life.process.dead)
        power = self.world.power_is_cut
        left: list[str] = []
        if not life.process.dead:
            self.world.scheduler.wait(lambda: False, _REST)
            left = self.world.opened_by(life.process)
        life.end()
        if life.died:  # it cannot tell any more of a sync that has failed
            self.history.doubt_since(self.history.told, self.world.storage.losses)
            if self.history.untold is not None:
                self.history.doubt()
        if power:
            self.history.cut_power()
            self.world.cut_power()
        else:
            self.history.stop()
        if life.error is not None:
            raise BrokenPromiseError(f"a process ended with {life.error!r}") from life.error
        for name, error in self.world.scheduler.failures[before:]:
            raise BrokenPromiseError(f"thread {name} ended with {error!r}") from error
        if left:
            shown = sorted({path.removeprefix(self.world.storage.root) for path in left})
            raise BrokenPromiseError(f"descriptors are left open: {shown}")
        return life

    def _use(self, work: Callable[[Initiator], None], *, leave_open: bool) -> None:
        """Be the process."""
        stack = build(self.document, check_between=True)
        self.opened = False
        try:
            disk = stack.open()
        except FAILURES as error:
            self.notes.append(f"open failed: {error!r}")
            if isinstance(error, FlushError):  # an engine records it, and tells at the next flush
                self.history.doubt()
            return
        self.opened = True
        self.openings += 1
        losses = self.world.storage.losses
        initiator = Initiator(self.world, stack, disk, self.history)
        initiator.stable = self.layer.stable
        self.history.opened(disk.geometry.size // SECTOR)
        if self.layer.legs:
            initiator.legs = Legs(self.document, self.legs_asked_for)
        work(initiator)
        self.sent, self.failed = self.sent + initiator.sent, self.failed + initiator.failed
        if leave_open:
            self.world.scheduler.current.process.dead = True
        if self.history.told < self.world.storage.losses or self.history.untold is not None:
            # No initiator was told of a loss, such as a resize's; the last flush of an engine does it.
            initiator.perform(Step("flush"))
        try:
            stack.close()
        except FAILURES as error:
            self.notes.append(f"close failed: {error!r}")
            initiator.doubt_since(losses)

    def judge(self) -> None:
        """Open the disk without a fault: all that was promised is there, it works, and its media agree.

        Raises:
            BrokenPromiseError, HistoryError: Not so.
        """

        at_rest = True

        def work(initiator: Initiator) -> None:
            nonlocal at_rest
            initiator.check_all("after the faults")
            for step in (
                Step("write", 0, 9),
                Step("write", initiator.history.sectors - 3, 3),
                Step("flush"),
                Step("read", 0, 16),
            ):
                if not initiator.perform(step):
                    raise BrokenPromiseError(f"{step} fails although nothing is broken any more")
            if self.layer.settle:
                self.world.scheduler.wait(lambda: False, self.layer.settle)
                initiator.check_all("after settling")
            at_rest = self.layer.is_at_rest(initiator.stack)

        self.live(work, NoFaults())
        if not self.opened:
            raise RefusedError(f"the disk does not open any more: {self.notes[-1]}")
        if at_rest or not (self.exchanged or self.legs_asked_for):
            with self.world.untouched():
                self.layer.audit(self.document, self.history.sectors * SECTOR)


@contextmanager
def run(layer: Layer, template: Template, root: Path, seed: int, *, switch: float = 0.0) -> Iterator[Run]:
    """Start a machine whose files are those of the template."""
    with World(root, seed, template.tree, switch=switch) as world:
        machine = Run(world, layer, History(template.content))
        with layer.around(machine):
            yield machine


def send(script: Sequence[Step]) -> Callable[[Initiator], None]:
    """Return work for `Run.live`: a script."""
    return lambda initiator: initiator.send(script)
