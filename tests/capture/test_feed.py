"""The traces of several engines as one sequence."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.engine.rig import Rig
from tests.polling import wait_until
from vscsihba.capture import feed as feed_module
from vscsihba.capture.feed import Feed
from vscsihba.capture.presence import HANDOVER, START, Presence
from vscsihba.capture.seen import Seen
from vscsihba.control import ControlServer, Stream
from vscsihba.engine.serving.tap import Taps
from vscsihba.engine.trace_stream import trace_stream
from vscsihba.errors import HostError
from vscsihba.records import Kind


@contextmanager
def engine(run: Path, taps: Taps, hba: int = 0, name: str = "engine-1") -> Iterator[None]:
    """Serve the trace of some taps as an engine of an HBA does."""
    folder = run / f"hba{hba}"
    verbs = {"trace": partial(trace_stream, taps, hba)}
    with ControlServer(folder / f"{name}.control", verbs, allowed=lambda peer: peer.uid == os.getuid()):
        yield


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for new engines all the time."""
    monkeypatch.setattr(feed_module, "_LOOK", 0.0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig({"handler": "memory", "size": "1MiB"}) as made:
        for _ in range(4):
            made.run(bytes(6))
        yield made


def until(feed: Feed, kind: Kind, count: int = 1) -> list[Seen]:
    """Return the events up to the last of so many of a kind."""
    found: list[Seen] = []

    def enough() -> bool:
        found.extend(feed.events(0.01))
        return sum(seen.record.kind is kind for seen in found) >= count

    wait_until(enough)
    return [seen for seen in found if seen.record.kind is kind]


def test_commands_of_engines_and_programs_of_all_hbas_arrive(tmp_path: Path, rig: Rig) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(Rig({"handler": "memory", "size": "1MiB"}))
        stack.enter_context(engine(tmp_path, rig.taps, 0))
        stack.enter_context(engine(tmp_path, other.taps, 12, "program-7"))
        feed = stack.enter_context(Feed(None, snaplen=0, run=tmp_path))
        until(feed, Kind.LUN, 2)
        assert feed.served == {(0, 0), (12, 0)}
        rig.read(0, 1)
        other.run(bytes(6))
        assert {seen.place for seen in until(feed, Kind.COMMAND, 2)} == {(0, 0), (12, 0)}
        assert feed.lost == 0


def test_only_the_wanted_luns_are_traced(tmp_path: Path, rig: Rig) -> None:
    with engine(tmp_path, rig.taps), Feed([(0, 1), (5, 0)], snaplen=0, run=tmp_path) as feed:
        wait_until(lambda: rig.taps.count == 1)
        rig.read(0, 1)
        assert list(feed.events(0.2)) == []


def test_an_engine_that_comes_later_is_found_and_its_end_is_noticed(tmp_path: Path, rig: Rig) -> None:
    with Feed([(0, 0)], snaplen=0, run=tmp_path) as feed:
        assert list(feed.events(0)) == []
        with engine(tmp_path, rig.taps):
            until(feed, Kind.LUN)
            assert feed.served == {(0, 0)}
        until(feed, Kind.GONE)
        assert feed.served == frozenset()


def test_the_socket_of_a_killed_engine_is_passed_over(tmp_path: Path, rig: Rig) -> None:
    (tmp_path / "hba0").mkdir()
    (tmp_path / "hba0" / "engine-9.control").touch()
    with engine(tmp_path, rig.taps), Feed(None, snaplen=0, run=tmp_path) as feed:
        until(feed, Kind.LUN)


def test_another_format_is_refused(tmp_path: Path) -> None:
    verbs = {"trace": lambda **_: Stream({"format": 99, "hba": 0, "epoch": 0.0}, lambda _channel: None)}
    path = tmp_path / "hba0" / "engine-1.control"
    with (
        ControlServer(path, verbs, allowed=lambda _peer: True),
        pytest.raises(HostError, match="has another format of traces"),
        Feed(None, snaplen=0, run=tmp_path),
    ):
        pass


def test_bytes_that_are_no_trace_are_refused(tmp_path: Path) -> None:
    garbage = (8).to_bytes(4, "little") + bytes(8) + b"garbage!"
    verbs = {"trace": lambda **_: Stream({"format": 1, "hba": 0, "epoch": 0.0}, lambda to: to.send(garbage))}
    path = tmp_path / "hba0" / "engine-1.control"
    with (
        ControlServer(path, verbs, allowed=lambda _peer: True),
        Feed(None, snaplen=0, run=tmp_path) as feed,
        pytest.raises(HostError, match="not a trace"),
    ):
        until(feed, Kind.COMMAND)


def test_a_disk_that_nobody_serves_ends_the_trace_after_a_moment() -> None:
    presence = Presence([(0, 1), (0, 2)], follow=False, now=0.0)
    assert presence.update([(0, 1)], START) == []
    with pytest.raises(HostError, match=r"no engine serves LUN 2 of HBA 0; .*--follow"):
        presence.update([(0, 1)], START + 0.1)


def test_without_any_disk_the_trace_ends_after_a_moment() -> None:
    with pytest.raises(HostError, match="no engine serves a disk"):
        Presence(None, follow=False, now=0.0).update([], START + 0.1)


def test_a_lun_that_changes_its_engine_is_not_gone() -> None:
    presence = Presence(None, follow=False, now=0.0)
    assert presence.update([(0, 1), (0, 2)], 0.5) == []
    assert presence.update([(0, 2)], 0.5 + HANDOVER) == []
    assert presence.update([(0, 1), (0, 2)], 0.6 + HANDOVER) == []


def test_the_last_lun_ends_the_trace_and_the_others_are_reported() -> None:
    presence = Presence(None, follow=False, now=0.0)
    presence.update([(0, 1), (0, 2)], 0.5)
    assert presence.update([(0, 2)], 10.0) == ["LUN 1 of HBA 0 is no longer served"]
    with pytest.raises(HostError, match="LUN 2 of HBA 0 is no longer served; use --follow to wait for it"):
        presence.update([], 20.0)


def test_with_follow_the_trace_waits() -> None:
    presence = Presence([(0, 1)], follow=True, now=0.0)
    assert presence.update([], 100.0) == []
    assert presence.update([(0, 1)], 101.0) == []
    assert presence.update([], 200.0) == ["LUN 1 of HBA 0 is no longer served"]
    assert presence.update([], 300.0) == []
    assert presence.update([(0, 1)], 301.0) == ["LUN 1 of HBA 0 is served again"]
