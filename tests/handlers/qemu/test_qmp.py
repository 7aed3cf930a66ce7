import fcntl
import json
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.polling import wait_until
from vscsihba.errors import HostError
from vscsihba.handlers.qemu import qmp as qmp_module
from vscsihba.handlers.qemu.qmp import Qmp, QmpError

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}


class Monitor:
    """The other end: it answers each command with the next of its answers."""

    def __init__(self, *answers: list[dict[str, Any]] | None, greeting: bytes | None = None) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.commands: list[dict[str, Any]] = []
        self._answers = list(answers)
        first = json.dumps(GREETING).encode() + b"\r\n" if greeting is None else greeting
        self._theirs.sendall(first)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def send(self, *messages: dict[str, Any]) -> None:
        """Send messages."""
        self._theirs.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))

    def _serve(self) -> None:
        with self._theirs.makefile("rb") as lines:
            for line in lines:
                self.commands.append(json.loads(line))
                if self.commands[-1]["execute"] == "qmp_capabilities":
                    self.send({"return": {}})
                elif (answer := self._answers.pop(0)) is None:
                    self._theirs.shutdown(socket.SHUT_RDWR)
                else:
                    self.send(*answer)

    def hang_up(self) -> None:
        """End the connection."""
        self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self.ours.close()
        self._thread.join()
        self._theirs.close()


@pytest.fixture
def monitors() -> Iterator[list[Monitor]]:
    made: list[Monitor] = []
    yield made
    for monitor in made:
        monitor.close()


def connect(monitor: Monitor, events: list[tuple[str, Any]] | None = None) -> Qmp:
    taken = [] if events is None else events
    return Qmp(monitor.ours, timeout=5, event=lambda name, data: taken.append((name, data)))


def test_a_command_has_a_result(monitors: list[Monitor]) -> None:
    monitors.append(monitor := Monitor([{"return": [1, 2]}]))
    assert connect(monitor).call("query_x", node_name="disk", addr={"a_b": 1}) == [1, 2]
    assert monitor.commands[1] == {
        "execute": "query_x",
        "arguments": {"node-name": "disk", "addr": {"a_b": 1}},
    }


def test_events_between_answers_are_taken(monitors: list[Monitor]) -> None:
    events: list[tuple[str, Any]] = []
    monitors.append(
        monitor := Monitor([{"event": "ONE", "data": {"x": 1}}, {"return": {}}, {"event": "TWO"}])
    )
    qmp = connect(monitor, events)
    qmp.call("x")
    while len(events) < 2:
        assert qmp.drain()
    assert events == [("ONE", {"x": 1}), ("TWO", {})]
    assert qmp.drain()


def test_a_refusal_is_one_line(monitors: list[Monitor]) -> None:
    monitors.append(monitor := Monitor([{"error": {"class": "GenericError", "desc": "no\nroom"}}]))
    with pytest.raises(QmpError, match=r"^no room$"):
        connect(monitor).call("x")


def test_the_end_of_the_process_is_an_error(monitors: list[Monitor]) -> None:
    monitors.append(monitor := Monitor(None))
    qmp = connect(monitor)
    with pytest.raises(HostError, match="ended") as error:
        qmp.call("x")
    assert not isinstance(error.value, QmpError)
    assert not qmp.drain()
    with pytest.raises(HostError):
        qmp.call("x")


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"{}\n", "does not speak QMP"),
        (b"hello\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b"x" * (5 << 20), "too long"),
    ],
)
def test_garbage_is_refused(greeting: bytes, message: str) -> None:
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=_send, args=(theirs, greeting))
    sender.start()
    with pytest.raises(HostError, match=message):
        Qmp(ours, timeout=5, event=lambda _name, _data: None)
    ours.close()
    sender.join()
    theirs.close()


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return


def test_silence_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours, pytest.raises(HostError, match="no answer"):
        Qmp(ours, timeout=0.05, event=lambda _name, _data: None)


def test_a_process_that_hangs_can_be_told_something(monitors: list[Monitor]) -> None:
    monitors.append(monitor := Monitor([], [{"return": {}}]))
    qmp = connect(monitor)
    qmp.tell("quit")
    assert qmp.call("x") == {}
    assert [command["execute"] for command in monitor.commands] == ["qmp_capabilities", "quit", "x"]


def test_a_process_that_does_not_answer_is_not_waited_for(
    monitors: list[Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitors.append(monitor := Monitor([], None))
    qmp = connect(monitor)
    waiting = threading.Thread(target=_call, args=(qmp,))
    waiting.start()
    wait_until(lambda: len(monitor.commands) == 2, "the command", limit=10)
    monkeypatch.setattr(qmp_module, "_TELLING", 0.01)
    with pytest.raises(HostError, match="another command has no answer"):
        qmp.tell("quit")
    monitor.hang_up()
    waiting.join(10)
    with pytest.raises(HostError):
        qmp.tell("quit")


def _call(qmp: Qmp) -> None:
    with pytest.raises(HostError):
        qmp.call("x")


def test_a_descriptor_above_those_that_select_takes(monitors: list[Monitor]) -> None:
    """An engine of many disks has more than 1024."""
    monitor, events = Monitor(), list[Any]()
    monitors.append(monitor)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    try:
        high = socket.socket(fileno=fcntl.fcntl(monitor.ours, fcntl.F_DUPFD_CLOEXEC, 1100))
        qmp = Qmp(high, timeout=10, event=lambda *event: events.append(event))
        assert qmp.drain()
        monitor.send({"event": "STOP", "data": {}})
        wait_until(lambda: qmp.drain() and bool(events))
        qmp.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
