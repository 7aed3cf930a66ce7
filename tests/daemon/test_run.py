"""The service as a process: the only one, ready when it says so, used by its group, ended by a signal."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vscsihba.control import call

LIMIT = 120

SCRIPT = """
import sys
from pathlib import Path
from vscsihba import configfs
from vscsihba.daemon import run
from vscsihba.daemon.state import State
from vscsihba.errors import VscsihbaError

folder = Path(sys.argv[1])
configfs.prepare = lambda: None
run.SOCKET = folder / "run" / "control.sock"
try:
    run.serve(State(folder / "run", folder / "config.json", folder / "devices.json"))
except VscsihbaError as error:
    sys.exit(f"one line: {error}")
"""


def as_a_shell_allows() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def started(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=as_a_shell_allows,  # noqa: PLW1509 - nothing else runs in this process
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


class Running:
    """A service, and its messages to the manager."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(LIMIT)
        self.process = started(folder, NOTIFY_SOCKET=str(folder / "notify"), **environment)

    def heard(self) -> str:
        return self.manager.recv(1000).decode()

    def ask(self, verb: str, **arguments: Any) -> Any:
        return call(self.folder / "run" / "control.sock", verb, arguments, timeout=LIMIT)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=LIMIT)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.manager.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path, WATCHDOG_USEC="200000")
    yield made
    made.close()


def test_it_is_ready_lives_and_ends(service: Running) -> None:
    assert service.heard() == "READY=1\nSTATUS=0 HBAs, 0 LUNs"
    assert service.heard() == "WATCHDOG=1\nSTATUS=0 HBAs, 0 LUNs"
    assert service.ask("show") == {"version": 1, "backstores": {}, "hbas": []}
    status = service.ask("status")
    assert status["daemon"]["pid"] == service.process.pid
    assert status["hbas"] == []
    assert service.end(signal.SIGTERM) == 0
    assert not (service.folder / "run" / "control.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(service: Running, number: signal.Signals) -> None:
    service.heard()
    assert service.end(number) == 0


def test_a_second_one_is_refused_in_one_line(service: Running) -> None:
    service.heard()
    second = started(service.folder)
    _, errors = second.communicate(timeout=LIMIT)
    assert second.returncode == 1
    assert (
        errors
        == f"one line: the service is already running as process {service.process.pid}; stop it first\n"
    )
    assert service.ask("show")


def test_a_killed_one_is_followed_by_another(service: Running) -> None:
    service.heard()
    service.end(signal.SIGKILL)
    after = started(service.folder, NOTIFY_SOCKET=str(service.folder / "notify"))
    try:
        while not service.heard().startswith("READY"):
            pass
        assert service.ask("show")
    finally:
        after.terminate()
        after.communicate(timeout=LIMIT)
    assert after.returncode == 0


def test_its_directory_lets_others_pass_and_its_socket_does_not(service: Running) -> None:
    service.heard()
    assert (service.folder / "run").stat().st_mode & 0o777 == 0o755
    assert (service.folder / "run" / "control.sock").stat().st_mode & 0o007 == 0


def test_it_may_have_as_many_files_open_as_the_hard_limit_allows(service: Running) -> None:
    service.heard()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
