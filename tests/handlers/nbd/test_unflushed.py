"""Writes that are kept until a flush: their newest state is repeated, and nothing older over it."""

import errno
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.handlers.nbd.requests import Export, Kind, Request
from vscsihba.handlers.nbd.unflushed import UnflushedWrites

SIZE = 64
EXPORT = Export(
    size=SIZE,
    read_only=False,
    flush=True,
    fua=True,
    trim=True,
    zero=True,
    shared=False,
    extents=False,
    rotational=False,
    minimum=1,
    preferred=0,
    maximum=1 << 20,
)
writes = st.lists(
    st.tuples(
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.sampled_from(["data", "zero", "durable", "flush"]),
    ),
    max_size=30,
)


def ignore(_error: OSError | None) -> None:
    """Take a result."""


def write(kept: UnflushedWrites, offset: int, data: bytes, *, durable: bool = False) -> None:
    """Note a write that has succeeded; it is durable by FUA."""
    kept.note([(Request(Kind.WRITE, ignore, offset, len(data), data, fua=durable), 0)], EXPORT)


def zero(kept: UnflushedWrites, offset: int, length: int) -> None:
    kept.note([(Request(Kind.ZERO, ignore, offset, length), 0)], EXPORT)


def flush(kept: UnflushedWrites, position: int | None = None) -> None:
    """Note a flush; by default it has begun after everything before."""
    request = Request(Kind.FLUSH, ignore)
    request.position = kept.position if position is None else position
    kept.note([(request, 0)], EXPORT)


@given(writes)
def test_a_server_that_has_lost_its_cache_is_as_before_after_the_repetition(
    steps: list[tuple[int, int, str]],
) -> None:
    kept = UnflushedWrites(1 << 20)
    cache, stable = bytearray(SIZE), bytearray(SIZE)
    for number, (offset, length, kind) in enumerate(steps, 1):
        end = min(SIZE, offset + length)
        if kind == "flush":
            flush(kept)
            stable[:] = cache
            continue
        if kind == "zero":
            cache[offset:end] = bytes(end - offset)
            zero(kept, offset, end - offset)
            continue
        cache[offset:end] = data = bytes([number]) * (end - offset)
        if kind == "durable":
            stable[offset:end] = data
        write(kept, offset, data, durable=kind == "durable")
    parts = kept.latest()
    seen: set[int] = set()
    for part in reversed(parts):
        place = range(part.offset, part.offset + part.length)
        assert not seen.intersection(place)
        seen.update(place)
        stable[part.offset : part.offset + part.length] = part.data or bytes(part.length)
    assert stable == cache
    assert not kept.incomplete


@given(writes)
def test_a_server_that_has_lost_nothing_is_not_changed(steps: list[tuple[int, int, str]]) -> None:
    """Even if some of the writes were not kept, an older one is not repeated over them."""
    kept = UnflushedWrites(128 * 4)
    disk = bytearray(SIZE)
    for number, (offset, length, kind) in enumerate(steps, 1):
        end = min(SIZE, offset + length)
        if kind == "flush":
            flush(kept)
            continue
        if kind == "zero":
            disk[offset:end] = bytes(end - offset)
            zero(kept, offset, end - offset)
            continue
        disk[offset:end] = data = bytes([number]) * (end - offset)
        write(kept, offset, data, durable=kind == "durable")
    before = bytes(disk)
    for part in kept.latest():
        disk[part.offset : part.offset + part.length] = part.data or bytes(part.length)
    assert disk == before


def test_a_write_during_a_flush_is_not_covered_by_it() -> None:
    kept = UnflushedWrites(1 << 20)
    write(kept, 0, b"1234")
    position = kept.position
    write(kept, 8, b"5678")
    flush(kept, position)
    assert [(part.offset, bytes(part.data or b"")) for part in kept.latest()] == [(8, b"5678")]


def test_what_is_over_the_limit_makes_a_flush_due_and_is_not_kept() -> None:
    kept = UnflushedWrites(1000)
    write(kept, 0, bytes(900))
    assert kept.flush_due
    assert not kept.incomplete
    write(kept, 0, bytes(900), durable=True)
    write(kept, 0, bytes(900))
    assert kept.incomplete
    flush(kept)
    assert not kept.flush_due
    assert not kept.incomplete


def test_a_durable_write_that_does_not_fit_is_not_missed() -> None:
    kept = UnflushedWrites(100)
    write(kept, 0, bytes(10))
    write(kept, 0, bytes(900), durable=True)
    assert not kept.incomplete
    assert kept.latest() == []


def test_without_a_limit_nothing_is_kept_and_every_write_is_missed() -> None:
    kept = UnflushedWrites(0)
    assert not kept.incomplete
    write(kept, 0, b"1234")
    assert kept.incomplete
    assert not kept.flush_due
    assert kept.latest() == []
    flush(kept)
    assert not kept.incomplete


def test_requests_that_end_together_count_in_their_order() -> None:
    kept = UnflushedWrites(1 << 20)
    old = Request(Kind.WRITE, ignore, 0, 4, b"old!")
    flushed = Request(Kind.FLUSH, ignore)
    flushed.position = 1
    new = Request(Kind.WRITE, ignore, 0, 4, b"new!")
    failed = Request(Kind.WRITE, ignore, 0, 4, b"bad!")
    read = Request(Kind.READ, ignore, 0, 4, bytearray(4))
    kept.note([(old, 0), (flushed, 0), (new, 0), (failed, 5), (read, 0)], EXPORT)
    assert [bytes(part.data or b"") for part in kept.latest()] == [b"new!"]
    kept.note([(Request(Kind.TRIM, ignore, 0, 4), 0)], EXPORT)
    assert [(part.data, part.discarded) for part in kept.latest()] == [(None, True)]


def test_without_a_flush_of_the_server_nothing_is_kept_and_without_fua_everything_is() -> None:
    kept = UnflushedWrites(1 << 20)
    write_through = Request(Kind.WRITE, ignore, 0, 4, b"1234", fua=True)
    kept.note([(write_through, 0)], replace(EXPORT, flush=False))
    assert not kept.pending
    kept.note([(write_through, 0)], EXPORT)
    assert not kept.pending
    kept.note([(write_through, 0)], replace(EXPORT, fua=False))
    assert kept.pending


def begun(kept: UnflushedWrites) -> Request:
    request = Request(Kind.FLUSH, ignore)
    kept.begin_flush(request)
    return request


def is_kept(kept: UnflushedWrites, request: Request, number: int = 0) -> bool:
    """Note the end of a flush; return whether writes are kept after it."""
    kept.note([(request, number)], EXPORT)
    return kept.pending


def test_a_flush_lets_writes_go_only_when_those_beside_it_have_succeeded() -> None:
    kept = UnflushedWrites(1 << 20)
    write(kept, 0, b"one")
    first, second = begun(kept), begun(kept)
    assert (first.position, second.position) == (1, 1)
    assert is_kept(kept, second)
    write(kept, 4, b"two")
    third = begun(kept)
    assert is_kept(kept, first), "the second write is kept"
    assert [bytes(part.data or b"") for part in kept.latest()] == [b"two"]
    assert not is_kept(kept, third)


def test_a_flush_whose_answer_is_lost_may_have_told_of_a_loss() -> None:
    kept = UnflushedWrites(1 << 20)
    write(kept, 0, b"one")
    lost, other = begun(kept), begun(kept)
    assert is_kept(kept, lost, errno.ENOTCONN)
    assert is_kept(kept, other), "the one that was lost may have failed, and the other one succeeded then"
    kept.forget_flushes()
    kept.begin_flush(lost)  # again, after the writes
    assert not is_kept(kept, lost)


def test_a_flush_that_has_failed_lets_nothing_go_and_holds_up_no_later_one() -> None:
    kept = UnflushedWrites(1 << 20)
    write(kept, 0, b"one")
    failing, other, third = begun(kept), begun(kept), begun(kept)
    assert is_kept(kept, other)
    assert is_kept(kept, failing, errno.EIO)
    assert not is_kept(kept, third)
