"""Engines that die at the worst moments, and what their successors make of what they left."""

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm import sticking
from tests.vm.conftest import MakeImage, Serve
from tests.vm.counter import Counter
from tests.vm.fio import Fio
from tests.vm.shell import run
from tests.vm.target import Target
from vscsihba.tcmu import abi
from vscsihba.tcmu.uio import Uio, discover

MiB = 1 << 20
HANDLERS = ("--handler", sticking.__file__)
RUN = Path("/run/vscsihba/hba0")


def ended(target: Target) -> bool:
    return target.process.poll() is not None


@pytest.mark.long
def test_a_write_that_was_done_and_not_told_of_outlives_the_drivers_timer(
    serve: Serve, image: MakeImage, scratch: Path
) -> None:
    """The timer runs out while nobody serves: the abort waits in the ring, behind the write."""
    disk, data, flag = image("a.img", 16 * MiB), scratch / "data", scratch / "die"
    data.write_bytes(b"told" * 1024)
    stack = Path(f"dying:{flag}|{disk}")
    target = serve([stack], options=HANDLERS)
    node = target.luns[0].node
    (target.luns[0].sysfs / "device/timeout").write_text("4")
    told: list[str] = []
    flag.touch()
    writing = threading.Thread(
        target=lambda: told.append(run("dd", f"if={data}", f"of={node}", "bs=4k", "oflag=direct"))
    )
    writing.start()
    wait_until(lambda: ended(target), "its death")
    assert disk.read_bytes()[:4096] == data.read_bytes(), "the write is done"
    assert not told, "and nobody knows"
    time.sleep(10)  # longer than the timer: an abort is under way
    flag.unlink()
    successor = serve([stack], options=HANDLERS)
    writing.join(120)
    assert told, "the write has ended, and without an error"
    run("dd", "if=/dev/zero", f"of={node}", "bs=4k", "count=1", "oflag=direct")
    assert disk.read_bytes()[:4096] == bytes(4096), "nothing old comes after what is newer"
    assert successor.stop() == 0


def test_a_count_that_was_done_and_not_told_of_is_in_doubt_and_not_done_twice(
    serve: Serve, image: MakeImage, scratch: Path
) -> None:
    disk, flag = image("a.img", 16 * MiB), scratch / "die"
    stack = Path(f"dying:{flag}|{disk}")
    target = serve([stack], options=HANDLERS)
    counter = Counter(target.luns[0].sg)
    for _ in range(5):
        counter.increment()
    flag.touch()
    counting = threading.Thread(target=counter.increment)
    counting.start()
    wait_until(lambda: ended(target), "its death")
    flag.unlink()
    successor = serve([stack], options=HANDLERS)
    counting.join(120)
    assert (counter.told_good, counter.in_doubt, counter.value) == (5, 1, 6)
    counter.increment()
    assert counter.read() == counter.value == 7
    counter.close()
    assert successor.stop() == 0


@pytest.mark.parametrize(
    "damage", ["noise", *(pytest.param(name, marks=pytest.mark.long) for name in ("records", "cut", "tail"))]
)
def test_a_damaged_journal_costs_time_and_nothing_else(serve: Serve, image: MakeImage, damage: str) -> None:
    """Initiators are told BUSY for all that was under way; sd sends it again."""
    disks = [image("a.img", 16 * MiB), image("b.img", 16 * MiB)]
    target = serve(disks)
    fio = Fio(target.luns, flushing=True)
    for _ in range(3):
        wait_until(lambda: any(is_busy(lun) for lun in (0, 1)), "commands on the slow path")
        target.process.kill()
        target.process.wait()
        for lun in (0, 1):
            if damage == "tail":
                spoil_tail(lun)
            else:
                spoil(RUN / f"lun{lun}.journal", damage)
        target = serve(disks)
    print(f"longest wait of an I/O {fio.finish():.2f} s")
    assert "its commands are answered BUSY and sent again" in target.errors()
    assert target.stop() == 0


def is_busy(lun: int) -> bool:
    """Tell whether a journal has a record."""
    with (RUN / f"lun{lun}.journal").open("rb") as file:
        file.seek(4096)
        return any(file.read(4096))


def spoil_tail(lun: int) -> None:
    """Damage the one word of the ring's mailbox that is its server's."""
    (device,) = (found for found in discover() if found.config == f"hba0/lun{lun}")
    with closing(Uio(device)) as uio:
        uio.memory[abi.CMD_TAIL_OFFSET : abi.CMD_TAIL_OFFSET + 4] = b"\xf8\xff\xff\xff"


def spoil(journal: Path, damage: str) -> None:
    """Damage a journal as a mad process could."""
    if damage == "cut":
        with journal.open("r+b") as file:
            file.truncate(4096)
        return
    with journal.open("r+b") as file:
        file.seek(0 if damage == "noise" else 4096)
        file.write(b"\xa5" * 4096)
