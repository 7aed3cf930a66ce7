"""The original's API: four calls, one structure, return codes. See docs/api.md.

    task = register_scsi_host("/dev/vscsihba0", sizes="64MiB", wait=None)
    while get_scsi_task(task) == 0:
        if task.direction == SCSI_DATA_WRITE:
            receive_scsi_data(task)
        ...                             # read task.cdb, fill in task.request_buffer and task.status
        complete_scsi_task(task)

`vscsihba.hba` has the same verbs in the manner of Python. The calls run on the threads of the caller.
"""

from vscsihba.vscsiapi.calls import complete_scsi_task, get_scsi_task, receive_scsi_data
from vscsihba.vscsiapi.helpers import get_cdb, get_data, get_device, get_management, set_data, set_sense
from vscsihba.vscsiapi.hosts import register_scsi_host, stop_scsi_host, unregister_scsi_host
from vscsihba.vscsiapi.return_codes import last_error
from vscsihba.vscsiapi.task import (
    SCSI_DATA_NONE,
    SCSI_DATA_READ,
    SCSI_DATA_WRITE,
    SENSE_IN_BUFFER,
    TASK_COMMAND,
    TASK_MANAGEMENT,
    Code,
    user_scsitap_task,
)

__all__ = [
    "SCSI_DATA_NONE",
    "SCSI_DATA_READ",
    "SCSI_DATA_WRITE",
    "SENSE_IN_BUFFER",
    "TASK_COMMAND",
    "TASK_MANAGEMENT",
    "Code",
    "complete_scsi_task",
    "get_cdb",
    "get_data",
    "get_device",
    "get_management",
    "get_scsi_task",
    "last_error",
    "receive_scsi_data",
    "register_scsi_host",
    "set_data",
    "set_sense",
    "stop_scsi_host",
    "unregister_scsi_host",
    "user_scsitap_task",
]
