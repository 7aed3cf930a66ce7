import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from tests.handlers.cow.test_cow import CONTENT, SIZE, cow
from tests.handlers.crash import Power
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.handlers.cow.admin import commit, discard, status
from vscsihba.handlers.cow.overlay_file import open_overlay
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import KIB, read, write


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base with an overlay that has stored two clusters and zeroed one."""
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    with build(cow(tmp_path)) as disk:
        write(disk, 64 * KIB - 2, b"over")
        disk.unmap(192 * KIB, 64 * KIB)
    return tmp_path


def changed() -> bytes:
    content = bytearray(CONTENT[:SIZE])
    content[64 * KIB - 2 : 64 * KIB + 2] = b"over"
    content[192 * KIB : 256 * KIB] = bytes(64 * KIB)
    return bytes(content)


def overlay(base: Path) -> str:
    return str(base / "over.cow")


def do_commit(base: Path) -> None:
    with build(str(base / "base.img")) as target:
        commit(overlay(base), target)


def test_status(base: Path) -> None:
    found = status(overlay(base))
    assert found.size == found.base_size == SIZE
    assert found.stored == 128 * KIB
    assert found.zeroed == 64 * KIB
    assert found.base == f"file:{base / 'base.img'}"
    assert not found.committing


def test_commit_moves_everything_into_the_base(base: Path) -> None:
    progress: list[tuple[int, int]] = []
    with build(str(base / "base.img")) as target:
        commit(overlay(base), target, progress=lambda done, of: progress.append((done, of)))
    assert progress == [(64 * KIB, 192 * KIB), (192 * KIB, 192 * KIB)]
    assert (base / "base.img").read_bytes() == changed()
    assert status(overlay(base)).stored == 0
    with build(cow(base)) as disk:
        assert read(disk, 0, SIZE) == changed()
        write(disk, 0, b"goes on")


def test_commit_keeps_the_identity(base: Path) -> None:
    with build(cow(base)) as disk:
        before = disk.identity
    do_commit(base)
    with build(cow(base)) as disk:
        assert disk.identity == before


def test_commit_gives_the_base_the_size_of_the_overlay(base: Path) -> None:
    with build(cow(base)) as disk:
        disk.resize(1 << 20)
        write(disk, 1 << 19, b"behind")
    do_commit(base)
    assert (base / "base.img").stat().st_size == 1 << 20
    assert (base / "base.img").read_bytes()[1 << 19 :].startswith(b"behind")


def test_commit_into_a_base_that_cannot_grow(base: Path) -> None:
    fixed = {"handler": "split", "legs": [str(base / "base.img")]}
    document = {**cow(base), "path": str(base / "other.cow"), "next": fixed}
    with build(document) as disk:
        disk.resize(1 << 20)
    with build(fixed) as target, pytest.raises(UsageError, match="cannot get the size"):
        commit(str(base / "other.cow"), target)
    with build(document) as disk:
        assert disk.geometry.size == 1 << 20


def test_commit_into_another_base(base: Path) -> None:
    (base / "other.img").write_bytes(CONTENT[:SIZE])
    with build(str(base / "other.img")) as target, pytest.raises(UsageError, match="is not the base"):
        commit(overlay(base), target)


@pytest.mark.parametrize("committing", [False, True])
def test_after_an_interrupted_commit_a_former_name_of_the_base_is_not_enough(
    base: Path, committing: bool
) -> None:
    """The content cannot tell any more whether it is the base."""
    open_one = open_overlay(overlay(base), read_only=False)
    header = msgspec.structs.replace(open_one.header, base="former name", committing=committing)
    open_one.replace_header(header)
    open_one.close()
    refusing = pytest.raises(UsageError, match="is not the base") if committing else nullcontext()
    with (
        build(str(base / "base.img")) as target,
        mock.patch.object(type(target), "is_known_as", return_value=True),
        refusing,
    ):
        commit(overlay(base), target)


def test_other_overlays_notice_a_commit(base: Path) -> None:
    other = {**cow(base), "path": str(base / "other.cow")}
    with build(other):
        pass
    do_commit(base)
    with pytest.raises(HostError, match="its base has changed"):
        build(other).open()


def test_commit_that_is_killed_can_be_completed(base: Path, tmp_path: Path) -> None:
    at, killed = 0, True
    while killed:
        where = tmp_path / str(at)
        where.mkdir()
        with (base / "base.img").open("rb") as file:
            (where / "base.img").write_bytes(file.read())
        with build(cow(where)) as disk:
            write(disk, 64 * KIB - 2, b"over")
            disk.unmap(192 * KIB, 64 * KIB)
        killed = commit_in_child(where, at)
        try:
            with build(cow(where)) as disk:
                assert read(disk, 0, SIZE) == changed()
        except HostError as refused:
            assert "commit into its base was interrupted" in str(refused)  # noqa: PT017  # either is right
            with pytest.raises(UsageError, match="interrupted"):
                discard(overlay(where))
        do_commit(where)
        assert (where / "base.img").read_bytes() == changed()
        shutil.rmtree(where)
        at += 1
    assert at > 10


def commit_in_child(where: Path, at: int) -> bool:
    """Commit in a child that kills itself at the `at`-th call; return whether it came that far."""
    child = os.fork()
    if child == 0:
        power = Power(where, at)
        power.cut = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        try:
            with power.on():
                do_commit(where)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_discard(base: Path) -> None:
    with build(cow(base)) as disk:
        disk.resize(128 * KIB)
    discard(overlay(base))
    with build(cow(base)) as disk:
        assert read(disk, 0, SIZE) == CONTENT[:SIZE]
    assert status(overlay(base)).stored == 0


def test_an_overlay_behind_a_link_stays_there_and_files_beside_it_stay_what_they_are(base: Path) -> None:
    there, link, other = base / "there.cow", base / "link.cow", base / "there.cow.new"
    other.write_bytes(b"the only copy")
    link.symlink_to(there)
    with build(cow(base, path=str(link))) as disk:
        write(disk, 0, b"mine")
    assert there.is_file()
    assert not there.is_symlink()
    with build(str(base / "base.img")) as target:
        commit(str(link), target)
    discard(str(link))
    assert link.is_symlink()
    assert status(str(there)).stored == 0
    assert other.read_bytes() == b"the only copy"


def test_nothing_is_done_to_an_overlay_in_use(base: Path) -> None:
    with build(cow(base)):
        with pytest.raises(InUseError):
            status(overlay(base))
        with pytest.raises(InUseError):
            discard(overlay(base))
