"""Where the kernel shows its objects, and how one value is read or written there.

Every path of this package starts from the constants below, so that a test can put a tree
of its own in their place. Knows nothing of what the files mean.
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


def entries(directory: Path) -> list[Path]:
    """Return what is in `directory`, sorted by name; nothing if it is not there."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def read(path: Path) -> str | None:
    """Return the stripped text of an attribute, or None where the kernel has none to give.

    An attribute that is missing and an object that vanished meanwhile (ENOENT, ENODEV) look
    the same to a reader, and so does a value that is not there yet.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.readall().decode(errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Return the number in an attribute, or None where there is none."""
    text = read(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def write(path: Path, value: str) -> None:
    """Write one value and a newline to an attribute, as ``echo`` does; some insist on the newline.

    Raises:
        InUseError: The kernel says EBUSY.
        HostError: The attribute does not exist, or the kernel refuses the value.
    """
    try:
        # One write(2), and no O_CREAT: Python's text files write what was refused a second time on close.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        kind = InUseError if error.errno == EBUSY else HostError
        raise kind(f"cannot write {value!r} to {path}: {error.strerror}") from error
