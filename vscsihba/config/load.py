"""Strict reading of documents; every error has a place and a cure.

The result is canonical, so that documents that mean the same are equal: paths are absolute, sizes in their
largest unit, defaults are left out, HBAs and LUNs are ordered by number. Reads only the named file: no
disk, and nothing else of this machine.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from vscsihba.config.fields import check_key, check_unique, read_fields, read_list, read_object, shown
from vscsihba.config.load_exports import read_exports
from vscsihba.config.model import SCHEMA_KEY, VERSION, BackstoreName, Document, Hba, Lun, StackDocument
from vscsihba.config.stacks import layers_of, read_stack
from vscsihba.config.text import decode
from vscsihba.errors import ConfigError, UsageError
from vscsihba.handlers.options import did_you_mean
from vscsihba.handlers.registry import Registry

_MOST = 16 << 20
"""Bytes of the largest document, enough for 100,000 disks."""


_ANOTHER = "choose another number"


def load(path: Path, registry: Registry | None = None) -> Document:
    """Return the document in a file; relative paths in it begin at the file's folder.

    Raises:
        UsageError: The file cannot be read.
        ConfigError: It is not a valid document.
        HostError: A handler's package is missing.
    """
    return read(decode_file(path), path.absolute().parent, registry)


def decode_file(path: Path) -> object:
    """Return the JSON value in a file; see `vscsihba.config.text.decode`.

    Raises:
        UsageError: The file cannot be read.
        ConfigError: It is not valid JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", cure="name a document that can be read") from error
    if len(data) > _MOST:
        raise UsageError(f"{path} is too large for a document", cure="name a document")
    return decode(data)


def parse(data: bytes, base: Path, registry: Registry | None = None) -> Document:
    """Return the document in a JSON text.

    Args:
        data: UTF-8; lines that begin with ``//`` are comments.
        base: The folder at which relative paths begin; absolute.
        registry: The known handlers; by default the built-in and installed ones.

    Raises:
        ConfigError: It is not a valid document.
        HostError: A handler's package is missing.
    """
    return read(decode(data), base, registry)


def read(value: object, base: Path, registry: Registry | None = None) -> Document:
    """Return the document in a decoded JSON value; see `parse`."""
    given = {key: inner for key, inner in read_object(value, "$").items() if key != SCHEMA_KEY}
    _check_version(given)
    keys = read_fields(Document, given, "$")
    backstores = _backstores(keys.get("backstores", {}), base, registry or Registry())
    hbas = _hbas(keys.get("hbas", []), backstores)
    document = Document(backstores=backstores, hbas=hbas)
    exports = read_exports(keys.get("exports", []), base, document)
    return msgspec.structs.replace(document, exports=exports)


def warnings(document: Document) -> list[str]:
    """Return warnings about entries that are valid but hardly intended, a line each."""
    registry = Registry()
    unseen = [
        f"$.backstores.{name}: this backstore has no LUN"
        for name in document.backstores
        if document.place_of(name) is None
    ]
    parted = [
        f"$.hbas[{at}].engines: the content of {name} is lost when its LUN moves to another engine"
        for at, hba in enumerate(document.hbas)
        if hba.engines > 1
        for name in (lun.backstore for lun in hba.luns)
        if _is_volatile(document.backstores[name], registry)
    ]
    exported = {lun.backstore for export in document.exports for lun in export.luns}
    hidden = [
        f"$.hbas[{at}].luns[{number}]: nobody sees this LUN; add it to an export"
        for at, hba in enumerate(document.hbas)
        for number, lun in enumerate(hba.luns)
        if not lun.local and lun.backstore not in exported
    ]
    closed = [
        f"$.exports[{at}]: no initiator may log in; name initiators, or set open"
        for at, export in enumerate(document.exports)
        if not export.initiators and not export.open
    ]
    return unseen + parted + hidden + closed


def _is_volatile(stack: StackDocument, registry: Registry) -> bool:
    return any(layer.kind.volatile for layer in layers_of(stack, registry, ""))


def _check_version(given: Mapping[str, object]) -> None:
    """Refuse a document of another version before its keys are checked."""
    version = given.get("version")
    if version is None:
        raise ConfigError("$.version", "the key is missing", cure=f'add "version": {VERSION}')
    if type(version) is int and version > VERSION:
        raise ConfigError(
            "$.version",
            f"{version} is newer than this program, which supports {VERSION}",
            cure="upgrade it, or write the document for version 1",
        )


def _backstores(value: object, base: Path, registry: Registry) -> dict[str, StackDocument]:
    """Read every stack; the handlers check their options."""
    stacks = read_object(value, "$.backstores")
    for name in stacks:
        check_key(BackstoreName, name, "$.backstores")
    return {name: read_stack(stacks[name], base, registry, f"$.backstores.{name}") for name in sorted(stacks)}


def _hbas(value: object, backstores: Iterable[str]) -> tuple[Hba, ...]:
    values = read_list(value, "$.hbas")
    hbas = [_hba(each, f"$.hbas[{number}]") for number, each in enumerate(values)]
    ids = [hba.id for hba in hbas]
    check_unique(ids, "$.hbas[{}].id", "another HBA has the id {} too", cure=_ANOTHER)
    _check_names(hbas)
    _check_backstores(hbas, backstores)
    return tuple(sorted((_in_order(hba) for hba in hbas), key=lambda hba: hba.id))


def _hba(value: object, place: str) -> Hba:
    """Read an HBA; its LUNs stay in the order of the document."""
    keys = read_fields(Hba, value, place)
    luns = [
        msgspec.convert(read_fields(Lun, each, f"{place}.luns[{number}]"), Lun)
        for number, each in enumerate(read_list(keys.pop("luns", []), f"{place}.luns"))
    ]
    numbers = [lun.lun for lun in luns]
    check_unique(numbers, place + ".luns[{}].lun", "another LUN has the number {} too", cure=_ANOTHER)
    for number, lun in enumerate(luns):
        _check_local(lun, f"{place}.luns[{number}]")
    return msgspec.structs.replace(msgspec.convert(keys, Hba), luns=tuple(luns))


def _check_local(lun: Lun, place: str) -> None:
    """Refuse settings of Linux for a LUN that this computer does not see."""
    for key in ("queue_depth", "command_timeout"):
        if not lun.local and getattr(lun, key) is not None:
            raise ConfigError(
                f"{place}.{key}",
                "this computer does not see the LUN, and so sends it no commands",
                cure='leave it out, or leave out "local"',
            )


def _in_order(hba: Hba) -> Hba:
    return msgspec.structs.replace(hba, luns=tuple(sorted(hba.luns, key=lambda lun: lun.lun)))


def _check_backstores(hbas: list[Hba], backstores: Iterable[str]) -> None:
    """Refuse a LUN whose backstore does not exist, or has another LUN."""
    by: dict[str, str] = {}
    for at, hba in enumerate(hbas):
        for number, lun in enumerate(hba.luns):
            place = f"$.hbas[{at}].luns[{number}].backstore"
            if lun.backstore not in backstores:
                raise ConfigError(
                    place,
                    f"there is no backstore {shown(lun.backstore)}",
                    cure=did_you_mean(lun.backstore, backstores),
                )
            if lun.backstore in by:
                raise ConfigError(
                    place,
                    f"the backstore {lun.backstore} already belongs to {by[lun.backstore]}",
                    cure="give each LUN a backstore of its own",
                )
            by[lun.backstore] = f"LUN {lun.lun} of HBA {hba.id}"


def _check_names(hbas: list[Hba]) -> None:
    """Refuse two LUNs with the same serial number or WWN, which an initiator would take for one disk."""
    by: dict[tuple[str, str], str] = {}
    for at, hba in enumerate(hbas):
        for number, lun in enumerate(hba.luns):
            for key, name in (("serial", lun.serial), ("wwn", lun.wwn)):
                if name is None:
                    continue
                here = f"LUN {lun.lun} of HBA {hba.id}"
                if (other := by.setdefault((key, name), here)) != here:
                    raise ConfigError(
                        f"$.hbas[{at}].luns[{number}].{key}",
                        f"{other} also has this {key}, and Linux would treat both as one disk",
                        cure="give each LUN its own, or leave it out",
                    )
