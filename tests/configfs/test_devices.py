from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pyudev

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    BackstoreSpec,
    LunDevice,
    create_backstore,
    create_hba,
    devices,
    link_lun,
    links_of,
    observer,
    paths,
    wait_for_generic,
    wait_for_lun,
)
from vscsihba.errors import HostError, UsageError

WAIT_FOR_UIO = devices.wait_for_uio
"""The real function, which the fake kernel replaces."""


class FakeDevice:
    """A device as pyudev shows it; its node is made when the test says so."""

    def __init__(self, node: Path, links: tuple[str, ...] = (), *, initialized: bool = True) -> None:
        self.device_node = str(node)
        self.device_links: Iterator[str] = iter(links)
        self.is_initialized = initialized

    @property
    def device_number(self) -> int:
        return Path(self.device_node).stat().st_rdev


class FakeUdev:
    """The parts of pyudev that are used: devices by path in /sys, and events that the test makes."""

    def __init__(self, kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = kernel
        self.known: dict[str, FakeDevice] = {}
        self.events = iter([lambda: None])
        self.source = ""
        monkeypatch.setattr(pyudev.Devices, "from_sys_path", self.device)
        monkeypatch.setattr(pyudev.Monitor, "from_netlink", self.monitor)
        monkeypatch.setattr(paths, "UDEV_CONTROL", kernel.dev / "udev-control")
        (kernel.dev / "udev-control").touch()

    def device(self, _context: object, path: str) -> FakeDevice:
        name = Path(path).name
        if name not in self.known:
            raise pyudev.DeviceNotFoundAtPathError(path)
        return self.known[name]

    def add(self, name: str, *links: str, initialized: bool = True) -> None:
        node = self.kernel.dev / name
        node.touch()
        self.known[name] = FakeDevice(node, links, initialized=initialized)

    def monitor(self, _context: object, source: str) -> "FakeUdev":
        self.source = source
        return self

    def filter_by(self, subsystem: str) -> None:
        assert subsystem in ("uio", "block", "scsi_generic")

    def start(self) -> None:
        return

    def poll(self, timeout: float) -> object | None:
        assert timeout > 0
        event = next(self.events, None)
        if event is not None:
            event()
        return None if event is dropped else event


def dropped() -> None:
    """An event of another subsystem: poll() returns None for it, long before the time is over."""


@pytest.fixture
def udev(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> FakeUdev:
    (kernel.sysfs / "class/scsi_generic").mkdir()
    create_backstore(BackstoreSpec("vscsihba0-lun0", 1 << 20, "serial"))
    create_hba(0)
    link_lun(0, 0, "vscsihba0-lun0")
    monkeypatch.setattr(devices, "wait_for_uio", WAIT_FOR_UIO)
    return FakeUdev(kernel, monkeypatch)


def test_nodes_that_are_there_are_found_at_once(udev: FakeUdev) -> None:
    by_id = "/dev/disk/by-id/scsi-3600"
    udev.add("sda", "/dev/disk/by-diskseq/7", by_id)
    udev.add("sg0")
    links = (Path(by_id), Path("/dev/disk/by-diskseq/7"))
    udev.known["sda"].device_links = iter(map(str, links[::-1]))
    dev = udev.kernel.dev
    assert wait_for_lun(0, 0, timeout=1) == LunDevice("6:0:1:0", dev / "sda", dev / "sg0", links)
    assert udev.source == "udev"


def test_an_event_that_the_filter_drops_does_not_end_the_wait(udev: FakeUdev) -> None:
    udev.events = iter([dropped, lambda: udev.add("sg0")])
    assert wait_for_generic(0, 0, timeout=1) == udev.kernel.dev / "sg0"


def test_node_is_waited_for_until_udev_is_done_with_it(udev: FakeUdev) -> None:
    udev.add("sg0", initialized=False)

    def done() -> None:
        udev.known["sg0"].is_initialized = True

    udev.events = iter([lambda: None, done])
    assert wait_for_generic(0, 0, timeout=1) == udev.kernel.dev / "sg0"


def test_node_is_taken_at_once_where_no_udev_runs(udev: FakeUdev) -> None:
    paths.UDEV_CONTROL.unlink()
    udev.add("sg0", initialized=False)
    assert wait_for_generic(0, 0, timeout=1) == udev.kernel.dev / "sg0"
    assert udev.source == "kernel"


def test_plain_file_is_no_node(udev: FakeUdev, monkeypatch: pytest.MonkeyPatch) -> None:
    udev.add("sg0")
    monkeypatch.setattr(FakeDevice, "device_number", 0x1500)
    with pytest.raises(HostError, match="sg node of LUN 0 of HBA 0 did not appear within 1 s"):
        wait_for_generic(0, 0, timeout=1)


@pytest.mark.parametrize("runs", [True, False])
def test_node_that_never_appears_is_an_error_with_a_cure(udev: FakeUdev, runs: bool) -> None:
    if not runs:
        paths.UDEV_CONTROL.unlink()
    with pytest.raises(HostError, match="is the ring being served"):
        wait_for_lun(0, 0, timeout=1)


def test_disk_without_sg_driver(udev: FakeUdev) -> None:
    (udev.kernel.sysfs / "class/scsi_generic").rmdir()
    udev.add("sda")
    assert wait_for_lun(0, 0, timeout=1).generic is None


def test_a_device_that_is_no_disk_has_its_generic_node(udev: FakeUdev) -> None:
    (udev.kernel.sysfs / "bus/scsi/devices/6:0:1:0/type").write_text("1\n")
    udev.add("sg0")
    generic = udev.kernel.dev / "sg0"
    assert wait_for_lun(0, 0, timeout=1) == LunDevice("6:0:1:0", generic, generic)


def test_ring_is_found_among_others(udev: FakeUdev) -> None:
    (udev.kernel.sysfs / "class/uio/uio9").mkdir()
    (udev.kernel.sysfs / "class/uio/uio9/name").write_text("tcm-user/0/other/tgt/x\n")
    udev.add("uio0")
    assert devices.wait_for_uio("vscsihba0-lun0", 0, timeout=1) == udev.kernel.dev / "uio0"
    assert observer.ring_of("vscsihba0-lun1", 0) is None


def test_ring_that_never_comes(udev: FakeUdev) -> None:
    with pytest.raises(HostError, match=r"the ring of backstore nobody \(/dev/uioN\) did not appear"):
        devices.wait_for_uio("nobody", 0, timeout=1)


def test_lun_without_hba(udev: FakeUdev) -> None:
    with pytest.raises(HostError, match="there is no HBA 5"):
        wait_for_lun(5, 0)


def test_links_of_a_disk_that_is_gone(udev: FakeUdev) -> None:
    assert links_of(Path("/dev/sdz")) == ()


class Clock:
    """Seconds, as the test has them; every look at an event takes one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(udev: FakeUdev, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    real = udev.poll

    def poll(timeout: float) -> object | None:
        made.now += timeout
        return real(timeout)

    monkeypatch.setattr(udev, "poll", poll)
    monkeypatch.setattr("vscsihba.configfs.devices.time", SimpleNamespace(monotonic=made))
    monkeypatch.setenv(devices.VARIABLE, "5")
    return made


def quiet(times: int) -> list[Callable[[], None]]:
    return [dropped] * times


def test_the_limit_counts_from_the_last_event(udev: FakeUdev, clock: Clock) -> None:
    busy = [*quiet(4), lambda: None] * 3
    udev.events = iter([*busy, lambda: udev.add("sg0")])
    assert wait_for_generic(0, 0) == udev.kernel.dev / "sg0"
    assert clock.now == 16


def test_another_state_of_the_device_is_progress(udev: FakeUdev, clock: Clock) -> None:
    def appear() -> None:
        udev.add("sg0", initialized=False)

    def appear_unseen() -> None:
        appear()
        udev.events = iter([*quiet(4), lambda: udev.add("sg0")])

    dropping = iter([*quiet(3), appear_unseen])
    udev.events = dropping
    assert wait_for_generic(0, 0) == udev.kernel.dev / "sg0"


def test_a_command_that_the_device_has_answered_is_progress(udev: FakeUdev, clock: Clock) -> None:
    count = udev.kernel.sysfs / "bus/scsi/devices/6:0:1:0/iodone_cnt"

    def answers(number: int) -> Callable[[], None]:
        def answer() -> None:
            count.write_text(hex(number))

        return answer

    steps: list[Callable[[], None]] = []
    for number in range(4):
        steps += [*quiet(3), answers(number)]
    udev.events = iter([*steps, lambda: udev.add("sg0")])
    monkey = udev.poll

    def silent(timeout: float) -> object | None:
        monkey(timeout)
        return None

    udev.poll = silent  # type: ignore[method-assign]
    assert wait_for_generic(0, 0) == udev.kernel.dev / "sg0"
    assert clock.now == 17


def test_a_wait_without_progress_says_how_long_and_for_what(udev: FakeUdev, clock: Clock) -> None:
    udev.add("sg0", initialized=False)
    udev.events = iter([*quiet(3), lambda: None])
    with pytest.raises(HostError) as raised:
        wait_for_generic(0, 0)
    assert raised.value.message == (
        "the sg node of LUN 0 of HBA 0 did not appear within 9 s, of which the last 5 s had no progress: "
        f"udev has not finished with {udev.kernel.dev / 'sg0'}"
    )
    assert devices.VARIABLE in str(raised.value)


def test_events_of_other_devices_do_not_prolong_the_wait_for_ever(udev: FakeUdev, clock: Clock) -> None:
    udev.events = iter([lambda: None] * 1000)
    with pytest.raises(HostError, match="within 20 s"):
        wait_for_generic(0, 0)


def test_a_limit_in_all_is_kept_in_spite_of_progress(udev: FakeUdev, clock: Clock) -> None:
    udev.events = iter([lambda: None] * 1000)
    with pytest.raises(HostError, match="did not appear within 3 s: Linux has not made the device"):
        wait_for_generic(0, 0, timeout=3)
    assert clock.now == 3


def test_the_limit_is_an_option() -> None:
    assert devices.node_timeout({}) == 60
    assert devices.node_timeout({devices.VARIABLE: ""}) == 60
    assert devices.node_timeout({devices.VARIABLE: "90"}) == 90


@pytest.mark.parametrize("word", ["0", "-1", "x", "1.5", "3601", "\uff11"])
def test_a_limit_that_cannot_be_meant_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"VSCSIHBA_NODE_TIMEOUT=.*set it to 1 to 3600"):
        devices.node_timeout({devices.VARIABLE: word})
