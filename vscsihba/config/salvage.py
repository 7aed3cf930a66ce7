"""The valid entries of a document with bad ones, so that a bad entry affects no other disk.

The strict reader (`vscsihba.config.load`) decides: an entry that it refuses is left out with the reason,
until it refuses nothing. Knows the places in the reader's messages, not their meaning.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from vscsihba.config.load import decode_file, read
from vscsihba.config.model import Document
from vscsihba.errors import VscsihbaError
from vscsihba.handlers.registry import Registry

_ENTRY: Final = re.compile(r"^\$\.(hbas|exports)\[(\d+)\](?:\.luns\[(\d+)\])?")
_KEY: Final = re.compile(r"^\$\.(\w+)")
_WHOLE: Final = ("version",)
"""Keys without which a document cannot be read at all."""


class Unread(msgspec.Struct, frozen=True):
    """An entry of a document that cannot be read.

    Attributes:
        why: The reason, with the place in the document.
        hba: Id of its HBA; None if it cannot be read.
        lun: Number of the LUN; None for a whole HBA or export, or if it cannot be read.
        backstore: Name of the backstore; None if it cannot be read.
        export: Name of its export, for a LUN of an export; None if it cannot be read.
    """

    why: str
    hba: int | None = None
    lun: int | None = None
    backstore: str | None = None
    export: str | None = None


@dataclass(frozen=True, slots=True)
class Salvage:
    """A document as far as it can be read.

    Attributes:
        document: The entries that can be read.
        unread: The others.
        readable: Whether it is a document at all.
    """

    document: Document
    unread: tuple[Unread, ...] = ()
    readable: bool = True


def salvage(path: Path, registry: Registry | None = None) -> Salvage:
    """Return the valid entries of the document in a file, and the reasons of the others; never raises.

    Args:
        path: The file; relative paths in it begin at its folder.
        registry: The known handlers.
    """
    try:
        value = decode_file(path)
    except VscsihbaError as error:
        return Salvage(Document(), (Unread(f"{path}: {error}"),), readable=False)
    return salvage_value(value, path.absolute().parent, registry)


def salvage_value(value: object, base: Path, registry: Registry | None = None) -> Salvage:
    """Return the valid entries of a decoded JSON value; see `salvage`."""
    rest = _Rest(value)
    registry = registry or Registry()
    while True:
        try:
            return Salvage(read(rest.value, base, registry), tuple(rest.unread))
        except VscsihbaError as error:
            if not rest.leave_out(str(error)):
                return Salvage(Document(), (Unread(str(error)),), readable=False)


class _Rest:
    """A document's value, from which entries are left out one after the other.

    Attributes:
        value: The remaining entries.
        unread: The entries that were left out.
    """

    def __init__(self, value: object) -> None:
        self.value: Any = value
        self.unread: list[Unread] = []
        self._bad: dict[str, str] = {}
        if not isinstance(value, Mapping):
            return
        self.value = dict(value)
        if isinstance(stacks := value.get("backstores"), Mapping):
            self.value["backstores"] = dict(stacks)
        if isinstance(hbas := value.get("hbas"), list):
            self.value["hbas"] = [_Placed.entry(each, at) for at, each in enumerate(hbas)]
        if isinstance(exports := value.get("exports"), list):
            self.value["exports"] = [_Placed.entry(each, at) for at, each in enumerate(exports)]

    def leave_out(self, why: str) -> bool:
        """Leave out the entry that an error of the reader names; False if it names none."""
        if not isinstance(self.value, dict):
            return False
        if (name := self._backstore_in(why)) is not None:
            del self.value["backstores"][name]
            self._bad[name] = why
            if all(name != shown for shown in self._shown()):
                self.unread.append(Unread(why, backstore=name))
            return True
        if (match := _ENTRY.match(why)) is not None:
            leave_out = self._leave_out_of_hba if match[1] == "hbas" else self._leave_out_of_export
            return leave_out(why, int(match[2]), match[3])
        key = _KEY.match(why)
        if key is None or key[1] in _WHOLE or key[1] not in self.value:
            return False
        del self.value[key[1]]
        self.unread.append(Unread(why))
        return True

    def _leave_out_of_hba(self, why: str, at: int, lun_at: str | None) -> bool:
        hba = self.value["hbas"][at]
        if lun_at is None:
            del self.value["hbas"][at]
            known = _number(hba, "id")
            luns = hba.get("luns") if isinstance(hba, Mapping) else None
            all_numbers = [_number(lun, "lun") for lun in luns] if isinstance(luns, list) else []
            numbers = [number for number in all_numbers if number is not None] if known is not None else []
            why = _renumbered(why, "hbas", hba)
            self.unread += [Unread(why, known, number, _name(luns, number)) for number in numbers] or [
                Unread(why, known)
            ]
            return True
        lun = hba["luns"].pop(int(lun_at))
        name = lun.get("backstore") if isinstance(lun, Mapping) else None
        name = name if isinstance(name, str) else None
        why = self._bad.get(name or "", _renumbered(why, "hbas", hba, lun))
        self.unread.append(Unread(why, _number(hba, "id"), _number(lun, "lun"), name))
        return True

    def _leave_out_of_export(self, why: str, at: int, lun_at: str | None) -> bool:
        export = self.value["exports"][at]
        name = export.get("name") if isinstance(export, Mapping) else None
        name = name if isinstance(name, str) else None
        if lun_at is None:
            del self.value["exports"][at]
            self.unread.append(Unread(_renumbered(why, "exports", export), export=name))
            return True
        lun = export["luns"].pop(int(lun_at))
        backstore = lun.get("backstore") if isinstance(lun, Mapping) else None
        backstore = backstore if isinstance(backstore, str) else None
        why = self._bad.get(backstore or "", _renumbered(why, "exports", export, lun))
        number = _number(lun, "lun")
        for initiator in export.get("initiators", ()):  # which may name the LUN
            if isinstance(initiator, dict) and isinstance(seen := initiator.get("luns"), list):
                initiator["luns"] = [each for each in seen if each != number]
        self.unread.append(Unread(why, None, number, backstore, name))
        return True

    def _backstore_in(self, why: str) -> str | None:
        """Return the backstore that an error names, None if it names something else."""
        stacks = self.value.get("backstores")
        if not isinstance(stacks, dict):
            return None
        places = {f"$.backstores.{name}": name for name in stacks}
        named = [place for place in places if why.startswith((f"{place}:", f"{place}.", f"{place}["))]
        return places[max(named, key=len)] if named else None

    def _shown(self) -> list[object]:
        """Return the names of the backstores that LUNs refer to."""
        hbas = self.value.get("hbas")
        luns = [
            lun
            for hba in (hbas if isinstance(hbas, list) else [])
            for lun in (hba.get("luns", []) if isinstance(hba, Mapping) else [])
        ]
        return [lun.get("backstore") for lun in luns if isinstance(lun, Mapping)]


class _Placed(dict[str, object]):
    """An HBA, an export or a LUN with its index before others were left out.

    Attributes:
        at: Its index in the original list.
    """

    at: int = 0

    @classmethod
    def entry(cls, value: object, at: int) -> object:
        """Return an HBA or export with the indices of its LUNs; a value that is no object is unchanged."""
        if not isinstance(value, Mapping):
            return value
        entry = cls(value)
        entry.at = at
        if isinstance(luns := value.get("luns"), list):
            entry["luns"] = [cls._lun(each, number) for number, each in enumerate(luns)]
        if isinstance(initiators := value.get("initiators"), list):
            entry["initiators"] = [dict(each) if isinstance(each, Mapping) else each for each in initiators]
        return entry

    @classmethod
    def _lun(cls, value: object, at: int) -> object:
        if not isinstance(value, Mapping):
            return value
        lun = cls(value)
        lun.at = at
        return lun


def _renumbered(why: str, key: str, entry: object, lun: object = None) -> str:
    """Return a message with the indices of the original document; `key` is ``hbas`` or ``exports``."""
    if isinstance(entry, _Placed):
        why = re.sub(rf"^\$\.{key}\[\d+\]", f"$.{key}[{entry.at}]", why)
    if isinstance(lun, _Placed):
        why = re.sub(rf"^(\$\.{key}\[\d+\]\.luns)\[\d+\]", rf"\g<1>[{lun.at}]", why)
    return why


def _number(value: object, key: str) -> int | None:
    number = value.get(key) if isinstance(value, Mapping) else None
    return number if type(number) is int else None


def _name(luns: object, number: int) -> str | None:
    for lun in luns if isinstance(luns, list) else []:
        if _number(lun, "lun") == number:
            name = lun.get("backstore")
            return name if isinstance(name, str) else None
    return None
