"""A program that makes an HBA of disks of zeroes, says so and waits: made to be killed.

    python -m tests.vm.left_behind ID LUNS [silent]

With "silent" it answers nothing, so that it never gets further than its first LUN.
"""

import signal
import sys
from contextlib import ExitStack, closing

from tests.vm.minimal_ring import MinimalRing
from vscsihba.configfs import (
    BackstoreSpec,
    backstore_name,
    create_backstore,
    create_hba,
    link_lun,
    wait_for_lun,
)

SIZE = 64 << 20


def main(hba_id: int, luns: int, *, silent: bool) -> None:
    made = [
        create_backstore(BackstoreSpec(backstore_name(hba_id, lun), SIZE, f"left-{hba_id}-{lun}"))
        for lun in range(luns)
    ]
    with ExitStack() as rings:
        for backstore in made:
            assert backstore.uio is not None
            rings.enter_context(backstore.uio.open() if silent else closing(MinimalRing(backstore.uio, SIZE)))
        create_hba(hba_id)
        if silent:
            print("linking", flush=True)
        for lun, backstore in enumerate(made):
            link_lun(hba_id, lun, backstore.name)
            wait_for_lun(hba_id, lun)
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), silent="silent" in sys.argv)
