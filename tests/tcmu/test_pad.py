"""PAD entries at the end of the ring (rule 6): skipped on fetch and on completion, header only."""

import struct

import pytest

from tests.tcmu.server import READ_10, Server, always
from vscsihba.tcmu import abi

RING = 3968
ENTRY = abi.CMD_ENTRY_SIZE + 8
"""Bytes of the entry of a command with a CDB of up to 8 bytes."""
TEST_UNIT_READY = bytes(6)


def fill(server: Server, room: int) -> list[int]:
    """Advance the ring until `room` bytes are left before its end."""
    tags = []
    while (left := RING - server.loopback.kernel._head) != room:
        step = next(
            size for size in (ENTRY, ENTRY + 8) if (left - size) >= 0 and reachable(left - size, room)
        )
        tags.append(server.loopback.submit(bytes(6 if step == ENTRY else 10)))
    return tags


def reachable(left: int, room: int) -> bool:
    """Return whether entries of both sizes can fill the rest."""
    rest = left - room
    return any(rest >= n * ENTRY and n * 8 >= rest - n * ENTRY for n in range(40))


@pytest.mark.parametrize("room", [8, 16, 48, 112])
def test_rule_6_pad_is_skipped_on_fetch(server: Server, room: int) -> None:
    fill(server, room)
    server.fetch()
    server.answer_all()
    server.loopback.answers.clear()
    tag = server.loopback.submit(TEST_UNIT_READY)
    at = abi.MAILBOX_SIZE + RING - room
    assert struct.unpack_from("=I", server.loopback.memory, at) == (room | abi.TCMU_OP_PAD,)
    assert server.fetch(always) == 1
    assert server.result(tag).status == 0


@pytest.mark.parametrize("room", [8, 16, 112])
@pytest.mark.parametrize("cut", [True, False])
def test_rule_6_pad_is_skipped_on_completion(server: Server, room: int, *, cut: bool) -> None:
    """The PAD is between open commands: completions step over it, in-place ones too."""
    tags = fill(server, room)
    server.fetch()
    for tag in tags[:10]:
        server.answer(tag)
    server.ring.publish()
    late = [server.loopback.submit(TEST_UNIT_READY) for _ in range(5)]
    if cut:
        assert server.fetch(always) == 5
    else:
        server.fetch()
    for tag in list(server.fetched)[::-1]:
        server.answer(tag)
    server.ring.publish()
    assert sorted(server.loopback.answers) == sorted(tags + late)
    assert server.loopback.outstanding == 0


def test_rule_6_only_the_header_of_a_pad_is_touched(server: Server) -> None:
    fill(server, 8)
    server.fetch()
    server.answer_all()
    before = bytes(server.loopback.memory[abi.MAILBOX_SIZE + RING :])
    tag = server.loopback.submit(TEST_UNIT_READY)
    server.fetch()
    server.answer(tag, 2, b"\x70")
    server.ring.publish()
    assert bytes(server.loopback.memory[abi.MAILBOX_SIZE + RING :]) == before


def test_a_command_that_ends_with_the_ring_needs_no_pad(server: Server) -> None:
    fill(server, ENTRY)
    server.fetch()
    server.answer_all()
    server.loopback.answers.clear()
    tags = [server.loopback.submit(TEST_UNIT_READY) for _ in range(2)]
    assert server.loopback.kernel._head == ENTRY
    assert server.fetch(always) == 2
    server.ring.publish()
    assert list(server.loopback.answers) == tags


def test_wrap_around_with_a_pad_every_lap(server: Server) -> None:
    for n in range(400):
        tag = server.loopback.submit(bytes((0, *READ_10)[: 6 + n % 5]))
        assert server.fetch(always if n % 3 else lambda *_: False) == 1
        for parked in list(server.fetched):
            server.answer(parked)
        assert server.result(tag).status == 0
    assert server.loopback.kicks == 400
