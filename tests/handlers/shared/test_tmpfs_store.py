import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.handlers.places import open_files
from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.shared import linux, tmpfs_store
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore, forget, recall


def content(name: str) -> bytes:
    found = recall(name)
    assert found is not None
    return found.content


def test_is_there_until_it_is_forgotten() -> None:
    row = TmpfsStore("one")
    row.put(3, b"abc")
    row.put(1, b"x")
    row.close(forget=False)
    assert content("one") == b"\0x\0abc"
    forget("one")
    forget("one")
    assert recall("one") is None


def test_parts_are_stored_and_freed() -> None:
    row, stored = TmpfsStore("one"), bytearray(4090) + b"ab" + b"cdefgh" * 1000
    row.put_views(4090, [memoryview(b"ab"), memoryview(b"cdefgh" * 1000)])
    assert row.content() == stored
    row.free(4096, 100)
    stored[4096:4196] = bytes(100)
    assert row.content() == stored
    assert row.put_some(0, b"") == 0
    row.cut(4092)
    assert row.content() == stored[:4092]
    row.close(forget=True)


def test_a_damaged_head_is_an_error_and_half_of_one_is_an_empty_file() -> None:
    row = TmpfsStore("one", about=b"the medium")
    row.put(0, b"abc")
    row.close(forget=False)
    head = bytearray(row.path.read_bytes())
    row.path.write_bytes(head[:100])
    found = recall("one")
    assert found is not None
    assert (found.about, found.content, found.flag) == (b"", b"", False)
    head[18] ^= 1
    row.path.write_bytes(head)
    opened = open_files()
    for use in (recall, TmpfsStore):
        with pytest.raises(OSError, match="the head of a file of notes is damaged"):
            use("one")
    assert open_files() == opened
    row.path.unlink()


def test_what_cannot_be_removed_is_emptied_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TmpfsStore("one", about=b"the medium")
    row.put(0, b"abc")
    row.close(forget=False)
    opened = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(tmpfs_store, "_remove", lambda _: False)
        forget("one")
    assert open_files() == opened
    found = recall("one")
    assert found is not None
    assert (found.about, found.content) == (b"the medium", b"")
    forget("one")


def test_is_forgotten_when_it_was_closed_properly() -> None:
    row = TmpfsStore("one")
    row.put(0, b"abc")
    row.close(forget=True)
    assert recall("one") is None


def test_a_flag_is_about_all_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TmpfsStore("one", about=b"x" * 4079)
    row.put(0, b"abc")
    for on in (True, False, True):
        row.set_flag(on=on)
        found = recall("one")
        assert found is not None
        assert (found.about, found.content, found.flag) == (b"x" * 4079, b"abc", on)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="takes no more bytes"):
        row.set_flag(on=False)
    row.close(forget=False)
    again = TmpfsStore("one")
    assert again.about == b"x" * 4079
    again.close(forget=True)


def test_a_file_of_a_release_without_a_head_has_no_flag() -> None:
    row = TmpfsStore("one")
    row.path.write_bytes(b"\xff" * 5000)
    row.close(forget=False)
    row = TmpfsStore("one")
    with pytest.raises(OSError, match="has no head"):
        row.set_flag(on=True)
    row.close(forget=False)
    found = recall("one")
    assert found is not None
    assert (found.content, found.flag) == (b"\xff" * 5000, False)
    forget("one")


def test_is_not_found_after_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = TmpfsStore("one")
    row.put(0, b"abc")
    row.close(forget=False)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(tmpfs_store, "_BOOT_ID", tmp_path / "boot_id")
    assert recall("one") is None


def test_what_cannot_be_stored_is_an_error() -> None:
    row = TmpfsStore("one")
    with pytest.raises(OSError, match="Invalid argument"):
        row.put((1 << 63) - 2, b"abcd")
    row.close(forget=True)


def test_what_takes_several_calls_is_stored_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:2], at))
    row = TmpfsStore("one")
    row.put(3, b"abcdefg")
    assert row.content() == bytes(3) + b"abcdefg"
    row.close(forget=True)


def test_a_file_that_takes_no_bytes_is_an_error_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TmpfsStore("one")
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="takes no more bytes"):
        row.put(0, b"abc")
    row.close(forget=True)


def test_a_directory_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "surviving"
    monkeypatch.setattr(tmpfs_store, "DIRECTORY", directory)
    directory.mkdir()
    directory.chmod(0o777)
    for use in (TmpfsStore, recall, forget):
        with pytest.raises(HostError, match=r"may be written by other users \(mode 777\); remove it"):
            use("one")
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(HostError, match="is not a directory"):
        TmpfsStore("one")
    directory.unlink()
    assert recall("one") is None
    assert not directory.exists()
    TmpfsStore("one").close(forget=True)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_another_makes_at_the_same_time_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(path: Path, mode: int, *, parents: bool, exist_ok: bool) -> None:
        assert parents
        assert exist_ok
        os.mkdir(path)  # noqa: PTH102  # Path.mkdir is this function now
        path.chmod(0o777)

    monkeypatch.setattr(tmpfs_store, "DIRECTORY", tmp_path / "surviving")
    monkeypatch.setattr(Path, "mkdir", beaten)
    with pytest.raises(HostError, match="may be written by other users"):
        TmpfsStore("one")


def test_a_directory_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    TmpfsStore("one").close(forget=True)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(HostError, match=rf"belongs to user {another - 1}, not to user {another}"):
        TmpfsStore("one")


def test_a_file_that_another_has_put_there_is_refused(tmp_path: Path) -> None:
    row = TmpfsStore("one")
    (path,) = tmpfs_store.DIRECTORY.iterdir()
    row.close(forget=True)
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        TmpfsStore("one")
    path.unlink()
    path.touch()
    before = open_files()
    for mode in (0o666, 0o1666):  # the sticky bit is a promise of directories only
        path.chmod(mode)
        for use in (TmpfsStore, recall):
            with pytest.raises(HostError, match="may be written by other users"):
                use("one")
    assert open_files() == before


def test_a_refusal_leaves_nothing_open() -> None:
    row = TmpfsStore("one")
    before = open_files()
    for _ in range(3):
        with pytest.raises(InUseError, match="is in use by another process"):
            TmpfsStore("one")
    assert open_files() == before
    row.close(forget=True)


def test_what_does_not_fit_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    row = TmpfsStore("one")
    row.put(4000, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(linux, "allocate", full)
        with pytest.raises(OSError, match="No space"):
            row.put(4000, bytes(200))
        row.put(0, b"within a page")
    assert row.content()[4000:] == b"before"
    row.close(forget=True)


def test_what_was_not_put_there_is_no_zeroes() -> None:
    row = TmpfsStore("one")
    row.put(0, b"abc")
    room = bytearray(3)
    row.get(0, [memoryview(room)])
    assert room == b"abc"
    with pytest.raises(OSError, match=rf"ends at byte {tmpfs_store.HEAD + 3}"):
        row.get(1, [memoryview(bytearray(3))])
    row.close(forget=True)


def test_it_is_told_whether_somebody_still_uses_it() -> None:
    row = TmpfsStore("one", about=b"a medium")
    for in_use in (True, False):
        found = recall("one")
        assert found is not None
        assert (found.in_use, found.about) == (in_use, b"a medium")
        if in_use:
            row.close(forget=False)


def test_a_read_that_stops_short_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TmpfsStore("one", about=b"a medium")
    row.put(0, b"abc" * 1000)
    row.close(forget=False)
    real = os.preadv

    def short(fd: int, views: Sequence[memoryview], offset: int) -> int:
        return real(fd, [memoryview(views[0])[:700]], offset)

    monkeypatch.setattr(os, "preadv", short)
    assert content("one") == b"abc" * 1000


def test_a_file_of_an_earlier_release_has_no_head() -> None:
    row = TmpfsStore("one")
    path = row.path
    row.close(forget=False)
    path.write_bytes(b"\0\2\3")
    found = recall("one")
    assert found is not None
    assert (found.about, found.content) == (None, b"\0\2\3")
    row = TmpfsStore("one")
    row.put(1, b"x")
    row.close(forget=False)
    assert path.read_bytes() == b"\0x\3"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, tmpfs_store.HEAD - 1])
def test_a_file_whose_maker_was_killed_before_its_head_was_whole_begins_anew(length: int) -> None:
    row = TmpfsStore("one", about=b"a medium")
    path = row.path
    row.close(forget=False)
    path.write_bytes(path.read_bytes()[:length])
    row = TmpfsStore("one", about=b"another medium")
    assert row.about == b"another medium"
    assert row.content() == b""
    row.close(forget=True)


def test_a_file_that_is_there_keeps_the_medium_that_it_names() -> None:
    TmpfsStore("one", about=b"a medium").close(forget=False)
    row = TmpfsStore("one", about=b"another medium")
    assert row.about == b"a medium"
    row.close(forget=True)


def test_memory_is_set_aside_for_what_more_than_one_page_has(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    row = TmpfsStore("one")
    monkeypatch.setattr(linux, "allocate", lambda _fd, start, length: asked.append((start, length)))
    for at, length in [(0, 0), (0, 4096), (4095, 1), (4096, 1), (4095, 2), (1, 4096)]:
        row.reserve(at, length)
    assert asked == [(tmpfs_store.HEAD + 4095, 2), (tmpfs_store.HEAD + 1, 4096)]
    row.close(forget=True)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_directory_whose_files_nobody_else_can_change_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    monkeypatch.setattr(tmpfs_store, "DIRECTORY", tmp_path / "shared")
    row = TmpfsStore("one")
    assert row.path.stat().st_mode & 0o777 == 0o600
    row.close(forget=True)
