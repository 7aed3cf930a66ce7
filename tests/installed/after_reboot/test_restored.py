"""After a reboot the service has restored the saved document: the same disks, names and content.

The saved document has an entry that cannot be read, and a file system was mounted at the shutdown.
The tests build on each other, in the order of the file.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.installed import record
from tests.installed.service import (
    BROKEN_HBA,
    CONTENT,
    FOLDER,
    PROGRAM,
    UNIT,
    luns,
    run,
    running,
    wait_for_service,
)


@pytest.fixture(scope="module")
def left() -> dict[str, Any]:
    """The record of the tests before the reboot, with the service up again."""
    found = record.found()
    wait_for_service(partial(running, but=BROKEN_HBA), "the service with all its disks but the broken one")
    return found


def test_the_disks_have_their_names_again(left: dict[str, Any]) -> None:
    assert [lun["by_id"] for lun in luns()[:-1]] == left["by_id"]
    for lun in luns()[:-1]:
        assert Path(lun["by_id"]).resolve() == Path(lun["device"])


def test_the_content_is_there(left: dict[str, Any], tmp_path: Path) -> None:
    run("mount", "-o", "ro", luns()[0]["device"], tmp_path)
    try:
        assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == left["digest"]
    finally:
        run("umount", tmp_path)
    run("e2fsck", "-fn", luns()[0]["device"])


def test_the_machine_went_down_without_waiting(left: dict[str, Any]) -> None:
    """A stop job that hangs takes 90 s; the journal of the boot before ends after all stop jobs."""
    journal = run("journalctl", "--boot=-1", "--output=short-unix", "--no-pager")
    told = journal[journal.rindex("System is rebooting") :].splitlines()
    began = float(journal[: journal.rindex("System is rebooting")].splitlines()[-1].split()[0])
    assert 0 <= float(told[-1].split()[0]) - began < 85, told
    assert not [line for line in told if "Failed unmounting" in line]
    about = [line for line in told if f" {UNIT}: " in line]
    assert any("Deactivated successfully" in line for line in about), about
    assert not any("Failed with result" in line for line in about), about


def test_a_file_system_of_fstab_was_unmounted_before_its_disk_went(left: dict[str, Any]) -> None:
    """If not, its journal would be replayed."""
    folder = FOLDER / "netdev"
    assert folder.is_mount(), "it is mounted again once the service is ready"
    assert (folder / "file").read_bytes() == CONTENT
    kernel = run("journalctl", "--boot", "--dmesg", "--no-pager")
    name = Path(luns()[2]["device"]).name
    assert f"EXT4-fs ({name}): mounted" in kernel, kernel
    assert f"EXT4-fs ({name}): recovery" not in kernel, kernel
    assert "I/O error" not in kernel, kernel


def test_an_entry_that_cannot_be_read_is_failing_until_it_is_mended(left: dict[str, Any]) -> None:
    broken = luns()[-1]
    assert broken["backstore"] == "broken"
    assert "of-another-version" in broken["state"]
    saved = Path("/etc/vscsihba/config.json")
    document = json.loads(saved.read_text())
    document["backstores"]["broken"] = {"handler": "memory", "size": "16MiB"}
    saved.write_text(json.dumps(document))
    wait_for_service(running, "the disk whose entry was mended")


def test_nothing_is_to_do_for_the_saved_document(left: dict[str, Any]) -> None:
    assert json.loads(run(PROGRAM, "plan", "/etc/vscsihba/config.json", "--json"))["changes"] == []


def test_no_unit_has_failed(left: dict[str, Any]) -> None:
    assert UNIT not in run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
