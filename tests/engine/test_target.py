"""An engine from its start to its end, and the verbs in between: on a fake configfs."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.engine.rig import rw10
from tests.engine.stuck import gate_of, stuck_document
from tests.polling import wait_until
from vscsihba import configfs
from vscsihba.control import call
from vscsihba.engine import target as target_module
from vscsihba.engine.owning import owned_lun
from vscsihba.engine.owning.locks import lock_hba, run_directory, try_lock
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.luns import LinuxDisk, Luns
from vscsihba.engine.owning.ownership import Ownership
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.target import Target
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.loopback import Loopback

MiB = 1 << 20
LIMIT = 60


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def rings() -> Iterator[list[Loopback]]:
    """The rings of all LUNs, in the order of their creation."""
    made: list[Loopback] = []
    yield made
    for ring in made:
        ring.close()


@pytest.fixture
def kernel(tmp_path: Path, run: Path, rings: list[Loopback], monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    fake = FakeConfigfs(tmp_path / "kernel", monkeypatch)

    def transport(_device: object, _journal: Path) -> Any:
        rings.append(Loopback(blocks=64))
        return rings[-1].transport

    monkeypatch.setattr(owned_lun, "TcmuTransport", transport)
    monkeypatch.setattr(owned_lun, "read_device", lambda path: path)
    monkeypatch.setattr(target_module, "lock_hba", partial(lock_hba, run=run))
    monkeypatch.setattr(target_module, "run_directory", partial(run_directory, run=run))
    monkeypatch.setattr(configfs, "prepare", lambda: None)
    monkeypatch.setattr(Luns, "disk", lambda _luns, lun: LinuxDisk(lun, Path(f"/dev/sd{lun}"), MiB))
    return fake


@pytest.fixture
def target(kernel: FakeConfigfs) -> Iterator[Target]:
    with Target(3, [], listeners=Listeners(), by="vscsihba", end=lambda: None) as made:
        yield made


@pytest.fixture
def ask(target: Target, run: Path) -> Callable[..., Any]:
    def ask(verb: str, **arguments: object) -> Any:
        return call(run / "hba3" / f"engine-{os.getpid()}.control", verb, arguments, timeout=LIMIT)

    return ask


def request(lun: int = 0, size: object = "1MiB") -> dict[str, object]:
    return {"lun": lun, "document": {"handler": "memory", "size": size}}


def left(kernel: FakeConfigfs) -> list[str]:
    luns = [path.name for path in kernel.loopback.glob("naa*/tpgt_1/lun/lun_*")]
    return luns + [path.name for path in kernel.core.glob("user_*/vscsihba*")]


def test_luns_come_grow_and_go(ask: Callable[..., Any], target: Target, kernel: FakeConfigfs) -> None:
    assert ask("status")["luns"] == []
    assert ask("add_lun", request=request(4)) == {"device": "/dev/sd4", "size": MiB}
    assert ask("add_lun", request=request(4)) == {"device": "/dev/sd4", "size": MiB}, "it is known"
    assert [disk.lun for disk in target.disks] == [4]
    assert left(kernel) == ["lun_4", "vscsihba3-lun4"]
    assert ask("resize", lun=4, size=2 * MiB) == {"owner": True}
    (lun,) = ask("status")["luns"]
    assert (lun["lun"], lun["owner"], lun["size"], lun["failure"]) == (4, True, 2 * MiB, None)
    ask("tune_lun", lun=4, tuning={"queue_depth": 8})
    assert ask("remove_lun", lun=4) is None
    assert left(kernel) == []
    assert ask("status")["luns"] == target.disks == []


def test_what_cannot_be_is_refused_in_one_line(ask: Callable[..., Any]) -> None:
    ask("add_lun", request=request(0))
    for arguments, message in (
        ({"request": {"lun": 0}}, "not a LUN: .*document"),
        (
            {"request": request(0) | {"removable": True}},
            "LUN 0 of HBA 3 already exists with different",
        ),
        ({"request": {"lun": 1, "document": {"handler": "memry"}}}, "memry"),
        ({"request": request(20000)}, "LUN 20000 is out of range"),
    ):
        with pytest.raises((UsageError, HostError), match=message) as refused:
            ask("add_lun", **arguments)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="does not know LUN 7"):
        ask("resize", lun=7, size=MiB)
    with pytest.raises(UsageError, match="no other engine of HBA 3 knows LUN 0; remove it"):
        ask("remove_lun", lun=0, leave=True)
    with pytest.raises(UsageError, match="cannot shrink"):
        ask("resize", lun=0, size=MiB // 2)
    assert [lun["lun"] for lun in ask("status")["luns"]] == [0]


def test_a_disk_in_use_goes_only_by_force(
    ask: Callable[..., Any], kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("add_lun", request=request(0))
    monkeypatch.setattr(configfs, "users_of_lun", lambda *_place: ["/dev/sda is mounted on /mnt"])
    with pytest.raises(HostError, match="LUN 0 of HBA 3 is in use: /dev/sda is mounted on /mnt"):
        ask("remove_lun", lun=0)
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]
    ask("remove_lun", lun=0, force=True)
    assert left(kernel) == []


def test_a_lun_that_only_exports_show_is_rolled_back_by_force_only(
    ask: Callable[..., Any], target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Luns, "disk", lambda _luns, _lun: None)
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MiB))
    stack = {"handler": "snapshot", "path": str(tmp_path / "set"), "create": True, "next": str(image)}
    assert ask("add_lun", request={"lun": 0, "document": stack, "local": False}, make=True) == {}
    assert target.disks == []
    wanted = {"lun": 0, "layer": "snapshot"}
    ask("act", **wanted, action="take", arguments={"name": "s1"}, force=False)
    back = {**wanted, "action": "roll_back", "arguments": {"name": "s1"}}
    with pytest.raises(HostError, match="initiators of exports may use the disk; log out there"):
        ask("act", **back, force=False)
    assert ask("act", **back, force=True)["reread"] is None


def test_removing_a_missing_unit_does_nothing(ask: Callable[..., Any]) -> None:
    assert ask("remove_lun", lun=5) is None


@pytest.mark.parametrize("culprit", ["tune", "disk"])
def test_a_lun_that_fails_late_leaves_nothing(
    culprit: str, ask: Callable[..., Any], kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise HostError("refused")

    if culprit == "tune":
        monkeypatch.setattr("vscsihba.engine.owning.luns.tune", refuse)
    else:
        monkeypatch.setattr(Luns, "disk", refuse)
    with pytest.raises(HostError, match="refused"):
        ask("add_lun", request=request(0))
    assert left(kernel) == []
    assert ask("status")["luns"] == []


def test_an_engine_that_leaves_takes_everything_along(kernel: FakeConfigfs, run: Path) -> None:
    with Target(3, [LunSpec(0, {"handler": "memory", "size": MiB})], listeners=Listeners()) as target:
        target.add(LunSpec(1, {"handler": "memory", "size": MiB}))
        assert len(left(kernel)) == 4
    assert left(kernel) == []
    assert not list(kernel.loopback.iterdir())
    assert {path.suffix for path in (run / "hba3").iterdir()} == {".lock"}


def test_an_engine_that_leaves_storage_that_hangs_says_what_is_lost(
    kernel: FakeConfigfs, rings: list[Loopback], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is removed all the same, as the user has decided."""
    monkeypatch.setattr(owned_lun.OwnedLun, "close", partialmethod(owned_lun.OwnedLun.close, patience=0.1))
    target = Target(3, [LunSpec(0, stuck_document(tmp_path))], listeners=Listeners())
    target.__enter__()
    gate, writing = gate_of(target._ownership.owned[0])
    try:
        for _ in range(2):  # the first one may be told of a unit attention
            rings[0].submit(rw10(0x2A, 0, 1), data_out=bytes(512))
        assert writing.wait(LIMIT)
        with pytest.raises(HostError, match="LUN 0 of HBA 3 does not answer: unfinished writes are lost"):
            target.__exit__(None, None, None)
        assert left(kernel) == []
        assert not list(kernel.loopback.iterdir())
    finally:
        gate.set()


def test_engines_of_two_programs_do_not_share_an_hba(target: Target) -> None:
    with pytest.raises(InUseError, match="HBA 3 is already served by vscsihba"):
        Target(3, [], listeners=Listeners()).__enter__()


def test_it_can_be_asked_to_end_only_where_that_is_meant(
    ask: Callable[..., Any], target: Target, kernel: FakeConfigfs
) -> None:
    assert ask("end") is None
    target.__exit__()
    with Target(3, [], listeners=Listeners()), pytest.raises(UsageError, match="unknown verb 'end'"):
        ask("end")


def test_a_lun_that_is_changed_for_long_keeps_no_other_waiting(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.add(LunSpec(0, {"handler": "memory", "size": MiB}))
    resizing, gate, settled = threading.Event(), threading.Event(), threading.Semaphore(0)
    real, real_reconcile = Ownership.resize, Ownership.reconcile

    def resize(ownership: Ownership, lun: int, size: int) -> bool:
        resizing.set()
        assert gate.wait(LIMIT)
        return real(ownership, lun, size)

    def reconcile(ownership: Ownership, mine: set[int]) -> bool:
        settled.release()
        return real_reconcile(ownership, mine)

    monkeypatch.setattr(Ownership, "resize", resize)
    monkeypatch.setattr(Ownership, "reconcile", reconcile)
    thread = threading.Thread(target=target.resize, args=(0, 2 * MiB))
    thread.start()
    try:
        assert resizing.wait(LIMIT)
        target.add(LunSpec(1, {"handler": "memory", "size": MiB}))
        assert settled.acquire(timeout=LIMIT), "LUNs are taken over meanwhile"
        target.remove(1)
        removing = threading.Thread(target=target.remove, args=(0,))
        removing.start()
        assert target._ownership.busy == {0}
        assert 0 in target._ownership.owned, "but the LUN itself is waited for"
    finally:
        gate.set()
        thread.join(LIMIT)
    removing.join(LIMIT)
    assert not target.disks


def test_a_lun_that_is_changed_is_not_given_up(target: Target) -> None:
    target.add(LunSpec(0, {"handler": "memory", "size": MiB}))
    with target._holding(0):
        target._ownership.reconcile(set())
        assert 0 in target._ownership.owned
    target._ownership.reconcile(set())
    assert 0 not in target._ownership.owned


def test_an_engine_ends_though_another_changes_the_hba_for_ever(
    kernel: FakeConfigfs, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(target_module, "_LEAVE_PATIENCE", 0.0)
    with Target(3, [], listeners=Listeners()) as target:
        target.add(LunSpec(0, {"handler": "memory", "size": MiB}))
        fd = try_lock(run / "hba3" / "turn.lock")
        assert fd is not None
    os.close(fd)
    assert "HBA 3 is left unchanged" in caplog.text
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]
    assert not list((run / "hba3").glob("*.sock"))


def test_what_opens_after_the_end_is_closed_again(target: Target) -> None:
    target.add(LunSpec(0, {"handler": "memory", "size": MiB, "label": "one"}))
    lun = target._ownership.owned.pop(0)
    target._ownership.leaving = True
    lun.close()
    wait_until(lambda: target._ownership.take_over(0))
    assert not target._ownership.owned
    wait_until(lambda: target._ownership.reconcile({0}))
    assert not target._ownership.owned


@pytest.mark.parametrize(
    ("fault", "asked"),
    [(None, None), (InUseError("in use"), None), (HostError("Permission denied"), "/dev/sd4")],
)
def test_partitions_that_an_engine_may_not_read_again_are_left_to_who_has_asked(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None, asked: str | None
) -> None:
    def read_again(_disk: Path) -> None:
        if fault is not None:
            raise fault

    monkeypatch.setattr(configfs, "reread_partitions", read_again)
    assert target_module._reread(LinuxDisk(4, Path("/dev/sd4"), MiB)) == asked
