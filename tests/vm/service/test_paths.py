"""Disks that other computers reach over several paths, and disks that only they see: on a real kernel."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.daemon import Service, kill, size_of, vscsihba
from tests.vm.exported import HOST, NAME, PORTAL, document, left
from tests.vm.initiator import Initiator
from tests.vm.shell import mounted, run

MiB = 1 << 20


@pytest.fixture
def initiator(service: Service, scratch: Path) -> Iterator[Initiator]:
    assert service.answers()
    with Initiator(HOST, scratch) as initiator:
        yield initiator


def test_a_disk_that_only_exports_show(service: Service, scratch: Path, initiator: Initiator) -> None:
    wanted = document(scratch, "a", "b", initiators=[{"name": HOST}])
    wanted["hbas"][0]["luns"][0]["local"] = False
    vscsihba("apply", service.document(wanted))
    assert service.changes("plan", wanted) == []
    shown = service.lun(0, 0)
    assert (shown["local"], shown["device"], shown["size"], shown["state"]) == (
        False,
        None,
        64 * MiB,
        "running",
    )
    initiator.record(NAME, PORTAL)
    initiator.login(NAME, PORTAL)
    disk = initiator.disk(NAME, PORTAL, 0)
    vscsihba("resize", "a", "96MiB")
    initiator.rescan()
    wait_until(lambda: size_of(disk) == 96 * MiB, "a disk of the new size", limit=60)
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, scratch / "mnt") as folder:
        kill(service.engines(0)[0])
        (folder / "file").write_bytes(bytes(MiB))
        wait_until(lambda: service.lun(0, 0)["state"] == "running", "a disk that is served again", limit=60)
    service.kill()
    service.start()
    assert service.lun(0, 0)["state"] == "running"
    initiator.logout(NAME, PORTAL)
    wanted["hbas"][0]["luns"][0] = {"lun": 0, "backstore": "a"}
    wanted["backstores"]["a"]["size"] = "96MiB"
    assert "use --replace" in vscsihba("apply", service.document(wanted), code=2)
    vscsihba("apply", service.document(wanted), "--replace")
    assert json.loads(vscsihba("status", "--json"))["hbas"][0]["luns"][0]["device"].startswith("/dev/sd")
    vscsihba("clear", "--all")
    assert left() == []
