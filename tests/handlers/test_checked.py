"""That neither side of the contract gets away with breaking it."""

import array
import errno
from collections.abc import Callable

import pytest

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.checked import Checked, ContractError

SIZE = 1 << 20
ROOM = memoryview(bytearray(512))


class Suspect(Handler):
    """A handler with answers that the test dictates."""

    name = "suspect"
    failure: Exception | None = None
    found: tuple[ExtentStatus, ...] = ()
    read_only = False

    def __init__(self) -> None:
        super().__init__(Handler.Options())
        self.calls = 0

    @property
    def geometry(self) -> Geometry:
        return Geometry(SIZE)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(read_only=self.read_only, unmap=True)

    @property
    def inline(self) -> InlineVerbs:
        return InlineVerbs(write_limit=42)

    def call(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure

    def read(self, offset: int, views: Views) -> None:
        self.call()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.call()

    def flush(self) -> None:
        self.call()

    def unmap(self, offset: int, length: int) -> None:
        self.call()

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        self.call()

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        self.call()
        return list(self.found)

    def resize(self, size: int) -> None:
        self.call()

    def crypto_erase(self) -> None:
        self.call()


@pytest.fixture
def suspect() -> Suspect:
    return Suspect()


@pytest.fixture
def disk(suspect: Suspect) -> Checked:
    disk = Checked(suspect)
    disk.open()
    return disk


RANGED: list[Callable[[Checked, int, int], object]] = [
    lambda disk, offset, length: disk.read(offset, [ROOM[:length]]),
    lambda disk, offset, length: disk.write(offset, [ROOM[:length]]),
    lambda disk, offset, length: disk.unmap(offset, length),
    lambda disk, offset, length: disk.write_zeroes(offset, length, may_unmap=True),
    lambda disk, offset, length: disk.extents(offset, length),
]
WRITING: list[Callable[[Checked], object]] = [
    lambda disk: disk.write(0, [ROOM]),
    lambda disk: disk.unmap(0, 512),
    lambda disk: disk.write_zeroes(0, 512, may_unmap=False),
    lambda disk: disk.resize(SIZE),
    lambda disk: disk.crypto_erase(),
]
ALL: list[Callable[[Checked], object]] = [
    *WRITING,
    lambda disk: disk.read(0, [ROOM]),
    lambda disk: disk.flush(),
    lambda disk: disk.extents(0, 512),
]


@pytest.mark.parametrize("verb", RANGED)
@pytest.mark.parametrize(("offset", "length"), [(-1, 512), (SIZE - 511, 512), (SIZE + 1, 0)])
def test_ranges_stay_inside(
    disk: Checked, suspect: Suspect, verb: Callable[[Checked, int, int], object], offset: int, length: int
) -> None:
    with pytest.raises(ContractError, match="outside"):
        verb(disk, offset, length)
    assert suspect.calls == 0


@pytest.mark.parametrize("verb", RANGED)
def test_empty_ranges_never_reach_a_handler(
    disk: Checked, suspect: Suspect, verb: Callable[[Checked, int, int], object]
) -> None:
    verb(disk, SIZE, 0)
    assert suspect.calls == 0


@pytest.mark.parametrize("verb", WRITING)
def test_read_only_media_are_not_written(
    disk: Checked, suspect: Suspect, verb: Callable[[Checked], object]
) -> None:
    suspect.read_only = True
    with pytest.raises(OSError, match="Read-only") as refused:
        verb(disk)
    assert refused.value.errno == errno.EROFS
    assert suspect.calls == 0


@pytest.mark.parametrize("verb", ALL)
def test_verbs_need_an_open_handler(suspect: Suspect, verb: Callable[[Checked], object]) -> None:
    disk = Checked(suspect)
    with pytest.raises(ContractError, match="not open"):
        verb(disk)
    disk.open()
    disk.close()
    with pytest.raises(ContractError, match="not open"):
        verb(disk)


@pytest.mark.parametrize("verb", ALL)
def test_failures_carry_an_errno(disk: Checked, suspect: Suspect, verb: Callable[[Checked], object]) -> None:
    suspect.failure = OSError("no number")
    with pytest.raises(ContractError, match="without an errno"):
        verb(disk)
    suspect.failure = OSError(errno.EIO, "a number")
    with pytest.raises(OSError, match="a number"):
        verb(disk)


def test_views_are_bytes(disk: Checked) -> None:
    with pytest.raises(ContractError, match="unsigned bytes"):
        disk.read(0, [memoryview(array.array("I", [0]))])
    with pytest.raises(ContractError, match="unsigned bytes"):
        disk.write(0, [ROOM[::2]])


def status(offset: int, length: int) -> ExtentStatus:
    return ExtentStatus(Extent(offset, length), allocated=True, zero=False)


@pytest.mark.parametrize(
    "found",
    [
        (),
        (status(512, 512),),
        (status(0, 512), status(1024, 512)),
        (status(0, 1024), status(512, 512)),
        (status(0, 0),),
        (status(0, 8192),),
    ],
)
def test_extents_are_a_gapless_head(disk: Checked, suspect: Suspect, found: tuple[ExtentStatus, ...]) -> None:
    suspect.found = found
    with pytest.raises(ContractError, match="extents"):
        disk.extents(0, 4096)


def test_extents_may_end_early(disk: Checked, suspect: Suspect) -> None:
    suspect.found = (status(0, 512), status(512, 512))
    assert disk.extents(0, 4096) == list(suspect.found)


def test_a_new_size_shows(disk: Checked) -> None:
    disk.resize(SIZE)
    with pytest.raises(ContractError, match="new size"):
        disk.resize(2 * SIZE)


def test_inline_verbs_are_not_touched(disk: Checked, suspect: Suspect) -> None:
    assert disk.inline == suspect.inline
