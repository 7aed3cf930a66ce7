"""LUNs that are added, resized and removed, and leftovers of a dead engine: on a fake configfs."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.engine.rig import rw10
from tests.engine.stuck import gate_of, stuck_document
from tests.polling import wait_until
from vscsihba import configfs
from vscsihba.configfs import observer, paths
from vscsihba.engine.owning import owned_lun, ownership
from vscsihba.engine.owning.appearance import Appearance, Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.luns import Luns
from vscsihba.engine.owning.ownership import Ownership
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import DeviceGoneError, HostError, InUseError, UsageError
from vscsihba.handlers.stack import Document
from vscsihba.loopback import Loopback

MiB = 1 << 20
Make = Callable[..., Luns]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    fake = FakeConfigfs(tmp_path / "kernel", monkeypatch)
    configfs.create_hba(3)
    return fake


@pytest.fixture
def rings() -> list[Loopback]:
    """The rings of all LUNs, in the order of their creation."""
    return []


@pytest.fixture
def make(
    kernel: FakeConfigfs, rings: list[Loopback], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Engines on HBA 3 with one run directory; they are killed at the end of the test."""
    made: list[tuple[Luns, Pump]] = []

    def transport(_device: object, _journal: Path) -> Any:
        rings.append(Loopback(blocks=64))
        return rings[-1].transport

    monkeypatch.setattr(owned_lun, "TcmuTransport", transport)
    monkeypatch.setattr(owned_lun, "read_device", lambda path: path)
    run = tmp_path / "run"
    run.mkdir()

    def new(listeners: Listeners = Listeners()) -> Luns:  # noqa: B008 - it is frozen
        pump = Pump()
        pump.start()
        ownership = Ownership(3, run, pump=pump, listeners=listeners)
        made.append((Luns(3, run, ownership, notice=lambda _text: None), pump))
        return made[-1][0]

    yield new
    for engine, pump in made:
        for owned in list(engine.ownership.owned.values()):
            owned.close()
        pump.stop()
    for ring in rings:
        ring.close()


def die(engine: Luns) -> None:
    """Release everything, as a killed process does; the objects of the kernel stay."""
    for owned in engine.ownership.owned.values():
        owned.close()
    engine.ownership.owned.clear()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(MiB))
    return path


def wanted(image: Path, **options: object) -> LunSpec:
    return LunSpec(0, {"handler": "file", "path": str(image), **options})


def left(kernel: FakeConfigfs) -> list[str]:
    """Return the LUNs and backstores that the kernel has."""
    luns = [path.name for path in kernel.loopback.glob("naa*/tpgt_1/lun/lun_*")]
    return luns + [path.name for path in kernel.core.glob("user_*/vscsihba*")]


def rescanned() -> bool:
    return (paths.SYSFS / "bus/scsi/devices/6:0:1:0/rescan").read_text() == "1\n"


def test_a_lun_comes_and_goes_and_leaves_nothing(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]
    assert engine.ownership.owned.keys() == engine.ownership.known.keys() == engine.ownership.created == {0}
    status = engine.ownership.status(0)
    assert (status["owner"], status["size"], status["failure"]) == (True, MiB, None)
    run = image.parent / "run"
    assert sorted(path.name for path in run.iterdir()) == ["lun0.json", "lun0.lock", "lun0.stats"]
    engine.remove(0)
    assert left(kernel) == []
    assert list(run.iterdir()) == []
    assert (engine.ownership.known, engine.ownership.owned, engine.ownership.created) == ({}, {}, set())


def test_a_lun_that_is_not_local_is_served_and_linked_to_no_hba(
    make: Make, kernel: FakeConfigfs, image: Path
) -> None:
    engine = make()
    request = replace(wanted(image), local=False)
    engine.add(request, known_by_others=False)
    assert left(kernel) == ["vscsihba3-lun0"]
    assert engine.disk(0) is None
    assert configfs.observe().hbas[3].luns[0].complete
    engine.ownership.resize(0, 2 * MiB)
    assert engine.ownership.status(0)["size"] == 2 * MiB
    die(engine)
    successor = make()
    successor.ownership.known[0] = request
    successor.create_all([])
    assert successor.ownership.owned[0].created is False
    successor.add(request, known_by_others=False)
    successor.remove(0)
    assert left(kernel) == []


def test_all_luns_go_with_their_engine_local_or_not(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    engine = make()
    engine.add(replace(wanted(image), local=False), known_by_others=False)
    engine.remove_all(frozenset(), lambda: None, last=True)
    assert left(kernel) == []
    assert 3 not in configfs.observe().hbas


@pytest.mark.parametrize("local", [True, False])
def test_a_leftover_that_is_to_be_local_or_no_longer_is_made_anew(
    make: Make, kernel: FakeConfigfs, image: Path, local: bool
) -> None:
    first = make()
    first.add(replace(wanted(image), local=not local), known_by_others=False)
    die(first)
    second = make()
    second.ownership.known[0] = replace(wanted(image), local=local)
    second.create_all([])
    assert left(kernel) == ["lun_0"] * local + ["vscsihba3-lun0"]


def test_the_same_lun_again_is_nothing_and_another_is_refused(make: Make, image: Path) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    owned = engine.ownership.owned[0]
    engine.add(wanted(image, size="1MiB"), known_by_others=False)
    assert engine.ownership.owned[0] is owned
    with pytest.raises(UsageError, match="LUN 0 of HBA 3 already exists with different backing storage"):
        engine.add(wanted(image, read_only=True), known_by_others=False)


def test_a_lun_that_linux_does_not_take_leaves_nothing(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    kernel.answered = False
    engine = make()
    with pytest.raises(HostError, match="Linux found no device"):
        engine.add(wanted(image), known_by_others=False)
    assert left(kernel) == []
    assert (engine.ownership.known, engine.ownership.owned) == ({}, {})
    assert not (image.parent / "run" / "lun0.json").exists()
    kernel.answered = True
    engine.add(wanted(image), known_by_others=False)


def test_a_medium_that_cannot_be_opened_leaves_nothing(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    image.unlink()
    with pytest.raises(UsageError, match=r"a\.img"):
        make().add(wanted(image), known_by_others=False)
    assert left(kernel) == []


def test_what_a_dead_engine_has_left_is_gone_on_with(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    first = make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    ring = kernel.core / "user_0/vscsihba3-lun0"
    before = ring.stat().st_ino
    second = make()
    second.add(wanted(image), known_by_others=False)
    assert ring.stat().st_ino == before
    assert second.ownership.status(0)["owner"]
    second.remove(0)
    assert left(kernel) == []


def test_what_has_grown_meanwhile_grows_in_the_kernel(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    first = make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    os.truncate(image, 4 * MiB)
    second = make()
    second.add(wanted(image, size="4MiB"), known_by_others=False)
    assert (kernel.core / "user_0/vscsihba3-lun0/control").read_text() == f"dev_size={4 * MiB}\n"
    assert rescanned()


def test_a_medium_is_made_once_by_whoever_adds_the_lun(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    image.unlink()
    request = wanted(image, size="1MiB")
    first = make()
    with pytest.raises(UsageError, match="only adding the LUN makes one"):
        first.add(request, known_by_others=False)
    assert left(kernel) == []
    first.add(request, known_by_others=False, make=True)
    image.unlink()
    die(first)
    for successor in (make(), make()):
        with pytest.raises(UsageError, match="only adding the LUN makes one"):
            successor.add(request, known_by_others=False)
        successor.ownership.known[0] = request
        with pytest.raises(UsageError, match="only adding the LUN makes one"):
            successor.create_all([])
    assert not image.exists()
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]


def test_a_medium_is_not_made_where_another_program_has_removed_the_lun(make: Make, image: Path) -> None:
    image.unlink()
    request = wanted(image, size="1MiB")
    engine = make()
    engine.add(request, known_by_others=False, make=True)
    image.unlink()
    configfs.clear_hba(3, force=True)
    with pytest.raises(UsageError, match="only adding the LUN makes one"):
        engine.add(request, known_by_others=False, make=True)
    assert not image.exists()


def test_a_file_that_has_shrunk_while_its_lun_was_away_is_not_a_disk(make: Make, image: Path) -> None:
    with pytest.raises(
        HostError, match=r"a\.img has only 1MiB of its 4MiB; restore it; .* truncate -s 4194304"
    ):
        make().add(wanted(image, size="4MiB"), known_by_others=False)
    assert image.stat().st_size == MiB


def test_another_disk_in_the_place_of_what_was_left(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    first = make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    other = image.with_name("b.img")
    other.write_bytes(bytes(2 * MiB))
    second = make()
    second.add(wanted(other), known_by_others=False)
    assert second.ownership.status(0)["size"] == 2 * MiB
    assert kernel.attribute("vscsihba3-lun0", "dev_size") == str(2 * MiB)


def test_what_was_left_and_is_in_use_is_kept(
    make: Make, kernel: FakeConfigfs, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    monkeypatch.setattr(configfs, "users_of_lun", lambda *_place: ["/dev/sda is mounted on /mnt"])
    with pytest.raises(
        InUseError, match=r"LUN 0 of HBA 3 is a leftover with different .* storage, but .* is mounted"
    ):
        make().add(wanted(image, read_only=True), known_by_others=False)
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]


def test_a_lun_that_another_engine_serves_is_only_known(make: Make, image: Path) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    assert set(second.ownership.known) == {0}
    assert second.ownership.owned == {}
    assert second.ownership.reconcile({0}) is False, "it has its owner's lock"
    first.ownership.leave(0)
    first.ownership.wait_for_releases()
    assert second.ownership.reconcile({0}) is True
    assert second.ownership.status(0)["owner"]


def test_a_stack_that_has_changed_itself_is_the_same_disk_for_all(make: Make, image: Path) -> None:
    """An action of a layer has changed the stack, and a new service tells every engine."""
    first, second, third = make(), make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    now = LunSpec(0, {"handler": "readonly", "next": wanted(image).document})
    first.ownership.owned[0].take_note(now.document)
    second.add(now, known_by_others=True)
    third.add(now, known_by_others=True)
    assert second.ownership.known == third.ownership.known == {0: now}
    with pytest.raises(UsageError, match="different backing storage"):
        second.add(wanted(image), known_by_others=True)


def test_a_lun_whose_storage_hangs_keeps_no_other_from_moving(
    make: Make, rings: list[Loopback], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_lun.OwnedLun, "close", partialmethod(owned_lun.OwnedLun.close, patience=600))
    requests = [
        LunSpec(0, stuck_document(image.parent)),
        LunSpec(1, {"handler": "memory", "size": MiB}),
    ]
    engine, other = make(), make()
    for request in requests:
        engine.add(request, known_by_others=False)
        other.add(request, known_by_others=True)
    gate, writing = gate_of(engine.ownership.owned[0])
    try:
        for _ in range(2):  # the first one may be told of a unit attention
            rings[0].submit(rw10(0x2A, 0, 1), data_out=bytes(512))
        assert writing.wait(60)
        assert engine.ownership.reconcile(set())
        wait_until(lambda: other.ownership.take_over(1))
        assert not other.ownership.reconcile({0, 1}), "two owners would be one too many"
    finally:
        gate.set()
    engine.ownership.wait_for_releases()
    assert other.ownership.reconcile({0, 1})


def test_an_empty_hba_goes_with_its_last_engine_only(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    first, second = make(), make()
    first.remove_all(frozenset(), lambda: None, last=False)
    second.add(wanted(image), known_by_others=False)
    second.remove(0)
    second.remove_all(frozenset(), lambda: None, last=True)
    assert list(kernel.loopback.glob("naa*")) == []


def test_a_lun_whose_medium_is_away_is_told_of_and_tried_again(make: Make, image: Path) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    first.ownership.leave(0)
    first.ownership.wait_for_releases()
    away = image.rename(image.with_suffix(".away"))
    assert second.ownership.reconcile({0}) is True
    assert "a.img" in second.ownership.status(0)["failure"]
    away.rename(image)
    assert second.ownership.reconcile({0}) is True
    assert second.ownership.status(0)["failure"] is None
    assert second.ownership.failures == {}


def test_a_lun_grows_and_linux_is_told(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    engine = make()
    engine.add(wanted(image, size="1MiB"), known_by_others=False)
    assert engine.ownership.resize(0, 3 * MiB) is True
    assert image.stat().st_size == 3 * MiB
    assert (kernel.core / "user_0/vscsihba3-lun0/control").read_text() == f"dev_size={3 * MiB}\n"
    assert rescanned()
    assert engine.ownership.known[0].document == {"handler": "file", "path": str(image), "size": 3 * MiB}
    assert engine.ownership.resize(0, 3 * MiB) is True, "nothing to do"


def test_a_lun_grows_with_storage_that_another_client_enlarges(
    make: Make, kernel: FakeConfigfs, image: Path
) -> None:
    events: list[str] = []
    engine = make(Listeners(resized=lambda: events.append("resized")))
    engine.add(wanted(image), known_by_others=False)
    (source,) = engine.ownership.owned[0].stack.layers  # type: ignore[union-attr]
    assert engine.ownership.resized() == []
    source.resized(3 * MiB)
    assert (events, engine.ownership.resized()) == (["resized"], [0])
    engine.ownership.follow_size(0)
    assert engine.ownership.resized() == []
    assert (kernel.core / "user_0/vscsihba3-lun0/control").read_text() == f"dev_size={3 * MiB}\n"
    assert engine.ownership.status(0)["size"] == 3 * MiB
    assert rescanned()
    source.resized(MiB)
    engine.ownership.follow_size(0)
    assert engine.ownership.status(0)["size"] == 3 * MiB, "no disk shrinks"


def test_a_lun_that_cannot_follow_its_storage_keeps_its_size(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)

    def refuse(_name: str, _size: int) -> None:
        raise HostError("the kernel refuses")

    monkeypatch.setattr(configfs, "resize_backstore", refuse)
    engine.ownership.owned[0].stack.layers[0].resized(3 * MiB)  # type: ignore[union-attr]
    engine.ownership.follow_size(0)
    assert "lun 0: it does not grow with its storage: the kernel refuses" in caplog.text
    assert engine.ownership.status(0)["size"] == MiB


def test_a_layer_with_a_size_of_its_own_refuses_and_all_is_as_before(make: Make, image: Path) -> None:
    engine = make()
    overlay = image.with_suffix(".overlay")
    stack = {
        "handler": "cow",
        "path": str(overlay),
        "create": True,
        "next": {"handler": "file", "path": str(image)},
    }
    engine.add(LunSpec(0, stack), known_by_others=False, make=True)
    with pytest.raises(HostError, match="a layer of LUN 0 has a size of its own"):
        engine.ownership.resize(0, 2 * MiB)
    assert (image.stat().st_size, engine.ownership.status(0)["size"]) == (MiB, MiB)


def test_no_lun_shrinks(make: Make, image: Path) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    with pytest.raises(UsageError, match=r"LUN 0 cannot shrink from 1.0 MiB to 512.0 KiB; create a smaller"):
        engine.ownership.resize(0, MiB // 2)
    assert image.stat().st_size == MiB


def test_a_size_that_the_kernel_refuses_is_taken_back(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)

    def refuse(_name: str, _size: int) -> None:
        raise HostError("the kernel refuses")

    monkeypatch.setattr(configfs, "resize_backstore", refuse)
    with pytest.raises(HostError, match="the kernel refuses"):
        engine.ownership.resize(0, 3 * MiB)
    assert (image.stat().st_size, engine.ownership.status(0)["size"]) == (MiB, MiB)


def test_a_lun_of_another_engine_is_only_remembered_as_grown(make: Make, image: Path) -> None:
    first, second = make(), make()
    first.add(wanted(image, size="1MiB"), known_by_others=False)
    second.add(wanted(image, size="1MiB"), known_by_others=True)
    assert second.ownership.resize(0, 2 * MiB) is False
    assert image.stat().st_size == MiB
    assert second.ownership.known[0].document == {"handler": "file", "path": str(image), "size": 2 * MiB}


def test_clearing_removes_what_nobody_serves(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    first = make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    second = make()
    second.clear(0)
    assert left(kernel) == []
    second.clear(0)


def test_what_another_program_has_removed_is_made_anew(make: Make, kernel: FakeConfigfs, image: Path) -> None:
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    configfs.unlink_lun(3, 0)
    configfs.delete_hba(3)
    configfs.delete_backstore("vscsihba3-lun0")
    engine.add(wanted(image), known_by_others=False)
    assert left(kernel) == ["lun_0", "vscsihba3-lun0"]
    assert engine.ownership.status(0)["owner"]


@pytest.mark.parametrize("step", ["create_backstore", "link_lun"])
def test_a_lun_is_up_or_nothing_is_whatever_fails(
    step: str, make: Make, kernel: FakeConfigfs, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise HostError("refused")

    monkeypatch.setattr(configfs, step, refuse)
    engine = make()
    with pytest.raises(HostError, match="refused"):
        engine.add(wanted(image), known_by_others=False)
    assert left(kernel) == []
    assert (engine.ownership.known, engine.ownership.owned) == ({}, {})


def test_hbas_are_looked_at_one_lun_at_a_time(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()

    def observe() -> None:
        raise AssertionError("looked at everything")

    monkeypatch.setattr(configfs, "observe", observe)
    monkeypatch.setattr(observer, "observe", observe)
    engine.add(wanted(image), known_by_others=False)
    engine.remove(0)


def failing(engine: Luns, lun: int, error: Exception) -> None:
    """Let the code that serves a LUN fail."""
    served = engine.ownership.owned[lun].served
    assert served is not None
    engine.ownership._pump.calls.post(partial(served._fail, error))
    wait_until(lambda: engine.ownership.owned[lun].failed)


def test_a_lun_that_fails_is_opened_again_and_the_others_stay(
    make: Make, rings: list[Loopback], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(MiB))
    engine = make()
    for lun, name in enumerate(("a", "b")):
        engine.add(LunSpec(lun, str(tmp_path / name)), known_by_others=False)
    first, other = engine.ownership.owned[0], engine.ownership.owned[1]
    failing(engine, 0, KeyError("a bug"))
    assert engine.ownership.failing
    assert not engine.ownership.lost
    assert "KeyError" in engine.ownership.status(0)["failure"]
    engine.ownership.reconcile({0, 1})
    assert engine.ownership.owned[0] is first, "not at once: it may fail again and again"
    monkeypatch.setattr(ownership, "RETRY", 0.0)
    wait_until(
        lambda: engine.ownership.reconcile({0, 1}) and engine.ownership.owned.get(0) not in (None, first)
    )
    assert engine.ownership.owned[1] is other
    assert not engine.ownership.failing
    answers = [rings[-1].wait(rings[-1].submit(rw10(0x28, 0, 1), data_in=512)) for _ in range(4)]
    assert answers[-1].status == 0


@pytest.mark.parametrize("volatile", [False, True])
def test_what_cannot_come_back_is_lost_and_not_tried_again(
    make: Make, tmp_path: Path, volatile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "RETRY", 0.0)
    (tmp_path / "a").write_bytes(bytes(MiB))
    engine = make()
    legs = [{"handler": "memory", "size": MiB} for _ in range(2)]
    document: Document = {"handler": "split", "legs": legs} if volatile else str(tmp_path / "a")
    engine.add(LunSpec(0, document), known_by_others=False)
    owned_before = engine.ownership.owned[0]
    failing(engine, 0, KeyError("a bug") if volatile else DeviceGoneError("another program removed it"))
    assert engine.ownership.lost
    assert not engine.ownership.failing
    assert engine.ownership.reconcile({0})
    assert engine.ownership.owned[0] is owned_before, "its memory is still there"


def test_a_lun_without_its_backstore_is_not_made_again_by_who_takes_it_over(
    make: Make, kernel: FakeConfigfs, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(MiB))
    engine, other = make(), make()
    engine.add(LunSpec(0, str(tmp_path / "a")), known_by_others=False)
    other.add(LunSpec(0, str(tmp_path / "a")), known_by_others=True)
    die(engine)
    configfs.unlink_lun(3, 0, served=False)
    configfs.delete_backstore(configfs.backstore_name(3, 0))
    assert other.ownership.reconcile({0})
    assert "another program has removed the backstore" in other.ownership.failures[0]
    assert not other.ownership.owned


def test_storage_that_does_not_answer_while_it_is_opened_keeps_no_other_lun_waiting(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GRACE", 0.0)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(MiB))
    first, second = make(), make()
    for lun, name in enumerate(("a", "b")):
        first.add(LunSpec(lun, str(tmp_path / name)), known_by_others=False)
        second.add(LunSpec(lun, str(tmp_path / name)), known_by_others=True)
    die(first)
    gate, told, real = threading.Event(), threading.Event(), owned_lun.OwnedLun.open

    def slow(self: owned_lun.OwnedLun, **how: bool) -> bool:
        if self.spec.lun == 0:
            assert gate.wait(60)
        return real(self, **how)

    monkeypatch.setattr(owned_lun.OwnedLun, "open", slow)
    second.ownership.changed = told.set
    assert second.ownership.reconcile({0}), "its end will be told of, so there is nothing to try again"
    wait_until(lambda: second.ownership.reconcile({0, 1}) and 1 in second.ownership.owned)
    assert second.ownership.busy == {0}
    assert second.ownership.reconcile({0, 1}), "it is not opened a second time"
    told.clear()
    gate.set()
    assert told.wait(60)
    assert second.ownership.busy == set()
    assert set(second.ownership.owned) == {0, 1}


def test_a_lun_that_goes_on_has_neither_been_created_nor_grown(
    make: Make, kernel: FakeConfigfs, image: Path
) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    assert first.ownership.created == {0}
    with pytest.raises(InUseError, match="LUN 0 of HBA 3 is owned by another engine"):
        second.ownership.own(wanted(image))
    die(first)
    assert second.ownership.reconcile(set()), "nothing is taken over that is another engine's"
    assert second.ownership.owned == {}
    assert second.ownership.reconcile({0})
    owned = second.ownership.owned[0]
    assert (owned.created, owned.grown) == (False, False)
    assert second.ownership.busy == set()
    assert second.ownership.take_over(0)
    assert second.ownership.owned[0] is owned
    assert not rescanned()


@pytest.mark.parametrize("made", [False, True])
def test_storage_is_made_neither_by_a_takeover_nor_for_a_backstore_that_exists(
    make: Make, kernel: FakeConfigfs, image: Path, *, made: bool
) -> None:
    first, second = make(), make()
    first.add(wanted(image, size="1MiB"), known_by_others=False)
    die(first)
    image.unlink()
    if made:
        with pytest.raises(UsageError, match="only adding the LUN makes one"):
            second.ownership.own(wanted(image, size="1MiB"), make=True)
    else:
        second.ownership.known[0] = wanted(image, size="1MiB")
        configfs.unlink_lun(3, 0, served=False)
        configfs.delete_backstore(configfs.backstore_name(3, 0))
        assert second.ownership.take_over(0)
        assert "only adding the LUN makes one" in second.ownership.failures[0]
    assert not image.exists()


@pytest.mark.parametrize("change", ["serial", "size", "blocks"])
def test_another_disk_is_not_served_by_the_backstore_of_one(make: Make, image: Path, change: str) -> None:
    first, second = make(), make()
    first.add(wanted(image, size="1MiB"), known_by_others=False)
    die(first)
    spec = wanted(image, size="1MiB")
    if change == "serial":
        spec = replace(spec, appearance=Appearance(serial="another"))
    elif change == "size":
        os.truncate(image, MiB // 2)
    else:
        spec = wanted(image, size="1MiB", block_size=4096)
    with pytest.raises(UsageError, match="LUN 0 of HBA 3 already exists with different backing storage"):
        second.ownership.own(spec)
    assert second.ownership.owned == {}


def test_a_backstore_whose_creation_was_interrupted_is_made_anew(
    make: Make, kernel: FakeConfigfs, image: Path
) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    die(first)
    configfs.unlink_lun(3, 0, served=False)
    (kernel.core / "user_0/vscsihba3-lun0/enable").write_text("0\n")
    second.ownership.own(wanted(image))
    assert second.ownership.owned[0].created


@pytest.mark.parametrize("missing", ["ring", "device"])
def test_a_backstore_that_cannot_be_served_is_removed_again(
    make: Make, kernel: FakeConfigfs, image: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise HostError("no ring")

    engine = make()
    if missing == "ring":
        monkeypatch.setattr(owned_lun, "TcmuTransport", refuse)
    else:
        monkeypatch.setattr(owned_lun, "read_device", lambda _path: None)
    with pytest.raises(HostError, match="no ring" if missing == "ring" else "lun0 has no uio device"):
        engine.ownership.own(wanted(image))
    assert engine.ownership.owned == {}
    if missing == "ring":
        assert left(kernel) == []


def test_a_new_lun_has_no_flush_of_an_older_one_to_report(make: Make, image: Path) -> None:
    record = image.parent / "run" / "lun0.unflushed"
    record.write_text("it broke")
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    assert not record.exists()


def test_target_core_stands_in_front_of_a_lun(make: Make, rings: list[Loopback], image: Path) -> None:
    """RESERVE(6) never arrives here: the command is listed as supported, since target core completes it."""
    make().add(wanted(image), known_by_others=False)
    report = bytes([0xA3, 0x0C, 1, 0x16, 0, 0, 0, 0, 0, 64, 0, 0])
    answers = [rings[0].wait(rings[0].submit(report, data_in=64)) for _ in range(4)]
    assert answers[-1].status == 0
    assert answers[-1].data[1] & 7 == 3


def test_a_lun_that_failed_for_another_engine_is_no_failure_any_more(make: Make, image: Path) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    assert not second.ownership.lost, "the owner is another engine"
    assert not make().ownership.lost, "it knows no LUN"
    die(first)
    image.unlink()
    assert second.ownership.reconcile({0})
    assert second.ownership.failing
    assert second.ownership.reconcile(set())
    assert second.ownership.failures == {}
    assert not second.ownership.failing
    second.ownership.failures[0] = "it broke"
    second.ownership.created.add(0)
    second.ownership.leave(0)
    assert (second.ownership.known, second.ownership.failures, second.ownership.created) == ({}, {}, set())


def test_a_failure_is_told_once(make: Make, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    engine = make()
    engine.ownership._listeners = Listeners(failed=told.append)
    engine.ownership.known[0] = wanted(image)
    errors: list[Exception] = [OSError(5, "lost"), OSError(5, "lost"), MemoryError(), InUseError("not yet")]

    def fail(_self: owned_lun.OwnedLun, *, adopt: bool) -> bool:
        assert adopt
        raise errors.pop(0)

    monkeypatch.setattr(owned_lun.OwnedLun, "open", fail)
    assert [engine.ownership.take_over(0) for _ in range(4)] == [True, True, True, False]
    assert told == ["lun 0: [Errno 5] lost", "lun 0: MemoryError"]


def test_a_machine_without_room_for_a_thread_leaves_the_lun_to_be_tried_again(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    die(first)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="cannot be started"):
            second.ownership.reconcile({0})
    assert second.ownership.busy == set()
    assert second.ownership.reconcile({0})
    assert set(second.ownership.owned) == {0}


def test_an_engine_that_leaves_takes_nothing_over(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(), make()
    first.add(wanted(image), known_by_others=False)
    second.add(wanted(image), known_by_others=True)
    die(first)
    second.ownership.leaving = True
    assert second.ownership.reconcile({0})
    assert second.ownership.owned == {}
    second.ownership.leaving = False
    real = owned_lun.OwnedLun.open
    opened: list[owned_lun.OwnedLun] = []

    def leave_meanwhile(self: owned_lun.OwnedLun, **how: bool) -> bool:
        opened.append(self)
        second.ownership.leaving = True
        return real(self, **how)

    monkeypatch.setattr(owned_lun.OwnedLun, "open", leave_meanwhile)
    assert second.ownership.take_over(0)
    assert second.ownership.owned == {}
    assert opened[0].ended, "it is closed again"


def test_a_lun_that_is_opened_again_is_told_of(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "RETRY", 0.0)
    told: list[str] = []
    engine = make()
    engine.add(wanted(image), known_by_others=False)
    engine.ownership._listeners = Listeners(notice=told.append)
    failing(engine, 0, KeyError("a bug"))
    assert not engine.ownership.owned[0].answers
    engine.ownership.reconcile({0})
    assert told == ["lun 0: it is opened again"]
    assert all(release.daemon for release in engine.ownership._releases), "they keep no process from ending"
    wait_until(lambda: engine.ownership.reconcile({0}) and 0 in engine.ownership.owned)


@pytest.mark.parametrize(
    ("document", "lost"),
    [
        ({"handler": "memory", "size": MiB}, True),
        ({"handler": "split", "legs": [{"handler": "memory", "size": MiB}, "b"]}, True),
        ({"handler": "split", "legs": ["a", "b"]}, False),
        ("a", False),
    ],
)
def test_only_data_that_closing_loses_is_lost(
    make: Make, tmp_path: Path, document: Document, *, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(MiB))
    engine = make()
    engine.add(LunSpec(0, placed(document, tmp_path)), known_by_others=False)
    assert not engine.ownership.lost
    failing(engine, 0, KeyError("a bug"))
    assert engine.ownership.lost is lost


def placed(document: Document, folder: Path) -> Document:
    """Return a document whose files are in a folder."""
    if isinstance(document, str):
        return str(folder / document)
    legs = document.get("legs")
    return {**document, "legs": [placed(leg, folder) for leg in legs]} if isinstance(legs, list) else document


def test_what_is_known_of_a_lun_follows_its_changes(
    make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = make(), make()
    engine.add(wanted(image), known_by_others=False)
    other.add(wanted(image), known_by_others=True)
    status = other.ownership.status(0)
    assert (status["owner"], status["failure"], "size" in status) == (False, None, False)
    assert engine.ownership.status(0)["read_only"] is False
    tuned: list[tuple[object, ...]] = []
    monkeypatch.setattr(ownership, "tune", lambda *how, before: tuned.append((*how, before)))
    engine.ownership.tune(0, Tuning(queue_depth=7))
    assert tuned == [(3, 0, Tuning(queue_depth=7), Tuning())]
    assert engine.ownership.known[0].tuning == Tuning(queue_depth=7)
    owned = engine.ownership.owned[0]
    os.truncate(image, 2 * MiB)
    owned.spec = wanted(image, size="2MiB")
    reshaped: list[bool] = []
    monkeypatch.setattr(owned, "reshape", lambda: reshaped.append(rescanned()))
    engine.ownership.reshaped(owned)
    assert engine.ownership.known[0] == owned.spec
    assert reshaped == [False]
    assert rescanned()


def test_unit_and_backstore_follow_a_size_that_the_storage_has_already(
    make: Make, kernel: FakeConfigfs, rings: list[Loopback], image: Path
) -> None:
    engine = make()
    engine.add(wanted(image, size="1MiB"), known_by_others=False)
    owned = engine.ownership.owned[0]
    assert owned.stack is not None
    owned.stack.layers[0].resize(2 * MiB)
    owned.reshape()
    assert (kernel.core / "user_0/vscsihba3-lun0/control").read_text() == f"dev_size={2 * MiB}\n"
    capacity = bytes([0x25, *bytes(9)])
    answers = [rings[0].wait(rings[0].submit(capacity, data_in=8)) for _ in range(5)]
    assert answers[-1].data[:4] == (2 * MiB // 512 - 1).to_bytes(4, "big")
    owned.close()
    owned.reshape()


@pytest.mark.parametrize("existing", [None, SimpleNamespace(address=None)])
def test_a_lun_that_linux_does_not_see_grows_all_the_same(
    make: Make, image: Path, existing: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    engine.add(wanted(image, size="1MiB"), known_by_others=False)
    monkeypatch.setattr(configfs, "find_lun", lambda *_place: existing)
    assert engine.ownership.resize(0, 2 * MiB)
    assert not rescanned()


def test_a_shrunk_file_below_a_backstore_is_another_disk_and_not_one_to_restore(
    make: Make, image: Path
) -> None:
    first, second = make(), make()
    first.add(wanted(image, size="1MiB"), known_by_others=False)
    second.add(wanted(image, size="1MiB"), known_by_others=True)
    die(first)
    os.truncate(image, MiB // 2)
    assert second.ownership.reconcile({0})
    assert "different backing storage" in second.ownership.failures[0]
