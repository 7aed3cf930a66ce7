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

from tests.bench.command_path import SIZE, Row, memory
from tests.bench.remote import COMMANDS, DEPTHS, measure
from tests.handlers.nbd.servers import qemu_nbd
from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.stack import Document


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
                for name, opcode in COMMANDS:
                    title = f"{name}(10) 4 KiB, qcow2"
                    document: Document = {"handler": "qemu", "path": str(ours)}
                    yield measure(document, handle, title, opcode, depth, bare_name="libnbd and qemu-nbd")
            handle.shutdown()
