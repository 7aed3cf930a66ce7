"""Changes carried out on a machine that refuses at every single call: all of them, or none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from tests.config.documents import documents, unhurried
from vscsihba.config.changes import changes
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.daemon.applying import Applying
from vscsihba.engine.appearance import Tuning
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import ConfigError, HostError

Hbas = dict[int, tuple[int, dict[int, LunRequest]]]


class Model:
    """A machine that is a dictionary, and refuses the call of a given number."""

    def __init__(self, document: Document, refuse: int | None = None) -> None:
        self.hbas = machine_of(document)
        self.calls = 0
        self.forced: list[bool] = []
        self.made: list[bool] = []
        self._refuse = refuse

    def _count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self._refuse:
            raise HostError("refused")

    def add_hba(self, hba_id: int, engines: int) -> None:
        self._count()
        assert hba_id not in self.hbas
        self.hbas[hba_id] = (engines, {})

    def remove_hba(self, hba_id: int) -> None:
        self._count()
        assert not self.hbas[hba_id][1]
        del self.hbas[hba_id]

    def set_engines(self, hba_id: int, engines: int) -> None:
        self._count()
        self.hbas[hba_id] = (engines, self.hbas[hba_id][1])

    def add_lun(self, hba_id: int, request: LunRequest, *, make: bool) -> None:
        self._count()
        self.made.append(make)
        luns = self.hbas[hba_id][1]
        assert request.lun not in luns
        luns[request.lun] = request

    def restore_lun(self, hba_id: int, request: LunRequest) -> None:
        luns = self.hbas[hba_id][1]
        assert request.lun not in luns
        luns[request.lun] = request

    def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
        self._count()
        self.forced.append(force)
        del self.hbas[hba_id][1][lun]

    def enlarge(self, hba_id: int, request: LunRequest, size: int) -> None:
        self._count()
        assert self.hbas[hba_id][1][request.lun].is_like(request)
        self.hbas[hba_id][1][request.lun] = request

    def tune(self, hba_id: int, lun: int, tuning: Tuning) -> None:
        self._count()
        luns = self.hbas[hba_id][1]
        luns[lun] = replace(luns[lun], tuning=tuning)

    def describe(self, hba_id: int, request: LunRequest) -> None:
        assert self.hbas[hba_id][1][request.lun].is_like(request)
        self.hbas[hba_id][1][request.lun] = request


def machine_of(document: Document) -> Hbas:
    return {
        hba.id: (
            hba.engines,
            {lun.lun: LunRequest.of(lun, document.backstores[lun.backstore]) for lun in hba.luns},
        )
        for hba in document.hbas
    }


def said(_report: object) -> None:
    """Nobody listens."""


@unhurried
@given(documents(), documents())
def test_what_is_wanted_comes_to_run(running: Document, wanted: Document) -> None:
    try:
        found = changes(running, wanted, prune="all")
    except ConfigError:
        assume(False)
    machine, noted = Model(running), [running]
    heard: list[Any] = []
    applying = Applying(running, machine, noted.append)
    applying.carry_out(found.steps, heard.append)
    assert machine.hbas == machine_of(wanted)
    assert applying.document == noted[-1] == wanted
    assert [report["step"] for report in heard] == list(range(1, len(found) + 1))


@unhurried
@given(documents(), documents())
def test_a_refusal_at_any_call_leaves_all_as_it_was(running: Document, wanted: Document) -> None:
    try:
        found = changes(running, wanted, prune="all")
    except ConfigError:
        assume(False)
    whole = Model(running)
    Applying(running, whole, said).carry_out(found.steps, said)
    for number in range(whole.calls):
        machine, noted = Model(running, refuse=number), [running]
        applying = Applying(running, machine, noted.append)
        with pytest.raises(HostError, match="refused"):
            applying.carry_out(found.steps, said)
        assert machine.hbas == machine_of(running)
        assert applying.document == noted[-1] == running


@unhurried
@given(documents(), documents())
def test_what_runs_can_be_noted_or_nothing_is_done(running: Document, wanted: Document) -> None:
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

        applying = Applying(running, machine, note)
        with pytest.raises(HostError, match="is full"):
            applying.carry_out(found.steps, said)
        assert machine.hbas == machine_of(running)
        assert applying.document == notes[-1] == running


def test_undoing_takes_away_what_is_in_use_by_now() -> None:
    running, wanted = Document(), documents_of(2)
    machine = Model(running, refuse=2)
    with pytest.raises(HostError):
        Applying(running, machine, said).carry_out(changes(running, wanted).steps, said)
    assert machine.forced == [True]
    assert machine.hbas == {}


def test_what_cannot_be_taken_back_stays_known(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Model):
        def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
            raise HostError("it is stuck")

        def remove_hba(self, hba_id: int) -> None:
            raise HostError("it has LUNs")

    running, wanted = Document(), documents_of(2)
    machine = Stubborn(running, refuse=2)
    applying = Applying(running, machine, said)
    with pytest.raises(HostError, match="refused"):
        applying.carry_out(changes(running, wanted).steps, said)
    assert "cannot take back: add LUN 0 of HBA 0: a0: it is stuck" in caplog.text
    assert machine.hbas == machine_of(applying.document)
    assert [lun.lun for hba in applying.document.hbas for lun in hba.luns] == [0]


def documents_of(count: int) -> Document:
    stacks = {f"a{number}": {"handler": "memory", "size": "1MiB"} for number in range(count)}
    luns = [{"lun": number, "backstore": f"a{number}"} for number in range(count)]
    return read({"version": 1, "backstores": stacks, "hbas": [{"id": 0, "luns": luns}]}, Path("/"))
