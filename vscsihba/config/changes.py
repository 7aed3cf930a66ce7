"""The changes from one document to another, in an order in which a machine can carry them out.

Pure: `changes` only compares. Changes that remove nothing come first, changes that cannot be undone come
last. A disk is removed earlier only if another disk needs its storage or its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vscsihba.config.change import Change
from vscsihba.config.conflicts import Place, conflicting
from vscsihba.config.export_comparison import ExportComparison
from vscsihba.config.frame_changes import (
    AddBackstore,
    AddHba,
    ChangeBackstore,
    RemoveBackstore,
    RemoveHba,
    SetEngines,
)
from vscsihba.config.lun_changes import AddLun, RemoveLun, ReplaceLun, Resize, TuneLun
from vscsihba.config.model import Document, Lun, StackDocument
from vscsihba.config.pruning import Prune, merge
from vscsihba.config.sizes import same_but_for_size, same_source, size_of, size_place
from vscsihba.errors import ConfigError
from vscsihba.handlers.registry import Registry
from vscsihba.units import exact_size

LIVE = frozenset({"queue_depth", "command_timeout", "queue_full_timeout"})
"""Keys of a LUN that can change while its disk works."""


@dataclass(frozen=True, slots=True)
class Changes:
    """A list of changes, and the document after them.

    Attributes:
        steps: The changes, in order.
        target: The document after all of them, including entries that are not pruned.
    """

    steps: tuple[Change, ...]
    target: Document

    def __iter__(self) -> Iterator[Change]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def replacing(self) -> list[Change]:
        """The changes that are impossible while a disk works."""
        return [step for step in self.steps if step.replaces]

    @property
    def disturbing(self) -> list[Change]:
        """The changes that users of a disk notice."""
        return [step for step in self.steps if step.disturbs]


def changes(
    running: Document, wanted: Document, *, prune: Prune = "named", registry: Registry | None = None
) -> Changes:
    """Return the changes from `running` to `wanted`; none if there is no difference.

    Args:
        running: The running document.
        wanted: The new document.
        prune: The entries to remove if the new document does not have them: ``named``: LUNs of the HBAs
            that it names; ``all``: other HBAs too; ``none``: nothing.
        registry: The known handlers.

    Raises:
        ConfigError: A disk would shrink, or an entry that stays conflicts with a new one.
    """
    target = merge(running, wanted, prune)
    return Changes(tuple(_Comparison(running, target, registry or Registry()).steps()), target)


class _Comparison:
    """The comparison of two documents, LUN by LUN.

    Attributes:
        before: The LUNs of the running document.
        after: The LUNs of the new document.
        shown: The LUN of each backstore in the running document.
        live: The LUNs of both documents whose disks keep working.
        early: The LUNs that must be removed before others can be added.
    """

    def __init__(self, running: Document, target: Document, registry: Registry) -> None:
        self.running, self.target = running, target
        self.before, self.after = _luns(running), _luns(target)
        self.shown = {lun.backstore: place for place, lun in self.before.items()}
        self._check_sizes()
        both = self.before.keys() & self.after.keys()
        self.live = frozenset(place for place in both if self._stays(place))
        removed = {place: lun for place, lun in self.before.items() if place not in self.live}
        added = {place: lun for place, lun in self.after.items() if place not in self.live}
        self.early = conflicting(running, target, removed, added, registry)
        self.exports = ExportComparison(running, target, self._keeps_working)

    def steps(self) -> Iterator[Change]:
        """Yield the changes in their order."""
        yield from self.exports.early()
        yield from self._removals(early=True)
        for name, stack in self.target.backstores.items():
            if name not in self.running.backstores:
                yield AddBackstore(name, stack)
        yield from self._tunings()
        yield from self._descriptions()
        yield from self._hbas()
        yield from self._additions()
        yield from self._replacements()
        yield from self._resizes()
        yield from self.exports.additions()
        yield from self.exports.late()
        yield from self._removals(early=False)
        for hba in self.running.hbas:
            if self.target.hba(hba.id) is None:
                yield RemoveHba(hba.id, hba.engines)
        for name, stack in self.running.backstores.items():
            if name not in self.target.backstores:
                yield RemoveBackstore(name, stack)

    def _stays(self, place: Place) -> bool:
        """Return whether the disk of a LUN keeps working."""
        old, new = self.before[place], self.after[place]
        stacks = self.running.backstores[old.backstore], self.target.backstores[new.backstore]
        if old.backstore == new.backstore:
            same = same_but_for_size(*stacks)
        else:
            same = stacks[0] == stacks[1] and new.backstore not in self.running.backstores
        return same and _fixed(old) == _fixed(new)

    def _keeps_working(self, backstore: str) -> bool:
        """Return whether the LUN of a backstore shows it, and works, until the late removals."""
        place = self.shown[backstore]
        if place in self.after:
            return place in self.live and self.after[place].backstore == backstore
        return place not in self.early

    def _removals(self, *, early: bool) -> Iterator[Change]:
        for place, lun in self.before.items():
            again = place in self.after
            if (place in self.early) == early and (early or not again):
                yield RemoveLun(place[0], lun, again=again)

    def _tunings(self) -> Iterator[Change]:
        for place, old in self.before.items():
            if place in self.live and old != self.after[place]:
                yield TuneLun(place[0], old, self.after[place])

    def _differing(self) -> Iterator[tuple[str, StackDocument, StackDocument, Place | None]]:
        """Yield each backstore that differs: its name, both stacks, and its LUN if that shows it in both."""
        for name, new in self.target.backstores.items():
            old = self.running.backstores.get(name, new)
            if old != new:
                place = self.shown.get(name)
                keeps = place in self.after and self.after[place].backstore == name
                yield name, old, new, place if keeps and place not in self.early else None

    def _descriptions(self) -> Iterator[Change]:
        """Yield changes of backstores that no disk notices."""
        for name, old, new, place in self._differing():
            if place is None or (place in self.live and not _grows(old, new)):
                yield ChangeBackstore(name, old, new)

    def _resizes(self) -> Iterator[Change]:
        for name, old, new, place in self._differing():
            if place in self.live and (size := _grows(old, new)) is not None:
                yield Resize(*place, name, old, new, old_size=size_of(old), new_size=size)

    def _hbas(self) -> Iterator[Change]:
        for hba in self.target.hbas:
            before = self.running.hba(hba.id)
            if before is None:
                yield AddHba(hba.id, hba.engines)
            elif before.engines != hba.engines:
                yield SetEngines(hba.id, before.engines, hba.engines)

    def _additions(self) -> Iterator[Change]:
        for place, lun in self.after.items():
            if place not in self.before or place in self.early:
                yield AddLun(place[0], lun, again=place in self.before)

    def _replacements(self) -> Iterator[Change]:
        for place, old in self.before.items():
            if place in self.after and place not in self.live | self.early:
                new = self.after[place]
                stack = self.target.backstores[new.backstore]
                same = old.backstore == new.backstore  # else a change before this one has added its stack
                before = self.running.backstores[new.backstore] if same else stack
                yield ReplaceLun(place[0], old, new, new.backstore, before, stack)

    def _check_sizes(self) -> None:
        """Refuse a smaller size for a disk that stays.

        Raises:
            ConfigError: A disk would shrink.
        """
        for lun in self.after.values():
            new = self.target.backstores[lun.backstore]
            old = self.running.backstores.get(lun.backstore, new)
            if lun.backstore not in self.shown or not same_source(old, new):
                continue
            before, after = size_of(old), size_of(new)
            if before is not None and after is not None and after < before:
                raise ConfigError(
                    f"$.backstores.{lun.backstore}{size_place(new)}",
                    f"{exact_size(after)} is less than its {exact_size(before)}, and a disk cannot shrink",
                    cure="use its present size, or add a new backstore",
                )


def _luns(document: Document) -> dict[Place, Lun]:
    return {(hba.id, lun.lun): lun for hba in document.hbas for lun in hba.luns}


def _fixed(lun: Lun) -> dict[str, object]:
    """Return the keys of a LUN that cannot change while its disk works."""
    keys = msgspec.structs.asdict(lun)
    return {key: value for key, value in keys.items() if key not in LIVE and key != "backstore"}


def _grows(old: StackDocument, new: StackDocument) -> int | None:
    """Return the new size of the source in bytes if it has changed."""
    size = size_of(new)
    return None if size == size_of(old) else size
