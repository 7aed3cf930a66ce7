"""A manifest that could not be saved: a crash may leave it, and no acknowledged data is lost with it."""

import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tests.handlers.snapshot.test_snapshot import CONTENT, SIZE, handler_of, snapshot
from vscsihba.errors import UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.snapshot import manifest as snapshot_manifest
from vscsihba.handlers.snapshot.manifest_file import ManifestFile
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

NEW, OLD = b"new" * 512, b"old" * 512


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base, and a set in which a snapshot is taken."""
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    with build(snapshot(tmp_path)) as disk:
        write(disk, 0, OLD)
        handler_of(disk).take("old")
    return tmp_path


@contextmanager
def unsynced(directory: Path, *, at_once: bool = False) -> Iterator[list[dict[str, bytes]]]:
    """Let no sync of a directory succeed, at once or from the next change of the manifest on.

    Yields:
        The files at each of these syncs: a power cut may leave the names of any of them.
    """
    real, manifest, kept = os.fsync, (directory / "manifest").read_bytes(), list[dict[str, bytes]]()

    def fsync(fd: int) -> None:
        changed = kept or at_once or (directory / "manifest").read_bytes() != manifest
        if changed and stat.S_ISDIR(os.fstat(fd).st_mode):
            kept.append({path.name: path.read_bytes() for path in directory.iterdir()})
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield kept


@contextmanager
def unrenamed(*, after: int) -> Iterator[None]:
    """Let no file be renamed after some that are."""
    real, left = os.replace, [after]

    def replace(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        yield


def change(disk: Checked, verb: str) -> None:
    getattr(handler_of(disk), verb)("mon" if verb == "take" else "old")


def active_manifest(base: Path) -> snapshot_manifest.Manifest:
    return snapshot_manifest.load(base / "set" / "manifest")


VERBS = ["take", "roll_back", "delete"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_manifest_that_a_power_cut_may_leave_finds_its_layers(base: Path, verb: str) -> None:
    """The names of a directory reach stable storage one by one: a rename, or the removal of a file."""
    with build(snapshot(base)) as disk:
        write(disk, 0, NEW)
        disk.flush()
        with unsynced(base / "set") as kept:
            with pytest.raises(OSError, match="error"):
                change(disk, verb)
            files = {path.name: path.read_bytes() for path in (base / "set").iterdir()}
    manifests = {files["manifest"], *(files["manifest"] for files in kept)}
    assert len(manifests) == 2
    for manifest in manifests:
        shutil.rmtree(base / "set")
        (base / "set").mkdir()
        for name, content in {**files, "manifest": manifest}.items():
            (base / "set" / name).write_bytes(content)
        with build(snapshot(base)) as disk:
            allowed = (OLD, NEW) if verb == "roll_back" else (NEW,)
            assert read(disk, 0, len(NEW)) in allowed
            assert len(list((base / "set").glob("*.layer"))) == len(active_manifest(base).layers)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fua", [False, True], ids=["flush", "fua"])
def test_nothing_is_flushed_while_a_power_cut_may_leave_another_manifest(
    base: Path, verb: str, *, fua: bool
) -> None:
    with build(snapshot(base)) as disk:
        before = active_manifest(base)
        with unsynced(base / "set") as kept:
            with pytest.raises(OSError, match="error"):
                change(disk, verb)
            assert active_manifest(base) == before
            write(disk, 0, NEW)
            count = len(kept)
            with pytest.raises(OSError, match="error"):
                disk.write(0, [memoryview(NEW)], fua=True) if fua else disk.flush()
            assert len(kept) == count + 1
        disk.flush()
        with unsynced(base / "set", at_once=True):
            disk.flush()  # the names are on stable storage now
        assert read(disk, 0, len(NEW)) == NEW
        change(disk, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_no_resize_is_acknowledged_while_a_power_cut_may_leave_another_manifest(
    base: Path, verb: str
) -> None:
    """A power cut would leave another active layer, and the disk would have the size of that one."""
    with build(snapshot(base)) as disk:
        with unsynced(base / "set"):
            with pytest.raises(OSError, match="error"):
                change(disk, verb)
            for size in (SIZE // 2, 2 * SIZE):
                with pytest.raises(OSError, match="error"):
                    disk.resize(size)
                assert disk.geometry.size == SIZE
        disk.resize(2 * SIZE)
        assert disk.geometry.size == 2 * SIZE
        with unsynced(base / "set", at_once=True):
            disk.flush()  # the names are on stable storage since the resize


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_written_while_a_killed_process_would_leave_another_manifest(
    base: Path, verb: str
) -> None:
    """The next process would not write to the layer that is written to now, or not even read it."""
    with build(snapshot(base)) as disk:
        before = active_manifest(base)
        write(disk, 0, NEW)  # from now on inline verbs have what they need
        with unsynced(base / "set"), unrenamed(after=1), pytest.raises(OSError, match="error"):
            change(disk, verb)
        assert active_manifest(base) != before
        with unrenamed(after=0):
            refuses: tuple[Callable[[], object], ...] = (
                lambda: write(disk, 0, OLD),
                lambda: disk.write_zeroes(0, SIZE, may_unmap=True),
                lambda: disk.unmap(0, SIZE),
                lambda: disk.resize(2 * SIZE),
                disk.flush,
            )
            for refused in refuses:
                with pytest.raises(OSError, match="error"):
                    refused()
            for moved in (disk.inline.read, disk.inline.write):
                assert moved is not None
                with pytest.raises(BlockingIOError):
                    moved([memoryview(bytearray(512))], 0, 0)
            if verb == "roll_back":
                with pytest.raises(OSError, match="error"):
                    read(disk, 0, len(NEW))
            else:
                assert read(disk, 0, len(NEW)) == NEW
        assert read(disk, 0, len(NEW)) == NEW
        write(disk, 0, OLD)
        assert active_manifest(base) == before
        disk.flush()
        change(disk, verb)


def test_a_file_stays_until_the_directory_that_a_killed_process_has_left_is_synced(base: Path) -> None:
    left_over = base / "set" / f"{'0' * 32}.layer"
    left_over.touch()
    with unsynced(base / "set", at_once=True), build(snapshot(base, create=False)) as disk:
        assert left_over.exists()
        with pytest.raises(OSError, match="error"):
            disk.flush()
    with build(snapshot(base)):
        assert not left_over.exists()


def test_a_set_that_could_not_be_made_is_not_left_without_its_layer(tmp_path: Path) -> None:
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    real, calls = os.fsync, []

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) and (tmp_path / "set" / "manifest").exists():
            calls.append(fd)
        if calls:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="error"):
            build(snapshot(tmp_path)).open()
    assert [path.suffix for path in (tmp_path / "set").iterdir()] == [".layer"]
    with build(snapshot(tmp_path)) as disk:
        assert read(disk, 0, SIZE) == CONTENT[:SIZE]
        assert len(list((tmp_path / "set").glob("*.layer"))) == 1


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the renames of files and the syncs of directories."""
    fsync, replace, count = os.fsync, os.replace, Counter[str]()

    def sync(fd: int) -> None:
        count["sync"] += stat.S_ISDIR(os.fstat(fd).st_mode)
        fsync(fd)

    def rename(source: Path, target: Path) -> None:
        count["rename"] += 1
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        patch.setattr(os, "replace", rename)
        yield count


def failed_save(base: Path, *, is_put_back: bool) -> ManifestFile:
    """Return a file whose manifest could not be saved, and could be put back or not."""
    file = ManifestFile(base / "set" / "manifest")
    with (
        unsynced(base / "set"),
        unrenamed(after=9 if is_put_back else 1),
        pytest.raises(OSError, match="error"),
    ):
        file.save(file.current.without("old"))
    assert file.is_in_place == is_put_back
    return file


def test_a_manifest_is_on_stable_storage_once_it_is_saved_or_settled(base: Path) -> None:
    file = ManifestFile(base / "set" / "manifest")
    with counted() as count:
        file.settle()
        file.settle()
        assert count == {"sync": 1}, "a former process may have been killed"
        (base / "set" / "manifest").unlink()  # it is not looked at while nothing has failed
        file.save(file.current.rolled_back("old", "a"))
        assert count == {"sync": 2, "rename": 1}
        file.settle()
        assert count == {"sync": 2, "rename": 1}


@pytest.mark.parametrize("verb", ["put_back", "settle"])
def test_a_manifest_is_put_back_once(base: Path, verb: str) -> None:
    file = failed_save(base, is_put_back=False)
    with counted() as count:
        getattr(file, verb)()
        assert file.is_in_place
        assert snapshot_manifest.load(base / "set" / "manifest") == file.current
        file.put_back()
        file.settle()
        assert count == {"sync": 1, "rename": 1}


def test_a_manifest_that_was_put_back_at_once_is_synced_later(base: Path) -> None:
    file = failed_save(base, is_put_back=True)
    with counted() as count, unsynced(base / "set"), pytest.raises(OSError, match="error"):
        file.save(file.current.without("old"))
    assert count["rename"] == 2, "the new one, and the former one again"
    with counted() as count:
        file.put_back()
        assert count == {}
        file.settle()
        assert count == {"sync": 1}


def test_the_manifest_in_force_is_put_back_before_another_one_is_saved(base: Path) -> None:
    """At most one other manifest may be in place, so that it is known how the disk reads with it."""
    file = failed_save(base, is_put_back=False)
    with unrenamed(after=0), pytest.raises(OSError, match="error"):
        file.save(file.current.rolled_back("old", "a"))
    assert file.reads_alike
    file.save(file.current.without("old"))
    assert file.is_in_place
    assert snapshot_manifest.load(base / "set" / "manifest") == file.current


@pytest.mark.parametrize("verb", ["save", "put_back", "settle"])
def test_one_thread_at_a_time_changes_the_file(base: Path, verb: str) -> None:
    file = failed_save(base, is_put_back=False)
    arguments = (file.current.without("old"),) if verb == "save" else ()
    thread = Thread(target=getattr(file, verb), args=arguments)
    with file._changing:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()
    assert file.is_in_place


def test_a_manifest_that_somebody_has_removed_is_put_back(base: Path) -> None:
    path, file = base / "set" / "manifest", failed_save(base, is_put_back=False)
    path.unlink()
    file.put_back()
    assert file.is_in_place
    assert snapshot_manifest.load(path) == file.current
    with pytest.raises(UsageError):
        ManifestFile(base / "manifest")
