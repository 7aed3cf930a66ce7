"""A SCSI target without I/O: CDBs and buffers in, block operations and responses out.

    lu = LogicalUnit(geometry, capabilities, Identity.derive("the backing file"))
    steps = lu.execute(cdb, buffer)     # a generator of vscsihba.block operations
                                        # that returns a Response

This folder holds the core: decoding, the opcode table, the state of a logical unit, sense data and
pages. `commands` holds the commands of every device type (SPC-5), `block` those of disks (SBC-4), `copy`
third-party copies. Everything runs on the pump's thread, which serves the rings.

Knows T10's standards; knows no file descriptor, clock, thread or log.
"""

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.cdb import lookup
from vscsihba.scsi.command import Command, Data, MediumAccess
from vscsihba.scsi.describe import describe, describe_sense, status_name
from vscsihba.scsi.failed_flush import FailedFlush
from vscsihba.scsi.identity import Identity
from vscsihba.scsi.logical_unit import LogicalUnit
from vscsihba.scsi.opcodes import FAST_PATH_OPCODES, TABLE
from vscsihba.scsi.pass_through import PassThroughUnit
from vscsihba.scsi.response import Response, Status
from vscsihba.scsi.sense import Sense, SenseKey

__all__ = [
    "FAST_PATH_OPCODES",
    "TABLE",
    "Asc",
    "Command",
    "Data",
    "FailedFlush",
    "Identity",
    "LogicalUnit",
    "MediumAccess",
    "PassThroughUnit",
    "Response",
    "Sense",
    "SenseKey",
    "Status",
    "describe",
    "describe_sense",
    "lookup",
    "status_name",
]
