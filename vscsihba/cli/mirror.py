"""``vscsihba mirror``: the legs of a mirrored disk while it is in use."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.acting import act
from vscsihba.cli.commands import parser_of
from vscsihba.cli.entry import Parser
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.place import DESCRIPTION
from vscsihba.cli.verbs import Verbs
from vscsihba.errors import UsageError

_EXAMPLES: Final = """\
  vscsihba mirror status hba0/lun0                     which leg has what, and how far copying is
  vscsihba mirror add-leg hba0/lun0 /mnt/new/disk.img  let another leg take part, and copy to it
  vscsihba mirror remove-leg hba0/lun0 1               let leg 1 take part no more
  vscsihba mirror retry hba0/lun0                      try the legs that are gone now

The disk's stack must have the layer "mirror" (docs/handlers/mirror.md).
"""

_DISK: Final = ("disk", DESCRIPTION)


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Do one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    leg = ("leg", "a file, a stack in one line, or one in JSON")
    verbs = Verbs(parser_of("mirror", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("status", "tell what is known of each leg", _status, _DISK)
    verbs.add("add-leg", "let another leg take part", _add_leg, _DISK, leg)
    verbs.add("remove-leg", "let a leg take part no more", _remove_leg, _DISK, ("number", "of the leg"))
    verbs.add("retry", "try the legs that are gone now", _retry, _DISK)
    return verbs


def _status(options: argparse.Namespace) -> object:
    return act(options, "mirror", "status")


def _add_leg(options: argparse.Namespace) -> object:
    return {"number": act(options, "mirror", "add_leg", {"leg": _leg(options.leg)})}


def _remove_leg(options: argparse.Namespace) -> object:
    if not options.number.isdecimal():
        raise UsageError(f"leg {options.number!r} is no number", cure="see the verb status")
    act(options, "mirror", "remove_leg", {"number": int(options.number)})
    return {"removed": int(options.number)}


def _retry(options: argparse.Namespace) -> object:
    act(options, "mirror", "retry")
    return act(options, "mirror", "status")


def _leg(text: str) -> object:
    """Return the document of a leg as `show` will have it, with paths as they are here."""
    from vscsihba.config.stacks import read_stack  # noqa: PLC0415 - --help needs none of it
    from vscsihba.handlers.registry import Registry  # noqa: PLC0415 - likewise
    from vscsihba.handlers.stack_text import parse  # noqa: PLC0415 - likewise

    return read_stack(parse(text), Path.cwd(), Registry(), "LEG")


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb in ("status", "retry"):
        rows = [
            [str(leg["number"]), leg["standing"], leg["identity"], leg["error"]] for leg in result["legs"]
        ]
        print_table(rows, ["leg", "state", "medium", "why"])
        if resync := result["resync"]:
            print(f"copying: {resync['done']} of {resync['of']} regions")
    elif options.verb == "add-leg":
        print(f"leg {result['number']} takes part in {options.disk}")
    else:
        print(f"leg {result['removed']} takes part in {options.disk} no more")
