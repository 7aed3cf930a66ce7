"""The simulator finds faults that were made and mended before, when they are put back.

Each test patches the live code so that it makes the old mistake again, and plays histories until one
of them breaks a promise. A simulator that finds nothing proves nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from tests.sim import calls
from tests.sim.exhaustive import Exhaustive, Point
from tests.sim.faults import SLOW, Fault, ListedFaults, NoFaults, OneFault
from tests.sim.histories import Histories, Outcome
from tests.sim.history import SECTOR
from tests.sim.initiator import Initiator, Step, random_steps
from tests.sim.layers import LAYERS, SECTORS
from tests.sim.remote import REMOTE
from tests.sim.runs import broken_promise, run, send
from vscsihba.block import Views
from vscsihba.errors import InUseError
from vscsihba.handlers.cache.lines import Line, Lines
from vscsihba.handlers.cow import overlay as cow_overlay
from vscsihba.handlers.cow.handler import CowHandler
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror import members as mirror_members
from vscsihba.handlers.mirror import start as mirror_start
from vscsihba.handlers.mirror.assembly import Candidate, Verdict, judge
from vscsihba.handlers.mirror.inline import InlineWriter
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.mirror.metadata import Metadata
from vscsihba.handlers.mirror.state import MirrorState
from vscsihba.handlers.nbd.connecting import Connector
from vscsihba.handlers.nbd.flush_results import FlushResults
from vscsihba.handlers.shared.tmpfs_store import Recalled, TmpfsStore, recall
from vscsihba.handlers.shared.vectored import read_bytes
from vscsihba.handlers.snapshot.snapshot_set import SnapshotSet
from vscsihba.handlers.stack import build

MOST = 2000
"""Histories in which a fault has to be found."""


@contextmanager
def dirty_marks_cleared_before_copying() -> Iterator[None]:
    """A flush forgets regions that were not written for a while, also those that are not copied yet."""
    idle, forget = MirrorState.idle, MirrorState.forget
    with (
        mock.patch.object(MirrorState, "idle", lambda self, _unsettled: idle(self, set())),
        mock.patch.object(
            MirrorState, "forget", lambda self, regions, _unsettled: forget(self, regions, set())
        ),
    ):
        yield


@contextmanager
def any_medium_counts_as_the_leg() -> Iterator[None]:
    """A leg is known by its place: whatever lies there has all the data."""

    def believe(leg: Candidate, metadata: Metadata, *, opening: bool) -> Verdict:
        found = judge(leg, metadata, opening=opening)
        number = int(leg.label.split()[1])
        return replace(found, uuid=metadata.legs[number].uuid, whole=True, everything=False, problem="")

    with mock.patch.object(mirror_start, "judge", believe):
        yield


@contextmanager
def any_medium_comes_back_as_the_leg() -> Iterator[None]:
    """A leg that was dropped is known by its place: whatever lies there lacks what was written meanwhile."""

    def believe(leg: Candidate, metadata: Metadata, *, opening: bool) -> Verdict:
        found = judge(leg, metadata, opening=opening)
        number = int(leg.label.split()[1])
        return replace(found, uuid=metadata.legs[number].uuid, everything=False, problem="")

    with mock.patch.object(mirror_members, "judge", believe):
        yield


@contextmanager
def dropped_legs_are_not_recorded() -> Iterator[None]:
    """A write is acknowledged although it could not be recorded that a leg has missed it."""

    def keep(self: Members, *, size: int | None = None) -> None:
        self.record.is_due = False

    with mock.patch.object(Members, "keep", keep):
        yield


@contextmanager
def half_done_inline_writes_are_forgotten() -> Iterator[None]:
    """A write that some legs have, and others have refused, is left to a slow path that may never come."""

    def write(_: object, legs: list[tuple[Any, Any]], views: Any, offset: int, length: int) -> None:
        for leg, parts in legs:
            leg.write_inline(parts.first, views, offset, length)

    with mock.patch.object(InlineWriter, "_write", write):
        yield


@contextmanager
def inline_writes_need_no_mark() -> Iterator[None]:
    """A write goes to all legs at once, whether or not its regions are dirty."""
    with mock.patch.object(MirrorState, "try_begin", lambda self, regions: not self._writing.append(regions)):
        yield


@contextmanager
def marks_are_not_synced() -> Iterator[None]:
    """A region counts as dirty once its mark was written to the page cache."""
    store_marks = MirrorState._store_marks

    def store(self: MirrorState, marks: list[range]) -> None:
        with mock.patch.object(FileHandler, "flush"):
            store_marks(self, marks)

    with mock.patch.object(MirrorState, "_store_marks", store):
        yield


@contextmanager
def blocks_published_before_they_are_filled() -> Iterator[None]:
    """A block counts as held although putting it into the cache has failed."""
    fill = Lines._fill

    def believe(self: Lines, line: Line, within: int, content: Views) -> None:
        with suppress(OSError, MemoryError):
            fill(self, line, within, content)

    with mock.patch.object(Lines, "_fill", believe):
        yield


@contextmanager
def a_failed_mark_leaves_half_of_its_note() -> Iterator[None]:
    """States are put into the note piece by piece, and into memory only when all of it is there."""

    def mark(self: Any, first: int, last: int, state: int, **_: object) -> None:
        if first < last:
            note, at = self._note or self._begun(), first
            with self._changing:
                while at < last:
                    at += note.put_some(at, last, state)
                self.states[first:last] = bytes([state]) * (last - first)
                self.map.dirty.update(range(first // 504, (last - 1) // 504 + 1))

    with mock.patch.object(Overlay, "mark", mark):
        yield


@contextmanager
def lost_clusters_are_taken_back_one_by_one() -> Iterator[None]:
    """A failed flush takes the states of its clusters back by single stores, and no flag covers them."""
    with mock.patch.object(TmpfsStore, "set_flag"):
        yield


@contextmanager
def a_shrink_counts_though_its_sync_has_failed() -> Iterator[None]:
    """A file that was made smaller is acknowledged before that is on stable storage."""

    def set_size(self: FileHandler, size: int) -> None:
        os.ftruncate(self._fd, size)
        with suppress(OSError):
            self.flush()

    with mock.patch.object(FileHandler, "_set_size", set_size):
        yield


@contextmanager
def nothing_is_sent_again_to_a_restarted_server() -> Iterator[None]:
    """A server that is back counts as having everything that was acknowledged."""
    with mock.patch.object(Connector, "repeat", return_value=""):
        yield


@contextmanager
def lost_writes_that_were_not_kept_are_told_to_nobody() -> Iterator[None]:
    """No flush fails after the server was lost with writes that were not kept."""
    with mock.patch.object(FlushResults, "note"):
        yield


def found(name: str, root: Path, fault: Callable[[], Any]) -> Outcome | None:
    """Return a history that breaks a promise with a fault put back, and none without it."""
    lane = Histories({**LAYERS, **REMOTE}[name], root)
    for seed in range(MOST):
        with fault():
            outcome = lane.play(seed)
        if outcome.message and not lane.play(seed).message:
            return outcome
    return None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mirror", dropped_legs_are_not_recorded),
        ("mirror", any_medium_counts_as_the_leg),
        ("mirror", any_medium_comes_back_as_the_leg),
        ("mirror", inline_writes_need_no_mark),
        ("mirror", marks_are_not_synced),
        ("write-through", blocks_published_before_they_are_filled),
        ("write-back", blocks_published_before_they_are_filled),
        ("nbd", nothing_is_sent_again_to_a_restarted_server),
        ("nbd", lost_writes_that_were_not_kept_are_told_to_nobody),
    ],
)
def test_a_fault_that_is_put_back_is_found(root: Path, name: str, fault: Callable[[], Any]) -> None:
    assert found(name, root, fault) is not None, f"none of {MOST} histories has found it"


def test_a_half_written_note_is_found(root: Path) -> None:
    layer = replace(LAYERS["cow"], script=(Step("write", 3, 2), Step("unmap", 8, 80), Step("read", 0, 96)))
    lane = Exhaustive(layer, root)
    points = [point for point in lane.points() if point.fault.how == "torn"]
    points = [Point(point.fault, "kill") for point in points]
    assert [lane.strike(point) for point in points] == [None] * len(points)
    with a_failed_mark_leaves_half_of_its_note():
        findings = [finding for point in points if (finding := lane.strike(point))]
    assert any("sector" in finding.message for finding in findings)


@pytest.mark.parametrize("name", ["cow", "snapshot"])
def test_clusters_that_are_taken_back_one_by_one_are_found(root: Path, name: str) -> None:
    layer = replace(LAYERS[name], script=(*(Step("write", 16 * at + 3, 2) for at in range(8)), Step("flush")))
    lane = Exhaustive(layer, root)
    syncs = [call.number for call in lane._calls() if call.kind == "sync"]

    def findings() -> list[str]:
        return [message for at in syncs for later in range(12) if (message := _killed_after(lane, at, later))]

    assert findings() == []
    with lost_clusters_are_taken_back_one_by_one():
        assert any("sector" in message for message in findings())


def _killed_after(lane: Exhaustive, sync: int, later: int) -> str:
    """Let a call fail as a sync does, and kill the process some calls later; return what is wrong then."""
    faults = ListedFaults([Fault(sync, "EIO"), Fault(sync + 1 + later, "kill")])
    with run(lane.layer, lane.template, lane.root, later) as machine:

        def play() -> None:
            machine.live(send(lane.layer.script), faults, leave_open=True)
            machine.judge()

        return broken_promise(play)


def test_a_half_done_inline_write_is_found(root: Path) -> None:
    layer = replace(LAYERS["mirror"], script=(Step("write", 200, 8), Step("write_aborted", 203, 2)))
    lane = Exhaustive(layer, root)
    points = [point for point in lane.points() if point.fault.how == "EIO" and point.end == "close"]
    points = points[len(points) // 3 :]  # behind the opening
    assert [lane.strike(point) for point in points] == [None] * len(points)
    with half_done_inline_writes_are_forgotten():
        findings = [finding for point in points if (finding := lane.strike(point))]
    assert any("legs of the mirror differ" in finding.message for finding in findings)


@pytest.mark.parametrize("name", ["file", "direct"])
def test_a_shrink_that_a_power_cut_undoes_is_found(root: Path, name: str) -> None:
    steps = (Step("resize", count=512), Step("write", 300, 8), Step("resize", count=256), Step("write", 3, 2))
    lane = Exhaustive(replace(LAYERS[name], script=steps * 2), root)
    points = [Point(point.fault, "power") for point in lane.points() if point.fault.how == "EIO"]
    points = points[len(points) // 3 :]  # behind the opening
    assert [lane.strike(point) for point in points] == [None] * len(points)
    with a_shrink_counts_though_its_sync_has_failed():
        findings = [finding for point in points if (finding := lane.strike(point))]
    assert any("the disk has 512 sectors" in finding.message for finding in findings)


class _SlowReads:
    """A plan in which reading takes some seconds, once it was begun, and nothing fails."""

    begun = False

    def strike(self, number: int, kind: str, path: str) -> str:
        return SLOW if self.begun and kind == "read" else ""


def crash_twice(lane: Histories, seed: int) -> str:
    """Crash a mirror while it is written, and again while its legs are made equal; return what is wrong."""
    luck = Random(seed)
    writes = [Step("write", 64 * at, 8) for at in range(8)]
    flushes = [Step("wait", count=6), Step("flush")] * 3
    slow = _SlowReads()

    def flush(initiator: Initiator) -> None:
        slow.begun = True
        initiator.send(flushes)

    with (
        run(lane.layer, lane.template, lane.root, seed) as machine,
        mock.patch.object(calls, "_SLOW", (7.0,)),
    ):
        try:
            machine.live(send(writes * 3), OneFault(Fault(luck.randrange(80, 200), "power")))
            machine.live(flush, slow, leave_open=True)
            machine.judge()
        except AssertionError as error:
            return str(error)
    return ""


def test_dirty_marks_cleared_too_early_are_found(root: Path) -> None:
    lane = Histories(LAYERS["mirror"], root)
    seeds = range(40)
    assert [crash_twice(lane, seed) for seed in seeds] == [""] * len(seeds)
    with dirty_marks_cleared_before_copying():
        assert any("legs of the mirror differ" in crash_twice(lane, seed) for seed in seeds)


@contextmanager
def a_note_belongs_to_whoever_names_its_session() -> Iterator[None]:
    """An overlay takes over the note of the session in its header, whichever file and process that is for."""

    def believe(session: str, _place: object, **_: object) -> Recalled | None:
        return recall(session) if session else None

    with mock.patch.object(cow_overlay, "note_of", believe):
        yield


@contextmanager
def a_copy_in_use_is_not_refused() -> Iterator[None]:
    """The UUID of an overlay is not claimed, so a copy can be opened beside it."""
    with (
        mock.patch.object(CowHandler, "_claim", return_value=nullcontext()),
        mock.patch.object(SnapshotSet, "_claim", return_value=nullcontext()),
    ):
        yield


def open_copy_in_use(lane: Histories, seed: int) -> str:
    """Copy an overlay while it is in use, open the copy, and kill the process that uses the original."""
    luck, medium = Random(seed), lane.layer.media[0].name
    with run(lane.layer, lane.template, lane.root, seed) as machine:
        world, path = machine.world, str(lane.root / medium)
        stack = build({**machine.document, "path": f"{path}-copy"})
        copied: list[frozenset[bytes]] = []

        def use_copy() -> None:
            try:
                disk = stack.open()
            except InUseError:
                return
            content = read_bytes(disk, 0, SECTORS * SECTOR)
            for sector, allowed in enumerate(copied):
                assert content[sector * SECTOR : (sector + 1) * SECTOR] in allowed, f"sector {sector}"
            disk.write(0, [memoryview(bytes(SECTOR))], fua=True)
            stack.close()

        def use(initiator: Initiator) -> None:
            initiator.send([*random_steps(luck, SECTORS, 4, ("write", "unmap")), Step("flush")])
            copied.extend(machine.history.contents())
            with world.untouched():
                world.storage.add(f"{path}-copy", world.storage.tree_below(path))
            initiator.send(random_steps(luck, SECTORS, 4, ("write", "unmap")))
            other = world.start(use_copy, "other")
            world.scheduler.wait(lambda: other.ended)
            if other.error is not None:
                raise AssertionError(f"the copy: {other.error}") from other.error

        def play() -> None:
            machine.live(use, NoFaults(), leave_open=True)
            machine.judge()

        return broken_promise(play)


@pytest.mark.parametrize("name", ["cow", "snapshot"])
def test_a_note_that_a_copy_takes_over_is_found(root: Path, name: str) -> None:
    lane = Histories(LAYERS[name], root)
    seeds = range(10)
    assert [open_copy_in_use(lane, seed) for seed in seeds] == [""] * len(seeds)
    with a_copy_in_use_is_not_refused():
        assert [open_copy_in_use(lane, seed) for seed in seeds] == [""] * len(seeds)
        with a_note_belongs_to_whoever_names_its_session():
            assert any("sector" in open_copy_in_use(lane, seed) for seed in seeds)
