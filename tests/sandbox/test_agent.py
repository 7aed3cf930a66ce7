"""The agent's part of a run, with a socket for the serial line and this machine for the guest."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vscsihba.sandbox import agent, frames

LIMIT = 60


class Caller(threading.Thread):
    """The launcher's side: sends input as requested, and keeps the frames that it receives."""

    def __init__(self, line: socket.socket, data: bytes) -> None:
        super().__init__(daemon=True)
        self._line, self._data = line, data
        self.told: dict[int, bytes] = {frames.OUTPUT: b"", frames.ERROR: b""}

    def run(self) -> None:
        decoder, at, ended = frames.Decoder(), 0, False
        while data := self._line.recv(1 << 16):
            for kind, payload in decoder.feed(data):
                if kind == frames.WANT:
                    count = frames.NUMBER.unpack(payload)[0] - frames.HEADER.size
                    if at < len(self._data):
                        self._line.sendall(frames.frame(frames.INPUT, self._data[at : at + count]))
                    at += count
                    if at >= len(self._data) and not ended:
                        ended = True
                        self._line.sendall(frames.frame(frames.INPUT_END))
                else:
                    self.told[kind] += payload


@pytest.fixture(autouse=True)
def same_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return to this process's folder: the agent changes it for its command."""
    monkeypatch.chdir(Path.cwd())


@pytest.fixture
def lines() -> Iterator[tuple[agent.Line, socket.socket]]:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGCHLD)
    theirs.settimeout(LIMIT)
    line = agent.Line.__new__(agent.Line)
    line.fd = ours.fileno()
    line._decoder = frames.Decoder()
    yield line, theirs
    ours.close()
    theirs.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)


def run(lines: tuple[agent.Line, socket.socket], data: bytes, *command: str) -> tuple[int, dict[int, bytes]]:
    line, theirs = lines
    plan: dict[str, Any] = {
        "command": list(command),
        "environ": dict(os.environ),
        "cwd": "/",
        "terminal": None,
    }
    caller = Caller(theirs, data)
    caller.start()
    child = agent.Child(plan)
    with child.process:
        code = agent.Forwarder(line, child).run()
    with socket.socket(fileno=os.dup(line.fd)) as ours:
        ours.shutdown(socket.SHUT_WR)
    caller.join(LIMIT)
    return code, caller.told


@pytest.mark.parametrize("length", [0, 1, 20_000, 66_000, 1_000_000])
def test_input_of_any_length_comes_back(lines: tuple[agent.Line, socket.socket], length: int) -> None:
    data = os.urandom(length)
    code, told = run(lines, data, "cat")
    assert (code, told[frames.OUTPUT] == data) == (0, True)


def test_the_exit_code_of_a_signal_is_a_shells(lines: tuple[agent.Line, socket.socket]) -> None:
    assert run(lines, b"", "sh", "-c", "echo out; echo err >&2; kill -9 $$") == (
        128 + signal.SIGKILL,
        {frames.OUTPUT: b"out\n", frames.ERROR: b"err\n"},
    )


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-program", agent.NOT_FOUND), ("/etc/passwd", agent.NOT_EXECUTABLE)]
)
def test_a_command_that_cannot_be_started(command: str, code: int) -> None:
    plan: dict[str, Any] = {"command": [command], "environ": dict(os.environ), "cwd": "/", "terminal": None}
    with pytest.raises(agent.NotStartedError, match=command) as refused:
        agent.Child(plan)
    assert refused.value.code == code


@pytest.mark.parametrize("ready", [None, "/nowhere/socket"])
def test_preparation_that_fails_is_named_once(
    ready: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "sethostname", lambda _name: None)
    monkeypatch.setattr(agent, "loopback_up", lambda: None)
    step = {
        "name": "prog apply", "command": ["sh", "-c", "echo 'prog: no such file' >&2; exit 2"],
        "ready": ready, "log": str(tmp_path / "log"),
    }  # fmt: skip
    with pytest.raises(agent.NotStartedError, match=r"^prog apply: no such file$"):
        agent.prepare({"writable": [], "steps": [step], "environ": {"PATH": os.defpath}})


def test_output_that_a_child_holds_open_is_not_waited_for(lines: tuple[agent.Line, socket.socket]) -> None:
    code, told = run(lines, b"", "sh", "-c", "sleep 30 & echo $!")
    os.kill(int(told[frames.OUTPUT]), signal.SIGKILL)
    assert code == 0
