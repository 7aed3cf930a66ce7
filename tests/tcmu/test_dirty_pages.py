"""READ_LEN, and stale bytes in the data area (rule 9)."""

import pytest

from tests.tcmu.conftest import MakeServer
from tests.tcmu.server import SENSE, Server
from vscsihba.tcmu.kernel import BLOCK

STALE = 0xA5
WITHOUT_READ_LEN = 0xF & ~2
LENGTHS = [1, 36, 512, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 3]


@pytest.mark.parametrize("length", LENGTHS)
def test_rule_9_short_data_has_its_residual(server: Server, length: int) -> None:
    tag = server.one(data_in=5 * BLOCK)
    server.fetched[tag].fill(b"d" * length)
    server.answer(tag, data_in=length)
    answer = server.result(tag)
    assert (answer.data, answer.residual) == (b"d" * length, 5 * BLOCK - length)


def test_rule_9_read_len_goes_with_check_condition(server: Server) -> None:
    tag = server.one(data_in=1024)
    server.fetched[tag].fill(b"d" * 512)
    server.answer(tag, 2, SENSE, data_in=512)
    answer = server.result(tag)
    assert (answer.status, answer.sense[:18], answer.data, answer.residual) == (2, SENSE, b"d" * 512, 512)


@pytest.mark.parametrize("length", [0, *LENGTHS])
def test_rule_9_without_the_capability_the_rest_is_zeroed(make_server: MakeServer, length: int) -> None:
    server = make_server(blocks=64, flags=WITHOUT_READ_LEN)
    server.loopback.kernel._free = list(range(0, 64, 2))
    tag = server.one(data_in=5 * BLOCK)
    server.fetched[tag].fill(b"d" * length)
    server.answer(tag, data_in=length)
    answer = server.result(tag)
    assert (answer.data, answer.residual) == ((b"d" * length).ljust(5 * BLOCK, b"\0"), 0)


def test_rule_9_without_the_capability_check_condition_has_no_data(make_server: MakeServer) -> None:
    server = make_server(flags=WITHOUT_READ_LEN)
    tag = server.one(data_in=1024)
    server.answer(tag, 2, SENSE, data_in=512)
    assert server.result(tag).data == b""


@pytest.mark.parametrize("data_in", [None, 0])
@pytest.mark.parametrize("status", [0, 8, 0x18, 0x28, 0x40])
def test_rule_9_the_kernel_ignores_a_read_len_of_0(server: Server, status: int, data_in: int | None) -> None:
    """tcmu_handle_completion: ``&& entry->rsp.read_len``; one zero is the shortest data.

    The same with every status but CHECK CONDITION, and with a command without data-in: the
    initiator may have sent it with a data-in buffer.
    """
    tag = server.one(data_in=1024)
    server.answer(tag, status, data_in=data_in)
    answer = server.result(tag)
    assert (answer.status, answer.data, answer.residual) == (status, b"\0", 0 if status else 1023)


@pytest.mark.parametrize("data_in", [None, 0])
@pytest.mark.parametrize("status", [0, 8, 0x18, 0x28, 0x40])
def test_rule_9_without_the_capability_an_empty_answer_is_zeroes(
    make_server: MakeServer, status: int, data_in: int | None
) -> None:
    server = make_server(flags=WITHOUT_READ_LEN)
    tag = server.one(data_in=1024)
    server.answer(tag, status, data_in=data_in)
    answer = server.result(tag)
    assert (answer.status, answer.data) == (status, bytes(1024))


@pytest.mark.parametrize("data_in", [None, 0, 8])
def test_answer_to_a_command_without_a_buffer(server: Server, data_in: int | None) -> None:
    tag = server.one()
    server.answer(tag, data_in=data_in)
    answer = server.result(tag)
    assert (answer.status, answer.data, answer.residual) == (0, b"", 0)


@pytest.mark.parametrize("sense", [b"", SENSE, bytes(96)])
def test_sense_is_padded_with_zeroes(server: Server, sense: bytes) -> None:
    """The 96 bytes of sense overwrite the iovecs of the request, all of them."""
    tag = server.one(data_in=1024)
    server.answer(tag, 2, sense)
    assert server.result(tag).sense == sense.ljust(96, b"\0")


def test_sense_is_cut_at_96_bytes(server: Server) -> None:
    first, second = server.one(), server.one()
    server.answer(first, 2, bytes(range(100)))
    server.answer(second)
    server.ring.publish()
    assert server.loopback.answers[first].sense == bytes(range(96))
    assert server.loopback.answers[second].status == 0


def test_more_data_than_the_buffer_is_cut_by_the_kernel(server: Server) -> None:
    tag = server.one(data_in=512)
    server.fetched[tag].fill(b"d" * 512)
    server.answer(tag, data_in=4096)
    answer = server.result(tag)
    assert (answer.data, answer.residual) == (b"d" * 512, 0)


@pytest.mark.parametrize("flags", [0xF, WITHOUT_READ_LEN])
@pytest.mark.parametrize("status", [0, 2, 8, 0x18, 0x28])
@pytest.mark.parametrize("data_in", [0, 1, 511, BLOCK, 3 * BLOCK])
def test_nothing_stale_reaches_the_initiator(
    make_server: MakeServer, flags: int, status: int, data_in: int
) -> None:
    """The initiator sees only bytes that the server wrote, or zeroes."""
    server = make_server(blocks=16, flags=flags)
    tag = server.one(data_in=3 * BLOCK)
    server.fetched[tag].fill(b"d" * data_in)
    server.answer(tag, status, SENSE, data_in=data_in)
    answer = server.result(tag)
    assert STALE not in answer.data
    assert answer.data == b"" or answer.data.rstrip(b"\0") == b"d" * data_in


def test_pages_are_reused_dirty(server: Server) -> None:
    """A completion that claims more than was written shows bytes of an earlier command."""
    secret = server.one(data_out=b"secret" * 100)
    server.answer(secret)
    server.ring.publish()
    tag = server.one(data_in=600)
    server.answer(tag, data_in=600)
    assert server.result(tag).data[1:] == (b"secret" * 100)[1:]
