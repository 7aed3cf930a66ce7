"""A kernel in a dictionary: carries steps out, as strict about their order as the real one."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vscsihba.configfs import (
    Backstore,
    BackstoreSpec,
    CreateBackstore,
    CreateHba,
    DeleteBackstore,
    DeleteHba,
    Hba,
    LinkLun,
    Lun,
    Observed,
    Release,
    Resize,
    Serve,
    SetAttribute,
    Step,
    UnlinkLun,
)
from vscsihba.errors import HostError


class FakeKernel:
    """Starts from what was observed; `served` are the rings that somebody answers."""

    def __init__(self, observed: Observed, served: set[str]) -> None:
        self.backstores = dict(observed.backstores)
        self.hbas = {key: replace(hba, luns=dict(hba.luns)) for key, hba in observed.hbas.items()}
        self.foreign = observed.foreign
        self.served = set(served)
        self.done: list[Step] = []
        self.fail_at: int | None = None

    def observe(self) -> Observed:
        return Observed(dict(self.backstores), dict(self.hbas), self.foreign)

    def __call__(self, step: Step) -> None:
        if self.fail_at is not None and len(self.done) == self.fail_at:
            self.fail_at = None
            raise HostError(f"injected at {step}")
        self._perform(step)
        self.done.append(step)

    def _perform(self, step: Step) -> None:
        match step:
            case CreateBackstore(spec):
                assert spec.name not in self.backstores
                self.backstores[spec.name] = Backstore(spec, 0, enabled=True, uio=Path("/dev/uio0"))
            case Serve(name):
                assert self.backstores[name].enabled
                assert name not in self.served
                self.served.add(name)
            case Release(name):
                assert not self._links_to(name), "a ring is served until its last LUN is gone"
                self.served.remove(name)
            case DeleteBackstore(name):
                assert not self._links_to(name), "the kernel says EBUSY"
                assert name not in self.served, "a ring is closed before its backstore goes"
                del self.backstores[name]
            case Resize(name, old, new):
                self._change(name, "size", old, new)
            case SetAttribute(name, attribute, old, new):
                self._change(name, attribute, old, new)
            case _:
                self._perform_on_hba(step)

    def _perform_on_hba(self, step: CreateHba | DeleteHba | LinkLun | UnlinkLun) -> None:
        assert step.hba_id not in self.foreign, "never touch what is not ours"
        match step:
            case CreateHba(hba_id):
                before = self.hbas.get(hba_id)
                assert before is None or not before.complete
                self.hbas[hba_id] = Hba(hba_id, dict(before.luns) if before else {}, host=hba_id)
            case DeleteHba(hba_id):
                assert not self.hbas[hba_id].luns
                del self.hbas[hba_id]
            case LinkLun(hba_id, lun, name):
                assert self.hbas[hba_id].complete
                assert lun not in self.hbas[hba_id].luns
                assert self.backstores[name].enabled
                assert name in self.served, "nobody would answer the scan"
                self._luns(hba_id)[lun] = Lun(lun, name, f"{hba_id}:0:1:{lun}")
            case UnlinkLun(hba_id, lun, name, served=served):
                assert self.hbas[hba_id].luns[lun].backstore == name
                assert not served or name in self.served, "nobody would answer the flush"
                del self._luns(hba_id)[lun]

    def _luns(self, hba_id: int) -> dict[int, Lun]:
        luns = self.hbas[hba_id].luns
        assert isinstance(luns, dict)
        return luns

    def _links_to(self, name: str) -> list[Lun]:
        return [lun for hba in self.hbas.values() for lun in hba.luns.values() if lun.backstore == name]

    def _change(self, name: str, field: str, old: int, new: int) -> None:
        found = self.backstores[name]
        values: dict[str, Any] = {entry.name: getattr(found.spec, entry.name) for entry in fields(found.spec)}
        assert values[field] == old
        self.backstores[name] = replace(found, spec=BackstoreSpec(**{**values, field: new}))
