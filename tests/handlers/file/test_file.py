import ctypes
import errno
import os
import shutil
import subprocess
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest import mock

import pytest

from tests.handlers.places import MEMORY_DIRECTORY, open_files
from vscsihba.errors import ConfigError, FlushError, HostError, InUseError, MediumError, UsageError
from vscsihba.handlers.base import Mover, batched
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.file import inline as file_inline
from vscsihba.handlers.file import making
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.direct import DirectFile
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.file.sync import Syncs
from vscsihba.handlers.shared import linux
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write


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


MIB = 1024 * KIB
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
    with pytest.raises(UsageError, match=r"a\.img: the size 2048 is not a multiple of the block size 4096"):
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


def test_create_leaves_a_file_alone_that_appears_after_the_check(image: Path) -> None:
    with pytest.raises(HostError, match=r"a\.img: File exists"):
        making.create(str(image), 4096)
    assert image.read_bytes() == CONTENT


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


def test_a_full_file_is_written_exactly_up_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []
    pwritev = os.pwritev

    def note(fd: int, views: Any, offset: int) -> int:
        done = pwritev(fd, views, offset)
        written.append((offset, offset + done))
        return done

    monkeypatch.setattr(os, "pwritev", note)
    size = (2 << 20) + 1536
    with build(document(tmp_path / "full.img", create=True, size=size, preallocation="full")):
        pass
    assert [start for start, _ in written] == [0, *(end for _, end in written[:-1])]
    assert written[-1][1] == (tmp_path / "full.img").stat().st_size == size


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
    synced.clear()
    with build(document(tmp_path / "new.img", size=1 << 20)):
        assert synced == [tmp_path.stat().st_ino], "whoever has made it may have been killed before"
    synced.clear()
    with build(document(tmp_path / "new.img", size=1 << 20), make=False):
        assert synced == []


@pytest.mark.parametrize(("error", "opens"), [(errno.EIO, False), (errno.EACCES, True)])
def test_a_file_is_not_used_before_its_name_is_on_stable_storage(
    image: Path, monkeypatch: pytest.MonkeyPatch, error: int, *, opens: bool
) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    stack = build(document(image, size=image.stat().st_size))
    with nullcontext() if opens else pytest.raises(HostError, match="error"), stack:
        pass


# Images of other formats


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-img here")
@pytest.mark.parametrize(
    ("format_", "options", "name"),
    [
        ("qcow2", "compat=0.10", "qcow2"),
        ("qcow2", "compat=1.1", "qcow2"),
        ("qcow", "", "qcow"),
        ("qed", "", "qed"),
        ("vdi", "", "vdi"),
        ("vhdx", "", "vhdx"),
        ("vmdk", "", "vmdk"),
        ("vpc", "subformat=dynamic", r"vpc \(VHD\)"),
        ("vpc", "subformat=fixed", r"vpc \(VHD\)"),
        ("parallels", "", "parallels"),
    ],
)
def test_an_image_of_another_format_is_refused(tmp_path: Path, format_: str, options: str, name: str) -> None:
    path = tmp_path / "image"
    made = subprocess.run(
        ["qemu-img", "create", "-q", "-f", format_, *(["-o", options] if options else []), path, "16M"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    os.truncate(path, -(-path.stat().st_size // 512) * 512)
    before = path.read_bytes()
    message = rf'is an image of the format {name}, not raw; use the handler "qemu" for it, .* "format": "raw"'
    for read_only in (False, True):
        with pytest.raises(UsageError, match=message):
            build(document(path, read_only=read_only)).check()
    with pytest.raises(UsageError, match="not raw"):
        build(document(tmp_path / "copy", copy_of=str(path))).check()
    assert path.read_bytes() == before
    with build(document(path, format="raw")) as disk:
        assert read(disk, 0, 512) == before[:512]


def test_an_overlay_is_no_raw_image(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.cow"
    overlay = {"handler": "cow", "path": str(path), "create": True, "next": str(image)}
    with build(overlay) as disk:
        write(disk, 0, b"kept")
    with pytest.raises(UsageError, match='format cow, not raw; use it with "handler": "cow", above its base'):
        build(str(path)).check()
    with path.open("r+b") as file:
        file.write(bytes(8))  # of the first slot; the second one counts
        file.seek(4096)
        file.write(b"VSCSICOW")
    with pytest.raises(UsageError, match="format cow"):
        build(str(path)).check()


def test_an_image_that_takes_the_place_of_the_one_that_was_checked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(1 << 20))
    handler = FileHandler(FileHandler.Options(path=str(path)))
    handler.check()
    path.write_bytes(b"QFI\xfb\0\0\0\3" + bytes((1 << 20) - 8))
    before = open_files()
    with pytest.raises(UsageError, match="not raw"):
        handler.open()
    assert open_files() == before


def test_a_raw_image_is_taken_for_nothing_else(tmp_path: Path) -> None:
    """The boot code does not matter."""
    path = tmp_path / "a.img"
    path.write_bytes((b"\xeb\x63\x90" + b"GRUB \0" * 80).ljust(510, b"\0") + b"\x55\xaa" + bytes(4096 - 512))
    with build(document(path)):
        pass


# Names and sizes


def test_a_link_to_a_file_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there.img")
    with build(document(tmp_path / "link", size=1 << 20)) as disk:
        write(disk, 0, b"kept")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there.img").read_bytes()[:4] == b"kept"
    (tmp_path / "lost").symlink_to("nowhere/there.img")
    with pytest.raises(UsageError, match="there is no directory"):
        build(document(tmp_path / "lost", size=1 << 20)).check()


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.img")
    Path(path).write_bytes(bytes(4096))
    with pytest.raises(ConfigError, match=r"'.*udcff.img' is not valid UTF-8; rename it, or make a symbolic"):
        build(document(Path(path)))
    (tmp_path / "link.img").symlink_to(path)
    with build(document(tmp_path / "link.img")) as disk:
        disk.identity.encode()
        first = disk.identity
    other = os.fsdecode(os.fsencode(tmp_path) + b"/\xfe.img")
    Path(other).write_bytes(bytes(4096))
    (tmp_path / "other.img").symlink_to(other)
    with build(document(tmp_path / "other.img")) as disk:
        assert disk.identity != first


def test_a_device_is_named_by_what_it_reports(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vscsihba.handlers.file.handler.stat.S_ISBLK", lambda _: True)
    monkeypatch.setattr("vscsihba.handlers.file.handler.block_identity", lambda _: "wwid:naa.5001")
    handler = FileHandler(FileHandler.Options(path=str(image)))
    handler._fd = os.open(image, os.O_RDONLY)
    assert handler._name() == "block:wwid:naa.5001"
    monkeypatch.setattr("vscsihba.handlers.file.handler.block_identity", lambda _: None)
    assert handler._name() == f"file:{image}"
    os.close(handler._fd)
    handler._identity, handler._is_device = "block:wwid:naa.5001", True
    monkeypatch.setattr(
        "vscsihba.handlers.file.handler.lasting_path", lambda path, _: f"/dev/disk/by-id/{path[-5:]}"
    )
    handler._fd = os.open(image, os.O_RDONLY)
    handler._warn_of_name()
    os.close(handler._fd)
    assert f"{image} may be another disk after a restart; name it /dev/disk/by-id/a.img" in caplog.text
    assert handler.is_known_as(f"file:{image}")
    assert not handler.is_known_as("file:/dev/sdx")
    handler._is_device = False
    assert not handler.is_known_as(f"file:{image}")


def test_an_overlay_takes_over_the_name_that_its_base_has_now(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its base is a device that was recorded by its path; from then on it may have another path."""
    cow = {"handler": "cow", "path": str(tmp_path / "a.cow"), "create": True, "next": str(image)}
    snapshot = {"handler": "snapshot", "path": str(tmp_path / "set"), "create": True, "next": str(image)}
    inside = {"handler": "offset", "offset": 4096, "next": str(image)}
    window = {**cow, "path": str(tmp_path / "b.cow"), "next": inside}
    for document_ in (cow, snapshot, window):
        with build(document_) as disk:
            write(disk, 0, b"kept")
    monkeypatch.setattr(FileHandler, "_name", lambda handler: "block:" + Path(handler.options.path).name[:1])
    monkeypatch.setattr(
        FileHandler,
        "is_known_as",
        lambda handler, name: name in (handler.identity, handler._path_identity()),
    )
    elsewhere = tmp_path / "another.img"
    for document_ in (cow, snapshot, window):
        with build(document_) as disk:
            assert read(disk, 0, 4) == b"kept"
    image.rename(elsewhere)
    for document_ in (cow, snapshot):
        with build({**document_, "next": str(elsewhere)}) as disk:
            assert read(disk, 0, 4) == b"kept"
    with build({**window, "next": {"handler": "offset", "offset": 4096, "next": str(elsewhere)}}) as disk:
        assert read(disk, 0, 4) == b"kept"
    with pytest.raises(HostError, match="its base is not"):
        build({**window, "next": {"handler": "offset", "offset": 8192, "next": str(elsewhere)}}).open()


def test_the_last_block_of_an_image_of_odd_size(tmp_path: Path) -> None:
    path = tmp_path / "a disk.img"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(UsageError, match=r"size 1000 .* enlarge it \(truncate -s 1024 '.*a disk.img'\), or"):
        build(document(path)).check()
    with build(document(path, read_only=True)) as disk:
        assert disk.geometry.size == 1024
        assert read(disk, 0, 1024) == b"x" * 1000 + bytes(24)
        assert read(disk, 999, 25) == b"x" + bytes(24)
        assert read(disk, 1000, 8) == bytes(8)
        assert sum(status.extent.length for status in disk.extents(0, 1024)) == 1024
        os.truncate(path, 600)
        with pytest.raises(MediumError) as lost:
            read(disk, 512, 512)
        assert lost.value.offset == 600
    assert path.read_bytes() == b"x" * 600
    with pytest.raises(UsageError, match='leave "direct" out'):
        build(document(path, read_only=True, direct=True)).check()


def test_a_file_of_the_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be behind the end, even a hole."""
    path = tmp_path / "a.img"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    punch = linux.punch_hole

    def bounded(fd: int, offset: int, length: int) -> None:
        if offset + length > 1 << 20:
            raise OSError(errno.EFBIG, "File too large")
        punch(fd, offset, length)

    monkeypatch.setattr(linux, "punch_hole", bounded)
    with build(document(path)) as disk:
        assert disk.capabilities.unmap
        write(disk, 0, b"x" * (1 << 20))
        disk.flush()
    with build(document(path)) as disk:
        assert not disk.capabilities.unmap
        assert read(disk, 0, 1 << 20) == b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"physical_block_size": 1 << 25}, "more than 32768 logical blocks of 512"),
        ({"size": "16EiB"}, "larger than Linux can address"),
        ({"size": "8EiB"}, "larger than Linux can address"),
        ({"size": 1 << 70}, "larger than Linux can address"),
    ],
)
def test_shapes_that_no_disk_has(image: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, ConfigError), match=message):
        build(document(image, **options)).check()


@pytest.mark.parametrize("direct", [False, True])
def test_a_write_that_stops_short_is_no_success(
    image: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    pwritev = os.pwritev
    left = [1]

    def short(fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if not left[0]:
            return 0
        left[0] -= 1
        return pwritev(fd, [views[0][:512]], offset, flags)

    with build(document(image, direct=direct)) as disk:
        monkeypatch.setattr(os, "pwritev", short)
        with pytest.raises(OSError, match="only 512 of 8192 bytes were stored at byte 4096"):
            write(disk, 4096, b"x" * 8192)
        monkeypatch.undo()


def test_a_new_size_is_on_stable_storage(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    truncate, sync = os.ftruncate, os.fdatasync

    def truncated(fd: int, size: int) -> None:
        done.append(size)
        truncate(fd, size)

    def synced(fd: int) -> None:
        done.append("synced")
        sync(fd)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with build(document(image)) as disk:
        monkeypatch.setattr(os, "ftruncate", truncated)
        monkeypatch.setattr(os, "fdatasync", synced)
        disk.resize(2 << 20)
        disk.resize(1 << 20)
        assert done == [2 << 20, "synced", "synced", 1 << 20, "synced"]
        monkeypatch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="Input/output error"):
            disk.resize(4 << 20)
        assert disk.geometry.size == image.stat().st_size == 1 << 20
        with pytest.raises(FlushError):  # it tells of the failure before, and cuts nothing off
            disk.resize(512 * KIB)
        assert disk.geometry.size == image.stat().st_size == 1 << 20


# Past the page cache


def test_direct_access_needs_no_alignment_of_requests(image: Path) -> None:
    before = open_files()
    with build(document(image, direct=True)) as disk:
        assert disk.inline.read is None
        write(disk, 4093, b"0123456789", fua=True)
        assert read(disk, 4090, 16) == CONTENT[4090:4093] + b"0123456789" + CONTENT[4103:4106]
        write(disk, 0, CONTENT)
        assert read(disk, 0, 1 << 20) == CONTENT
        disk.flush()
    assert open_files() == before


def test_direct_access_needs_an_aligned_end(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(4096 + 512))
    with pytest.raises(UsageError, match=r"size 4608 is not a multiple of the 4096"):
        build(document(tmp_path / "a.img", direct=True)).check()
    (tmp_path / "a.img").write_bytes(bytes(8192))
    with (
        build(document(tmp_path / "a.img", direct=True)) as disk,
        pytest.raises(UsageError, match="not a multiple"),
    ):
        disk.resize(8192 + 512)


def test_direct_access_notices_a_truncated_file(image: Path) -> None:
    with build(document(image, direct=True)) as disk:
        os.truncate(image, 8192)
        with pytest.raises(MediumError, match="ends at byte 8192") as lost:
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


def test_a_file_that_was_made_goes_when_the_disk_cannot_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("O_DIRECT is not supported here")

    monkeypatch.setattr("vscsihba.handlers.file.handler.DirectFile", refuse)
    before = open_files()
    with pytest.raises(UsageError, match="O_DIRECT is not supported"):
        build(document(tmp_path / "new.img", size=1 << 20, direct=True)).open()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.img").write_bytes(bytes(1 << 20))
    with pytest.raises(UsageError, match="O_DIRECT is not supported"):
        build(document(tmp_path / "old.img", size=1 << 20, direct=True)).open()
    assert list(tmp_path.iterdir()) == [tmp_path / "old.img"]
    assert open_files() == before


def test_a_file_that_cannot_be_made_or_enlarged_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    old = tmp_path / "old.img"
    old.write_bytes(bytes(4096))
    monkeypatch.setattr(os, "fsync", broken)
    before = open_files()
    for path in (tmp_path / "new.img", old):
        with pytest.raises(HostError, match="Input/output error"):
            build(document(path, size=8192)).open()
    assert open_files() == before
    assert list(tmp_path.iterdir()) == [old]
    assert old.stat().st_size == 4096


def test_no_direct_access_here(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match="O_DIRECT is not supported here"):
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


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_failed_flush_is_never_followed_by_a_good_one(
    image: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def broken(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with build(str(image)) as disk:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(FlushError, match=os.strerror(number)) as failed:
                disk.flush()
            assert failed.value.errno == number
        with pytest.raises(FlushError, match="an earlier flush failed") as again:
            disk.flush()
        assert again.value.errno == errno.EIO
        with pytest.raises(FlushError, match="an earlier flush failed"):
            write(disk, 0, b"x", fua=True)
        write(disk, 0, b"x")
    with build(str(image)) as disk:
        disk.flush()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_with_fua_whose_sync_finds_no_room_counts_as_a_failed_flush(
    image: Path, monkeypatch: pytest.MonkeyPatch, number: int, direct: bool
) -> None:
    pwritev = os.pwritev

    def thin(fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_DSYNC:
            raise OSError(number, os.strerror(number))
        return pwritev(fd, views, offset, flags)

    with build({**document(image), "direct": direct}) as disk:
        monkeypatch.setattr(os, "pwritev", thin)
        with pytest.raises(FlushError, match=os.strerror(number)):
            write(disk, 0, b"x" * 512, fua=True)
        with pytest.raises(FlushError, match="an earlier flush failed"):
            disk.flush()


# Holes


@pytest.mark.parametrize(
    ("error", "number"),
    [(OSError(errno.ENODEV, "No such device"), errno.ENODEV), (OSError("no number"), errno.EIO)],
)
def test_a_failed_flush_says_why(error: OSError, number: int) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(FlushError) as failed:
        Syncs("a.img").run(fail)
    assert failed.value.errno == number


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


def timed_writer(fd: int, monkeypatch: pytest.MonkeyPatch) -> Mover:
    """Return the inline write of a file that may block, whatever file system the test runs on."""
    monkeypatch.setattr(linux, "is_memory", lambda _fd: False)
    return file_inline.bounded_writer(fd, file_inline.Expected(0))


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
        inline = timed_writer(file.fileno(), monkeypatch)
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
        inline = timed_writer(file.fileno(), monkeypatch)
        for _ in range(20):
            assert inline([memoryview(b"x")], 0, 0) == 1
    assert not calls


def test_a_batch_of_writes_is_judged_at_its_end_and_within(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write of a batch can block unnoticed, and a batch that blocks is not completed inline."""
    now, slept = 100.0, 7

    def pwritev(fd: int, views: Any, offset: int, flags: int) -> int:
        nonlocal now, slept
        now += 0.2
        slept += 1
        return len(views[0])

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(file_inline, "times_slept", lambda: slept)
    monkeypatch.setattr(os, "pwritev", pwritev)
    with image.open("r+b") as file:
        parts = batched(timed_writer(file.fileno(), monkeypatch))
        small, large = [memoryview(b"x")], [memoryview(bytes(file_inline.STRIDE))]
        for _ in range(2):  # the first batch arouses suspicion, the second one is asked whether it slept
            assert parts.first(small, 0, 0) == 1
            assert parts.rest(small, 0, 0) == 1
            parts.end()
        with pytest.raises(BlockingIOError):
            parts.rest(small, 0, 0)
        with pytest.raises(BlockingIOError):
            parts.first(small, 0, 0)
        now += 0.4 * file_inline.PATIENCE
        assert parts.first(large, 0, 0) == len(large[0])
        with pytest.raises(BlockingIOError):
            parts.rest(small, 0, 0)


def test_a_device_node_in_a_tmpfs_is_no_memory() -> None:
    with Path("/dev/null").open("rb") as node:
        assert not linux.is_memory(node.fileno())


@pytest.mark.parametrize(
    ("magic", "is_memory", "is_remote"),
    [
        (0xEF53, False, False),  # ext4
        (0x01021994, True, False),  # tmpfs
        (0x858458F6, True, False),  # ramfs
        (0x6969, False, True),  # NFS
        (0xFF534D42, False, True),  # CIFS, as a long that is negative where that has 32 bits
        (0x65735546, False, True),  # FUSE
    ],
)
def test_what_a_file_system_is(
    image: Path, monkeypatch: pytest.MonkeyPatch, magic: int, *, is_memory: bool, is_remote: bool
) -> None:
    def fstatfs(_fd: int, buffer: Any) -> int:
        ctypes.c_ulong.from_buffer(buffer).value = magic
        return 0

    monkeypatch.setattr(linux, "_libc", mock.Mock(fstatfs=fstatfs))
    with image.open("r+b") as file, Path("/dev/null").open("rb") as node:
        assert linux.is_memory(file.fileno()) == is_memory
        assert linux.is_remote(file.fileno()) == is_remote
        assert not linux.is_remote(node.fileno())
        verbs = file_inline.inline_verbs(file.fileno(), file_inline.Expected(0), read_only=False)
        assert (verbs.write is None) == is_remote


def test_the_file_system_of_a_file_that_cannot_be_asked(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fstatfs(_fd: int, _buffer: Any) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(linux, "_libc", mock.Mock(fstatfs=fstatfs))
    with image.open("rb") as file, pytest.raises(OSError, match="Input/output error"):
        linux.is_remote(file.fileno())


def test_nobody_traces_this_test() -> None:
    tracer = Path("/proc/self/status").read_text().partition("TracerPid:")[2].split()[0]
    assert linux.is_traced() == (tracer != "0")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_shrink_that_is_not_on_stable_storage_fails_and_leaves_the_size(
    image: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sync, left = os.fdatasync, [True]

    def second_fails(fd: int) -> None:
        if not left:
            raise OSError(number, os.strerror(number))
        left.pop()
        sync(fd)

    with build(document(image)) as disk:
        write(disk, 0, b"\x01" * MIB)
        monkeypatch.setattr(os, "fdatasync", second_fails)
        with pytest.raises(
            OSError, match=f"{os.strerror(number)}; the bytes from 524288 on may be zeroes now"
        ):
            disk.resize(512 * KIB)
        assert disk.geometry.size == image.stat().st_size == MIB
        assert read(disk, 512 * KIB - 1, 2) == b"\x01\0"
        assert disk.inline.write is not None
        assert disk.inline.write([memoryview(b"x" * 512)], MIB - 512, 0) == 512


def test_a_shrink_that_cannot_be_undone_fails_as_the_sync_did(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate = os.ftruncate

    def only_shrinks(fd: int, size: int) -> None:
        if size == MIB:
            raise OSError(errno.ENOSPC, "No space left on device")
        truncate(fd, size)
        monkeypatch.setattr(os, "fdatasync", broken)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with build(document(image)) as disk:
        monkeypatch.setattr(os, "ftruncate", only_shrinks)
        with pytest.raises(FlushError, match="Input/output error"):
            disk.resize(512 * KIB)
        assert disk.geometry.size == MIB
        for verb in (partial(disk.read, MIB - 512), partial(disk.write, MIB - 512)):
            with pytest.raises(MediumError):
                verb([memoryview(bytearray(512))])
        assert disk.inline.write is not None
        with pytest.raises(BlockingIOError):
            disk.inline.write([memoryview(b"x" * 512)], MIB - 512, 0)
        assert image.stat().st_size == 512 * KIB


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
        ("odd", "not a multiple of"),
    ],
)
def test_a_template_that_can_be_none(tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "odd").write_bytes(bytes(1000))
    path = tmp_path / "a.img"
    stack = build({"handler": "file", "path": str(path), "copy_of": str(tmp_path / template)})
    with pytest.raises(UsageError, match=message):
        stack.check()
    assert not path.exists()


def test_a_template_may_be_on_a_read_only_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "golden.img"
    template.write_bytes(b"gold" * 1024)
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if str(path) == str(template) and flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    before = open_files()
    path = tmp_path / "a.img"
    with build({"handler": "file", "path": str(path), "copy_of": str(template)}) as disk:
        assert read(disk, 0, 4096) == b"gold" * 1024
    assert open_files() == before


def test_a_copy_for_which_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    template, path = tmp_path / "golden.img", tmp_path / "a.img"
    template.write_bytes(bytes(4096))
    monkeypatch.setattr("vscsihba.handlers.file.reflink.copy_file", refuse)
    with pytest.raises(HostError, match=r"a\.img: No space left on device"):
        build({"handler": "file", "path": str(path), "copy_of": str(template)}).open()


def test_a_template_that_is_written_is_not_copied(tmp_path: Path) -> None:
    template, path = tmp_path / "golden.img", tmp_path / "a.img"
    template.write_bytes(bytes(4096))
    stack = build({"handler": "file", "path": str(path), "copy_of": str(template)})
    with build(str(template)), pytest.raises(InUseError, match=r"golden\.img is in use"):
        stack.open()
    assert not path.exists()
    with stack as disk:
        assert disk.geometry.size == 4096
