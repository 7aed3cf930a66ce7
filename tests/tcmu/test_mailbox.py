"""The mailbox: valid ones, and every reason to refuse one."""

import struct

import pytest

from tests.tcmu.conftest import MakeServer
from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.mailbox import Mailbox, read_mailbox, read_tail

SIZE = 16384


def memory(
    *, version: int = 2, flags: int = 0xF, off: int = 128, size: int = 4096 - 128, tail: int = 0
) -> memoryview:
    area = bytearray(SIZE)
    struct.pack_into("=HHII", area, 0, version, flags, off, size)
    struct.pack_into("=I", area, abi.CMD_TAIL_OFFSET, tail)
    return memoryview(area)


def test_mailbox_says_where_the_ring_is() -> None:
    assert read_mailbox(memory()) == Mailbox(flags=0xF, start=128, end=4096)


def test_ring_need_not_be_a_power_of_two() -> None:
    assert read_mailbox(memory(size=1000)).end == 1128


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 1}, "version is 1"),
        ({"flags": 0xE}, "in order only; use Linux"),
        ({"off": 120}, "at 120"),
        ({"off": 132}, "at 132"),
        ({"size": 0}, "ring of 0 bytes"),
        ({"size": 4092}, "ring of 4092 bytes"),
        ({"size": SIZE - 128}, "does not fit"),
        ({"size": 0xFFFFFFF8}, "does not fit"),
    ],
)
def test_mailbox_is_refused(fields: dict[str, int], reason: str) -> None:
    with pytest.raises(RingCorruptError, match=reason):
        read_mailbox(memory(**fields))


def test_map_without_room_for_a_mailbox_is_refused() -> None:
    with pytest.raises(RingCorruptError, match="no room for a mailbox"):
        read_mailbox(memory()[:127])


@pytest.mark.parametrize("tail", [3968, 4, 0xFFFFFFF8])
def test_tail_that_begins_no_entry_is_refused(tail: int) -> None:
    with pytest.raises(RingCorruptError, match=f"cmd_tail {tail}"):
        read_tail(memory(tail=tail), Mailbox(0xF, 128, 4096))


def test_refused_ring_leaves_no_view_behind(make_server: MakeServer) -> None:
    loopback = make_server().loopback
    struct.pack_into("=I", loopback.memory, abi.CMD_TAIL_OFFSET, 4)
    with pytest.raises(RingCorruptError):
        loopback.transport.attach()
    struct.pack_into("=I", loopback.memory, abi.CMD_TAIL_OFFSET, 0)
    loopback.transport.attach()
