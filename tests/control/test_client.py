"""The client of a control socket with servers that break the protocol."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vscsihba.control import NotListeningError, call
from vscsihba.errors import HostError


@contextmanager
def saying(path: Path, words: bytes, *, hang: bool = False) -> Iterator[None]:
    """A server that answers every request with `words`, and hangs up or does not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(words)
            if hang:
                ended.wait(60)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        listener.close()


def test_no_process_listens(tmp_path: Path) -> None:
    with pytest.raises(NotListeningError, match="no program listens on"):
        call(tmp_path / "none", "status", timeout=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotListeningError):
        call(tmp_path / "file", "status", timeout=1)


def test_an_answer_that_does_not_come(tmp_path: Path) -> None:
    with (
        saying(tmp_path / "s", b'{"progress": 1}\n', hang=True),
        pytest.raises(HostError, match=r"no answer to 'status' within 0.1 s"),
    ):
        call(tmp_path / "s", "status", timeout=0.1)


@pytest.mark.parametrize("words", [b"", b'{"progress": 1}\n', b'{"res'])
def test_an_answer_that_is_cut_off(tmp_path: Path, words: bytes) -> None:
    with saying(tmp_path / "s", words), pytest.raises(HostError, match=r"ended without|not an answer"):
        call(tmp_path / "s", "status", timeout=60)


@pytest.mark.parametrize("words", [b"HTTP/1.1 200 OK\n", b"[1]\n", b'{"error": "bad"}\n', b"\xff\n"])
def test_an_answer_that_is_none(tmp_path: Path, words: bytes) -> None:
    with saying(tmp_path / "s", words), pytest.raises(HostError, match="not an answer"):
        call(tmp_path / "s", "status", timeout=60)
