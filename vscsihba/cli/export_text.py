"""Text of the exports in ``vscsihba status``: their LUNs, the sessions, and reasons of failures."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from vscsihba.cli.output import Cell, table_lines, wrapped
from vscsihba.daemon.calls import ExportLunStatus, ExportStatus


def export_lines(exports: Sequence[ExportStatus], width: int | None) -> Iterator[Text]:
    """Yield the lines that show exports to a person; none if there are no exports.

    Args:
        exports: The exports in the service's answer.
        width: Columns of the terminal; None for no limit.
    """
    if not exports:
        return
    yield Text()
    yield from table_lines(list(_rows(exports)), ("EXPORT", "LUN", "BACKSTORE", "ACCESS", "STATE"), width)
    yield Text()
    sessions = [
        (export["name"], session["initiator"], ", ".join(session["addresses"]) or "-")
        for export in exports
        for session in export["sessions"]
    ]
    if sessions:
        yield from table_lines(sessions, ("EXPORT", "LOGGED IN", "ADDRESS"), width)
    else:
        yield Text("no initiator is logged in")
    for export in exports:
        name, _, reason = export["state"].partition(": ")
        if reason:
            yield from wrapped(Text(f"export {export['name']}: {name}: {reason}"), width)


def _rows(exports: Sequence[ExportStatus]) -> Iterator[list[Cell]]:
    for export in exports:
        for lun in export["luns"]:
            yield [export["name"], str(lun["lun"]), lun["backstore"], _access(lun), _state(lun["state"])]
        if not export["luns"]:
            yield [export["name"], "-", "-", "-", _state(export["state"])]


def _access(lun: ExportLunStatus) -> str:
    """Return ``read-write`` or ``read-only``, and a state such as ``standby`` (an older service: none)."""
    access = "read-only" if lun["read_only"] else "read-write"
    state = lun.get("access_state") or "active"
    return access if state == "active" else f"{access}, {state}"


def _state(state: str) -> Text:
    word = state.partition(": ")[0]
    return Text(word, style="green" if word == "running" else "bold red")
