import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.handlers.crash import Promises, Step, cut_power, kill, steps
from tests.handlers.places import MEMORY_DIRECTORY
from tests.polling import wait_until
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.mirror.handler import MirrorHandler
from vscsihba.handlers.mirror.mark import MARK
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

SIZE = 320 * KIB
CONTENT = bytes(range(1, 201)) * (SIZE // 200 + 1)
PATIENCE = 20


def leg(directory: Path, name: str) -> dict[str, object]:
    """A leg that fails while a file of its name with .fail exists."""
    return {
        "handler": "error",
        "verbs": ["read", "write", "flush", "write_zeroes"],
        "trigger": str(directory / f"{name}.fail"),
        "next": str(directory / f"{name}.img"),
    }


def mirror(directory: Path, *names: str, **options: object) -> dict[str, object]:
    return {
        "handler": "mirror",
        "path": str(directory / "mirror.state"),
        "create": True,
        "region_size": 65536,
        "retry": 0,
        **options,
        "legs": [leg(directory, name) for name in names or ("a", "b")],
    }


def handler_of(disk: Checked) -> MirrorHandler:
    below: Handler = disk
    while isinstance(below, Checked):
        below = below.next
    assert isinstance(below, MirrorHandler)
    return below


def standings(disk: Checked) -> str:
    """One letter for each leg."""
    return "".join(status.standing[0] for status in handler_of(disk).status())


def whole(disk: Checked) -> bool:
    """Every leg has all the data, and all of them are equal."""
    handler = handler_of(disk)
    return (
        set(standings(disk)) == {"w"} and not handler._members.regions.unsettled and handler.progress is None
    )


def whole_again(disk: Checked) -> bool:
    """Try the legs that are gone, and look."""
    handler_of(disk).retry()
    return whole(disk)


class MirrorModel(DiskModel):
    scratch = MEMORY_DIRECTORY

    def prepare(self, directory: Path) -> bytearray:
        for name in "ab":
            (directory / f"{name}.img").write_bytes(CONTENT[: self.size] if name == "a" else bytes(self.size))
        return bytearray(CONTENT[: self.size])

    def document(self, directory: Path) -> Document:
        return mirror(directory)

    @rule(name=st.sampled_from("ab"))
    def break_a_leg(self, name: str) -> None:
        if not any(self.directory.glob("*.fail")) and whole(self.disk):
            (self.directory / f"{name}.fail").touch()

    @rule()
    def mend(self) -> None:
        for path in self.directory.glob("*.fail"):
            path.unlink()
        handler_of(self.disk).retry()

    @precondition(lambda self: self.stack is not None)
    @rule()
    def wait_until_equal(self) -> None:
        self.mend()
        wait_until(lambda: whole_again(self.disk))

    def teardown(self) -> None:
        if self.stack is not None:
            self.wait_until_equal()
            self.stack.close()
            self.stack = None
            for name in "ab":
                found = (self.directory / f"{name}.img").read_bytes()
                assert found[: len(self.expected)] == self.expected
        super().teardown()


TestMirror = as_tests(MirrorModel, examples=20)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.img").write_bytes(CONTENT[:SIZE] if name == "a" else bytes(SIZE))
    return tmp_path


def content(directory: Path, name: str, size: int = SIZE) -> bytes:
    """The disk's data on a leg, without the mark behind them."""
    return (directory / f"{name}.img").read_bytes()[:size]


# Making one


def test_the_first_leg_has_the_data(images: Path) -> None:
    with build(mirror(images, "a", "b", "c")) as disk:
        assert read(disk, 0, SIZE) == CONTENT[:SIZE]
        wait_until(lambda: whole(disk))
    assert content(images, "a") == content(images, "b") == content(images, "c") == CONTENT[:SIZE]


def test_a_closed_mirror_needs_no_copying(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        write(disk, 0, b"new")
    with build(mirror(images)) as disk:
        assert whole(disk)
        assert handler_of(disk)._members.state.dirty() == []


def test_holes_stay_holes(images: Path) -> None:
    os.truncate(images / "a.img", 0)
    os.truncate(images / "a.img", 1 << 20)
    os.truncate(images / "b.img", 1 << 20)
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    assert (images / "b.img").stat().st_blocks * 512 == MARK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: os.truncate(images / "b.img", 512), "is smaller than the first one"),
        (lambda images: (images / "b.img").unlink(), "no such file"),
    ],
)
def test_legs_that_do_not_fit(images: Path, change: Callable[[Path], None], message: str) -> None:
    change(images)
    with pytest.raises(UsageError, match=message):
        build(mirror(images)).open()
    assert not (images / "mirror.state").exists()


def test_the_same_leg_twice(images: Path) -> None:
    with pytest.raises(UsageError, match="two legs of the mirror are the same"):
        build(mirror(images, "a", "a")).open()


def test_nothing_is_made_unless_asked(images: Path) -> None:
    with pytest.raises(UsageError, match="no such mirror"):
        build(mirror(images, create=False)).check()


def test_identity_is_the_mirrors_own(images: Path) -> None:
    with build(mirror(images)) as disk:
        identity = disk.identity
    with build(mirror(images, "b", "a")) as disk:
        assert disk.identity == identity


def test_one_at_a_time(images: Path) -> None:
    with build(mirror(images)), pytest.raises(InUseError):
        build(mirror(images)).open()


# Losing legs


def test_a_leg_that_fails_is_dropped_and_reported(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        (images / "b.fail").touch()
        write(disk, 0, b"goes on")
        assert standings(disk) == "wg"
        assert read(disk, 0, 7) == b"goes on"
        (status,) = [status for status in handler_of(disk).status() if status.standing == "gone"]
        assert "on purpose" in status.error
        assert status.identity.endswith("b.img")
        assert status.number == 1
    assert any("leg 1" in record.message and "is dropped" in record.message for record in caplog.records)
    assert content(images, "b")[:7] == CONTENT[:7]


def test_what_a_leg_missed_is_copied_and_nothing_else(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    (images / "b.fail").touch()
    with build(mirror(images)) as disk:
        write(disk, 70000, b"missed")
        disk.flush()
        assert standings(disk) == "wg"
    with (images / "b.img").open("r+b") as file:
        file.seek(SIZE - 4)
        file.write(b"????")
    (images / "b.fail").unlink()
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    assert content(images, "b")[70000:70006] == b"missed"
    # Where nothing was missed nothing is copied, even if somebody tampered with it.
    assert content(images, "b")[-4:] == b"????"


@pytest.mark.parametrize("verb", ["read", "flush", "write_zeroes"])
def test_any_verb_that_fails_drops_a_leg(images: Path, verb: str) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        (images / "a.fail").touch()
        if verb == "read":
            assert read(disk, 0, 100) == CONTENT[:100]
        elif verb == "flush":
            disk.flush()
        else:
            disk.write_zeroes(0, 4096, may_unmap=False)
        assert standings(disk) == "gw"


def test_when_all_fail_the_request_fails_and_no_leg_is_dropped(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        for name in "ab":
            (images / f"{name}.fail").touch()
        for attempt in (lambda: write(disk, 0, b"x"), lambda: read(disk, 0, 1), disk.flush):
            with pytest.raises(OSError, match="on purpose"):
                attempt()
        assert standings(disk) == "ww"
        for name in "ab":
            (images / f"{name}.fail").unlink()
        wait_until(lambda: whole_again(disk))
        assert read(disk, 0, 100) == CONTENT[:100]


def test_the_only_leg_with_the_data_has_to_be_there(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        (images / "b.fail").touch()
        write(disk, 0, b"only here")
    (images / "a.img").rename(images / "away.img")
    (images / "b.fail").unlink()
    refusal = r"marks do not decide .*state file: event \d+, in: \w+ \([^)]*a\.img\); leg 1"
    with pytest.raises(HostError, match=refusal):
        build(mirror(images)).open()
    (images / "away.img").rename(images / "a.img")
    with build(mirror(images)) as disk:
        assert read(disk, 0, 9) == b"only here"


def test_a_missing_leg_is_done_without_and_comes_back(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    (images / "b.img").rename(images / "away.img")
    with build(mirror(images, retry=0.01)) as disk:
        assert standings(disk) == "wg"
        write(disk, 0, b"missed")
        (images / "away.img").rename(images / "b.img")
        wait_until(lambda: whole(disk))
    assert content(images, "b")[:6] == b"missed"


def test_another_medium_in_place_of_a_leg_is_written_as_a_whole(images: Path) -> None:
    (images / "link.img").symlink_to(images / "b.img")
    with build(mirror(images, "a", "link")) as disk:
        wait_until(lambda: whole(disk))
    (images / "link.img").unlink()
    (images / "link.img").symlink_to(images / "c.img")
    with build(mirror(images, "a", "link")) as disk:
        wait_until(lambda: whole(disk))
    assert content(images, "c") == CONTENT[:SIZE]


class Hanging(PassThrough):
    """A layer that hangs while it is told to."""

    name = "hanging"
    workers = 8
    free = threading.Event()

    def write(self, offset: int, views: Any, *, fua: bool = False) -> None:
        self.free.wait(PATIENCE)
        super().write(offset, views, fua=fua)


class WithHanging(Registry):
    def get(self, name: str) -> type[Handler]:
        return Hanging if name == "hanging" else super().get(name)


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    Hanging.free.set()
    yield Hanging.free
    Hanging.free.set()


def test_a_leg_that_hangs_is_dropped_in_time(images: Path, hanging: threading.Event) -> None:
    document = mirror(images, timeout=1.0)
    document["legs"] = [leg(images, "a"), {"handler": "hanging", "next": str(images / "b.img")}]
    with build(document, registry=WithHanging()) as disk:
        wait_until(lambda: whole_again(disk))
        hanging.clear()
        write(disk, 0, b"goes on")
        assert standings(disk) == "wg"
        assert "no answer within" in handler_of(disk).status()[1].error
        assert not handler_of(disk)._members.admit(handler_of(disk)._members.legs[1])
        write(disk, 0, b"and on and on")
        hanging.set()
        wait_until(lambda: whole_again(disk))
    assert content(images, "b")[:13] == b"and on and on"


# Changing legs


def test_legs_come_and_go_while_the_disk_is_used(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        handler = handler_of(disk)
        added = handler.add_leg(build(leg(images, "c")))
        assert added == 2
        write(disk, 5, b"meanwhile")
        wait_until(lambda: whole(disk))
        with pytest.raises(UsageError, match="part of the mirror already"):
            handler.add_leg(build(leg(images, "c")))
        handler.remove_leg(0)
        write(disk, 50, b"without the first")
        with pytest.raises(UsageError, match="has no leg 0; its legs are 1, 2"):
            handler.remove_leg(0)
    assert content(images, "b") == content(images, "c")
    assert b"without the first" not in content(images, "a")
    with build(mirror(images, "b", "c")) as disk:
        assert whole(disk)
        assert read(disk, 50, 17) == b"without the first"


def test_the_last_leg_with_the_data_stays(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        (images / "b.fail").touch()
        write(disk, 0, b"x")
        with pytest.raises(UsageError, match="the only one that has all the data"):
            handler_of(disk).remove_leg(0)
        handler_of(disk).remove_leg(1)
        assert standings(disk) == "w"


def test_leg_whose_file_is_missing_is_gone_without_advice_to_create_it(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    (images / "b.img").rename(images / "away.img")
    with build(mirror(images)) as disk:
        assert standings(disk) == "wg"
        assert handler_of(disk).status()[1].error == f"{images}/b.img: no such file"


def test_a_leg_that_cannot_be_used_is_not_added(images: Path) -> None:
    with build(mirror(images)) as disk:
        with pytest.raises(UsageError, match=r"cannot be used: .*no such file"):
            handler_of(disk).add_leg(build(str(images / "none.img")))
        read_only = {"handler": "readonly", "next": str(images / "c.img")}
        with pytest.raises(UsageError, match="it is read-only"):
            handler_of(disk).add_leg(build(read_only))
        larger_blocks = {"handler": "file", "path": str(images / "c.img"), "block_size": 4096}
        with pytest.raises(UsageError, match="blocks of 4096 bytes are larger"):
            handler_of(disk).add_leg(build(larger_blocks))
        assert len(handler_of(disk).status()) == 2


def test_a_small_leg_grows_if_it_can(images: Path) -> None:
    os.truncate(images / "c.img", 4096)
    with build(mirror(images)) as disk:
        handler_of(disk).add_leg(build(leg(images, "c")))
        wait_until(lambda: whole(disk))
    assert content(images, "c") == CONTENT[:SIZE]


# The state file


def test_a_damaged_map_means_copying_all(images: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    state = images / "mirror.state"
    damaged = bytearray(state.read_bytes())
    damaged[8192 + 100] ^= 1
    state.write_bytes(damaged)
    (images / "b.img").write_bytes(bytes(SIZE))
    with build(mirror(images)) as disk:
        assert read(disk, 0, SIZE) == CONTENT[:SIZE]
        wait_until(lambda: whole(disk))
    assert content(images, "b") == CONTENT[:SIZE]


def test_damaged_headers_are_told(images: Path) -> None:
    with build(mirror(images)):
        pass
    state = images / "mirror.state"
    damaged = bytearray(state.read_bytes())
    damaged[30] ^= 1
    damaged[4096 + 30] ^= 1
    state.write_bytes(damaged)
    with pytest.raises(HostError, match=r"mirror\.state: the mirror is damaged in both headers"):
        build(mirror(images)).open()


def test_idle_regions_are_forgotten(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
        state = handler_of(disk)._members.state
        write(disk, 0, b"x")
        for later, dirty in ((1, None), (6, {0}), (12, set()), (18, set())):
            with monkeypatch.context() as patch:
                patch.setattr("vscsihba.handlers.mirror.state.time.monotonic", lambda: now + 100 + later)  # noqa: B023
                disk.flush()
            if dirty is not None and later >= 12:
                assert set(state.dirty()) == dirty


# Reading


def reads(directory: Path) -> list[int]:
    """How often each leg was read since it was opened last."""
    return [json.loads((directory / f"{name}.stats").read_text())["read"]["calls"] for name in "ab"]


def test_reads_are_spread(images: Path) -> None:
    for name in "ab":
        os.truncate(images / f"{name}.img", 4 << 20)
    document = mirror(images)
    document["legs"] = [
        {"handler": "stats", "file": str(images / f"{name}.stats"), "next": str(images / f"{name}.img")}
        for name in "ab"
    ]
    with build(document) as disk:
        wait_until(lambda: whole(disk))
    with build(document) as disk:
        for offset in range(0, 4 << 20, 65536):
            read(disk, offset, 512)
    for_marks = [count - 32 for count in reads(images)]
    assert for_marks[0] == for_marks[1] < 16


def test_inline_reads_come_from_a_leg(images: Path) -> None:
    document = mirror(images)
    document["legs"] = [str(images / f"{name}.img") for name in "ab"]
    with build(document) as disk:
        wait_until(lambda: whole(disk))
        inline = disk.inline
        assert inline.read is not None
        room = [memoryview(bytearray(100))]
        read(disk, 0, 4096)
        try:
            assert inline.read(room, 0, 0) == 100
        except BlockingIOError:
            pytest.skip("the file system has no RWF_NOWAIT")
        assert bytes(room[0]) == CONTENT[:100]
        handler_of(disk)._members.legs[0].drop(OSError(5, "gone"))
        handler_of(disk)._members.legs[1].drop(OSError(5, "gone"))
        with pytest.raises(BlockingIOError):
            inline.read(room, 0, 0)


# Crashes

FEW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@FEW
@given(todo=steps(SIZE // 512), lasts=st.integers(0, 80), seed=st.integers(0, 1 << 32))
def test_power_cut_leaves_what_flushes_promised_and_legs_become_equal(
    todo: list[Step], lasts: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY_DIRECTORY) as name:
        directory = Path(name)
        for leg_name in "ab":
            (directory / f"{leg_name}.img").write_bytes(CONTENT[:SIZE])
        document = mirror(directory, overwrite=True)
        with build(document) as disk:
            wait_until(lambda: whole(disk))
        cut_power(directory, document, Promises(CONTENT[:SIZE]), todo, lasts=lasts, seed=seed)
        with build(document) as disk:
            wait_until(lambda: whole(disk))
        assert content(directory, "a") == content(directory, "b")


SCRIPT = [
    Step("write", 0, 3, 1),
    Step("write", 200, 300, 2),
    Step("flush"),
    Step("write_fua", 130, 10, 3),
    Step("unmap", 100, 400),
    Step("write_zeroes", 0, 200, 5),
    Step("flush"),
    Step("write", 639, 1, 6),
]


def test_kill_at_every_call_loses_nothing_that_was_acknowledged(images: Path, tmp_path: Path) -> None:
    with build(mirror(images)) as disk:
        wait_until(lambda: whole(disk))
    at, came_so_far = 0, True
    while came_so_far:
        where = tmp_path / str(at)
        where.mkdir()
        for path in images.glob("[ab].img"):
            shutil.copy(path, where)
        with build(mirror(where)) as disk:
            wait_until(lambda: whole(disk))
        came_so_far = kill(mirror, where, Promises(CONTENT[:SIZE]), SCRIPT, at)
        with build(mirror(where)) as disk:
            wait_until(lambda: whole(disk))
        assert content(where, "a") == content(where, "b")
        shutil.rmtree(where)
        at += 1
    assert at > 15
