"""Task management entries of the ring (TCMU_OP_TMR): the ended commands, and the function that ended them.

The kernel sends them where the device's attribute tmr_notification is 1, after it has
aborted the commands for the initiator (tcmu_tmr_notify); it still waits for the completion
of each, since their buffers stay in use until then.
"""

import struct

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi

_TMR = struct.Struct("=B3xI")
"""From byte 8 of an entry: tmr_type, cmd_cnt."""

_FUNCTIONS = {
    abi.TCMU_TMR_ABORT_TASK: "ABORT TASK",
    abi.TCMU_TMR_ABORT_TASK_SET: "ABORT TASK SET",
    abi.TCMU_TMR_CLEAR_ACA: "CLEAR ACA",
    abi.TCMU_TMR_CLEAR_TASK_SET: "CLEAR TASK SET",
    abi.TCMU_TMR_LUN_RESET: "LOGICAL UNIT RESET",
    abi.TCMU_TMR_TARGET_WARM_RESET: "TARGET WARM RESET",
    abi.TCMU_TMR_TARGET_COLD_RESET: "TARGET COLD RESET",
    # No reset of the unit: a PERSISTENT RESERVE OUT ended the commands of other initiators.
    abi.TCMU_TMR_LUN_RESET_PRO: "PREEMPT AND ABORT",
}


def read_management(memory: memoryview, start: int, length: int) -> tuple[str, tuple[int, ...]]:
    """Return the function that the entry at byte `start` reports, and the cmd_ids that it names.

    Raises:
        RingCorruptError: The entry of `length` bytes is too short for its count.
    """
    kind, count = _TMR.unpack_from(memory, start + abi.REQ_OFFSET)
    if abi.CMD_IDS_OFFSET + 2 * count > length:
        raise RingCorruptError(f"a task management entry of {length} bytes names {count} commands")
    ids = struct.unpack_from(f"={count}H", memory, start + abi.CMD_IDS_OFFSET)
    return _FUNCTIONS.get(kind, f"function {kind}"), ids
