"""A control server, with correct and with hostile clients."""

import errno
import json
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.polling import wait_until
from vscsihba.control import ControlServer, NotListeningError, Peer, ProgressCallback, call, root_or_group
from vscsihba.control import client as client_module
from vscsihba.control import server as server_module
from vscsihba.errors import HostError, UsageError

LIMIT = 60.0


def greet(name: str, greeting: str = "hello") -> str:
    return f"{greeting}, {name}"


def count(to: int, progress: ProgressCallback) -> int:
    for step in range(to):
        progress({"step": step})
    return to


def refuse() -> None:
    raise UsageError("no such thing", cure="name another")


def fail() -> None:
    raise HostError("the machine is on fire")


def read_nothing() -> None:
    Path("/nonexistent/file").read_text("utf-8")


VERBS: dict[str, Callable[..., object]] = {
    "greet": greet,
    "count": count,
    "refuse": refuse,
    "fail": fail,
    "read_nothing": read_nothing,
}


def anybody(_peer: Peer) -> bool:
    return True


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "run" / "control.sock"
    with ControlServer(where, VERBS, allowed=anybody):
        yield where
    assert not where.exists()


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(LIMIT)
    connection.connect(str(path))
    return connection


def error_of(connection: socket.socket) -> str:
    with connection, connection.makefile("rb") as stream:
        return str(json.loads(stream.readline())["error"]["message"])


def test_a_verb_is_called_with_its_arguments(path: Path) -> None:
    assert call(path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"
    assert call(path, "greet", {"name": "disk", "greeting": "bye"}, timeout=LIMIT) == "bye, disk"


def test_progress_comes_before_the_result(path: Path) -> None:
    seen: list[object] = []
    assert call(path, "count", {"to": 3}, timeout=LIMIT, progress=seen.append) == 3
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert call(path, "count", {"to": 2}, timeout=LIMIT) == 2


def test_errors_come_back_as_they_were_raised(path: Path) -> None:
    with pytest.raises(UsageError, match="no such thing") as usage:
        call(path, "refuse", timeout=LIMIT)
    assert (usage.value.cure, usage.value.exit_code) == ("name another", 2)
    with pytest.raises(HostError, match="on fire") as host:
        call(path, "fail", timeout=LIMIT)
    assert (host.value.cure, host.value.exit_code) == (None, 1)
    with pytest.raises(HostError, match="/nonexistent/file: No such file"):
        call(path, "read_nothing", timeout=LIMIT)


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("gret", {}, "unknown verb 'gret'; use count, fail, greet"),
        (
            "greet",
            {},
            "wrong arguments for 'greet': missing a required argument: 'name'; it takes name, gree",
        ),
        ("greet", {"name": "a", "nmae": "b"}, "unexpected keyword argument 'nmae'"),
        ("refuse", {"progress": 1}, "wrong arguments for 'refuse': .* it takes none"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    path: Path, verb: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        call(path, verb, arguments, timeout=LIMIT)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"\xff\x00\xfe\n",
        b"[]\n",
        b'{"verb": 3}\n',
        b'{"verb": "greet", "arguments": []}\n',
        b'{"verb": "greet", "more": 1}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_an_invalid_request_gets_an_error(path: Path, line: bytes) -> None:
    connection = connect(path)
    connection.sendall(line)
    assert error_of(connection).startswith("not a request")
    assert call(path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"


def test_a_huge_request_is_cut_off(path: Path) -> None:
    connection = connect(path)
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        connection.sendall(b"x" * (8 << 20))
    assert "longer than 1048576 bytes" in error_of(connection)


def test_a_request_that_never_ends_has_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PATIENCE", 0.2)
    slow, silent = connect(path), connect(path)
    slow.sendall(b'{"verb": ')
    assert call(path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"
    assert error_of(slow) == "no whole request within 0.2 s"
    assert error_of(silent) == "no whole request within 0.2 s"


def test_a_hundred_silent_connections_delay_no_client(path: Path) -> None:
    silent = [connect(path) for _ in range(100)]
    assert call(path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"
    assert error_of(silent[0]) == "too many connections"
    for connection in silent[1:]:
        connection.close()


def test_a_client_that_hangs_up_early_does_no_harm(path: Path) -> None:
    for words in (b"", b'{"verb"', b'{"verb": "count", "arguments": {"to": 1000}}\n'):
        connection = connect(path)
        connection.sendall(words)
        connection.close()
    assert call(path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"


def test_an_answer_that_is_not_received_stops_only_its_own_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PATIENCE", 0.2)
    ended = threading.Event()

    def shout(progress: ProgressCallback) -> None:
        for _ in range(100):
            progress("x" * 65536)
        ended.set()

    with ControlServer(tmp_path / "s", {"shout": shout, "greet": greet}, allowed=anybody) as server:
        deaf = connect(server.path)
        deaf.sendall(b'{"verb": "shout"}\n')
        assert call(server.path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"
        assert ended.wait(LIMIT)
        deaf.close()


def test_long_calls_are_limited_and_quick_ones_wait_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CALLS", 3)
    go, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> str:
        begun.release()
        assert go.wait(LIMIT)
        return "done"

    with (
        ControlServer(tmp_path / "s", {"wait": wait, "greet": greet}, allowed=anybody) as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = [pool.submit(call, server.path, "wait", timeout=LIMIT) for _ in range(2)]
        assert all(begun.acquire(timeout=LIMIT) for _ in waiting)
        assert call(server.path, "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"
        # A thread counts until it has ended, which is a moment after its answer.
        wait_until(lambda: sum(thread.is_alive() for thread in server._calls) == len(waiting))
        third = pool.submit(call, server.path, "wait", timeout=LIMIT)
        assert begun.acquire(timeout=LIMIT)
        with pytest.raises(HostError, match="too busy"):
            call(server.path, "greet", {"name": "disk"}, timeout=LIMIT)
        go.set()
        assert [each.result(LIMIT) for each in (*waiting, third)] == ["done"] * 3


def test_strangers_are_refused_in_one_line(tmp_path: Path) -> None:
    with ControlServer(tmp_path / "s", VERBS, allowed=lambda _peer: False) as server:
        for _ in range(50):
            with pytest.raises(HostError, match="permission denied; be root"):
                call(server.path, "greet", {"name": "disk"}, timeout=LIMIT)


def test_the_socket_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    with ControlServer(tmp_path / "s", VERBS):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    with ControlServer(tmp_path / "s", VERBS, group=os.getgid()):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / "s"))
    left.close()
    with pytest.raises(NotListeningError):
        call(tmp_path / "s", "greet", timeout=LIMIT)
    with ControlServer(tmp_path / "s", VERBS, allowed=anybody):
        assert call(tmp_path / "s", "greet", {"name": "disk"}, timeout=LIMIT) == "hello, disk"


def test_a_socket_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot listen on .*: (Not a directory|File exists)"):
        ControlServer(tmp_path / "file" / "s", VERBS).__enter__()


def test_peers_are_who_the_kernel_says() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        peer = Peer.of(here)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.groups == {os.getegid(), *os.getgroups()}


def test_root_and_the_group_are_let_in() -> None:
    allowed = root_or_group("root")
    assert allowed(Peer(1, 0, frozenset({5})))
    assert allowed(Peer(1, 1000, frozenset({1000, 0})))
    assert not allowed(Peer(1, 1000, frozenset({1000})))
    assert not root_or_group("no-such-group")(Peer(1, 1000, frozenset({1000})))


def test_a_momentary_lack_of_resources_is_survived(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, left = selectors.EpollSelector.register, [1]

    def register(selector: selectors.EpollSelector, *arguments: object) -> object:
        if left:
            raise OSError(errno.ENOSPC, f"no room for a watch {left.pop()}")
        return real(selector, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(selectors.EpollSelector, "register", register)
    with pytest.raises(HostError):
        call(path, "greet", {"name": "Ada"}, timeout=LIMIT)
    assert call(path, "greet", {"name": "Ada"}, timeout=LIMIT) == "hello, Ada"
    assert "no room for a watch" in caplog.text


def test_a_verb_for_which_there_is_no_thread_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "verb":
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(HostError, match="no thread can be started"):
            call(path, "greet", {"name": "Ada"}, timeout=LIMIT)
    assert call(path, "greet", {"name": "Ada"}, timeout=LIMIT) == "hello, Ada"


def test_its_thread_outlives_an_error_of_the_machine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = Peer.of, [OSError(errno.ENOBUFS, "No buffer space available"), MemoryError()]

    def of(connection: socket.socket) -> Peer:
        if failures:
            raise failures.pop(0)
        return real(connection)

    monkeypatch.setattr(Peer, "of", of)
    for _ in range(2):
        with pytest.raises(HostError, match=r"without an answer|reset"):
            call(path, "greet", {"name": "you"}, timeout=LIMIT)
    assert call(path, "greet", {"name": "you"}, timeout=LIMIT) == "hello, you"


def test_a_server_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths
    for verb in ("listen", "bind"):
        with monkeypatch.context() as failing:
            failing.setattr(socket, "socket", partial(Failing, verb=verb))
            server = ControlServer(tmp_path / "s", VERBS)
            with pytest.raises(HostError, match=r"cannot listen on .*: No buffer space"):
                server.__enter__()
    assert list(tmp_path.iterdir()) == []
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class Failing(socket.socket):
    """A socket that refuses one call."""

    def __init__(self, *words: int, verb: str) -> None:
        super().__init__(*words)
        self._verb = verb

    def listen(self, backlog: int = 0, /) -> None:
        self._refuse("listen")
        super().listen(backlog)

    def bind(self, address: object, /) -> None:
        self._refuse("bind")
        super().bind(address)  # type: ignore[arg-type]

    def _refuse(self, verb: str) -> None:
        if verb == self._verb:
            raise OSError(errno.ENOBUFS, "No buffer space available")


def test_a_client_without_a_descriptor_gets_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as crowded:
        crowded.setattr(client_module, "socket", SimpleNamespace(socket=full, AF_UNIX=0, SOCK_STREAM=0))
        with pytest.raises(HostError, match=r"cannot ask: Too many open files; try again"):
            call(path, "greet", {"name": "you"}, timeout=LIMIT)
