"""``vscsihba encrypt``: creates LUKS containers and manages their keys, while no disk uses them.

A secret comes from a file or a systemd credential, never from the command line, where
every user who can list processes would see it.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import Verbs
from vscsihba.errors import UsageError
from vscsihba.handlers.encrypt import admin as encrypt_admin
from vscsihba.handlers.encrypt.handler import EncryptHandler
from vscsihba.handlers.encrypt.passphrase import PassphraseOptions
from vscsihba.handlers.options import convert
from vscsihba.handlers.stack import Document, build
from vscsihba.handlers.stack_text import parse
from vscsihba.units import parse_size

_EXAMPLES: Final = """\
  vscsihba encrypt create /srv/disk.luks --key-file /etc/disk.key    create a container on an empty file
  vscsihba encrypt keys /srv/disk.luks                               list the slots that hold a key
  vscsihba encrypt add-key /srv/disk.luks --key-file /etc/disk.key --new-passphrase-file /root/words
  vscsihba encrypt remove-key /srv/disk.luks 0                       destroy the key in slot 0
  pass show disk | vscsihba encrypt create /srv/disk.luks --passphrase-file -

The container can be on a file, on a block device, or on a stack in one line (docs/handlers).
"""

_STANDARD_INPUT: Final = "/dev/stdin"
_DISK: Final = ("disk", "storage of the container: a file, a block device, or a stack in one line")


def parser() -> Parser:
    """Return the parser of the command line."""
    return _verbs().parser


def run(arguments: Sequence[str]) -> int:
    """Run one of the verbs."""
    return _verbs().run(arguments, _show)


def _verbs() -> Verbs:
    verbs = Verbs(parser_of("encrypt", usage="VERB ...", examples=_EXAMPLES))
    made = verbs.add("create", "create a container on storage that has none", _create, _DISK)
    _add_secret(made)
    _add_kdf(made)
    made.add_argument("--luks", type=int, choices=(1, 2), default=2, help="version of LUKS (default: 2)")
    made.add_argument(
        "--sector-size",
        type=int,
        choices=(512, 4096),
        default=4096,
        help="size of an encrypted sector in bytes, LUKS2 only (default: 4096)",
    )
    made.add_argument(
        "--header", metavar="FILE", help="keep the header in this file, which is created if it is missing"
    )
    verbs.add("keys", "list the slots that hold a key", _keys, _DISK)
    adding = verbs.add("add-key", "add a key for another secret", _add_key, _DISK)
    _add_secret(adding)
    _add_secret(adding, "new-")
    _add_kdf(adding)
    verbs.add(
        "remove-key",
        "destroy a key; the other keys still open the container",
        _remove_key,
        _DISK,
        ("slot", "number of the key slot"),
    )
    return verbs


def _add_secret(parser: Parser, new: str = "") -> None:
    ways = parser.add_mutually_exclusive_group(required=True)
    what = "the new secret" if new else "the secret"
    ways.add_argument(
        f"--{new}key-file", metavar="FILE", help=f"{what}: every byte of this file (- for standard input)"
    )
    ways.add_argument(
        f"--{new}passphrase-file",
        metavar="FILE",
        help=f"{what}: the text in this file (- for standard input), without a final newline",
    )
    ways.add_argument(f"--{new}credential", metavar="NAME", help=f"{what}: this systemd credential")


def _add_kdf(parser: Parser) -> None:
    parser.add_argument(
        "--kdf",
        choices=("argon2id", "pbkdf2"),
        help="key derivation function of the new key (default: argon2id; LUKS1: pbkdf2)",
    )
    parser.add_argument(
        "--kdf-memory", metavar="SIZE", default="1GiB", help="memory of argon2id (default: 1GiB)"
    )
    parser.add_argument(
        "--kdf-time",
        metavar="N",
        type=int,
        default=4,
        help="passes of argon2id, or seconds of pbkdf2 (default: 4)",
    )


def _create(options: argparse.Namespace) -> object:
    wanted: dict[str, object] = {
        **_secret_of(options),
        **_kdf_of(options),
        "create": True,
        "luks": options.luks,
        "sector_size": options.sector_size,
    }
    below = parse(options.disk)
    _check_no_container(below)
    if options.header is not None:
        header = os.path.abspath(options.header)  # noqa: PTH100 - as typed
        wanted["header"] = header
        if Path(header).exists():
            _check_no_container(header)
    with build({"handler": "encrypt", **wanted, "next": below}, place="DISK") as made:
        return {"created": options.disk, "size": made.geometry.size}


def _check_no_container(document: Document) -> None:
    """Refuse storage that already has a container."""
    with build(document, place="DISK") as disk:
        if encrypt_admin.version(disk):
            raise UsageError(f"{disk.identity} is already a LUKS container", cure="to add a key, use add-key")


def _keys(options: argparse.Namespace) -> object:
    with build(parse(options.disk), place="DISK") as disk:
        return {"keys": encrypt_admin.keys(disk)}


def _add_key(options: argparse.Namespace) -> object:
    old = convert(PassphraseOptions, _secret_of(options), place="the secret", handler="encrypt")
    new = convert(PassphraseOptions, _secret_of(options, "new_"), place="the new secret", handler="encrypt")
    kdf = _kdf_of(options)
    _check_read_once(options)
    with build(parse(options.disk), place="DISK") as disk:
        how = convert(
            EncryptHandler.Options,
            {**_secret_of(options), **kdf, "luks": encrypt_admin.version(disk) or 2},
            place="the new key",
            handler="encrypt",
        )
        return {
            "slot": encrypt_admin.add_key(disk, old.read_secret(), new.read_secret(), how.new_kdf(how.luks))
        }


def _remove_key(options: argparse.Namespace) -> object:
    if not options.slot.isdecimal():
        raise UsageError(f"slot {options.slot!r} is not a number", cure='see "vscsihba encrypt keys"')
    with build(parse(options.disk), place="DISK") as disk:
        encrypt_admin.remove_key(disk, int(options.slot))
    return {"removed": int(options.slot)}


def _secret_of(options: argparse.Namespace, new: str = "") -> dict[str, object]:
    """Return the options of the handler for a secret, with absolute paths."""
    source: dict[str, object] = {}
    for name in ("key_file", "passphrase_file", "credential"):
        value = getattr(options, new + name)
        if value is not None:
            source[name] = value if name == "credential" else _secret_path(value)
    return source


def _secret_path(word: str) -> str:
    return _STANDARD_INPUT if word == "-" else os.path.abspath(word)  # noqa: PTH100 - as typed


def _check_read_once(options: argparse.Namespace) -> None:
    """Refuse two secrets from standard input: the first would read all of it."""
    secrets = [*_secret_of(options).values(), *_secret_of(options, "new_").values()]
    if secrets.count(_STANDARD_INPUT) > 1:
        raise UsageError(
            "two secrets cannot both come from standard input", cure="read one of them from a file"
        )


def _kdf_of(options: argparse.Namespace) -> dict[str, object]:
    chosen = {} if options.kdf is None else {"kdf": options.kdf}
    return {**chosen, "kdf_memory": parse_size(options.kdf_memory), "kdf_time": options.kdf_time}


def _show(options: argparse.Namespace, result: Any) -> None:
    if options.json:
        print_json(result)
    elif options.verb == "create":
        print(f"created a LUKS{options.luks} container on {options.disk}")
    elif options.verb == "keys":
        print(f"keys in slots: {', '.join(map(str, result['keys'])) or 'none'}")
    elif options.verb == "add-key":
        print(f"added a key in slot {result['slot']}")
    else:
        print(f"destroyed the key in slot {result['removed']}")
