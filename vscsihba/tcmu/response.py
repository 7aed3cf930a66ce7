"""An answer, and how it is written into a slot so that nothing stale reaches the initiator.

Knows what the kernel makes of a slot (tcmu_handle_completion), not which slot it is.
"""

import struct
from typing import NamedTuple

from vscsihba.tcmu import abi
from vscsihba.tcmu.data_area import DataArea

CHECK_CONDITION = 2
"""The one SAM status that the kernel treats apart: it copies sense, and data only with READ_LEN."""

_RESPONSE = struct.Struct("=HBBB3xI")
"""From byte 4 of an entry: cmd_id, kflags, uflags, scsi_status, read_len."""
_UFLAGS = abi.tcmu_cmd_entry_hdr.uflags.offset


class Response(NamedTuple):
    """An answer, before it is put into a slot.

    Attributes:
        uflags: ``TCMU_UFLAG_*``.
        scsi_status: SAM status.
        valid: Bytes at the head of the buffer that mean something.
        sense: Sense data.
    """

    uflags: int = 0
    scsi_status: int = 0
    valid: int = 0
    sense: bytes = b""


class ResponseWriter:
    """Writes answers over requests.

    Args:
        memory: The whole map.
        data: Its data area.
        flags: Capabilities, ``TCMU_MAILBOX_FLAG_CAP_*``.
    """

    def __init__(self, memory: memoryview, data: DataArea, flags: int) -> None:
        self._memory = memory
        self._data = data
        self._has_read_len = bool(flags & abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN)

    def write(self, slot: int, cmd_id: int, response: Response, views: list[memoryview]) -> None:
        """Write the answer to the command `cmd_id` into a slot; `views` is the buffer that it bounds."""
        uflags, status, valid, sense = response
        flag, read_len = self._bound(views, status, valid)
        if status == CHECK_CONDITION:  # always: without, the kernel takes the request's bytes for sense
            at, size = slot + abi.SENSE_OFFSET, abi.TCMU_SENSE_BUFFERSIZE
            self._memory[at : at + size] = sense[:size].ljust(size, b"\0")
        _RESPONSE.pack_into(self._memory, slot + 4, cmd_id, 0, uflags | flag, status, read_len)

    def _bound(self, views: list[memoryview], status: int, valid: int) -> tuple[int, int]:
        """Return the flag and the read_len that keep what is behind the `valid` bytes from the initiator.

        Data pages are reused, and the kernel copies all of the buffer to an initiator that reads
        unless it is told a length, with every status but CHECK CONDITION. Whether the initiator
        reads is not in the ring: its direction need not be the one that the CDB implies. So the
        length goes with every answer, and where there is none to give, the buffer is zeroed.
        """
        if not (valid or status != CHECK_CONDITION):
            return 0, 0
        if not self._has_read_len:
            self._data.zero(views, valid)
            return 0, 0
        if not views:
            return 0, 0
        if not valid:  # tcmu_handle_completion ignores a read_len of 0
            views[0][0] = 0
        return abi.TCMU_UFLAG_READ_LEN, valid or 1

    def let_go(self, slot: int) -> None:
        """Take from an answer that its buffer is kept: whoever used it has died, and nobody would free it."""
        self._memory[slot + _UFLAGS] &= ~abi.TCMU_UFLAG_KEEP_BUF
