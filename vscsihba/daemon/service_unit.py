"""The systemd unit of the service: its installation and removal."""

import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from vscsihba.errors import HostError
from vscsihba.handlers.shared.durable import replace_file

NAME: Final = "vscsihba.service"
DIRECTORY: Final = Path("/etc/systemd/system")
_RUNS: Final = Path("/run/systemd/system")
"""Exists if systemd is running (sd_booted(3))."""


def text(program: Path) -> str:
    """Return the unit; `program` is the absolute path of ``vscsihba``."""
    template = files("vscsihba.daemon").joinpath(NAME).read_text("utf-8")
    return template.replace("@PROGRAM@", str(program))


def install(*, directory: Path = DIRECTORY, program: Path | None = None, start: bool = False) -> Path:
    """Write the unit, reload systemd, and return the unit's path.

    Args:
        directory: The folder of this machine's units.
        program: The absolute path of ``vscsihba``; by default that of this installation.
        start: Start the service now, and whenever the machine starts.

    Raises:
        HostError: The unit cannot be written, systemd refuses, or systemd is not running.
    """
    if start and not _RUNS.is_dir():
        raise HostError(
            "this machine does not run systemd", cure='have its init system run "vscsihba daemon" as root'
        )
    unit = directory / NAME
    try:
        replace_file(unit, text(program or _program()).encode())
        unit.chmod(0o644)
    except OSError as error:
        raise HostError(f"{unit}: {error.strerror}", cure="be root") from error
    _systemctl("daemon-reload")
    if start:
        _systemctl("enable", "--now", NAME)
    return unit


def remove(*, directory: Path = DIRECTORY) -> bool:
    """Stop the service, which leaves its disks as they are, and remove the unit; False if there is none.

    Raises:
        HostError: systemd refuses, or the unit cannot be removed.
    """
    unit = directory / NAME
    if not unit.exists():
        return False
    _systemctl("disable", "--now", NAME)
    try:
        unit.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{unit}: {error.strerror}", cure="be root") from error
    _systemctl("daemon-reload")
    return True


def _program() -> Path:
    """Return the path of ``vscsihba``: beside this interpreter, or on PATH.

    Raises:
        HostError: It is not installed.
    """
    beside = Path(sys.executable).with_name("vscsihba")
    program = str(beside) if beside.exists() else shutil.which("vscsihba")
    if program is None:
        raise HostError("there is no program vscsihba", cure="install the package first")
    return Path(program)


def _systemctl(*words: str) -> None:
    """Run systemctl, if systemd is running."""
    if not _RUNS.is_dir():
        return
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostError("the program systemctl is not found") from error
    if done.returncode:
        raise HostError(f"systemctl {words[0]}: {done.stderr.strip()}", cure=f"journalctl -u {NAME}")
