#!/usr/bin/env python3
"""A disk in memory, through the calls of vscsihba.vscsiapi. As root: ramdisk.py [SIZE [HBA]]; Ctrl-C ends it.

Linux sends SCSI commands: a few bytes (the CDB), the first of which says what is wanted. We answer each
with a status, and with data if it reads.
"""

import signal
import struct
import sys

from vscsihba import vscsiapi as api
from vscsihba.units import parse_size

BLOCK = 512
GOOD, CHECK_CONDITION = 0, 2  # CHECK_CONDITION by itself: "I do not know that command"

disk = bytearray(parse_size(sys.argv[1] if len(sys.argv) > 1 else "64MiB"))
hba = sys.argv[2] if len(sys.argv) > 2 else "0"


def answer(task: api.user_scsitap_task) -> int:
    """Do one command and return its status."""
    cdb = bytes(task.cdb)
    lba, blocks = struct.unpack(">xxIxH7x", cdb)  # READ and WRITE: number of the first block, how many
    place = slice(lba * BLOCK, (lba + blocks) * BLOCK)
    fits = place.stop <= len(disk) and task.request_bufflen == blocks * BLOCK
    match cdb[0]:
        case 0x00 | 0x35:  # TEST UNIT READY: we are. SYNCHRONIZE CACHE: there is none.
            return GOOD
        case 0x12 if not cdb[1] & 1:  # INQUIRY: a disk, built to SPC-3, and who made it
            api.set_data(task, b"\x00\x00\x05\x02\x1f\x00\x00\x02" + b"EXAMPLE RAM DISK        1.0 ")
        case 0x1A:  # MODE SENSE(6): an empty list, we have no modes
            api.set_data(task, b"\x03\x00\x00\x00")
        case 0x25:  # READ CAPACITY(10): number of the last block, bytes of a block
            api.set_data(task, struct.pack(">II", len(disk) // BLOCK - 1, BLOCK))
        case 0x28 if fits:  # READ(10)
            api.set_data(task, memoryview(disk)[place])
        case 0x2A if fits:  # WRITE(10)
            api.receive_scsi_data(task)
            disk[place] = api.get_data(task)
        case _:
            return CHECK_CONDITION
    return GOOD


name = f"/dev/vscsihba{hba}"
task = api.register_scsi_host(name, sizes=len(disk), wait=None, on_ready=print) or sys.exit(api.last_error())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: api.stop_scsi_host(task))
while api.get_scsi_task(task) >= 0:  # negative once everything is detached
    task.status = answer(task)
    api.complete_scsi_task(task)
