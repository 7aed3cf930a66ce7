"""The conversion of a whole file: storage objects, loopback targets as HBAs, iSCSI targets as exports."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vscsihba.config.export import Export
from vscsihba.config.model import VERSION
from vscsihba.config.saveconfig.exports import Secrets, export_of
from vscsihba.config.saveconfig.source import Entry
from vscsihba.config.saveconfig.storage import NoCounterpartError, Storage, storage_of


@dataclass(slots=True)
class Conversion:
    """A converted file.

    Attributes:
        document: The document, in JSON's types; `vscsihba.config.load.read` checks it.
        notes: Entries without a counterpart, and differences; a line each, in the order of the file.
        secrets: CHAP secrets by the names of their files.
        sizes: Bytes that LIO shows for a file, by its path; only where LIO may show fewer than the file has.
    """

    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def convert(value: object, secrets: str) -> Conversion:
    """Return the document for LIO's configuration.

    Args:
        value: The content of saveconfig.json.
        secrets: Absolute path of the folder that CHAP secrets will be in.

    Raises:
        ConfigError: It is not such a file; the message names the place.
    """
    return _Converter(Entry(value, ""), secrets).run()


class _Converter:
    def __init__(self, root: Entry, secrets: str) -> None:
        self._root = root
        self._secrets = Secrets(secrets)
        self._notes: list[str] = []
        self._storage: dict[str, Storage] = {}
        """Storage objects with a counterpart, by their paths in LIO."""
        self._shown: set[str] = set()
        """Names of backstores that have a LUN."""
        self._hbas: list[dict[str, Any]] = []
        self._exports: list[dict[str, Any]] = []

    def run(self) -> Conversion:
        """Convert everything."""
        for entry in self._root.entries("storage_objects"):
            self._noted(entry, f"{entry.text('plugin')} {entry.text('name')}", self._add_storage)
        targets = list(self._root.entries("targets"))
        for fabric, add in (("loopback", self._add_hba), ("iscsi", self._add_exports)):
            for entry in targets:
                if entry.text("fabric") == fabric:
                    add(entry)
        for entry in targets:
            if (fabric := entry.text("fabric")) not in {"loopback", "iscsi"}:
                self._notes.append(
                    f"{entry.place} ({fabric} {entry.text('wwn')}): left out: no such transport"
                )
        self._notes += self._about_discovery()
        self._show_exported()
        backstores = {each.backstore: each.stack for each in self._storage.values()}
        document = {"version": VERSION, "backstores": backstores, "hbas": self._hbas}
        sizes = {
            str(each.stack["path"]): each.size
            for each in self._storage.values()
            if each.size and each.stack["handler"] == "file"
        }
        exports = {"exports": self._exports} if self._exports else {}
        return Conversion(document | exports, self._notes, self._secrets.files, sizes)

    def _noted(self, entry: Entry, name: str, add: Callable[[Entry], list[str]]) -> None:
        """Add an entry, and note what it has no counterpart for."""
        try:
            notes = add(entry)
        except NoCounterpartError as error:
            notes = [f"left out: {error}"]
        self._notes += [f"{entry.place} ({name}): {note}" for note in notes]

    def _add_storage(self, entry: Entry) -> list[str]:
        taken = {each.backstore for each in self._storage.values()}
        storage = storage_of(entry, taken)
        self._storage[f"/backstores/{entry.text('plugin')}/{entry.text('name')}"] = storage
        renamed = [] if storage.backstore == entry.text("name") else [f"it is called {storage.backstore} now"]
        return renamed + storage.notes

    def _add_hba(self, target: Entry) -> None:
        """Add an HBA for each portal group of a loopback target; each is a SCSI host of its own."""
        for group in target.entries("tpgs"):
            luns: list[dict[str, Any]] = []
            for lun in group.entries("luns"):
                path = lun.text("storage_object")
                self._noted(lun, path, self._into(luns, path))
            if luns:
                self._hbas.append({"id": len(self._hbas), "luns": luns})

    def _into(self, luns: list[dict[str, Any]], path: str) -> Callable[[Entry], list[str]]:
        def add(lun: Entry) -> list[str]:
            storage = self._storage.get(path)
            if storage is None:
                raise NoCounterpartError("its storage has no counterpart")
            if storage.backstore in self._shown:
                raise NoCounterpartError("another LUN shows this storage, and a backstore belongs to one LUN")
            luns.append(self._lun(lun.number("index"), storage))
            return []

        return add

    def _lun(self, number: int, storage: Storage) -> dict[str, Any]:
        self._shown.add(storage.backstore)
        return {"lun": number, "backstore": storage.backstore, **storage.identity}

    def _add_exports(self, target: Entry) -> None:
        backstores = {path: storage.backstore for path, storage in self._storage.items()}
        known = {export["name"] for export in self._exports}
        for group in target.entries("tpgs"):
            name = target.text("wwn")

            def add(group: Entry, name: str = name) -> list[str]:
                if name in known:
                    raise NoCounterpartError("the target has another portal group, and an export has one")
                notes: list[str] = []
                secrets = Secrets(self._secrets.folder)
                export = export_of(target, group, backstores, secrets, notes)
                try:
                    msgspec.convert(export, Export)
                except msgspec.ValidationError as error:
                    raise NoCounterpartError(f"a document cannot have this: {error}") from error
                self._exports.append(export)
                self._secrets.files.update(secrets.files)
                known.add(name)
                return notes

            self._noted(group, f"iscsi {name}", add)

    def _about_discovery(self) -> list[str]:
        return [
            f"{module.place}: the CHAP secret of discovery is left out"
            for module in self._root.entries("fabric_modules")
            if module.text("fabric", "") == "iscsi" and module.flag("discovery_enable_auth")
        ]

    def _show_exported(self) -> None:
        """Give LUNs to backstores of exports that have none: an engine serves LUNs of an HBA."""
        exported = {lun["backstore"] for export in self._exports for lun in export["luns"]}
        missing = [
            each
            for each in self._storage.values()
            if each.backstore in exported and each.backstore not in self._shown
        ]
        if missing:
            luns = [self._lun(at, each) | {"local": False} for at, each in enumerate(missing)]
            self._hbas.append({"id": len(self._hbas), "luns": luns})
        self._notes += [
            f"backstore {each.backstore}: no target shows it"
            for each in self._storage.values()
            if each.backstore not in self._shown
        ]
