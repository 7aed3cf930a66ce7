"""The argument that names a LUN: ``hba0/lun1``, or its disk in Linux, ``/dev/sdb``."""

import re
from pathlib import Path
from typing import Final

from vscsihba.errors import UsageError

DESCRIPTION: Final = "disk, as hba0/lun1 or /dev/sdb"

_PLACE = re.compile(r"/?(?:hbas/)?hba(\d{1,3})/lun(\d{1,5})", re.ASCII)


def lun_of(text: str) -> tuple[int, int]:
    """Return the id of the HBA and the number of the LUN.

    Raises:
        UsageError: The text is neither, or names a disk that vscsihba does not manage.
        HostError: The objects of the kernel cannot be read.
    """
    if match := _PLACE.fullmatch(text):
        return int(match[1]), int(match[2])
    if text.startswith("/dev/"):
        return _lun_of_disk(Path(text))
    raise UsageError(f"{text!r} is not a disk", cure="use hba0/lun1, or /dev/sdb")


def _lun_of_disk(path: Path) -> tuple[int, int]:
    from vscsihba import configfs  # noqa: PLC0415 - slow, and not needed where the LUN is named

    disk = path.resolve()  # /dev/disk/by-id/... is as good
    for hba in configfs.observe().hbas.values():
        for lun in hba.luns.values():
            if disk in (lun.disk, lun.generic):
                return hba.id, lun.number
    raise UsageError(f"{path} is not managed by vscsihba", cure='see "vscsihba status"')
