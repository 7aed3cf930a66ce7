"""A connection that goes on as a stream of bytes."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from vscsihba.control import Channel, ControlServer, Incoming, NotListeningError, Stream, call, open_stream
from vscsihba.control.client import NoAnswerError
from vscsihba.errors import UsageError


class Sender:
    """A verb that streams what the test wants."""

    def __init__(self) -> None:
        self.pieces = [b"a", b"b" * (1 << 20)]
        self.ended = threading.Event()

    def letters(self, count: int) -> Stream:
        """Send the pieces, then wait for the end of the reader."""
        if count < 0:
            raise UsageError("fewer than none")
        return Stream({"count": count}, self.run)

    def run(self, channel: Channel) -> None:
        """Send."""
        for piece in self.pieces:
            if not channel.send(piece):
                break
        while channel.wait(0.05):
            pass
        self.ended.set()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def server(tmp_path: Path, sender: Sender) -> Iterator[ControlServer]:
    verbs: dict[str, Callable[..., object]] = {"letters": sender.letters, "ping": lambda: "pong"}
    with ControlServer(tmp_path / "control", verbs, allowed=lambda peer: peer.uid == os.getuid()) as made:
        yield made


def everything(incoming: Incoming, size: int) -> bytes:
    received = bytearray()

    def done() -> bool:
        received.extend(incoming.receive() or b"")
        return len(received) >= size

    wait_until(done)
    return bytes(received)


def test_the_stream_follows_the_answer(server: ControlServer, sender: Sender) -> None:
    with open_stream(server.path, "letters", {"count": 3}, timeout=10) as incoming:
        assert incoming.answer == {"count": 3}
        assert everything(incoming, 1 + (1 << 20)) == b"".join(sender.pieces)
        assert incoming.receive() is None
    assert sender.ended.wait(10)


def test_a_request_that_is_refused_has_no_stream(server: ControlServer, sender: Sender) -> None:
    with pytest.raises(UsageError, match="fewer than none"):
        open_stream(server.path, "letters", {"count": -1}, timeout=10)
    with open_stream(server.path, "ping", {}, timeout=10) as incoming:
        assert incoming.answer == "pong"
        wait_until(lambda: incoming.receive() == b"")
    assert not sender.ended.is_set()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotListeningError):
        open_stream(tmp_path / "none", "letters", {}, timeout=10)


def test_a_reader_that_does_not_read_is_left_at_the_end_of_the_server(tmp_path: Path, sender: Sender) -> None:
    sender.pieces = [bytes(1 << 20)] * 64
    verbs: dict[str, Callable[..., object]] = {"letters": sender.letters, "ping": lambda: "pong"}
    with ControlServer(tmp_path / "control", verbs, allowed=lambda _peer: True) as server:
        incoming = open_stream(server.path, "letters", {"count": 1}, timeout=10)
        assert call(server.path, "ping", timeout=10) == "pong"  # nobody else waits for it
        assert not sender.ended.is_set()
    assert sender.ended.wait(10)
    incoming.close()


def test_a_server_that_hangs_up_gives_no_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NoAnswerError, match="ended without an answer"):
            open_stream(tmp_path / "control", "letters", {}, timeout=10)
        thread.join()
