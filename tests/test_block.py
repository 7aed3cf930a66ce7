"""Block types: buffers compared with one bytes object, valid and invalid geometries."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vscsihba.block import Buffer, Capabilities, Extent, Geometry
from vscsihba.errors import UsageError

PIECES = st.lists(st.binary(max_size=20), max_size=6)


def make(pieces: list[bytes]) -> tuple[Buffer, bytes]:
    """Return a buffer of writable pieces, and the same as one bytes object."""
    return Buffer(memoryview(bytearray(piece)) for piece in pieces), b"".join(pieces)


@settings(deadline=None)
@given(PIECES, st.data())
def test_buffer_take_is_a_slice(pieces: list[bytes], data: st.DataObject) -> None:
    buffer, model = make(pieces)
    start = data.draw(st.integers(0, len(model)))
    length = data.draw(st.integers(0, len(model) - start))
    taken = buffer.take(start, length)
    assert b"".join(taken) == buffer.gather(start, length) == model[start : start + length]
    assert all(taken)


@settings(deadline=None)
@given(PIECES, st.integers(-5, 130), st.integers(-5, 130))
def test_buffer_take_beyond_the_end_is_refused(pieces: list[bytes], start: int, length: int) -> None:
    buffer, model = make(pieces)
    assume(min(start, length) < 0 or start + length > len(model))
    with pytest.raises(ValueError, match="outside a buffer"):
        buffer.take(start, length)


@settings(deadline=None)
@given(PIECES, st.binary(max_size=130), st.integers(0, 130))
def test_buffer_scatter_writes_as_far_as_there_is_room(pieces: list[bytes], data: bytes, start: int) -> None:
    buffer, model = make(pieces)
    count = max(0, min(len(data), len(model) - start))
    assert buffer.scatter(data, start) == count
    assert buffer.gather() == model[:start] + data[:count] + model[start + count :]


@settings(deadline=None)
@given(PIECES, st.integers(0, 130))
def test_buffer_zero_spares_the_head(pieces: list[bytes], start: int) -> None:
    buffer, model = make(pieces)
    buffer.zero(start)
    assert buffer.gather() == model[:start].ljust(len(model), b"\0")


def test_buffer_gather_defaults_to_the_rest() -> None:
    buffer, _ = make([b"abc", b"", b"def"])
    assert (buffer.length, buffer.gather(), buffer.gather(2)) == (6, b"abcdef", b"cdef")


def test_buffer_views_share_the_memory() -> None:
    buffer, _ = make([b"abc", b"def"])
    buffer.take(2, 2)[1][:] = b"X"
    assert buffer.gather() == b"abcXef"


def test_empty_buffer() -> None:
    buffer = Buffer()
    assert (buffer.length, buffer.gather(), buffer.take(0, 0), buffer.scatter(b"x")) == (0, b"", [], 0)
    buffer.zero()


def test_extent_end() -> None:
    assert Extent(512, 1024).end == 1536
    assert Extent(512, 0).end == 512


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("ratio", [1, 2, 8])
def test_geometry_of_a_disk(block_size: int, ratio: int) -> None:
    geometry = Geometry(10 * block_size, block_size, ratio * block_size)
    assert geometry.blocks == 10


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((4096, 0, 512), "block size 0 is not one of"),
        ((4096, 520, 520), "block size 520 is not one of"),
        ((8192, 8192, 8192), "block size 8192 is not one of"),
        ((4096, 512, 0), "not a power-of-two multiple"),
        ((4096, 512, -512), "not a power-of-two multiple"),
        ((4096, 512, 256), "not a power-of-two multiple"),
        ((4096, 512, 1536), "not a power-of-two multiple"),
        ((4096, 4096, 512), "not a power-of-two multiple"),
        ((0, 512, 512), "the size is 0; give the medium"),
        ((-512, 512, 512), "the size is"),
        ((513, 512, 512), "not a multiple of the block size 512"),
        ((6 * 512, 4096, 4096), "not a multiple of the block size 4096"),
    ],
)
def test_geometry_is_refused(arguments: tuple[int, int, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Geometry(*arguments)


def test_medium_can_do_nothing_special_unless_it_says_so() -> None:
    """In-place writing is the default of a medium."""
    assert [name for name in Capabilities.__slots__ if getattr(Capabilities(), name)] == ["in_place"]
