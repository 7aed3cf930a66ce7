import errno

import pytest

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.handlers.base import Handler, InlineVerbs


class Least(Handler):
    """The least that a source has to say."""

    name = "least"

    @property
    def geometry(self) -> Geometry:
        return Geometry(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        for view in views:
            view[:] = b"\x11" * len(view)


class Writable(Least):
    def __init__(self) -> None:
        super().__init__(Handler.Options())
        self.written: list[tuple[int, int, bool]] = []
        self.flushes = 0

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        assert not any(any(view) for view in views)
        self.written.append((offset, sum(map(len, views)), fua))

    def flush(self) -> None:
        self.flushes += 1


def test_what_a_source_leaves_out_has_a_safe_default() -> None:
    handler = Least(Handler.Options())
    handler.check()
    handler.open()
    handler.flush()
    assert handler.capabilities == Capabilities(read_only=True)
    assert handler.extents(512, 1024) == [ExtentStatus(Extent(512, 1024), allocated=True, zero=False)]
    assert handler.inline == InlineVerbs()
    assert handler.identity == "least:{}"
    handler.close()


@pytest.mark.parametrize(
    ("verb", "arguments", "number"),
    [
        ("write", (0, []), errno.EROFS),
        ("unmap", (0, 512), errno.EOPNOTSUPP),
        ("resize", (512,), errno.EOPNOTSUPP),
        ("crypto_erase", (), errno.EOPNOTSUPP),
    ],
)
def test_defaults_refuse_with_an_errno(verb: str, arguments: tuple[object, ...], number: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011  # the errno is what counts
        getattr(Least(Handler.Options()), verb)(*arguments)
    assert refused.value.errno == number


def test_capabilities_follow_from_what_is_defined() -> None:
    assert Writable().capabilities == Capabilities(flush=True)


def test_write_zeroes_writes_in_bounded_chunks_and_flushes_for_fua() -> None:
    handler = Writable()
    handler.write_zeroes(100, 2_500_000, may_unmap=True, fua=True)
    assert handler.written == [
        (100, 1 << 20, False),
        (100 + (1 << 20), 1 << 20, False),
        (100 + (2 << 20), 2_500_000 - (2 << 20), False),
    ]
    assert handler.flushes == 1


def test_write_zeroes_without_fua_does_not_flush() -> None:
    handler = Writable()
    handler.write_zeroes(0, 512, may_unmap=False)
    assert handler.written == [(0, 512, False)]
    assert handler.flushes == 0
