"""The loopback, and the kernel's half behind it."""

import select
import struct
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.tcmu.server import READ_10, Server, always
from vscsihba.errors import DeviceGoneError, TransportError
from vscsihba.loopback import BLOCK, Loopback
from vscsihba.tcmu import abi


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of a small ring (31 commands a lap) and 64 blocks of data."""
    with closing(Loopback(ring_size=3968, blocks=64)) as loopback:
        yield Server(loopback)


def test_mailbox_is_the_kernels(server: Server) -> None:
    mailbox = abi.tcmu_mailbox.from_buffer_copy(server.loopback.memory)
    assert (mailbox.version, mailbox.flags, mailbox.cmdr_off) == (2, 0xF, 128)
    assert mailbox.cmdr_off + mailbox.cmdr_size == server.loopback.kernel.data_off


def test_entry_is_the_kernels(server: Server) -> None:
    """Read with the ABI mirror, independently of the structs that wrote it."""
    tag = server.loopback.submit(READ_10, data_in=BLOCK + 512)
    entry = abi.tcmu_cmd_entry.from_buffer_copy(server.loopback.memory, abi.MAILBOX_SIZE)
    assert (entry.hdr.len_op, entry.hdr.cmd_id, entry.hdr.uflags) == (128 | abi.TCMU_OP_CMD, tag, 0)
    assert (entry.req.iov_cnt, entry.req.iov_bidi_cnt, entry.req.cdb_off) == (1, 0, 128 + 112)
    iovec = abi.iovec.from_buffer_copy(server.loopback.memory, abi.MAILBOX_SIZE + abi.IOV_OFFSET)
    assert (iovec.iov_base, iovec.iov_len) == (server.loopback.kernel.data_off, BLOCK + 512)


def test_ring_fills_up_and_takes_more_after_an_answer(server: Server) -> None:
    tags = [server.loopback.submit(READ_10) for _ in range(30)]
    with pytest.raises(TransportError, match="the ring is full"):
        server.loopback.submit(READ_10)
    server.fetch(always)
    server.ring.publish()
    assert sorted(server.loopback.answers) == tags
    server.loopback.submit(READ_10)


def test_data_area_fills_up_and_takes_more_after_an_answer(server: Server) -> None:
    tag = server.one(data_in=64 * BLOCK)
    with pytest.raises(TransportError, match="the data area is full"):
        server.loopback.submit(READ_10, data_in=1)
    server.answer(tag)
    server.ring.publish()
    server.loopback.submit(READ_10, data_in=64 * BLOCK)


def test_refused_command_leaves_nothing_taken(server: Server) -> None:
    for _ in range(30):
        server.loopback.submit(READ_10, data_in=1)
    with pytest.raises(TransportError, match="the ring is full"):
        server.loopback.submit(READ_10, data_in=1)
    assert (len(server.loopback.kernel._free), server.loopback.outstanding) == (34, 30)


def test_ids_run_out_before_they_are_used_twice() -> None:
    with closing(Loopback(ring_size=1 << 24, blocks=1)) as loopback:
        tags = {loopback.submit(bytes(6)) for _ in range(0xFFFF)}
        assert (min(tags), max(tags), len(tags)) == (1, 0xFFFF, 0xFFFF)
        with pytest.raises(TransportError, match="every cmd_id is taken"):
            loopback.submit(bytes(6))


def test_ids_are_used_again_once_answered(server: Server) -> None:
    server.loopback.kernel._next_id = 0xFFFF
    first = server.one()
    assert [first, server.one(), server.one()] == [0xFFFF, 1, 2]
    server.loopback.kernel._next_id = 0xFFFF
    assert server.one() == 3


def test_consumed_slots_are_poisoned(server: Server) -> None:
    server.one()
    server.answer_all()
    assert set(server.loopback.memory[128:256]) == {0xA5}


def test_removed_device_is_gone_for_the_server(server: Server) -> None:
    server.loopback.remove()
    assert select.select([server.loopback.transport], [], [], 0)[0]
    with pytest.raises(DeviceGoneError):
        server.loopback.transport.acknowledge()


def test_wait_gives_up(server: Server) -> None:
    tag = server.loopback.submit(READ_10)
    with pytest.raises(TransportError, match=f"no response to command {tag} within 0 s"):
        server.loopback.wait(tag, 0)


def test_many_threads_wait_for_one_server(server: Server) -> None:
    """Each command gets its own response in any order, though they share ring, data area and wake-ups."""
    loopback = server.loopback
    wrong: list[bytes] = []
    over = threading.Event()

    def initiate(number: int) -> None:
        for turn in range(50):
            data = struct.pack("=II", number, turn)
            answer = loopback.wait(loopback.submit(bytes((0, *data, 0)), data_in=8))
            if answer.data != data:
                wrong.append(answer.data)

    def serve() -> None:
        while not over.is_set():
            select.select([loopback.transport], [], [], 0.05)
            loopback.transport.acknowledge()
            server.fetch()
            for tag in list(server.fetched)[::-1]:
                server.fetched[tag].fill(server.fetched[tag].cdb[1:9])
                server.answer(tag, data_in=8)
            server.ring.publish()

    serving = threading.Thread(target=serve)
    initiators = [threading.Thread(target=initiate, args=(number,)) for number in range(4)]
    for thread in (serving, *initiators):
        thread.start()
    for thread in initiators:
        thread.join()
    over.set()
    serving.join()
    assert wrong == []
    assert loopback.outstanding == 0


def test_close_under_a_view_is_harmless() -> None:
    loopback = Loopback()
    view = loopback.memory[:8]
    loopback.close()
    assert len(view) == 8
