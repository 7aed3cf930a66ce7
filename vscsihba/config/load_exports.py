"""Strict reading of the exports of a document, and the rules between their fields."""

import ipaddress
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from vscsihba.config.export import Export, ExportLun, Initiator
from vscsihba.config.fields import check_unique, read_fields, read_list, shown
from vscsihba.config.model import Document
from vscsihba.errors import ConfigError
from vscsihba.handlers.options import did_you_mean

_Item = TypeVar("_Item")

_check_unique = partial(check_unique, cure="leave one of them out")


def read_exports(value: object, base: Path, document: Document) -> tuple[Export, ...]:
    """Return the exports of a document, in canonical form.

    Args:
        value: The value of the key ``exports``.
        base: The folder at which relative paths begin; absolute.
        document: Its backstores and HBAs.

    Raises:
        ConfigError: An export is not valid.
    """
    exports = [
        _export(each, base, f"$.exports[{at}]") for at, each in enumerate(read_list(value, "$.exports"))
    ]
    _check_unique([each.name for each in exports], "$.exports[{}].name", "another export has this name too")
    _check_backstores(exports, document)
    return tuple(sorted((_in_order(export) for export in exports), key=lambda export: export.name))


def _export(value: object, base: Path, place: str) -> Export:
    """Read an export; its LUNs, initiators and portals stay in the order of the document."""
    keys = read_fields(Export, value, place)
    portals = read_list(keys.pop("portals", []), f"{place}.portals")
    initiators = _each(keys.pop("initiators", []), f"{place}.initiators", _initiator(base))
    luns = _each(keys.pop("luns", []), f"{place}.luns", _lun)
    if not portals:
        raise ConfigError(
            f"{place}.portals",
            "the export has no portal",
            cure='name the addresses on which it listens, such as ["192.0.2.7:3260"]',
        )
    export = msgspec.structs.replace(
        msgspec.convert(keys, Export),
        portals=tuple(_portal(each, f"{place}.portals[{at}]") for at, each in enumerate(portals)),
        initiators=tuple(initiators),
        luns=tuple(luns),
    )
    numbers = [lun.lun for lun in luns]
    _check_unique(numbers, place + ".luns[{}].lun", "another LUN of the export has this number too")
    names = [initiator.name for initiator in initiators]
    _check_unique(names, place + ".initiators[{}].name", "the export has this initiator already")
    _check_unique(list(export.portals), place + ".portals[{}]", "the export has this portal already")
    _check_access(export, place)
    for at, initiator in enumerate(initiators):
        _check_initiator(initiator, numbers, f"{place}.initiators[{at}]")
    return export


def _each(value: object, place: str, read: Callable[[object, str], _Item]) -> list[_Item]:
    return [read(each, f"{place}[{at}]") for at, each in enumerate(read_list(value, place))]


def _lun(value: object, place: str) -> ExportLun:
    return msgspec.convert(read_fields(ExportLun, value, place), ExportLun)


def _initiator(base: Path) -> Callable[[object, str], Initiator]:
    def read(value: object, place: str) -> Initiator:
        initiator = msgspec.convert(read_fields(Initiator, value, place), Initiator)
        absolute = {key: str(base / path) for key, path in initiator.secret_files.items()}
        luns = initiator.luns if initiator.luns is None else tuple(sorted(set(initiator.luns)))
        return msgspec.structs.replace(initiator, luns=luns, **absolute)

    return read


def _portal(value: object, place: str) -> str:
    """Return a portal with its address in the usual form.

    Raises:
        ConfigError: It is no address and port.
    """
    address, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        number = int(port)
        parsed = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        number, parsed = 0, None
    bracketed = address.startswith("[") and address.endswith("]")
    if parsed is None or not 0 < number < 65536 or bracketed != (parsed.version == 6):
        raise ConfigError(
            place,
            f"it cannot be {shown(value)}",
            cure='use an address and a port, such as "192.0.2.7:3260" or "[2001:db8::7]:3260"',
        )
    return f"[{parsed}]:{number}" if bracketed else f"{parsed}:{number}"


def _check_access(export: Export, place: str) -> None:
    """Refuse rules of access that LIO cannot keep."""
    with_secret = [initiator.user is not None for initiator in export.initiators]
    if any(with_secret) and not all(with_secret):
        raise ConfigError(
            f"{place}.initiators[{with_secret.index(False)}]",
            "it has no user, but another initiator of the export has one",
            cure="give every initiator of an export a user and a password_file, or none",
        )
    if export.open and any(with_secret):
        raise ConfigError(
            f"{place}.open", "an open export asks nobody for a secret", cure="leave out the users, or open"
        )
    if export.open and len({export.read_only(lun) for lun in export.luns}) > 1:
        raise ConfigError(
            f"{place}.luns",
            "an open export is read-only as a whole, or not at all",
            cure='give each LUN the same "read_only", or move some LUNs to another export',
        )


def _check_initiator(initiator: Initiator, numbers: list[int], place: str) -> None:
    for user, file in (("user", "password_file"), ("mutual_user", "mutual_password_file")):
        missing = [key for key in (user, file) if getattr(initiator, key) is None]
        if len(missing) == 1:
            raise ConfigError(
                f"{place}.{missing[0]}", "the key is missing", cure=f"CHAP needs {user} and {file}"
            )
    if initiator.mutual_user is not None and initiator.user is None:
        raise ConfigError(f"{place}.user", "the key is missing", cure="mutual CHAP needs a user as well")
    for lun in initiator.luns or ():
        if lun not in numbers:
            raise ConfigError(
                f"{place}.luns", f"the export has no LUN {lun}", cure="name numbers of LUNs of this export"
            )


def _check_backstores(exports: list[Export], document: Document) -> None:
    """Refuse a LUN whose backstore no HBA shows, so that no engine serves it, and one shown twice."""
    for at, export in enumerate(exports):
        seen: dict[str, int] = {}
        for number, lun in enumerate(export.luns):
            place = f"$.exports[{at}].luns[{number}].backstore"
            if lun.backstore not in document.backstores:
                raise ConfigError(
                    place,
                    f"there is no backstore {shown(lun.backstore)}",
                    cure=did_you_mean(lun.backstore, document.backstores),
                )
            if document.place_of(lun.backstore) is None:
                raise ConfigError(
                    place,
                    f"no HBA has the backstore {lun.backstore}",
                    cure='add a LUN of an HBA for it, with "local": false if only exports are to show it',
                )
            if (other := seen.setdefault(lun.backstore, lun.lun)) != lun.lun:
                raise ConfigError(
                    place,
                    f"LUN {other} of the export shows the backstore {lun.backstore} already",
                    cure="give each LUN of an export a backstore of its own",
                )


def _in_order(export: Export) -> Export:
    return msgspec.structs.replace(
        export,
        portals=tuple(sorted(export.portals)),
        initiators=tuple(sorted(export.initiators, key=lambda initiator: initiator.name)),
        luns=tuple(sorted(export.luns, key=lambda lun: lun.lun)),
    )
