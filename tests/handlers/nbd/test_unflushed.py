"""Writes that are kept until a flush: their newest state is repeated, and nothing older over it."""

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.handlers.nbd.unflushed import UnflushedWrites

SIZE = 64
writes = st.lists(
    st.tuples(
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.sampled_from(["data", "zero", "durable", "flush"]),
    ),
    max_size=30,
)


@given(writes)
def test_a_server_that_has_lost_its_cache_is_as_before_after_the_repetition(
    steps: list[tuple[int, int, str]],
) -> None:
    kept = UnflushedWrites(1 << 20)
    cache, stable = bytearray(SIZE), bytearray(SIZE)
    for number, (offset, length, kind) in enumerate(steps, 1):
        end = min(SIZE, offset + length)
        if kind == "flush":
            kept.drop(kept.position)
            stable[:] = cache
            continue
        data = None if kind == "zero" else bytes([number]) * (end - offset)
        cache[offset:end] = data or bytes(end - offset)
        if kind == "durable":
            stable[offset:end] = cache[offset:end]
        kept.add(offset, end - offset, data, durable=kind == "durable")
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
            kept.drop(kept.position)
            continue
        data = None if kind == "zero" else bytes([number]) * (end - offset)
        disk[offset:end] = data or bytes(end - offset)
        kept.add(offset, end - offset, data, durable=kind == "durable")
    before = bytes(disk)
    for part in kept.latest():
        disk[part.offset : part.offset + part.length] = part.data or bytes(part.length)
    assert disk == before


def test_a_write_during_a_flush_is_not_covered_by_it() -> None:
    kept = UnflushedWrites(1 << 20)
    kept.add(0, 4, b"1234", durable=False)
    position = kept.position
    kept.add(8, 4, b"5678", durable=False)
    kept.drop(position)
    assert [(part.offset, bytes(part.data or b"")) for part in kept.latest()] == [(8, b"5678")]


def test_what_is_over_the_limit_makes_a_flush_due_and_is_not_kept() -> None:
    kept = UnflushedWrites(1000)
    kept.add(0, 900, bytes(900), durable=False)
    assert kept.flush_due
    assert not kept.incomplete
    kept.add(0, 900, bytes(900), durable=True)
    kept.add(0, 900, bytes(900), durable=False)
    assert kept.incomplete
    kept.drop(kept.position)
    assert not kept.flush_due
    assert not kept.incomplete


def test_a_durable_write_that_does_not_fit_is_not_missed() -> None:
    kept = UnflushedWrites(100)
    kept.add(0, 10, bytes(10), durable=False)
    kept.add(0, 900, bytes(900), durable=True)
    assert not kept.incomplete
    assert kept.latest() == []


def test_without_a_limit_nothing_is_kept_and_every_write_is_missed() -> None:
    kept = UnflushedWrites(0)
    assert not kept.incomplete
    kept.add(0, 4, b"1234", durable=False)
    assert kept.incomplete
    assert not kept.flush_due
    assert kept.latest() == []
    kept.drop(kept.position)
    assert not kept.incomplete
