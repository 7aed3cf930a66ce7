"""``vscsihba path``: shows the paths to disks, and changes the access state of those of exports."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs
from vscsihba.config.export import AccessState
from vscsihba.config.load import read
from vscsihba.daemon.calls import Daemon, ExportLunStatus, ExportStatus, Status
from vscsihba.errors import UsageError
from vscsihba.handlers.options import did_you_mean

_EXAMPLES: Final = """\
  vscsihba path show                                             show every path
  vscsihba path set iqn.2026-11.example:b --state standby        refuse I/O over this export
  vscsihba path set iqn.2026-11.example:b --lun 0 --state active

Initiators with multipath-tools see standby as "ghost", unavailable as "faulty" (docs/export.md). To keep
the states for the next start, run "vscsihba save".
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("path", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("show", "show every path to every disk", _paths)
    setting = verbs.add("set", "change the access state of an export's LUNs", _set, ("export", "its name"))
    states = get_args(AccessState)
    setting.add_argument("--state", required=True, choices=states, help=" or ".join(states))
    setting.add_argument("--lun", type=int, metavar="N", help="only LUN N")
    return verbs


def _paths(_options: argparse.Namespace) -> object:
    return list(_all_paths(Daemon().status()))


def _all_paths(status: Status) -> Iterator[dict[str, object]]:
    """Yield the paths: the one through the HBA, if the LUN is local, and one for each portal of an export."""
    for hba in status["hbas"]:
        for lun in hba["luns"]:
            if lun.get("local", True):
                yield {
                    "backstore": lun["backstore"],
                    "path": f"hba{hba['id']}/lun{lun['lun']}",
                    "lun": lun["lun"],
                    "portal": None,
                    "state": "active" if lun["state"] == "running" else lun["state"].partition(": ")[0],
                    "used_by": [lun["device"]] if lun["device"] else [],
                }
    for export in status["exports"]:
        for lun_of_export in export["luns"]:
            yield from _export_paths(export, lun_of_export)


def _export_paths(export: ExportStatus, lun: ExportLunStatus) -> Iterator[dict[str, object]]:
    for portal in export["portals"]:
        yield {
            "backstore": lun["backstore"],
            "path": export["name"],
            "lun": lun["lun"],
            "portal": portal,
            "state": lun["access_state"] or "missing",
            "used_by": [session["initiator"] for session in export["sessions"]],
        }


def _set(options: argparse.Namespace) -> object:
    daemon = Daemon()
    running = daemon.show()
    exports = {export["name"]: export for export in running.get("exports", [])}
    if options.export not in exports:
        raise UsageError(f"there is no export {options.export!r}", cure=did_you_mean(options.export, exports))
    luns = exports[options.export].get("luns", [])
    chosen = [lun for lun in luns if options.lun in (None, lun["lun"])]
    if not chosen:
        raise UsageError(
            f"the export {options.export} has no LUN" + ("" if options.lun is None else f" {options.lun}"),
            cure='see "vscsihba path show"',
        )
    seen = read(running, Path("/"))
    for lun in chosen:
        lun["state"] = options.state
    return daemon.apply(read(running, Path("/")), prune="none", seen=seen)


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "set":
        lun = "every LUN" if options.lun is None else f"LUN {options.lun}"
        print(f"{options.export}: {lun} is {options.state}" + ("" if result["changes"] else " already"))
    elif not result:
        print("no paths")
    else:
        rows = [
            (
                path["backstore"] or "-",
                path["path"],
                str(path["lun"]),
                path["portal"] or "-",
                path["state"],
                ", ".join(path["used_by"]) or "-",
            )
            for path in sorted(result, key=lambda path: path["backstore"] or "")
        ]
        print_table(rows, ("BACKSTORE", "PATH", "LUN", "PORTAL", "STATE", "USED BY"))
