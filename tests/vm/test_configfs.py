"""Backstores, HBAs and LUNs on a real kernel; a minimal server of the test's own serves their rings."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from tests.polling import wait_until
from tests.vm.conftest import MakeImage, Serve
from tests.vm.minimal_ring import MinimalRing
from vscsihba.configfs import (
    Backstore,
    BackstoreSpec,
    LunDevice,
    Observed,
    backstore_name,
    clear_hba,
    create_backstore,
    create_hba,
    delete_backstore,
    delete_hba,
    find_backstore,
    link_lun,
    lio,
    observe,
    openers_of,
    paths,
    prepare,
    rescan,
    resize_backstore,
    set_attribute,
    set_queue_depth,
    unlink_lun,
    users_of,
    wait_for_lun,
    wwn_of,
)
from vscsihba.errors import HostError, InUseError

SIZE = 64 << 20
HBA = 200


class Rings:
    """Serves the rings of backstores.

    Attributes:
        served: The server of each ring, by the backstore's name.
    """

    def __init__(self) -> None:
        self.served: dict[str, MinimalRing] = {}

    def serve(self, backstore: Backstore) -> None:
        assert backstore.uio is not None
        self.served[backstore.name] = MinimalRing(backstore.uio, backstore.spec.size)

    def release(self, name: str) -> None:
        self.served.pop(name).close()

    def remove_hba(self) -> None:
        """Remove the HBA with its LUNs and backstores, in the order that the kernel needs."""
        for lun in observe().hbas[HBA].luns:
            unlink_lun(HBA, lun)
        delete_hba(HBA)
        for name in observe().backstores:
            self.release(name)
            delete_backstore(name)


@pytest.fixture(autouse=True)
def ready() -> None:
    prepare()


@pytest.fixture
def rings() -> Iterator[Rings]:
    rings = Rings()
    yield rings
    for name in list(rings.served):
        rings.release(name)


def spec(lun: int, size: int = SIZE, block_size: int = 512) -> BackstoreSpec:
    name = backstore_name(HBA, lun)
    return BackstoreSpec(name, size, f"test-{HBA}-{lun}", config=f"{HBA}/{lun}", block_size=block_size)


@pytest.fixture
def attach(rings: Rings) -> Iterator[Callable[..., list[LunDevice]]]:
    """Create the LUNs of one HBA; they are removed after the test."""

    def attach(*luns: BackstoreSpec) -> list[LunDevice]:
        create_hba(HBA)
        for lun, wanted in enumerate(luns):
            rings.serve(create_backstore(wanted))
            link_lun(HBA, lun, wanted.name)
        return [wait_for_lun(HBA, lun) for lun in range(len(luns))]

    yield attach
    rings.remove_hba()


def specs() -> list[BackstoreSpec]:
    """Return the settings of all backstores in the kernel, ordered by name."""
    return [backstore.spec for _, backstore in sorted(observe().backstores.items())]


def sectors(disk: Path) -> int:
    return int((Path("/sys/class/block") / disk.name / "size").read_text())


@contextlib.contextmanager
def left_behind(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program that makes LUNs and serves them; it does not outlive the context."""
    command = [sys.executable, "-m", "tests.vm.left_behind", str(HBA), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() in ("ready", "linking")
            yield process
        finally:
            process.kill()


def test_life_of_a_disk_call_by_call() -> None:
    wanted = spec(0)
    backstore = create_backstore(wanted)
    assert observe().backstores == {wanted.name: backstore}
    assert backstore.uio is not None
    ring = MinimalRing(backstore.uio, SIZE)
    host = create_hba(HBA)
    link_lun(HBA, 0, wanted.name)
    device = wait_for_lun(HBA, 0)
    assert device.address == f"{host}:0:1:0"
    assert device.disk.is_block_device()
    assert device.generic is not None
    assert device.generic.is_char_device()
    assert sectors(device.disk) == SIZE // 512
    lun = observe().hbas[HBA].luns[0]
    assert (lun.backstore, lun.disk, lun.generic) == (wanted.name, device.disk, device.generic)
    assert users_of(device.disk) == []
    assert f"(pid {Path('/proc/self').resolve().name})" in openers_of(backstore.uio)[0]
    unlink_lun(HBA, 0)
    delete_hba(HBA)
    ring.close()
    delete_backstore(wanted.name)
    assert not backstore.uio.exists()
    assert observe() == Observed()


def test_settings_are_read_back_as_they_were_set(attach: Callable[..., list[LunDevice]]) -> None:
    wanted = replace(spec(1, block_size=4096), cmd_ring_size_mb=2, max_data_area_mb=64, qfull_time_out=5)
    attach(spec(0), wanted)
    assert specs() == [spec(0), wanted]
    assert [lun.backstore for lun in observe().hbas[HBA].luns.values()] == [spec(0).name, wanted.name]


def test_nodes_are_found_without_udev(
    attach: Callable[..., list[LunDevice]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "UDEV_CONTROL", Path("/run/udev/nowhere"))
    (device,) = attach(spec(0))
    assert device.disk.is_block_device()


def test_growth_is_live_and_disturbs_nobody(attach: Callable[..., list[LunDevice]], rings: Rings) -> None:
    devices = attach(spec(0), spec(1))
    resize_backstore(spec(0).name, 2 * SIZE)
    rings.served[spec(0).name].size = 2 * SIZE
    rescan(devices[0].address)
    assert [sectors(device.disk) for device in devices] == [2 * SIZE // 512, SIZE // 512]
    assert specs() == [spec(0, 2 * SIZE), spec(1)]


def test_controls_of_the_kernel(attach: Callable[..., list[LunDevice]]) -> None:
    (device,) = attach(spec(0))
    set_queue_depth(device.address, 32)
    assert (Path("/sys/class/block") / device.disk.name / "device/queue_depth").read_text() == "32\n"
    set_attribute(spec(0).name, "qfull_time_out", 9)
    assert observe().backstores[spec(0).name].spec.qfull_time_out == 9
    with pytest.raises(HostError, match="Invalid argument"):
        set_attribute(spec(0).name, "cmd_time_out", 9)
    with pytest.raises(InUseError, match="still has 1 LUNs"):
        delete_hba(HBA)
    with pytest.raises(InUseError, match="busy"):
        delete_backstore(spec(0).name)


def test_lun_that_says_no_to_inquiry_is_not_left() -> None:
    backstore = create_backstore(spec(0))
    assert backstore.uio is not None
    with contextlib.closing(MinimalRing(backstore.uio, SIZE, refused=0x12)):
        create_hba(HBA)
        with pytest.raises(HostError, match="found no device at LUN 0"):
            link_lun(HBA, 0, backstore.name)
        delete_hba(HBA)
    delete_backstore(backstore.name)


def test_killed_server_is_cleared_away_under_io() -> None:
    with left_behind("2") as process:
        disk = observe().hbas[HBA].luns[0].disk
        with pytest.raises(InUseError, match="being served by python"):
            clear_hba(HBA)
        command = ["dd", f"if={disk}", "of=/dev/null", "bs=64k", "iflag=direct"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reader:
            process.kill()
            process.wait(60)
            assert len(clear_hba(HBA)) == 3
            assert reader.wait(60) in (0, 1)
    assert observe() == Observed()


def test_server_killed_while_linux_scans_is_cleared_away() -> None:
    with left_behind("1", "silent") as process:
        wait_until(lambda: "configfs_symlink" in Path(f"/proc/{process.pid}/stack").read_text())
        process.kill()
        assert list(observe().hbas[HBA].luns) == [0]
        assert clear_hba(HBA)
        process.wait(60)
    assert observe() == Observed()


def test_server_that_comes_back_late_loses_nothing(rings: Rings) -> None:
    """The timer of sd runs out meanwhile; the abort waits for the command's real end (cmd_time_out=0)."""
    with left_behind("1") as process:
        found = observe()
        disk = found.hbas[HBA].luns[0].disk
        assert disk is not None
        (Path("/sys/class/block") / disk.name / "device/timeout").write_text("3")
        process.kill()
        process.wait(60)
        command = ["dd", f"if={disk}", "of=/dev/null", "bs=64k", "iflag=direct", "count=64"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reader:
            with pytest.raises(subprocess.TimeoutExpired):
                reader.wait(8)
            for name in found.backstores:
                rings.serve(find_backstore(name))
            assert reader.wait(60) == 0
    rings.remove_hba()


def test_incomplete_objects_are_cleared() -> None:
    (paths.core() / "user_900" / backstore_name(HBA, 1)).mkdir(parents=True)
    (paths.loopback() / wwn_of(HBA) / "tpgt_1/lun/lun_4").mkdir(parents=True)
    assert clear_hba(HBA)
    assert observe() == Observed()


def test_foreign_target_is_never_changed() -> None:
    lio.create_backstore(
        "other", 901, dev_config="tgt/x", size=SIZE, serial="x", control="nl_reply_supported=-1"
    )
    node = next(path for path in Path("/sys/class/uio").iterdir() if "/other/" in (path / "name").read_text())
    with contextlib.closing(MinimalRing(Path("/dev") / node.name, SIZE)):
        lio.create_target(wwn_of(HBA))
        lio.link(wwn_of(HBA), 0, "other", 901)
        assert observe() == Observed(foreign=frozenset({HBA}))
        for touch in (create_hba, delete_hba, clear_hba, lambda hba_id: unlink_lun(hba_id, 0)):
            with pytest.raises(InUseError, match="belongs to another program"):
                touch(HBA)
        lio.unlink(wwn_of(HBA), 0)
        lio.delete_target(wwn_of(HBA))
    lio.delete_backstore("other", 901)


def test_users_of_a_mounted_partition(serve: Serve, image: MakeImage, tmp_path: Path) -> None:
    serve([image()], HBA)
    disk = observe().hbas[HBA].luns[0].disk
    assert disk is not None
    subprocess.run(["sfdisk", "--quiet", disk], input=",,L\n", text=True, check=True)
    part = Path(f"{disk}1")
    wait_until(part.is_block_device)
    subprocess.run(["mkfs.ext4", "-q", part], check=True)
    assert users_of(disk) == []
    subprocess.run(["mount", part, tmp_path], check=True)
    try:
        assert users_of(disk) == [f"{part} is mounted on {tmp_path}"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert users_of(disk) == []


@pytest.fixture
def no_udev(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep udev from looking at the devices of a test, whose own time is measured."""
    subprocess.run(["udevadm", "control", "--stop-exec-queue"], check=True)
    monkeypatch.setattr(paths, "UDEV_CONTROL", Path("/run/udev/nowhere"))
    yield
    subprocess.run(["udevadm", "control", "--start-exec-queue"], check=True)


@pytest.mark.usefixtures("no_udev")
def test_work_per_lun_does_not_grow(rings: Rings) -> None:
    """The work is counted in calls of functions, which a busy machine does not change."""

    def calls_of(act: Callable[[], object]) -> int:
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            act()
        finally:
            sys.setprofile(None)
        return calls

    created: list[int] = []
    linked: list[int] = []
    create_hba(HBA)
    for lun in range(100):
        created.append(calls_of(partial(create_backstore, spec(lun))))
        rings.serve(find_backstore(spec(lun).name))
        linked.append(calls_of(partial(link_lun, HBA, lun, spec(lun).name)))
    rings.remove_hba()
    for counts in (created, linked):
        first, last = median(counts[:20]), median(counts[-20:])
        print(f"median of 20: {first} calls at first, {last} at last")
        assert last < 3 * first
