"""Rings that break the ABI: `RingCorruptError`, never a hang."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tcmu.server import READ_10, Server, always, never
from vscsihba.errors import RingCorruptError
from vscsihba.loopback import Loopback
from vscsihba.tcmu import abi
from vscsihba.tcmu.journal import make_journal
from vscsihba.tcmu.kernel import BLOCK
from vscsihba.tcmu.ring import Ring

RING = 3968
FIRST = abi.MAILBOX_SIZE
ENTRY = 128
"""Bytes of the entry of a READ(10)."""


def poke(server: Server, offset: int, form: str, value: int) -> None:
    struct.pack_into(f"={form}", server.loopback.memory, offset, value)


def refused(server: Server, reason: str) -> None:
    """Check that fetching fails each time, and hands nothing out."""
    for cut in (always, never):
        with pytest.raises(RingCorruptError, match=reason):
            server.fetch(cut)
    assert server.fetched == {}


@pytest.mark.parametrize("op", [3, 4, 5, 6, 7])
def test_unknown_op(server: Server, op: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, FIRST, "I", ENTRY | op)
    refused(server, f"unknown op {op}")


@pytest.mark.parametrize("length", [0, 8, 112, ENTRY + 8, RING, RING + 8, 0xFFFFFFF8])
def test_length_that_no_command_has(server: Server, length: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, FIRST, "I", length | abi.TCMU_OP_CMD)
    refused(server, "an entry")


@pytest.mark.parametrize("length", [0, ENTRY + 8, RING, RING + 8, 0xFFFFFFF8])
def test_length_that_no_pad_has(server: Server, length: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, FIRST, "I", length | abi.TCMU_OP_PAD)
    refused(server, "an entry")


@pytest.mark.parametrize("head", [RING, RING + ENTRY, 0xFFFFFFF8])
def test_head_outside_the_ring(server: Server, head: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, abi.CMD_HEAD_OFFSET, "I", head)
    refused(server, f"cmd_head {head}")


@pytest.mark.parametrize("head", [4, ENTRY - 8, ENTRY + 4])
def test_head_between_entries(server: Server, head: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, abi.CMD_HEAD_OFFSET, "I", head)
    with pytest.raises(RingCorruptError):
        server.fetch()


@pytest.mark.parametrize("head", [1, 8, ENTRY - 8, ENTRY - 1])
def test_head_inside_an_entry(server: Server, head: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, abi.CMD_HEAD_OFFSET, "I", head)
    refused(server, "an entry")


@pytest.mark.parametrize("count", [6, 1000, BLOCK, 0xFFFFFFFF])
def test_more_iovecs_than_the_entry_holds(server: Server, count: int) -> None:
    server.loopback.submit(READ_10, data_in=512)
    poke(server, FIRST + abi.REQ_OFFSET, "I", count)
    refused(server, f"claims {count} iovecs")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("base", "length"),
    [
        (0, 512),
        (FIRST, 512),
        (BLOCK - 1, 512),
        (BLOCK + 64 * BLOCK - 511, 512),
        (BLOCK + 64 * BLOCK, 1),
        (1 << 63, 512),
        ((1 << 64) - 1, 512),
        (BLOCK, 64 * BLOCK + 1),
        (BLOCK, (1 << 64) - BLOCK),
    ],
)
def test_iovec_outside_the_data_area(server: Server, base: int, length: int, count: int) -> None:
    server.loopback.kernel._free = [2, 0]
    server.loopback.submit(READ_10, data_in=count * BLOCK)
    last = FIRST + abi.IOV_OFFSET + (count - 1) * 16
    poke(server, last, "Q", base)
    poke(server, last + 8, "Q", length)
    refused(server, "leaves the data area")


@pytest.mark.parametrize("offset", [0, FIRST, FIRST + 111, FIRST + ENTRY, BLOCK, 1 << 40, (1 << 64) - 1])
def test_cdb_outside_its_entry(server: Server, offset: int) -> None:
    server.loopback.submit(READ_10)
    poke(server, FIRST + abi.REQ_OFFSET + abi._Request.cdb_off.offset, "Q", offset)
    refused(server, "the CDB of an entry")


def test_entries_before_the_corrupt_one_were_handed_out(server: Server) -> None:
    tags = [server.loopback.submit(READ_10) for _ in range(3)]
    poke(server, FIRST + 2 * ENTRY, "I", 7)
    with pytest.raises(RingCorruptError):
        server.fetch()
    assert list(server.fetched) == tags[:2]


def test_length_that_runs_beyond_the_head_after_a_wrap(server: Server) -> None:
    """The check begins again with each lap."""
    for _ in range(30):
        server.loopback.submit(READ_10)
        server.fetch(always)
    server.ring.publish()
    tags = [server.loopback.submit(READ_10) for _ in range(2)]
    poke(server, FIRST, "I", 2 * ENTRY | abi.TCMU_OP_CMD)
    with pytest.raises(RingCorruptError):
        server.fetch()
    assert list(server.fetched) == tags[:1]


def test_length_that_runs_beyond_the_end_of_the_ring_while_the_head_has_wrapped(server: Server) -> None:
    for _ in range(30):
        server.loopback.submit(READ_10)
        server.fetch(always)
    server.ring.publish()
    for _ in range(2):
        server.loopback.submit(READ_10)
    poke(server, FIRST + 30 * ENTRY, "I", 2 * ENTRY | abi.TCMU_OP_CMD)
    refused(server, "an entry of 256 bytes")


def test_a_released_ring_keeps_no_view(server: Server) -> None:
    journal = make_journal()
    ring = Ring(server.loopback.memory[:], lambda: None, journal)
    ring.release()
    with pytest.raises(ValueError, match="released"):
        ring.memory[0]
    with pytest.raises(ValueError, match="released"):
        journal.move_to(FIRST)


@pytest.mark.parametrize("length", [0, 2 * ENTRY, RING + 8])
def test_slot_whose_length_changes_after_it_was_fetched(server: Server, length: int) -> None:
    tag = server.one()
    poke(server, FIRST, "I", length | abi.TCMU_OP_CMD)
    with pytest.raises(RingCorruptError):
        server.ring.complete(tag, 0)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_in_the_ring_end_in_an_answer_or_an_error(data: st.DataObject) -> None:
    """No hang, no other exception, no view outside the data area."""
    loopback = Loopback(ring_size=RING, blocks=4)
    size = data.draw(st.integers(1, 3)) * ENTRY
    for _ in range(size // ENTRY):
        loopback.submit(READ_10, data_in=512)
    for _ in range(data.draw(st.integers(1, 6))):
        at = FIRST + data.draw(st.integers(0, size - 1))
        loopback.memory[at] = data.draw(st.integers(0, 255) | st.sampled_from((0, 1, 2, 8, 0xFF)))
    head = data.draw(st.integers(0, size // 8).map(lambda n: n * 8) | st.integers(0, 0xFFFFFFFF))
    struct.pack_into("=I", loopback.memory, abi.CMD_HEAD_OFFSET, head)
    ring = Ring(loopback.memory[:], lambda: None)
    first = loopback.kernel.data_off

    def cut(cdb_at: int, views: list[memoryview], length: int, _cmd_id: int) -> bool:
        assert FIRST < cdb_at < FIRST + RING
        assert sum(map(len, views)) == length
        return data.draw(st.booleans())

    try:
        ring.drain(cut, lambda _tag, cdb, _views: None if cdb else pytest.fail("no CDB"))
        for tag in ring.open_tags:
            ring.complete(tag, 0, data_in=0)
        ring.publish()
    except RingCorruptError:
        pass
    assert bytes(loopback.memory[: abi.CMD_HEAD_OFFSET]) == struct.pack("=HHII", 2, 0xF, FIRST, RING)
    assert len(loopback.memory) > first
    ring.release()
    loopback.close()
