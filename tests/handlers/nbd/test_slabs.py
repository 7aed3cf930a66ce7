"""Memory for copies: those in use are never overwritten, and the memory of dropped ones is used again."""

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.handlers.nbd.slabs import SLAB, Slab, Slabs


@given(
    st.lists(
        st.one_of(st.sampled_from([1, 4096, 65536, SLAB // 8 - 1, SLAB // 8, SLAB]), st.none()), max_size=200
    )
)
def test_copies_keep_their_content_until_they_are_dropped(steps: list[int | None]) -> None:
    """A number is a copy of so many bytes, None drops the oldest one."""
    slabs, copies = Slabs(), list[tuple[bytes, memoryview, Slab | None]]()
    for number, length in enumerate(steps):
        if length is None:
            if copies:
                slabs.drop(copies.pop(0)[2])
        else:
            data = bytes([number]) * length
            copies.append((data, *slabs.copy(data)))
        assert all(view == data for data, view, _ in copies)


def test_memory_of_dropped_copies_is_used_again() -> None:
    slabs, seen = Slabs(), set[int]()
    for _ in range(4):
        made = [slabs.copy(bytes(4096)) for _ in range(4 * SLAB // 4096)]
        seen |= {id(slab) for _, slab in made}
        for _, slab in made:
            slabs.drop(slab)
    assert len(seen) <= 5


def test_little_memory_is_kept_after_much_was_used() -> None:
    slabs = Slabs()
    made = [slabs.copy(bytes(4096)) for _ in range(64 * SLAB // 4096)]
    for _, slab in made:
        slabs.drop(slab)
    assert len(slabs._spare) == 16
