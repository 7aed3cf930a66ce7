import errno
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsihba.block import Views
from vscsihba.errors import InUseError
from vscsihba.handlers.qemu import write_log
from vscsihba.handlers.qemu.write_log import Change, WriteLog
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore

KIB = 1024


@pytest.fixture
def log() -> Iterator[WriteLog]:
    log = WriteLog("log", about=b"image", size=64 * KIB)
    yield log
    log.drop(log.end)
    log.close()


def append(log: WriteLog, offset: int, data: bytes) -> bool:
    middle = len(data) // 2
    return log.append(Change(offset, len(data)), [memoryview(data)[:middle], memoryview(data)[middle:]])


def content(log: WriteLog) -> list[tuple[Change, bytes]]:
    return [(change, bytes(data)) for change, data in log.changes()]


def reopened(log: WriteLog, size: int = 64 * KIB) -> WriteLog:
    """Return the log as the next process finds it."""
    log.close()
    return WriteLog("log", about=b"image", size=size)


def test_the_next_process_finds_the_changes_in_order() -> None:
    log = WriteLog("log", about=b"image", size=64 * KIB)
    assert append(log, 512, b"one")
    assert log.append(Change(0, 1 << 40, zero=True, may_unmap=True))
    assert log.append(Change(7, 9, zero=True))
    assert append(log, 512, b"two")
    log = reopened(log, size=KIB)
    assert content(log) == [
        (Change(512, 3), b"one"),
        (Change(0, 1 << 40, zero=True, may_unmap=True), b""),
        (Change(7, 9, zero=True), b""),
        (Change(512, 3), b"two"),
    ]
    assert not append(log, 0, b"x")  # until they are repeated: the ring may have had another size
    log.drop(log.end)
    assert append(log, 0, b"x")
    assert content(log) == [(Change(0, 1), b"x")]
    log.drop(log.end)
    log.close()


def test_a_log_that_is_empty_leaves_no_file(log: WriteLog) -> None:
    append(log, 0, b"x")
    log.drop(log.end)
    path = log.path
    assert path.exists()
    log = reopened(log)
    log.close()
    assert not path.exists()
    log.__init__("log", about=b"", size=KIB)  # type: ignore[misc]  # for the fixture


def test_changes_up_to_a_number_are_dropped_for_the_next_process_too() -> None:
    log = WriteLog("log", about=b"image", size=64 * KIB)
    append(log, 0, b"one")
    end = log.end
    append(log, 1, b"two")
    log.drop(end)
    log.drop(0)  # of a flush that began earlier
    assert content(log) == [(Change(1, 3), b"two")]
    log = reopened(log)
    assert content(log) == [(Change(1, 3), b"two")]
    assert log.end == end + 1
    log.drop(log.end)
    log.close()


def test_a_change_that_has_no_room_changes_nothing(log: WriteLog) -> None:
    assert not append(log, 0, bytes(64 * KIB + 1))
    assert append(log, 0, b"a" * 40 * KIB)
    assert log.is_half_full
    assert not append(log, 0, b"b" * 30 * KIB)
    assert log.append(Change(0, 30 * KIB, zero=True))
    assert append(log, 0, b"c" * 24 * KIB)
    assert not append(log, 0, b"d")
    assert [data[:1] for _, data in log.changes()] == [b"a", b"", b"c"]
    assert len(log) == 3


def test_a_ring_that_was_gone_around_is_filled_to_the_byte_and_by_no_later_process(log: WriteLog) -> None:
    assert append(log, 0, b"a" * 40 * KIB)
    end = log.end
    assert append(log, 0, b"b" * 20 * KIB)
    log.drop(end)
    assert append(log, 0, b"c" * 30 * KIB), "before the oldest one"
    assert append(log, 0, b"d" * 10 * KIB), "up to it"
    assert not append(log, 0, b"e")
    log.close()
    log.__init__("log", about=b"image", size=64 * KIB)  # type: ignore[misc]  # for the fixture
    assert not append(log, 0, b"f"), "what is free is not known"
    assert [data[:1] for _, data in log.changes()] == [b"b", b"c", b"d"]


def test_no_entry_of_the_table_lies_in_two_pages() -> None:
    """A tmpfs stores bytes within one page as a whole."""
    assert write_log._ENTRY.size <= write_log._ENTRY_ROOM
    assert (write_log._TABLE % 4096, 4096 % write_log._ENTRY_ROOM) == (0, 0)


@pytest.mark.parametrize("has_changes", [False, True])
def test_a_log_that_is_kept_is_there_with_its_changes(log: WriteLog, has_changes: bool) -> None:
    if has_changes:
        append(log, 0, b"x")
    log.close(keep=True)
    assert log.path.exists()
    log.__init__("log", about=b"image", size=64 * KIB)  # type: ignore[misc]  # for the fixture
    assert content(log) == ([(Change(0, 1), b"x")] if has_changes else [])


def test_the_table_can_be_full_before_the_ring(log: WriteLog) -> None:
    for number in range(4096):
        assert log.append(Change(number, 1, zero=True))
    assert log.is_half_full
    assert not log.append(Change(0, 1, zero=True))
    log.drop(2)
    assert log.append(Change(4096, 1, zero=True))
    assert [change.offset for change, _ in log.changes()] == [*range(1, 4097)]


def test_a_long_change_comes_back_in_parts() -> None:
    log = WriteLog("log", about=b"", size=4 << 20)
    data = bytes(range(256)) * (10 * KIB)
    assert append(log, 100, data)
    parts = content(log)
    assert [(change.offset, change.length) for change, _ in parts] == [
        (100, 1 << 20),
        (100 + (1 << 20), 1 << 20),
        (100 + (2 << 20), 512 * KIB),
    ]
    assert b"".join(part for _, part in parts) == data
    log.drop(log.end)
    log.close()


def test_no_memory_means_no_room(log: WriteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_store: TmpfsStore, _at: int, _views: Views) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_views", full)
        assert not append(log, 0, b"abc")
    assert not len(log)
    assert append(log, 0, b"abc")


def test_another_error_of_the_store_is_reported(log: WriteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_store: TmpfsStore, _at: int, _data: bytes) -> int:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_some", broken)
        with pytest.raises(OSError, match="broken"):
            append(log, 0, b"abc")
    assert not len(log)


def test_changes_whose_drop_cannot_be_recorded_are_kept_as_they_were(
    log: WriteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_store: TmpfsStore, _at: int, _data: bytes) -> int:
        raise OSError(errno.EIO, "broken")

    append(log, 0, b"one")
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_some", broken)
        with pytest.raises(OSError, match="broken"):
            log.drop(log.end)
    append(log, 8, b"two")  # must not take the place of the data of "one", which the next process finds
    expected = [(Change(0, 3), b"one"), (Change(8, 3), b"two")]
    assert content(log) == expected
    again = reopened(log)
    assert content(again) == expected
    again.drop(again.end)
    again.close()
    log.__init__("log", about=b"", size=KIB)  # type: ignore[misc]  # for the fixture


def test_an_entry_that_is_not_whole_does_not_count(log: WriteLog) -> None:
    append(log, 0, b"one")
    append(log, 8, b"two")
    raw = bytearray(log.path.read_bytes())
    raw[4096 + 4096 + 2 * 64 + 8] ^= (
        1  # the offset of number 2: behind the pages of the store and of the head
    )
    log.path.write_bytes(raw)
    again = reopened(log)
    assert content(again) == [(Change(0, 3), b"one")]
    again.drop(again.end)
    again.close()
    log.__init__("log", about=b"", size=KIB)  # type: ignore[misc]  # for the fixture


def test_two_disks_cannot_have_one_log(log: WriteLog) -> None:
    with pytest.raises(InUseError):
        WriteLog("log", about=b"image", size=KIB)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(1, 30 * KIB)),
        st.tuples(st.just("zero"), st.integers(1, 100)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(steps=steps)
def test_the_ring_keeps_every_change_until_it_is_dropped(steps: list[tuple[str, int]]) -> None:
    log = WriteLog("ring", about=b"", size=64 * KIB)
    expected: deque[tuple[int, Change, bytes]] = deque()
    try:
        for number, (kind, amount) in enumerate(steps):
            if kind == "drop":
                for _ in range(min(amount, len(expected))):
                    expected.popleft()
                log.drop(expected[0][0] if expected else log.end)
            elif kind == "zero":
                end, change = log.end, Change(number, amount, zero=True)
                assert log.append(change)
                expected.append((end, change, b""))
            else:
                end, data = log.end, bytes([number % 256]) * amount
                room = 64 * KIB - sum(len(data) for _, _, data in expected)
                if append(log, number, data):
                    assert amount <= room
                    expected.append((end, Change(number, amount), data))
                else:
                    assert expected  # an empty log has room for each of these
            assert content(log) == [(change, data) for _, change, data in expected]
        log = _again(log)
        assert content(log) == [(change, data) for _, change, data in expected]
    finally:
        log.drop(log.end)
        log.close()


def _again(log: WriteLog) -> WriteLog:
    log.close()
    return WriteLog("ring", about=b"", size=64 * KIB)
