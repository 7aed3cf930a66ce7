"""The service on a real kernel: documents applied, changed under I/O, refused; beside vscsitarget."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Serve
from tests.vm.daemon import SAVED, Service, files, shows, size_of, vscsihba
from tests.vm.fio import Fio
from tests.vm.shell import mounted, run

MiB = 1 << 20
Document = dict[str, Any]


def test_a_document_becomes_disks_and_planning_it_again_finds_nothing(
    service: Service, scratch: Path
) -> None:
    key = scratch / "vault.key"
    key.write_bytes(b"k" * 64)
    key.chmod(0o600)
    document: Document = {
        "version": 1,
        "backstores": {
            "boot": {"handler": "file", "path": "boot.img", "size": "32MiB", "block_size": 4096},
            "scratch": {"handler": "memory", "size": "16MiB"},
            "vault": {
                "handler": "encrypt",
                "key_file": str(key),
                "create": True,
                "kdf_memory": "1MiB",
                "kdf_time": 1,
                "next": {"handler": "file", "path": str(scratch / "vault.img"), "size": "32MiB"},
            },
        },
        "hbas": [
            {
                "id": 0,
                "engines": 2,
                "luns": [
                    {"lun": 0, "backstore": "boot"},
                    {"lun": 1, "backstore": "vault", "read_only": True},
                ],
            },
            {"id": 7, "luns": [{"lun": 0, "backstore": "scratch", "removable": True}]},
        ],
    }
    path = service.document(document)
    made = json.loads(vscsihba("apply", path, "--json"))["changes"]
    assert [step["kind"] for step in made].count("add_lun") == 3
    assert json.loads(vscsihba("plan", path, "--json"))["changes"] == []
    boot, vault, memory = service.disk(0, 0).node, service.disk(0, 1).node, service.disk(7, 0).node
    assert (size_of(boot), size_of(memory)) == (32 * MiB, 16 * MiB)
    for node in (boot, memory):
        run("dd", "if=/dev/urandom", f"of={node}", "bs=64k", "count=16", "oflag=direct")
        run("dd", f"if={node}", "of=/dev/null", "bs=64k", "count=16", "iflag=direct")
    assert "Read-only" in run("dd", "if=/dev/zero", f"of={vault}", "bs=4k", "count=1", check=False)
    assert run("blockdev", "--getss", boot).strip() == "4096"
    assert run("lsblk", "--noheadings", "--output=RM", memory).strip() == "1"
    assert len(service.engines(0)) == 2
    assert service.changes("plan", json.loads(vscsihba("show"))) == []
    vscsihba("save")
    assert json.loads(SAVED.read_text())["hbas"][0]["engines"] == 2


def test_grow_drop_and_add_leave_the_others_io_alone(service: Service, scratch: Path) -> None:
    stacks = files(scratch, "a", "b", "c", "d", "e")
    first = {name: stacks[name] for name in "abcd"}
    service.changes("apply", {"version": 1, "backstores": first, "hbas": [shows(1, *"abcd", engines=2)]})
    fio = Fio([service.disk(1, 0), service.disk(1, 1)])
    grown, dropped = service.disk(1, 2).node, service.disk(1, 3).node
    stacks["c"]["size"] = "48MiB"
    second: Document = {
        "version": 1,
        "backstores": {name: stacks[name] for name in "abce"},
        "hbas": [{**shows(1, *"abc", engines=2)}],
    }
    second["hbas"][0]["luns"].append({"lun": 9, "backstore": "e"})
    done = service.changes("apply", second)
    assert sorted(kind for kind in done if "backstore" not in kind) == [
        "add_lun",
        "remove_lun",
        "resize",
    ]
    assert service.changes("plan", second) == []
    print(f"longest wait of the others: {fio.finish():.2f} s")
    assert size_of(grown) == 48 * MiB
    run("dd", "if=/dev/zero", f"of={grown}", "bs=1M", "count=48", "oflag=direct")
    assert not dropped.exists()
    assert service.disk(1, 9).node.exists()


def test_an_hba_needs_no_lun_0(service: Service) -> None:
    """The LUN that Linux scans first has its number in the CDB of INQUIRY."""
    numbers = (1, 8, 255)
    document: Document = {
        "version": 1,
        "backstores": {f"m{number}": {"handler": "memory", "size": "1MiB"} for number in numbers},
        "hbas": [{"id": number, "luns": [{"lun": number, "backstore": f"m{number}"}]} for number in numbers],
    }
    service.changes("apply", document)
    for number in numbers:
        assert size_of(service.disk(number, number).node) == MiB


def test_vscsitarget_and_the_service_keep_out_of_each_others_way(
    service: Service, scratch: Path, serve: Serve
) -> None:
    image = scratch / "original.img"
    image.write_bytes(bytes(MiB))
    target = serve([image], hba=5)
    document = {"version": 1, "backstores": files(scratch, "a"), "hbas": [shows(5, "a")]}
    refused = service.refused("apply", document=document)
    assert f"HBA 5 is served by vscsitarget {target.process.pid}" in refused
    service.changes("apply", {**document, "hbas": [shows(6, "a")]})
    assert {hba["id"] for hba in service.ask("status")["hbas"]} == {5, 6}
    assert service.lun(5, 0)["device"] == str(target.luns[0].node)
    beside = serve([image], hba=6, wait=False)
    assert beside.wait() == 1
    assert "HBA 6 is already served by vscsihba" in beside.errors()
    assert target.stop() == 0
    assert service.lun(6, 0)["state"] == "running"


def test_a_disk_in_use_is_not_taken_away(service: Service, scratch: Path) -> None:
    document: Document = {"version": 1, "backstores": files(scratch, "a", "b"), "hbas": [shows(0, "a", "b")]}
    service.changes("apply", document)
    node = service.disk(0, 1).node
    run("mkfs.ext4", "-q", node)
    less = {**document, "backstores": files(scratch, "a"), "hbas": [shows(0, "a")]}
    with mounted(node, scratch / "mnt"):
        assert "is mounted on" in vscsihba("apply", service.document(less), code=1)
        assert "is mounted on" in service.refused("clear", hba=0)
        assert service.changes("plan", document) == []
        (scratch / "mnt/file").write_text("still there")
    assert service.changes("apply", less) == ["remove_lun", "remove_backstore"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_luns_take_no_longer_each_than_ten(service: Service, scratch: Path) -> None:
    def apply(hba: int, count: int) -> float:
        names = [f"h{hba}-{number}" for number in range(count)]
        stacks = {name: {"handler": "memory", "size": "1MiB"} for name in names}
        begin = time.monotonic()
        service.ask("apply", document={"version": 1, "backstores": stacks, "hbas": [shows(hba, *names)]})
        return (time.monotonic() - begin) / count

    few = apply(10, 10)
    service.ask("clear")
    many = apply(11, 100)
    assert service.all_run()
    print(f"{few:.2f} s a LUN with 10, {many:.2f} s with 100: {many / few:.2f} times")
    begin = time.monotonic()
    service.ask("clear")
    print(f"100 cleared in {time.monotonic() - begin:.1f} s")
