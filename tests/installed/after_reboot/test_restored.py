"""After a reboot the service has restored what was saved: the same disks, names and content."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.installed import record
from tests.installed.service import PROGRAM, UNIT, luns, run, running, wait_for_service


@pytest.fixture(scope="module")
def left() -> dict[str, Any]:
    """The record of the tests before the reboot, with the service up again."""
    found = record.found()
    wait_for_service(running, "the service with all its disks")
    return found


def test_the_disks_have_their_names_again(left: dict[str, Any]) -> None:
    assert [lun["by_id"] for lun in luns()] == left["by_id"]
    for lun in luns():
        assert Path(lun["by_id"]).resolve() == Path(lun["device"])


def test_the_content_is_there(left: dict[str, Any], tmp_path: Path) -> None:
    run("mount", "-o", "ro", luns()[0]["device"], tmp_path)
    try:
        assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == left["digest"]
    finally:
        run("umount", tmp_path)
    run("e2fsck", "-fn", luns()[0]["device"])


def test_nothing_is_to_do_for_the_saved_document(left: dict[str, Any]) -> None:
    assert json.loads(run(PROGRAM, "plan", "/etc/vscsihba/config.json", "--json"))["changes"] == []


def test_no_unit_has_failed(left: dict[str, Any]) -> None:
    assert UNIT not in run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
