"""What this machine offers to the fixtures: whether it can have disks, and an HBA id that is free.

Knows the kernel's objects through `configfs`; nothing of tests.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from vscsihba import configfs
from vscsihba.errors import HostError, InUseError
from vscsihba.hba import VirtualHba
from vscsihba.sandbox.surroundings import INSIDE

IDS = range(255, -1, -1)
"""HBA ids in the order in which they are tried: people count from 0."""


@cache
def missing() -> str | None:
    """Return why this machine cannot have virtual disks, with the cure; None when it can."""
    try:
        configfs.prepare()
    except HostError as error:
        return str(error) if INSIDE in os.environ else f"{error}, or run pytest --vscsi-sandbox"
    return None


@contextmanager
def free_hba() -> Iterator[VirtualHba]:
    """Enter an HBA of which the kernel knows nothing yet, so that nobody's disks are touched.

    Raises:
        HostError: All ids are taken, or the kernel refuses.
    """
    taken = set(configfs.observe().hbas)
    for hba_id in IDS:
        if hba_id in taken:
            continue
        with ExitStack() as held:
            try:
                hba = held.enter_context(VirtualHba(hba_id))
            except InUseError:  # somebody was quicker
                continue
            yield hba
        return
    raise HostError(f"all {len(IDS)} HBA ids are in use", cure="detach some")
