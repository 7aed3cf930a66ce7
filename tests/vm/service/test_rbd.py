"""A file system on an image of a Ceph cluster, whose storage daemon and whose engine are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ceph import Cluster, cluster, missing
from tests.polling import wait_until
from tests.vm.daemon import RUNNING, SAVED, Service, kill, running_service, seconds_until, shows, vscsihba
from tests.vm.fio import Fio
from tests.vm.shell import mounted, run
from vscsihba.handlers.rbd import library

# The limit for a test that hangs. That of all tests is as short as one of the waits here, each of which says
# what it has waited for: on a busy machine the start of a cluster alone takes longer.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shared_ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file, each of which has an image of its own."""
    if lacking := missing():
        pytest.skip(lacking)
    scratch = os.environ.get("VSCSIHBA_SCRATCH")  # not in the memory of the sandbox
    folder = Path(scratch) / "ceph" if scratch else tmp_path_factory.mktemp("ceph")
    folder.mkdir(exist_ok=True)
    with cluster(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture
def ceph(shared_ceph: Cluster) -> Cluster:
    shared_ceph.mend()
    return shared_ceph


def document(ceph: Cluster, image: str, **options: object) -> dict[str, Any]:
    disk = {"handler": "rbd", "pool": "rbd", "image": image, "size": "128MiB", "conf": str(ceph.conf)}
    return {"version": 1, "backstores": {image: {**disk, **options}}, "hbas": [shows(0, image)]}


def test_ext4_outlives_the_storage_daemon_and_the_engine(
    ceph: Cluster, own_service: Service, scratch: Path
) -> None:
    service = own_service
    service.ask("apply", document=document(ceph, "ext4"))
    disk = service.disk(0, 0)
    # A busy machine starts daemons slowly, and Linux gives a command up after some 180 s by default.
    (disk.sysfs / "device/timeout").write_text("600")
    run("mkfs.ext4", "-q", disk.node)
    with mounted(disk.node, scratch / "mnt") as folder:
        fio = Fio([replace(disk, node=folder / "data")], flushing=True, size="1m")
        wait_until((folder / "data").exists, "fio has begun")
        for _ in range(2):
            ceph.kill_osd()
            ceph.start_osd()
        (engine,) = service.engines(0)
        kill(engine)
        away = seconds_until(lambda: service.engines(0) and service.all_run(), "another engine")
        ceph.kill_osd()
        (engine,) = service.engines(0)
        kill(engine)
        ceph.start_osd()
        print(f"longest wait of an I/O {fio.finish():.2f} s; another engine served after {away:.2f} s")
    run("e2fsck", "-fn", disk.node)
    assert "blocking it and breaking its lock" in service.errors()
    with ceph.pool() as pool, library.rbd().Image(pool, "ext4") as image:
        image.resize(192 << 20)  # by another client
    sectors = disk.sysfs / "size"
    wait_until(lambda: sectors.read_text() == f"{(192 << 20) // 512}\n", "Linux sees the new size", limit=60)
    service.ask("clear")
    assert ceph.command("osd blocklist ls")


@pytest.mark.long
def test_a_disk_whose_storage_stays_away_fails_and_can_be_removed(
    ceph: Cluster, own_service: Service
) -> None:
    service = own_service
    service.ask("apply", document=document(ceph, "away", timeout=1))
    disk = service.disk(0, 0)
    (disk.sysfs / "device/timeout").write_text("2")
    run("dd", "if=/dev/zero", f"of={disk.node}", "bs=4k", "count=1", "oflag=direct")
    ceph.kill_osd()
    for words in (
        (f"if={disk.node}", "of=/dev/null", "iflag=direct"),
        ("if=/dev/zero", f"of={disk.node}", "oflag=direct"),
    ):
        assert "error" in run("dd", *words, "bs=4k", "count=1", check=False)
    assert service.all_run()
    vscsihba("clear", "0")
    ceph.start_osd()
    service.ask("apply", document=document(ceph, "away"))
    run("dd", f"if={service.disk(0, 0).node}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")


def test_a_second_machine_takes_over_when_the_first_is_dead(ceph: Cluster, scratch: Path) -> None:
    """The service is the second machine: its saved document has the disk that another client serves."""
    entry = document(ceph, "second")
    image = entry["backstores"]["second"]
    notes = scratch / "notes"  # of the other machine
    notes.mkdir(mode=0o700)
    command = [sys.executable, "-m", "tests.handlers.rbd.owner", str(notes), json.dumps(image), "65"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "written\n"
        with running_service(scratch) as service:
            service.kill(signal.SIGTERM)
            RUNNING.unlink()  # as after a boot
            SAVED.parent.mkdir(exist_ok=True)
            SAVED.write_text(json.dumps(entry))
            service.start()
            wait_until(lambda: "is in use by the client" in service.errors(), "a refusal")
            assert "is in use by the client" in vscsihba("status")
            assert first.stdout.readline() == "written\n"
            first.kill()
            took = seconds_until(lambda: shown(service), "the disk on the second machine")
            print(f"the disk was there {took:.1f} s after the death of the first machine")
            node = service.disk(0, 0).node
            assert set(run("head", "--bytes=4096", node)) == {"A"}
            run("dd", "if=/dev/zero", f"of={node}", "bs=4k", "count=1", "oflag=direct")


def shown(service: Service) -> bool:
    """Return whether the service shows a LUN, which runs."""
    hbas = service.ask("status")["hbas"]
    return any(hba["luns"] for hba in hbas) and service.all_run()
