"""Exports on a real kernel: LIO's iSCSI target made from a document, and open-iscsi as its initiator."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm import sticking
from tests.vm.daemon import Service, kill, size_of, vscsihba
from tests.vm.exported import HOST, NAME, PORTAL, document, left
from tests.vm.fio import Fio
from tests.vm.initiator import Initiator
from tests.vm.shell import SOAK, mounted, run

SECOND = "127.0.0.1:3261"
WRITE_10 = ("2a", "00", "00", "00", "00", "00", "00", "00", "01", "00")
TEST_UNIT_READY = ("00",) * 6
OTHER = "iqn.2026-11.example:host2"
KILLS = 10 if SOAK else 3
MiB = 1 << 20


def secret(folder: Path, name: str, password: str) -> str:
    path = folder / name
    path.write_text(f"{password}\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def initiator(service: Service, scratch: Path) -> Iterator[Initiator]:
    assert service.answers()
    with Initiator(HOST, scratch) as initiator:
        yield initiator


def test_an_initiator_with_chap_in_both_directions_has_a_disk_that_survives_its_engine(
    service: Service, scratch: Path, initiator: Initiator
) -> None:
    entry = {
        "name": HOST,
        "user": "u1",
        "password_file": secret(scratch, "u1.chap", "secret-of-u1"),
        "mutual_user": "store",
        "mutual_password_file": secret(scratch, "store.chap", "secret-of-store"),
    }
    wanted = document(scratch, "a", initiators=[entry])
    path = service.document(wanted)
    made = json.loads(vscsihba("apply", path, "--json"))["changes"]
    assert [step["kind"] for step in made][-1] == "add_export"
    assert service.changes("plan", wanted) == []
    assert "secret" not in vscsihba("show")

    initiator.record(NAME, PORTAL)
    initiator.authenticate(NAME, PORTAL, "u1", "wrong-secret-u1", ("store", "secret-of-store"))
    assert "authorization failure" in initiator.login(NAME, PORTAL, check=False)
    initiator.authenticate(NAME, PORTAL, "u1", "secret-of-u1", ("store", "wrong-secret-st"))
    initiator.login(NAME, PORTAL, check=False)
    assert service.ask("status")["exports"][0]["sessions"] == []
    initiator.authenticate(NAME, PORTAL, "u1", "secret-of-u1", ("store", "secret-of-store"))
    initiator.login(NAME, PORTAL)
    (shown,) = service.ask("status")["exports"]
    assert shown["state"] == "running"
    assert shown["sessions"] == [{"initiator": HOST, "addresses": ["127.0.0.1"]}]
    disk = initiator.disk(NAME, PORTAL, 0)
    run("mkfs.ext4", "-q", disk)
    refused = vscsihba("clear", "--all", code=1)
    assert f"{HOST} is logged in from 127.0.0.1" in refused
    with mounted(disk, scratch / "mnt") as folder:
        fio = Fio([folder / "fio"])
        try:
            for _ in range(KILLS):
                kill(service.engines(0)[0])
                wait_until(lambda: len(service.engines(0)) == 2, "another engine", limit=60)
                wait_until(service.all_run, "a disk that is served again", limit=60)
        finally:
            fio.finish()
    initiator.logout(NAME, PORTAL)
    vscsihba("clear", "--all")
    assert left() == []


def test_an_export_changes_while_it_is_used(service: Service, scratch: Path, initiator: Initiator) -> None:
    vscsihba("apply", service.document(document(scratch, "a", "b", initiators=[{"name": HOST}])))
    initiator.record(NAME, PORTAL)
    initiator.login(NAME, PORTAL)
    disk = initiator.disk(NAME, PORTAL, 0)
    vscsihba("resize", "a", "96MiB")
    initiator.rescan()
    wait_until(lambda: size_of(disk) == 96 * MiB, "a disk of the new size", limit=60)

    luns = [{"lun": 0, "backstore": "a"}, {"lun": 5, "backstore": "c", "read_only": True}]
    initiators = [{"name": HOST}, {"name": "iqn.2026-11.example:host2", "luns": [0]}]
    more = document(scratch, "a", "b", "c", initiators=initiators, luns=luns, portals=[PORTAL, SECOND])
    more["backstores"]["a"]["size"] = "96MiB"
    path = service.document(more)
    refused = vscsihba("apply", path, code=1)
    assert f"{HOST} is logged in" in refused
    assert "- LUN 1" in refused
    vscsihba("apply", path, "--force")
    assert service.changes("plan", more) == []
    initiator.rescan()
    protected = initiator.disk(NAME, PORTAL, 5)
    assert is_protected(protected)
    (shown,) = service.ask("status")["exports"]
    assert {lun["lun"]: lun["state"] for lun in shown["luns"]} == {0: "running", 5: "running"}
    assert len(shown["sessions"]) == 1
    assert json.loads(vscsihba("show"))["exports"] == [{**more["exports"][0], "portals": [PORTAL, SECOND]}]
    initiator.logout(NAME, PORTAL)


def test_a_foreign_initiator_is_refused(service: Service, scratch: Path, initiator: Initiator) -> None:
    vscsihba("apply", service.document(document(scratch, "a", initiators=[{"name": f"{HOST}2"}])))
    initiator.record(NAME, PORTAL)
    assert "authorization failure" in initiator.login(NAME, PORTAL, check=False)


def test_an_open_export_is_read_only(service: Service, scratch: Path, initiator: Initiator) -> None:
    vscsihba("apply", service.document(document(scratch, "a", open=True)))
    initiator.record(NAME, PORTAL)
    initiator.login(NAME, PORTAL)
    disk = initiator.disk(NAME, PORTAL, 0)
    assert service.ask("status")["exports"][0]["sessions"] == [{"initiator": HOST, "addresses": []}]
    run("sg_dd", f"if={disk}", "of=/dev/null", "bs=512", "count=8")
    assert is_protected(disk)


def test_a_portal_that_is_taken_or_elsewhere_changes_nothing(service: Service, scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 3262)):
        wanted = document(scratch, "a", portals=["127.0.0.1:3262"], initiators=[{"name": HOST}])
        refused = vscsihba("apply", service.document(wanted), code=2)
    assert "127.0.0.1:3262: another program listens there" in refused
    wanted["exports"][0]["portals"] = ["192.0.2.9:3260"]
    refused = vscsihba("apply", service.document(wanted), code=2)
    assert "192.0.2.9:3260: this machine does not have that address" in refused
    assert left() == []
    assert json.loads(vscsihba("show"))["hbas"] == []


def is_protected(disk: Path) -> bool:
    """Return whether a WRITE is refused because the LUN is read-only."""
    done = run("sg_raw", "-s", "512", "-i", "/dev/zero", disk, *WRITE_10, check=False)
    assert "Data Protect" in done, done
    return "Write protected" in done


def test_a_lun_whose_storage_does_not_answer_holds_nobody_up(
    service: Service, scratch: Path, initiator: Initiator
) -> None:
    flag = scratch / "flag"
    wanted = document(scratch, "a", "b", initiators=[{"name": HOST}])
    wanted["backstores"]["a"] = {
        "handler": f"{sticking.__file__}:sticking",
        "flag": str(flag),
        "verbs": ["write"],
        "next": wanted["backstores"]["a"],
    }
    vscsihba("apply", service.document(wanted))
    initiator.record(NAME, PORTAL)
    initiator.login(NAME, PORTAL)
    stuck, other = initiator.disk(NAME, PORTAL, 0), initiator.disk(NAME, PORTAL, 1)
    flag.touch()
    writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={stuck}", "bs=4k", "count=1", "oflag=direct"])
    try:
        wait_until(sticking.holding(flag).exists, "a write that is held", limit=60)
        use(other)
        wanted["exports"][0]["luns"] = [{"lun": 1, "backstore": "b"}]
        vscsihba("apply", service.document(wanted), "--force")
        use(other)
        vscsihba("clear", "--all", "--force")
        assert left() == []
    finally:
        flag.unlink()
        writer.wait(120)


def use(disk: Path) -> None:
    """Write to a disk, within the time that a healthy one takes."""
    run("dd", "if=/dev/zero", f"of={disk}", "bs=4k", "count=16", "oflag=direct", limit=60)


def test_an_initiator_fences_another_one_while_an_engine_dies(
    service: Service, scratch: Path, initiator: Initiator
) -> None:
    entries = [{"name": HOST}, {"name": OTHER}]
    vscsihba("apply", service.document(document(scratch, "a", initiators=entries)))
    initiator.record(NAME, PORTAL)
    initiator.login(NAME, PORTAL)
    one = generic(initiator.disk(NAME, PORTAL, 0))
    two = generic(initiator.login_as(OTHER, NAME, PORTAL))
    for node, key in ((one, "0xa"), (two, "0xb")):
        run("sg_persist", "--out", "--register-ignore", f"--param-sark={key}", "--param-aptpl", node)
    run("sg_persist", "--out", "--reserve", "--param-rk=0xa", "--prout-type=5", one)
    kill(service.engines(0)[0])
    run("sg_persist", "--out", "--preempt-abort", "--param-rk=0xb", "--param-sark=0xa", "--prout-type=5", two)
    assert service.lun(0, 0)["reservation"] == {
        "registrants": [OTHER],
        "type": "Write Exclusive Access, Registrants Only",
        "holder": OTHER,
    }
    run("sg_raw", one, *TEST_UNIT_READY, check=False)  # takes the unit attention: registrations preempted
    write = ("sg_raw", "-s", "512", "-i", "/dev/zero")
    assert "Reservation Conflict" in run(*write, one, *WRITE_10, check=False)
    run(*write, two, *WRITE_10)
    assert f"reserved by {OTHER}" in " ".join(vscsihba("status").split())
    run("sg_persist", "--out", "--clear", "--param-rk=0xb", two)
    assert service.lun(0, 0)["reservation"] is None


def generic(disk: Path) -> Path:
    """Return the node of a disk's sg device."""
    (folder,) = Path(f"/sys/class/block/{disk.name}/device/scsi_generic").iterdir()
    return Path("/dev") / folder.name
