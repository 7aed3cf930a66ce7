"""The opcode table: every command that a logical unit supports.

Decoding, REPORT SUPPORTED OPERATION CODES, the trace, the documentation and the tests
all use it. `vscsihba.scsi.layout` explains the notation of a CDB's fields;
the operation code is implied, and so is a service action. The CONTROL byte is not
a field: NACA is not supported, and the rest of it is reserved.

A group number is accepted and ignored, with the bits that share its byte (SBC-4
"Grouping function": GROUP_SUP is 0).
"""

import struct
from collections.abc import Callable

from vscsihba.scsi.block.capacity import read_capacity_10, read_capacity_16
from vscsihba.scsi.block.defects import read_defect_data, reassign_blocks
from vscsihba.scsi.block.format_unit import format_unit
from vscsihba.scsi.block.lba_status import get_lba_status
from vscsihba.scsi.block.prefetch import pre_fetch
from vscsihba.scsi.block.provisioning import unmap, write_same
from vscsihba.scsi.block.read_modify_write import compare_and_write, orwrite
from vscsihba.scsi.block.read_write import read, synchronize_cache, write, write_atomic
from vscsihba.scsi.block.sanitize import (
    sanitize_block_erase,
    sanitize_cryptographic_erase,
    sanitize_exit_failure_mode,
    sanitize_overwrite,
)
from vscsihba.scsi.block.start_stop import prevent_allow_medium_removal, start_stop_unit
from vscsihba.scsi.block.verify import verify, write_and_verify
from vscsihba.scsi.command import Command, Data, MediumAccess
from vscsihba.scsi.commands.buffers import read_buffer, write_buffer
from vscsihba.scsi.commands.diagnostic import receive_diagnostic_results, send_diagnostic
from vscsihba.scsi.commands.inquiry import inquiry
from vscsihba.scsi.commands.log_sense import log_select, log_sense
from vscsihba.scsi.commands.maintenance import (
    report_identifying_information,
    report_supported_task_management_functions,
    report_timestamp,
    security_protocol_in,
    set_identifying_information,
    set_timestamp,
)
from vscsihba.scsi.commands.mode_select import mode_select
from vscsihba.scsi.commands.mode_sense import mode_sense
from vscsihba.scsi.commands.operation_codes import report_supported_operation_codes
from vscsihba.scsi.commands.target_core import handled_by_target_core
from vscsihba.scsi.commands.unit_ready import request_sense, unit_ready
from vscsihba.scsi.copy.extended_copy import extended_copy
from vscsihba.scsi.copy.results import receive_copy_operating_parameters, receive_copy_status
from vscsihba.scsi.copy.token_copy import populate_token, write_using_token
from vscsihba.scsi.copy.token_information import receive_rod_token_information
from vscsihba.scsi.features import Feature
from vscsihba.stats import Tally

_NONE, _IN, _OUT = Data.NONE, Data.IN, Data.OUT
_READY, _WRITABLE, _REPLACED = MediumAccess.READY, MediumAccess.WRITABLE, MediumAccess.REPLACED

_LONG_RANGE = (
    "lba=12-19 expected_initial_logical_block_reference_tag=20-23~"
    " expected_logical_block_application_tag=24-25~ logical_block_application_tag_mask=26-27~ blocks=28-31"
)
"""The second half of the 32-byte CDBs. The tags are for protection information, which is not supported;
SBC-4 requires these commands only with type 2 of it, so a unit has them only on request."""

_ROWS = (
    Command(0x00, None, "TEST UNIT READY", 6, "", unit_ready, medium=_READY),
    Command(
        0x03, None, "REQUEST SENSE", 6,
        "desc=1.0 allocation_length=4",
        request_sense, _IN, allowed_with_unit_attention=True, allowed_during_format=True,
    ),
    Command(
        0x04, None, "FORMAT UNIT", 6,
        "fmtpinfo=1.7-1.6! longlist=1.5 fmtdata=1.4 cmplst=1.3 defect_list_format=1.2-1.0 ffmt=4.1-4.0",
        format_unit, _OUT, _REPLACED, starts_alone=True,
    ),
    Command(
        0x07, None, "REASSIGN BLOCKS", 6,
        "longlba=1.1 longlist=1.0",
        reassign_blocks, _OUT, _WRITABLE,
    ),
    Command(
        0x08, None, "READ(6)", 6,
        "lba=1.4-3 blocks=4",
        read, _IN, _READY, tally=Tally.READS,
    ),
    Command(
        0x0A, None, "WRITE(6)", 6,
        "lba=1.4-3 blocks=4",
        write, _OUT, _WRITABLE, tally=Tally.WRITES,
    ),
    # To Linux a new target is SCSI-2 at first, with the LUN in the CDB (drivers/scsi/scsi_scan.c).
    Command(
        0x12, None, "INQUIRY", 6,
        "lun=1.7-1.5~ evpd=1.0 page_code=2 allocation_length=3-4",
        inquiry, _IN, allowed_with_unit_attention=True, allowed_during_format=True,
    ),
    Command(
        0x15, None, "MODE SELECT(6)", 6,
        "pf=1.4 rtd=1.1! sp=1.0 parameter_list_length=4",
        mode_select, _OUT, exclusive=True,
    ),
    Command(0x16, None, "RESERVE(6)", 6, "", handled_by_target_core, needs=Feature.TARGET_CORE),
    Command(0x17, None, "RELEASE(6)", 6, "", handled_by_target_core, needs=Feature.TARGET_CORE),
    Command(
        0x1A, None, "MODE SENSE(6)", 6,
        "dbd=1.3 pc=2.7-2.6 page_code=2.5-2.0 subpage_code=3 allocation_length=4",
        mode_sense, _IN, allowed_during_format=True,
    ),
    Command(
        0x1B, None, "START STOP UNIT", 6,
        "immed=1.0 power_condition_modifier=3.3-3.0~ power_condition=4.7-4.4 no_flush=4.2 loej=4.1 start=4.0",
        start_stop_unit,
    ),
    Command(
        0x1C, None, "RECEIVE DIAGNOSTIC RESULTS", 6,
        "pcv=1.0 page_code=2 allocation_length=3-4",
        receive_diagnostic_results, _IN,
    ),
    Command(
        0x1D, None, "SEND DIAGNOSTIC", 6,
        "self_test_code=1.7-1.5 pf=1.4 selftest=1.2 devoffl=1.1~ unitoffl=1.0~ parameter_list_length=3-4",
        send_diagnostic, _OUT,
    ),
    Command(
        0x1E, None, "PREVENT ALLOW MEDIUM REMOVAL", 6,
        "prevent=4.1-4.0",
        prevent_allow_medium_removal, needs=Feature.REMOVABLE,
    ),
    Command(
        0x25, None, "READ CAPACITY(10)", 10, "", read_capacity_10, _IN, _READY, allowed_during_format=True,
    ),
    Command(
        0x28, None, "READ(10)", 10,
        "rdprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-5 group_number=6~ blocks=7-8",
        read, _IN, _READY, tally=Tally.READS,
    ),
    Command(
        0x2A, None, "WRITE(10)", 10,
        "wrprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-5 group_number=6~ blocks=7-8",
        write, _OUT, _WRITABLE, tally=Tally.WRITES,
    ),
    Command(
        0x2E, None, "WRITE AND VERIFY(10)", 10,
        "wrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-5 group_number=6~ blocks=7-8",
        write_and_verify, _OUT, _WRITABLE,
    ),
    Command(
        0x2F, None, "VERIFY(10)", 10,
        "vrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-5 group_number=6~ blocks=7-8",
        verify, _OUT, _READY,
    ),
    Command(
        0x34, None, "PRE-FETCH(10)", 10,
        "immed=1.1 lba=2-5 group_number=6~ blocks=7-8",
        pre_fetch, medium=_READY,
    ),
    Command(
        0x35, None, "SYNCHRONIZE CACHE(10)", 10,
        "sync_nv=1.2~ immed=1.1 lba=2-5 group_number=6~ blocks=7-8",
        synchronize_cache, medium=_READY,
    ),
    Command(
        0x37, None, "READ DEFECT DATA(10)", 10,
        "req_plist=2.4 req_glist=2.3 defect_list_format=2.2-2.0 allocation_length=7-8",
        read_defect_data, _IN, _READY,
    ),
    Command(
        0x3B, None, "WRITE BUFFER", 10,
        "mode=1.4-1.0 buffer_id=2 buffer_offset=3-5 parameter_list_length=6-8",
        write_buffer, _OUT,
    ),
    Command(
        0x3C, None, "READ BUFFER(10)", 10,
        "mode=1.4-1.0 buffer_id=2 buffer_offset=3-5 allocation_length=6-8",
        read_buffer, _IN,
    ),
    Command(
        0x41, None, "WRITE SAME(10)", 10,
        "wrprotect=1.7-1.5! anchor=1.4! unmap=1.3 lba=2-5 group_number=6~ blocks=7-8",
        write_same, _OUT, _WRITABLE,
    ),
    Command(
        0x42, None, "UNMAP", 10,
        "anchor=1.0! group_number=6~ parameter_list_length=7-8",
        unmap, _OUT, _WRITABLE, needs=Feature.UNMAP,
    ),
    Command(
        0x48, 0x01, "SANITIZE OVERWRITE", 10,
        "immed=1.7 ause=1.5 parameter_list_length=7-8",
        sanitize_overwrite, _OUT, _REPLACED, starts_alone=True,
    ),
    Command(
        0x48, 0x02, "SANITIZE BLOCK ERASE", 10,
        "immed=1.7 ause=1.5 parameter_list_length=7-8!",
        sanitize_block_erase, _NONE, _REPLACED, needs=Feature.UNMAP, starts_alone=True,
    ),
    Command(
        0x48, 0x03, "SANITIZE CRYPTOGRAPHIC ERASE", 10,
        "immed=1.7 ause=1.5 parameter_list_length=7-8!",
        sanitize_cryptographic_erase, _NONE, _REPLACED, needs=Feature.CRYPTO_ERASE, starts_alone=True,
    ),
    Command(
        0x48, 0x1F, "SANITIZE EXIT FAILURE MODE", 10,
        "immed=1.7 ause=1.5 parameter_list_length=7-8!",
        sanitize_exit_failure_mode, _NONE, _REPLACED,
    ),
    Command(
        0x4C, None, "LOG SELECT", 10,
        "pcr=1.1 sp=1.0! pc=2.7-2.6 page_code=2.5-2.0! subpage_code=3! parameter_list_length=7-8!",
        log_select,
    ),
    Command(
        0x4D, None, "LOG SENSE", 10,
        "sp=1.0! pc=2.7-2.6 page_code=2.5-2.0 subpage_code=3 parameter_pointer=5-6 allocation_length=7-8",
        log_sense, _IN,
    ),
    Command(
        0x55, None, "MODE SELECT(10)", 10,
        "pf=1.4 rtd=1.1! sp=1.0 parameter_list_length=7-8",
        mode_select, _OUT, exclusive=True,
    ),
    Command(
        0x5A, None, "MODE SENSE(10)", 10,
        "llbaa=1.4 dbd=1.3 pc=2.7-2.6 page_code=2.5-2.0 subpage_code=3 allocation_length=7-8",
        mode_sense, _IN, allowed_during_format=True,
    ),
    *(
        Command(
            0x5E, action, f"PERSISTENT RESERVE IN, {name}", 10,
            "allocation_length=7-8",
            handled_by_target_core, _IN, needs=Feature.TARGET_CORE,
        )
        for action, name in enumerate((
            "READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS",
        ))
    ),
    *(
        Command(
            0x5F, action, f"PERSISTENT RESERVE OUT, {name}", 10,
            "scope=2.7-2.4 type=2.3-2.0 parameter_list_length=5-8",
            handled_by_target_core, _OUT, needs=Feature.TARGET_CORE,
        )
        for action, name in enumerate((
            "REGISTER", "RESERVE", "RELEASE", "CLEAR", "PREEMPT", "PREEMPT AND ABORT",
            "REGISTER AND IGNORE EXISTING KEY", "REGISTER AND MOVE",
        ))
    ),
    Command(
        0x7F, 0x0009, "READ(32)", 32,
        f"group_number=6~ rdprotect=10.7-10.5! dpo=10.4 fua=10.3 {_LONG_RANGE}",
        read, _IN, _READY, tally=Tally.READS, needs=Feature.VARIABLE_LENGTH,
    ),
    Command(
        0x7F, 0x000A, "VERIFY(32)", 32,
        f"group_number=6~ vrprotect=10.7-10.5! dpo=10.4 bytchk=10.2-10.1 {_LONG_RANGE}",
        verify, _OUT, _READY, needs=Feature.VARIABLE_LENGTH,
    ),
    Command(
        0x7F, 0x000B, "WRITE(32)", 32,
        f"group_number=6~ wrprotect=10.7-10.5! dpo=10.4 fua=10.3 {_LONG_RANGE}",
        write, _OUT, _WRITABLE, tally=Tally.WRITES, needs=Feature.VARIABLE_LENGTH,
    ),
    Command(
        0x7F, 0x000C, "WRITE AND VERIFY(32)", 32,
        f"group_number=6~ wrprotect=10.7-10.5! dpo=10.4 bytchk=10.2-10.1 {_LONG_RANGE}",
        write_and_verify, _OUT, _WRITABLE, needs=Feature.VARIABLE_LENGTH,
    ),
    Command(
        0x7F, 0x000D, "WRITE SAME(32)", 32,
        f"group_number=6~ wrprotect=10.7-10.5! anchor=10.4! unmap=10.3 ndob=10.0 {_LONG_RANGE}",
        write_same, _OUT, _WRITABLE, needs=Feature.VARIABLE_LENGTH,
    ),
    Command(
        0x83, 0x00, "EXTENDED COPY(LID1)", 16,
        "parameter_list_length=10-13",
        extended_copy, _OUT, idempotent=False,
    ),
    Command(
        0x83, 0x10, "POPULATE TOKEN", 16,
        "list_identifier=6-9 parameter_list_length=10-13 group_number=14~",
        populate_token, _OUT, _READY,
    ),
    Command(
        0x83, 0x11, "WRITE USING TOKEN", 16,
        "list_identifier=6-9 parameter_list_length=10-13 group_number=14~",
        write_using_token, _OUT, _WRITABLE, idempotent=False,
    ),
    Command(
        0x84, 0x00, "RECEIVE COPY STATUS(LID1)", 16,
        "list_identifier=2 allocation_length=10-13",
        receive_copy_status, _IN,
    ),
    Command(
        0x84, 0x03, "RECEIVE COPY OPERATING PARAMETERS", 16,
        "list_identifier=2~ allocation_length=10-13",
        receive_copy_operating_parameters, _IN,
    ),
    Command(
        0x84, 0x07, "RECEIVE ROD TOKEN INFORMATION", 16,
        "list_identifier=2-5 allocation_length=10-13",
        receive_rod_token_information, _IN,
    ),
    Command(
        0x88, None, "READ(16)", 16,
        "rdprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-9 blocks=10-13 group_number=14~",
        read, _IN, _READY, tally=Tally.READS,
    ),
    Command(
        0x89, None, "COMPARE AND WRITE", 16,
        "wrprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-9 blocks=13 group_number=14~",
        compare_and_write, _OUT, _WRITABLE, exclusive=True, idempotent=False,
    ),
    Command(
        0x8A, None, "WRITE(16)", 16,
        "wrprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-9 blocks=10-13 group_number=14~",
        write, _OUT, _WRITABLE, tally=Tally.WRITES,
    ),
    Command(
        0x8B, None, "ORWRITE(16)", 16,
        "orprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-9 blocks=10-13 group_number=14~",
        orwrite, _OUT, _WRITABLE, exclusive=True,
    ),
    Command(
        0x8E, None, "WRITE AND VERIFY(16)", 16,
        "wrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-9 blocks=10-13 group_number=14~",
        write_and_verify, _OUT, _WRITABLE,
    ),
    Command(
        0x8F, None, "VERIFY(16)", 16,
        "vrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-9 blocks=10-13 group_number=14~",
        verify, _OUT, _READY,
    ),
    Command(
        0x90, None, "PRE-FETCH(16)", 16,
        "immed=1.1 lba=2-9 blocks=10-13 group_number=14~",
        pre_fetch, medium=_READY,
    ),
    Command(
        0x91, None, "SYNCHRONIZE CACHE(16)", 16,
        "sync_nv=1.2~ immed=1.1 lba=2-9 blocks=10-13 group_number=14~",
        synchronize_cache, medium=_READY,
    ),
    Command(
        0x93, None, "WRITE SAME(16)", 16,
        "wrprotect=1.7-1.5! anchor=1.4! unmap=1.3 ndob=1.0 lba=2-9 blocks=10-13 group_number=14~",
        write_same, _OUT, _WRITABLE,
    ),
    Command(
        0x9C, None, "WRITE ATOMIC(16)", 16,
        "wrprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-9 atomic_boundary=10-11! blocks=12-13 group_number=14~",
        write_atomic, _OUT, _WRITABLE, needs=Feature.ATOMIC_WRITE, exclusive=True,
    ),
    Command(
        0x9E, 0x10, "READ CAPACITY(16)", 16,
        "allocation_length=10-13",
        read_capacity_16, _IN, _READY, allowed_during_format=True,
    ),
    Command(
        0x9E, 0x12, "GET LBA STATUS(16)", 16,
        "lba=2-9 allocation_length=10-13 report_type=14~",
        get_lba_status, _IN, _READY,
    ),
    Command(
        0xA0, None, "REPORT LUNS", 12,
        "select_report=2 allocation_length=6-9",
        handled_by_target_core, _IN, needs=Feature.TARGET_CORE,
    ),
    Command(
        0xA2, None, "SECURITY PROTOCOL IN", 12,
        "security_protocol=1 security_protocol_specific=2-3 inc_512=4.7 allocation_length=6-9",
        security_protocol_in, _IN,
    ),
    Command(
        0xA3, 0x05, "REPORT IDENTIFYING INFORMATION", 12,
        "allocation_length=6-9 information_type=10.7-10.1",
        report_identifying_information, _IN,
    ),
    Command(
        0xA3, 0x0C, "REPORT SUPPORTED OPERATION CODES", 12,
        "rctd=2.7 reporting_options=2.2-2.0 requested_operation_code=3 requested_service_action=4-5"
        " allocation_length=6-9",
        report_supported_operation_codes, _IN, allowed_during_format=True,
    ),
    Command(
        0xA3, 0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 12,
        "repd=2.7 allocation_length=6-9",
        report_supported_task_management_functions, _IN, allowed_during_format=True,
    ),
    Command(
        0xA3, 0x0F, "REPORT TIMESTAMP", 12,
        "allocation_length=6-9",
        report_timestamp, _IN,
    ),
    Command(
        0xA4, 0x06, "SET IDENTIFYING INFORMATION", 12,
        "parameter_list_length=6-9 information_type=10.7-10.1",
        set_identifying_information, _OUT, exclusive=True,
    ),
    Command(
        0xA4, 0x0F, "SET TIMESTAMP", 12,
        "parameter_list_length=6-9",
        set_timestamp, _OUT,
    ),
    Command(
        0xA8, None, "READ(12)", 12,
        "rdprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-5 blocks=6-9 group_number=10~",
        read, _IN, _READY, tally=Tally.READS,
    ),
    Command(
        0xAA, None, "WRITE(12)", 12,
        "wrprotect=1.7-1.5! dpo=1.4 fua=1.3 lba=2-5 blocks=6-9 group_number=10~",
        write, _OUT, _WRITABLE, tally=Tally.WRITES,
    ),
    Command(
        0xAE, None, "WRITE AND VERIFY(12)", 12,
        "wrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-5 blocks=6-9 group_number=10~",
        write_and_verify, _OUT, _WRITABLE,
    ),
    Command(
        0xAF, None, "VERIFY(12)", 12,
        "vrprotect=1.7-1.5! dpo=1.4 bytchk=1.2-1.1 lba=2-5 blocks=6-9 group_number=10~",
        verify, _OUT, _READY,
    ),
    Command(
        0xB7, None, "READ DEFECT DATA(12)", 12,
        "req_plist=1.4 req_glist=1.3 defect_list_format=1.2-1.0 address_descriptor_index=2-5"
        " allocation_length=6-9",
        read_defect_data, _IN, _READY,
    ),
)  # fmt: skip

TABLE: dict[tuple[int, int | None], Command] = {(row.opcode, row.service_action): row for row in _ROWS}
"""Every command, by operation code and service action."""

SERVICE_ACTIONS = frozenset(opcode for opcode, service_action in TABLE if service_action is not None)
"""Operation codes that have service actions."""

_Unpacker = Callable[[bytes | bytearray | memoryview, int], tuple[int, ...]]

FAST_PATH_OPCODES: dict[int, tuple[_Unpacker, bool]] = {
    opcode: (struct.Struct(form).unpack_from, TABLE[opcode, None].tally is Tally.WRITES)
    for form, opcodes in ((">xBIxHB", (0x28, 0x2A)), (">xBQIxB", (0x88, 0x8A)))
    for opcode in opcodes
}
"""Commands of the engine's fast path by operation code, READ and WRITE (10) and (16): a function that unpacks
byte 1, LBA, transfer length in blocks and CONTROL at an offset of a buffer; and whether it is a write.
The group number is ignored."""
