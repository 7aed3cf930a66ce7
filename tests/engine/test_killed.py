"""An engine is killed at every step that it takes; its successor finishes, and nothing is done twice.

The steps of a command are fetch, fast path or SCSI, handler, answer, publish and kick. There are no threads,
so that every step has a number. `tests.tcmu` does the same to the ring alone, and to processes.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest

import vscsihba.engine
from tests.engine.rig import GOOD, rw10, triple
from tests.tcmu.killing import STEPPED, Killed, run_lines
from vscsihba.engine.owning.assembly import assemble
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import build
from vscsihba.loopback import Answer, Loopback
from vscsihba.scsi import Identity

STEPS = STEPPED | {str(path) for path in Path(vscsihba.engine.__path__[0]).rglob("*.py")}
DISK = {"handler": "memory", "size": "1MiB"}
ZERO, ONE, TWO = bytes(512), b"1" * 512, b"2" * 512


def compare_and_write(lba: int) -> bytes:
    return bytes([0x89, 0]) + lba.to_bytes(8, "big") + bytes([0, 0, 0, 1, 0, 0])


COMMANDS = {
    "identify": (bytes([0x12, 0, 0, 0, 36, 0]), b"", 36),
    "fast path": (rw10(0x2A, 1, 1), ONE, 0),
    "swap": (compare_and_write(0), ZERO + ONE, 0),
    "read": (rw10(0x28, 1, 1), b"", 512),
    "slow path": (rw10(0x2A, 2, 1, flags=0x08), TWO, 0),
    "second swap": (compare_and_write(3), ZERO + TWO, 0),
    "refused": (bytes([0xFF]) + bytes(5), b"", 0),
    "flush": (bytes([0x35]) + bytes(9), b"", 0),
}


class NoPump:
    """A pump that the test drives itself."""

    def add(self, _served: ServedLun) -> None: ...


class World:
    """Initiator, kernel, storage and journal, which outlive engines."""

    def __init__(self, journal: Path, handler: Handler) -> None:
        self.loopback = Loopback(ring_size=3968, blocks=64, journal=journal)
        self.handler = handler
        self.told: dict[str, Answer] = {}
        self.sent: dict[int, str] = {}
        for name in COMMANDS:
            self.send(name)

    def send(self, name: str) -> None:
        cdb, data_out, data_in = COMMANDS[name]
        self.sent[self.loopback.submit(cdb, data_out=data_out, data_in=data_in)] = name

    def hear(self) -> None:
        """Note the answers; send commands again that got a UNIT ATTENTION, as Linux does."""
        for tag in list(self.loopback.answers):
            name, answer = self.sent.pop(tag), self.loopback.answers.pop(tag)
            assert name not in self.told
            if answer.status != GOOD and triple(answer)[0] == 6:
                self.send(name)
            else:
                self.told[name] = answer

    def live(self) -> None:
        """Run an engine until all commands are answered."""
        queue = CallQueue()
        try:
            served = assemble(
                LunSpec(0, DISK),
                Identity.derive("killed"),
                self.handler,
                self.loopback.transport,
                queue,
                listeners=Listeners(),
                units=UnitsOfHba(),
            )
            recovered = self.loopback.transport.recover()
            served.begin(cast("Pump", NoPump()), recovered)
            while len(self.told) < len(COMMANDS):
                served.serve()
                queue.run()
                self.hear()
        finally:
            queue.close()

    def survive(self, lines: int) -> bool:
        """Kill an engine after some lines, let the next one finish; return whether the first had finished."""
        self.loopback.transport.attach()
        try:
            run_lines(self.live, lines, stepped=STEPS)
        except Killed:
            self.hear()
            self.loopback.transport.attach()
            self.live()
            return False
        return True

    def check(self) -> None:
        told = self.told
        assert not self.loopback.broken
        assert not self.loopback.outstanding
        content = [bytearray(512) for _ in range(4)]
        for lba, block in enumerate(content):
            self.handler.read(lba * 512, [memoryview(block)])
        assert told["identify"].data[8:16] == b"VSCSIHBA"
        assert told["fast path"].status == GOOD
        assert content[1] == ONE
        assert (told["read"].status, told["read"].data) == (GOOD, ONE)
        assert told["slow path"].status == GOOD
        assert content[2] == TWO
        assert triple(told["refused"]) == (5, 0x20, 0)
        assert told["flush"].status == GOOD
        self.check_swap("swap", content[0], ONE)
        self.check_swap("second swap", content[3], TWO)

    def check_swap(self, name: str, stored: bytearray, new: bytes) -> None:
        """A swap that was reported done is done; one in doubt may be done; none sees its own result."""
        answer = self.told[name]
        if answer.status == GOOD:
            assert stored == new
        else:
            assert triple(answer) == (0xB, 0x44, 0), "ABORTED COMMAND"
            assert stored in (ZERO, new)


@pytest.fixture
def handler() -> Iterator[Handler]:
    with build(DISK) as opened:
        yield opened


@pytest.mark.parametrize("first", range(5))
def test_killed_at_every_line(first: int, tmp_path: Path, handler: Handler) -> None:
    doubts, lines, over = 0, first, False
    clear = partial(handler.write, 0, [memoryview(bytes(4096))])
    while not over:
        clear()
        world = World(tmp_path / f"journal{lines}", handler)
        try:
            over = world.survive(lines)
            world.check()
            doubts += sum(world.told[name].status != GOOD for name in ("swap", "second swap"))
        finally:
            world.loopback.close()
            (tmp_path / f"journal{lines}").unlink()
        lines += 5
    assert lines > 500
    assert doubts, "some died between a change and its answer"
