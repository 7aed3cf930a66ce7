"""Disks of ours beside targetcli and what LIO's own service saves and restores."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.daemon import RUNNING, Service, files, shows, vscsihba
from tests.vm.shell import mounted, run
from tests.vm.target import CONFIGFS

MiB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_saved() -> Iterator[None]:
    """LIO's own service has nothing to restore at the next start of the machine."""
    places = [Path("/etc/target/saveconfig.json"), Path("/etc/rtslib-fb-target/saveconfig.json")]
    assert not any(place.exists() for place in places)
    yield
    for place in places:
        place.unlink(missing_ok=True)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system bus, which targetcli cannot do without: the quick VM has none."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.stdout.readline().strip())
        yield
        daemon.terminate()


def restored(file: Path) -> str:
    """Return the configuration of a file as a backstore of LIO's own, as `targetctl restore` takes it."""
    made = {"plugin": "fileio", "name": "theirs", "dev": str(file), "size": MiB, "write_back": False}
    return json.dumps({"fabric_modules": [], "storage_objects": [made], "targets": []})


@pytest.mark.long
def test_targetcli_and_targetctl_see_ours_and_leave_them(
    own_service: Service, scratch: Path, bus: None
) -> None:
    service = own_service
    backstores = files(scratch, "d1", size=64)
    service.ask("apply", document={"version": 1, "backstores": backstores, "hbas": [shows(5, "d1")]})
    disk = service.disk(5, 0).node
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, scratch / "mnt") as where:
        shown = run("targetcli", "ls", limit=600)
        assert "vscsihba5-lun0" in shown
        assert "naa.50014055c51ba005" in shown
        run("targetctl", "save", limit=600)
        (where / "file").write_text("it still works")
        run("sync", "-f", where)
    said = vscsihba("doctor")
    assert "saveconfig.json has vscsihba5-lun0" in said

    # A start of the machine: first theirs, then the service.
    (scratch / "theirs.img").write_bytes(bytes(MiB))
    (scratch / "theirs.json").write_text(restored(scratch / "theirs.img"))
    service.ask("save")
    service.ask("clear")
    service.kill()
    RUNNING.unlink()
    try:
        run("targetctl", "restore", scratch / "theirs.json", limit=600)
        service.start()
        assert service.lun(5, 0)["state"] == "running"
        others = service.ask("status")["others"]
        assert [each["name"].rpartition("/")[2] for each in others] == ["theirs"]
        assert "theirs" in vscsihba("shell", "ls", "/others")
        service.ask("clear")
        assert list((CONFIGFS / "core").glob("fileio_*/theirs")) != []
    finally:
        for left in (CONFIGFS / "core").glob("fileio_*/theirs"):
            left.rmdir()
            left.parent.rmdir()
