"""A daemon: one process of QEMU that has an image open and exports it on a Unix socket.

It is a qemu-storage-daemon, told by QMP what to open. For an internal snapshot, which that cannot open, it
is a qemu-nbd. The export appears under its lasting name only when `publish` gives it that, so that
clients that wait for it find an image into which lost writes have been brought back.
"""

import base64
import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vscsihba.errors import HostError
from vscsihba.handlers.qemu import programs
from vscsihba.handlers.qemu.image import ImageInfo, failure
from vscsihba.handlers.qemu.qmp import Qmp, QmpError

log = logging.getLogger(__name__)

EXPORT: Final = "disk"
"""Name of the export."""

_PATIENCE: Final = 60.0
"""Seconds for the start of a process, and for an answer from it; to open an encrypted image takes seconds."""
_PARTING: Final = 1.0
"""Seconds from the end of a connection to that of its process."""
_PAUSE: Final = 0.01
_GREETING: Final = b"NBDMAGIC"


@dataclass(frozen=True, slots=True)
class Plan:
    """The image that a daemon opens, and the way of opening it.

    Attributes:
        image: The image.
        read_only: Never write to it.
        snapshot: Internal snapshot, empty for the image itself.
        direct: Bypass the page cache.
        writethrough: Put each write on stable storage.
        folder: For the socket; no other user can enter it.
        lock: Descriptor that the process inherits, so that a lock lives as long as it.
    """

    image: ImageInfo
    read_only: bool
    snapshot: str
    direct: bool
    writethrough: bool
    folder: Path
    lock: int

    @property
    def socket(self) -> Path:
        """The socket under its lasting name."""
        return self.folder / "socket"

    def node(self, *, encrypted: bool) -> dict[str, Any]:
        """Return the arguments of ``blockdev-add``.

        Args:
            encrypted: The object ``key`` has the key.
        """
        image = self.image
        cache = {"direct": self.direct, "no-flush": False}
        node = {
            "driver": image.format,
            "node-name": EXPORT,
            "read-only": self.read_only,
            "discard": "unmap",
            "cache": cache,
            "file": {
                **image.file_node(),
                "read-only": self.read_only,
                "discard": "unmap",
                "cache": cache,
            },
        }
        return node | (image.key_options() if encrypted else {})


class Daemon:
    """A running daemon; to be made by a thread that outlives it (`vscsihba.handlers.qemu.launch`).

    Args:
        plan: The image, and the way of opening it.
        secret: The key of the image, None if it has none.

    Attributes:
        socket: Where it listens: under another name than the plan's until `publish`.

    Raises:
        UsageError: The key is wrong, or there is no such snapshot.
        InUseError: Another program has the image open.
        HostError, OSError: It cannot be started, or cannot open the image; nothing is left of it then.
    """

    def __init__(self, plan: Plan, secret: bytes | None) -> None:
        self._plan = plan
        self.socket = plan.folder / "new"
        self._qmp: Qmp | None = None
        self._releasing = threading.Lock()
        with ExitStack() as failing:
            self._errors = os.memfd_create("errors")
            failing.callback(os.close, self._errors)
            self.socket.unlink(missing_ok=True)
            if plan.snapshot:
                self._process = self._start_nbd()
            else:
                self._process, ours = self._start_storage_daemon()
                failing.callback(ours.close)
            failing.callback(self._kill_and_wait)
            self._pidfd = os.pidfd_open(self._process.pid)
            failing.callback(os.close, self._pidfd)
            try:
                if plan.snapshot:
                    self._await_nbd()
                else:
                    self._qmp = Qmp(ours, timeout=_PATIENCE, event=self._event)
                    self._open(self._qmp, secret)
            except QmpError as error:
                raise failure(plan.image.path, error.message) from error
            except HostError as error:
                if not self._has_ended():
                    raise
                raise failure(plan.image.path, self.last_words()) from error
            failing.pop_all()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def publish(self) -> None:
        """Give the socket its lasting name, under which clients wait for it."""
        self.socket.rename(self._plan.socket)
        self.socket = self._plan.socket

    def wait(self) -> bool:
        """Wait until the process ends; log what it reports meanwhile.

        Returns:
            Whether it has ended properly, and so has written back its tables.
        """
        poll = select.poll()  # select(2) takes no descriptor above 1023
        poll.register(self._pidfd, select.POLLIN)
        if self._qmp is not None:
            poll.register(self._qmp, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._pidfd in ready:
                return self._process.wait() == 0
            if self._qmp is not None and not self._qmp.drain():
                poll.unregister(self._qmp)

    def resize(self, size: int) -> None:
        """Change the capacity of the image to `size` bytes; clients lose their connection.

        Raises:
            QmpError: The format cannot, or there is no room; the capacity stays.
            HostError: The process has ended.
        """
        assert self._qmp is not None  # noqa: S101 - a snapshot is read-only
        self._qmp.call("block-export-del", id=EXPORT, mode="hard")
        try:
            self._while_busy("block_resize", node_name=EXPORT, size=size)
        finally:
            self._while_busy("block-export-add", **self._export())

    def kill(self) -> None:
        """Kill the process, if it still runs; this never waits."""
        with self._releasing, suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Ask the process to close the image and end."""
        try:
            if self._qmp is not None:
                self._qmp.tell("quit")
            else:
                self._process.terminate()
        except HostError as error:
            log.warning("%s: the daemon cannot be asked to end: %s", self._plan.image.path, error)

    def abandon(self) -> None:
        """Kill the process, wait for its end, and release what belongs to it."""
        self._kill_and_wait()
        self.release()

    def release(self) -> None:
        """Release descriptors of a process that has ended."""
        if self._qmp is not None:
            self._qmp.close()
        with self._releasing:
            pidfd, self._pidfd = self._pidfd, -1
        os.close(pidfd)
        os.close(self._errors)

    def last_words(self) -> str:
        """Return the last messages of the process in one line, or that it was killed."""
        if self._process.poll() == -signal.SIGKILL:
            return "killed by SIGKILL"
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, 2048, max(0, size - 2048))
        return programs.in_one_line(text) or "it has ended without a message"

    def _start_storage_daemon(self) -> tuple[programs.Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as failing:
            failing.callback(ours.close)
            process = programs.start(
                "qemu-storage-daemon",
                ["--chardev", f"socket,id=qmp,fd={theirs.fileno()}", "--monitor", "chardev=qmp"],
                files=[theirs.fileno(), self._plan.lock],
                output=self._errors,
                errors=self._errors,
            )
            failing.pop_all()
        return process, ours

    def _start_nbd(self) -> programs.Process:
        image = self._plan.image
        return programs.start(
            "qemu-nbd",
            [
                *("--read-only", "--persistent", "--shared=0", f"--export-name={EXPORT}"),
                *(f"--socket={self.socket}", f"--format={image.format}", "--cache=writeback"),
                *(f"--load-snapshot={self._plan.snapshot}", "--", image.path),
            ],
            files=[self._plan.lock],
            output=self._errors,
            errors=self._errors,
        )

    def _open(self, qmp: Qmp, secret: bytes | None) -> None:
        if secret is not None:
            data = base64.b64encode(secret).decode()
            qmp.call("object-add", qom_type="secret", id="key", format="base64", data=data)
        qmp.call("blockdev-add", **self._plan.node(encrypted=secret is not None))
        qmp.call(
            "nbd-server-start", addr={"type": "unix", "data": {"path": str(self.socket)}}, max_connections=0
        )
        qmp.call("block-export-add", **self._export())

    def _export(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "type": "nbd",
            "id": EXPORT,
            "node-name": EXPORT,
            "name": EXPORT,
            "writable": not plan.read_only,
            "writethrough": plan.writethrough,
        }

    def _while_busy(self, command: str, **arguments: Any) -> None:
        """Run a command that is refused for a moment, as long as the last export is not quite gone."""
        assert self._qmp is not None  # noqa: S101 - as above
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._qmp.call(command, **arguments)
                return
            except QmpError as error:
                busy = "conflict" in error.message or "already" in error.message
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def _await_nbd(self) -> None:
        """Wait until qemu-nbd serves the image; it listens before it has opened that.

        Raises:
            HostError: It has ended, or does not serve it.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._greets():
            if self._process.poll() is not None:
                raise HostError("qemu-nbd has ended")
            if time.monotonic() > deadline:
                raise HostError("qemu-nbd does not serve the image")
            time.sleep(_PAUSE)

    def _greets(self) -> bool:
        """Return whether a server greets who connects."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket))
                return connection.recv(len(_GREETING)) == _GREETING
            except OSError:
                return False

    def _event(self, name: str, data: dict[str, Any]) -> None:
        if name == "BLOCK_IMAGE_CORRUPTED":
            log.error("%s is damaged: %s", self._plan.image.path, data.get("msg", ""))

    def _has_ended(self) -> bool:
        """Return whether the process has ended, which may take a moment after its last sign of life."""
        try:
            self._process.wait(_PARTING)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill_and_wait(self) -> None:
        self._process.kill()
        self._process.wait()
