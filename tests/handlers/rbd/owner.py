"""A process that opens a disk and writes to it until a write fails: for tests that kill or stop it.

``python -m tests.handlers.rbd.owner NOTES DOCUMENT BYTE``. Each line on standard output is an acknowledged
write, the last one the errno of the failure.
"""

import errno
import json
import sys
from pathlib import Path

from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import build


def main(notes: str, document: str, byte: str) -> None:
    """Write blocks of `byte` to the first 4 KiB until a write fails for another reason than a time limit."""
    tmpfs_store.DIRECTORY = Path(notes)
    block = memoryview(bytes([int(byte)]) * 4096)
    error = errno.ETIMEDOUT
    with build(json.loads(document)) as disk:
        while error == errno.ETIMEDOUT:
            try:
                disk.write(0, [block])
                print("written", flush=True)
            except OSError as failure:
                error = failure.errno or 0
    print(error, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
