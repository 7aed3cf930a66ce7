"""Publishing (rules 3 and 4): all stores, then the tail, then one kick a batch."""

import platform
import struct
from collections.abc import Callable

import pytest

from tests.tcmu.conftest import MakeServer
from tests.tcmu.server import READ_10, Server, always, never
from vscsihba.errors import DeviceGoneError, HostError
from vscsihba.loopback import Loopback
from vscsihba.tcmu import abi, barrier, positions, ring
from vscsihba.tcmu.ring import Ring


def tail(loopback: Loopback) -> int:
    (position,) = struct.unpack_from("=I", loopback.memory, abi.CMD_TAIL_OFFSET)
    return int(position)


@pytest.mark.parametrize("cut", [always, never])
def test_rule_3_one_kick_a_batch(server: Server, cut: Callable[..., bool]) -> None:
    for _ in range(20):
        server.loopback.submit(READ_10)
    server.fetch(cut)
    server.answer_all()
    assert server.loopback.kicks == 1
    assert len(server.loopback.answers) == 20


def test_rule_3_no_kick_without_an_answer(server: Server) -> None:
    server.ring.publish()
    server.one()
    server.ring.publish()
    assert server.loopback.kicks == 0


def test_rule_3_no_second_kick_for_the_same_answers(server: Server) -> None:
    server.one()
    server.answer_all()
    server.ring.publish()
    assert server.loopback.kicks == 1


def test_rule_4_the_tail_moves_only_when_published(server: Server) -> None:
    """The kernel may read cmd_tail at any time: it must not see a half-written batch."""
    server.one()
    server.one()
    for tag in list(server.fetched):
        server.answer(tag)
        assert tail(server.loopback) == 0
    server.ring.publish()
    assert tail(server.loopback) == server.loopback.kernel._head


def test_rule_4_in_place_answers_do_not_show_early(server: Server) -> None:
    server.loopback.submit(READ_10)
    server.fetch(always)
    assert tail(server.loopback) == 0


def test_rule_4_answers_then_barrier_then_tail_then_kick(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback = make_server().loopback
    steps: list[tuple[str, int, int]] = []

    def note(step: str) -> None:
        steps.append((step, loopback.memory[128 + abi.REQ_OFFSET], tail(loopback)))

    monkeypatch.setattr(positions, "memory_barrier", lambda: note("barrier"))
    served = Ring(loopback.memory[:], lambda: note("kick"))
    tag = loopback.submit(READ_10)
    served.drain(never, lambda *_: None)
    steps.clear()
    served.complete(tag, 0x18)
    served.publish()
    assert steps == [("barrier", 0x18, 0), ("kick", 0x18, 128)]


def test_rule_4_head_then_barrier_then_entries(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that the kernel queues after the head was loaded are left to the next drain."""
    loopback = make_server().loopback
    loopback.submit(READ_10)
    monkeypatch.setattr(ring, "memory_barrier", lambda: loopback.submit(READ_10))
    assert loopback.transport.drain(always, lambda *_: None) == 1
    assert loopback.transport.pending()


@pytest.mark.parametrize(
    ("flags", "data_in", "status", "valid", "written"),
    [
        (0xF, 512, 0, 100, (abi.TCMU_UFLAG_READ_LEN, 0, 100)),
        (0xF, 512, 0, 0, (abi.TCMU_UFLAG_READ_LEN, 0, 1)),
        (0xF, 0, 0, 0, (0, 0, 0)),
        (0xF, 512, 2, 0, (0, 2, 0)),
        (0xF, 512, 2, 7, (abi.TCMU_UFLAG_READ_LEN, 2, 7)),
        (0xF & ~abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN, 512, 0, 100, (0, 0, 0)),
        (0xF & ~abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN, 512, 2, 7, (0, 2, 0)),
    ],
)
def test_a_completion_is_these_bytes_of_its_slot(
    make_server: MakeServer, flags: int, data_in: int, status: int, valid: int, written: tuple[int, int, int]
) -> None:
    """Nothing is left to flags that the kernel may give a meaning to, one day."""
    server = make_server(flags=flags, blocks=64)
    tag = server.one(data_in=data_in)
    server.ring.complete(tag, status, b"", valid)
    uflags, scsi_status, read_len = written
    slot = struct.unpack_from("=IHBBB3xI", server.loopback.memory, 128)
    assert slot == (128 | abi.TCMU_OP_CMD, tag, 0, uflags, scsi_status, read_len)


def test_a_refusal_gives_the_initiator_no_byte_of_the_buffer(make_server: MakeServer) -> None:
    server = make_server(flags=0xF, blocks=64)
    tag = server.one(data_in=512)
    server.ring.refuse(tag)
    slot = struct.unpack_from("=IHBBB3xI", server.loopback.memory, 128)
    assert slot == (128 | abi.TCMU_OP_CMD, tag, 0, abi.TCMU_UFLAG_UNKNOWN_OP, 2, 0)


def test_kick_that_fails_tells_that_the_device_is_gone(server: Server) -> None:
    server.one()
    server.loopback.remove()
    with pytest.raises(DeviceGoneError):
        server.answer_all()


@pytest.mark.parametrize("machine", ["x86_64", "i686"])
def test_x86_needs_no_barrier(machine: str) -> None:
    assert barrier.find_barrier(machine) is None


def test_other_machines_use_membarrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same system call with the number of this machine, so that the code is run."""
    monkeypatch.setitem(barrier._MEMBARRIER, "here", 324 if platform.machine() == "x86_64" else 283)
    membarrier = barrier.find_barrier("here")
    assert membarrier is not None
    membarrier()


@pytest.mark.parametrize("machine", ["sparc64", ""])
def test_a_machine_without_a_known_barrier_is_refused(machine: str) -> None:
    with pytest.raises(HostError, match="no memory barrier is known"):
        barrier.find_barrier(machine)
