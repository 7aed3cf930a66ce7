"""Paths of the kernel's objects, and functions that read or write a single value.

Every path of this package starts with one of the constants below, so that a test can replace them. Does not
know the meaning of the files.
"""

import os
from errno import EBUSY
from pathlib import Path

from vscsihba.errors import HostError, InUseError

CONFIGFS = Path("/sys/kernel/config")
SYSFS = Path("/sys")
PROC = Path("/proc")
DEV = Path("/dev")
ETC = Path("/etc")
MODULES = Path("/lib/modules")
UDEV_CONTROL = Path("/run/udev/control")


def core() -> Path:
    """Return the directory of all backstores: ``core/user_N/NAME``."""
    return CONFIGFS / "target" / "core"


def loopback() -> Path:
    """Return the directory of all tcm_loop targets: ``loopback/naa.X/tpgt_1``."""
    return CONFIGFS / "target" / "loopback"


def iscsi() -> Path:
    """Return the directory of all iSCSI targets: ``iscsi/NAME/tpgt_1``."""
    return CONFIGFS / "target" / "iscsi"


def entries(directory: Path) -> list[Path]:
    """Return the entries of `directory`, sorted by name; none if it does not exist."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def read(path: Path) -> str | None:
    """Return the stripped text of an attribute, None if it cannot be read.

    A missing attribute, an object that disappeared meanwhile (ENOENT, ENODEV) and a value that is not set yet
    give the same result.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.readall().decode(errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Return the number in an attribute, None if there is none."""
    text = read(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def write(path: Path, value: str) -> None:
    """Write one value and a newline to an attribute, as ``echo`` does; some attributes require the newline.

    Raises:
        InUseError: The kernel reports EBUSY.
        HostError: The attribute does not exist, or the kernel refuses the value.
    """
    try:
        _write(path, f"{value}\n")
    except OSError as error:
        kind = InUseError if error.errno == EBUSY else HostError
        raise kind(f"cannot write {value!r} to {path}: {error.strerror}") from error


def make_directory(path: Path) -> None:
    """Create an object of the kernel.

    Raises:
        HostError: The kernel refuses, or it exists.
    """
    try:
        path.mkdir()
    except OSError as error:
        raise HostError(f"cannot create {path}: {error.strerror}") from error


def remove_directory(path: Path) -> None:
    """Remove an object of the kernel.

    Raises:
        InUseError: The kernel reports EBUSY.
        HostError: The kernel refuses, or it does not exist.
    """
    try:
        path.rmdir()
    except OSError as error:
        kind = InUseError if error.errno == EBUSY else HostError
        raise kind(f"cannot remove {path}: {error.strerror}") from error


def write_secret(path: Path, value: str) -> None:
    """Write one value to an attribute for which a newline would be part of it; no error shows the value.

    Raises:
        HostError: The attribute does not exist, or the kernel refuses the value.
    """
    try:
        _write(path, value)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    # One write(2), and no O_CREAT: Python's text files write refused data a second time on close.
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
