"""``vscsihba cow``: looks at overlays, commits them into their base, discards what they hold."""

import argparse
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from vscsihba.cli.commands import parser_of
from vscsihba.cli.entry import Parser
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.verbs import Verbs, progress_bar
from vscsihba.handlers import cow_admin
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse
from vscsihba.units import format_size

_EXAMPLES: Final = """\
  vscsihba cow status /srv/over.cow                    what it holds, and of which base
  vscsihba cow commit /srv/over.cow /srv/base.img      write that into the base, and leave it empty
  vscsihba cow discard /srv/over.cow                   forget it: the disk is as its base again

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


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "status":
        print_table([[name.replace("_", " "), _readable(name, value)] for name, value in result.items()])
    else:
        done = "is committed, and empty" if options.verb == "commit" else "is empty"
        print(f"{options.overlay} {done}")


def _readable(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "begun, to be done again" if value else "no"
    return str(value) if name == "base" or not isinstance(value, int) else format_size(value)
