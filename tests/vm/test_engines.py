"""Several engines on one HBA: shares, handovers, deaths, with I/O going on."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.vm.conftest import Serve
from tests.vm.shell import run
from tests.vm.target import Lun, Target, wait_until

MiB = 1 << 20
Image = Callable[..., Path]


def rings(target: Target) -> int:
    """Return how many rings a process has open."""
    opened = {os.path.realpath(link) for link in Path(f"/proc/{target.process.pid}/fd").iterdir()}
    return sum(path.startswith("/dev/uio") for path in opened)


def work(luns: list[Lun]) -> None:
    """Write to every disk and read it back from the disk."""
    for lun in luns:
        run("dd", "if=/dev/urandom", f"of={lun.node}", "bs=64k", "count=8", "oflag=direct")
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=64k", "count=8", "iflag=direct")


def has_both(target: Target) -> bool:
    return rings(target) == 2


class Fio:
    """fio with verification, in the background."""

    def __init__(self, luns: list[Lun], seconds: int) -> None:
        jobs = [word for lun in luns for word in (f"--name={lun.node.name}", f"--filename={lun.node}")]
        self.process = subprocess.Popen(
            [
                "fio",
                "--rw=randwrite",
                "--bs=4k",
                "--iodepth=16",
                "--ioengine=libaio",
                "--direct=1",
                "--size=16m",
                "--time_based",
                f"--runtime={seconds}",
                "--verify=crc32c",
                "--verify_backlog=128",
                "--verify_fatal=1",
                "--group_reporting",
                *jobs,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def running(self) -> bool:
        return self.process.poll() is None

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, output
        assert "err= 0" in output
        return output


@pytest.fixture
def images(image: Image) -> list[Path]:
    return [image(f"{name}.img", 16 * MiB) for name in "abcd"]


def test_two_engines_own_two_of_four_luns_each_and_either_may_die(serve: Serve, images: list[Path]) -> None:
    first = serve(images)
    assert rings(first) == 4
    second = serve(images)
    wait_until(lambda: (rings(first), rings(second)) == (2, 2), "two rings each")
    assert [lun.node for lun in first.luns] == [lun.node for lun in second.luns]
    work(first.luns)
    first.process.send_signal(signal.SIGKILL)
    wait_until(lambda: rings(second) == 4, "the survivor has them all")
    work(second.luns)
    third = serve(images)
    wait_until(lambda: (rings(second), rings(third)) == (2, 2), "two rings each")
    assert second.stop() == 0
    wait_until(lambda: rings(third) == 4, "the last one has them all")
    work(third.luns)
    assert third.stop() == 0


def test_handovers_disturb_no_io(serve: Serve, images: list[Path]) -> None:
    target = serve(images[:2])
    fio = Fio(target.luns, 40)
    for _ in range(4):
        successor = serve(images[:2])
        assert target.stop() == 0
        target = successor
    assert fio.running(), "the handovers were to happen under I/O"
    fio.finish()
    assert target.stop() == 0


def test_kills_with_a_survivor_lose_nothing(serve: Serve, images: list[Path]) -> None:
    engines = [serve(images[:2]), serve(images[:2])]
    fio = Fio(engines[0].luns, 90)
    stalls = []
    for _ in range(5):
        victim, survivor = engines
        victim.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        wait_until(partial(has_both, survivor), "the survivor has both")
        stalls.append(time.monotonic() - killed)
        engines = [survivor, serve(images[:2])]
    assert fio.running(), "the kills were to happen under I/O"
    output = fio.finish()
    print(f"longest takeover {max(stalls):.2f} s; fio: {re.findall(r'clat.*max=.*', output)}")
    for engine in engines:
        assert engine.stop() == 0


def test_a_single_engine_restarted_by_hand_loses_nothing(serve: Serve, images: list[Path]) -> None:
    target = serve(images[:2])
    fio = Fio(target.luns, 60)
    for _ in range(3):
        target.process.send_signal(signal.SIGKILL)
        target.process.wait()
        time.sleep(3)  # nobody serves: commands wait in the ring
        target = serve(images[:2])
    assert fio.running()
    fio.finish()
    assert target.stop() == 0


def test_an_engine_says_which_luns_it_does_not_know(serve: Serve, images: list[Path]) -> None:
    first = serve(images)
    second = serve(images[:2])
    wait_until(
        lambda: second.read(0.1) and "also has LUN 2, 3, which this engine does not know" in second.output,
        "the notice",
    )
    wait_until(lambda: (rings(first), rings(second)) == (2, 2), "two rings each")
    assert first.stop() == 0
    wait_until(lambda: rings(second) == 2, "it keeps what it knows")
    work(second.luns)
    assert second.stop() == 0
