"""Commands on a qcow2 image, against libnbd and qemu-nbd alone, on an image of their own.

Ours takes the same way: its daemon exports the image over NBD. Beyond that it has the engine, and the log of
acknowledged writes. The two take turns.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.command_path import ROUNDS, SIZE, Row, memory, serving
from tests.bench.remote import DEPTHS, LENGTH, READ, WRITE, time_commands, time_libnbd
from tests.handlers.nbd.servers import qemu_nbd
from vscsihba.handlers.nbd.address import libnbd


def rows() -> Iterator[Row]:
    """Measure reads and writes of 4 KiB; yields nothing if QEMU's programs or libnbd are not installed."""
    programs = ("qemu-img", "qemu-nbd", "qemu-storage-daemon")
    if not all(map(shutil.which, programs)) or importlib.util.find_spec("nbd") is None:
        return
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        ours, alone = (Path(folder) / name for name in ("ours", "alone"))
        for image in (ours, alone):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], check=True)
        with qemu_nbd(Path(folder), alone, "--format=qcow2") as server:
            handle = libnbd().NBD()
            handle.connect_uri(server.uri())
            for depth in DEPTHS:
                yield measure(ours, handle, "READ", READ, depth)
                yield measure(ours, handle, "WRITE", WRITE, depth)
            handle.shutdown()


def measure(image: Path, handle: Any, name: str, opcode: int, depth: int) -> Row:
    """Measure commands of 4 KiB with `depth` of them under way."""
    microseconds, bare = [], []
    with serving({"handler": "qemu", "path": str(image)}) as (loopback, served, queue):
        verbs = served.handler.asynchronous
        assert verbs is not None
        assert verbs.pollable is not None
        pollable = verbs.pollable
        pollable.attach()
        views = [loopback.memory[-(index + 1) * LENGTH :][:LENGTH] for index in range(depth)]
        time_commands(loopback, served, queue, pollable, opcode=WRITE, depth=max(DEPTHS))  # reads find data
        time_libnbd(handle, WRITE, views)
        for _ in range(ROUNDS):
            microseconds.append(time_commands(loopback, served, queue, pollable, opcode=opcode, depth=depth))
            bare.append(time_libnbd(handle, opcode, views))
        for view in views:
            view.release()
        pollable.detach()
    return Row.of(f"{name}(10) 4 KiB, qcow2, depth {depth}", microseconds, bare, "libnbd and qemu-nbd")
