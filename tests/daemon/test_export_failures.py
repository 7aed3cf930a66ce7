"""Every operation of every change of an export fails, or is the last one of a killed service.

The kernel's configfs is a folder of files. A failure leaves the old state; so does a kill, once the next
service has started.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.daemon.failing_configfs import FailingConfigfs, Killed
from vscsihba.config.change import Change
from vscsihba.config.export_changes import AddExport, ChangeExport, ReduceExport, RemoveExport
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.configfs import BackstoreSpec, backstore_name, create_backstore
from vscsihba.daemon.exports import Exports, Lio
from vscsihba.errors import HostError

NAME = "iqn.2026-11.example:store"
HOST, OTHER = "iqn.2026-11.example:host1", "iqn.2026-11.example:host2"


class Prepared(Lio):
    """LIO, with its modules loaded already."""

    @staticmethod
    def prepare() -> None:
        """Do nothing."""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FailingConfigfs:
    fake = FakeConfigfs(tmp_path, monkeypatch)
    for lun in (0, 1):
        create_backstore(BackstoreSpec(backstore_name(0, lun), 1 << 20, f"serial-{lun}"))
    fake.iscsi.mkdir()
    for name in ("u1", "u2", "store"):
        (tmp_path / name).write_text(f"secret-of-{name}-0\n")
        (tmp_path / name).chmod(0o600)
    return FailingConfigfs(fake, monkeypatch)


def document(folder: Path, export: dict[str, Any] | None) -> Document:
    whole = {"transport": "iscsi", "name": NAME, **(export or {})}
    return read(
        {
            "version": 1,
            "backstores": {name: {"handler": "memory", "size": "1MiB"} for name in "ab"},
            "hbas": [{"id": 0, "luns": [{"lun": 0, "backstore": "a"}, {"lun": 1, "backstore": "b"}]}],
            "exports": [] if export is None else [whole],
        },
        folder,
    )


SMALL: dict[str, Any] = {
    "portals": ["127.0.0.1:3260"],
    "initiators": [{"name": HOST}],
    "luns": [{"lun": 0, "backstore": "a", "read_only": True}],
}
FULL: dict[str, Any] = {
    "portals": ["127.0.0.1:3260", "[::1]:3261"],
    "initiators": [
        {
            "name": HOST,
            "user": "u1",
            "password_file": "u1",
            "mutual_user": "store",
            "mutual_password_file": "store",
        },
        {"name": OTHER, "user": "u2", "password_file": "u2", "luns": [5]},
    ],
    "luns": [
        {"lun": 0, "backstore": "a"},
        {"lun": 5, "backstore": "b", "read_only": True, "state": "standby"},
    ],
    "cmdsn_depth": 32,
    "nopin_timeout": 5,
    "data_digest": "CRC32C",
}
OPEN: dict[str, Any] = {"portals": ["[::1]:3260"], "open": True, "luns": [{"lun": 3, "backstore": "b"}]}
MOVED: dict[str, Any] = {**SMALL, "luns": [{"lun": 0, "backstore": "b"}]}

CHANGES = {
    "add-small": (AddExport, None, SMALL),
    "add-full": (AddExport, None, FULL),
    "add-open": (AddExport, None, OPEN),
    "change-small-full": (ChangeExport, SMALL, FULL),
    "change-small-open": (ChangeExport, SMALL, OPEN),
    "change-small-moved": (ChangeExport, SMALL, MOVED),
    "reduce-full-small": (ReduceExport, FULL, SMALL),
    "reduce-open-full": (ReduceExport, OPEN, FULL),
    "remove-small": (RemoveExport, SMALL, None),
    "remove-full": (RemoveExport, FULL, None),
    "remove-open": (RemoveExport, OPEN, None),
}


class Run:
    """A change of an export, from a document to the next one."""

    def __init__(self, name: str, kernel: FailingConfigfs, folder: Path) -> None:
        kind, before, after = CHANGES[name]
        self.before, self.after = document(folder, before), document(folder, after)
        self.kernel = kernel
        self.made: dict[str, str] = {}
        self._kind = kind
        self._folder = folder
        self._exports = Exports({"iscsi": Prepared()})

    def start(self) -> dict[str, str]:
        """Make the targets of the document before the change; return the state of the kernel."""
        self._exports.resume(self.before, Document())
        return self.kernel.tree()

    def carry_out(self) -> None:
        """Carry the change out, as `Transaction` does."""
        kind, exports = self._kind, self._exports
        if kind is AddExport:
            exports.add(self.after.exports[0], self.after)
        elif kind is RemoveExport:
            exports.remove(self.before.exports[0])
        else:
            exports.change(self.after.exports[0], self.after)

    def restart(self) -> None:
        """Start the next service: it undoes the change that was cut off."""
        exports = Exports({"iscsi": Prepared()})
        exports.resume(self.before, self.after)
        assert exports.failures == {}

    def operations(self) -> int:
        """Carry the change out and back; return how many operations on configfs it makes."""
        with self.kernel.at(None):
            self.carry_out()
        done, self.made = self.kernel.count, self.kernel.tree()
        self.restart()
        return done


@pytest.fixture(params=CHANGES)
def run(request: pytest.FixtureRequest, kernel: FailingConfigfs, tmp_path: Path) -> Run:
    return Run(request.param, kernel, tmp_path)


def each_operation(run: Run, strike: Callable[[int], None]) -> None:
    """Strike every operation of a change in turn, and compare the kernel with its state before."""
    before = run.start()
    operations = run.operations()
    assert operations > 3
    assert run.kernel.tree() == before
    for number in range(operations):
        strike(number)
        assert run.kernel.tree() == before, f"operation {number} of {operations}"


def test_an_operation_that_fails_leaves_the_old_state(run: Run) -> None:
    def strike(number: int) -> None:
        with run.kernel.at(number), suppress(HostError):
            run.carry_out()
            # An ALUA group that stays does no harm, and goes with its backstore.
            assert run.kernel.struck.parent.name == "alua"
            assert run.kernel.tree() == run.made
            run.restart()

    each_operation(run, strike)


def test_a_kill_at_any_operation_leaves_the_old_state_after_the_restart(run: Run) -> None:
    def strike(number: int) -> None:
        with run.kernel.at(number, kill=True), pytest.raises(Killed):
            run.carry_out()
        run.restart()

    each_operation(run, strike)


def test_the_changes_are_those_of_documents() -> None:
    kinds = {kind.__name__ for kind, _, _ in CHANGES.values()}
    assert kinds == {kind.__name__ for kind in Change.__subclasses__() if "Export" in kind.__name__}
