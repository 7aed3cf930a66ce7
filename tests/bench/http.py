"""Reads of a file of an HTTP server, against libcurl itself: the same ranges, as many at once, on one thread.

Both talk to the same nginx on the loopback interface, and take turns. Nothing is read ahead.
"""

import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.command_path import Row, UnreapedLoopback, cdb_10, reap_commands, serving, time_served
from tests.handlers.http.servers import Nginx
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.http import library

LENGTH: Final = 64 << 10
DEPTHS: Final = (1, 8)
_SIZE: Final = 16 << 20
_BATCH: Final = 32
"""Reads of one measurement, whatever the depth."""
_ROUNDS: Final = 40
_STEP: Final = 77
"""Blocks of `LENGTH` from one read to the next, modulo the file: no sequence."""


def rows() -> Iterator[Row]:
    """Measure reads of 64 KiB; yields nothing if pycurl is not installed."""
    if importlib.util.find_spec("pycurl") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        nginx = Nginx(Path(folder) / "nginx")
        nginx.put("disk.img", bytes(range(256)) * (_SIZE // 256))
        nginx.start()
        try:
            for depth in DEPTHS:
                yield measure(nginx, depth)
        finally:
            nginx.kill()


def measure(nginx: Nginx, depth: int) -> Row:
    """Measure reads with `depth` of them under way."""
    url = nginx.url("disk.img")
    microseconds, bare = [], []
    with serving({"handler": "http", "url": url, "connections": depth, "read_ahead": 0}) as ours:
        handles = [_handle(url) for _ in range(depth)]
        for _ in range(_ROUNDS):
            microseconds.append(time_commands(*ours, depth=depth))
            bare.append(time_libcurl(handles))
    return Row.of(f"READ(10) 64 KiB, http, depth {depth}", microseconds, bare, "libcurl alone")


def offsets() -> list[int]:
    """Return the first bytes of the reads of one measurement."""
    return [number * _STEP % (_SIZE // LENGTH) * LENGTH for number in range(_BATCH)]


def time_commands(loopback: UnreapedLoopback, served: ServedLun, queue: CallQueue, *, depth: int) -> float:
    """Return microseconds a command; queueing and reaping are not counted."""
    taken, all_offsets = 0, offsets()
    for start in range(0, _BATCH, depth):
        for offset in all_offsets[start : start + depth]:
            loopback.submit(cdb_10(0x28, offset // 512, LENGTH // 512), data_in=LENGTH)
        taken += time_served(served, queue)
        reap_commands(loopback, depth)
    return taken / _BATCH / 1e3


def _handle(url: str) -> Any:
    pycurl = library.pycurl()
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.BUFFERSIZE, 256 << 10)
    handle.setopt(pycurl.NOPROXY, "*")
    return handle


def time_libcurl(handles: list[Any]) -> float:
    """Return microseconds a read, made as the examples of libcurl's multi interface make it."""
    multi = library.pycurl().CurlMulti()
    room = memoryview(bytearray(LENGTH))
    filled = dict.fromkeys(handles, 0)

    def store(handle: Any, data: bytes) -> None:
        at = filled[handle]
        room[at : at + len(data)] = data
        filled[handle] = at + len(data)

    for handle in handles:
        handle.setopt(handle.WRITEFUNCTION, lambda data, handle=handle: store(handle, data))
    taken, all_offsets = 0, offsets()
    for start in range(0, _BATCH, len(handles)):
        before = time.perf_counter_ns()
        for handle, offset in zip(handles, all_offsets[start : start + len(handles)], strict=True):
            filled[handle] = 0
            handle.setopt(handle.RANGE, f"{offset}-{offset + LENGTH - 1}")
            multi.add_handle(handle)
        under_way = len(handles)
        while under_way:
            under_way = multi.perform()[1]
            if under_way:
                multi.select(1.0)
        taken += time.perf_counter_ns() - before
        for handle in handles:
            multi.remove_handle(handle)
        if any(count != LENGTH for count in filled.values()):
            raise AssertionError("not every read has succeeded")
    multi.close()
    return taken / _BATCH / 1e3
