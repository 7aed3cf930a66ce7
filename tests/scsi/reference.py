"""Generator of the page docs/supported-scsi.md, from the tables of the target itself.

Run ``python -m tests.scsi.reference > docs/supported-scsi.md``; a test compares the two.
"""

import sys
from collections.abc import Iterable

from vscsihba.scsi import log_pages, mode_pages, vpd
from vscsihba.scsi.command import Command, Data, MediumAccess
from vscsihba.scsi.commands.target_core import handled_by_target_core
from vscsihba.scsi.features import Feature
from vscsihba.scsi.opcodes import TABLE

_HEAD = """\
# Supported SCSI

Every logical unit is a direct access block device built to SPC-5 and SBC-4. This page is written
from the program's own tables by `python -m tests.scsi.reference`; do not edit it.

"Usage" is the CDB usage data that REPORT SUPPORTED OPERATION CODES returns. A bit that is not set
there must be zero, or the command ends with CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN CDB
and a pointer to the field; but for the fields that are said to be ignored.
"""

_FEATURES = {
    Feature.UNMAP: "the medium can unmap",
    Feature.CRYPTO_ERASE: "the medium can destroy its key",
    Feature.ATOMIC_WRITE: "the medium writes wholly or not at all",
    Feature.REMOVABLE: "the medium is removable",
    Feature.VARIABLE_LENGTH: "asked for, as SBC-4 wants it only with type 2 protection",
    Feature.TARGET_CORE: "Linux's target core is in front, and answers",
}

_DATA = {Data.NONE: "", Data.IN: "in", Data.OUT: "out"}

_MEDIUM = {
    MediumAccess.UNTOUCHED: "",
    MediumAccess.READY: "ready",
    MediumAccess.WRITABLE: "writable",
    MediumAccess.REPLACED: "writable, contents replaced",
}

_NOTES = """\
## Worth knowing

| of | what |
|---|---|
| data-out of another length than the CDB says | too little is refused with INVALID FIELD IN COMMAND INFORMATION UNIT, and nothing is written; WRITE SAME refuses too much likewise, COMPARE AND WRITE with INVALID FIELD IN CDB |
| write protection | every command that changes the medium ends with DATA PROTECT: WRITE PROTECTED, or LOGICAL UNIT SOFTWARE WRITE PROTECTED if SWP is set |
| FORMAT UNIT and SANITIZE | they go on when their command is aborted or the unit is reset. One that is cut off, because its engine ends, has failed when the unit comes back: the medium cannot be used until it has been done again (or EXIT FAILURE MODE, if AUSE was set) |
| room on a thin medium | where it is known (a file's file system, the limit of a memory disk), the Logical Block Provisioning log page tells it. An initiator that sets a threshold (mode page 1Ch/02h, with LBPERE in page 01h) gets a unit attention, THIN PROVISIONING SOFT THRESHOLD REACHED, when a write has made it fall below; commands are somewhat slower then |
| what is kept | saved mode pages, identifying information, and that an erasure has not come to its end |
"""  # noqa: E501 - rows of a table

_ABSENT = """\
## Not there, and why

| what | why |
|---|---|
| protection information | no medium stores it: PROTECT is 0, and so must be RDPROTECT and its like |
| anchored blocks | no medium can reserve storage without writing: ANC_SUP is 0, and ANCHOR must be zero |
| the stopped power condition | nothing turns: START=0 flushes the cache, and the unit serves on |
| power condition timers | only START STOP UNIT changes the power condition |
| NACA | no initiator of Linux uses it: NORMACA is 0 |
| MODE PARAMETERS CHANGED and the like | they are for other initiators, and the transport tells none apart |
| unit attentions for each initiator | likewise: what concerns all of them is reported once |
| READ LONG, WRITE LONG | there are no bytes beside a block's own |
| microcode | there is none to download |
"""


def reference() -> str:
    """Return the page."""
    parts = [_HEAD, _commands(), _vpd_pages(), _mode_pages(), _log_pages(), _NOTES, _ABSENT]
    return "\n".join(parts)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _commands() -> str:
    titles = ("code", "command", "usage", "data", "medium", "remarks")
    rows = (
        (
            _code(row),
            row.name,
            "" if row.run is handled_by_target_core else f"`{row.usage_data.hex(' ')}`",
            _DATA[row.data],
            _MEDIUM[row.medium],
            _remarks(row),
        )
        for row in TABLE.values()
    )
    return "## Commands\n\n" + _table(titles, rows)


def _code(row: Command) -> str:
    return f"{row.opcode:02X}h" + ("" if row.service_action is None else f"/{row.service_action:02X}h")


def _remarks(row: Command) -> str:
    remarks = []
    if row.needs in _FEATURES:
        remarks.append(f"if {_FEATURES[row.needs]}")
    if row.exclusive:
        remarks.append("runs alone")
    if row.starts_alone:
        remarks.append("starts alone")
    if not row.idempotent:
        remarks.append("never repeated")
    ignored = [name.replace("_", " ") for name, field in row.layout.fields.items() if field.mark == "~"]
    if ignored:
        remarks.append("ignores " + ", ".join(ignored))
    return "; ".join(remarks)


def _vpd_pages() -> str:
    rows = ((f"{code:02X}h", name) for code, (name, _) in vpd.PAGES.items())
    return "## Vital product data pages\n\n" + _table(("code", "page"), rows)


def _mode_pages() -> str:
    titles = ("code", "page", "default", "changeable")
    rows = (
        (
            f"{page:02X}h" + (f"/{subpage:02X}h" if subpage else ""),
            one.name,
            f"`{one.default.hex()}`",
            f"`{one.changeable.hex()}`" if any(one.changeable) else "nothing",
        )
        for (page, subpage), one in mode_pages.PAGES.items()
    )
    saved = "Every page can be saved; what is saved is kept with the unit.\n"
    return "## Mode pages\n\n" + saved + "\n" + _table(titles, rows)


def _log_pages() -> str:
    rows = ((f"{page:02X}h", name) for (page, _), (name, _) in log_pages.PAGES.items())
    return "## Log pages\n\n" + _table(("code", "page"), rows)


if __name__ == "__main__":
    sys.stdout.write(reference())
