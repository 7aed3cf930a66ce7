"""``vscsihba snapshot``: snapshots of a disk while it is in use."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.layer_action import act, add_force
from vscsihba.cli.lun_arg import DESCRIPTION
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs
from vscsihba.handlers.snapshot.snapshot_set import renew_uuid

_EXAMPLES: Final = """\
  vscsihba snapshot take hba0/lun0 monday         the disk as it is now, under a name
  vscsihba snapshot list /dev/sdb                 what there are, the oldest first
  vscsihba snapshot roll-back hba0/lun0 monday    the disk as it was then; unmount it first
  vscsihba snapshot delete hba0/lun0 monday       merge what only this one needs

  vscsihba snapshot renew-uuid /srv/copy.snapshots   give a copy of a directory a uuid of its own

The disk's stack must have the layer "snapshot" (docs/handlers/snapshot.md says how, and how to
open one of them as a disk of its own).
"""

_DISK: Final = ("disk", DESCRIPTION)
_NAME: Final = ("name", "the snapshot's name")


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Do one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("snapshot", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("list", "list the snapshots of a disk, the oldest first", _ask, _DISK)
    verbs.add("take", "make a snapshot of a disk as it is now", _ask, _DISK, _NAME)
    verbs.add("delete", "delete a snapshot, and merge what nothing else needs", _ask, _DISK, _NAME)
    add_force(verbs.add("roll-back", "make a disk what it was when a snapshot was taken", _ask, _DISK, _NAME))
    verbs.add("tidy", "merge and remove layers that nothing needs", _ask, _DISK)
    directory = ("directory", "the directory of the snapshots, which no disk uses")
    verbs.add(
        "renew-uuid", "give a copy of a directory of snapshots a uuid of its own", _renew_uuid, directory
    )
    return verbs


def _renew_uuid(options: argparse.Namespace) -> object:
    return {"directory": options.directory, "uuid": renew_uuid(Path(options.directory))}


def _ask(options: argparse.Namespace) -> object:
    arguments = {"name": options.name} if "name" in options else {}
    return act(options, "snapshot", options.verb.replace("-", "_"), arguments)


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "list":
        if result:
            print_table([[entry["name"], _when(entry["created"])] for entry in result], ["name", "taken"])
        else:
            print(f"{options.disk} has no snapshot")
    else:
        print(_DONE[options.verb].format(**vars(options)))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


_DONE: Final = {
    "renew-uuid": "{directory} has a new uuid",
    "take": "snapshot {name} of {disk} is taken",
    "delete": "snapshot {name} of {disk} is deleted",
    "roll-back": "{disk} is as it was when snapshot {name} was taken",
    "tidy": "{disk} has no layer that nothing needs",
}
