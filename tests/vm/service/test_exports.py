"""Exports on a real kernel: LIO's iSCSI target made from a document, and open-iscsi as its initiator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.polling import wait_until
from tests.vm.daemon import Service, files, kill, shows, size_of, vscsihba
from tests.vm.fio import Fio
from tests.vm.initiator import Initiator
from tests.vm.shell import mounted, run

NAME = "iqn.2026-11.example:store"
HOST = "iqn.2026-11.example:host1"
PORTAL = "127.0.0.1:3260"
ISCSI = Path("/sys/kernel/config/target/iscsi")
MiB = 1 << 20


def secret(folder: Path, name: str, password: str) -> str:
    path = folder / name
    path.write_text(f"{password}\n")
    path.chmod(0o600)
    return str(path)


def document(folder: Path, *names: str, **export: Any) -> dict[str, Any]:
    """Return a document whose export shows each of its disks."""
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    whole = {"transport": "iscsi", "name": NAME, "portals": [PORTAL], "luns": luns, **export}
    return {
        "version": 1,
        "backstores": files(folder, *names, size=64),
        "hbas": [shows(0, *names)],
        "exports": [whole],
    }


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
    with mounted(disk, scratch / "mnt") as folder:
        assert (folder / "lost+found").is_dir()

    refused = vscsihba("clear", code=1)
    assert HOST in refused
    assert "logged in" in refused
