"""The machine under the fixtures: whether it can have virtual disks, and a free HBA id.

Knows the kernel's objects by `configfs`, and nothing of tests.
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
"""HBA ids in the order in which they are tried: users begin with 0."""


@cache
def missing() -> str | None:
    """Return the reason why this machine cannot have virtual disks, with the cure; None if it can."""
    try:
        configfs.prepare()
    except HostError as error:
        return str(error) if INSIDE in os.environ else f"{error}, or run pytest --vscsi-sandbox"
    return None


@contextmanager
def free_hba() -> Iterator[VirtualHba]:
    """Enter an HBA with an id that the kernel does not have yet, so that no existing disk is touched.

    Raises:
        HostError: All ids are in use, or the kernel refuses.
    """
    taken = set(configfs.observe().hbas)
    for hba_id in IDS:
        if hba_id in taken:
            continue
        with ExitStack() as held:
            try:
                hba = held.enter_context(VirtualHba(hba_id))
            except InUseError:  # another process was quicker
                continue
            yield hba
        return
    raise HostError(f"all {len(IDS)} HBA ids are in use", cure="detach some")
