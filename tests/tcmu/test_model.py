"""The ring against a model: each command is completed once, with its own bytes."""

from dataclasses import dataclass
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.tcmu.server import READ_10, SENSE, Server
from vscsihba.errors import TransportError
from vscsihba.loopback import Loopback
from vscsihba.tcmu import abi
from vscsihba.tcmu.kernel import BLOCK

SIZES = st.sampled_from((0, 1, 512, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK))
STATUSES = st.sampled_from((0, 0, 2, 8, 0x18, 0x28))


@dataclass(slots=True)
class Told:
    """A command of the initiator, and the response that it must get."""

    data_out: bytes
    data_in: int
    status: int | None = None
    sense: bytes = b""
    data: bytes = b""
    residual: int = 0
    expired: bool = False
    """It was failed to the initiator: no response may follow."""


class RingModel(RuleBasedStateMachine):
    """Random submissions, completions, expiries, resets and management against `Told`."""

    @initialize(read_len=st.booleans(), spread=st.randoms(use_true_random=False))
    def open(self, read_len: bool, spread: Random) -> None:
        self.read_len = read_len
        self.server = Server(Loopback(ring_size=3968, blocks=24, flags=0xF if read_len else 0xD))
        spread.shuffle(self.server.loopback.kernel._free)
        self.told: dict[int, Told] = {}
        self.late: set[int] = set()
        self.unread: list[int] = []
        self.unmanaged = 0

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.fetch(0.0)
            self.server.answer_all()
            loopback = self.server.loopback
            assert loopback.outstanding == 0
            assert sorted(loopback.kernel._free) == list(range(24))
            assert loopback.kernel._cleaned == loopback.kernel._head
            self.server.fetched.clear()
            loopback.close()

    @rule(size=SIZES, out=st.booleans(), byte=st.integers(0, 255), cdb=st.sampled_from((6, 10, 16, 32)))
    def submit(self, size: int, out: bool, byte: int, cdb: int) -> None:
        data = bytes([byte]) * size if out else b""
        try:
            cmd_id = self.server.loopback.submit(
                READ_10.ljust(cdb, b"\0")[:cdb], data_out=data, data_in=0 if out else size
            )
        except TransportError:
            return
        self.told[cmd_id] = Told(data, 0 if out else size)
        self.unread.append(cmd_id)

    @rule(kind=st.sampled_from((1, 5, 128)), known=st.booleans())
    def manage(self, kind: int, known: bool) -> None:
        try:
            self.server.loopback.manage(kind, tuple(self.told) if known else (40000,))
        except TransportError:
            return
        self.unmanaged += 1

    @rule(share=st.sampled_from((0.0, 0.5, 1.0)))
    def fetch(self, share: float) -> None:
        """Fetch all; a share of the commands is executed in place."""
        waiting = enumerate(self.told[cmd_id] for cmd_id in self.unread)

        def cut(_cdb_at: int, views: list[memoryview], length: int, _cmd_id: int) -> bool:
            index, told = next(waiting)
            assert length == (len(told.data_out) or told.data_in)
            assert told.data_in or b"".join(views) == told.data_out
            if index % 2 >= share * 2:
                return False
            if told.data_in:
                for view in views:
                    view[:] = b"c" * len(view)
            told.status, told.data = 0, b"c" * told.data_in
            return True

        assert self.server.fetch(cut) == len(self.unread)
        assert len(self.server.managed) == self.unmanaged
        self.server.managed.clear()
        self.unread.clear()
        self.unmanaged = 0

    @precondition(lambda self: self.server.fetched)
    @rule(data=st.data(), status=STATUSES)
    def answer(self, data: st.DataObject, status: int) -> None:
        """Complete any open command."""
        tag = data.draw(st.sampled_from(list(self.server.fetched)))
        if tag in self.late:  # lost in a reset: this must do nothing
            self.late.remove(tag)
            self.server.answer(tag, status, SENSE, 0)
            return
        told, fetched = self.told[tag & 0xFFFF], self.server.fetched[tag]
        assert told.data_in or fetched.data == told.data_out
        told.status = status
        if told.data_out or not told.data_in:
            self.server.answer(tag, status, SENSE)
        else:
            valid = data.draw(st.integers(0, told.data_in))
            written = bytes([data.draw(st.integers(0, 255))]) * valid
            fetched.fill(written)
            self.server.answer(tag, status, SENSE, data_in=valid)
            if status == 2 and not (valid and self.read_len):
                written = b""
            elif self.read_len:
                written = written or b"\0"
            else:
                written = written.ljust(told.data_in, b"\0")
            told.data = written
            told.residual = told.data_in - len(written) if written and status in (0, 2) else 0
        told.sense = SENSE.ljust(abi.TCMU_SENSE_BUFFERSIZE, b"\0") if status == 2 else b""

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        cmd_id = data.draw(st.sampled_from(list(self.told)))
        if not self.told[cmd_id].expired:
            self.server.loopback.expire(cmd_id)
            assert self.server.loopback.answers.pop(cmd_id).status == 2
            self.told[cmd_id].expired = True

    @rule(by_drain=st.booleans())
    def reset(self, by_drain: bool) -> None:
        """Reset the ring; the server notices by itself."""
        self.server.loopback.reset_ring()
        answers = self.server.loopback.answers
        assert {cmd_id: told.status for cmd_id, told in answers.items()} == {
            cmd_id: 8 for cmd_id, told in self.told.items() if not told.expired
        }
        answers.clear()
        self.told.clear()
        self.unread.clear()
        self.unmanaged = 0
        self.late = set(self.server.fetched)
        self.server.loopback.kernel._next_id = 1  # the kernel uses the lowest free id
        if by_drain:
            self.server.fetch()
        else:
            self.server.ring.publish()

    @rule()
    def publish(self) -> None:
        """Check the responses: in ring order, each once, with the right contents."""
        self.server.ring.publish()
        answers = self.server.loopback.answers
        for cmd_id in list(self.told):
            told = self.told[cmd_id]
            if told.status is None:
                assert cmd_id not in answers
                continue
            del self.told[cmd_id]
            if told.expired:
                assert cmd_id not in answers
                continue
            answer = answers.pop(cmd_id)
            assert (answer.status, answer.sense, answer.data, answer.residual) == (
                told.status,
                told.sense,
                told.data,
                told.residual,
            )
        assert answers == {}
        assert self.server.loopback.outstanding == len(self.told)

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "server"):
            assert not self.server.loopback.broken
            assert set(self.server.ring.open_tags) == set(self.server.fetched) - self.late


RingModel.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=60)
TestRingModel = RingModel.TestCase
