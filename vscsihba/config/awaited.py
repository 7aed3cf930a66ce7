"""Saved entries that could not be restored: they are awaited until they can be read, or are not wanted.

Pure: compares documents, and reads no file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from vscsihba.config.dump import builtins
from vscsihba.config.export import Export
from vscsihba.config.load import read
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.config.salvage import Salvage, Unread
from vscsihba.errors import VscsihbaError


class Awaited(msgspec.Struct, frozen=True):
    """The entries of the saved document that were not restored.

    Attributes:
        unread: These entries.
        seen: HBA and LUN of every entry that could be read when the document was restored; if such an entry
            is gone now, a user has removed it.
    """

    unread: tuple[Unread, ...] = ()
    seen: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, saved: Salvage) -> Self:
        """Return the awaited entries of a document that was restored as far as it could be read."""
        return cls(saved.unread, tuple(_places(saved.document)) if saved.unread else ())

    def joined(self, running: Document, saved: Salvage) -> tuple[Document, Self]:
        """Return the running document with the entries that can be read now, and the entries still awaited.

        Args:
            running: The running document; its entries stay as they are.
            saved: The saved document as it is now.
        """
        if not saved.readable:
            why = saved.unread[0].why
            return running, type(self)(
                tuple(msgspec.structs.replace(each, why=why) for each in self.unread), self.seen
            )
        document, refused = running, []
        for hba in saved.document.hbas:
            for lun in hba.luns:
                if has_lun(document, hba.id, lun.lun) or not self._covers(hba.id, lun.lun):
                    continue
                try:
                    document = _with(document, hba, lun, saved.document)
                except VscsihbaError as error:
                    refused.append(Unread(str(error), hba.id, lun.lun, lun.backstore))
        document, refused_luns = self._joined_exports(document, saved.document)
        refused += refused_luns
        rest = [each for each in saved.unread if self._awaits(each)]
        return document, self._with(document, [*rest, *refused])

    def _joined_exports(self, document: Document, saved: Document) -> tuple[Document, list[Unread]]:
        """Return a document with the exports, and LUNs of exports, that can be read now; and the refused."""
        refused = []
        for entry in self.unread:
            wanted = saved.export(entry.export) if entry.export is not None else None
            if wanted is None or _has_export(document, entry):
                continue
            try:
                document = _with_export(document, wanted, entry.lun)
            except VscsihbaError as error:
                refused.append(msgspec.structs.replace(entry, why=str(error)))
        return document, refused

    def without(self, running: Document, hbas: Iterable[int] = (), exports: Iterable[str] = ()) -> Self:
        """Return the entries still awaited after a user has changed HBAs and exports, or added others."""
        gone: set[int | str] = {*hbas, *exports}
        return self._with(
            running, [each for each in self.unread if each.hba not in gone and each.export not in gone]
        )

    def _with(self, running: Document, unread: Iterable[Unread]) -> Self:
        left = tuple(
            each
            for each in unread
            if not has_lun(running, each.hba, each.lun) and not _has_export(running, each)
        )
        return type(self)(left, self.seen if left else ())

    def _awaits(self, entry: Unread) -> bool:
        """Return whether an entry that cannot be read now is one of those that were not restored."""
        if entry.hba is not None:
            return self._covers(entry.hba, entry.lun)
        if entry.export is None:
            return True
        return any(each.export == entry.export and each.lun in (None, entry.lun) for each in self.unread)

    def _covers(self, hba_id: int, lun: int | None) -> bool:
        """Return whether an entry is one of those that were not restored."""
        if any(each.hba == hba_id and each.lun in (None, lun) for each in self.unread):
            return True
        nameless = any(each.hba is None and each.backstore is None for each in self.unread)
        return nameless and (hba_id, lun) not in self.seen


def has_lun(document: Document, hba_id: int | None, number: int | None) -> bool:
    """Return whether a document has a LUN."""
    hba = None if hba_id is None else document.hba(hba_id)
    return hba is not None and number is not None and hba.lun(number) is not None


def _has_export(document: Document, entry: Unread) -> bool:
    """Return whether a document has the export, or the LUN of an export, of an entry."""
    export = None if entry.export is None else document.export(entry.export)
    return export is not None and (entry.lun is None or export.lun(entry.lun) is not None)


def _places(document: Document) -> list[tuple[int, int]]:
    return [(hba.id, lun.lun) for hba in document.hbas for lun in hba.luns]


def _with(document: Document, hba: Hba, lun: Lun, saved: Document) -> Document:
    """Return a document with one more LUN, after a check of all rules.

    Raises:
        ConfigError: Its backstore, or one of its names, is used by another LUN.
    """
    existing = document.hba(hba.id) or msgspec.structs.replace(hba, luns=())
    changed = msgspec.structs.replace(existing, luns=(*existing.luns, lun))
    stack = document.backstores.get(lun.backstore, saved.backstores[lun.backstore])
    return read(
        {
            "version": document.version,
            "backstores": {**document.backstores, lun.backstore: stack},
            "hbas": msgspec.json.decode(
                msgspec.json.encode([*(each for each in document.hbas if each.id != hba.id), changed])
            ),
            "exports": msgspec.json.decode(msgspec.json.encode(document.exports)),
        },
        Path("/"),
    )


def _with_export(document: Document, wanted: Export, number: int | None) -> Document:
    """Return a document with one more export, or one more LUN of an export, after a check of all rules.

    Args:
        document: The document.
        wanted: The export as it was saved.
        number: Of the LUN; None for the whole export.

    Raises:
        ConfigError: No LUN of an HBA shows a backstore of it.
    """
    running = document.export(wanted.name)
    if running is not None and number is not None:
        missing = {lun.lun for lun in wanted.luns} - {lun.lun for lun in running.luns} - {number}
        wanted = wanted.without(missing)
    rest = [each for each in document.exports if each.name != wanted.name]
    values = builtins(document)
    values["exports"] = msgspec.json.decode(msgspec.json.encode([*rest, wanted]))
    return read(values, Path("/"))
