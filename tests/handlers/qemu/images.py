"""Images for the tests of the handler qemu, made and checked by QEMU's own tools."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

CLUSTER = 64 << 10

NEEDS = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon"))
    or importlib.util.find_spec("nbd") is None,
    reason="needs qemu-utils, qemu-system-common and python3-libnbd",
)


def run(*command: str | Path) -> str:
    """Run a tool and return its output; it must succeed."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def make(path: Path, size: str = "1M", *options: str | Path, format: str = "qcow2") -> Path:  # noqa: A002
    """Create an image; again where qemu-img has not measured its key derivation."""
    for _ in range(50):
        try:
            run("qemu-img", "create", "-q", "-f", format, *options, path, size)
        except subprocess.CalledProcessError as error:
            if "Unable to get accurate CPU usage" not in error.stderr:
                raise
        else:
            break
    return path


def fill(path: Path, byte: int, offset: str = "0", length: str = "64k", *, format: str = "qcow2") -> None:  # noqa: A002
    """Write one byte value into a range of an image."""
    run("qemu-io", "-f", format, "-c", f"write -P {byte} {offset} {length}", path)


def forget_backing_format(path: Path) -> None:
    """Make a qcow2 image one of old times, which does not record the format of its backing file."""
    header = path.read_bytes()
    assert header.count(b"\xe2\x79\x2a\xca") == 1  # the header extension "backing file format name"
    path.write_bytes(header.replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))


def leak(path: Path) -> None:
    """Allocate a cluster at the end of a small qcow2 image, which nothing uses."""
    raw = bytearray(path.read_bytes())
    raw += bytes(-len(raw) % CLUSTER)
    table = int.from_bytes(raw[48:56], "big")  # the header's refcount_table_offset
    block = int.from_bytes(raw[table : table + 8], "big")
    number = len(raw) // CLUSTER
    raw[block + 2 * number : block + 2 * (number + 1)] = b"\0\1"
    path.write_bytes(raw + bytes(CLUSTER))


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
