"""``vscsihba mirror``: manages legs of a mirrored disk in use, and marks of legs that are not in use."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.layer_action import act
from vscsihba.cli.lun_arg import DESCRIPTION
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs
from vscsihba.errors import HostError, UsageError

if TYPE_CHECKING:
    from vscsihba.handlers.base import Handler

_EXAMPLES: Final = """\
  vscsihba mirror status hba0/lun0                     show the state of each leg, and the resync progress
  vscsihba mirror add-leg hba0/lun0 /mnt/new/disk.img  add a leg and copy the disk to it
  vscsihba mirror remove-leg hba0/lun0 1               remove leg 1
  vscsihba mirror retry hba0/lun0                      retry failed legs now
  vscsihba mirror overwrite hba0/lun0 1                resync all of leg 1, overwriting its new medium
  vscsihba mirror examine /mnt/b.img                   show the mark of a leg that is not in use
  vscsihba mirror erase-mark /mnt/b.img                erase the mark, so that another mirror can use the leg

All verbs except the last two need a disk in use whose stack has the handler "mirror"
(docs/handlers/mirror.md).
"""

_DISK: Final = ("disk", DESCRIPTION)


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    leg = ("leg", "a file, or a stack in one line or in JSON")
    verbs = Verbs(parser_of("mirror", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("status", "show the state of each leg", _status, _DISK)
    adding = verbs.add("add-leg", "add a leg", _add_leg, _DISK, leg)
    adding.add_argument("--overwrite", action="store_true", help="also add a leg that is not empty")
    verbs.add("remove-leg", "remove a leg", _remove_leg, _DISK, ("number", "number of the leg"))
    verbs.add("retry", "retry failed legs now", _retry, _DISK)
    summary = "resync all of a failed leg, overwriting its medium"
    verbs.add("overwrite", summary, _overwrite, _DISK, ("number", "number of the leg"))
    verbs.add("examine", "show the mark of a leg that is not in use", _examine, leg)
    verbs.add("erase-mark", "erase the mark of a leg that is not in use", _erase_mark, leg)
    return verbs


def _status(options: argparse.Namespace) -> object:
    return act(options, "mirror", "status")


def _add_leg(options: argparse.Namespace) -> object:
    arguments = {"leg": _leg(options.leg), **({"overwrite": True} if options.overwrite else {})}
    return {"number": act(options, "mirror", "add_leg", arguments)}


def _remove_leg(options: argparse.Namespace) -> object:
    number = _number(options.number)
    act(options, "mirror", "remove_leg", {"number": number})
    return {"removed": number}


def _overwrite(options: argparse.Namespace) -> object:
    act(options, "mirror", "overwrite", {"number": _number(options.number)})
    return act(options, "mirror", "status")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"leg {text!r} is not a number", cure='see "vscsihba mirror status"')
    return int(text)


def _examine(options: argparse.Namespace) -> object:
    from vscsihba.handlers.mirror.mark import read_mark  # noqa: PLC0415 - --help needs none of it

    with _opened(options.leg, read_only=True) as disk:
        mark = read_mark(disk)
    if mark.metadata is None:
        raise UsageError(f"{options.leg}: {mark.damage or 'no mirror mark found'}")
    return asdict(mark.metadata) | {"legs": [asdict(leg) for leg in mark.metadata.legs]}


def _erase_mark(options: argparse.Namespace) -> object:
    from vscsihba.handlers.mirror.mark import erase_mark, read_mark  # noqa: PLC0415 - --help needs none of it

    with _opened(options.leg, read_only=False) as disk:
        mark = read_mark(disk)
        if mark.metadata is None and not mark.damage:
            raise UsageError(f"{options.leg}: no mirror mark found")
        erase_mark(disk)
    return {"erased": options.leg}


@contextmanager
def _opened(text: str, *, read_only: bool) -> "Iterator[Handler]":
    """Open a leg that is not in use.

    Raises:
        UsageError, HostError: It cannot be opened.
    """
    from vscsihba.handlers.stack import build  # noqa: PLC0415 - --help needs none of it

    document = _leg(text)
    if read_only and document["handler"] == "file":
        document = {**document, "read_only": True}
    try:
        with build(document, place="LEG") as disk:
            yield disk
    except OSError as error:
        raise HostError(f"{text}: {error.strerror or error}") from error


def _retry(options: argparse.Namespace) -> object:
    act(options, "mirror", "retry")
    return act(options, "mirror", "status")


def _leg(text: str) -> dict[str, Any]:
    """Return the document of a leg as `show` prints it, with absolute paths."""
    from vscsihba.config.stacks import read_stack  # noqa: PLC0415 - --help needs none of it
    from vscsihba.handlers.registry import Registry  # noqa: PLC0415 - likewise
    from vscsihba.handlers.stack_text import parse  # noqa: PLC0415 - likewise

    return read_stack(parse(text), Path.cwd(), Registry(), "LEG")


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb in ("status", "retry", "overwrite"):
        rows = [
            [str(leg["number"]), leg["standing"], leg["identity"], leg["error"]] for leg in result["legs"]
        ]
        print_table(rows, ["leg", "state", "medium", "reason"])
        if resync := result["resync"]:
            print(f"resync: {resync['done']} of {resync['of']} regions")
    elif options.verb == "add-leg":
        print(f"added leg {result['number']} to {options.disk}")
    elif options.verb == "examine":
        _show_mark(result)
    elif options.verb == "erase-mark":
        print(f"erased the mark of {result['erased']}")
    else:
        print(f"removed leg {result['removed']} from {options.disk}")


def _show_mark(mark: dict[str, Any]) -> None:
    print(f"mirror {mark['uuid']}, leg {mark['leg']}, event {mark['event']}")
    print(f"disk of {mark['size']} bytes, regions of {mark['region_size']} bytes, session {mark['session']}")
    rows = [[leg["uuid"], leg["state"], str(leg["event"]), leg["name"]] for leg in mark["legs"]]
    print_table(rows, ["leg", "state", "event", "medium"])
