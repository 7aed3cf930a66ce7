"""Storage that does not answer: its own LUN waits, its commands can be ended, and nothing old lands late."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm import sticking
from tests.vm.conftest import MakeImage, Serve
from tests.vm.fio import Fio
from tests.vm.sg_io import Told, send
from tests.vm.shell import SOAK, run
from tests.vm.target import Lun, Target

ON_TWO_PROCESSORS = pytest.mark.qemu("resets race with commands on two processors")

MiB = 1 << 20
BLOCK = 4096
HANDLERS = ("--handler", sticking.__file__)
OLD, NEW = b"old" * BLOCK, b"new" * BLOCK


class Sender(threading.Thread):
    """Sends one command by SG_IO on a thread of its own."""

    def __init__(self, lun: Lun, cdb: bytes, *, data_out: bytes = b"", timeout: float = 300) -> None:
        super().__init__()
        self._lun, self._cdb, self._data, self._timeout = lun, cdb, data_out, timeout
        self.told: Told | None = None
        self.start()

    def run(self) -> None:
        fd = os.open(self._lun.sg, os.O_RDWR)
        try:
            self.told = send(fd, self._cdb, data_out=self._data, timeout=self._timeout)
        finally:
            os.close(fd)

    def result(self) -> Told:
        """Return how the command ended, as soon as it has."""
        wait_until(lambda: self.told, "the end of the command")
        assert self.told is not None
        return self.told


class Reader(threading.Thread):
    """Reads the beginning of a disk by SG_IO on a thread of its own."""

    def __init__(self, lun: Lun) -> None:
        super().__init__()
        self._lun = lun
        self.data: bytes | None = None
        self.start()

    def run(self) -> None:
        fd = os.open(self._lun.sg, os.O_RDWR)
        try:
            self.data = send(fd, bytes([0x28, *write(OLD)[1:]]), data_in=len(OLD), timeout=300).data
        finally:
            os.close(fd)


def write(data: bytes) -> bytes:
    """Return a WRITE(10) of `data` to the beginning of a disk."""
    return bytes([0x2A, 0, 0, 0, 0, 0, 0]) + (len(data) // 512).to_bytes(2, "big") + b"\0"


def content(image: Path) -> bytes:
    """Return the beginning of an image, as much as is written there."""
    with image.open("rb") as file:
        return file.read(len(NEW))


def use(lun: Lun) -> None:
    """Write to a disk and read it."""
    run("dd", "if=/dev/urandom", f"of={lun.node}", "bs=64k", "count=8", "oflag=direct")
    run("dd", f"if={lun.node}", "of=/dev/null", "bs=64k", "count=8", "iflag=direct")


@pytest.fixture
def flag(scratch: Path) -> Iterator[Path]:
    """The storage of the first disk does not answer while this file exists; it does not outlive the test."""
    path = scratch / "stuck"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def disks(image: MakeImage) -> list[Path]:
    return [image("a.img", 16 * MiB), image("b.img", 16 * MiB)]


Start = Callable[[], Target]


@pytest.fixture
def start(serve: Serve, disks: list[Path], flag: Path) -> Start:
    """Serve two disks, of which the first may get stuck."""
    return lambda: serve([Path(f"sticking:{flag}|{disks[0]}"), disks[1]], options=HANDLERS)


@contextmanager
def stuck(flag: Path) -> Iterator[None]:
    """Inside, the storage of the first disk answers no write."""
    sticking.holding(flag).unlink(missing_ok=True)
    flag.touch()
    try:
        yield
    finally:
        flag.unlink()


def held(flag: Path) -> None:
    """Wait until a write is with the storage."""
    wait_until(sticking.holding(flag).exists, "a write that the storage does not answer")


def test_an_abort_ends_a_command_whose_storage_hangs(start: Start, disks: list[Path], flag: Path) -> None:
    target = start()
    stuck_lun, other = target.luns
    with stuck(flag):
        old = Sender(stuck_lun, write(OLD), data_out=OLD, timeout=5)
        held(flag)
        use(other)
        assert not old.result().good, "the kernel gives up, and the engine lets it"
        assert "its storage has not answered; newer commands wait" in target.errors()
        new = Sender(stuck_lun, write(NEW), data_out=NEW)
        use(other)
        assert new.told is None, "nothing newer is begun before the old write has come back"
    assert new.result().good
    assert content(disks[0]) == NEW, "the old write did not land over the new one"
    use(stuck_lun)
    assert "the storage has answered the aborted WRITE(10)" in target.errors()
    assert target.stop() == 0


@ON_TWO_PROCESSORS
def test_a_reset_ends_a_write_whose_storage_hangs(start: Start, disks: list[Path], flag: Path) -> None:
    """It passes for done (tcm_loop_release_cmd), as a volatile cache says, and so it is in the end."""
    target = start()
    stuck_lun, other = target.luns
    with stuck(flag):
        old = Sender(stuck_lun, write(OLD), data_out=OLD, timeout=30)
        held(flag)
        run("sg_reset", "--device", stuck_lun.sg)
        assert "its storage has not answered; newer commands wait" in target.errors()
        use(other)
    assert old.result().good
    wait_until(lambda: content(disks[0]) == OLD, "the old write is done all the same")
    while not (new := Sender(stuck_lun, write(NEW), data_out=NEW).result()).good:
        assert new.key == 6, "UNIT ATTENTION: the unit was reset"
    assert content(disks[0]) == NEW
    use(stuck_lun)
    assert target.stop() == 0


def test_a_reset_waits_for_a_read_whose_storage_hangs(
    serve: Serve, disks: list[Path], flag: Path, scratch: Path
) -> None:
    """It would pass for done, too, and its sender take anything for data."""
    disks[0].write_bytes(OLD.ljust(16 * MiB, b"\0"))
    target = serve([f'sticking:{flag};verbs=["read"]|{disks[0]}', disks[1]], options=HANDLERS)
    with stuck(flag):
        reading = Reader(target.luns[0])
        held(flag)
        resetting = threading.Thread(target=run, args=("sg_reset", "--device", target.luns[0].sg))
        resetting.start()
        wait_until(
            lambda: "LOGICAL UNIT RESET waits for READ(10)" in target.errors(), "the word that it waits"
        )
        assert reading.data is None
    resetting.join(120)
    reading.join(120)
    assert reading.data == OLD
    assert target.stop() == 0


@ON_TWO_PROCESSORS
def test_resets_with_io_under_way_lose_nothing(serve: Serve, disks: list[Path]) -> None:
    """Commands that they end pass for done. One storage never blocks, the other one always uses threads."""
    target = serve([disks[0], f"delay:0.002|{disks[1]}"])
    fio = Fio(target.luns, flushing=True)
    count = 0
    for _ in range(200 if SOAK else 40):
        for lun in target.luns:
            run("sg_reset", "--device", lun.sg)
            count += 1
        time.sleep(random.random() / 5)  # any moment is as good
    print(f"{count} resets, longest wait of an I/O {fio.finish():.2f} s")
    assert "may take it for successful" not in target.errors()
    assert target.stop() == 0


def test_a_disk_in_use_waits_out_what_its_timer_allows(start: Start, disks: list[Path], flag: Path) -> None:
    """The driver sd aborts and tries again, so a program that writes notices nothing but the time."""
    target = start()
    stuck_lun, other = target.luns
    (stuck_lun.sysfs / "device/timeout").write_text("8")
    done: list[str] = []

    def copy() -> None:
        done.append(run("dd", "if=/dev/zero", f"of={stuck_lun.node}", "bs=4k", "count=1", "oflag=direct"))

    with stuck(flag):
        copying = threading.Thread(target=copy)
        copying.start()
        held(flag)
        wait_until(lambda: "its storage has not answered" in target.errors(), "an abort")
        use(other)
    copying.join(120)
    assert done, "dd has ended, and without an error"
    use(stuck_lun)
    assert target.stop() == 0


@pytest.mark.long
def test_a_stuck_disk_can_be_left_to_another_engine(start: Start, disks: list[Path], flag: Path) -> None:
    """The engine that goes takes its hung threads along; its successor does the write again."""
    first = start()
    stuck_lun, other = first.luns
    with stuck(flag):
        old = Sender(stuck_lun, write(OLD), data_out=OLD)
        held(flag)
        second = start()
        assert first.stop() == 0
        use(other)
        assert old.told is None
    assert old.result().good
    assert content(disks[0]) == OLD
    use(stuck_lun)
    assert second.stop() == 0


@pytest.mark.long
def test_stuck_disks_are_shared_out_when_their_storage_answers(
    serve: Serve, disks: list[Path], flag: Path
) -> None:
    stacks = [Path(f"sticking:{flag}|{disk}") for disk in disks]
    first = serve(stacks, options=HANDLERS)
    with stuck(flag):
        writes = [Sender(lun, write(OLD), data_out=OLD) for lun in first.luns]
        held(flag)
        second = serve(stacks, options=HANDLERS)
        wait_until(lambda: "its storage does not answer" in first.errors(), "the word that it cannot let go")
        assert (first.rings(), second.rings()) == (2, 0), "two owners of a disk would be one too many"
    assert all(sender.result().good for sender in writes)
    wait_until(lambda: (first.rings(), second.rings()) == (1, 1), "one ring each")
    for lun in first.luns:
        use(lun)
    assert first.stop() == 0
    assert second.stop() == 0


@pytest.mark.long
def test_a_stuck_disk_does_not_keep_its_engine_from_ending(start: Start, flag: Path) -> None:
    """Data that cannot be written are lost, and reported as lost, as with any disk that is pulled."""
    target = start()
    stuck_lun, other = target.luns
    with stuck(flag):
        old = Sender(stuck_lun, write(OLD), data_out=OLD, timeout=5)
        held(flag)
        assert not old.result().good
        use(other)
        assert target.stop(limit=300) == 1
        assert "its storage does not answer" in target.errors()
        wait_until(lambda: not (stuck_lun.node.exists() or other.node.exists()), "both disks are gone")
    again = start()
    use(again.luns[0])
    assert again.stop() == 0
