"""The settings of a TCMU backstore, checked before they reach the kernel.

A frozen value and its rules; it knows nothing of configfs. Sizes are bytes unless a field has the
kernel's own name, which keeps the kernel's own unit.
"""

from dataclasses import dataclass
from typing import Final

from vscsihba.block import Geometry
from vscsihba.configfs import names
from vscsihba.errors import UsageError

MAX_TRANSFER: Final = 1 << 20
"""Bytes of the largest command: tcm_loop takes 256 segments of a page (``sg_tablesize``)."""

_PAGE: Final = 4096
_MAX_SERIAL: Final = 253


@dataclass(frozen=True, slots=True)
class BackstoreSpec:
    """The settings of a TCMU backstore.

    Attributes:
        name: Directory name in configfs, visible in targetcli; starts with ``vscsihba``.
        size: Capacity in bytes.
        serial: Unit serial number (``wwn/vpd_unit_serial``), printable ASCII. The kernel files the
            persistent reservations of the unit under it, so it must not change between two runs.
        config: Any text; it follows ``vscsihba/`` in ``dev_config`` and in the uio name.
        block_size: Logical block length in bytes (``hw_block_size``).
        hw_max_sectors: Largest command in logical blocks; 0 means 1 MiB, the most that tcm_loop sends.
            The kernel's default of 128 splits large I/O into pieces of 64 KiB.
        max_data_area_mb: Largest size of the ring's data area. Address space, not memory: pages are
            allocated when they are first used. 1024 (the kernel's default) is 1 MiB for each of the 1024
            commands that tcm_loop has under way at most, so the area is never full.
        data_pages_per_blk: Pages that the kernel allocates at once. With 256, a command's buffer of any
            length is contiguous (one iovec); pages that it does not need stay unused.
        cmd_ring_size_mb: Size of the command ring, real memory in the kernel. The kernel's default of 8 is
            enough for 70,000 commands; 1 is enough for 1024 and saves 700 MiB with 100 LUNs. Kernels
            before 5.18 do not know the setting and use 8.
        cmd_time_out: Seconds until the kernel fails a command that is not completed; 0 is never. A failed
            command stays in the ring, so the server may still carry it out later: an old write over a
            newer one. Therefore 0: the initiator's own timer (sd: 30 s) aborts the command, and the abort
            waits until the command has really ended. A ring without a server stalls its disk but loses
            nothing; `unlink_lun(..., served=False)` ends that too.
        qfull_time_out: Seconds that a command waits for space in a full ring before it completes with
            TASK SET FULL, which sd retries; -1 is the kernel's default (`cmd_time_out`, or 30).
        tmr_notification: Put aborts and resets into the ring (TMR entries, 5.10).
    """

    name: str
    size: int
    serial: str
    config: str = ""
    block_size: int = 512
    hw_max_sectors: int = 0
    max_data_area_mb: int = 1024
    data_pages_per_blk: int = 256
    cmd_ring_size_mb: int = 1
    cmd_time_out: int = 0
    qfull_time_out: int = -1
    tmr_notification: bool = True

    def __post_init__(self) -> None:
        """Fill in `hw_max_sectors` and refuse values that the kernel would refuse or silently change.

        Raises:
            UsageError: A field is not valid; the message names it.
        """
        names.check_name(self.name)
        names.check_config(self.config)
        Geometry(size=self.size, block_size=self.block_size, physical_block_size=self.block_size)
        if not self.hw_max_sectors:
            object.__setattr__(self, "hw_max_sectors", MAX_TRANSFER // self.block_size)
        self._check_serial()
        self._check_ring()

    def _check_serial(self) -> None:
        text = self.serial
        if not 0 < len(text) <= _MAX_SERIAL or not text.isascii() or not text.isprintable():
            raise UsageError(
                f"unit serial {text!r} is not usable",
                cure=f"use 1 to {_MAX_SERIAL} printable ASCII characters",
            )
        # The kernel strips it, and names a file after it: <dbroot>/pr/aptpl_<serial>.
        if text != text.strip() or "/" in text:
            raise UsageError(f"unit serial {text!r} must not begin or end with a blank, or hold a slash")

    def _check_ring(self) -> None:
        # target_core_device.c, se_dev_align_max_sectors(): rounded down to whole pages.
        if self.hw_max_sectors < 0 or self.hw_max_sectors * self.block_size % _PAGE:
            raise UsageError(f"hw_max_sectors {self.hw_max_sectors} is not a whole number of pages")
        for name in ("max_data_area_mb", "data_pages_per_blk", "cmd_ring_size_mb"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} {getattr(self, name)} is not above 0")
        if self.data_pages_per_blk * _PAGE > self.max_data_area_mb << 20:
            raise UsageError(f"data_pages_per_blk {self.data_pages_per_blk} is more than the data area")
        if self.cmd_time_out < 0:
            raise UsageError(f"cmd_time_out {self.cmd_time_out} is below 0")
        if self.qfull_time_out < -1:
            raise UsageError(f"qfull_time_out {self.qfull_time_out} is below -1")
