"""The service on a real kernel: documents applied, changed under I/O, restored; deaths of every part."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Serve
from tests.vm.daemon import (
    RUNNING,
    SAVED,
    Service,
    kill,
    running_service,
    seconds_until,
    size_of,
    vscsihba,
)
from tests.vm.fio import Fio
from tests.vm.shell import mounted, run
from tests.vm.target import target_objects

MiB = 1 << 20
Document = dict[str, Any]


@pytest.fixture
def service(scratch: Path) -> Iterator[Service]:
    with running_service(scratch) as made:
        yield made


def files(folder: Path, *names: str, size: int = 16) -> dict[str, Any]:
    return {
        name: {"handler": "file", "path": str(folder / f"{name}.img"), "size": f"{size}MiB"} for name in names
    }


def shows(hba: int, *names: str, engines: int = 1) -> dict[str, Any]:
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    return {"id": hba, "engines": engines, "luns": luns}


def changed(service: Service, document: Document) -> list[str]:
    """Apply a document and return the kinds of what was done."""
    path = service.document(document)
    return [step["kind"] for step in json.loads(vscsihba("apply", path, "--json"))["changes"]]


def planned(service: Service, document: Document) -> list[str]:
    path = service.document(document)
    return [step["kind"] for step in json.loads(vscsihba("plan", path, "--json"))["changes"]]


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
    assert changed(service, document).count("add_lun") == 3
    assert planned(service, document) == []
    boot, vault, memory = service.disk(0, 0).node, service.disk(0, 1).node, service.disk(7, 0).node
    assert (size_of(boot), size_of(memory)) == (32 * MiB, 16 * MiB)
    for node in (boot, memory):
        run("dd", "if=/dev/urandom", f"of={node}", "bs=64k", "count=16", "oflag=direct")
        run("dd", f"if={node}", "of=/dev/null", "bs=64k", "count=16", "iflag=direct")
    assert "Read-only" in run("dd", "if=/dev/zero", f"of={vault}", "bs=4k", "count=1", check=False)
    assert run("blockdev", "--getss", boot).strip() == "4096"
    assert run("lsblk", "--noheadings", "--output=RM", memory).strip() == "1"
    assert len(service.engines(0)) == 2
    (again := service.folder / "shown.json").write_text(vscsihba("show"))
    assert json.loads(vscsihba("plan", again, "--json"))["changes"] == []
    vscsihba("save")
    assert json.loads(SAVED.read_text())["hbas"][0]["engines"] == 2


def test_grow_drop_and_add_leave_the_others_io_alone(service: Service, scratch: Path) -> None:
    stacks = files(scratch, "a", "b", "c", "d", "e")
    first = {name: stacks[name] for name in "abcd"}
    changed(service, {"version": 1, "backstores": first, "hbas": [shows(1, *"abcd", engines=2)]})
    fio = Fio([service.disk(1, 0), service.disk(1, 1)])
    grown, dropped = service.disk(1, 2).node, service.disk(1, 3).node
    stacks["c"]["size"] = "48MiB"
    second: Document = {
        "version": 1,
        "backstores": {name: stacks[name] for name in "abce"},
        "hbas": [{**shows(1, *"abc", engines=2)}],
    }
    second["hbas"][0]["luns"].append({"lun": 9, "backstore": "e"})
    assert sorted(kind for kind in changed(service, second) if "backstore" not in kind) == [
        "add_lun",
        "remove_lun",
        "resize",
    ]
    assert planned(service, second) == []
    print(f"longest wait of the others: {fio.finish():.2f} s")
    assert size_of(grown) == 48 * MiB
    run("dd", "if=/dev/zero", f"of={grown}", "bs=1M", "count=48", "oflag=direct")
    assert not dropped.exists()
    assert service.disk(1, 9).node.exists()


def test_deaths_under_io_lose_nothing(service: Service, scratch: Path) -> None:
    document = {
        "version": 1,
        "backstores": files(scratch, "a", "b"),
        "hbas": [shows(2, "a"), shows(3, "b", engines=2)],
    }
    changed(service, document)
    fio = Fio([service.disk(2, 0), service.disk(3, 0)])

    service.kill()
    before = {path.name for path in Path("/run/vscsihba/hba2").glob("engine-*.control")}
    service.start()
    assert {path.name for path in Path("/run/vscsihba/hba2").glob("engine-*.control")} == before, "adopted"

    (engine,) = service.engines(2)
    kill(engine)
    took = seconds_until(lambda: service.engines(2) not in ([], [engine]), "another engine")
    print(f"another engine after {took:.1f} s")
    kill(service.engines(3)[0])

    (engine,) = service.engines(2)
    service.kill()
    kill(engine)
    begin = time.monotonic()
    service.start()
    seconds_until(service.all_run, "all LUNs served")
    print(f"both are back after {time.monotonic() - begin:.1f} s")

    print(f"longest wait of an I/O: {fio.finish():.2f} s")
    assert planned(service, document) == []
    wait = seconds_until(lambda: len(service.engines(3)) == 2, "two engines again")
    print(f"two engines again after {wait:.1f} s")


def test_the_saved_document_comes_back_after_a_start_of_the_machine(service: Service, scratch: Path) -> None:
    document = {"version": 1, "backstores": files(scratch, "a", "b"), "hbas": [shows(4, "a", "b")]}
    changed(service, document)
    run("dd", "if=/dev/zero", f"of={service.disk(4, 0).node}", "bs=1M", "count=1", "oflag=direct")
    vscsihba("save")
    service.ask("clear")
    assert not [path for path in target_objects() if "vscsihba" in path.name]
    service.kill()
    RUNNING.unlink()  # as /run is empty after a boot
    (scratch / "b.img").unlink()
    service.start()
    assert service.lun(4, 0)["state"] == "running"
    assert size_of(service.disk(4, 1).node) == 16 * MiB
    assert planned(service, document) == []


def test_a_disk_that_cannot_be_restored_keeps_no_other_waiting(service: Service, scratch: Path) -> None:
    image = scratch / "b.img"
    image.write_bytes(bytes(MiB))
    stacks = {**files(scratch, "a"), "b": {"handler": "file", "path": str(image)}}
    document = {"version": 1, "backstores": stacks, "hbas": [shows(4, "a", "b")]}
    changed(service, document)
    vscsihba("save")
    service.ask("clear")
    service.kill()
    RUNNING.unlink()
    image.rename(scratch / "away.img")
    service.start()
    assert service.lun(4, 0)["state"] == "running"
    assert "b.img" in service.lun(4, 1)["state"]
    (scratch / "away.img").rename(image)
    seconds_until(service.all_run, "the disk that is there again")


def test_vscsitarget_and_the_service_keep_out_of_each_others_way(
    service: Service, scratch: Path, serve: Serve
) -> None:
    image = scratch / "original.img"
    image.write_bytes(bytes(MiB))
    target = serve([image], hba=5)
    document = {"version": 1, "backstores": files(scratch, "a"), "hbas": [shows(5, "a")]}
    refused = vscsihba("apply", service.document(document), code=1)
    assert f"HBA 5 is served by vscsitarget {target.process.pid}" in refused
    changed(service, {**document, "hbas": [shows(6, "a")]})
    assert {hba["id"] for hba in service.ask("status")["hbas"]} == {5, 6}
    assert service.lun(5, 0)["device"] == str(target.luns[0].node)
    beside = serve([image], hba=6, wait=False)
    assert beside.wait() == 1
    assert "id=6 is already served by vscsihba" in beside.errors()
    assert target.stop() == 0
    assert service.lun(6, 0)["state"] == "running"


def test_a_disk_in_use_is_not_taken_away(service: Service, scratch: Path) -> None:
    document: Document = {"version": 1, "backstores": files(scratch, "a", "b"), "hbas": [shows(0, "a", "b")]}
    changed(service, document)
    node = service.disk(0, 1).node
    run("mkfs.ext4", "-q", node)
    less = {**document, "backstores": files(scratch, "a"), "hbas": [shows(0, "a")]}
    with mounted(node, scratch / "mnt"):
        assert "is mounted on" in vscsihba("apply", service.document(less), code=1)
        assert "is mounted on" in vscsihba("clear", "0", code=1)
        assert planned(service, document) == []
        (scratch / "mnt/file").write_text("still there")
    assert changed(service, less) == ["remove_lun", "remove_backstore"]


FAULTS = """
import json, sys
from pathlib import Path
from vscsihba import configfs
from vscsihba.daemon.service import Service
from vscsihba.daemon.state import State
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.errors import HostError

folder = Path(sys.argv[1])
calls, refused = [0], [None]

def counted(name):
    def call(self, *words, **options):
        calls[0] += 1
        if calls[0] - 1 == refused[0]:
            raise HostError("refused")
        return getattr(Supervisor, name)(self, *words, **options)
    return call

NAMES = ("add_hba", "remove_hba", "set_engines", "add_lun", "remove_lun", "enlarge", "tune")
Faulty = type("Faulty", (Supervisor,), {name: counted(name) for name in NAMES})

def document(*luns, sizes={}):
    stacks = {
        name: {"handler": "file", "path": str(folder / name), "size": sizes.get(name, "1MiB")}
        for _, _, name in luns
    }
    ids = sorted({hba for hba, _, _ in luns})
    return {"version": 1, "backstores": stacks, "hbas": [
        {"id": hba, "luns": [{"lun": n, "backstore": name} for h, n, name in luns if h == hba]} for hba in ids
    ]}

def there():
    found = configfs.observe()
    return {str(key): sorted(hba.luns) for key, hba in found.hbas.items()}, sorted(found.backstores)

supervisor = Faulty()
service = Service(supervisor, State(folder / "run", folder / "saved.json"))
service.resume()
quiet = lambda report: None
old = document((8, 0, "a"), (8, 1, "b"))
new = document((8, 0, "a"), (8, 2, "c"), (9, 0, "d"), sizes={"a": "2MiB"})
service.apply(old, quiet)
before, outcomes = there(), []
for number in range(100):
    calls[0], refused[0] = 0, number
    try:
        service.apply(new, quiet)
    except HostError:
        refused[0] = None
        again = [step["kind"] for step in service.plan(old)["changes"]]
        outcomes.append(there() == before and again == [])
        continue
    break
refused[0] = None
after = there()
twice = service.plan(new)["changes"]
service.clear(quiet)
supervisor.close()
print(json.dumps([outcomes, before, after, twice, there()]))
"""


def test_a_fault_at_any_step_leaves_the_old_state(scratch: Path) -> None:
    (scratch / "run").mkdir()
    told = run(sys.executable, "-c", FAULTS, scratch, limit=1500).splitlines()[-1]
    outcomes, before, after, twice, nothing = json.loads(told)
    assert len(outcomes) >= 5
    assert all(outcomes)
    assert before == [{"8": [0, 1]}, ["vscsihba8-lun0", "vscsihba8-lun1"]]
    assert after[0] == {"8": [0, 2], "9": [0]}
    assert twice == []
    assert nothing == [{}, []]


@pytest.mark.timeout(3600)
def test_a_hundred_luns_take_no_longer_each_than_ten(service: Service, scratch: Path) -> None:
    def apply(hba: int, count: int) -> float:
        names = [f"h{hba}-{number}" for number in range(count)]
        stacks = {name: {"handler": "memory", "size": "1MiB"} for name in names}
        path = service.document({"version": 1, "backstores": stacks, "hbas": [shows(hba, *names)]})
        begin = time.monotonic()
        vscsihba("apply", path)
        return (time.monotonic() - begin) / count

    few = apply(10, 10)
    service.ask("clear")
    many = apply(11, 100)
    assert service.all_run()
    print(f"{few:.2f} s a LUN with 10, {many:.2f} s with 100: {many / few:.2f} times")
    begin = time.monotonic()
    service.ask("clear")
    print(f"100 cleared in {time.monotonic() - begin:.1f} s")
