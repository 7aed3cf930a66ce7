"""The ctypes mirror of ``linux/target_core_user.h``, names verbatim.

Holds the layout only; `ring` knows the meaning of the fields (kernel:
drivers/target/target_core_user.c). A test compiles the real header and compares
every size and offset.
"""

import ctypes
from ctypes import Structure, Union, c_char, c_uint8, c_uint16, c_uint32, c_uint64

TCMU_MAILBOX_VERSION = 2
TCMU_MAILBOX_FLAG_CAP_OOOC = 1 << 0
TCMU_MAILBOX_FLAG_CAP_READ_LEN = 1 << 1
TCMU_MAILBOX_FLAG_CAP_TMR = 1 << 2
TCMU_MAILBOX_FLAG_CAP_KEEP_BUF = 1 << 3

TCMU_OP_PAD = 0
TCMU_OP_CMD = 1
TCMU_OP_TMR = 2
TCMU_OP_MASK = 0x7
TCMU_OP_ALIGN_SIZE = 8

TCMU_UFLAG_UNKNOWN_OP = 0x1
TCMU_UFLAG_READ_LEN = 0x2
TCMU_UFLAG_KEEP_BUF = 0x4

TCMU_SENSE_BUFFERSIZE = 96

TCMU_TMR_UNKNOWN = 0
TCMU_TMR_ABORT_TASK = 1
TCMU_TMR_ABORT_TASK_SET = 2
TCMU_TMR_CLEAR_ACA = 3
TCMU_TMR_CLEAR_TASK_SET = 4
TCMU_TMR_LUN_RESET = 5
TCMU_TMR_TARGET_WARM_RESET = 6
TCMU_TMR_TARGET_COLD_RESET = 7
TCMU_TMR_LUN_RESET_PRO = 128


class tcmu_mailbox(Structure):  # noqa: N801 - the kernel's name
    """The first bytes of the map; `cmd_tail` has a cache line of its own."""

    _fields_ = (
        ("version", c_uint16),
        ("flags", c_uint16),
        ("cmdr_off", c_uint32),
        ("cmdr_size", c_uint32),
        ("cmd_head", c_uint32),
        ("_align", c_uint8 * 48),
        ("cmd_tail", c_uint32),
        ("_pad", c_uint8 * 60),
    )


class tcmu_cmd_entry_hdr(Structure):  # noqa: N801 - the kernel's name
    """The header of every entry of the ring; the low bits of `len_op` are the op."""

    _pack_ = 1
    _fields_ = (
        ("len_op", c_uint32),
        ("cmd_id", c_uint16),
        ("kflags", c_uint8),
        ("uflags", c_uint8),
    )


class iovec(Structure):  # noqa: N801 - the kernel's name
    """One piece of the data buffer: `iov_base` is an offset from the start of the map."""

    _fields_ = (("iov_base", c_uint64), ("iov_len", c_uint64))


class _Request(Structure):
    _fields_ = (
        ("iov_cnt", c_uint32),
        ("iov_bidi_cnt", c_uint32),
        ("iov_dif_cnt", c_uint32),
        ("cdb_off", c_uint64),
        ("__pad1", c_uint64),
        ("__pad2", c_uint64),
        ("iov", iovec * 0),
    )


class _Response(Structure):
    _fields_ = (
        ("scsi_status", c_uint8),
        ("__pad1", c_uint8),
        ("__pad2", c_uint16),
        ("read_len", c_uint32),
        ("sense_buffer", c_char * TCMU_SENSE_BUFFERSIZE),
    )


class _Body(Union):
    _fields_ = (("req", _Request), ("rsp", _Response))


class tcmu_cmd_entry(Structure):  # noqa: N801 - the kernel's name
    """A command (`req`), later its completion (`rsp`) in the same bytes."""

    _pack_ = 1
    _anonymous_ = ("body",)
    _fields_ = (("hdr", tcmu_cmd_entry_hdr), ("body", _Body))


class tcmu_tmr_entry(Structure):  # noqa: N801 - the kernel's name
    """A task management request; `cmd_cnt` command ids follow."""

    _pack_ = 1
    _fields_ = (
        ("hdr", tcmu_cmd_entry_hdr),
        ("tmr_type", c_uint8),
        ("__pad1", c_uint8),
        ("__pad2", c_uint16),
        ("cmd_cnt", c_uint32),
        ("__pad3", c_uint64),
        ("__pad4", c_uint64),
        ("cmd_ids", c_uint16 * 0),
    )


MAILBOX_SIZE = ctypes.sizeof(tcmu_mailbox)
CMD_HEAD_OFFSET = tcmu_mailbox.cmd_head.offset
CMD_TAIL_OFFSET = tcmu_mailbox.cmd_tail.offset
REQ_OFFSET = tcmu_cmd_entry.body.offset
IOV_OFFSET = REQ_OFFSET + _Request.iov.offset
SENSE_OFFSET = REQ_OFFSET + _Response.sense_buffer.offset
CMD_ENTRY_SIZE = ctypes.sizeof(tcmu_cmd_entry)
CMD_IDS_OFFSET = tcmu_tmr_entry.cmd_ids.offset
