"""The transmission phase on one socket: answers in any pieces, and servers that break the protocol."""

import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handlers.nbd.servers import nbdkit, needs_nbdkit
from tests.polling import wait_until
from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.nbd.encrypted import EncryptedTransmission
from vscsihba.handlers.nbd.requests import Completed, Kind, Request
from vscsihba.handlers.nbd.transmission import SocketTransmission

DATA, HOLE, STATUS, ERROR, ERROR_AT = 1, 2, 5, 0x8001, 0x8002
DONE = 1


class Peer:
    """A transmission and the other end of its socket."""

    def __init__(self, *, structured: bool) -> None:
        ours, self.socket = socket.socketpair()
        self.completed: Completed = Completed()
        self.transmission = SocketTransmission(ours, self.completed, structured=structured)

    def begin(self, *requests: Request) -> list[Request]:
        for request in requests:
            self.transmission.queue(request)
        assert self.transmission.send()
        return list(requests)

    def read(self, offset: int, length: int) -> Request:
        return self.begin(Request(Kind.READ, ignore, offset, length, memoryview(bytearray(length))))[0]

    def answer(self, data: bytes, pieces: int = 1 << 20) -> None:
        """Send bytes, some at a time, each of which is received before the next."""
        for at in range(0, len(data), pieces):
            self.socket.sendall(data[at : at + pieces])
            self.transmission.notify(select.POLLIN)

    @property
    def results(self) -> list[int]:
        return [number for _, number in self.completed]

    def close(self) -> None:
        self.transmission.kill()
        self.socket.close()


@pytest.fixture
def simple() -> Iterator[Peer]:
    peer = Peer(structured=False)
    yield peer
    peer.close()


@pytest.fixture
def chunked() -> Iterator[Peer]:
    peer = Peer(structured=True)
    yield peer
    peer.close()


def ignore(_error: OSError | None) -> None:
    """Take a result."""


def reply(cookie: int, number: int = 0) -> bytes:
    return struct.pack(">IIQ", 0x67446698, number, cookie)


def chunk(cookie: int, kind: int, payload: bytes = b"", flags: int = DONE) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(payload)) + payload


def at(offset: int, data: bytes) -> bytes:
    return struct.pack(">Q", offset) + data


def test_requests_are_sent_as_the_protocol_says_and_together(simple: Peer) -> None:
    simple.begin(
        Request(Kind.READ, ignore, 4096, 512, memoryview(bytearray(512))),
        Request(Kind.WRITE, ignore, 8192, 4, b"data", fua=True),
        Request(Kind.FLUSH, ignore),
        Request(Kind.TRIM, ignore, 1 << 40, 1 << 30),
        Request(Kind.ZERO, ignore, 0, 512, keep_storage=True),
        Request(Kind.STATUS, ignore, 0, 1024),
    )
    fields = [
        (0, 0, 0, 4096, 512, b""),
        (1, 1, 1, 8192, 4, b"data"),
        (0, 3, 2, 0, 0, b""),
        (0, 4, 3, 1 << 40, 1 << 30, b""),
        (2, 6, 4, 0, 512, b""),
        (0, 7, 5, 0, 1024, b""),
    ]
    expected = b"".join(struct.pack(">IHHQQI", 0x25609513, *row[:-1]) + row[-1] for row in fields)
    assert simple.socket.recv(1 << 16) == expected


@pytest.mark.parametrize("pieces", [1, 7, 16, 20, 28, 100, 1 << 20])
def test_answers_arrive_in_pieces_of_any_size_and_in_any_order(
    simple: Peer, chunked: Peer, pieces: int
) -> None:
    for peer in (simple, chunked):
        first, second = peer.read(0, 700), peer.read(4096, 700)
        flush = peer.begin(Request(Kind.FLUSH, ignore))[0]
        if peer is simple:
            answers = reply(1) + b"2" * 700 + reply(2) + reply(0) + b"1" * 700
        else:
            answers = chunk(1, DATA, at(4096, b"2" * 700)) + reply(2) + chunk(0, DATA, at(0, b"1" * 700))
        peer.answer(answers, pieces)
        assert [(id(request), number) for request, number in peer.completed] == [
            (id(request), 0) for request in (second, flush, first)
        ]
        assert bytes(first.view) == b"1" * 700
        assert bytes(second.view) == b"2" * 700


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 2)), min_size=1, max_size=12),
    st.lists(st.integers(1, 4000), min_size=1),
)
def test_any_stream_in_any_pieces(reads: list[tuple[int, int]], cuts: list[int]) -> None:
    """Reads of some length, answered in one chunk, in two, or in a hole and a chunk."""
    peer = Peer(structured=True)
    try:
        requests = [peer.read(number << 20, length) for number, (length, _) in enumerate(reads)]
        stream, contents = b"", []
        for number, (length, way) in enumerate(reads):
            data, start, middle = os.urandom(length), number << 20, length // 2
            if way == 0 or not middle:
                stream += chunk(number, DATA, at(start, data))
            else:
                stream += chunk(number, DATA, at(start + middle, data[middle:]), flags=0)
                if way == 1:
                    stream += chunk(number, DATA, at(start, data[:middle]), flags=0) + chunk(number, 0)
                else:
                    stream += chunk(number, HOLE, struct.pack(">QI", start, middle))
                    data = bytes(middle) + data[middle:]
            contents.append(data)
        place = turn = 0
        while place < len(stream):
            size = cuts[turn % len(cuts)]
            peer.answer(stream[place : place + size])
            place, turn = place + size, turn + 1
        assert peer.results == [0] * len(reads)
        assert [bytes(request.view) for request in requests] == contents
    finally:
        peer.close()


def test_a_long_payload_goes_to_its_place(simple: Peer) -> None:
    request, data = simple.read(0, 1 << 20), os.urandom(1 << 20)
    simple.answer(reply(0) + data, 100_000)
    assert bytes(request.view) == data
    assert simple.results == [0]


def test_errors_are_those_of_the_protocol(simple: Peer, chunked: Peer) -> None:
    for number in (errno.ENOSPC, errno.EIO, 77):
        simple.read(0, 512)
        simple.answer(reply(len(simple.completed), number))
    assert simple.results == [errno.ENOSPC, errno.EIO, errno.EINVAL]
    text = struct.pack(">IH", errno.EPERM, 4) + b"text"
    for answer in (
        chunk(0, ERROR, text),
        chunk(1, ERROR_AT, text + bytes(8), flags=0) + chunk(1, 0),
        chunk(2, DATA, at(0, bytes(512)), flags=0) + chunk(2, ERROR, text),
        reply(3, errno.EPERM),
    ):
        chunked.read(0, 512)
        chunked.answer(answer)
    flush = chunked.begin(Request(Kind.FLUSH, ignore))
    other = struct.pack(">IH", errno.ENOSPC, 0)
    chunked.answer(chunk(4, ERROR, text, flags=0) + chunk(4, ERROR, other))
    assert chunked.results == [errno.EPERM] * 5
    assert chunked.completed[-1][0] is flush[0]


def test_the_allocation_of_a_range(chunked: Peer) -> None:
    request = chunked.begin(Request(Kind.STATUS, ignore, 0, 4096))[0]
    chunked.answer(chunk(0, STATUS, struct.pack(">IIIII", 1, 1024, 3, 3072, 0)), 9)
    assert (chunked.results, request.extents) == ([0], (1024, 3, 3072, 0))
    request.forget_answer()  # to be sent again
    assert request.extents == ()


def test_a_read_that_is_not_answered_in_full_fails(chunked: Peer) -> None:
    chunked.read(0, 512)
    chunked.answer(chunk(0, DATA, at(0, bytes(511))))
    assert chunked.results == [errno.EIO]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request", "not the beginning"),
        (reply(0), "without its data"),
        (reply(1), "not made"),
        (chunk(1, DATA, at(4096, bytes(512))), "not made"),
        (chunk(0, DATA, at(4095, bytes(512))), "not asked for"),
        (chunk(0, DATA, at(4097, bytes(512))), "not asked for"),
        (chunk(0, DATA, at(4096, bytes(513))), "not asked for"),
        (chunk(0, DATA, at(4096, b"")), "not asked for"),
        (chunk(0, HOLE, struct.pack(">QI", 4096, 513)), "not asked for"),
        (chunk(0, HOLE, bytes(11)), "a chunk of type 2"),
        (chunk(0, 0, b"1"), "a chunk of type 0"),
        (chunk(0, 0, flags=0), "a chunk of type 0"),
        (chunk(0, DATA, at(4096, bytes(256)), 0) + chunk(0, DATA, at(4096, bytes(256))), "came before"),
        (chunk(0, DATA, at(4096, bytes(256)), 0) + chunk(0, DATA, at(4351, bytes(257))), "came before"),
        (chunk(0, DATA, at(4096, bytes(512)), 0) + chunk(0, DATA, at(4096, bytes(512))), "came before"),
        (chunk(0, DATA, at(4096, bytes(512)), 0) + chunk(0, DATA, at(4096, bytes(1))), "came before"),
        (
            chunk(0, DATA, at(4096, bytes(1)), 0) + chunk(0, HOLE, struct.pack(">QI", 4096, 512)),
            "came before",
        ),
        (chunk(0, 6, bytes(16)), "a chunk of type 6"),
        (chunk(0, STATUS, bytes(12)), "a chunk of type 5"),
        (chunk(0, ERROR, bytes(5)), "a chunk of type 32769"),
        (chunk(0, ERROR)[:-4] + struct.pack(">I", 1 << 31), "a chunk of type 32769"),
    ],
)
def test_a_server_that_breaks_the_protocol(chunked: Peer, answer: bytes, text: str) -> None:
    request = chunked.read(4096, 512)
    with pytest.raises(OSError, match=text) as failed:
        chunked.answer(answer)
    assert failed.value.errno == errno.EPROTO
    assert not chunked.completed
    chunked.transmission.kill()
    assert [(one is request, number) for one, number in chunked.completed] == [(True, errno.ENOTCONN)]


def test_a_read_in_more_pieces_than_any_server_makes_of_it(chunked: Peer) -> None:
    """Each costs time, and the thread that serves the connection serves all disks."""
    chunked.read(0, 1 << 20)
    for offset in range(0, 8192, 2):
        chunked.answer(chunk(0, DATA, at(offset, b"1"), 0))
    with pytest.raises(OSError, match="more than 4096 pieces"):
        chunked.answer(chunk(0, DATA, at(8192, b"1"), 0))
    assert not chunked.completed


def test_the_allocation_of_a_range_is_told_once(chunked: Peer) -> None:
    """Else a server could send it without end."""
    chunked.begin(Request(Kind.STATUS, ignore, 0, 4096))
    allocation = struct.pack(">III", 1, 4096, 0)
    with pytest.raises(OSError, match="a chunk of type 5"):
        chunked.answer(chunk(0, STATUS, allocation, 0) + chunk(0, STATUS, allocation))


def test_an_answer_to_a_request_that_is_still_being_sent(simple: Peer) -> None:
    """Its view would be free for another command, whose data would be sent then."""
    large = bytes(8 << 20)
    simple.transmission.queue(Request(Kind.WRITE, ignore, 0, len(large), large))
    assert not simple.transmission.send()
    assert simple.transmission.wants_output
    simple.transmission.queue(Request(Kind.READ, ignore, 0, 512, memoryview(bytearray(512))))
    for cookie in (0, 1):
        with pytest.raises(OSError, match="not sent"):
            simple.answer(reply(cookie, errno.EIO))
    assert not simple.completed


def test_what_the_socket_does_not_take_is_sent_later_and_in_order(simple: Peer) -> None:
    data = [bytes([number]) * (300_000 + number) for number in range(8)]
    for number, each in enumerate(data):
        simple.transmission.queue(Request(Kind.WRITE, ignore, number, len(each), memoryview(each)))
    assert not simple.transmission.send()
    expected = b"".join(
        struct.pack(">IHHQQI", 0x25609513, 0, 1, number, number, len(each)) + each
        for number, each in enumerate(data)
    )
    received = b""
    while len(received) < len(expected):
        received += simple.socket.recv(100_000)
        simple.transmission.notify(select.POLLOUT)
    assert received == expected
    assert not simple.transmission.wants_output
    simple.answer(b"".join(reply(number) for number in range(8)))
    assert simple.results == [0] * 8


def test_a_request_is_queued_while_others_are_being_sent(
    simple: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, at any look at what is to be sent."""
    sent = simple.transmission

    class Growing(deque[bytes]):
        def grow(self) -> None:
            if sent._cookie < 3:
                sent.queue(Request(Kind.FLUSH, ignore))

        def __iter__(self) -> Iterator[bytes]:
            before = super().__iter__()
            self.grow()
            return before

        def __getitem__(self, place: Any) -> Any:
            self.grow()
            return super().__getitem__(place)

    monkeypatch.setattr(sent, "_out", Growing())
    sent.queue(Request(Kind.FLUSH, ignore))
    assert sent.send()
    received = simple.socket.recv(1 << 16)
    assert [cookie for (cookie,) in struct.iter_unpack(">8xQ12x", received)] == [0, 1, 2]


def test_nothing_uses_a_view_after_the_end_of_the_connection(simple: Peer) -> None:
    request = simple.read(0, 1 << 20)
    simple.answer(reply(0) + b"x" * 100_000)
    simple.transmission.kill()
    simple.transmission.kill()
    assert simple.results == [errno.ENOTCONN]
    request.view[:] = bytes(1 << 20)
    simple.transmission.notify(select.POLLIN)
    assert simple.transmission.send()
    assert not any(request.view)
    assert simple.transmission.over
    simple.transmission.queue(Request(Kind.FLUSH, ignore))
    assert simple.transmission.send()


def test_the_end_of_the_connection(simple: Peer) -> None:
    simple.read(0, 512)
    simple.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="closed the connection"):
        simple.transmission.notify(select.POLLIN)


def test_leave_is_taken_after_the_requests_and_answers_still_come(simple: Peer) -> None:
    simple.read(0, 4)
    assert simple.transmission.part()
    assert simple.socket.recv(1 << 16)[28:] == struct.pack(">IHHQQI", 0x25609513, 0, 2, 1, 0, 0)
    assert simple.socket.recv(1) == b""
    simple.answer(reply(0) + b"data")
    assert simple.results == [0]


def test_no_leave_is_taken_in_the_middle_of_a_request(simple: Peer) -> None:
    simple.transmission.queue(Request(Kind.WRITE, ignore, 0, 8 << 20, bytes(8 << 20)))
    simple.transmission.send()
    assert not simple.transmission.part()


@needs_nbdkit
def test_a_descriptor_that_libnbd_has_closed_is_not_shut_down(tmp_path: Path) -> None:
    """Its number may be that of any other file by then."""
    with nbdkit(tmp_path, "memory", "1M") as server:
        handle = libnbd().NBD()
        handle.connect_uri(server.uri())
        number = handle.aio_get_fd()
        copy = socket.socket(fileno=os.dup(number))
        transmission = EncryptedTransmission(handle, copy, Completed())
        server.kill()
        with pytest.raises(OSError, match="closed"):
            transmission.notify(select.POLLIN)
        wait_until(lambda: transmission.over)
    others = [socket.socketpair() for _ in range(4)]
    try:
        assert number in [each.fileno() for pair in others for each in pair]
        transmission.kill()
        for one, other in others:
            one.sendall(b"alive")
            assert other.recv(5) == b"alive"
    finally:
        for pair in others:
            for each in pair:
                each.close()
