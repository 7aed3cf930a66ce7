"""Takeover against a model: wherever a server dies, each command is completed once, with its own bytes."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.tcmu.killing import Killed, run_lines
from tests.tcmu.server import READ_10, SENSE, Server
from vscsihba.errors import TransportError
from vscsihba.loopback import Loopback
from vscsihba.tcmu import abi
from vscsihba.tcmu.kernel import BLOCK

SIZES = st.sampled_from((0, 1, 512, BLOCK, 3 * BLOCK))
LINES = st.none() | st.integers(0, 150)
"""The lines that a server still lives."""


@dataclass(slots=True)
class Sent:
    """A command that the initiator waits for.

    Attributes:
        data_out: Its data-out.
        data_in: Bytes of its data-in buffer.
        told: Status and data that it must be told; None while nothing was answered.
        sure: The answer was given on the slow path, by a server that lived to see it.
        begun: It must not be repeated.
    """

    data_out: bytes
    data_in: int
    told: tuple[int, bytes] | None = None
    sure: bool = False
    begun: bool = False


class TakeoverModel(RuleBasedStateMachine):
    """Random submissions, completions and deaths; a successor may die as well."""

    @initialize(spread=st.randoms(use_true_random=False), read_len=st.booleans())
    def open(self, spread: Random, read_len: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.server = Server(
            Loopback(
                ring_size=3968,
                blocks=24,
                flags=0xF if read_len else 0xD,
                journal=self.folder / "journal",
            )
        )
        spread.shuffle(self.server.loopback.kernel._free)
        self.sent: dict[int, Sent] = {}

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        self.die(None)
        loopback = self.server.loopback
        for tag in list(self.server.fetched):
            self.answer_one(tag, 8, 0)
        self.server.ring.publish()
        self.check_answers()
        assert self.sent == {}
        assert loopback.outstanding == 0
        assert not loopback.broken
        assert loopback.kernel._cleaned == loopback.kernel._head
        loopback.close()
        shutil.rmtree(self.folder)

    @rule(size=SIZES, out=st.booleans(), byte=st.integers(0, 255), cdb=st.sampled_from((6, 10, 16, 32)))
    def submit(self, size: int, out: bool, byte: int, cdb: int) -> None:
        data = bytes([byte]) * size if out else b""
        self.server.loopback.kernel._next_id = 1
        try:
            cmd_id = self.server.loopback.submit(
                READ_10.ljust(cdb, b"\0")[:cdb], data_out=data, data_in=0 if out else size
            )
        except TransportError:
            return
        self.sent[cmd_id] = Sent(data, 0 if out else size)

    @precondition(lambda self: self.sent)
    @rule()
    def manage(self) -> None:
        try:
            self.server.loopback.manage(abi.TCMU_TMR_ABORT_TASK_SET, tuple(self.sent))
        except TransportError:
            return

    @rule(cuts=st.lists(st.booleans(), max_size=6), lines=LINES)
    def fetch(self, cuts: list[bool], lines: int | None) -> None:
        """Fetch all, executing some in place."""
        turns = iter(cuts)

        def cut(cdb_at: int, views: list[memoryview], length: int, _cmd_id: int) -> bool:
            if not next(turns, False):
                return False
            entry = cdb_at - 112 if length <= 4 * BLOCK else 0  # four iovecs at most
            (cmd_id,) = self.server.ring.memory[entry + 4 : entry + 6].cast("H")
            sent = self.sent[cmd_id]
            self.check_buffer(sent, views)
            if sent.data_in:
                for view in views:
                    view[:] = b"c" * len(view)
            sent.told = (0, b"c" * sent.data_in)
            return True

        self.live(lambda: self.server.fetch(cut), lines)

    @precondition(lambda self: self.server.fetched)
    @rule(data=st.data(), lines=LINES)
    def begin(self, data: st.DataObject, lines: int | None) -> None:
        tag = data.draw(st.sampled_from(list(self.server.fetched)))
        sent = self.sent[tag & 0xFFFF]
        if self.live(lambda: self.server.ring.begun(tag), lines):
            sent.begun = True

    @precondition(lambda self: self.server.fetched)
    @rule(data=st.data(), status=st.sampled_from((0, 2, 8)), lines=LINES)
    def answer(self, data: st.DataObject, status: int, lines: int | None) -> None:
        """Complete any open command."""
        tag = data.draw(st.sampled_from(list(self.server.fetched)))
        valid = data.draw(st.integers(0, self.sent[tag & 0xFFFF].data_in))
        self.live(lambda: self.answer_one(tag, status, valid), lines)

    def answer_one(self, tag: int, status: int, valid: int) -> None:
        sent = self.sent[tag & 0xFFFF]
        if sent.data_in:
            self.server.fetched[tag].fill(b"d" * valid)
        sent.told = (status, b"d" * valid)
        self.server.answer(tag, status, SENSE, data_in=valid)
        sent.sure = True

    @rule(lines=LINES)
    def publish(self, lines: int | None) -> None:
        if self.live(self.server.ring.publish, lines):
            self.check_answers()
            assert not any(sent.told for sent in self.sent.values())

    @rule(lines=LINES)
    def die(self, lines: int | None) -> None:
        """Take over from a dead server, with as many successors as it takes."""
        loopback = self.server.loopback
        self.server.fetched.clear()
        recovered = []

        def recover() -> None:
            nonlocal recovered
            loopback.transport.attach()
            recovered = self.server.ring.recover()

        try:
            run_lines(recover, lines)
        except Killed:
            self.die(None)
            return
        self.check_answers()
        for command in recovered:
            sent = self.sent[command.tag]
            assert not sent.sure
            assert command.begun >= sent.begun
            self.server.park(command.tag, command.cdb, command.views)
        assert not any(sent.sure for sent in self.sent.values())
        self.server.fetch()
        self.server.managed.clear()
        assert {tag & 0xFFFF for tag in self.server.fetched} == set(self.sent)
        for tag, fetched in self.server.fetched.items():
            self.check_buffer(self.sent[tag & 0xFFFF], fetched.views)
            self.sent[tag & 0xFFFF].told = None

    def live(self, call: Callable[[], object], lines: int | None) -> bool:
        """Call a method of the server; return whether it survived."""
        try:
            run_lines(call, lines)
        except Killed:
            self.die(None)
            return False
        return True

    def check_buffer(self, sent: Sent, views: list[memoryview]) -> None:
        assert sum(map(len, views)) == (len(sent.data_out) or sent.data_in)
        assert sent.data_in or b"".join(views) == sent.data_out

    def check_answers(self) -> None:
        """Check the responses: only to completed commands, with their contents."""
        answers = self.server.loopback.answers
        for cmd_id, answer in answers.items():
            sent = self.sent.pop(cmd_id)
            assert sent.told is not None
            status, data = sent.told
            assert answer.status == status
            assert answer.data.rstrip(b"\0") == (data if answer.data else b"")
            if status == 2:
                assert answer.sense[: len(SENSE)] == SENSE
            assert answer.data or not (status == 0 and data)
        answers.clear()
        assert not self.server.loopback.broken


TakeoverModel.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestTakeoverModel = TakeoverModel.TestCase
