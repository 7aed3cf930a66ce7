import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vscsihba.block import Views
from vscsihba.errors import HostError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared import superblock
from vscsihba.handlers.shared.superblock import Superblock
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import write

MAGIC = b"ATESTFOR"


def made(disk: Checked) -> Superblock:
    superblock.create(disk, b"first", MAGIC, "thing")
    return Superblock(disk, MAGIC, "thing")


@given(texts=st.lists(st.binary(max_size=4072), max_size=5))
@example(texts=[b"x" * 4072])
def test_the_newest_counts(texts: list[bytes]) -> None:
    with build({"handler": "memory", "size": 8192}) as disk:
        block = made(disk)
        for text in texts:
            block.replace(text)
        assert Superblock(disk, MAGIC, "thing").text == [b"first", *texts][-1]


@given(at=st.integers(0, 4096 + 30))
def test_a_torn_one_does_not(at: int) -> None:
    with build({"handler": "memory", "size": 8192}) as disk:
        block = made(disk)
        block.replace(b"second")
        torn = superblock.encode(2, b"third", MAGIC, "thing")[: min(at, 28)]
        write(disk, 0, torn or b"?")
        assert Superblock(disk, MAGIC, "thing").text == b"second"


def test_too_long_a_text_changes_nothing() -> None:
    with build({"handler": "memory", "size": 8192}) as disk:
        block = made(disk)
        with pytest.raises(HostError, match="header of the thing is too long"):
            block.replace(bytes(4073))
        block.replace(b"second")
        assert Superblock(disk, MAGIC, "thing").text == b"second"


def test_a_store_that_is_too_small() -> None:
    with build({"handler": "memory", "size": 4096}) as disk, pytest.raises(HostError, match="no thing found"):
        Superblock(disk, MAGIC, "thing")


class Failing(MemoryHandler):
    """A store of which writes may fail by half."""

    def __init__(self) -> None:
        super().__init__(MemoryHandler.Options(size=8192, label="failing"))
        self.fails = False
        self.open()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        data = b"".join(views)
        super().write(offset, [memoryview(data[:20] if self.fails else data)])
        if self.fails:
            raise OSError(5, "broken")


def test_failure_after_failure_leaves_the_slot_alone_that_counts() -> None:
    store = Failing()
    superblock.create(store, b"first", MAGIC, "thing")
    block = Superblock(store, MAGIC, "thing")
    for _ in range(3):
        store.fails = True
        with pytest.raises(OSError, match="broken"):
            block.replace(b"second")
        assert Superblock(store, MAGIC, "thing").text == block.text == b"first"
    store.fails = False
    block.replace(b"third")
    assert Superblock(store, MAGIC, "thing").text == b"third"


def test_one_that_could_not_be_flushed_is_taken_back() -> None:
    store = Failing()
    superblock.create(store, b"first", MAGIC, "thing")
    block = Superblock(store, MAGIC, "thing")
    outcomes = iter([False, True])

    def flush() -> None:
        if next(outcomes, False):
            raise OSError(5, "broken")

    store.flush = flush  # type: ignore[method-assign]
    with pytest.raises(OSError, match="broken"):
        block.replace(b"second")
    assert Superblock(store, MAGIC, "thing").text == block.text == b"first"
    block.replace(b"third")
    assert Superblock(store, MAGIC, "thing").text == b"third"


@pytest.mark.parametrize("error", [OSError(28, "no room"), MemoryError()])
def test_one_that_could_not_be_taken_back_is_taken_back_later(error: Exception) -> None:
    store = Failing()
    superblock.create(store, b"first", MAGIC, "thing")
    block = Superblock(store, MAGIC, "thing")
    write_, errors = store.write, iter([None, error, error])

    def write_once(offset: int, views: Views, *, fua: bool = False) -> None:
        failure = next(errors, None)
        if failure is not None:
            raise failure
        write_(offset, views, fua=fua)

    outcomes = iter([False, True])

    def flush() -> None:
        if next(outcomes):
            raise OSError(5, "broken")

    store.write = write_once  # type: ignore[method-assign]
    with pytest.raises(OSError, match="broken"):
        block.replace(b"second", flush=flush)
    assert Superblock(store, MAGIC, "thing").text == b"second"
    with pytest.raises(type(error)):
        block.settle()
    block.settle()
    assert Superblock(store, MAGIC, "thing").text == block.text == b"first"
    block.replace(b"third")
    assert Superblock(store, MAGIC, "thing").text == b"third"


class Recording(Failing):
    """A store that knows in which order it was written and flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.asked.append("write")
        super().write(offset, views)

    def flush(self) -> None:
        self.asked.append("flush")


def test_what_was_written_before_is_stored_before_and_the_text_afterwards() -> None:
    store = Recording()
    superblock.create(store, b"first", MAGIC, "thing")
    assert store.asked == ["flush", "write", "flush"]
    store.asked.clear()
    Superblock(store, MAGIC, "thing").replace(b"second")
    assert store.asked == ["flush", "write", "flush"]


def test_two_damaged_ones_are_told() -> None:
    with build({"handler": "memory", "size": 8192}) as disk:
        made(disk).replace(b"second")
        for offset in (26, 4096 + 26):
            write(disk, offset, b"\xff")
        with pytest.raises(HostError, match="the thing is damaged in both headers"):
            Superblock(disk, MAGIC, "thing")


def test_the_first_error_is_told_when_taking_back_fails_too() -> None:
    store = Failing()
    superblock.create(store, b"first", MAGIC, "thing")
    block = Superblock(store, MAGIC, "thing")
    errors = iter(["one", "two"])

    def refuse(_offset: int, _views: Views, *, fua: bool = False) -> None:
        raise OSError(5, next(errors))

    store.write = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="one"):
        block.replace(b"second")


def test_a_store_can_be_flushed_in_another_way() -> None:
    store = Recording()
    superblock.create(store, b"first", MAGIC, "thing")
    store.asked.clear()
    Superblock(store, MAGIC, "thing").replace(b"second", flush=lambda: store.asked.append("other"))
    assert store.asked == ["other", "write", "other"]
