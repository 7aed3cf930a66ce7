"""Saved entries that could not be restored: they are awaited until they can be read, or are not wanted.

Pure: compares documents, and reads no file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

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
        rest = [each for each in saved.unread if each.hba is None or self._covers(each.hba, each.lun)]
        return document, self._with(document, [*rest, *refused])

    def without(self, running: Document, hbas: Iterable[int] = ()) -> Self:
        """Return the entries still awaited after a user has changed some HBAs, or added other disks."""
        gone = set(hbas)
        return self._with(running, [each for each in self.unread if each.hba not in gone])

    def _with(self, running: Document, unread: Iterable[Unread]) -> Self:
        left = tuple(each for each in unread if not has_lun(running, each.hba, each.lun))
        return type(self)(left, self.seen if left else ())

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
        },
        Path("/"),
    )
