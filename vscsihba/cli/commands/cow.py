"""``vscsihba cow``: looks at overlays, commits them into their base, discards what they hold."""

import argparse
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs, progress_bar
from vscsihba.handlers.cow import admin as cow_admin
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse
from vscsihba.units import format_size

_EXAMPLES: Final = """\
  vscsihba cow status /srv/over.cow                    what it holds, and of which base
  vscsihba cow commit /srv/over.cow /srv/base.img      write that into the base, and leave it empty
  vscsihba cow discard /srv/over.cow                   forget it: the disk is as its base again

  vscsihba cow renew-uuid /srv/copy.cow                give a copy a uuid, and so a serial number, of its own
  vscsihba cow recover /srv/over.cow                   take over what a killed process has left for this file
  vscsihba cow recover --discard /srv/copy.cow         this is a copy: leave it alone

No disk may be using the overlay; for a commit, nor its base.
"""

_OVERLAY: Final = ("overlay", "the overlay's file")


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Do one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("cow", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("status", "tell what an overlay holds", _status, _OVERLAY)
    base = ("base", "its base: a file, or a stack in one line")
    verbs.add("commit", "write what an overlay holds into its base", _commit, _OVERLAY, base)
    verbs.add("discard", "forget what an overlay holds", _discard, _OVERLAY)
    verbs.add("renew-uuid", "give a copy of an overlay a uuid of its own", _renew_uuid, _OVERLAY)
    recover = verbs.add(
        "recover", "settle what becomes of writes that a killed process has left", _recover, _OVERLAY
    )
    recover.add_argument("--discard", action="store_true", help="the overlay is a copy: use it without them")
    return verbs


def _status(options: argparse.Namespace) -> object:
    return msgspec.to_builtins(cow_admin.status(options.overlay))


def _commit(options: argparse.Namespace) -> object:
    with build(parse(options.base)) as base, progress_bar("committing") as progress:
        cow_admin.commit(options.overlay, base, progress=progress)
    return {"committed": options.overlay}


def _discard(options: argparse.Namespace) -> object:
    cow_admin.discard(options.overlay)
    return {"discarded": options.overlay}


def _renew_uuid(options: argparse.Namespace) -> object:
    return {"overlay": options.overlay, "uuid": cow_admin.renew_uuid(options.overlay)}


def _recover(options: argparse.Namespace) -> object:
    cow_admin.recover(options.overlay, take=not options.discard)
    return {"recovered": options.overlay, "discarded": options.discard}


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "status":
        print_table([[name.replace("_", " "), _readable(name, value)] for name, value in result.items()])
    else:
        print(f"{options.overlay} {_DONE[options.verb]}")


def _readable(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "begun, to be done again" if value else "no"
    return str(value) if name == "base" or not isinstance(value, int) else format_size(value)


_DONE: Final = {
    "commit": "is committed, and empty",
    "discard": "is empty",
    "renew-uuid": "has a new uuid",
    "recover": "can be used",
}
