"""A process that is killed: it opens an image, writes, says what was acknowledged, and waits.

Run as ``python -m tests.handlers.qemu.engine DIRECTORY DOCUMENT FLUSH``; the folder is for notes of handlers.
"""

import json
import sys
import time
from pathlib import Path

from vscsihba.handlers.qemu.handler import QemuHandler
from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import write

PAGE = 4096


def main(directory: str, document: str, flushed: str) -> None:
    """Write pages with their number as content; flush after the first ones."""
    tmpfs_store.DIRECTORY = Path(directory)
    stack = build(json.loads(document), make=True)
    disk = stack.open()
    (handler,) = stack.layers
    assert isinstance(handler, QemuHandler)
    print(handler.daemon, flush=True)
    for page in range(32):
        write(disk, page * 3 * PAGE, bytes([page + 1]) * PAGE)
        if page == int(flushed):
            disk.flush()
    disk.write_zeroes(3 * PAGE, PAGE, may_unmap=True)
    print("written", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
