"""The parts of a bug report. Each is read by itself: one that fails says why in its place."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from vscsihba import __version__
from vscsihba.cli.doctor.finding import Finding, collect
from vscsihba.cli.machine_state import machine_status
from vscsihba.cli.report.redaction import redacted, redacted_text
from vscsihba.daemon.calls import Daemon
from vscsihba.daemon.state import SAVED
from vscsihba.errors import VscsihbaError

LOG_LINES: Final = 5000
"""Lines of the service's log."""
_KERNEL_LINES: Final = 1000
_KERNEL_WORDS: Final = ("vscsihba", "tcm", "target", "uio", "scsi", "sd ", "i/o error", "hung", "blocked for")
_TIME_LIMIT: Final = 30.0
"""Seconds for each program that prints a log."""
_PACKAGES: Final = (
    *("rtslib-fb", "configshell-fb", "pyudev", "msgspec", "rich"),
    *("cryptography", "argon2-cffi", "pycurl", "pyparsing"),
)
_MODULES: Final = ("target_core_mod", "target_core_user", "tcm_loop", "uio", "iscsi_target_mod", "sg")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the report.

    Attributes:
        name: Name of the file.
        summary: Content, in one line.
        text: The content, without secrets.
    """

    name: str
    summary: str
    text: str


def parts(checks: Iterable[Callable[[], Iterable[Finding]]]) -> Iterator[Part]:
    """Yield every part of the report; `checks` are those of doctor."""
    yield _part(
        "versions.json", "versions of vscsihba, Python, its packages, Linux and its modules", _versions
    )
    yield _part("doctor.json", "findings of vscsihba doctor", lambda: _doctor(checks))
    yield _part("status.json", "state of HBAs, LUNs, engines and exports", _status)
    yield _part("running.json", "the running configuration document", _running)
    yield _part("saved.json", "the saved configuration document", _saved)
    yield _part("service.log", f"the last {LOG_LINES} lines of the service and its engines", _journal)
    yield _part("kernel.log", "lines of the kernel about SCSI, targets and disks", _kernel_log)


def _part(name: str, summary: str, read: Callable[[], str]) -> Part:
    """Read one part; an error becomes its content."""
    try:
        text = read()
    except (VscsihbaError, OSError, ValueError) as error:
        text = f"not available: {error}\n"
    except subprocess.TimeoutExpired as error:
        text = f"not available: {error.cmd[0]} did not end within {_TIME_LIMIT:g} seconds\n"
    return Part(name, summary, text)


def _as_json(value: object) -> str:
    return json.dumps(redacted(value), indent=2, default=str) + "\n"


def _versions() -> str:
    release = platform.freedesktop_os_release()
    return _as_json({
        "vscsihba": __version__,
        "installed in": str(Path(__file__).parents[2]),
        "python": sys.version,
        "packages": {name: _version(name) for name in _PACKAGES},
        "linux": " ".join(os.uname()[2:]),
        "distribution": release.get("PRETTY_NAME", ""),
        "modules": {name: _module(name) for name in _MODULES},
        "processors": os.cpu_count(),
    })  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _module(name: str) -> str:
    folder = Path("/sys/module") / name
    file = folder / "version"
    if not folder.is_dir():
        return "not loaded"
    return file.read_text().strip() if file.exists() else "loaded"


def _doctor(checks: Iterable[Callable[[], Iterable[Finding]]]) -> str:
    return _as_json([asdict(finding) for finding in collect(checks)])


def _status() -> str:
    return _as_json(machine_status())


def _running() -> str:
    return _as_json(Daemon().show())


def _saved() -> str:
    text = SAVED.read_text()
    try:
        return _as_json(json.loads(text))
    except ValueError:  # comments, or damage, which a reader of the report has to see
        return redacted_text(text)


def _journal() -> str:
    words = [
        "journalctl",
        "--unit=vscsihba.service",
        f"--lines={LOG_LINES}",
        "--no-pager",
        "--output=short-iso",
    ]
    return redacted_text(_output(words))


def _kernel_log() -> str:
    lines = _output(["dmesg"]).splitlines()
    about = [line for line in lines if any(word in line.lower() for word in _KERNEL_WORDS)]
    return redacted_text("\n".join(about[-_KERNEL_LINES:]) + "\n")


def _output(words: list[str]) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT, check=False
    )
    return done.stdout or done.stderr
