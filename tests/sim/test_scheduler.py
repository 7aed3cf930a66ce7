"""Threads and time of the simulated machine behave as those of a real one."""

import threading
import time
from pathlib import Path

import pytest

from tests.sim.scheduler import StuckError
from tests.sim.world import World


@pytest.mark.parametrize("switch", [0.0, 0.5])
def test_threads_hand_over_work(root: Path, switch: float) -> None:
    done: list[int] = []
    with World(root, 1, switch=switch) as world:

        def body() -> None:
            changed = threading.Condition()
            jobs = list(range(20))

            def work() -> None:
                while True:
                    with changed:
                        while not jobs:
                            changed.wait()
                        job = jobs.pop()
                    if job < 0:
                        return
                    done.append(job)

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            with changed:
                while jobs:
                    changed.wait(0.1)
                jobs.extend([-1] * 3)
                changed.notify_all()
            for thread in threads:
                thread.join()

        assert world.live(body).error is None
    assert sorted(done) == list(range(20))


def test_time_passes_only_when_everybody_waits(root: Path) -> None:
    found: list[float] = []
    began = time.monotonic()
    with World(root, 1) as world:

        def body() -> None:
            start = time.monotonic()
            time.sleep(3600)
            assert not threading.Event().wait(60)
            found.append(time.monotonic() - start)

        assert world.live(body).error is None
    assert 3660 <= found[0] < 3661
    assert time.monotonic() - began < 60


def test_a_deadlock_is_told_with_stacks(root: Path) -> None:
    with World(root, 1) as world:

        def body() -> None:
            one, other = threading.Lock(), threading.Lock()
            with one:
                thread = threading.Thread(target=lambda: other.acquire() and one.acquire(), name="second")
                thread.start()
                time.sleep(1)
                other.acquire()

        with pytest.raises(StuckError, match=r"deadlock(?s:.*)second of engine"):
            world.live(body)


def test_a_loop_without_end_is_told(root: Path) -> None:
    def body() -> None:
        while True:
            time.sleep(0)

    with World(root, 1) as world, pytest.raises(StuckError, match="livelock"):
        world.live(body)


def test_death_ends_every_thread_and_closes_what_was_open(root: Path) -> None:
    (root / "file").write_bytes(b"x")
    after: list[str] = []
    with World(root, 1) as world:

        def body() -> None:
            import os  # noqa: PLC0415

            os.open(root / "file", os.O_RDWR)

            def other() -> None:
                try:
                    threading.Event().wait()
                finally:
                    after.append("unwound")
                after.append("went on")

            threading.Thread(target=other).start()
            time.sleep(1)
            world.scheduler.current.process.dead = True
            time.sleep(1)
            after.append("went on")

        life = world.live(body)
        assert life.died
        assert world.calls.opened_by(life.process) == []
    assert after == ["unwound"]
