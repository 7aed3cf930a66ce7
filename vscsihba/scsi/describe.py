"""CDBs and sense data as text, for the trace.

Accepts any bytes.
"""

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.cdb import Cdb, lookup
from vscsihba.scsi.command import NAMING_FIELDS
from vscsihba.scsi.layout import Field
from vscsihba.scsi.response import Status
from vscsihba.scsi.sense import SenseKey

_ALWAYS_SHOWN = ("lba", "blocks")


def describe(cdb: bytes) -> tuple[str, str]:
    """Return the T10 name of a command and its fields: ``("READ(10)", "lba=2048 blocks=8")``."""
    command = lookup(cdb)
    if command is None:
        return (f"opcode {cdb[0]:02X}h" if cdb else "no CDB"), cdb[1:].hex(" ")
    decoded = Cdb(command, cdb.ljust(command.length, b"\0"))
    fields = command.layout.fields
    words = [_word(field, decoded[name]) for name, field in fields.items() if name not in NAMING_FIELDS]
    return command.name, " ".join(word for word in words if word)


def _word(field: Field, value: int) -> str:
    if not value and field.name not in _ALWAYS_SHOWN:
        return ""
    if field.width == 1:
        return field.name
    decimal = field.name.endswith(("lba", "blocks", "length"))
    return f"{field.name}={value}" if decimal else f"{field.name}=0x{value:02x}"


def describe_sense(sense: bytes) -> str:
    """Return T10's words for sense data in fixed or descriptor format, the empty string for none."""
    if len(sense) < 4:
        return ""
    if sense[0] & 0x7E == 0x72:
        key, code = sense[1] & 0x0F, int.from_bytes(sense[2:4], "big")
        specific = _descriptor(sense, 2)[4:7]
    else:
        key, code = sense[2] & 0x0F, int.from_bytes(sense[12:14], "big")
        specific = sense[15:18]
    words = [_key_words(key), _code_words(code), _pointer_words(key, specific)]
    if sense[0] & 1:
        words.insert(0, "deferred")
    return ", ".join(word for word in words if word)


def _descriptor(sense: bytes, kind: int) -> bytes:
    """Return the sense data descriptor of a type, empty if the sense data has none."""
    at = 8
    while at + 2 <= len(sense):
        end = at + 2 + sense[at + 1]
        if sense[at] == kind:
            return sense[at:end]
        at = end
    return b""


def _key_words(key: int) -> str:
    return SenseKey(key).words if key in list(SenseKey) else f"sense key {key:X}h"


def _code_words(code: int) -> str:
    if code in list(Asc):
        return Asc(code).words
    return f"ASC {code >> 8:02X}h ASCQ {code & 0xFF:02X}h"


def _pointer_words(key: int, specific: bytes) -> str:
    if key != SenseKey.ILLEGAL_REQUEST or len(specific) < 3 or not specific[0] & 0x80:
        return ""
    where = "CDB" if specific[0] & 0x40 else "parameter list"
    bit = f" bit {specific[0] & 7}" if specific[0] & 8 else ""
    return f"{where} byte {int.from_bytes(specific[1:3], 'big')}{bit}"


def status_name(status: int) -> str:
    """Return T10's name of a SAM status."""
    return Status(status).words if status in list(Status) else f"status {status:02X}h"
