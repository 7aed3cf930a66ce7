"""Several engines on one HBA: shares, handovers, deaths, with I/O going on."""

import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.counter import Counter
from tests.vm.fio import Fio
from tests.vm.shell import SOAK, run
from tests.vm.target import Lun, Target

ON_TWO_PROCESSORS = pytest.mark.qemu("engines take over from each other on two processors")

MiB = 1 << 20
Image = Callable[..., Path]


def work(luns: list[Lun]) -> None:
    """Write to every disk and read it back from the disk."""
    for lun in luns:
        run("dd", "if=/dev/urandom", f"of={lun.node}", "bs=64k", "count=8", "oflag=direct")
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=64k", "count=8", "iflag=direct")


def counts_from(counter: Counter, value: int, failures: list[BaseException]) -> bool:
    return counter.value > value + 20 or bool(failures)


def owns(target: Target, count: int) -> bool:
    return target.rings() == count


@pytest.fixture
def images(image: Image) -> list[Path]:
    return [image(f"{name}.img", 16 * MiB) for name in "abcd"]


def test_two_engines_own_two_of_four_luns_each_and_either_may_die(serve: Serve, images: list[Path]) -> None:
    first = serve(images)
    assert first.rings() == 4
    second = serve(images)
    wait_until(lambda: (first.rings(), second.rings()) == (2, 2), "two rings each")
    assert [lun.node for lun in first.luns] == [lun.node for lun in second.luns]
    work(first.luns)
    first.process.send_signal(signal.SIGKILL)
    wait_until(lambda: second.rings() == 4, "the survivor has them all")
    work(second.luns)
    third = serve(images)
    wait_until(lambda: (second.rings(), third.rings()) == (2, 2), "two rings each")
    assert second.stop() == 0
    wait_until(lambda: third.rings() == 4, "the last one has them all")
    work(third.luns)
    assert third.stop() == 0


def test_handovers_disturb_no_io(serve: Serve, images: list[Path]) -> None:
    target = serve(images[:2])
    fio = Fio(target.luns)
    for _ in range(20 if SOAK else 3):
        successor = serve(images[:2])
        assert target.stop() == 0
        target = successor
    print(f"longest wait {fio.finish():.2f} s")
    assert target.stop() == 0


@ON_TWO_PROCESSORS
def test_kills_with_a_survivor_lose_nothing(serve: Serve, images: list[Path]) -> None:
    engines = [serve(images[:2]), serve(images[:2])]
    fio = Fio(engines[0].luns)
    stalls = []
    for _ in range(20 if SOAK else 4):
        victim, survivor = engines
        time.sleep(random.random())  # any moment is as good: a handover may be under way
        victim.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        wait_until(partial(owns, survivor, 2), "the survivor has both")
        stalls.append(time.monotonic() - killed)
        engines = [survivor, serve(images[:2])]
    print(f"longest takeover {max(stalls):.2f} s; longest wait of an I/O {fio.finish():.2f} s")
    for engine in engines:
        assert engine.stop() == 0


@pytest.mark.long
@ON_TWO_PROCESSORS
def test_a_single_engine_restarted_by_hand_loses_nothing(serve: Serve, images: list[Path]) -> None:
    target = serve(images[:2])
    fio = Fio(target.luns)
    for _ in range(20 if SOAK else 2):
        time.sleep(random.random())
        target.process.send_signal(signal.SIGKILL)
        target.process.wait()
        time.sleep(3)  # nobody serves: commands wait in the ring
        target = serve(images[:2])
    print(f"longest wait of an I/O {fio.finish():.2f} s")
    assert target.stop() == 0


def test_an_engine_says_which_luns_it_does_not_know(serve: Serve, images: list[Path]) -> None:
    first = serve(images)
    second = serve(images[:2])
    wait_until(
        lambda: second.read(0.1) and "also has LUN 2, 3, which this engine does not know" in second.output,
        "the notice",
    )
    wait_until(lambda: (first.rings(), second.rings()) == (3, 1), "what one alone knows is its own")
    assert first.stop() == 0
    wait_until(lambda: second.rings() == 2, "it keeps what it knows")
    work(second.luns)
    assert second.stop() == 0


@ON_TWO_PROCESSORS
def test_a_counter_driven_by_compare_and_write_agrees_with_what_was_told(
    serve: Serve, images: list[Path]
) -> None:
    engines = [serve(images[:1]), serve(images[:1])]
    counter = Counter(engines[0].luns[0].sg)
    stop = threading.Event()
    failures: list[BaseException] = []

    def count() -> None:
        try:
            while not stop.is_set():
                counter.increment()
        except (AssertionError, OSError) as error:
            failures.append(error)

    counting = threading.Thread(target=count)
    counting.start()
    for _ in range(20 if SOAK else 3):
        owner = next(engine for engine in engines if engine.rings())
        wait_until(partial(counts_from, counter, counter.value, failures), "the counter to count")
        owner.process.send_signal(signal.SIGKILL)
        owner.process.wait()
        (survivor,) = (engine for engine in engines if engine is not owner)
        wait_until(partial(owns, survivor, 1), "the survivor has the ring")
        engines = [survivor, serve(images[:1])]
    stop.set()
    counting.join(300)
    assert not failures, failures
    assert not counting.is_alive()
    assert counter.read() == counter.value == counter.told_good + counter.in_doubt
    assert counter.told_good > 60
    counter.close()
    for engine in engines:
        assert engine.stop() == 0
