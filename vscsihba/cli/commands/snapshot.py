"""``vscsihba snapshot``: manages snapshots of a disk in use."""

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
  vscsihba snapshot take hba0/lun0 monday         take a snapshot named "monday"
  vscsihba snapshot list /dev/sdb                 list snapshots, the oldest first
  vscsihba snapshot roll-back hba0/lun0 monday    restore the disk to the snapshot; unmount it first
  vscsihba snapshot delete hba0/lun0 monday       delete the snapshot, and merge its data
  vscsihba snapshot renew-uuid /srv/copy.snapshots    give a copied directory of snapshots its own uuid

The disk's stack must have the handler "snapshot" (docs/handlers/snapshot.md shows how, and how to open a
snapshot as a disk).
"""

_DISK: Final = ("disk", DESCRIPTION)
_NAME: Final = ("name", "name of the snapshot")


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("snapshot", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("list", "list the snapshots of a disk, the oldest first", _ask, _DISK)
    verbs.add("take", "take a snapshot of a disk", _ask, _DISK, _NAME)
    verbs.add("delete", "delete a snapshot, and merge its data into the next layer", _ask, _DISK, _NAME)
    add_force(verbs.add("roll-back", "restore a disk to a snapshot", _ask, _DISK, _NAME))
    verbs.add("tidy", "merge and remove layers that no snapshot needs", _ask, _DISK)
    directory = ("directory", "directory of the snapshots, which must not be in use")
    verbs.add("renew-uuid", "give a copied directory of snapshots its own uuid", _renew_uuid, directory)
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
            print(f"{options.disk} has no snapshots")
    else:
        print(_DONE[options.verb].format(**vars(options)))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


_DONE: Final = {
    "renew-uuid": "{directory} has a new uuid",
    "take": "took snapshot {name} of {disk}",
    "delete": "deleted snapshot {name} of {disk}",
    "roll-back": "restored {disk} to snapshot {name}",
    "tidy": "{disk} has no unneeded layers",
}
