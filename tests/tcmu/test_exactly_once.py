"""Every command is completed exactly once (rule 8)."""

import pytest

from tests.tcmu.server import READ_10, Server, always
from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.completions import Completion


def still_serves(server: Server) -> bool:
    tag = server.loopback.submit(READ_10)
    server.fetch(always)
    return server.result(tag).status == 0 and not server.loopback.broken


@pytest.mark.parametrize("published", [True, False])
def test_rule_8_a_second_answer_is_refused(server: Server, *, published: bool) -> None:
    tag, other = server.one(), server.one()
    server.answer(tag)
    if published:
        server.ring.publish()
    with pytest.raises(TransportError, match=f"command {tag} is not open"):
        server.ring.complete(tag, 0)
    server.answer(other)
    assert still_serves(server)
    assert server.loopback.outstanding == 0


@pytest.mark.parametrize("tag", [0, 2, 0xFFFF, 0x10001, -1])
def test_rule_8_an_invented_answer_is_refused(server: Server, tag: int) -> None:
    server.one()
    with pytest.raises(TransportError, match="is not open"):
        server.ring.complete(tag, 0)
    with pytest.raises(TransportError, match="is not open"):
        server.ring.refuse(tag)
    server.answer_all()
    assert still_serves(server)


def test_rule_8_an_answer_given_in_place_cannot_be_given_again(server: Server) -> None:
    tag = server.loopback.submit(READ_10)
    server.fetch(always)
    with pytest.raises(TransportError):
        server.ring.complete(tag, 0)
    assert server.result(tag).status == 0


@pytest.mark.parametrize(("status", "data_in"), [(256, None), (-1, None), (0, 1 << 32)])
def test_an_answer_that_cannot_be_written_leaves_the_command_open(
    server: Server, status: int, data_in: int | None
) -> None:
    tag = server.one(data_in=512)
    with pytest.raises(Exception, match=r"format|argument|range"):
        server.ring.complete(tag, status, data_in=data_in)
    server.answer(tag, 2, b"\x70")
    assert server.result(tag).status == 2


def test_an_id_that_comes_twice_is_corrupt(server: Server) -> None:
    first = server.one()
    server.loopback.submit(READ_10)
    entry = abi.MAILBOX_SIZE + 128
    server.loopback.memory[entry + 4] = first
    with pytest.raises(RingCorruptError, match="came again"):
        server.fetch()


def test_the_kernel_breaks_the_ring_over_an_invented_id(server: Server) -> None:
    """The reason of rule 8."""
    server.one()
    server.ring._completions.write(77, Completion(), [])
    with pytest.raises(RingCorruptError, match="cmd_id 77 not found"):
        server.ring.publish()
    assert server.loopback.broken
    with pytest.raises(TransportError, match="the ring is broken"):
        server.loopback.submit(READ_10)


def test_refuse_tells_the_kernel_that_user_space_cannot(server: Server) -> None:
    """UNKNOWN_OP: CHECK CONDITION with the kernel's own sense (2/08/00), no data."""
    tag = server.one(data_in=512)
    server.ring.refuse(tag)
    answer = server.result(tag)
    assert (answer.status, answer.sense[2], answer.sense[12], answer.data) == (2, 2, 8, b"")
    assert server.ring.open_tags == ()


def test_refuse_into_the_slot_of_another(server: Server) -> None:
    first, second = server.one(data_in=512), server.one(data_in=512)
    server.ring.refuse(second)
    server.fetched[first].fill(b"1" * 512)
    server.answer(first, data_in=512)
    server.ring.publish()
    assert server.loopback.answers[second].status == 2
    assert server.loopback.answers[first].data == b"1" * 512
