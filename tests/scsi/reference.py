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

Every logical unit is a direct access block device, built to SPC-5 and SBC-4. `python -m tests.scsi.reference`
generates this page from the tables of the program; do not edit it.

"Usage" is the CDB usage data that REPORT SUPPORTED OPERATION CODES returns. A bit that is 0 there must be 0
in the CDB, unless the remarks say that its field is ignored. Otherwise the command ends with CHECK CONDITION,
ILLEGAL REQUEST, INVALID FIELD IN CDB and a pointer to the field.
"""

_FEATURES = {
    Feature.UNMAP: "the medium can unmap",
    Feature.CRYPTO_ERASE: "the medium can destroy its key",
    Feature.ATOMIC_WRITE: "the medium has atomic writes",
    Feature.REMOVABLE: "the medium is removable",
    Feature.VARIABLE_LENGTH: "you ask for it, since SBC-4 requires it only with type 2 protection",
    Feature.TARGET_CORE: "Linux's target core is in front, which completes it",
}

_DATA = {Data.NONE: "", Data.IN: "in", Data.OUT: "out"}

_MEDIUM = {
    MediumAccess.UNTOUCHED: "",
    MediumAccess.READY: "ready",
    MediumAccess.WRITABLE: "writable",
    MediumAccess.REPLACED: "writable, contents replaced",
}

_NOTES = """\
## Notes

| subject | behaviour |
|---|---|
| length of data-out | A command with less data-out than its CDB says is refused with INVALID FIELD IN COMMAND INFORMATION UNIT, and nothing is written. With more data-out, WRITE SAME is refused likewise, COMPARE AND WRITE with INVALID FIELD IN CDB |
| write protection | Every command that changes the medium ends with DATA PROTECT: WRITE PROTECTED, or LOGICAL UNIT SOFTWARE WRITE PROTECTED if SWP is set |
| FORMAT UNIT and SANITIZE | They go on when their command is aborted or the unit is reset. If the engine dies meanwhile, they have failed: you cannot use the medium until you repeat them (or send EXIT FAILURE MODE, if AUSE was set) |
| free space of a thin medium | Where it is known (a file's file system, the limit of a memory disk), the Logical Block Provisioning log page reports it. If you set a threshold (mode page 1Ch/02h, with LBPERE in page 01h), a write that crosses it causes the unit attention THIN PROVISIONING SOFT THRESHOLD REACHED; commands are then somewhat slower |
| state that survives a restart | Saved mode pages, identifying information, and a format or sanitize that is unfinished or has failed |
"""  # noqa: E501 - rows of a table

_ABSENT = """\
## Not supported

| feature | reason |
|---|---|
| protection information | No medium stores it: PROTECT is 0, and RDPROTECT, WRPROTECT and VRPROTECT must be 0 |
| anchored blocks | No medium can reserve storage without writing: ANC_SUP is 0, and ANCHOR must be 0 |
| the stopped power condition | A disk has no motor: START=0 flushes the cache, and the unit goes on serving |
| power condition timers | Only START STOP UNIT changes the power condition |
| NACA | No initiator on Linux uses it: NORMACA is 0 |
| MODE PARAMETERS CHANGED and other unit attentions for other initiators | The transport does not distinguish initiators |
| unit attentions for each initiator | Likewise: an event is reported once |
| READ LONG, WRITE LONG | A block has no bytes beside its data |
| microcode | There is no microcode to download |
"""  # noqa: E501 - rows of a table


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
        remarks.append("not idempotent")
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
            f"`{one.changeable.hex()}`" if any(one.changeable) else "none",
        )
        for (page, subpage), one in mode_pages.PAGES.items()
    )
    saved = "Every page can be saved; saved values survive a restart.\n"
    return "## Mode pages\n\n" + saved + "\n" + _table(titles, rows)


def _log_pages() -> str:
    rows = ((f"{page:02X}h", name) for (page, _), (name, _) in log_pages.PAGES.items())
    return "## Log pages\n\n" + _table(("code", "page"), rows)


if __name__ == "__main__":
    sys.stdout.write(reference())
