"""Transactions on a machine that refuses at every single call: all changes are carried out, or none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from tests.config.documents import documents, unhurried
from vscsihba.config.change import Change
from vscsihba.config.changes import changes
from vscsihba.config.dump import builtins
from vscsihba.config.export import Export
from vscsihba.config.frame_changes import ChangeBackstore, SetEngines
from vscsihba.config.load import read
from vscsihba.config.lun_changes import Resize, TuneLun
from vscsihba.config.model import Document
from vscsihba.daemon.transaction import Transaction
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import ConfigError, HostError

Hbas = dict[int, tuple[int, dict[int, LunSpec]]]
Targets = dict[str, tuple[Export, dict[int, tuple[int, int] | None]]]


class Model:
    """A machine that is a dictionary, and refuses the call of a given number.

    Attributes:
        state: The number of engines and the LUNs of each HBA.
        targets: The exports, and the place of the disk behind each LUN of them.
    """

    def __init__(self, document: Document, refuse: int | None = None) -> None:
        self.state = machine_of(document)
        self.targets = targets_of(document)
        self.calls = 0
        self.forced: list[bool] = []
        self.made: list[bool] = []
        self._refuse = refuse

    @property
    def hbas(self) -> dict[int, "ModelHba"]:
        return {hba_id: ModelHba(self, hba_id) for hba_id in self.state}

    def count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self._refuse:
            raise HostError("refused")

    def add_hba(self, hba_id: int, engines: int) -> None:
        self.count()
        assert hba_id not in self.state
        self.state[hba_id] = (engines, {})

    def remove_hba(self, hba_id: int) -> None:
        self.count()
        assert not self.state[hba_id][1]
        del self.state[hba_id]

    def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
        self.count()
        self.forced.append(force)
        places = [place for _, luns in self.targets.values() for place in luns.values()]
        assert (hba_id, lun) not in places, "the kernel keeps a backstore that an export shows"
        del self.state[hba_id][1][lun]


class ModelExports:
    """Exports that are a dictionary: each has the place of the disk behind each of its LUNs."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def add(self, export: Export, document: Document) -> None:
        assert export.name not in self._model.targets
        self.change(export, document)

    def change(self, export: Export, document: Document) -> None:
        self._model.count()
        self._model.targets[export.name] = targets_of(document)[export.name]
        for place in self._model.targets[export.name][1].values():
            assert place is not None
            assert place[1] in self._model.state[place[0]][1], "its disk is served"

    def remove(self, export: Export) -> None:
        self._model.count()
        del self._model.targets[export.name]

    def restore(self, export: Export, document: Document) -> None:
        self._model.targets[export.name] = targets_of(document)[export.name]


class ModelHba:
    def __init__(self, model: Model, hba_id: int) -> None:
        self._model = model
        self._id = hba_id

    @property
    def _luns(self) -> dict[int, LunSpec]:
        return self._model.state[self._id][1]

    def set_size(self, size: int) -> None:
        self._model.count()
        self._model.state[self._id] = (size, self._luns)

    def add(self, request: LunSpec, *, make: bool) -> None:
        self._model.count()
        self._model.made.append(make)
        assert request.lun not in self._luns
        self._luns[request.lun] = request

    def restore(self, request: LunSpec) -> None:
        assert request.lun not in self._luns
        self._luns[request.lun] = request

    def remove(self, lun: int, *, force: bool) -> None:
        self._model.remove_lun(self._id, lun, force=force)

    def enlarge(self, request: LunSpec, size: int) -> None:
        self._model.count()
        assert self._luns[request.lun].is_like(request)
        self._luns[request.lun] = request

    def tune(self, lun: int, tuning: Tuning) -> None:
        self._model.count()
        self._luns[lun] = replace(self._luns[lun], tuning=tuning)

    def describe(self, request: LunSpec) -> None:
        assert self._luns[request.lun].is_like(request)
        self._luns[request.lun] = request


def machine_of(document: Document) -> Hbas:
    return {
        hba.id: (
            hba.engines,
            {lun.lun: LunSpec.of(lun, document.backstores[lun.backstore]) for lun in hba.luns},
        )
        for hba in document.hbas
    }


def targets_of(document: Document) -> Targets:
    return {
        export.name: (export, {lun.lun: document.place_of(lun.backstore) for lun in export.luns})
        for export in document.exports
    }


def transaction_of(
    running: Document, machine: Model, note: Callable[[Document], object], **options: Any
) -> Transaction:
    """Return a transaction that notes documents which a restarted service can read, as it must."""

    def checked(document: Document) -> None:
        assert read(builtins(document), Path("/")) == document
        note(document)

    return Transaction(running, machine, checked, exports=ModelExports(machine), **options)


def said(_report: object) -> None:
    """Ignore progress."""


def one_lun(stacks: dict[str, Any], lun: int = 0, engines: int = 1, **options: object) -> Document:
    """Return a document whose only LUN shows the last of some stacks."""
    luns = [{"lun": lun, "backstore": list(stacks)[-1], **options}]
    hba = {"id": 0, "engines": engines, "luns": luns}
    return read({"version": 1, "backstores": stacks, "hbas": [hba]}, Path("/"))


@unhurried
@given(documents(), documents())
def test_a_transaction_leads_to_the_wanted_document(running: Document, wanted: Document) -> None:
    try:
        found = changes(running, wanted, prune="all")
    except ConfigError:
        assume(False)
    machine, noted = Model(running), [running]
    heard: list[Any] = []
    transaction = transaction_of(running, machine, noted.append)
    transaction.carry_out(found.steps, heard.append)
    assert machine.state == machine_of(wanted)
    assert machine.targets == targets_of(wanted)
    assert transaction.document == noted[-1] == wanted
    assert [report["step"] for report in heard] == list(range(1, len(found) + 1))


@unhurried
@given(documents(), documents())
def test_a_refusal_at_any_call_leaves_all_as_it_was(running: Document, wanted: Document) -> None:
    try:
        found = changes(running, wanted, prune="all")
    except ConfigError:
        assume(False)
    whole = Model(running)
    transaction_of(running, whole, said).carry_out(found.steps, said)
    for number in range(whole.calls):
        machine, noted = Model(running, refuse=number), [running]
        transaction = transaction_of(running, machine, noted.append)
        with pytest.raises(HostError, match="refused"):
            transaction.carry_out(found.steps, said)
        assert machine.state == machine_of(running)
        assert machine.targets == targets_of(running)
        assert transaction.document == noted[-1] == running


@unhurried
@given(documents(), documents())
def test_a_failure_to_record_at_any_step_undoes_all(running: Document, wanted: Document) -> None:
    try:
        found = changes(running, wanted, prune="all")
    except ConfigError:
        assume(False)
    for number in range(len(found)):
        machine = Model(running)
        notes: list[Document] = []

        def note(document: Document, notes: list[Document] = notes, number: int = number) -> None:
            notes.append(document)
            if len(notes) == number + 1:
                raise HostError("the disk is full")

        transaction = transaction_of(running, machine, note)
        with pytest.raises(HostError, match="is full"):
            transaction.carry_out(found.steps, said)
        assert machine.state == machine_of(running)
        assert transaction.document == notes[-1] == running


def test_undoing_removes_a_disk_that_is_in_use_now() -> None:
    running, wanted = Document(), documents_of(2)
    machine = Model(running, refuse=2)
    with pytest.raises(HostError):
        transaction_of(running, machine, said).carry_out(changes(running, wanted).steps, said)
    assert machine.forced == [True]
    assert machine.state == {}


def test_a_step_that_cannot_be_undone_stays_in_the_document(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Model):
        def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
            raise HostError("it is stuck")

        def remove_hba(self, hba_id: int) -> None:
            raise HostError("it has LUNs")

    running, wanted = Document(), documents_of(2)
    machine = Stubborn(running, refuse=2)
    transaction = transaction_of(running, machine, said)
    with pytest.raises(HostError, match="refused"):
        transaction.carry_out(changes(running, wanted).steps, said)
    assert "cannot undo: add LUN 0 of HBA 0: a0: it is stuck" in caplog.text
    assert machine.state == machine_of(transaction.document)
    assert [lun.lun for hba in transaction.document.hbas for lun in hba.luns] == [0]


def replacing(size: str = "1MiB") -> tuple[Document, Document]:
    """Return documents of one LUN, whose storage is another one in the second."""
    stacks = {"a": {"handler": "memory", "size": "1MiB"}, "b": {"handler": "null", "size": size}}
    return one_lun({"a": stacks["a"]}), one_lun({"b": stacks["b"]})


FILE = {"handler": "file", "path": "/x", "size": "1MiB"}
OTHER = {"handler": "memory", "size": "2MiB"}


@pytest.mark.parametrize(
    ("kind", "running", "wanted"),
    [
        (Resize, one_lun({"a": FILE}), one_lun({"a": {**FILE, "size": "2MiB"}})),
        (ChangeBackstore, one_lun({"a": FILE}), one_lun({"a": {**FILE, "create": True}})),
        (ChangeBackstore, one_lun({"a": FILE}, lun=1), one_lun({"a": {**FILE, "create": True}}, lun=1)),
        (
            ChangeBackstore,
            one_lun({"b": OTHER, "a": FILE}),
            one_lun({"b": {**OTHER, "size": 512}, "a": FILE}),
        ),
        (TuneLun, one_lun({"a": FILE}), one_lun({"a": FILE}, queue_depth=7)),
        (SetEngines, one_lun({"a": FILE}), one_lun({"a": FILE}, engines=3)),
    ],
)
def test_a_disk_that_stays_the_same_is_changed_in_place(
    kind: type[Change], running: Document, wanted: Document
) -> None:
    steps = changes(running, wanted, prune="all").steps
    assert [type(step) for step in steps] == [kind]
    machine = Model(running)
    transaction_of(running, machine, said).carry_out(steps, said)
    assert machine.state == machine_of(wanted)
    assert (machine.made, machine.forced) == ([], [])

    def refuse(document: Document) -> None:
        if document == wanted:
            raise HostError("the disk is full")

    machine = Model(running)
    transaction = transaction_of(running, machine, refuse)
    with pytest.raises(HostError, match="is full"):
        transaction.carry_out(steps, said)
    assert machine.state == machine_of(running)
    assert transaction.document == running


@pytest.mark.parametrize("force", [True, False])
def test_only_by_force_disks_in_use_are_removed(*, force: bool) -> None:
    removing = documents_of(2), documents_of(1)
    for running, wanted in (removing, replacing()):
        machine = Model(running)
        steps = changes(running, wanted, prune="all").steps
        transaction_of(running, machine, said, force=force).carry_out(steps, said)
        assert machine.forced == [force]
        assert machine.state == machine_of(wanted)


def test_undoing_a_replacement_removes_a_disk_that_is_in_use_now() -> None:
    running, wanted = replacing()
    machine = Model(running)
    notes: list[Document] = []

    def note(document: Document) -> None:
        notes.append(document)
        if document.hbas[0].luns[0].backstore == "b":
            raise HostError("the disk is full")

    with pytest.raises(HostError, match="is full"):
        transaction_of(running, machine, note).carry_out(changes(running, wanted, prune="all").steps, said)
    assert machine.forced == [False, True]
    assert machine.state == machine_of(running)


def test_a_disk_whose_replacement_cannot_be_added_comes_back() -> None:
    running, wanted = replacing()
    machine = Model(running, refuse=1)
    transaction = transaction_of(running, machine, said)
    with pytest.raises(HostError, match="refused"):
        transaction.carry_out(changes(running, wanted, prune="all").steps, said)
    assert machine.forced == [False]
    assert machine.state == machine_of(running)
    assert transaction.document == running


@pytest.mark.parametrize(("made", "expected"), [((), True), (("b",), False), (("a",), True)])
def test_storage_is_made_once(made: tuple[str, ...], *, expected: bool) -> None:
    for running, wanted in (replacing(), (Document(), replacing()[1])):
        machine = Model(running)
        steps = changes(running, wanted, prune="all").steps
        transaction_of(running, machine, said, made=made).carry_out(steps, said)
        assert machine.made == [expected]


@pytest.mark.parametrize(("size", "calls"), [("1MiB", 2), ("2MiB", 3)])
def test_storage_that_was_shown_is_not_made_but_enlarged(size: str, calls: int) -> None:
    """The LUN moves to another number, and its disk is to be larger there."""
    running = one_lun({"a": {"handler": "memory", "size": "1MiB"}})
    wanted = one_lun({"a": {"handler": "memory", "size": size}}, lun=1)
    steps = changes(running, wanted, prune="all").steps
    machine = Model(running)
    transaction_of(running, machine, said).carry_out(steps, said)
    assert machine.made == [False]
    assert machine.calls == calls
    assert machine.state == machine_of(wanted)
    if calls == 3:
        refusing = Model(running, refuse=2)
        with pytest.raises(HostError, match="refused"):
            transaction_of(running, refusing, said).carry_out(steps, said)
        assert refusing.forced == [False, True], "the LUN was in use for a moment"
        assert refusing.state == machine_of(running)


def test_storage_whose_size_is_no_longer_said_is_not_enlarged() -> None:
    running = one_lun({"a": FILE})
    wanted = one_lun({"a": {"handler": "file", "path": "/x"}}, lun=1)
    machine = Model(running)
    transaction_of(running, machine, said).carry_out(changes(running, wanted, prune="all").steps, said)
    assert (machine.made, machine.calls) == ([False], 2)
    assert machine.state == machine_of(wanted)


def documents_of(count: int) -> Document:
    stacks = {f"a{number}": {"handler": "memory", "size": "1MiB"} for number in range(count)}
    luns = [{"lun": number, "backstore": f"a{number}"} for number in range(count)]
    return read({"version": 1, "backstores": stacks, "hbas": [{"id": 0, "luns": luns}]}, Path("/"))
