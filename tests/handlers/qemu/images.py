"""Images for the tests of the handler qemu, made and checked by QEMU's own tools."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDS = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon"))
    or importlib.util.find_spec("nbd") is None,
    reason="needs qemu-utils, qemu-system-common and python3-libnbd",
)


def run(*command: str | Path) -> str:
    """Run a tool and return its output; it must succeed."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def make(path: Path, size: str = "1M", *options: str | Path, format: str = "qcow2") -> Path:  # noqa: A002
    """Create an image."""
    run("qemu-img", "create", "-q", "-f", format, *options, path, size)
    return path


def fill(path: Path, byte: int, offset: str = "0", length: str = "64k", *, format: str = "qcow2") -> None:  # noqa: A002
    """Write one byte value into a range of an image."""
    run("qemu-io", "-f", format, "-c", f"write -P {byte} {offset} {length}", path)


def forget_backing_format(path: Path) -> None:
    """Make a qcow2 image one of old times, which does not record the format of its backing file."""
    header = path.read_bytes()
    assert header.count(b"\xe2\x79\x2a\xca") == 1  # the header extension "backing file format name"
    path.write_bytes(header.replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))


def check_tables(path: Path, format: str = "qcow2", *, killed: bool = False) -> None:  # noqa: A002
    """Check the tables of an image.

    Args:
        path: The image.
        format: Its format.
        killed: Its daemon has died, which may leave clusters that nothing uses ("leaks"), but no other fault.
    """
    done = subprocess.run(
        ["qemu-img", "check", "-f", format, path], capture_output=True, text=True, check=False
    )
    assert done.returncode in ((0, 3) if killed else (0,)), done.stdout + done.stderr
