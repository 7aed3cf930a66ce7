"""Real NBD servers on Unix sockets, which tests start, kill and start again."""

import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.polling import wait_until

needs_nbdkit = pytest.mark.skipif(
    shutil.which("nbdkit") is None, reason="nbdkit is not installed (vagrant/packages/tests.txt)"
)
needs_qemu_nbd = pytest.mark.skipif(
    shutil.which("qemu-nbd") is None, reason="qemu-nbd is not installed (vagrant/packages/tests.txt)"
)


class Server:
    """A server process.

    Args:
        path: Path of its socket.
        command: The program and its arguments.
    """

    def __init__(self, path: Path, *command: str) -> None:
        self.socket = path
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def uri(self, export: str = "", scheme: str = "nbd+unix") -> str:
        return f"{scheme}:///{export}?socket={self.socket}"

    def document(self, **options: Any) -> dict[str, object]:
        """Return the document of a disk on it."""
        return {"handler": "nbd", "uri": self.uri(), **options}

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        process = self._process = subprocess.Popen(self._command)
        wait_until(lambda: self.listens() or process.poll() is not None)
        assert process.poll() is None

    def listens(self) -> bool:
        """Return whether the server accepts connections."""
        with socket.socket(socket.AF_UNIX) as client:
            return not client.connect_ex(str(self.socket))

    def kill(self) -> None:
        """Kill it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def is_stopped(self) -> bool:
        """Return whether SIGSTOP has stopped all of its threads."""
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def nbdkit(folder: Path, *arguments: str) -> Server:
    """Return an nbdkit with these arguments; its socket is in `folder`."""
    path = folder / "nbdkit.sock"
    return Server(path, "nbdkit", "--foreground", "--unix", str(path), *arguments)


def qemu_nbd(folder: Path, image: Path, *arguments: str) -> Server:
    """Return a qemu-nbd that serves an image to several clients; its socket is in `folder`."""
    path = folder / "qemu.sock"
    return Server(path, "qemu-nbd", "--persistent", "--shared=8", f"--socket={path}", *arguments, str(image))
