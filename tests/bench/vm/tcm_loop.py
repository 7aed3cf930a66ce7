"""A SCSI disk of a backstore of the kernel's target core, made by hand in configfs.

The peers get it this way, so that they owe nothing to this package.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORE = Path("/sys/kernel/config/target/core")
_LOOPBACK = Path("/sys/kernel/config/target/loopback")
_LIMIT = 60.0


@contextmanager
def backstore(hba: str, name: str, control: str) -> Iterator[Path]:
    """Make and enable a backstore, such as ``fileio_9``, while the context is entered.

    Args:
        hba: Plugin and index.
        name: Of the backstore.
        control: Written to its control file.
    """
    directory = CORE / hba / name
    directory.mkdir(parents=True)
    try:
        (directory / "control").write_text(control)
        (directory / "enable").write_text("1")
        yield directory
    finally:
        directory.rmdir()
        directory.parent.rmdir()


@contextmanager
def linked(directory: Path, number: int) -> Iterator[Path]:
    """Link a backstore as LUN 0 of a tcm_loop HBA of its own; yields the disk."""
    target = _LOOPBACK / f"naa.60014050000000{number:02x}"
    group = target / "tpgt_1"
    lun = group / "lun/lun_0"
    lun.mkdir(parents=True)
    link = lun / "bench"
    try:
        (group / "nexus").write_text(f"naa.60014050000001{number:02x}")
        link.symlink_to(directory)
        yield _disk((group / "address").read_text().strip())
    finally:
        link.unlink(missing_ok=True)
        lun.rmdir()
        with contextlib.suppress(OSError):
            (group / "nexus").write_text("NULL")
        group.rmdir()
        target.rmdir()


def _disk(address: str) -> Path:
    """Return the disk at ``host:channel:target``, LUN 0, as soon as it is there."""
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        for found in Path("/sys/bus/scsi/devices").glob(f"{address}:0/block/sd*"):
            if (disk := Path("/dev", found.name)).exists():
                return disk
        time.sleep(0.05)
    raise AssertionError(f"no disk at {address} within {_LIMIT:.0f} s")
