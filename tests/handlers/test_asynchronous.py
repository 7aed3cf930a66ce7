"""Asynchronous verbs of filters: passed on by those that move or observe, and by no others."""

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.engine.late import Late
from vscsihba.block import Capabilities, Views
from vscsihba.errors import MediumError
from vscsihba.handlers.asynchronous import ASYNC_VERBS, wait
from vscsihba.handlers.base import AsyncVerbs, Done, Handler
from vscsihba.handlers.checked import Checked, ContractError
from vscsihba.handlers.corrupt import CorruptHandler
from vscsihba.handlers.delay import DelayHandler
from vscsihba.handlers.error import ErrorHandler
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.log import LogHandler
from vscsihba.handlers.offset import OffsetHandler
from vscsihba.handlers.readonly import ReadonlyHandler
from vscsihba.handlers.stats import StatsHandler

Results = list[OSError | None]


def over(kind: Callable[..., Filter], source: Late, **options: Any) -> AsyncVerbs:
    """Return the asynchronous verbs of a filter above `source`."""
    layer = kind(kind.Options(**options), source)  # type: ignore[attr-defined]
    layer.open()
    verbs = layer.asynchronous
    assert verbs is not None
    return verbs


def names(verbs: AsyncVerbs) -> set[str]:
    return {name for name in ASYNC_VERBS if getattr(verbs, name) is not None}


@pytest.fixture
def results() -> Results:
    return []


def test_a_source_has_none_by_default() -> None:
    class Plain(Late):
        asynchronous = Handler.asynchronous  # type: ignore[assignment]

    assert Plain().asynchronous is None
    assert Checked(Plain()).next.asynchronous is None
    layers: tuple[Filter, ...] = (
        OffsetHandler(OffsetHandler.Options(), Plain()),
        ReadonlyHandler(ReadonlyHandler.Options(), Plain()),
        StatsHandler(StatsHandler.Options(), Plain()),
        CorruptHandler(CorruptHandler.Options(), Plain()),
    )
    assert [layer.asynchronous for layer in layers] == [None] * 4


def test_a_window_moves_requests_and_what_is_lost(results: Results) -> None:
    source = Late()
    verbs = over(OffsetHandler, source, offset=4096)
    assert verbs.write is not None
    assert verbs.read is not None
    verbs.write(512, [memoryview(b"moved")], False, results.append)
    source.end()
    assert source.data[4608:4613] == b"moved"
    verbs.read(512, [memoryview(bytearray(5))], results.append)
    source.end(error=MediumError(4610, "lost"))
    lost = results[1]
    assert isinstance(lost, MediumError)
    assert (results[0], lost.offset, lost.strerror) == (None, 514, "lost")
    verbs.read(512, [memoryview(bytearray(5))], results.append)
    source.end(error=OSError(errno.EIO, "other"))
    assert str(results[2]) == "[Errno 5] other"


def test_a_write_protected_disk_only_reads() -> None:
    assert names(over(ReadonlyHandler, Late())) == {"read"}


def test_filters_that_change_bytes_or_wait_keep_these_verbs_to_themselves() -> None:
    assert names(over(CorruptHandler, Late())) == {"flush"}
    assert names(over(DelayHandler, Late(), seconds=0, verbs=("write",))) == {"read", "flush"}


def test_requests_are_counted_with_their_time_and_errors(results: Results) -> None:
    layer = StatsHandler(StatsHandler.Options(), source := Late())
    verbs = layer.asynchronous
    assert verbs is not None
    assert verbs.read is not None
    verbs.read(0, [memoryview(bytearray(512))], results.append)
    assert layer.counts["read"].calls == 0
    source.end()
    verbs.read(0, [memoryview(bytearray(512))], results.append)
    source.end(error=OSError(errno.EIO, "gone"))
    count = layer.counts["read"]
    assert (count.calls, count.bytes, count.errors) == (2, 1024, 1)
    assert [error and error.errno for error in results] == [None, errno.EIO]


def test_requests_are_logged_when_they_end(caplog: pytest.LogCaptureFixture, results: Results) -> None:
    source = Late()
    with caplog.at_level(logging.INFO):
        verbs = over(LogHandler, source, verbs=("flush", "write"))
        assert verbs.flush is not None
        assert verbs.write is not None
        verbs.flush(results.append)
        verbs.write(512, [memoryview(b"x")], True, results.append)
        assert "flush ok" not in caplog.text
        source.end()
        source.end(error=OSError(errno.EIO, "gone"))
    assert "flush ok" in caplog.text
    assert "write offset=512 length=1 fua [Errno 5] gone" in caplog.text


def test_an_injected_error_begins_nothing(results: Results) -> None:
    source = Late()
    verbs = over(ErrorHandler, source, error="ENOSPC", count=1)
    assert verbs.read is not None
    with pytest.raises(OSError, match="on purpose"):
        verbs.read(0, [memoryview(bytearray(512))], results.append)
    assert not source.waiting
    verbs.read(0, [memoryview(bytearray(512))], results.append)
    source.end()
    assert results == [None]


def test_a_refusal_of_the_layer_below_leaves_the_context_again(results: Results) -> None:
    layer = StatsHandler(StatsHandler.Options(), source := Late())
    source.refusal = OSError(errno.EIO, "refused")
    verbs = layer.asynchronous
    assert verbs is not None
    assert verbs.flush is not None
    with pytest.raises(OSError, match="refused"):
        verbs.flush(results.append)
    assert (layer.counts["flush"].calls, layer.counts["flush"].errors) == (1, 1)
    assert not results


def test_the_checks_hold_for_asynchronous_verbs(results: Results) -> None:
    checked = Checked(source := Late())
    with pytest.raises(ContractError, match="not open"):
        _ = checked.asynchronous
    checked.open()
    verbs = checked.asynchronous
    assert verbs is not None
    assert verbs.read is not None
    assert verbs.write is not None
    with pytest.raises(ContractError, match="outside"):
        verbs.read(1 << 20, [memoryview(bytearray(1))], results.append)
    with pytest.raises(ContractError, match="unsigned bytes"):
        verbs.read(0, [memoryview(bytearray(8)).cast("I")], results.append)
    assert not results
    verbs.read(0, [], results.append)
    assert results == [None]
    assert not source.waiting


def test_no_write_reaches_a_write_protected_medium(results: Results) -> None:
    class Protected(Late):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(read_only=True)

    checked = Checked(source := Protected())
    checked.open()
    verbs = checked.asynchronous
    assert verbs is not None
    assert verbs.write is not None
    with pytest.raises(OSError, match="Read-only"):
        verbs.write(0, [memoryview(b"x")], False, results.append)
    assert not source.waiting
    assert not results


def test_waiting_for_an_asynchronous_verb() -> None:
    wait(lambda done: done(None))
    with pytest.raises(OSError, match="gone"):
        wait(lambda done: done(OSError(errno.EIO, "gone")))


def test_a_verb_that_has_failed_keeps_no_view(no_collection: None) -> None:
    room = bytearray(1)

    def fail(views: Views, done: Done) -> None:
        done(OSError(errno.EIO, "gone"))

    try:
        wait(partial(fail, [memoryview(room)]))
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 - pytest.raises would keep the traceback
    room.append(0)  # raises BufferError as long as there is a view
