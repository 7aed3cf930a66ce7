"""The changes of exports between two documents, in three stages around the changes of LUNs.

Pure. A LUN leaves its exports before the disk behind it is removed or replaced. Every document between two
steps is valid, since it is recorded.
"""

from collections.abc import Callable, Iterator

import msgspec

from vscsihba.config.change import Change
from vscsihba.config.export import Export, joined
from vscsihba.config.export_changes import AddExport, ChangeExport, ReduceExport, RemoveExport
from vscsihba.config.model import Document


class ExportComparison:
    """The exports of two documents.

    Args:
        running: The running document.
        target: The document after all changes.
        stays: Whether the disk of a backstore that `running` shows keeps working.
    """

    def __init__(self, running: Document, target: Document, stays: Callable[[str], bool]) -> None:
        self._running, self._target = running, target
        self._reduced = {
            export.name: _reduced(export, target.export(export.name), stays) for export in running.exports
        }
        self._grown = {
            export.name: _grown(self._reduced.get(export.name), export) for export in target.exports
        }

    def early(self) -> Iterator[Change]:
        """Yield the removals that must come before LUNs are removed or replaced."""
        for export in self._running.exports:
            if self._reduced[export.name] != export:
                yield ReduceExport(export, self._reduced[export.name])

    def additions(self) -> Iterator[Change]:
        """Yield the additions, once all LUNs are served."""
        for export in self._target.exports:
            before, grown = self._reduced.get(export.name), self._grown[export.name]
            if before is None:
                yield AddExport(export)
            elif before != grown:
                yield ChangeExport(before, grown)

    def late(self) -> Iterator[Change]:
        """Yield the removals before which no other change has to wait."""
        for export in self._target.exports:
            if self._grown[export.name] != export:
                yield ReduceExport(self._grown[export.name], export)
        for name, reduced in self._reduced.items():
            if name not in self._grown:
                yield RemoveExport(reduced)


def _grown(before: Export | None, after: Export) -> Export:
    """Return an export with everything that it gets, before anything is removed.

    LUNs that are active stay so: a path is taken away after the other paths are there.
    """
    active = {lun.lun for lun in before.luns if lun.state == "active"} if before is not None else set()
    grown = joined(before, after)
    luns = (msgspec.structs.replace(lun, state="active") if lun.lun in active else lun for lun in grown.luns)
    return msgspec.structs.replace(grown, luns=tuple(luns))


def _reduced(old: Export, new: Export | None, stays: Callable[[str], bool]) -> Export:
    """Return an export without those of its LUNs and initiators that must go early."""
    luns = {lun.lun for lun in old.luns if not stays(lun.backstore)}
    if new is None:
        return old.without(luns)
    kept = {lun.lun: lun.backstore for lun in new.luns}
    luns |= {lun.lun for lun in old.luns if kept.get(lun.lun, lun.backstore) != lun.backstore}
    shown = {lun.backstore: lun.lun for lun in new.luns}  # a backstore is one LUN of an export
    luns |= {lun.lun for lun in old.luns if shown.get(lun.backstore, lun.lun) != lun.lun}
    initiators: set[str] = set()
    if (old.open, old.authenticates) != (new.open, new.authenticates) or new.open:
        # The rules of access bind all entries together, so none of the old rules may be left.
        luns |= {lun.lun for lun in old.luns if lun.lun not in kept}
        initiators = {each.name for each in old.initiators} - {each.name for each in new.initiators}
    return old.without(luns, initiators)
