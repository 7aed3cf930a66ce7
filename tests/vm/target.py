"""A vscsitarget process under test, and a second opinion from the kernel: configfs, /sys, /proc, its log.

Knows the program by its command line and its output. Whatever is waited for is a condition with a limit.
"""

import contextlib
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.polling import wait_until

T = TypeVar("T")

LIMIT = 120.0
"""Seconds for anything that is waited for: software emulation is slow, and jumps about."""
PROGRAM = Path(sys.executable).parent / "vscsitarget"
CONFIGFS = Path("/sys/kernel/config/target")
READY = re.compile(r"id=(?P<hba>\d+) lun=(?P<lun>\d+) (?P<node>/dev/\S+) (?P<size>\S+ \S+) (?P<image>.+)")
KERNEL_LINES = 60
MARK = "vscsihba test:"


def mark_kernel_log(text: str) -> None:
    """Write a line into the kernel's log: what comes after it belongs to `text`."""
    Path("/dev/kmsg").write_text(f"<6>{MARK} {text}\n")


def kernel_messages() -> str:
    """Return the kernel's log since the last mark, at most KERNEL_LINES."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    return "\n".join(log.rpartition(MARK)[2].splitlines()[1:][-KERNEL_LINES:])


def target_objects() -> set[Path]:
    """Return the configfs folders of every TCMU backstore and every tcm_loop target, whoever made them."""
    patterns = ("core/user_*/*", "loopback/*", "loopback/*/tpgt_*", "loopback/*/tpgt_*/lun/lun_*")
    return {path for pattern in patterns for path in CONFIGFS.glob(pattern) if path.is_dir()} - {
        path for name in ("hba_info", "discovery_auth") for path in CONFIGFS.glob(f"*/{name}")
    }


def our_processes() -> set[tuple[int, str]]:
    """Return (pid, command line) of every process that runs vscsitarget or vscsihba."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        programs = {b"vscsitarget", b"vscsihba", b"vscsihba.engine"}
        if any(word.rpartition(b"/")[2] in programs for word in words[:3]):
            found.add((int(entry.name), b" ".join(words).decode(errors="replace")))
    return found


@dataclass(frozen=True)
class Lun:
    """A logical unit that is ready: what vscsitarget's line says of it."""

    hba: int
    number: int
    node: Path
    """The disk, /dev/sdX."""
    size: str
    image: str

    @property
    def sysfs(self) -> Path:
        """The disk's folder in /sys/block."""
        return Path("/sys/block") / self.node.name

    @property
    def sg(self) -> Path:
        """The SCSI generic device, /dev/sgN; waits for it."""
        folder = self.sysfs / "device/scsi_generic"
        name = wait_until(lambda: next(iter(folder.glob("sg*")), None), f"an sg device of {self.node}")
        assert name is not None
        node = Path("/dev") / name.name
        wait_until(node.exists, f"the node {node}")
        return node


class Target:
    """A vscsitarget that serves images, or stacks of handlers in a line each, as the LUNs of one HBA."""

    def __init__(self, images: Sequence[Path | str], hba: int, options: Sequence[str], errors: Path) -> None:
        self.luns: list[Lun] = []
        self._command = [str(PROGRAM), f"id={hba}", "-files", ",".join(map(str, images)), *options]
        self._expected = len(images)
        self._errors = errors
        self._output = b""
        with errors.open("wb") as file:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
            )

    def __str__(self) -> str:
        return " ".join(self._command)

    @property
    def output(self) -> str:
        """Its output so far, as far as that was read."""
        return self._output.decode(errors="replace")

    def errors(self) -> str:
        """Return its stderr so far."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def rings(self) -> int:
        """Return how many rings it has open."""
        opened = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
                opened.add(str(link.readlink()))
        return sum(path.startswith("/dev/uio") for path in opened)

    def read(self, limit: float) -> bool:
        """Wait for more output, at most `limit` seconds; False when there will be none."""
        pipe = self.process.stdout
        assert pipe is not None
        if not select.select([pipe], [], [], max(limit, 0))[0]:
            return True
        data = pipe.read1()  # type: ignore[attr-defined]
        self._output += data
        return bool(data)

    def wait_ready(self, limit: float = LIMIT) -> list[Lun]:
        """Wait for the line of every LUN and return the LUNs in the order of the images."""
        deadline = time.monotonic() + limit
        more = True
        while len(found := list(READY.finditer(self._whole_lines()))) < self._expected:
            if not more:
                raise AssertionError(f"{self} ended with {self.wait()} before it was ready:\n{self.errors()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self} not ready within {limit:.0f} s:\n{self.errors()}")
            more = self.read(deadline - time.monotonic())
        self.luns = [
            Lun(int(line["hba"]), int(line["lun"]), Path(line["node"]), line["size"], line["image"])
            for line in found
        ]
        return self.luns

    def wait(self, limit: float = LIMIT) -> int:
        """Return the exit code when it has ended by itself."""
        return self.process.wait(limit)

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = LIMIT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(limit)

    def finish(self) -> bool:
        """Make sure that it has ended; False when it had to be killed."""
        try:
            if self.process.poll() is None:
                self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
        return True

    def _whole_lines(self) -> str:
        return self.output[: self.output.rfind("\n") + 1]
