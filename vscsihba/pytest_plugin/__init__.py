"""A pytest plugin: virtual disks as fixtures, which break and stall when a test wants them to.

    def test_my_program_survives_a_bad_block(vscsi_disk):
        disk = vscsi_disk("64MiB", faults={"bad": {"handler": "error", "error": "medium"}})
        with disk.fault("bad"):
            ...

pytest loads this file at every start, whether a test asks for a disk or not: so the rest of the
package is imported only where a fixture is used. Knows the fixtures' lives; what a disk does is
known in `disk`, which HBAs are free in `machine`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vscsihba.hba import VirtualHba
    from vscsihba.pytest_plugin.disk import MakeDisk

REQUIRED = "--vscsi-required"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our option to pytest's."""
    parser.getgroup("vscsihba", "virtual SCSI disks").addoption(
        REQUIRED,
        action="store_true",
        help="let tests that need a virtual SCSI disk fail, not be skipped, where there can be none",
    )


@pytest.fixture
def vscsi_hba(request: pytest.FixtureRequest) -> "Iterator[VirtualHba]":
    """A virtual HBA with no LUNs, of an id that nobody uses; gone after the test."""
    from vscsihba.pytest_plugin.machine import free_hba, missing  # noqa: PLC0415 - see above

    if (lacking := missing()) is not None:
        give_up = pytest.fail if request.config.getoption(REQUIRED) else pytest.skip
        give_up(f"no virtual SCSI disks here: {lacking}")
    with free_hba() as hba:
        yield hba


@pytest.fixture
def vscsi_disk(vscsi_hba: "VirtualHba", tmp_path: Path) -> "Iterator[MakeDisk]":
    """Make disks of `vscsi_hba`: ``vscsi_disk(size, faults=...)``, see `MakeDisk`; gone after the test."""
    from vscsihba.pytest_plugin.disk import make_disk  # noqa: PLC0415 - see above

    triggers = tmp_path / "vscsi"
    triggers.mkdir()
    yield partial(make_disk, vscsi_hba, triggers)
    # A disk that still fails or stalls would keep its HBA from being taken down.
    for trigger in triggers.iterdir():
        trigger.unlink()
