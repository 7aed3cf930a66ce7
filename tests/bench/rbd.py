"""Commands on an image of a Ceph cluster, against python3-rbd itself: the same requests at the same depth.

Both talk to the same cluster of one storage daemon, on the loopback interface, and take turns.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.command_path import Row, UnreapedLoopback, cdb_10, reap_commands, serving, time_served
from tests.ceph import Cluster, cluster, missing
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.rbd import library

LENGTH: Final = 4096
DEPTHS: Final = (1, 32)
_SIZE: Final = 64 << 20
_BATCH: Final = 32
"""Commands of one measurement, whatever the depth."""
_ROUNDS: Final = 40
_READ, _WRITE = 0x28, 0x2A
_DATA: Final = bytes(range(256)) * (LENGTH // 256)


def rows() -> Iterator[Row]:
    """Measure reads and writes of 4 KiB; yields nothing if Ceph is not installed."""
    if missing():
        return
    folder = tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-")
    with folder as name, cluster(Path(name)) as ceph:
        for depth in DEPTHS:
            yield measure(ceph, "READ", _READ, depth)
        yield measure(ceph, "WRITE", _WRITE, DEPTHS[-1])


def measure(ceph: Cluster, name: str, opcode: int, depth: int) -> Row:
    """Measure commands of 4 KiB with `depth` of them under way."""
    image = {"handler": "rbd", "pool": "rbd", "conf": str(ceph.conf), "size": _SIZE}
    with serving({**image, "image": "bare"}):
        pass  # made like the other, for the client without us
    microseconds, bare = [], []
    with (
        ceph.pool() as pool,
        library.rbd().Image(pool, "bare") as alone,
        serving({**image, "image": "ours"}) as ours,
    ):
        time_alone(alone, _WRITE, _BATCH)  # reads find data
        time_commands(*ours, opcode=_WRITE, depth=_BATCH)
        for _ in range(_ROUNDS):
            microseconds.append(time_commands(*ours, opcode=opcode, depth=depth))
            bare.append(time_alone(alone, opcode, depth))
    return Row.of(f"{name}(10) 4 KiB, rbd, depth {depth}", microseconds, bare, "python3-rbd alone")


def time_commands(
    loopback: UnreapedLoopback, served: ServedLun, queue: CallQueue, *, opcode: int, depth: int
) -> float:
    """Return microseconds a command; queueing and reaping are not counted."""
    taken = 0
    for start in range(0, _BATCH, depth):
        for index in range(start, start + depth):
            cdb = cdb_10(opcode, index * (LENGTH // 512), LENGTH // 512)
            if opcode == _WRITE:
                loopback.submit(cdb, data_out=_DATA)
            else:
                loopback.submit(cdb, data_in=LENGTH)
        taken += time_served(served, queue)
        reap_commands(loopback, depth)
    return taken / _BATCH / 1e3


def time_alone(image: Any, opcode: int, depth: int) -> float:
    """Return microseconds a request of python3-rbd with a callback."""
    ended = threading.Semaphore(0)
    failed: list[int] = []

    def done(completion: Any, _data: bytes | None = None) -> None:
        if completion.get_return_value() < 0:
            failed.append(completion.get_return_value())
        ended.release()

    begin: Callable[[int], object] = (
        (lambda at: image.aio_write(_DATA, at, done))
        if opcode == _WRITE
        else (lambda at: image.aio_read(at, LENGTH, done))
    )
    before = time.perf_counter_ns()
    for start in range(0, _BATCH, depth):
        for index in range(start, start + depth):
            begin(index * LENGTH)
        for _ in range(depth):
            ended.acquire()
    taken = (time.perf_counter_ns() - before) / _BATCH / 1e3
    if failed:
        raise AssertionError(f"requests failed: {failed}")
    return taken
