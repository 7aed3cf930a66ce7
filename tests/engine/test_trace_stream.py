"""The verb ``trace``: records of finished commands on a control socket."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.engine.rig import Rig
from tests.polling import wait_until
from vscsihba.control import ControlServer, Incoming, open_stream
from vscsihba.engine.trace_stream import MAX_READERS, trace_stream
from vscsihba.errors import HostError, UsageError
from vscsihba.records import FORMAT, Batches, Kind, Record

ROOM = 1 << 20


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig({"handler": "memory", "size": "1MiB"}) as made:
        for _ in range(4):
            made.run(bytes(6))
        yield made


@pytest.fixture
def path(tmp_path: Path, rig: Rig) -> Iterator[Path]:
    verbs = {"trace": partial(trace_stream, rig.taps, 7)}
    with ControlServer(tmp_path / "control", verbs, allowed=lambda peer: peer.uid == os.getuid()) as server:
        yield server.path


def begin(path: Path, luns: list[int] | None = None, *, snaplen: int = 0, buffer: int = ROOM) -> Incoming:
    return open_stream(path, "trace", {"luns": luns, "snaplen": snaplen, "buffer": buffer}, timeout=10)


class Reader:
    """Reads a stream."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.batches = Batches()
        self.found: list[Record] = []

    def until(self, count: int) -> list[Record]:
        """Read until there are so many commands; return them."""

        def enough() -> bool:
            self.found += self.batches.add(self.incoming.receive() or b"")
            return len(self.commands) >= count

        wait_until(enough)
        return self.commands

    @property
    def commands(self) -> list[Record]:
        """The commands among the records."""
        return [record for record in self.found if record.kind is Kind.COMMAND]


def test_a_reader_gets_the_commands_from_its_beginning_on(rig: Rig, path: Path) -> None:
    rig.read(0, 1)
    with begin(path, snaplen=4) as incoming:
        assert isinstance(incoming.answer, dict)
        assert (incoming.answer["format"], incoming.answer["hba"]) == (FORMAT, 7)
        reader = Reader(incoming)
        wait_until(lambda: bool(rig.served.tap.observers))
        rig.write(5, b"data" * 128)
        (write,) = reader.until(1)
        assert write.data == b"data"
        assert reader.found[0].kind is Kind.LUN
    wait_until(lambda: not rig.served.tap.observers)


def test_a_reader_names_the_luns_that_it_wants(rig: Rig, path: Path) -> None:
    with begin(path, [1]) as other, begin(path, [0]) as mine:
        wait_until(lambda: rig.taps.count == 2)
        rig.read(0, 1)
        Reader(mine).until(1)
        assert other.receive() is None


def test_a_reader_that_does_not_read_loses_commands_and_is_told_how_many(rig: Rig, path: Path) -> None:
    with begin(path, snaplen=512, buffer=4096) as incoming:
        wait_until(lambda: bool(rig.served.tap.observers))
        sent = 0
        while sent < 1000:
            rig.read(0, 1)
            sent += 1
        reader = Reader(incoming)

        def all_told() -> bool:
            reader.found += reader.batches.add(incoming.receive() or b"")
            return len(reader.commands) + reader.batches.lost == sent

        wait_until(all_told)
        assert reader.batches.lost > 0


def test_too_many_readers_are_refused(rig: Rig, path: Path) -> None:
    readers = [begin(path) for _ in range(MAX_READERS)]
    wait_until(lambda: rig.taps.count == MAX_READERS)
    with pytest.raises(HostError, match="16 traces of HBA 7 are running; end one of them"):
        begin(path)
    rig.read(0, 1)
    for incoming in readers:
        Reader(incoming).until(1)
        incoming.close()
    wait_until(lambda: rig.taps.count == 0)


@pytest.mark.parametrize(("snaplen", "buffer"), [(-1, ROOM), (1 << 40, ROOM), (0, 0), (0, 1 << 40)])
def test_arguments_out_of_range_are_refused(path: Path, snaplen: int, buffer: int) -> None:
    with pytest.raises(UsageError, match="bytes"):
        begin(path, snaplen=snaplen, buffer=buffer)
