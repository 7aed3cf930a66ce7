"""A pytest plugin: virtual disks as fixtures, which fail and stall when a test wants them to.

    def test_my_program_survives_a_bad_block(vscsi_disk):
        disk = vscsi_disk("64MiB", faults={"bad": {"handler": "error", "error": "medium"}})
        with disk.fault("bad"):
            ...

pytest loads this file at every start, even if no test uses a disk: so the rest of the package is imported
only when a fixture or the sandbox is used. Knows how long the fixtures live; `disk` knows disks and their
faults, `host` finds a free HBA, and `sandbox` runs a session in the sandbox.
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
SANDBOX = "--vscsi-sandbox"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("vscsihba", "virtual SCSI disks")
    group.addoption(
        REQUIRED,
        action="store_true",
        help="fail tests that need a virtual SCSI disk, instead of skipping them, on a machine without",
    )
    group.addoption(
        SANDBOX,
        action="store_true",
        help="run the session in User-Mode Linux, where every user has virtual SCSI disks",
    )
    group.addoption(f"{SANDBOX}-memory", metavar="SIZE", help="memory of the sandbox (1GiB)")
    group.addoption(
        f"{SANDBOX}-scratch", metavar="SIZE",
        help="put tmp_path on an ext4 of this size, with O_DIRECT, holes and discard",
    )  # fmt: skip
    group.addoption(
        f"{SANDBOX}-writable", metavar="DIR", action="append", default=[],
        help="write the files of this folder through to this machine, besides those of pytest's options; "
        "may be given several times",
    )  # fmt: skip
    group.addoption(
        f"{SANDBOX}-timeout", metavar="SECONDS", type=float, help="end the session after this time"
    )
    group.addoption(f"{SANDBOX}-kernel", metavar="VERSION", help="6.1 or 6.12, or the path of a linux.uml")
    group.addoption(f"{SANDBOX}-verbose", action="store_true", help="show the messages of its kernel")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Run the session in the sandbox, if the option is given, and exit with its exit code.

    It runs before output is captured, conftest.py is loaded, coverage is measured, or a worker is started.

    Raises:
        SystemExit: The session has run; a hook has no other way to end pytest with an exit code.
        pytest.UsageError: The sandbox cannot be started.
    """
    if early_config.known_args_namespace.vscsi_sandbox:
        from vscsihba.pytest_plugin import sandbox  # noqa: PLC0415 - see above

        if sandbox.is_wanted(early_config):
            raise SystemExit(sandbox.run_session(early_config))
    yield


@pytest.fixture
def vscsi_hba(request: pytest.FixtureRequest) -> "Iterator[VirtualHba]":
    """A virtual HBA without LUNs, with a free id; removed after the test."""
    from vscsihba.pytest_plugin.host import free_hba, missing  # noqa: PLC0415 - see above

    if (reason := missing()) is not None:
        stop = pytest.fail if request.config.getoption(REQUIRED) else pytest.skip
        stop(f"no virtual SCSI disks here: {reason}")
    with free_hba() as hba:
        yield hba


@pytest.fixture
def vscsi_disk(vscsi_hba: "VirtualHba", tmp_path: Path) -> "Iterator[MakeDisk]":
    """Create disks: ``vscsi_disk(size, faults=...)``, see `MakeDisk`; they are removed after the test."""
    from vscsihba.pytest_plugin.disk import make_disk  # noqa: PLC0415 - see above

    triggers = tmp_path / "vscsi"
    triggers.mkdir()
    yield partial(make_disk, vscsi_hba, triggers)
    # A disk that still fails or stalls would keep its HBA from being removed.
    for trigger in triggers.iterdir():
        trigger.unlink()
