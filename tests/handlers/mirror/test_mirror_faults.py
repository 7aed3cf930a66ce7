"""A mirror through several lives, in which media fail, are absent, or are exchanged, and the power is cut."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.handlers.crash import Life, Promises, Step, live, steps
from tests.handlers.mirror.test_mirror import CONTENT, SIZE, content, whole
from tests.handlers.places import MEMORY_DIRECTORY
from tests.polling import wait_until
from vscsihba.handlers.mirror import state as mirror_state
from vscsihba.handlers.mirror.sync import Synchroniser
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read

# Threads of a disk whose power is cut end with that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
LEGS = ["a.img", "b.img", "c.img"]
STATE = "mirror.state"


def plain_mirror(directory: Path, legs: int = 2) -> dict[str, Any]:
    return {
        "handler": "mirror",
        "path": str(directory / STATE),
        "create": True,
        "region_size": 65536,
        "retry": 0,
        "legs": [str(directory / name) for name in LEGS[:legs]],
    }


@contextmanager
def made(legs: int = 2) -> Iterator[tuple[Path, Document]]:
    """Make a mirror whose legs are equal; the first leg has had its content from the start."""
    with tempfile.TemporaryDirectory(prefix="lives-", dir=MEMORY_DIRECTORY) as name:
        directory = Path(name)
        for leg in LEGS[:legs]:
            (directory / leg).write_bytes(CONTENT[:SIZE] if leg == LEGS[0] else bytes(SIZE))
        document = plain_mirror(directory, legs)
        with build(document) as disk:
            wait_until(lambda: whole(disk))
        yield directory, document


@contextmanager
def without_copying() -> Iterator[None]:
    """Let no region be made equal, as if that took very long."""
    with mock.patch.object(Synchroniser, "_copy", return_value=False):
        yield


def check_equal(directory: Path, document: Document, promises: Promises, legs: int = 2) -> None:
    """Let everything be made equal, and compare the legs with what was promised and with each other."""
    with build(document) as disk:
        wait_until(lambda: whole(disk))
        promises.check(read(disk, 0, SIZE))
    for name in LEGS[:legs]:
        promises.check((directory / name).read_bytes()[:SIZE])
        assert content(directory, name[0]) == content(directory, "a")


writes = st.one_of(steps(SIZE // 512, most=8), st.lists(st.just(Step("write", 5, 3, 7)), max_size=2)).flatmap(
    lambda first: steps(SIZE // 512, most=6).map(lambda rest: [*first, *rest])
)
files = st.frozensets(st.sampled_from([*LEGS[:2], STATE]), max_size=3)
some = st.frozensets(st.sampled_from([*LEGS[:2], STATE]), max_size=2)


def lives(*, cut: st.SearchStrategy[int | None]) -> st.SearchStrategy[Life]:
    return st.builds(
        Life,
        todo=writes,
        lasts=cut,
        seed=st.integers(0, 1 << 32),
        absent=some,
        broken=files,
        breaks=st.integers(0, 5),
    )


overwritten = st.builds(Step, st.just("write"), st.integers(0, 600), st.just(1), st.just(9))
WRITE, FLUSH = Step("write", 5, 3, 7), Step("flush")


@FEW
@given(first=lives(cut=st.none() | st.integers(0, 60)), second=lives(cut=st.none() | st.integers(0, 60)))
@example(  # the state file is beside a leg that fails, and the two are there alone after that
    first=Life([WRITE, Step("write", 5, 3, 8), FLUSH], broken=frozenset({"a.img", STATE}), breaks=1),
    second=Life([FLUSH], absent=frozenset({"b.img"})),
)
@example(  # one leg fails, and the other one is absent after that
    first=Life([WRITE, Step("write", 5, 3, 8), FLUSH], broken=frozenset({"a.img"}), breaks=1, lasts=1000),
    second=Life([FLUSH], absent=frozenset({"b.img"})),
)
@example(  # one leg is absent, then the other
    first=Life([WRITE, FLUSH], absent=frozenset({"b.img"})),
    second=Life([FLUSH], absent=frozenset({"a.img"})),
)
@example(  # the state file is lost together with the leg that has all the data
    first=Life([WRITE, FLUSH], absent=frozenset({"b.img"})),
    second=Life([FLUSH], absent=frozenset({"a.img", STATE})),
)
@example(  # a leg fails to flush after a write with FUA, and the power is cut before that is recorded
    first=Life([FLUSH]),
    second=Life([Step("write_fua", 0, 1, 1), FLUSH], lasts=23, broken=frozenset({"a.img"}), breaks=1),
)
def test_no_acknowledged_write_is_lost_whichever_media_fail(first: Life, second: Life) -> None:
    with made() as (directory, document):
        promises = Promises(CONTENT[:SIZE])
        live(directory, document, promises, first)
        live(directory, document, promises, second)
        # A mirror may refuse to open when media are absent, but not when all of them are there.
        check_equal(directory, document, promises)


@FEW
@given(
    todo=writes,
    lasts=st.integers(0, 60),
    seed=st.integers(0, 1 << 32),
    more=st.lists(st.lists(st.just(FLUSH) | overwritten), max_size=3),
)
def test_a_flush_forgets_no_region_that_is_not_equal(
    todo: list[Step], lasts: int, seed: int, more: list[list[Step]]
) -> None:
    with made() as (directory, document), mock.patch.object(mirror_state, "_PERIOD", 0.0):
        promises = Promises(CONTENT[:SIZE])
        live(directory, document, promises, Life(todo, lasts, seed))
        # Lives that are over before the legs are equal, by a power cut or in good order.
        with without_copying():
            for number, step in enumerate(more):
                live(
                    directory,
                    document,
                    promises,
                    Life([*step, FLUSH, FLUSH, FLUSH], [None, 1000][number % 2], seed),
                )
        check_equal(directory, document, promises)
