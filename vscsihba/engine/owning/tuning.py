"""Tuning: changes of how Linux treats a LUN while it is in use."""

from typing import Final

from vscsihba import configfs
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.errors import HostError

_TIMEOUT: Final = 30
"""Seconds that sd gives a command (drivers/scsi/sd.h, SD_TIMEOUT)."""
_KERNELS_OWN: Final = -1
"""Value of ``qfull_time_out`` for the kernel's default."""

_UNTOUCHED: Final = Tuning()


def tune(hba_id: int, lun: int, wanted: Tuning, before: Tuning = _UNTOUCHED) -> None:
    """Change how Linux treats a LUN; settings that stay the same are not touched.

    Args:
        hba_id: 0..255.
        lun: A linked LUN.
        wanted: The new settings; None restores the kernel's default.
        before: The current settings.

    Raises:
        HostError: There is no such LUN, or the kernel refuses.
    """
    if wanted.queue_full_timeout != before.queue_full_timeout:
        seconds = _KERNELS_OWN if wanted.queue_full_timeout is None else wanted.queue_full_timeout
        configfs.set_attribute(configfs.backstore_name(hba_id, lun), "qfull_time_out", seconds)
    if wanted.queue_depth != before.queue_depth:
        address = _address(hba_id, lun)
        depth = wanted.queue_depth or configfs.default_queue_depth(address)
        if depth is not None:
            configfs.set_queue_depth(address, depth)
    if wanted.command_timeout != before.command_timeout:
        configfs.set_command_timeout(_address(hba_id, lun), wanted.command_timeout or _TIMEOUT)


def _address(hba_id: int, lun: int) -> str:
    linked = configfs.find_lun(hba_id, lun)
    if linked is None or linked.address is None:
        raise HostError(f"HBA {hba_id} has no LUN {lun}")
    return linked.address
