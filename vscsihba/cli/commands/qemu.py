"""``vscsihba qemu``: looks at the image of QEMU behind a disk in use."""

import argparse
import shlex
from collections.abc import Sequence
from typing import Any, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.layer_action import act
from vscsihba.cli.lun_arg import DESCRIPTION
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs

_EXAMPLES: Final = """\
  vscsihba qemu status hba0/lun0       show the image, its daemon, and the writes in its log
  vscsihba qemu check /dev/sdb         check the tables of the image, and repair nothing

The disk's stack must have the handler "qemu" (docs/handlers/qemu.md). Its requests wait while its image is
checked. Exit codes of check: 0 no fault, or leaks only; 1 the image is damaged, or cannot be checked.
"""

_DISK: Final = ("disk", DESCRIPTION)


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs; 1 if a check has found damage."""
    damaged: list[bool] = []

    def show(options: argparse.Namespace, result: Any) -> None:
        _show(options, result)
        damaged.append(options.verb == "check" and _is_damaged(result))

    _verbs().run(arguments, show)
    return int(any(damaged))


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("qemu", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("status", "show the image of a disk, its daemon, and the writes in its log", _ask, _DISK)
    verbs.add("check", "check the tables of the image of a disk", _ask, _DISK)
    return verbs


def _ask(options: argparse.Namespace) -> object:
    return act(options, "qemu", options.verb)


def _is_damaged(result: dict[str, Any]) -> bool:
    return bool(result["corruptions"] or result["check-errors"])


def _show(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "status":
        rows = {
            "image": result["path"],
            "format": result["format"],
            "overlay of": result["backing"] or "no image",
            "daemon": f"process {result['daemon']}" if result["daemon"] else "being started",
            "logged writes": str(result["logged"]),
        }
        print_table([[name, text] for name, text in rows.items()])
    else:
        print(f"{options.disk}: {_verdict(result)}")


def _verdict(result: dict[str, Any]) -> str:
    """Return the result of a check in one line."""
    path = shlex.quote(result["filename"])
    if _is_damaged(result):
        counts = f"corruptions: {result['corruptions']}, errors of the check: {result['check-errors']}"
        return f"{path} is damaged ({counts}); save its data first, then see qemu-img check -r all"
    if leaks := result["leaks"]:
        cure = f"to free them, remove the disk, and run qemu-img check -r leaks {path}"
        return f"{path} has clusters that nothing uses ({leaks}), which is no fault; {cure}"
    return f"{path} has no faults"
