"""The lane of the service: documents are applied and saved while one call fails, or everything ends.

The service, its threads and its files are real, its engines are not (`service_machine`). Each script begins
with the start of a service. After the fault the service is closed, killed, or loses power with the whole
machine; then another one starts, and the machine has to agree with what was acknowledged.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from tests.sim.calls import patched
from tests.sim.exhaustive import Call, Counting, Finding, Point, all_points, sample
from tests.sim.faults import FAULTS as FILE_FAULTS
from tests.sim.faults import KILL, Fault, NoFaults, OneFault, Plan
from tests.sim.initiator import FAILURES
from tests.sim.runs import BrokenPromiseError, broken_promise
from tests.sim.service_machine import FAULTS as ENGINE_FAULTS
from tests.sim.service_machine import Machine
from tests.sim.service_scripts import Script, Words
from tests.sim.world import Life, World
from vscsihba.config.dump import dump
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.configfs import backstore_name
from vscsihba.daemon import export_checks, known_devices
from vscsihba.daemon.exports import Exports
from vscsihba.daemon.known_devices import check_devices
from vscsihba.daemon.service import Service
from vscsihba.daemon.state import State
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.engine.owning.lun_spec import LunSpec

FAULTS: Final = {**FILE_FAULTS, **ENGINE_FAULTS}
_SETTLED: Final = 200.0
"""Virtual seconds after which every retry has been made."""
_NAMES: Final = re.compile(r"running\.json|changing\.json|awaited\.json|daemon\.lock|hba\d+")
_UNFINISHED: Final = re.compile(r"\..*\.[0-9a-f]{16}")


@dataclass
class Ledger:
    """The results that are right, given the requests that were acknowledged.

    Attributes:
        running: The documents that may be in force.
        saved: Texts that the saved file may have, None for no file, with the document that each restores.
        failed: Requests that were refused.
    """

    running: list[Document]
    saved: dict[str | None, Document]
    failed: list[str] = field(default_factory=list)

    def promised(self) -> object:
        """Return the promises of this moment, to be compared with later ones."""
        return list(self.running), dict(self.saved)


class Services:
    """A machine and the services that run on it one after the other.

    Args:
        world: The files, threads and clock.
        machine: The engines.
        script: The requests to the service.
        text: Of the saved document.
    """

    def __init__(self, world: World, machine: Machine, script: Script) -> None:
        self.world = world
        self.machine = machine
        self.script = script
        self.started_at = self.ended_at = 0
        restored = document(script.restored or script.saved)
        self.ledger = Ledger([restored], {saved_text(script): restored})
        self._devices: dict[str, str] = {}

    def live(self, plan: Plan, work: Callable[[Service], None], *, end: str = "close") -> Life:
        """Run one service while calls fail as the plan says, and end it.

        Args:
            plan: Which calls fail.
            work: The requests.
            end: ``close``, ``kill`` or ``power``.

        Raises:
            BrokenPromiseError: It failed in a way that nothing may fail.
        """
        world = self.world
        before = len(world.scheduler.failures)
        with world.faults(plan):
            life = world.start(partial(self._serve, work, leave=end != "close"), "service")
            world.scheduler.wait(lambda: life.ended or life.process.dead)
        left = [] if life.process.dead else world.calls.opened_by(life.process)
        life.end()
        if world.power_is_cut or end == "power":
            self.cut_power()
        if life.error is not None and not isinstance(life.error, FAILURES):
            raise BrokenPromiseError(f"the service ended with {life.error!r}") from life.error
        for name, error in world.scheduler.failures[before:]:
            raise BrokenPromiseError(f"thread {name} ended with {error!r}") from error
        if left:
            raise BrokenPromiseError(f"descriptors are left open: {sorted(set(left))}")
        return life

    def _serve(self, work: Callable[[Service], None], *, leave: bool) -> None:
        """Be the service, as `vscsihba.daemon.run.serve` without its socket."""
        state = State(*self._places())
        with state.held():
            supervisor = Supervisor(
                self.machine.start,
                self.machine.find,
                self.world.run,
                lambda request: check_devices(state.devices_to_check(), request.document),
                self.machine.linked,
            )
            supervisor.users = lambda hba_id, lun: []  # type: ignore[method-assign]
            service = Service(supervisor, state, Exports({"iscsi": self.machine.targets}))
            try:
                service.resume()
                self.started_at = self.world.calls.count
                work(service)
                self.ended_at = self.world.calls.count
                if leave:
                    self.world.scheduler.current.process.dead = True
            finally:
                supervisor.close()

    def _places(self) -> tuple[Path, Path, Path]:
        root = self.world.root
        return self.world.run, root / "etc/config.json", root / "lib/devices.json"

    def cut_power(self) -> None:
        """Cut the power: engines and kernel are gone, and the saved document is what counts."""
        self.machine.switch_off()
        self.world.cut_power()
        path = self._places()[1]
        text = path.read_text() if path.exists() else None
        if text not in self.ledger.saved:
            raise BrokenPromiseError(f"after a power cut, the saved document is {text!r:.300}")
        self.ledger.running = [self.ledger.saved[text]]
        self.ledger.saved = {text: self.ledger.saved[text]}

    # Requests.

    def send(self, service: Service) -> None:
        """Send the requests of the script, and note the answers.

        A saved document that could not be read at the start is restored before that.
        """
        if service.awaited.unread and self.script.unread is None:
            service.retry()
        for verb, argument in self.script.requests:
            try:
                getattr(self, f"_{verb}")(service, argument)
            except FAILURES as error:
                self.ledger.failed.append(f"{verb}: {error!r}")
            safe = self.world.storage.durable(str(self._places()[2]))
            self._devices |= json.loads(safe or "{}")

    def _change(self, service: Service, wanted: Document, ask: Callable[[], object]) -> None:
        """Ask for a change that leads to a document; while it is under way, either may be found."""
        before = service.document
        self.ledger.running = [before, wanted]
        try:
            ask()
            self.ledger.running = [wanted]
        except FAILURES:
            self.ledger.running = [before]
            raise
        finally:
            if not self.world.scheduler.current.process.dead and service.document not in self.ledger.running:
                raise BrokenPromiseError(f"after {self.ledger.failed}, the document is {service.document}")

    def _apply(self, service: Service, words: Words) -> None:
        self._change(service, document(words), lambda: service.apply(words, _ignore, "all", replace=True))

    def _clear(self, service: Service, hba: int) -> None:
        self._change(service, _without(service.document, hba), lambda: service.clear(_ignore, hba))

    def _resize(self, service: Service, argument: tuple[str, int]) -> None:
        name, size = argument
        words = _words(service.document)
        words["backstores"][name]["size"] = size
        self._change(service, document(words), lambda: service.resize(name, size, _ignore))

    def _save(self, service: Service, _argument: None) -> None:
        now: dict[str | None, Document] = {dump(service.document): service.document}
        self.ledger.saved |= now
        service.save(force=True)
        self.ledger.saved = {**now}

    # Judgement.

    def judge(self, service: Service, *, at_start: bool = True) -> None:
        """Wait for retries, and compare engines, records and documents with what was acknowledged.

        Args:
            service: The service.
            at_start: Nothing has failed since its start, at which it removes unfinished files.

        Raises:
            BrokenPromiseError: They differ.
        """
        for _ in range(3):
            self.world.scheduler.wait(lambda: False, _SETTLED / 3)
            service.retry()
        found = service.document
        if found not in self.ledger.running:
            raise BrokenPromiseError(f"the document is {dump(found)}, which was not in force")
        told = _told(found)
        if (served := self._served()) != told:
            raise BrokenPromiseError(f"the engines serve {served}, the document has {told}")
        if (shown := self._shown()) != (told := _exported(found)):
            raise BrokenPromiseError(f"the targets show {shown}, the document has {told}")
        self._judge_records(service, at_start=at_start)

    def _judge_records(self, service: Service, *, at_start: bool) -> None:
        run, saved, devices = self._places()
        with self.world.untouched():
            noted = load(run / "running.json")
            names = [path.name for path in run.iterdir()]
            text = saved.read_text() if saved.exists() else None
            kept = [path.read_text() for path in saved.parent.glob("versions/*")]
            known = json.loads(devices.read_text()) if devices.exists() else {}
            beside = [path.name for each in (saved, devices) for path in each.parent.glob(".*")]
        if noted != service.document or service._unrecorded is not None:
            raise BrokenPromiseError(f"recorded is {noted}, {service._unrecorded}")
        strange = [name for name in names if not _NAMES.fullmatch(name)] + beside
        if strange and (at_start or any(not _UNFINISHED.fullmatch(name) for name in strange)):
            raise BrokenPromiseError(f"files are left behind: {strange}")
        if "changing.json" in names:
            raise BrokenPromiseError("a change counts as unfinished")
        if text not in self.ledger.saved:
            raise BrokenPromiseError(f"the saved document is {text!r:.300}")
        for each in kept:
            _document(each)
        if any(known[path] != _identity(path) for path in known) or not known.keys() >= self._devices.keys():
            raise BrokenPromiseError(f"the recorded devices are {known}; once they were {self._devices}")
        unread = [self.script.unread] if self.script.unread and text == saved_text(self.script) else []
        waiting = [(entry.hba, entry.lun) for entry in service.awaited.unread]
        if waiting != unread:
            raise BrokenPromiseError(f"entries that are not restored: {waiting}, not {unread}")

    def _shown(self) -> Words:
        """Return portals, initiators and LUNs of each target."""
        return {
            target.name: (set(target.portals), set(target.acls), dict(target.luns))
            for target in self.machine.targets.found.values()
        }

    def _served(self) -> Words:
        """Return the number of engines and the LUNs of each HBA."""
        found: dict[Any, Any] = {}
        for hba_id, hba in self.machine.hbas.items():
            living = hba.living
            if not living:
                continue
            luns = [
                {lun: _plain(engine.requests[lun], engine.tunings[lun]) for lun in sorted(engine.known)}
                for engine in living
            ]
            if any(each != luns[0] for each in luns) or set(luns[0]) != hba.linked:
                raise BrokenPromiseError(f"engines of HBA {hba_id} know {luns}, linked are {hba.linked}")
            found[hba_id] = len(living), luns[0]
        return found


def _told(told: Document) -> Words:
    """Return the same as `Services._served` for a document."""
    found: dict[Any, Any] = {}
    for hba in told.hbas:
        specs = [LunSpec.of(lun, told.backstores[lun.backstore]) for lun in hba.luns]
        luns = {spec.lun: _plain(asdict(spec), asdict(spec.tuning)) for spec in specs}
        found[hba.id] = hba.engines, luns
    return found


def _exported(told: Document) -> Words:
    """Return the same as `Services._shown` for a document."""
    found: Words = {}
    for export in told.exports:
        places = {lun.lun: told.place_of(lun.backstore) for lun in export.luns}
        luns = {number: backstore_name(*place) for number, place in places.items() if place is not None}
        found[export.name] = set(export.portals), {each.name for each in export.initiators}, luns
    return found


def _plain(request: Any, tuning: Any) -> Any:
    """Return the parts of a LUN to compare: after a failure its source may be larger than in the document."""
    stack = {key: value for key, value in request["document"].items() if key != "size"}
    return stack, request["removable"], request["appearance"], tuning


def document(words: Words | None) -> Document:
    """Return a document, the empty one for None."""
    return Document() if words is None else _document(json.dumps(words))


@cache
def _document(text: str) -> Document:
    return read(json.loads(text), Path("/"))


def saved_text(script: Script) -> str | None:
    """Return the content of the saved document, None for no file."""
    return None if script.saved is None else json.dumps(script.saved)


def _words(told: Document) -> Words:
    found: Words = json.loads(dump(told))
    return found


def _without(told: Document, hba_id: int) -> Document:
    """Return a document without an HBA and its backstores."""
    words = _words(told)
    gone = [hba for hba in words["hbas"] if hba["id"] == hba_id]
    words["hbas"] = [hba for hba in words["hbas"] if hba not in gone]
    for lun in (lun for hba in gone for lun in hba["luns"]):
        del words["backstores"][lun["backstore"]]
    return document(words)


def _ignore(_report: object) -> None:
    """Ignore progress."""


def _device_paths(stack: Any) -> list[str]:
    """Pretend that each disk with a label has a block device under a name of the kernel."""
    return [f"/dev/{stack['label']}"] if "label" in stack else []


def _identity(path: str) -> str:
    return f"wwn of {path}"


class ServiceLane:
    """All single faults of one script.

    Args:
        script: The requests.
        root: An empty directory on a tmpfs.

    Attributes:
        calls: The calls that faults strike.
    """

    def __init__(self, script: Script, root: Path) -> None:
        self.script = script
        self.root = root
        self._cut_at = 0
        self.calls = self._count()

    @contextmanager
    def _run(self, seed: int) -> Iterator[Services]:
        """Start a machine that has the saved document of the script."""
        tree: dict[str, bytes | None] = {str(self.root / "etc"): None}
        if (text := saved_text(self.script)) is not None:
            tree[str(self.root / "etc/config.json")] = text.encode()
        world = World(self.root, seed, tree)
        machine = Machine(world)
        with world, patched(self._patches(machine)):
            try:
                yield Services(world, machine, self.script)
            finally:
                machine.switch_off()

    def _patches(self, machine: Machine) -> Iterator[tuple[Any, str, Any]]:
        yield from machine.patches()
        yield known_devices, "_device_paths", _device_paths
        yield known_devices, "_identity", _identity
        yield export_checks, "_check_portal", lambda _portal, _name: None

    def points(self) -> list[Point]:
        """Return every fault point of the script; the end of the run is one of three in turn."""
        return all_points(self.calls, FAULTS, every_end=False)

    def sample(self) -> list[Point]:
        """Return those that every run of the tests strikes."""
        return sample(self.calls, FAULTS, 3 if self.script.cut_off else 2)

    def _count(self) -> list[Call]:
        """Return the calls that faults strike.

        Also choose the call at which the first service is killed, for a script that has one.
        """
        with self._run(0) as services:
            first = Counting(services.ledger.promised)
            services.live(first, services.send)
        if self.script.cut_off is None:
            return [call for call in first.calls if call.number < services.ended_at]
        calls = services.ended_at - services.started_at
        self._cut_at = services.started_at + int(calls * self.script.cut_off)
        with self._run(0) as services:
            self._cut_off(services)
            second = Counting(services.ledger.promised)
            services.live(second, lambda _service: None)
        return [call for call in second.calls if call.number < services.ended_at]

    def _cut_off(self, services: Services) -> None:
        services.live(OneFault(Fault(self._cut_at, KILL)), services.send)

    def strike(self, point: Point, trace: list[str] | None = None) -> Finding | None:
        """Run the script with one fault; return what is wrong then, None if nothing is."""
        plan = OneFault(point.fault)

        def body() -> None:
            with self._run(point.fault.number) as services:
                services.world.calls.trace = trace
                if self.script.cut_off is not None:
                    self._cut_off(services)

                def work(service: Service) -> None:
                    if self.script.cut_off is None:
                        services.send(service)
                    if point.end == "close":
                        services.world.calm()
                        services.judge(service, at_start=False)

                services.live(plan, work, end=point.end)
                services.live(NoFaults(), services.judge)

        message = broken_promise(body)
        return Finding(self.script.name, str(point), plan.struck, message) if message else None
