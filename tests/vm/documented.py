"""Serves the HBAs of a document in this process: ``python -m tests.vm.documented FILE``.

Prints a line of JSON with the disks when all are there, and ends when its input does.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from vscsihba.config.load import load
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.target import Target


def main() -> None:
    document = load(Path(sys.argv[1]))
    with ExitStack() as stack:
        disks = []
        for hba in document.hbas:
            requests = [LunSpec.of(lun, document.backstores[lun.backstore]) for lun in hba.luns]
            target = stack.enter_context(Target(hba.id, requests, listeners=Listeners()))
            disks += [[hba.id, disk.lun, str(disk.device)] for disk in target.disks]
        print(json.dumps(disks), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
