import errno
import os
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.handlers.model import KIB, MEMORY_DIRECTORY, DiskModel, as_tests, read, write
from vscsihba.errors import ConfigError, HostError, InUseError, MediumError, UsageError
from vscsihba.handlers import file_inline, file_path, linux
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.file_direct import DirectFile
from vscsihba.handlers.stack import Document, build


class FileModel(DiskModel):
    def prepare(self, directory: Path) -> bytearray:
        (directory / "a.img").write_bytes(bytes(self.size))
        return bytearray(self.size)

    def document(self, directory: Path) -> Document:
        return str(directory / "a.img")


class TmpfsModel(FileModel):
    """The same where the page cache is the storage, and not every system call is there."""

    scratch = MEMORY_DIRECTORY


class BigBlocksModel(FileModel):
    def document(self, directory: Path) -> Document:
        return {"handler": "file", "path": str(directory / "a.img"), "block_size": 4096}


class DirectModel(FileModel):
    def document(self, directory: Path) -> Document:
        return {"handler": "file", "path": str(directory / "a.img"), "direct": True}


TestFile = as_tests(FileModel)
TestFileDirect = as_tests(DirectModel)
TestFileBigBlocks = as_tests(BigBlocksModel)
if MEMORY_DIRECTORY:
    TestFileTmpfs = as_tests(TmpfsModel)


CONTENT = b"abcd" * (256 * KIB)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(CONTENT)
    return path


def document(path: Path, **options: object) -> dict[str, object]:
    return {"handler": "file", "path": str(path), **options}


# What can be a disk


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.img: no such file"):
        build(str(tmp_path / "none.img")).check()


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        build(str(tmp_path)).check()


def test_pipe_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        build(str(tmp_path / "pipe")).check()


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    with pytest.raises(UsageError, match=r"a\.img: the size is 0"):
        build(str(tmp_path / "a.img")).check()


def test_size_no_multiple_of_the_block_size(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(2048))
    build(str(tmp_path / "a.img")).check()
    with pytest.raises(UsageError, match=r"a\.img: the size 2048 is no multiple of the block size 4096"):
        build(document(tmp_path / "a.img", block_size=4096)).check()


def test_block_size_that_no_disk_has(image: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.block_size"):
        build(document(image, block_size=513))


def test_a_device_that_is_no_block_device() -> None:
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        build("/dev/null").check()


def test_opening_refuses_what_checking_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        file_path.claim(str(tmp_path / "none.img"), read_only=False, shared=False)


def test_create_makes_a_sparse_private_file(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with build(document(path, create=True, size="64MiB")) as disk:
        assert disk.geometry.size == 64 << 20
    assert path.stat().st_blocks == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_create_leaves_a_file_that_exists_alone(image: Path) -> None:
    with build(document(image, create=True, size="64MiB")) as disk:
        assert disk.geometry.size == 1 << 20
        assert read(disk, 0, 4) == b"abcd"


def test_create_checks_the_directory_before_anything_opens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        build(document(tmp_path / "none" / "a.img", create=True, size="1MiB")).check()


def test_create_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="File too large"):
        build(document(tmp_path / "a.img", create=True, size=(1 << 63) - 512)).open()
    assert list(tmp_path.iterdir()) == []


def test_create_needs_a_size(image: Path) -> None:
    with pytest.raises(ConfigError, match='"create" needs a "size"'):
        build(document(image, create=True))


def test_size_makes_a_file_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with build(document(path, size="64MiB")) as disk:
        assert disk.geometry.size == 64 << 20
    assert path.stat().st_blocks == 0


def test_size_enlarges_a_smaller_file_and_keeps_its_bytes(image: Path) -> None:
    stack = build(document(image, size="3MiB"))
    stack.check()
    assert image.stat().st_size == 1 << 20
    with stack as disk:
        assert disk.geometry.size == 3 << 20
        assert read(disk, 0, 4) == b"abcd"
        assert not any(read(disk, 1 << 20, 2 << 20))
    assert image.stat().st_size == 3 << 20


def test_size_never_makes_a_file_smaller(image: Path) -> None:
    with build(document(image, size="64KiB")) as disk:
        assert disk.geometry.size == 1 << 20


def test_size_that_no_file_can_have_leaves_it_alone(image: Path) -> None:
    with pytest.raises(HostError, match="File too large"):
        build(document(image, size=(1 << 63) - 512)).open()
    assert image.stat().st_size == 1 << 20


def test_size_that_does_not_suit_the_blocks_leaves_the_file_alone(image: Path) -> None:
    with pytest.raises(UsageError):
        build(document(image, size=(1 << 20) + 512, block_size=4096)).open()
    assert image.stat().st_size == 1 << 20


def test_size_is_nothing_for_a_file_that_is_only_read(image: Path) -> None:
    with pytest.raises(ConfigError, match='cannot be given a "size"'):
        build(document(image, size="1MiB", read_only=True))


def test_storage_can_be_set_aside_or_written(tmp_path: Path) -> None:
    for preallocation in ("reserve", "full"):
        path = tmp_path / f"{preallocation}.img"
        with build(document(path, create=True, size="3MiB", preallocation=preallocation)) as disk:
            assert path.stat().st_blocks * 512 >= 3 << 20
            assert not any(read(disk, 0, 3 << 20))


def test_storage_is_set_aside_for_a_new_file_only(image: Path) -> None:
    with pytest.raises(ConfigError, match='needs a "size"'):
        build(document(image, preallocation="full"))


def test_the_name_of_a_new_file_is_on_stable_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    with build(document(tmp_path / "new.img", size=1 << 20)):
        assert synced == [(tmp_path / "new.img").stat().st_ino, tmp_path.stat().st_ino]


# Past the page cache


def test_direct_access_needs_no_alignment_of_requests(image: Path) -> None:
    with build(document(image, direct=True)) as disk:
        assert disk.inline.read is None
        write(disk, 4093, b"0123456789", fua=True)
        assert read(disk, 4090, 16) == CONTENT[4090:4093] + b"0123456789" + CONTENT[4103:4106]
        write(disk, 0, CONTENT)
        assert read(disk, 0, 1 << 20) == CONTENT
        disk.flush()


def test_direct_access_needs_an_aligned_end(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(4096 + 512))
    with pytest.raises(UsageError, match=r"size 4608 is no multiple of the 4096"):
        build(document(tmp_path / "a.img", direct=True)).check()
    (tmp_path / "a.img").write_bytes(bytes(8192))
    with (
        build(document(tmp_path / "a.img", direct=True)) as disk,
        pytest.raises(UsageError, match="no multiple"),
    ):
        disk.resize(8192 + 512)


def test_direct_access_notices_a_truncated_file(image: Path) -> None:
    with build(document(image, direct=True)) as disk:
        os.truncate(image, 8192)
        with pytest.raises(MediumError) as lost:
            read(disk, 4096, 8192)
        assert lost.value.offset == 8192
        with pytest.raises(MediumError):
            write(disk, 8192, b"x")


@pytest.mark.parametrize("verb", ["write_zeroes", "unmap", "write"])
def test_a_direct_write_of_less_than_a_sector_undoes_nothing_beside_it(
    image: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A neighbour that changes between its reading and its writing would get its old bytes back."""
    load = DirectFile._load
    changed = Event()

    def change_then(disk: Checked) -> None:
        if verb == "write":
            write(disk, 0, bytes(4096))
        elif verb == "unmap":
            disk.unmap(0, 512)
        else:
            disk.write_zeroes(0, 512, may_unmap=True)
        changed.set()

    with build(document(image, direct=True)) as disk:
        write(disk, 0, b"D" * 4096)
        beside = Thread(target=change_then, args=(disk,))

        def slow_load(direct: DirectFile, start: int, room: memoryview) -> None:
            load(direct, start, room)
            if not beside.ident:
                beside.start()
                changed.wait(0.2)  # it has to wait for us; were it let in, it would be done long before

        monkeypatch.setattr(DirectFile, "_load", slow_load)
        write(disk, 512, b"N" * 512)
        beside.join()
        assert read(disk, 0, 512) == bytes(512)


def test_no_direct_access_here(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match="there is no direct access here"):
        build(document(image, direct=True)).open()


# Sharing


def test_second_writer_is_refused(image: Path) -> None:
    with build(str(image)), pytest.raises(InUseError, match=r"a\.img is in use"):
        build(str(image)).open()
    with build(str(image)):
        pass


def test_reader_and_writer_exclude_each_other(image: Path) -> None:
    reader = document(image, read_only=True)
    with build(str(image)), pytest.raises(InUseError):
        build(reader).open()
    with build(reader), pytest.raises(InUseError):
        build(str(image)).open()


def test_readers_share(image: Path) -> None:
    reader = document(image, read_only=True)
    with build(reader) as one, build(reader) as other:
        assert read(one, 0, 4) == read(other, 0, 4) == b"abcd"
        assert one.inline.write is None


def test_a_link_is_the_same_medium(image: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image)
    with build(str(tmp_path / "link")) as disk:
        assert disk.identity == f"file:{image.resolve()}"


# Reading and writing


def test_read_only_refuses_writes(image: Path) -> None:
    with build(document(image, read_only=True)) as disk:
        with pytest.raises(OSError, match="Read-only") as refused:
            write(disk, 0, b"x")
        assert refused.value.errno == errno.EROFS
        assert disk.capabilities.read_only
        assert disk.capabilities.unmap, "its holes show"
        with pytest.raises(OSError, match="Read-only"):
            disk.unmap(0, 4096)


def test_more_views_than_one_call_takes(image: Path) -> None:
    data = os.urandom(5000)
    with build(str(image)) as disk:
        disk.write(7, [memoryview(data)[at : at + 1] for at in range(5000)])
        room = bytearray(5000)
        disk.read(7, [memoryview(room)[at : at + 2] for at in range(0, 5000, 2)])
    assert room == data


def test_truncated_file_names_the_first_lost_byte(image: Path) -> None:
    with build(str(image)) as disk:
        os.truncate(image, 100_000)
        assert read(disk, 99_996, 4) == b"abcd"
        with pytest.raises(MediumError) as lost:
            read(disk, 98_304, 4096)
        assert lost.value.offset == 100_000
        with pytest.raises(MediumError) as lost:
            read(disk, 200_000, 512)
        assert lost.value.offset == 200_000


def test_truncated_file_does_not_grow_back_with_zeroes(image: Path) -> None:
    with build(str(image)) as disk:
        os.truncate(image, 100_000)
        data = memoryview(bytes(512))
        inline = disk.inline
        assert inline.write is not None
        for verb in (
            lambda: disk.write(300_000, [data]),
            lambda: disk.write_zeroes(300_000, 512, may_unmap=False),
            lambda: disk.unmap(300_000, 512),
            lambda: disk.extents(0, 1 << 20),
            lambda: disk.resize(2 << 20),
        ):
            with pytest.raises(MediumError):
                verb()
        with pytest.raises(BlockingIOError):
            inline.write([data], 300_000, 0)
        assert image.stat().st_size == 100_000
        write(disk, 99_000, b"still there")


def test_full_disk_is_told_and_the_disk_goes_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with build(str(image)) as disk:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", full)
            for fua in (False, True):
                with pytest.raises(OSError, match="No space") as refused:
                    write(disk, 0, b"x", fua=fua)
                assert refused.value.errno == errno.ENOSPC
        write(disk, 0, b"y", fua=True)
        disk.flush()


def test_failed_flush_is_never_followed_by_a_good_one(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with build(str(image)) as disk:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(OSError, match="Input/output"):
                disk.flush()
        with pytest.raises(OSError, match="an earlier flush failed") as again:
            disk.flush()
        assert again.value.errno == errno.EIO
        with pytest.raises(OSError, match="an earlier flush failed"):
            write(disk, 0, b"x", fua=True)
        write(disk, 0, b"x")
    with build(str(image)) as disk:
        disk.flush()


# Holes


def test_unmap_frees_storage(image: Path) -> None:
    before = image.stat().st_blocks
    with build(str(image)) as disk:
        assert disk.capabilities.unmap_zeroes
        disk.unmap(0, 512 * KIB)
    assert image.stat().st_blocks <= before // 2 + 8


def test_room_is_the_file_systems(image: Path) -> None:
    with build(str(image)) as disk:
        space = disk.space()
        assert space is not None
        assert space.used == image.stat().st_blocks * 512
        free = os.statvfs(image)
        assert 0 < space.available <= free.f_blocks * free.f_frsize


def test_extents_show_holes(image: Path) -> None:
    with build(str(image)) as disk:
        disk.unmap(64 * KIB, 64 * KIB)
        found = disk.extents(0, 1 << 20)
        assert [(status.extent.offset, status.allocated) for status in found] == [
            (0, True),
            (64 * KIB, False),
            (128 * KIB, True),
        ]
        disk.unmap(0, 1 << 20)
        (hole,) = disk.extents(512, 1024)
        assert not hole.allocated
        assert hole.zero


def test_write_zeroes_keeps_storage_unless_it_may_unmap(image: Path) -> None:
    before = image.stat().st_blocks
    with build(str(image)) as disk:
        disk.write_zeroes(0, 1 << 20, may_unmap=False, fua=True)
        assert image.stat().st_blocks >= before
        disk.write_zeroes(0, 1 << 20, may_unmap=True)
        assert image.stat().st_blocks < before
        assert not any(read(disk, 0, 1 << 20))


def test_write_zeroes_without_help_of_the_file_system(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(linux, "punch_hole", no)
    monkeypatch.setattr(linux, "zero_range", no)
    with build(str(image)) as disk:
        assert not disk.capabilities.unmap
        disk.write_zeroes(1000, 200_000, may_unmap=True, fua=True)
        assert not any(read(disk, 1000, 200_000))
        assert read(disk, 996, 4) == read(disk, 201_000, 4) == b"abcd"


# Inline verbs


def test_inline_read_is_a_bare_system_call(image: Path) -> None:
    with build(str(image)) as disk:
        inline = disk.inline
        if inline.read is None:
            pytest.skip("the file system has no RWF_NOWAIT")
        read(disk, 0, 4096)
        room = memoryview(bytearray(4096))
        assert inline.read([room], 0, inline.read_flags) == 4096
        assert room[:4].tobytes() == b"abcd"


def test_inline_read_elsewhere_goes_to_a_thread(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with image.open("rb") as file:
        monkeypatch.setattr(os, "preadv", no)
        assert file_inline.read_flags(file.fileno()) is None
        monkeypatch.setattr(linux, "is_memory", lambda _: True)
        assert file_inline.read_flags(file.fileno()) == 0


@pytest.mark.parametrize("sleeps", [True, False])
def test_inline_writes_pause_while_they_block(
    image: Path, monkeypatch: pytest.MonkeyPatch, *, sleeps: bool
) -> None:
    now = 100.0
    cost = 0.0
    slept = 7

    def pwritev(fd: int, views: Any, offset: int, flags: int) -> int:
        nonlocal now, slept
        now += cost
        slept += sleeps and cost > 0
        return len(views[0])

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(file_inline, "times_slept", lambda: slept)
    with image.open("r+b") as file:
        inline = file_inline.bounded_writer(file.fileno(), file_inline.Expected(0))
        views = [memoryview(b"x")]
        assert inline(views, 0, 0) == 1
        cost = 0.2
        assert inline(views, 0, 0) == 1
        assert inline(views, 0, 0) == 1, "one slow write may be the scheduler's doing"
        cost = 0.0
        if not sleeps:
            assert inline(views, 0, 0) == 1, "a thread would have waited for a processor as well"
            return
        with pytest.raises(BlockingIOError):
            inline(views, 0, 0)
        now += 0.2 * file_inline.PATIENCE
        assert inline(views, 0, 0) == 1
        cost = 0.2
        assert inline(views, 0, 0) == 1
        with pytest.raises(BlockingIOError):
            inline(views, 0, 0)


def test_inline_writes_of_a_traced_process_go_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps in every call, whatever the storage does."""
    now, calls = 100.0, 0

    def pwritev(fd: int, views: Any, offset: int, flags: int) -> int:
        nonlocal now
        now += 0.2
        return len(views[0])

    def slept() -> int:
        nonlocal calls
        calls += 1
        return calls

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(file_inline, "times_slept", slept)
    monkeypatch.setattr(linux, "is_traced", lambda: True)
    with image.open("r+b") as file:
        inline = file_inline.bounded_writer(file.fileno(), file_inline.Expected(0))
        for _ in range(20):
            assert inline([memoryview(b"x")], 0, 0) == 1
    assert not calls


def test_nobody_traces_this_test() -> None:
    tracer = Path("/proc/self/status").read_text().partition("TracerPid:")[2].split()[0]
    assert linux.is_traced() == (tracer != "0")


def test_resize_moves_the_end_for_inline_writes_too(image: Path) -> None:
    with build(str(image)) as disk:
        inline = disk.inline
        assert inline.write is not None
        disk.resize(512 * KIB)
        assert inline.write([memoryview(b"x" * 512)], 0, 0) == 512
        disk.resize(2 << 20)
        assert inline.write([memoryview(b"x" * 512)], 1 << 20, 0) == 512
    assert image.stat().st_size == 2 << 20


def test_a_missing_file_is_made_as_a_copy(tmp_path: Path) -> None:
    template, path = tmp_path / "golden.img", tmp_path / "a.img"
    template.write_bytes(b"gold" * 1024)
    document = {"handler": "file", "path": str(path), "copy_of": str(template), "size": 8192}
    with build(document) as disk:
        assert read(disk, 0, 8192) == b"gold" * 1024 + bytes(4096)
        write(disk, 0, b"mine" * 128)
    assert template.read_bytes() == b"gold" * 1024
    template.unlink()
    with build(document) as disk:  # it is there, and stays what it is
        assert read(disk, 0, 512) == b"mine" * 128


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("nowhere", "nowhere: there is no such file to copy"),
        (".", "is a directory"),
        ("odd", "no multiple of"),
    ],
)
def test_a_template_that_can_be_none(tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "odd").write_bytes(bytes(1000))
    path = tmp_path / "a.img"
    stack = build({"handler": "file", "path": str(path), "copy_of": str(tmp_path / template)})
    with pytest.raises(UsageError, match=message):
        stack.check()
    assert not path.exists()


def test_a_template_that_is_written_is_not_copied(tmp_path: Path) -> None:
    template, path = tmp_path / "golden.img", tmp_path / "a.img"
    template.write_bytes(bytes(4096))
    stack = build({"handler": "file", "path": str(path), "copy_of": str(template)})
    with build(str(template)), pytest.raises(InUseError, match=r"golden\.img is in use"):
        stack.open()
    assert not path.exists()
    with stack as disk:
        assert disk.geometry.size == 4096
