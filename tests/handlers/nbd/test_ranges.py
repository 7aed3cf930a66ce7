"""Sets of bytes as ranges, compared with sets of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.handlers.nbd.ranges import Ranges


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=20))
def test_ranges_are_a_set_of_bytes(steps: list[tuple[int, int]]) -> None:
    ranges, whole = Ranges(), set[int]()
    for start, length in steps:
        new = set(range(start, start + length)) - whole
        parts = ranges.add(start, start + length)
        assert all(first < end for first, end in parts)
        assert [byte for part in parts for byte in range(*part)] == sorted(new)
        whole |= new
        assert len(ranges) == sum(byte - 1 not in whole for byte in whole)


def test_ranges_that_touch_are_one() -> None:
    ranges = Ranges()
    assert ranges.add(0, 4) == [(0, 4)]
    assert ranges.add(8, 12) == [(8, 12)]
    assert len(ranges) == 2
    assert ranges.add(4, 8) == [(4, 8)]
    assert len(ranges) == 1
    assert ranges.add(2, 14) == [(12, 14)]
