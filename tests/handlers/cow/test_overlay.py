"""Overlays under faults: copies of them, notes of killed processes, failures half way, older versions."""

import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handlers.cow.test_cow import CONTENT, SIZE, abandon, cow, notes
from tests.handlers.crash import Power
from tests.handlers.places import open_files
from vscsihba.errors import FlushError, HostError, InUseError, MediumError, UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.cow import admin as cow_admin
from vscsihba.handlers.cow import format as cow_format
from vscsihba.handlers.cow.cluster_map import ClusterMap
from vscsihba.handlers.cow.format import BASE, DATA, ZERO
from vscsihba.handlers.cow.handler import CowHandler
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import create_overlay, digest, freeze, open_overlay, thaw
from vscsihba.handlers.shared import linux, superblock, tmpfs_store
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import KIB, read, write


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    return tmp_path


def handler_of(disk: Checked) -> CowHandler:
    assert isinstance(disk.next, CowHandler)
    return disk.next


def overlay_of(disk: Checked) -> Overlay:
    return handler_of(disk)._overlay


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def copied(base: Path) -> dict[str, object]:
    """Copy the overlay as it is, and return a disk of the copy."""
    shutil.copy(base / "over.cow", base / "copy.cow")
    return cow(base, path=str(base / "copy.cow"), create=False)


# Copies


def test_a_copy_of_an_overlay_in_use_is_refused_until_it_has_its_own_uuid(base: Path) -> None:
    with build(cow(base)) as disk:
        document = copied(base)
        with pytest.raises(InUseError, match=r'same uuid; .* "vscsihba cow renew-uuid .*copy\.cow"'):
            build(document).open()
        cow_admin.renew_uuid(str(base / "copy.cow"))
        with build(document) as copy:
            assert copy.identity != disk.identity


def test_copies_that_are_only_read_are_refused_as_well(base: Path) -> None:
    with build(cow(base)):
        pass
    copy = {**copied(base), "read_only": True}
    reader = cow(base, create=False, read_only=True)
    with build(reader), build(reader), pytest.raises(InUseError, match="same uuid"):
        build(copy).open()
    with build(copy):
        pass


def test_a_new_uuid_keeps_the_content_and_the_map(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    uuid = cow_admin.renew_uuid(str(base / "over.cow"))
    for _ in range(2):
        with build(cow(base)) as disk:
            assert disk.identity == f"cow:{uuid}"
            assert read(disk, 0, 5) == b"mine" + CONTENT[4:5]
            write(disk, 128 * KIB, b"more")


def test_a_copy_of_a_live_overlay_leaves_the_notes_of_the_original_alone(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"flushed")
    disk.flush()
    document = copied(base)
    write(disk, 128 * KIB, b"acknowledged")
    cow_admin.renew_uuid(str(base / "copy.cow"))
    with build(document) as copy:
        assert read(copy, 0, 7) == b"flushed"
        assert read(copy, 128 * KIB, 12) == CONTENT[128 * KIB :][:12]
    abandon(disk)
    with build(cow(base, create=False)) as disk:
        assert read(disk, 128 * KIB, 12) == b"acknowledged"


def test_a_note_of_a_living_process_is_no_riddle(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
        document = copied(base)
        (base / "over.cow").rename(base / "moved.cow")
        cow_admin.renew_uuid(str(base / "copy.cow"))
        with build(document) as copy:
            assert read(copy, 0, 4) == CONTENT[:4]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_copy_does_not_take_what_a_killed_process_left_for_the_original(
    base: Path, read_only: bool
) -> None:
    disk = build(cow(base)).open()
    document = copied(base)
    write(disk, 0, b"acknowledged")
    abandon(disk)
    with build({**document, "read_only": read_only}) as copy:
        assert read(copy, 0, 12) == CONTENT[:12]
    with build(cow(base, create=False)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


def test_a_file_that_was_moved_on_its_file_system_keeps_its_notes(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    abandon(disk)
    (base / "over.cow").rename(base / "moved.cow")
    with build(cow(base, path=str(base / "moved.cow"), create=False)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


@pytest.mark.parametrize("take", [True, False])
def test_notes_of_which_it_is_not_clear_whose_they_are(
    base: Path, take: bool, own_tmpfs_directory: Path
) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    abandon(disk)
    document = copied(base)
    (base / "over.cow").unlink()
    for refused in (document, {**document, "read_only": True}):
        with pytest.raises(
            HostError, match=r'writes that a killed process .* "vscsihba cow recover .*copy\.cow"'
        ):
            build(refused).open()
    assert len(notes(own_tmpfs_directory)) == 1
    cow_admin.recover(str(base / "copy.cow"), take=take)
    with build(document) as disk:
        assert read(disk, 0, 12) == (b"acknowledged" if take else CONTENT[:12])
    assert len(notes(own_tmpfs_directory)) == (0 if take else 1)


def test_notes_of_an_earlier_release_are_taken_over(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    note = tmpfs_store.recall(overlay_of(disk).header.session)
    assert note is not None
    abandon(disk)
    note.path.write_bytes(note.content)
    with build(cow(base)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


# Failures


def test_an_unmap_for_which_there_is_no_room_changes_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (base / "base.img").open("r+b") as file:
        file.truncate(64 << 20)
    document = cow(base, cluster_size=4096)
    disk = build(document).open()
    write(disk, 4050 * 4096, b"1" * 4 * 4096)
    disk.flush()
    with monkeypatch.context() as patch:
        patch.setattr(linux, "allocate", full)
        with pytest.raises(OSError, match="No space"):
            disk.unmap(4032 * 4096, 4032 * 4096)
    assert read(disk, 4050 * 4096, 4) == b"1111"
    write(disk, 4050 * 4096, b"2" * 4096)
    disk.flush()
    abandon(disk)
    with build(document) as disk:
        assert read(disk, 4050 * 4096, 4) == b"2222"
        assert read(disk, 4051 * 4096, 4) == b"1111"


def test_a_note_that_is_put_in_part_says_what_memory_says(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = cow(base, cluster_size=4096)
    disk = build(document).open()
    real, calls = os.pwrite, itertools.count()

    def half(fd: int, data: Any, offset: int) -> int:
        if next(calls):
            broken()
        return real(fd, memoryview(data)[: len(data) // 2], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="error"):
            disk.write_zeroes(0, 16 * 4096, may_unmap=True)
    states = bytes(overlay_of(disk).states[:16])
    assert states == bytes([ZERO]) * 8 + bytes([BASE]) * 8
    write(disk, 4096, b"acknowledged")
    abandon(disk)
    with build(document) as disk:
        assert read(disk, 4096, 12) == b"acknowledged"
        assert bytes(overlay_of(disk).states[2:16]) == states[2:]


def test_a_cluster_that_a_failed_flush_may_have_lost_is_not_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"safe")
    disk.flush()
    write(disk, 128 * KIB, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="error"):
            disk.flush()
    assert read(disk, 0, 4) == b"safe"
    for offset in (128 * KIB, 192 * KIB - 512):
        with pytest.raises(MediumError, match="a flush has failed"):
            read(disk, offset, 512)
    write(disk, 128 * KIB, b"x" * 64 * KIB)
    assert read(disk, 128 * KIB, 3) == b"xxx"
    write(disk, 64 * KIB, b"acknowledged")
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, 64 * KIB, 12) == b"acknowledged"
        assert read(disk, 128 * KIB, 3) == b"xxx"


def test_no_flush_succeeds_after_one_that_failed_and_none_is_tried(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    fail_flush(disk)
    tried: list[int] = []
    monkeypatch.setattr(os, "fdatasync", tried.append)
    with pytest.raises(FlushError, match="a flush has failed"):
        overlay_of(disk).flush()
    assert tried == []
    abandon(disk)


def test_a_flush_that_finds_no_room_loses_clusters_as_any_other(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(FlushError, match="No space"):
            overlay_of(disk).flush()
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 12) == CONTENT[CLUSTER:][:12]


def test_an_overlay_whose_writing_has_ended_begins_anew_with_the_next_cluster(base: Path) -> None:
    with build(cow(base)):
        pass
    overlay = open_overlay(str(base / "over.cow"), read_only=False)
    first = overlay.header.session
    overlay.end()
    assert tmpfs_store.recall(first) is None
    overlay.mark(0, 1, DATA)
    second = overlay.header.session
    assert second != first
    overlay.mark(1, 2, ZERO)
    assert overlay.header.session == second
    note = tmpfs_store.recall(second)
    assert note is not None
    assert note.content == bytes([DATA + 1, ZERO + 1])
    overlay.close()


def test_an_overlay_that_begins_anew_in_a_resize_keeps_what_a_killed_process_has_acknowledged(
    base: Path,
) -> None:
    disk = build(cow(base)).open()
    overlay_of(disk).end()
    disk.resize(1 << 20)
    write(disk, 128 * KIB, b"acknowledged")
    abandon(disk)
    with build(cow(base, create=False)) as disk:
        assert disk.geometry.size == 1 << 20
        assert read(disk, 128 * KIB, 12) == b"acknowledged"


def test_an_overlay_that_is_cleared_for_a_larger_disk_has_room_for_its_clusters(base: Path) -> None:
    path = base / "over.cow"
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    overlay = open_overlay(str(path), read_only=False)
    header = msgspec.structs.replace(overlay.header, size=1 << 30)
    overlay.clear(header)
    overlay.close()
    assert path.stat().st_size >= cow_format.file_size(header.clusters, header.cluster_size)
    overlay = open_overlay(str(path), read_only=True)
    assert overlay.header.size == 1 << 30
    assert not overlay.header.clearing
    assert overlay.states == bytes(header.clusters)
    overlay.close()


def test_a_cluster_that_was_lost_is_as_the_base_has_it_for_the_next_process(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, 128 * KIB, b"lost")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="error"):
            disk.flush()
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, 128 * KIB, 512) == CONTENT[128 * KIB :][:512]


def fail_flush(disk: Checked) -> None:
    """Let the next flush fail, and the kernel drop the pages of one cluster that was not flushed yet."""
    overlay = overlay_of(disk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="error"):
            overlay.flush()
    with open(handler_of(disk).options.path, "r+b") as file:  # noqa: PTH123  # where a hole is to be made
        linux.punch_hole(file.fileno(), overlay.place(CLUSTER), 64 * KIB)


CLUSTER = 128 * KIB


def between(disk: Checked, verb: str, monkeypatch: pytest.MonkeyPatch, *, before: bool = False) -> None:
    """Let a flush fail directly after a verb of the overlay's store, or before it."""
    store = overlay_of(disk).store
    real = getattr(store, verb)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(store, verb, real)
        if before:
            fail_flush(disk)
        done = real(*arguments, **more)
        if not before:
            fail_flush(disk)
        return done

    monkeypatch.setattr(store, verb, interrupted)


def test_a_read_during_which_a_flush_fails_returns_nothing_that_was_lost(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    between(disk, "read", monkeypatch, before=True)
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    abandon(disk)


def test_a_write_in_place_during_which_a_flush_fails_is_not_acknowledged(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    between(disk, "write", monkeypatch)
    with pytest.raises(MediumError, match="a flush has failed"):
        write(disk, CLUSTER + 512, b"part of it")
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 1024) == CONTENT[CLUSTER:][:1024]


@pytest.mark.parametrize("stored", [False, True])
def test_a_cluster_that_is_stored_while_a_flush_fails_keeps_what_the_base_has(
    base: Path, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    disk = build(cow(base)).open()
    if stored:  # the first of two, only a part of which is written
        write(disk, CLUSTER, b"perhaps lost")
    between(disk, "write", monkeypatch)
    with pytest.raises(MediumError, match="a flush has failed"):
        write(disk, CLUSTER + 60 * KIB, bytes(8 * KIB))
    if stored:
        with pytest.raises(MediumError, match="a flush has failed"):
            read(disk, CLUSTER, 512)
    else:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_cluster_that_is_stored_within_a_flush_that_fails_is_not_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()

    def stored_meanwhile(_fd: int) -> None:
        write(disk, CLUSTER, b"perhaps lost")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", stored_meanwhile)
        with pytest.raises(OSError, match="error"):
            disk.flush()
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_cluster_that_was_zeroes_is_lost_with_a_failed_flush_too(base: Path) -> None:
    disk = build(cow(base)).open()
    disk.write_zeroes(CLUSTER, 64 * KIB, may_unmap=True)
    disk.flush()
    write(disk, CLUSTER, b"perhaps lost")
    fail_flush(disk)
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER + 512, 512)
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 64 * KIB) == bytes(64 * KIB)


def test_a_flush_of_the_header_that_fails_loses_clusters_too(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    real = superblock.encode

    def encoded(*arguments: Any) -> bytes:
        write(disk, CLUSTER, b"perhaps lost")
        monkeypatch.setattr(os, "fdatasync", broken)
        return real(*arguments)

    monkeypatch.setattr(superblock, "encode", encoded)
    with pytest.raises(OSError, match="error"):
        overlay_of(disk).replace_header(overlay_of(disk).header)
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    abandon(disk)


def test_a_flush_at_the_beginning_that_fails_loses_clusters_of_a_killed_process(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    place = overlay_of(disk).place(CLUSTER)
    abandon(disk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(FlushError):
            build(cow(base)).open()
    with (base / "over.cow").open("r+b") as file:
        linux.punch_hole(file.fileno(), place, 64 * KIB)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_killed_process_s_note_of_lost_clusters_that_cannot_be_removed_is_emptied(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    place = overlay_of(disk).place(CLUSTER)
    abandon(disk)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(Path, "unlink", broken)
        with pytest.raises(FlushError):
            build(cow(base)).open()
    with (base / "over.cow").open("r+b") as file:
        linux.punch_hole(file.fileno(), place, 64 * KIB)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_map_that_cannot_be_flushed_at_the_beginning_loses_nothing(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"acknowledged")
    abandon(disk)
    place = cow_format.place_of_sector(0, 64 * KIB)
    map_before = (base / "over.cow").read_bytes()[place:][:512]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", mock.Mock(side_effect=[None, OSError(errno.EIO, "broken")]))
        with pytest.raises(FlushError):
            build(cow(base)).open()
    with (base / "over.cow").open("r+b") as file:  # the kernel has dropped what was written to the map
        file.seek(place)
        file.write(map_before)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 12) == b"acknowledged"


def test_bytes_behind_the_end_of_a_layer_are_merged_as_zeroes(base: Path) -> None:
    with build(cow(base)) as disk, build(cow(base, path=str(base / "above.cow"))) as above:
        write(disk, 64 * KIB, b"x" * 64 * KIB)
        disk.resize(64 * KIB + 512)
        handler_of(above)._disk.pull(overlay_of(disk), 1)
        assert read(above, 64 * KIB, 64 * KIB) == b"x" * 512 + bytes(64 * KIB - 512)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), MemoryError(), HostError("not private", cure="remove it")]
)
def test_a_disk_is_smaller_even_if_its_storage_is_not_given_back(
    base: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with build(cow(base)) as disk:
        write(disk, 128 * KIB, b"x" * 64 * KIB)
        with monkeypatch.context() as patch:
            patch.setattr(Overlay, "free", mock.Mock(side_effect=error))
            disk.resize(64 * KIB)
        assert disk.geometry.size == 64 * KIB
        disk.resize(192 * KIB)
        assert not any(read(disk, 64 * KIB, 128 * KIB))


def test_a_lost_cluster_is_not_merged(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    fail_flush(disk)
    with build(cow(base, path=str(base / "above.cow"))) as above:
        with pytest.raises(MediumError, match="a flush has failed"):
            handler_of(above)._disk.pull(overlay_of(disk), 2)
        assert overlay_of(above).states[2] == BASE
    abandon(disk)


@pytest.mark.parametrize("verb", ["read", "write"])
def test_an_inline_verb_during_which_a_flush_fails_goes_to_a_thread(base: Path, verb: str) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    inline = handler_of(disk).inline
    fail_flush(disk)
    overlay_of(disk).states[CLUSTER // (64 * KIB)] = DATA  # as the verb has seen it
    mover = getattr(inline, verb)
    assert mover is not None
    # BlockingIOError would say that nothing is written.
    with pytest.raises(BlockingIOError if verb == "read" else OSError) as raised:
        mover([memoryview(bytearray(512))], CLUSTER, 0)
    assert isinstance(raised.value, BlockingIOError) == (verb == "read")
    abandon(disk)


class Killed(BaseException):
    """The process was killed."""


def sync_fails(disk: Checked, *, calls: int) -> bool:
    """Let a flush fail, and kill the process before some later call; return whether it came so far.

    The calls are those that change a note. The medium loses what was stored since the last flush.
    """
    left, overlay, came_so_far = calls, overlay_of(disk), False

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*arguments)

        return counting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        for name in ("pwrite", "unlink", "ftruncate"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            with pytest.raises(FlushError):
                overlay.flush()
        except Killed:
            came_so_far = True
    with open(handler_of(disk).options.path, "r+b") as file:  # noqa: PTH123  # where holes are to be made
        for cluster in range(len(overlay.states)):
            linux.punch_hole(file.fileno(), overlay.place(cluster * 64 * KIB), 64 * KIB)
    return came_so_far


def test_clusters_that_a_failed_flush_has_lost_are_taken_back_as_a_whole(base: Path) -> None:
    calls, came_so_far = 1, True
    while came_so_far:
        disk = build(cow(base)).open()
        for cluster in (0, 2, 3):
            write(disk, cluster * 64 * KIB, b"perhaps lost")
        came_so_far = sync_fails(disk, calls=calls)
        abandon(disk)
        with build(cow(base)) as disk:
            assert read(disk, 0, SIZE) == CONTENT[:SIZE], f"killed after {calls} calls"
        calls += 1
    assert calls > 4


def test_states_that_no_failed_flush_can_have_lost_stay(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"a" * 64 * KIB)
    disk.flush()
    write(disk, 64 * KIB, b"perhaps lost")
    disk.write_zeroes(CLUSTER, 64 * KIB, may_unmap=True)
    write(disk, 0, b"b")
    overlay = overlay_of(disk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(TmpfsStore, "put", broken)  # so that the flag stays
        with pytest.raises(FlushError):
            overlay.flush()
    with pytest.raises(OSError, match="a flush has failed"):
        write(disk, CLUSTER, b"a state that nobody would believe")
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, 0, 64 * KIB) == b"b" + b"a" * (64 * KIB - 1)
        assert read(disk, 64 * KIB, 64 * KIB) == CONTENT[64 * KIB :][: 64 * KIB]
        assert read(disk, CLUSTER, 64 * KIB) == bytes(64 * KIB)


def test_what_is_written_after_a_failed_flush_survives_the_process(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"perhaps lost")
    write(disk, CLUSTER, b"perhaps lost")
    fail_flush(disk)
    write(disk, 64 * KIB, b"acknowledged")
    write(disk, CLUSTER, b"a" * 64 * KIB)
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, 0, 12) == CONTENT[:12]
        assert read(disk, 64 * KIB, 12) == b"acknowledged"
        assert read(disk, CLUSTER, 64 * KIB) == b"a" * 64 * KIB


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no note"), MemoryError()])
def test_a_note_that_cannot_tell_of_lost_clusters_is_removed(
    base: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "set_flag", mock.Mock(side_effect=error))
        fail_flush(disk)
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    with pytest.raises(OSError, match="a flush has failed"):
        write(disk, 0, b"a cluster that no note could speak of")
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no note"), MemoryError()])
def test_a_note_from_which_lost_clusters_cannot_be_taken_back_takes_no_more(
    base: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put", mock.Mock(side_effect=error))
        fail_flush(disk)
    with pytest.raises(MediumError, match="a flush has failed"):
        read(disk, CLUSTER, 512)
    with pytest.raises(OSError, match="a flush has failed"):
        write(disk, 0, b"a cluster that nobody would believe in")
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_note_of_lost_clusters_that_cannot_be_changed_or_removed_is_emptied(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "set_flag", broken)
        patch.setattr(Path, "unlink", broken)
        fail_flush(disk)
        abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


def test_a_note_of_lost_clusters_that_can_only_be_changed_later_is_removed_then(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, CLUSTER, b"perhaps lost")
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "set_flag", broken)
        patch.setattr(Path, "unlink", broken)
        patch.setattr(os, "ftruncate", broken)
        fail_flush(disk)
    with pytest.raises(FlushError):
        disk.flush()
    overlay = overlay_of(disk)
    with monkeypatch.context() as patch:
        patch.setattr(type(overlay), "_leave_note", lambda self: self._note.close(forget=False))
        abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, CLUSTER, 512) == CONTENT[CLUSTER:][:512]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), HostError("not private", cure="remove it")])
def test_an_old_note_that_cannot_be_removed_leaves_no_descriptor_open(
    base: Path, own_tmpfs_directory: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    abandon(disk)
    with monkeypatch.context() as patch:
        patch.setattr(tmpfs_store, "_remove", mock.Mock(side_effect=error))
        opened_again = build(cow(base))
        assert read(opened_again.open(), 0, 12) == b"acknowledged"
    opened_again.close()
    opened = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.startswith(str(own_tmpfs_directory))]


def test_a_resize_that_fails_changes_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with build(cow(base)) as disk:
        write(disk, SIZE - 512, b"at the end")
        for size in (64 * KIB, 1 << 20):
            with monkeypatch.context() as patch:
                patch.setattr(superblock.Superblock, "replace", full)
                with pytest.raises(OSError, match="No space"):
                    disk.resize(size)
            assert disk.geometry.size == SIZE
            assert read(disk, SIZE - 512, 10) == b"at the end"
        disk.resize(1 << 20)
        assert len(overlay_of(disk).states) == overlay_of(disk).header.clusters == 16
        assert not any(read(disk, SIZE, (1 << 20) - SIZE))


def test_a_failed_resize_that_could_not_be_taken_back_does_not_come_to_count(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = build(cow(base)).open()
    with monkeypatch.context() as patch:
        pwritev, began = os.pwritev, list[int]()

        def no_room_after_the_header(fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
            if not began:
                began.append(offset)
                pwritev(fd, views, offset, flags)
            return full()

        patch.setattr(os, "pwritev", no_room_after_the_header)
        with pytest.raises(OSError, match="No space"):
            disk.resize(64 * KIB)
        assert len(began) == 1
        assert began[0] < superblock.END
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        with pytest.raises(OSError, match="No space"):
            disk.flush()
    assert disk.geometry.size == SIZE
    write(disk, SIZE - 512, b"acknowledged")
    disk.flush()
    abandon(disk)
    with build(cow(base)) as disk:
        assert disk.geometry.size == SIZE
        assert read(disk, SIZE - 512, 12) == b"acknowledged"


def test_what_was_cut_off_reads_as_zeroes_when_it_is_back(base: Path) -> None:
    for size in (SIZE - 512, 65 * KIB, 64 * KIB):
        with build(cow(base, path=str(base / f"{size}.cow"))) as disk:
            write(disk, SIZE - 600, b"x" * 600)
            disk.resize(size)
            disk.resize(SIZE + 512)
            assert not any(read(disk, size, SIZE + 512 - size))


@pytest.mark.parametrize("missing", ["the note", "the header", "the base"])
def test_an_open_that_fails_leaves_nothing(
    base: Path, missing: str, monkeypatch: pytest.MonkeyPatch, own_tmpfs_directory: Path
) -> None:
    with build(cow(base)):
        pass
    before = sorted(base.iterdir()), len(list(Path("/proc/self/fd").iterdir()))
    document = cow(base)
    with monkeypatch.context() as patch:
        if missing == "the note":
            patch.setattr(os, "pwritev", full)
        elif missing == "the header":
            patch.setattr(superblock.Superblock, "replace", full)
        else:
            document["next"] = {"handler": "null", "size": SIZE}
        with pytest.raises((OSError, HostError)):
            build(document).open()
    assert (sorted(base.iterdir()), len(list(Path("/proc/self/fd").iterdir()))) == before
    assert notes(own_tmpfs_directory) == []
    with build(cow(base)):
        pass


def test_a_frozen_overlay_is_read_by_others_until_it_is_thawed(base: Path, own_tmpfs_directory: Path) -> None:
    path = str(base / "over.cow")
    with build(cow(base)):
        pass
    active = open_overlay(path, read_only=False)
    active.overwrite(0, [memoryview(b"mine")])
    active.mark(0, 1, DATA)
    with pytest.raises(InUseError):
        open_overlay(path, read_only=True)
    freeze(active)
    assert notes(own_tmpfs_directory) == []
    for frozen in (False, True):
        other = open_overlay(path, read_only=not frozen, frozen=frozen)
        assert other.states[0] == DATA
        assert other.header == active.header
        with pytest.raises(InUseError):
            thaw(active)
        other.close()
    thaw(active)
    with pytest.raises(InUseError):
        open_overlay(path, read_only=True)
    active.close()


def test_an_overlay_that_is_abandoned_keeps_nothing_that_was_not_flushed(
    base: Path, own_tmpfs_directory: Path
) -> None:
    path = str(base / "over.cow")
    with build(cow(base)):
        pass
    before = open_files()
    active = open_overlay(path, read_only=False)
    active.overwrite(0, [memoryview(b"mine")])
    active.mark(0, 1, DATA)
    active.abandon()
    assert notes(own_tmpfs_directory) == []
    other = open_overlay(path, read_only=True)
    assert other.states[0] == BASE
    other.abandon()  # nothing was to be kept, so there is no note
    assert open_files() == before


def test_an_overlay_whose_flush_fails_is_shared_anyway(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(base / "over.cow")
    with build(cow(base)):
        pass
    active = open_overlay(path, read_only=False)
    with monkeypatch.context() as patch:
        patch.setattr(Overlay, "flush", broken)
        with pytest.raises(OSError, match="Input/output"):
            freeze(active)
    open_overlay(path, read_only=True, recover=False).close()
    active.close()


def test_a_part_that_cannot_be_removed_is_no_failure(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", broken)
        with build(cow(base)) as disk:
            write(disk, 0, b"mine")
    with build(cow(base, create=False)) as disk:
        assert read(disk, 0, 4) == b"mine"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (512, "3edcd60dee04f26069538a1f110ad50413a588dca78023c5aa9788511d1da852"),
        (1 << 20, "bbd3a786c2c69a2c6cfa451e64382491844b68261ac2c9003ac7cd2c98aeeaca"),
        ((1 << 20) + 512, "be6cfef5de61a0211c8c5823c3ca81e2ff00534c9d27a143b030ca0f04befe32"),
        (3 << 20, "24e78234b049b32ecd1eef4d0b30e4e4149ba43f498e2d804e93783ff3c9ee6e"),
    ],
)
def test_the_digest_of_a_base_stays_that_of_earlier_releases(size: int, expected: str) -> None:
    with build({"handler": "memory", "size": size}) as disk:
        write(disk, 0, b"".join(b"%07d\n" % number for number in range(size // 8)))
        assert digest(disk) == expected


def test_no_overlay_is_made_in_place_of_another_file(base: Path) -> None:
    header = cow_format.Header(
        uuid="u", size=SIZE, cluster_size=4096, base="b", base_size=SIZE, base_digest="d"
    )
    with pytest.raises(UsageError, match=r"base\.img: there is a file of that name"):
        create_overlay(str(base / "base.img"), header)
    assert (base / "base.img").read_bytes() == CONTENT[:SIZE]
    assert [path.name for path in base.iterdir()] == ["base.img"]


def test_making_an_overlay_touches_no_other_file(base: Path) -> None:
    (base / "over.cow.new").write_bytes(b"somebody's only copy")
    with build(cow(base)):
        pass
    assert (base / "over.cow.new").read_bytes() == b"somebody's only copy"
    assert sorted(path.name for path in base.iterdir()) == ["base.img", "over.cow", "over.cow.new"]


def test_an_overlay_that_is_made_and_not_opened_is_gone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Overlay, "begin", full)
        with pytest.raises(OSError, match="No space"):
            build(cow(base)).open()
    assert [path.name for path in base.iterdir()] == ["base.img"]


def test_a_link_to_an_overlay_stays_one(base: Path) -> None:
    (base / "volume").mkdir()
    (base / "over.cow").symlink_to(base / "volume" / "real.cow")
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    assert cow_admin.status(str(base / "volume" / "real.cow")).stored == 64 * KIB
    cow_admin.discard(str(base / "over.cow"))
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    with build(str(base / "base.img")) as target:
        cow_admin.commit(str(base / "over.cow"), target)
    assert (base / "over.cow").is_symlink()
    assert cow_admin.status(str(base / "volume" / "real.cow")).stored == 0
    assert (base / "base.img").read_bytes() == b"mine" + CONTENT[4:SIZE]


def test_an_interrupted_commit_goes_on_with_its_own_base_only(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    overlay = open_overlay(str(base / "over.cow"), read_only=False)
    overlay.replace_header(msgspec.structs.replace(overlay.header, committing=True))
    overlay.close()
    shutil.copy(base / "base.img", base / "other.img")
    with (
        build(str(base / "other.img")) as target,
        pytest.raises(UsageError, match=r"is not the base .*base\.img"),
    ):
        cow_admin.commit(str(base / "over.cow"), target)
    assert (base / "other.img").read_bytes() == CONTENT[:SIZE]


def test_a_discard_that_is_killed_forgets_everything_or_nothing(tmp_path: Path) -> None:
    outcomes = set()
    for at in itertools.count():
        where = tmp_path / str(at)
        where.mkdir()
        (where / "base.img").write_bytes(CONTENT[:SIZE])
        document = cow(where, size="4MiB", cluster_size=4096)
        with build(document) as disk:  # three sectors of the map
            write(disk, 0, b"mine")
            write(disk, 3 << 20, b"mine")
        child = os.fork()
        if child == 0:
            power = Power(where, at)
            power.cut = lambda: os._exit(9)  # type: ignore[method-assign]
            with power.on():
                cow_admin.discard(str(where / "over.cow"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with build({**document, "create": False, "size": None}) as disk:
            found = read(disk, 0, 4), read(disk, 3 << 20, 4)
        assert found in ((b"mine", b"mine"), (CONTENT[:4], bytes(4)))
        outcomes.add(found)
        shutil.rmtree(where)
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert len(outcomes) == 2


def test_what_is_committed_or_discarded_gives_its_storage_back(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"x" * SIZE)
    assert (base / "over.cow").stat().st_blocks * 512 > SIZE
    cow_admin.discard(str(base / "over.cow"))
    assert (base / "over.cow").stat().st_blocks * 512 < 64 * KIB


# Two requests at once


class Watched:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self, waiting: threading.Event) -> None:
        self._lock = threading.Lock()
        self._waiting = waiting

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("other", ["write", "unmap", "pull"])
def test_two_requests_for_one_new_cluster_lose_neither(base: Path, other: str, tmp_path: Path) -> None:
    with build(cow(base)) as disk, build(cow(base, path=str(tmp_path / "below.cow"))) as below:
        whole = handler_of(disk)._disk
        write(below, 0, b"p" * 64 * KIB)
        settled = threading.Event()
        whole.allocating = Watched(settled)  # type: ignore[assignment]
        real = whole._content

        def second() -> None:
            if other == "pull":
                whole.pull(overlay_of(below), 0)
            elif other == "write":
                write(disk, 8192, b"second")
            else:
                disk.write_zeroes(0, 64 * KIB, may_unmap=True)
            settled.set()

        thread = threading.Thread(target=second)

        def content(start: int, end: int) -> list[memoryview]:
            found = real(start, end)
            if not thread.ident:
                thread.start()
                settled.wait()  # the second one is done, or waits for this one
            return found

        whole._content = content  # type: ignore[method-assign]
        write(disk, 0, b"first")
        thread.join()
        if other == "unmap":
            assert not any(read(disk, 0, 64 * KIB))
        else:
            assert read(disk, 0, 5) == b"first"
            assert read(disk, 8192, 6) == (b"second" if other == "write" else CONTENT[8192:8198])


# Discards and extents


def test_discards_smaller_than_a_cluster_take_no_storage(base: Path) -> None:
    with (base / "base.img").open("r+b") as file:
        file.truncate(8 << 20)
    with build(cow(base)) as disk:
        assert not disk.capabilities.unmap_zeroes
        before = (base / "over.cow").stat().st_blocks
        for offset in range(0, 8 << 20, 128 * KIB):
            disk.unmap(offset + 16 * KIB, 96 * KIB)
        disk.flush()
        assert (base / "over.cow").stat().st_blocks <= before + 8
        assert read(disk, 128 * KIB, 16 * KIB) == CONTENT[128 * KIB :][: 16 * KIB]


def test_a_cluster_that_is_unmapped_gives_its_storage_back(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"x" * 128 * KIB)
        disk.flush()
        before = (base / "over.cow").stat().st_blocks
        disk.unmap(0, 64 * KIB)
        assert (base / "over.cow").stat().st_blocks <= before - 128
        assert read(disk, 0, 128 * KIB) == bytes(64 * KIB) + b"x" * 64 * KIB


def test_a_part_of_a_cluster_that_is_stored_gives_its_storage_back(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"x" * 64 * KIB)
        disk.flush()
        before = (base / "over.cow").stat().st_blocks
        disk.unmap(16 * KIB, 32 * KIB)
        assert (base / "over.cow").stat().st_blocks <= before - 64
        assert read(disk, 0, 64 * KIB) == b"x" * 16 * KIB + bytes(32 * KIB) + b"x" * 16 * KIB


class Counted(bytearray):
    """States that count how many of them were looked at."""

    looked = 0

    def find(self, sub: Any, start: Any = 0, end: Any = 0) -> int:
        found = super().find(sub, start, end)
        self.looked += (end if found < 0 else found) - start
        return found


def test_extents_take_time_for_what_they_return_only(base: Path) -> None:
    with build(cow(base, size="4GiB", cluster_size=4096)) as disk:
        overlay = overlay_of(disk)
        states = Counted(len(overlay.states))
        states[0:4096:2] = bytes([DATA]) * 2048
        overlay.map.states = states
        found = disk.extents(0, 4 << 30)
        assert len(found) == 1024
        assert states.looked < 64 * 2 * 1024


@given(
    states=st.lists(
        st.tuples(st.sampled_from([BASE, DATA, ZERO]), st.integers(1, 400)), min_size=1, max_size=12
    )
)
def test_runs_are_cut_where_the_state_changes(states: list[tuple[int, int]]) -> None:
    overlay = Overlay.__new__(Overlay)
    overlay.map = ClusterMap()
    overlay.map.states = bytearray(b"".join(bytes([state]) * count for state, count in states))
    overlay.broken = False
    overlay.header = cow_format.Header(
        size=len(overlay.states) * 4096, cluster_size=4096, base="", base_size=0, base_digest=""
    )
    found = [(state, run.length // 4096) for state, run in overlay.runs(0, overlay.header.size)]
    assert found == [(state, len(list(group))) for state, group in itertools.groupby(overlay.states)]


def test_a_key_that_stays_in_the_base_cannot_be_destroyed(base: Path) -> None:
    encrypted = {
        "handler": "encrypt",
        "passphrase_file": str(base / "secret"),
        "kdf": "pbkdf2",
        "kdf_time": 0,
    }
    (base / "secret").write_bytes(b"correct horse\n")
    with (base / "base.img").open("wb") as file:
        file.truncate(32 << 20)
    with build({**encrypted, "create": True, "next": str(base / "base.img")}) as disk:
        assert disk.capabilities.crypto_erase
    with build({**encrypted, "next": cow(base)}) as disk:
        assert not disk.capabilities.crypto_erase


# Versions


def test_an_overlay_of_version_1_becomes_one_of_version_2(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(header: cow_format.Header) -> bytes:
        fields = msgspec.to_builtins(header)
        del fields["map_uuid"], fields["clearing"]
        return msgspec.json.encode({**fields, "version": 1})

    with monkeypatch.context() as patch:
        patch.setattr("vscsihba.handlers.cow.overlay.encode_header", old)
        with build(cow(base)) as disk:
            write(disk, 0, b"mine")
    with build(cow(base, create=False, read_only=True)) as disk:
        assert read(disk, 0, 5) == b"mine" + CONTENT[4:5]
    assert b'"version":1' in (base / "over.cow").read_bytes()[:8192]
    with build(cow(base)) as disk:
        assert read(disk, 0, 5) == b"mine" + CONTENT[4:5]
    newest = max((base / "over.cow").read_bytes()[at : at + 4096][16:] for at in (0, 4096))
    assert b'"version":2' in newest


def test_a_note_is_about_a_file_and_locked_by_its_process(base: Path) -> None:
    with build(cow(base)) as disk:
        session = overlay_of(disk).header.session
        found = tmpfs_store.recall(session)
        assert found is not None
        assert found.in_use
        assert msgspec.json.decode(found.about or b"")["inode"] == (base / "over.cow").stat().st_ino
        with pytest.raises(InUseError):
            TmpfsStore(session)
    assert tmpfs_store.recall(session) is None
