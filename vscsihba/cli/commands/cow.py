"""``vscsihba cow``: inspects, commits and discards copy-on-write overlays."""

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
  vscsihba cow status /srv/over.cow                    show the base, and the size of the changes
  vscsihba cow commit /srv/over.cow /srv/base.img      write the changes into the base
  vscsihba cow discard /srv/over.cow                   drop the changes; the disk equals its base again
  vscsihba cow renew-uuid /srv/copy.cow                give a copied overlay its own uuid and serial number
  vscsihba cow recover /srv/over.cow                   apply the writes in a killed process's notes
  vscsihba cow recover --discard /srv/copy.cow         use a copied overlay without those writes

The overlay must not be in use; for a commit, neither must the base.
"""

_OVERLAY: Final = ("overlay", "file of the overlay")


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("cow", usage="VERB ...", examples=_EXAMPLES))
    verbs.add("status", "show the base and the size of the changes of an overlay", _status, _OVERLAY)
    base = ("base", "base of the overlay: a file, or a stack in one line")
    verbs.add("commit", "write the changes of an overlay into its base", _commit, _OVERLAY, base)
    verbs.add("discard", "drop the changes of an overlay", _discard, _OVERLAY)
    verbs.add("renew-uuid", "give a copied overlay its own uuid", _renew_uuid, _OVERLAY)
    recover = verbs.add(
        "recover", "apply or drop the writes that a killed process left in its notes", _recover, _OVERLAY
    )
    recover.add_argument(
        "--discard",
        action="store_true",
        help="drop the writes: the overlay is a copy, and they belong to the original",
    )
    return verbs


def _status(options: argparse.Namespace) -> object:
    return msgspec.to_builtins(cow_admin.status(options.overlay))


def _commit(options: argparse.Namespace) -> object:
    with build(parse(options.base), place="BASE") as base, progress_bar("committing") as progress:
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
        return "interrupted; commit again" if value else "no"
    return str(value) if name == "base" or not isinstance(value, int) else format_size(value)


_DONE: Final = {
    "commit": "is committed, and now empty",
    "discard": "is empty",
    "renew-uuid": "has a new uuid",
    "recover": "is ready to use",
}
