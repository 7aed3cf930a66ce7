import errno
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.handlers.crash import Promises, Step, cut_power, kill, steps
from tests.handlers.places import MEMORY_DIRECTORY
from vscsihba.cli.main import main
from vscsihba.errors import ConfigError, FlushError, HostError, InUseError, UsageError
from vscsihba.handlers.base import Handler, batched
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.cow.overlay_file import open_overlay
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.snapshot import manifest as snapshot_manifest
from vscsihba.handlers.snapshot.handler import SnapshotHandler
from vscsihba.handlers.snapshot.snapshot_set import SnapshotSet, renew_uuid
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

SIZE = 320 * KIB
CONTENT = bytes(range(1, 201)) * (SIZE // 200 + 1)


def snapshot(directory: Path, **options: object) -> dict[str, object]:
    return {
        "handler": "snapshot",
        "path": str(directory / "set"),
        "create": True,
        **options,
        "next": {"handler": "file", "path": str(directory / "base.img"), "read_only": True},
    }


def view(directory: Path, name: str) -> dict[str, object]:
    return {**snapshot(directory), "create": False, "snapshot": name}


def handler_of(disk: Checked) -> SnapshotHandler:
    below: Handler = disk
    while isinstance(below, Checked):
        below = below.next
    assert isinstance(below, SnapshotHandler)
    return below


def seen(directory: Path, name: str) -> bytes:
    with build(view(directory, name), check_between=True) as disk:
        return read(disk, 0, disk.geometry.size)


def layers(directory: Path) -> int:
    return len(list((directory / "set").glob("*.layer*")))


class SnapshotModel(DiskModel):
    scratch = MEMORY_DIRECTORY
    names = st.sampled_from(["mon", "tue", "wed", "thu"])

    def prepare(self, directory: Path) -> bytearray:
        (directory / "base.img").write_bytes(CONTENT[: self.size])
        self.taken: dict[str, bytes] = {}
        return bytearray(CONTENT[: self.size])

    def document(self, directory: Path) -> Document:
        return snapshot(directory)

    @rule(name=names)
    def take(self, name: str) -> None:
        if name in self.taken:
            with pytest.raises(UsageError, match="already"):
                handler_of(self.disk).take(name)
        else:
            handler_of(self.disk).take(name)
            self.taken[name] = bytes(self.expected)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.taken:
            handler_of(self.disk).delete(name)
            del self.taken[name]
            # So many layers as there are ends and forks, and no more.
            assert layers(self.directory) <= 2 * (len(self.taken) + 1)

    @rule(name=names)
    def roll_back(self, name: str) -> None:
        if name in self.taken:
            handler_of(self.disk).roll_back(name)
            self.expected = bytearray(self.taken[name])

    @rule(name=names)
    def look(self, name: str) -> None:
        if name in self.taken:
            assert seen(self.directory, name) == self.taken[name]

    def teardown(self) -> None:
        if self.stack is not None:
            for name, content in self.taken.items():
                assert seen(self.directory, name) == content
            for name in self.taken:
                handler_of(self.disk).delete(name)
            assert layers(self.directory) == 1
            assert read(self.disk, 0, len(self.expected)) == self.expected
            assert (self.directory / "base.img").read_bytes() == CONTENT[: self.size]
        super().teardown()


TestSnapshot = as_tests(SnapshotModel, examples=30)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    return tmp_path


# Taking and looking


def test_snapshots_are_listed_in_their_order(base: Path) -> None:
    with build(snapshot(base)) as disk:
        for name in ("z", "a", "m"):
            handler_of(disk).take(name)
    with build(snapshot(base)) as disk:
        assert [info.name for info in handler_of(disk).snapshots()] == ["z", "a", "m"]
        assert handler_of(disk).snapshots()[0].created > 1.7e9


def test_a_snapshot_is_a_read_only_disk_of_its_own(base: Path) -> None:
    with build(snapshot(base)) as disk:
        write(disk, 0, b"monday")
        handler_of(disk).take("mon")
        write(disk, 0, b"tuesday")
        with build(view(base, "mon")) as one, build(view(base, "mon")) as other:
            assert read(one, 0, 7) == read(other, 0, 7) == b"monday" + CONTENT[6:7]
            assert one.identity == other.identity != disk.identity
            assert one.capabilities.read_only
            one.flush()
            with pytest.raises(OSError, match="Read-only"):
                write(one, 0, b"x")
            inline = one.inline
            assert inline.write is None
        assert read(disk, 0, 7) == b"tuesday"


def test_a_snapshot_can_be_written_to_in_a_copy(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("mon")
        clone = {"handler": "cow", "path": str(base / "clone"), "create": True, "next": view(base, "mon")}
        with build(clone) as copy:
            write(copy, 0, b"copy")
            assert read(copy, 0, 6) == b"copy" + CONTENT[4:6]
        assert read(disk, 0, 4) == CONTENT[:4]
        with build(clone) as copy:
            assert read(copy, 0, 4) == b"copy"


def test_a_snapshot_keeps_its_size(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("small")
        disk.resize(1 << 20)
        write(disk, 1 << 19, b"behind")
        handler_of(disk).take("large")
        disk.resize(64 * KIB)
        assert len(seen(base, "small")) == SIZE
        assert len(seen(base, "large")) == 1 << 20
        handler_of(disk).roll_back("large")
        assert (disk.geometry.size, disk.geometry.optimal_io) == (1 << 20, 1 << 20)
        assert read(disk, 1 << 19, 6) == b"behind"


@pytest.mark.parametrize("size", [1 << 20, 64 * KIB])
def test_a_resize_while_a_snapshot_is_taken_lasts(
    base: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = SnapshotSet._make_layer
    sizes = [size]

    def make_slowly(snapshots: SnapshotSet, name: str, size: int) -> str:
        made = make(snapshots, name, size)
        if sizes:  # the layer has the size from before
            disk.resize(sizes.pop())
            write(disk, disk.geometry.size - 6, b"behind")
        return made

    with build(snapshot(base)) as disk:
        monkeypatch.setattr(SnapshotSet, "_make_layer", make_slowly)
        handler_of(disk).take("one")
        assert disk.geometry.size == size
        assert read(disk, size - 6, 6) == b"behind"
        assert seen(base, "one")[size - 6 :] == b"behind"
        assert layers(base) == 2
    with build(snapshot(base)) as disk:
        assert disk.geometry.size == size


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 65, "a b"])
def test_names_that_are_none(base: Path, name: str) -> None:
    with build(snapshot(base)) as disk:
        with pytest.raises(UsageError, match="is not a valid snapshot name"):
            handler_of(disk).take(name)
        assert layers(base) == 1


def test_snapshots_that_are_not_there(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("mon")
        for verb in (handler_of(disk).delete, handler_of(disk).roll_back):
            with pytest.raises(UsageError, match="there is no snapshot 'tue'; there are: mon"):
                verb("tue")
    with pytest.raises(UsageError, match="there is no snapshot 'tue'"):
        build(view(base, "tue")).check()


def test_writers_go_on_while_snapshots_come_and_go(base: Path) -> None:
    stop = threading.Event()
    with build(snapshot(base)) as disk:

        def keep_writing() -> None:
            number = 0
            while not stop.is_set():
                # The second number is written after the first, so it is never ahead of it.
                write(disk, 0, number.to_bytes(8, "big"))
                write(disk, 200 * KIB, number.to_bytes(8, "big"))
                number += 1

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            for number in range(5):
                handler_of(disk).take(f"s{number}")
                if number % 2:
                    handler_of(disk).delete(f"s{number - 1}")
        finally:
            stop.set()
            writer.join()
        for info in handler_of(disk).snapshots():
            content = seen(base, info.name)
            first = int.from_bytes(content[:8], "big")
            second = int.from_bytes(content[200 * KIB : 200 * KIB + 8], "big")
            assert first in (second, second + 1) or first > 1 << 50


# Merging


def test_deleting_merges_while_the_disk_is_used(base: Path) -> None:
    with build(snapshot(base)) as disk:
        for number, name in enumerate(("a", "b", "c")):
            write(disk, number * 64 * KIB, name.encode() * 1000)
            handler_of(disk).take(name)
        progress: list[tuple[int, int]] = []
        handler_of(disk).delete("b", progress=lambda done, of: progress.append((done, of)))
        assert progress
        assert layers(base) == 3
        assert read(disk, 64 * KIB, 3) == b"bbb"
        assert seen(base, "c")[64 * KIB : 64 * KIB + 3] == b"bbb"
        handler_of(disk).delete("c")
        handler_of(disk).delete("a")
        assert layers(base) == 1
        assert read(disk, 0, 1) + read(disk, 64 * KIB, 1) + read(disk, 128 * KIB, 1) == b"abc"


def test_a_layer_that_is_open_is_merged_later(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("a")
        write(disk, 0, b"b")
        handler_of(disk).take("b")
        with build(view(base, "b")) as open_view:
            handler_of(disk).delete("a")
            assert layers(base) == 3
            assert read(open_view, 0, 2) == b"b" + CONTENT[1:2]
        handler_of(disk).tidy()
        assert layers(base) == 2
        assert seen(base, "b")[:2] == b"b" + CONTENT[1:2]


def test_rolling_back_keeps_newer_snapshots(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("old")
        write(disk, 0, b"new")
        handler_of(disk).take("new")
        write(disk, 0, b"lost")
        handler_of(disk).roll_back("old")
        assert read(disk, 0, 4) == CONTENT[:4]
        write(disk, 0, b"other")
        handler_of(disk).roll_back("new")
        assert read(disk, 0, 4) == b"new" + CONTENT[3:4]
        assert layers(base) == 3
        handler_of(disk).delete("old")
        assert layers(base) == 2


def test_inline_verbs_follow_the_layers(base: Path) -> None:
    with build(snapshot(base)) as disk:
        inline = disk.inline
        assert inline.read is not None
        assert inline.write is not None
        write(disk, 0, b"x" * 65536)
        assert inline.write([memoryview(b"one")], 0, 0) == 3
        handler_of(disk).take("mon")
        room = bytearray(4)
        assert inline.read([memoryview(room)], 0, inline.read_flags) == 4
        assert room == b"onex"
        with handler_of(disk)._set.gate.alone():
            for verb in (inline.read, inline.write):
                with pytest.raises(BlockingIOError):
                    verb([memoryview(room)], 0, 0)
        assert inline.write([memoryview(b"two")], 0, 0) == 3  # a new cluster, with the rest of the former one
        assert read(disk, 0, 65536) == b"two" + b"x" * 65533
        assert seen(base, "mon")[:4] == b"onex"


def test_inline_reads_across_the_end_of_a_smaller_layer(base: Path) -> None:
    with build(snapshot(base)) as disk:
        size = disk.geometry.size
        write(disk, size - 65536, b"x" * 65536)
        handler_of(disk).take("small")
        disk.resize(size + 131072)
        write(disk, size + 65536, b"y" * 65536)
        room = bytearray(131072)
        inline = disk.inline
        assert inline.read is not None
        assert inline.read([memoryview(room)], size - 32768, inline.read_flags) == len(room)
        assert room == b"x" * 32768 + bytes(65536) + b"y" * 32768


def test_a_snapshot_may_be_taken_within_a_batch_of_inline_writes(base: Path) -> None:
    with build(snapshot(base)) as disk:
        write(disk, 0, b"x" * 65536)
        inline = disk.inline
        assert inline.write is not None
        parts = batched(inline.write)
        assert parts.first([memoryview(b"1")], 0, 0) == 1
        assert parts.rest([memoryview(b"2")], 1, 0) == 1
        ended: list[str] = []
        former = handler_of(disk)._set.batched
        handler_of(disk).take("mon")
        assert handler_of(disk)._set.batched is not former
        for _ in range(2):
            with handler_of(disk)._set.gate.alone(), pytest.raises(BlockingIOError):
                parts.rest([memoryview(b"n")], 2, 0)
        assert parts.rest([memoryview(b"3")], 2, 0) == 1
        assert parts.rest([memoryview(b"4")], 3, 0) == 1
        current = handler_of(disk)._set
        current.batched = replace(current.batched, end=lambda: ended.append("end"))
        assert parts.rest([memoryview(b"5")], 4, 0) == 1
        parts.end()
        parts.end()
        assert ended == ["end"]
        assert read(disk, 0, 6) == b"12345x"
        assert seen(base, "mon")[:4] == b"12xx"


# The set


def test_one_disk_at_a_time(base: Path) -> None:
    with build(snapshot(base)) as disk:
        with pytest.raises(InUseError):
            build(snapshot(base)).open()
        handler_of(disk).take("mon")
        with pytest.raises(InUseError):
            build(snapshot(base)).open()


def test_identity_stays(base: Path) -> None:
    with build(snapshot(base)) as disk:
        identity = disk.identity
        handler_of(disk).take("mon")
    with build(snapshot(base)) as disk:
        assert disk.identity == identity


@pytest.mark.parametrize("change", ["content", "name"])
def test_another_base_is_noticed(base: Path, change: str) -> None:
    with build(snapshot(base)):
        pass
    document = snapshot(base)
    if change == "content":
        (base / "base.img").write_bytes(bytes(SIZE))
    else:
        (base / "base.img").rename(base / "other.img")
        document["next"] = {"handler": "file", "path": str(base / "other.img"), "read_only": True}
    message = "has changed" if change == "content" else r"is not file:.*base\.img"
    with pytest.raises(HostError, match=f"the base of the snapshots {message}"):
        build(document).open()


def test_a_damaged_manifest_is_told(base: Path) -> None:
    with build(snapshot(base)):
        pass
    manifest = base / "set" / "manifest"
    manifest.write_bytes(manifest.read_bytes().replace(b'"base_size":3', b'"base_size":2'))
    for act in (build(snapshot(base)).open, build(snapshot(base)).check):
        with pytest.raises(HostError, match="manifest is damaged"):
            act()


def test_what_a_crash_left_behind_is_removed(base: Path) -> None:
    with build(snapshot(base)):
        pass
    before = set((base / "set").iterdir())
    for name in ("0" * 32 + ".layer", f"overlay-{'1' * 32}.part", f".manifest.{'2' * 16}"):
        (base / "set" / name).write_bytes(b"x")
    with build(snapshot(base)):
        assert set((base / "set").iterdir()) == before


def test_a_file_of_somebody_else_stays_in_the_directory(base: Path) -> None:
    with build(snapshot(base)):
        pass
    (base / "set" / "notes.layer").write_bytes(b"somebody's only copy")
    with build(snapshot(base)):
        pass
    assert (base / "set" / "notes.layer").read_bytes() == b"somebody's only copy"


def test_an_earlier_name_of_the_base_is_replaced_by_the_disk_and_not_by_readers(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("mon")
    manifest = base / "set" / "manifest"
    now = snapshot_manifest.load(manifest)
    earlier = msgspec.structs.replace(now, base="file:of an earlier release")
    earlier.save(manifest)
    names = (now.base, earlier.base)
    monkeypatch.setattr(FileHandler, "is_known_as", lambda _handler, identity: identity in names)
    assert seen(base, "mon") == CONTENT[:SIZE]
    assert snapshot_manifest.load(manifest) == earlier
    with build(snapshot(base)):
        assert snapshot_manifest.load(manifest) == now


def test_a_set_may_be_made_in_an_empty_directory(base: Path) -> None:
    (base / "set").mkdir()
    build(snapshot(base)).check()
    with build(snapshot(base)) as disk:
        assert read(disk, 0, SIZE) == CONTENT[:SIZE]


def test_a_set_that_is_not_there(base: Path) -> None:
    with pytest.raises(UsageError, match="no such set of snapshots"):
        build(snapshot(base, create=False)).check()
    with pytest.raises(UsageError, match="there is no directory"):
        build(snapshot(base, path="/nowhere/at/all")).check()
    with pytest.raises(UsageError, match="is not a directory"):
        build(snapshot(base, path=str(base / "base.img"))).check()
    with pytest.raises(ConfigError, match="not made by opening it"):
        build(snapshot(base, snapshot="mon"))


def test_a_full_disk_while_taking_one_changes_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with build(snapshot(base)) as disk:
        write(disk, 0, b"kept")
        for target in ("snapshot.snapshot_set.create_overlay", "snapshot.manifest.replace_file"):
            with monkeypatch.context() as patch:
                patch.setattr(f"vscsihba.handlers.{target}", full)
                with pytest.raises(OSError, match="No space"):
                    handler_of(disk).take("mon")
            assert layers(base) == 1
            assert handler_of(disk).snapshots() == []
        write(disk, 4, b" on")
        handler_of(disk).take("mon")
    assert seen(base, "mon")[:7] == b"kept on"


def test_a_snapshot_that_fails_tells_why_even_if_the_manifest_cannot_be_read_then(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        monkeypatch.setattr(snapshot_manifest, "load", broken)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with build(snapshot(base)) as disk, monkeypatch.context() as patch:
        patch.setattr("vscsihba.handlers.snapshot.snapshot_set.create_overlay", full)
        with pytest.raises(OSError, match="No space"):
            handler_of(disk).take("mon")
        monkeypatch.undo()


# Crashes


class SnapshotPromises(Promises):
    """The contents of the disk and of its snapshots, as promised."""

    def __init__(self, directory: Path) -> None:
        super().__init__(CONTENT[:SIZE], unmap_zeroes=False)
        self.directory = directory
        self.snapshots: dict[str, list[set[bytes]]] = {}
        self.perhaps: dict[str, list[set[bytes]]] = {}
        self.count = 0

    def begun(self, step: Step) -> None:
        """Note a snapshot that is perhaps there."""
        if step.verb == "take":
            self.perhaps = {f"s{self.count}": self.readable()}
        elif step.verb == "delete" and self.snapshots:
            name = min(self.snapshots)
            self.perhaps = {name: self.snapshots.pop(name)}

    def special(self, disk: Checked, step: Step) -> None:
        """Take a snapshot: then it is there, and all that was acknowledged is safe. Or delete one."""
        handler = disk if not isinstance(disk, Checked) else handler_of(disk)
        for name, content in self.perhaps.items():
            if step.verb == "take":
                handler.take(name)
                self.snapshots[name] = content
                self.count += 1
                self.keep(0, len(self.now))
            else:
                handler.delete(name)
        self.perhaps = {}

    def check(self, content: bytes) -> None:
        super().check(content)
        found = snapshot_manifest.load(self.directory / "set" / "manifest").snapshots
        assert set(self.snapshots) <= set(found) <= {*self.snapshots, *self.perhaps}
        for name, expected in {**self.perhaps, **self.snapshots}.items():
            if name in found:
                content = seen(self.directory, name)
                for number, allowed in enumerate(expected):
                    assert content[number * 512 : (number + 1) * 512] in allowed


def with_snapshots(sectors: int) -> st.SearchStrategy[list[Step]]:
    special = st.sampled_from([Step("take"), Step("take"), Step("delete")])
    return st.tuples(
        steps(sectors, most=6), special, steps(sectors, most=6), special, steps(sectors, most=4)
    ).map(lambda parts: [*parts[0], parts[1], *parts[2], parts[3], *parts[4]])


FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(todo=with_snapshots(SIZE // 512), lasts=st.integers(0, 140), seed=st.integers(0, 1 << 32))
def test_power_cut_leaves_what_flushes_and_snapshots_promised(
    todo: list[Step], lasts: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY_DIRECTORY) as name:
        directory = Path(name)
        (directory / "base.img").write_bytes(CONTENT[:SIZE])
        cut_power(directory, snapshot(directory), SnapshotPromises(directory), todo, lasts=lasts, seed=seed)


SCRIPT = [
    Step("write", 0, 3, 1),
    Step("take"),
    Step("write", 200, 300, 2),
    Step("take"),
    Step("write_fua", 130, 10, 3),
    Step("unmap", 100, 400),
    Step("delete"),
    Step("write", 639, 1, 6),
]


def test_kill_at_every_call_loses_nothing_that_was_acknowledged(base: Path, tmp_path: Path) -> None:
    at, came_so_far = 0, True
    while came_so_far:
        where = tmp_path / str(at)
        where.mkdir()
        shutil.copy(base / "base.img", where)
        came_so_far = kill(snapshot, where, SnapshotPromises(where), SCRIPT, at)
        shutil.rmtree(where)
        at += 1
    assert at > 40


# Failures


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    "fails",
    [
        "cow.overlay_file.publish",
        "snapshot.snapshot_set.open_overlay",
        "cow.overlay.Overlay.end",
        "snapshot.snapshot_set.share",
        "snapshot.manifest.replace_file",
        "shared.durable.sync_directory",
    ],
)
@pytest.mark.parametrize("verb", ["take", "roll_back"])
def test_a_verb_that_fails_changes_nothing(
    base: Path, fails: str, verb: str, monkeypatch: pytest.MonkeyPatch, own_tmpfs_directory: Path
) -> None:
    with build(snapshot(base)) as disk:
        write(disk, 0, b"old")
        handler_of(disk).take("old")
        write(disk, 0, b"new")
        files = set((base / "set").iterdir())
        before = descriptors(), len(list(own_tmpfs_directory.iterdir()))
        manifest = (base / "set" / "manifest").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(f"vscsihba.handlers.{fails}", broken)
            try:
                getattr(handler_of(disk), verb)("old" if verb == "roll_back" else "mon")
            except OSError:
                pass
            else:  # rolling back flushes nothing and shares nothing
                assert verb == "roll_back"
                assert fails in ("cow.overlay.Overlay.end", "snapshot.snapshot_set.share")
                return
        # The active layer may be between two notes: it begins another one when it needs it.
        after = descriptors(), len(list(own_tmpfs_directory.iterdir()))
        assert after in (before, (before[0] - 1, before[1] - 1))
        assert set((base / "set").iterdir()) == files
        assert (base / "set" / "manifest").read_bytes() == manifest
        assert [info.name for info in handler_of(disk).snapshots()] == ["old"]
        write(disk, 64 * KIB, b"goes on")
        active = handler_of(disk)._set.layers.names[0]
        with pytest.raises(InUseError):
            open_overlay(str(base / "set" / f"{active}.layer"), read_only=True)
        assert read(disk, 0, 3) == b"new"
        handler_of(disk).take("mon")
        assert seen(base, "mon")[64 * KIB :].startswith(b"goes on")


def test_what_is_written_after_a_take_that_failed_survives_the_process(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = build(snapshot(base))
    disk = stack.open()
    with monkeypatch.context() as patch:
        patch.setattr("vscsihba.handlers.snapshot.manifest.replace_file", broken)
        with pytest.raises(OSError, match="error"):
            handler_of(disk).take("mon")
    write(disk, 0, b"acknowledged")
    whole = handler_of(disk)._set
    whole.disk.overlay._leave_note()
    whole.disk.overlay.store.close()
    whole._name.__exit__()
    stack.layers[0].close()
    with build(snapshot(base)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


LEFT = pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), MemoryError(), HostError("a layer is damaged", cure="restore it")]
)


@LEFT
def test_a_roll_back_is_done_even_if_something_is_left_over(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("old")
        write(disk, 0, b"new")
        with monkeypatch.context() as patch:
            patch.setattr("vscsihba.handlers.snapshot.snapshot_set.tidy", mock.Mock(side_effect=error))
            handler_of(disk).roll_back("old")
        assert "layers that nothing needs are kept" in caplog.text
        assert read(disk, 0, 3) == CONTENT[:3]
        handler_of(disk).tidy()
        assert layers(base) == 2


@LEFT
def test_a_delete_that_cannot_merge_says_that_the_snapshot_is_gone(
    base: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("old")
        with monkeypatch.context() as patch:
            patch.setattr("vscsihba.handlers.snapshot.snapshot_set.tidy", mock.Mock(side_effect=error))
            with pytest.raises(
                (OSError, HostError), match=r"snapshot old is deleted, but its layer is kept: [abn]"
            ):
                handler_of(disk).delete("old")
        assert handler_of(disk).snapshots() == []
        handler_of(disk).tidy()
        assert layers(base) == 1


@pytest.mark.parametrize("verb", ["delete", "roll_back"])
def test_a_merge_whose_flush_fails_says_so(base: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """The engine records it: data that initiators have written since then may be lost."""
    with build(snapshot(base)) as disk:
        handler_of(disk).take("old")
        with monkeypatch.context() as patch:
            lost = mock.Mock(side_effect=FlushError(errno.EIO, "pages are lost"))
            patch.setattr("vscsihba.handlers.snapshot.snapshot_set.tidy", lost)
            with pytest.raises(FlushError, match="pages are lost"):
                getattr(handler_of(disk), verb)("old")


def test_an_open_that_fails_leaves_nothing_open(
    base: Path, monkeypatch: pytest.MonkeyPatch, own_tmpfs_directory: Path
) -> None:
    with build(snapshot(base)):
        pass
    before = descriptors(), len(list(own_tmpfs_directory.iterdir()))
    for fails in ("_remove_strangers", "_is_current", "_claim"):
        with monkeypatch.context() as patch:
            patch.setattr(SnapshotSet, fails, broken)
            with pytest.raises(OSError, match="error"):
                build(snapshot(base)).open()
        assert (descriptors(), len(list(own_tmpfs_directory.iterdir()))) == before
    with build(snapshot(base)):
        pass


def test_a_set_that_cannot_be_made_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("vscsihba.handlers.snapshot.manifest.replace_file", broken)
        with pytest.raises(OSError, match="error"):
            build(snapshot(base)).open()
    assert [path.name for path in base.iterdir()] == ["base.img"]


def test_the_names_of_a_set_are_on_stable_storage(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    with build(snapshot(base)):
        assert {base, base / "set"} <= set(synced)
    synced.clear()
    with build(snapshot(base)):
        assert base / "set" in synced, "whoever has made it may have been killed before"


def test_a_set_that_changes_while_it_is_opened_is_not_opened(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(snapshot(base)):
        pass
    real = snapshot_manifest.load
    stale = real(base / "set" / "manifest")
    with build(snapshot(base)) as disk:
        handler_of(disk).take("mon")
    loads = iter([real(base / "set" / "manifest"), stale])
    before = set((base / "set").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_manifest, "load", lambda path: next(loads, None) or real(path))
        with pytest.raises(InUseError, match="was changed while it was opened"):
            build(snapshot(base)).open()
    assert set((base / "set").iterdir()) == before
    assert seen(base, "mon") == CONTENT[:SIZE]


def test_a_copy_of_a_set_is_refused_until_it_has_its_own_uuid(base: Path) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("mon")
        shutil.copytree(base / "set", base / "copy")
        copy = snapshot(base, path=str(base / "copy"), create=False)
        with pytest.raises(InUseError, match=r'same uuid; .* "vscsihba snapshot renew-uuid .*copy"'):
            build(copy).open()
        with build(view(base, "mon")), pytest.raises(InUseError, match="same uuid"):
            build({**copy, "snapshot": "mon"}).open()
        assert main(["snapshot", "renew-uuid", str(base / "copy")]) == 0
        with build(copy) as other:
            assert other.identity != disk.identity
            assert read(other, 0, SIZE) == CONTENT[:SIZE]


@pytest.mark.parametrize(
    ("verb", "gate"),
    [
        ("take", False),
        ("take", True),
        ("roll_back", False),
        ("roll_back", True),
        ("delete", False),
        ("tidy", False),
    ],
)
def test_a_change_of_a_set_waits_for_another_change_and_for_requests(
    base: Path, verb: str, gate: bool
) -> None:
    with build(snapshot(base)) as disk:
        handler_of(disk).take("old")
        set_ = handler_of(disk)._set
        names = {"take": ["new"], "tidy": []}.get(verb, ["old"])
        changing = threading.Thread(target=getattr(set_, verb), args=names)
        before = set_.manifest, set_.layers
        with set_.gate.together() if gate else set_._changing:
            changing.start()
            changing.join(0.2)
            assert changing.is_alive()
            assert (set_.manifest, set_.layers) == before
        changing.join(30)
        assert not changing.is_alive()


def test_nobody_else_may_look_into_a_set(base: Path) -> None:
    with build(snapshot(base)):
        assert (base / "set").stat().st_mode & 0o777 == 0o700


def test_a_set_in_use_gets_no_new_uuid(base: Path) -> None:
    with build(snapshot(base)) as disk:
        active = base / "set" / f"{handler_of(disk)._set.layers.names[0]}.layer"
        before = (base / "set" / "manifest").read_bytes()
        with pytest.raises(InUseError):
            renew_uuid(base / "set")
    reader = open_overlay(str(active), read_only=True)
    with pytest.raises(InUseError):
        renew_uuid(base / "set")
    reader.close()
    assert (base / "set" / "manifest").read_bytes() == before


def test_a_new_uuid_leaves_nothing_open(base: Path) -> None:
    with build(snapshot(base)) as disk:
        before = disk.identity
    count = descriptors()
    renewed = renew_uuid(base / "set")
    assert descriptors() == count
    with build(snapshot(base)) as disk:
        assert disk.identity == f"snapshot:{renewed}" != before
