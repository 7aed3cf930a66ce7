"""Disks that other computers reach over several paths, and disks that only they see: on a real kernel."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.polling import wait_until
from tests.vm.daemon import Service, kill, size_of, vscsihba
from tests.vm.exported import HOST, NAME, PORTAL, document, left
from tests.vm.fio import Fio
from tests.vm.initiator import Initiator
from tests.vm.multipath import Multipath
from tests.vm.shell import mounted, run

MiB = 1 << 20
SECOND = "127.0.0.1:3261"
THIRD = "127.0.0.2:3260"
STORE2 = f"{NAME}2"


def two_exports(folder: Path) -> dict[str, Any]:
    """Return a document with a disk on two portals of one export, and on a portal of another."""
    wanted = document(folder, "a", portals=[PORTAL, SECOND], initiators=[{"name": HOST}])
    wanted["hbas"][0]["luns"][0]["local"] = False
    wanted["exports"].append({**wanted["exports"][0], "name": STORE2, "portals": [THIRD]})
    return wanted


def written(disk: str) -> int:
    """Return the number of writes that a disk has completed."""
    return int(Path(f"/sys/class/block/{disk}/stat").read_text().split()[4])


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
    initiator.logout(NAME, PORTAL)
    wanted["hbas"][0]["luns"][0] = {"lun": 0, "backstore": "a"}
    wanted["backstores"]["a"]["size"] = "96MiB"
    assert "use --replace" in vscsihba("apply", service.document(wanted), code=2)
    vscsihba("apply", service.document(wanted), "--replace")
    assert json.loads(vscsihba("status", "--json"))["hbas"][0]["luns"][0]["device"].startswith("/dev/sd")
    vscsihba("clear", "--all")
    assert left() == []


def test_several_paths_to_one_disk(service: Service, scratch: Path, initiator: Initiator) -> None:
    """multipathd: the states follow those of the exports, paths go, and fio verifies its writes."""
    wanted = two_exports(scratch)
    vscsihba("apply", service.document(wanted))
    for name, portal in ((NAME, PORTAL), (NAME, SECOND), (STORE2, THIRD)):
        initiator.record(name, portal)
        initiator.login(name, portal)
        initiator.disk(name, portal, 0)
    with Multipath(scratch, preferred="127.0.0.2") as multipath:
        third = initiator.disk(STORE2, THIRD, 0).name
        multipath.wait_for({third: "ready"}, count=3)
        before = written(third)
        fio = Fio([multipath.node])
        try:
            wait_until(lambda: written(third) > before, "writes over the preferred path", limit=120)
            vscsihba("path", "set", STORE2, "--state", "standby")
            multipath.wait_for({third: "ghost"}, count=3)
            vscsihba("path", "set", STORE2, "--state", "unavailable")
            multipath.wait_for({third: "faulty"}, count=3)
            vscsihba("path", "set", STORE2, "--state", "active")
            multipath.wait_for({third: "ready"}, count=3)
            vscsihba("resize", "a", "96MiB")
            initiator.rescan()
            multipath.resize()
            assert size_of(multipath.node) == 96 * MiB
            wanted["backstores"]["a"]["size"] = "96MiB"
            wanted["exports"].pop(0)
            vscsihba("apply", service.document(wanted), "--prune", "all", "--force")
            multipath.wait_for({third: "ready"}, count=1, state="ready")
        finally:
            fio.finish()
    shown = [
        (path["path"], path["portal"], path["state"])
        for path in json.loads(vscsihba("path", "show", "--json"))
    ]
    assert shown == [(STORE2, THIRD, "active")]
