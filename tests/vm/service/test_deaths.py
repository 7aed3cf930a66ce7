"""Deaths of every part of the service under I/O; a start of the machine; faults in the middle of changes."""

import json
import sys
import time
from pathlib import Path

import pytest

from tests.vm.daemon import RUNNING, Service, files, kill, seconds_until, shows, size_of, vscsihba
from tests.vm.fio import Fio
from tests.vm.shell import run
from tests.vm.target import target_objects

MiB = 1 << 20


@pytest.mark.long
def test_deaths_under_io_lose_nothing(own_service: Service, scratch: Path) -> None:
    service = own_service
    document = {
        "version": 1,
        "backstores": files(scratch, "a", "b"),
        "hbas": [shows(2, "a"), shows(3, "b", engines=2)],
    }
    service.ask("apply", document=document)
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
    assert service.changes("plan", document) == []
    wait = seconds_until(lambda: len(service.engines(3)) == 2, "two engines again")
    print(f"two engines again after {wait:.1f} s")


def test_statistics_go_on_when_an_engine_is_killed(own_service: Service, scratch: Path) -> None:
    service = own_service
    service.ask("apply", document={"version": 1, "backstores": files(scratch, "a"), "hbas": [shows(4, "a")]})
    node = service.disk(4, 0).node
    run("dd", "if=/dev/zero", f"of={node}", "bs=64K", "count=64", "oflag=direct")
    (before,) = json.loads(vscsihba("stats", node, "--json"))
    assert before["writes"]["bytes"] == 64 * (64 << 10)
    assert 0 < before["writes"]["p50"] <= before["writes"]["longest"] < 60
    (engine,) = service.engines(4)
    kill(engine)
    seconds_until(lambda: service.engines(4) not in ([], [engine]) and service.all_run(), "another engine")
    run("dd", "if=/dev/zero", f"of={node}", "bs=64K", "count=64", "oflag=direct")
    (after,) = json.loads(vscsihba("stats", "hba4/lun0", "--json"))
    assert 64 < after["writes"]["commands"] <= 128
    assert vscsihba("stats", "--reset", node) == "cleared the statistics of 1 disk\n"
    (cleared,) = json.loads(vscsihba("stats", node, "--json"))
    assert cleared["writes"]["commands"] == 0


def test_a_leg_that_was_added_stays_when_the_engine_is_replaced(own_service: Service, scratch: Path) -> None:
    service = own_service
    first, second, third = (scratch / f"{name}.img" for name in "abc")
    for image in (first, second, third):
        image.write_bytes(bytes(MiB))
    legs = [{"handler": "file", "path": str(image)} for image in (first, second)]
    stack = {"handler": "mirror", "path": str(scratch / "mirror"), "create": True, "legs": legs}
    service.ask("apply", document={"version": 1, "backstores": {"m": stack}, "hbas": [shows(4, "m")]})
    assert "added leg 2 to" in vscsihba("mirror", "add-leg", "hba4/lun0", third)
    (engine,) = service.engines(4)
    kill(engine)
    seconds_until(lambda: service.engines(4) not in ([], [engine]) and service.all_run(), "another engine")
    assert len(service.ask("show")["backstores"]["m"]["legs"]) == 3
    told = service.ask("act", hba=4, lun=0, layer="mirror", action="status", arguments={})
    assert told["result"]["legs"][2]["identity"] == f"file:{third.resolve()}"


def test_the_saved_document_comes_back_after_a_start_of_the_machine(
    own_service: Service, scratch: Path
) -> None:
    """Disks with missing files are served once these are back, and keep no other waiting."""
    service = own_service
    image, away = scratch / "c.img", scratch / "away.img"
    made, lost = scratch / "b.img", scratch / "lost.img"
    image.write_bytes(bytes(MiB))
    stacks = {**files(scratch, "a", "b"), "c": {"handler": "file", "path": str(image)}}
    document = {"version": 1, "backstores": stacks, "hbas": [shows(4, "a", "b", "c")]}
    service.ask("apply", document=document)
    run("dd", "if=/dev/zero", f"of={service.disk(4, 0).node}", "bs=1M", "count=1", "oflag=direct")
    service.ask("save")
    service.ask("clear")
    assert not [path for path in target_objects() if "vscsihba" in path.name]
    service.kill()
    RUNNING.unlink()  # as /run is empty after a boot
    made.rename(lost)
    image.rename(away)

    service.start()
    assert service.lun(4, 0)["state"] == "running"
    assert "only adding the LUN makes one" in service.lun(4, 1)["state"]
    assert "c.img" in service.lun(4, 2)["state"]
    assert not made.exists()
    lost.rename(made)
    away.rename(image)
    seconds_until(service.all_run, "the disks whose files are there again")
    assert size_of(service.disk(4, 1).node) == 16 * MiB
    assert service.changes("plan", document) == []


FAULTS = """
import json, sys
from pathlib import Path
from vscsihba import configfs
from vscsihba.daemon.hba_engines import HbaEngines
from vscsihba.daemon.service import Service
from vscsihba.daemon.state import State
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.errors import HostError

folder = Path(sys.argv[1])
calls, refused = [0], [None]

def counted(real):
    def call(self, *words, **options):
        calls[0] += 1
        if calls[0] - 1 == refused[0]:
            raise HostError("refused")
        return real(self, *words, **options)
    return call

for kind, names in (
    (Supervisor, ("add_hba", "remove_hba")),
    (HbaEngines, ("set_size", "add", "remove", "enlarge", "tune")),
):
    for name in names:
        setattr(kind, name, counted(getattr(kind, name)))

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

supervisor = Supervisor()
service = Service(supervisor, State(folder / "run", folder / "saved.json", folder / "devices.json"))
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


@pytest.mark.long
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
