"""Engines of one HBA notice each other: at once, and also when one is killed."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vscsihba.engine.owning.peers import Peers
from vscsihba.threads import VitalThread

ENGINE = """
import sys, time
from pathlib import Path
from vscsihba.engine.owning.peers import Peers
peers = Peers(Path(sys.argv[1]), frozenset({0, 7}), lambda: None)
peers.join()
print("joined", flush=True)
sys.stdin.read()
peers.leave()
"""


class Watched:
    """A `Peers` of this process whose changes the test can wait for."""

    def __init__(self, run: Path) -> None:
        self.changed = threading.Semaphore(0)
        self.peers = Peers(run, frozenset({0, 1}), self.changed.release)

    def wait_for(self, count: int) -> None:
        while len(self.peers.other_engines) != count:
            assert self.changed.acquire(timeout=10), f"still {len(self.peers.other_engines)} others"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    made.peers.join()
    yield made
    made.peers.leave()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        yield process
        process.kill()


def joined(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"joined\n"


def test_an_engine_alone_has_no_others(watched: Watched) -> None:
    assert watched.peers.engines == {watched.peers.me}


def test_an_engine_that_joins_is_known_with_its_luns(
    watched: Watched, other: subprocess.Popen[bytes]
) -> None:
    joined(other)
    watched.wait_for(1)
    (engine,) = watched.peers.other_engines
    assert (engine.pid, engine.luns) == (other.pid, frozenset({0, 7}))
    assert engine.since > watched.peers.me.since


def test_an_engine_that_was_there_first_is_known_too(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    joined(other)
    late = Watched(tmp_path)
    assert late.peers.find() == [other.pid]
    assert late.peers.other_engines == frozenset(), "looking is not joining"
    late.peers.join()
    assert {engine.pid for engine in late.peers.other_engines} == {other.pid}
    late.peers.leave()


def test_an_engine_that_is_killed_is_gone_at_once(watched: Watched, other: subprocess.Popen[bytes]) -> None:
    joined(other)
    watched.wait_for(1)
    other.send_signal(signal.SIGKILL)
    watched.wait_for(0)


def test_an_engine_that_leaves_is_gone_and_leaves_no_socket(
    watched: Watched, other: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    joined(other)
    watched.wait_for(1)
    assert other.stdin is not None
    other.stdin.close()
    watched.wait_for(0)
    other.wait(10)
    assert [path.name for path in tmp_path.iterdir()] == [f"engine-{os.getpid()}.sock"]


def test_the_sockets_of_a_dead_engine_are_cleared_away(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    joined(other)
    (tmp_path / f"engine-{other.pid}.control").touch()
    other.kill()
    other.wait(10)
    late = Watched(tmp_path)
    assert late.peers.find() == []
    assert list(tmp_path.iterdir()) == []


def test_luns_that_come_and_go_are_told(tmp_path: Path, watched: Watched) -> None:
    peers = Peers(tmp_path, frozenset({5}), lambda: None)
    peers.me = replace(peers.me, pid=peers.me.pid + (1 << 22))  # two of them in one process
    peers.join()
    watched.wait_for(1)
    for luns in (frozenset({5, 6}), frozenset(range(1000)), frozenset[int]()):
        peers.announce(luns)
        while {engine.luns for engine in watched.peers.other_engines} != {luns}:
            assert watched.changed.acquire(timeout=60)
    assert {engine.luns for engine in peers.other_engines} == {frozenset({0, 1})}
    watched.peers.announce(frozenset({9}))
    assert watched.peers.me.luns == {9}
    peers.leave()
    watched.wait_for(0)


def test_without_a_free_descriptor_the_others_are_watched_all_the_same(
    tmp_path: Path, watched: Watched, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(other)
    watched.wait_for(1)
    tries = threading.Semaphore(0)
    real = socket.socket.accept

    def accept(listener: socket.socket) -> object:
        tries.release()
        if not other.returncode:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(tmp_path / f"engine-{os.getpid()}.sock"))
        assert all(tries.acquire(timeout=60) for _ in range(3))
        other.kill()
        watched.wait_for(0)
        other.wait(60)
    assert watched.peers._thread.is_alive()
    assert isinstance(watched.peers._thread, VitalThread)


@pytest.mark.parametrize("word", [b"no JSON\n", b"{}\n", b"7\n", b'{"since": 1, "pid": 2, "luns": 5}\n'])
def test_who_says_what_is_no_word_about_an_engine_is_not_known(
    tmp_path: Path, watched: Watched, word: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / f"engine-{os.getpid()}.sock"))
        stranger.sendall(word)
        assert watched.changed.acquire(timeout=60)
    assert watched.peers.other_engines == frozenset()
    assert watched.peers._thread.is_alive()


def test_an_engine_that_says_nonsense_later_is_forgotten(tmp_path: Path, watched: Watched) -> None:
    with socket.socket(socket.AF_UNIX) as odd:
        odd.connect(str(tmp_path / f"engine-{os.getpid()}.sock"))
        odd.sendall(b'{"since": 1, "pid": 2, "luns": [0]}\n')
        watched.wait_for(1)
        odd.sendall(b'{"luns": 5}\n')
        watched.wait_for(0)
    assert watched.peers._thread.is_alive()
