"""Changes of exports: targets for other computers are added, changed and removed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from vscsihba.config.change import Change, as_written
from vscsihba.config.export import Export, ExportLun
from vscsihba.config.model import Document
from vscsihba.units import counted

_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class AddExport(Change):
    """An export is added; its backstores are served already."""

    sign = "+"
    export: Export

    @property
    def text(self) -> str:
        """Its name, and its size."""
        return f"add export {self.export.name}: {_about(self.export)}"

    def carry_out(self, document: Document) -> Document:
        """Add it."""
        return _with(document, self.export.name, self.export)

    def inverse(self) -> "RemoveExport":
        """Remove it."""
        return RemoveExport(self.export)


@dataclass(frozen=True, slots=True)
class RemoveExport(Change):
    """An export is removed, and its sessions end; the backstores stay."""

    sign = "-"
    disturbs = True
    export: Export

    @property
    def text(self) -> str:
        """Its name."""
        return f"remove export {self.export.name}"

    def carry_out(self, document: Document) -> Document:
        """Remove it."""
        return _with(document, self.export.name, None)

    def inverse(self) -> AddExport:
        """Add it again."""
        return AddExport(self.export)


@dataclass(frozen=True, slots=True)
class ChangeExport(Change):
    """Portals, initiators or LUNs are added to an export, or its settings change; no session ends."""

    sign = "~"
    old: Export
    new: Export

    @property
    def text(self) -> str:
        """Its name, and the differences."""
        return f"change export {self.new.name}: {', '.join(differences(self.old, self.new))}"

    def carry_out(self, document: Document) -> Document:
        """Set the new values."""
        return _with(document, self.new.name, self.new)

    def inverse(self) -> "ReduceExport":
        """Set the old ones."""
        return ReduceExport(self.new, self.old)


@dataclass(frozen=True, slots=True)
class ReduceExport(Change):
    """Portals, initiators or LUNs are removed from an export, or LUNs are active no more; sessions notice."""

    sign = "-"
    disturbs = True
    old: Export
    new: Export

    @property
    def text(self) -> str:
        """Its name, and the differences."""
        return f"change export {self.new.name}: {', '.join(differences(self.old, self.new))}"

    def carry_out(self, document: Document) -> Document:
        """Set the new values."""
        return _with(document, self.new.name, self.new)

    def inverse(self) -> ChangeExport:
        """Set the old ones."""
        return ChangeExport(self.new, self.old)


def _with(document: Document, name: str, export: Export | None) -> Document:
    """Return the document with `export` as the export of that name; without the export for None."""
    rest = [each for each in document.exports if each.name != name]
    exports = rest if export is None else [*rest, export]
    return msgspec.structs.replace(document, exports=tuple(sorted(exports, key=lambda each: each.name)))


def _about(export: Export) -> str:
    who = "open to all" if export.open else counted(len(export.initiators), "initiator")
    return f"{export.transport} on {', '.join(export.portals)}, {counted(len(export.luns), 'LUN')}, {who}"


def differences(old: Export, new: Export) -> list[str]:
    """Return each difference: ``+ LUN 3``, ``- portal 192.0.2.7:3260``, ``cmdsn_depth 64 -> 32``."""
    found = [
        *_changed("LUN", {lun.lun: lun for lun in old.luns}, {lun.lun: lun for lun in new.luns}, _states),
        *_changed("portal", dict.fromkeys(old.portals), dict.fromkeys(new.portals)),
        *_changed(
            "initiator",
            {initiator.name: initiator for initiator in old.initiators},
            {initiator.name: initiator for initiator in new.initiators},
        ),
    ]
    for key in (
        "open",
        "cmdsn_depth",
        "nopin_timeout",
        "nopin_response_timeout",
        "header_digest",
        "data_digest",
    ):
        values = getattr(old, key), getattr(new, key)
        if values[0] != values[1]:
            found.append(f"{key} {as_written(values[0])} -> {as_written(values[1])}")
    return found


def _states(old: ExportLun, new: ExportLun) -> str:
    return "" if old.state == new.state else f" {old.state} -> {new.state}"


def _changed(
    noun: str,
    before: Mapping[_Key, _Entry],
    after: Mapping[_Key, _Entry],
    how: Callable[[_Entry, _Entry], str] = lambda _old, _new: "",
) -> Iterator[str]:
    yield from (f"+ {noun} {key}" for key in after if key not in before)
    yield from (f"- {noun} {key}" for key in before if key not in after)
    yield from (
        f"~ {noun} {key}{how(before[key], after[key])}"
        for key in after
        if key in before and before[key] != after[key]
    )
