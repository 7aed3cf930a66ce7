"""A service under test: ``vscsihba daemon``, asked through its control socket and by its commands."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.polling import wait_until
from tests.vm.target import LIMIT, PROGRAM, Lun

VSCSIHBA = PROGRAM.with_name("vscsihba")
SOCKET = Path("/run/vscsihba/control.sock")
RUNNING = Path("/run/vscsihba/running.json")
SAVED = Path("/etc/vscsihba/config.json")
APPLY_LIMIT = 3000
START_LIMIT = 600


def vscsihba(*words: str | Path, code: int = 0) -> str:
    """Run a command; return its output, or its one line of error where it is to fail."""
    done = subprocess.run(
        [VSCSIHBA, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APPLY_LIMIT,
        check=False,
    )
    assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    if code == 0:
        return done.stdout
    assert done.stderr.count("\n") == 1, f"not one line: {done.stderr}"
    return done.stderr


class Service:
    """A service, as long as the context is entered; its HBAs go with it.

    Args:
        folder: Where it may write its log, and documents be put.
        prefix: Words before its command, such as those of nsenter(1).
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self._prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "daemon.err"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            words: list[str | Path] = [*self._prefix, VSCSIHBA, "daemon"]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log)
        wait_until(self.answers, "a service that answers", limit=START_LIMIT)

    def answers(self) -> bool:
        """Return whether it answers; it must not have ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.errors()}"
        if not SOCKET.exists():
            return False
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            self.ask("show")
            return True
        return False

    def errors(self) -> str:
        """Return its log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Ask its control socket, word by word as it is documented."""
        answer = self._answer(verb, arguments)
        assert "result" in answer, f"{verb}: {answer}\n{self.errors()}"
        return answer["result"]

    def refused(self, verb: str, **arguments: Any) -> str:
        """Apply a document that the machine has to refuse, and return the reason."""
        error = self._answer(verb, arguments)["error"]
        assert error["exit_code"] == 1, error
        return str(error["message"])

    def _answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(APPLY_LIMIT)
            connection.connect(str(SOCKET))
            connection.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                for line in stream:
                    answer: dict[str, Any] = json.loads(line)
                    if "progress" not in answer:
                        return answer
        raise AssertionError(f"no answer to {verb}\n{self.errors()}")

    def changes(self, verb: str, document: dict[str, Any]) -> list[str]:
        """Plan or apply a document, and return the kinds of what is, or was, to be done."""
        return [step["kind"] for step in self.ask(verb, document=document)["changes"]]

    def document(self, document: dict[str, Any], name: str = "disks.json") -> Path:
        """Put a document into a file."""
        path = self.folder / name
        path.write_text(json.dumps(document, indent=2))
        return path

    def lun(self, hba: int, number: int) -> dict[str, Any]:
        """Return its status of a LUN."""
        found: list[dict[str, Any]] = [
            lun
            for each in self.ask("status")["hbas"]
            for lun in each["luns"]
            if (each["id"], lun["lun"]) == (hba, number)
        ]
        assert len(found) == 1, found
        return found[0]

    def disk(self, hba: int, number: int) -> Lun:
        """Return a LUN as fio and others take it."""
        found = self.lun(hba, number)
        return Lun(hba, number, Path(found["device"]), "", found["backstore"])

    def engines(self, hba: int) -> list[int]:
        """Return the pids of an HBA's engines."""
        return [
            engine["pid"]
            for each in self.ask("status")["hbas"]
            if each["id"] == hba
            for engine in each["engines"]
            if engine["state"] == "running"
        ]

    def all_run(self) -> bool:
        """Return whether every LUN is served."""
        hbas = self.ask("status")["hbas"]
        return all(lun["state"] == "running" for hba in hbas for lun in hba["luns"])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has ended."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(LIMIT)

    def close(self) -> None:
        """Take everything down and end it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.ask("clear", force=True)
        self.kill(signal.SIGTERM)


@contextlib.contextmanager
def running_service(folder: Path, prefix: Sequence[str] = ()) -> Iterator[Service]:
    """A service without HBAs; with what it leaves removed afterwards."""
    for left in (RUNNING, SAVED):
        left.unlink(missing_ok=True)
    service = Service(folder, prefix)
    try:
        service.start()
        yield service
    finally:
        try:
            service.close()
        finally:
            if service.process is not None and service.process.poll() is None:
                service.kill()
            print(service.errors())
            for left in (RUNNING, SAVED):
                left.unlink(missing_ok=True)


def files(folder: Path, *names: str, size: int = 16) -> dict[str, Any]:
    """Return backstores of a document: a file each, of so many MiB."""
    return {
        name: {"handler": "file", "path": str(folder / f"{name}.img"), "size": f"{size}MiB"} for name in names
    }


def shows(hba: int, *names: str, engines: int = 1) -> dict[str, Any]:
    """Return an HBA of a document, whose LUNs from 0 on show these backstores."""
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    return {"id": hba, "engines": engines, "luns": luns}


def size_of(node: Path) -> int:
    """Return the bytes that Linux gives a disk, as lsblk tells it."""
    told = subprocess.run(
        ["lsblk", "--bytes", "--noheadings", "--output=SIZE", node],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(told.stdout)


def kill(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _lives(pid), f"the end of {pid}")


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def seconds_until(condition: Any, what: str) -> float:
    """Wait for a condition and return how long that took."""
    begin = time.monotonic()
    wait_until(condition, what, pause=0.02)  # most conditions ask the service, which has work to do
    return time.monotonic() - begin
