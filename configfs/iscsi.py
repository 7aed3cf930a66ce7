"""iSCSI targets in the kernel: read, created, changed and removed as whole values.

`change_target` leads from one value to another; when a step fails, those before it are undone. Removals come
last, so that a change that fails on the way has ended no session. Knows nothing of documents.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from vscsihba.configfs import alua, backstores, lio_iscsi, observer, paths
from vscsihba.configfs.iscsi_spec import ACL_DEFAULTS, DEFAULTS, WRITE_PROTECT, Acl, Chap, IscsiTarget
from vscsihba.errors import VscsihbaError

_UNSET = "NULL"
"""Clears a user or a secret (iscsi_target_configfs.c, __DEF_NACL_AUTH_STR)."""


def find_target(name: str) -> IscsiTarget | None:
    """Return a target as it is in the kernel, None if there is none of that name."""
    group = _group(name)
    if not group.parent.is_dir():
        return None
    luns = {
        _number(entry): link.name
        for entry in paths.entries(group / "lun")
        if (link := observer.linked(entry)) is not None
    }
    attributes = {key: paths.read(group / key) or "" for key in DEFAULTS}
    states = {number: alua.access_state(_lun_folder(name, number)) for number in luns}
    return IscsiTarget(
        name,
        frozenset(entry.name for entry in paths.entries(group / "np")),
        luns,
        {entry.name: _acl(entry) for entry in paths.entries(group / "acls")},
        open=paths.read_int(group / "attrib/generate_node_acls") == 1,
        write_protected=paths.read_int(group / WRITE_PROTECT) != 0,
        settings=attributes,
        states={number: state for number, state in states.items() if state != alua.ACTIVE},
    )


def portals_in_use() -> frozenset[str]:
    """Return ``ADDRESS:PORT`` of every portal of every iSCSI target, those of other programs included."""
    return frozenset(portal.name for portal in paths.iscsi().glob("*/tpgt_*/np/*"))


def is_enabled(name: str) -> bool:
    """Return whether initiators can log in to a target; False if its creation was cut short."""
    return paths.read_int(_group(name) / "enable") == 1


def _acl(directory: Path) -> Acl:
    luns = {
        _number(entry): paths.read_int(entry / "write_protect") == 1
        for entry in _mapped(directory)
        if observer.linked(entry) is not None
    }
    settings = {file: paths.read(directory / file) or "" for file in ACL_DEFAULTS}
    return Acl(luns, _chap(directory, ""), _chap(directory, "_mutual"), settings)


def _chap(acl: Path, suffix: str) -> Chap | None:
    """Return a user and its secret, None if neither is set; one alone was cut short by a kill."""
    texts = [paths.read(acl / "auth" / f"{key}{suffix}") for key in ("userid", "password")]
    user, password = ("" if text in (None, _UNSET) else str(text) for text in texts)
    return Chap(user, password) if user or password else None


def _group(name: str) -> Path:
    return paths.iscsi() / name / observer.PORTAL_GROUP


def _lun_folder(name: str, number: int) -> Path:
    return _group(name) / "lun" / f"lun_{number}"


def _port_group(name: str, number: int) -> str:
    """Return the name of the ALUA port group of a LUN that is not active."""
    return f"{name}.lun{number}"


def change_target(before: IscsiTarget | None, after: IscsiTarget | None) -> None:
    """Make, change or remove a target.

    Args:
        before: The target as it is; None if there is none.
        after: The target as it is to be; None to remove it. Its backstores exist and are served.

    Raises:
        HostError: The kernel refuses a step; the steps before it are undone.
    """
    if after is None:
        if before is not None:
            _delete(before)
        return
    with ExitStack() as undo:
        if before is None:
            lio_iscsi.create_target(after.name)
            undo.callback(_discard, after)
            _run(_Steps(IscsiTarget(after.name), after), undo, undone=False)
            _set_enabled(after.name)
        else:
            undo.callback(_put_back, before)  # the step that fails may be half done
            _remove_fragments(after.name)
            _run(_Steps(before, after), undo, undone=True)
            _set_enabled(after.name)  # its creation may have been cut short
        undo.pop_all()


def _delete(target: IscsiTarget) -> None:
    """Remove a target; if that fails half way, put back the parts that are gone, so that initiators go on.

    Raises:
        HostError: The kernel refuses.
    """
    with ExitStack() as failing:
        failing.callback(_put_back, target)
        _discard(target)
        failing.pop_all()


def _discard(target: IscsiTarget) -> None:
    lio_iscsi.delete_target(target.name)
    for number, backstore in target.luns.items():
        alua.forget(backstore, _port_group(target.name, number))


def _put_back(target: IscsiTarget) -> None:
    """Make a target as it was before a change that has failed, as far as the kernel lets that happen."""
    _undo(partial(_remove_fragments, target.name))
    found = find_target(target.name)
    if found is not None:
        for do, _ in _Steps(found, target):
            _undo(do)
        _undo(partial(_set_enabled, target.name))


def _remove_fragments(name: str) -> None:
    """Complete or remove the objects of a target whose making or removal was cut short by a kill.

    Raises:
        HostError: The kernel refuses.
    """
    group = _group(name)
    if not group.is_dir():
        lio_iscsi.create_group(name)
    for acl in paths.entries(group / "acls"):
        for directory in _mapped(acl):
            if observer.linked(directory) is None:
                lio_iscsi.unmap_lun(name, acl.name, _number(directory))
    for directory in paths.entries(group / "lun"):
        if observer.linked(directory) is None:
            lio_iscsi.unlink(name, _number(directory))


def _mapped(acl: Path) -> list[Path]:
    """Return the folders of the LUNs that an initiator sees."""
    return [entry for entry in paths.entries(acl) if entry.name.startswith("lun_")]


def _number(lun: Path) -> int:
    return int(lun.name.removeprefix("lun_"))


def _set_enabled(name: str) -> None:
    if not is_enabled(name):
        paths.write(_group(name) / "enable", "1")


_Call = Callable[[], None]


def _run(steps: "_Steps", undo: ExitStack, *, undone: bool) -> None:
    """Take all steps; with `undone`, push the reverse of each onto `undo`."""
    for do, reverse in steps:
        do()
        if undone:
            undo.callback(_undo, reverse)


def _undo(reverse: _Call) -> None:
    """Take a step back as far as the kernel lets that happen: the first error of a change is reported."""
    with suppress(VscsihbaError):
        reverse()


class _Steps:
    """The steps from one value of a target to another, each with its reverse; what is removed comes last."""

    def __init__(self, before: IscsiTarget, after: IscsiTarget) -> None:
        self._name = after.name
        self._before, self._after = before, after

    def __iter__(self) -> Iterator[tuple[_Call, _Call]]:
        yield from self._moved_luns()
        if not self._before.luns and not self._after.write_protected:
            # Before LUNs are linked: an initiator that is logged in keeps the access that it gets with a LUN.
            yield from _changed_files(_group(self._name), {WRITE_PROTECT: "0"})
        for number, backstore in self._after.luns.items():
            states = self._before.state(number), self._after.state(number)
            if number not in self._before.luns:
                yield self._lun(number, backstore, states[1])
            elif states[0] != states[1]:
                yield self._state(number, backstore, *states)
        yield from _changed_files(_group(self._name), self._after.files)
        for initiator, acl in self._after.acls.items():
            yield from self._changed_acl(initiator, acl)
        for portal in sorted(self._after.portals - self._before.portals):
            yield self._portal(portal)
        yield from self._removals()

    def _moved_luns(self) -> Iterator[tuple[_Call, _Call]]:
        """Remove the LUNs that are to show another backstore, and go on as if they had not been there."""
        luns = self._before.luns
        moved = {number for number in luns if self._after.luns.get(number, luns[number]) != luns[number]}
        if not moved:
            return
        for initiator, acl in self._before.acls.items():
            for number in sorted(moved & acl.luns.keys()):
                yield _reversed(self._mapped(initiator, number, write_protect=acl.luns[number]))
        for number in sorted(moved):
            yield _reversed(self._lun(number, luns[number], self._before.state(number)))
        self._before = replace(
            self._before,
            luns={number: luns[number] for number in luns if number not in moved},
            acls={
                initiator: replace(
                    acl, luns={key: value for key, value in acl.luns.items() if key not in moved}
                )
                for initiator, acl in self._before.acls.items()
            },
        )

    def _changed_acl(self, initiator: str, acl: Acl) -> Iterator[tuple[_Call, _Call]]:
        old = self._before.acls.get(initiator, Acl())
        if initiator not in self._before.acls:
            yield self._initiator(initiator)
        yield from _changed_files(_group(self._name) / "acls" / initiator, acl.settings)
        for suffix, one, other in (("", old.chap, acl.chap), ("_mutual", old.mutual, acl.mutual)):
            if one != other:
                yield self._chap(initiator, suffix, one, other)
        for number, write_protect in acl.luns.items():
            if number in old.luns and old.luns[number] != write_protect:
                file = _group(self._name) / "acls" / initiator / f"lun_{number}" / "write_protect"
                values = str(int(write_protect)), str(int(not write_protect))
                yield partial(paths.write, file, values[0]), partial(paths.write, file, values[1])
            elif number not in old.luns:
                yield self._mapped(initiator, number, write_protect=write_protect)

    def _removals(self) -> Iterator[tuple[_Call, _Call]]:
        for portal in sorted(self._before.portals - self._after.portals):
            yield _reversed(self._portal(portal))
        for initiator, old in self._before.acls.items():
            acl = self._after.acls.get(initiator)
            for number in old.luns:
                if acl is None or number not in acl.luns:
                    yield _reversed(self._mapped(initiator, number, write_protect=old.luns[number]))
            if acl is None:
                for suffix, chap in (("", old.chap), ("_mutual", old.mutual)):
                    if chap is not None:
                        yield self._chap(initiator, suffix, chap, None)
                yield _reversed(self._initiator(initiator))
        for number, backstore in self._before.luns.items():
            if number not in self._after.luns:
                yield _reversed(self._lun(number, backstore, self._before.state(number)))

    # Single objects: how each is made, and how it is removed.

    def _lun(self, number: int, backstore: str, state: str) -> tuple[_Call, _Call]:
        folder, group = _lun_folder(self._name, number), _port_group(self._name, number)

        def make() -> None:
            index = backstores.index_of(backstores.directory_of(backstore))
            with ExitStack() as undo:
                lio_iscsi.link(self._name, number, backstore, index)
                undo.callback(remove)
                alua.set_access_state(folder, backstore, group, state)
                undo.pop_all()

        def remove() -> None:
            lio_iscsi.unlink(self._name, number)
            alua.forget(backstore, group)

        return make, remove

    def _state(self, number: int, backstore: str, old: str, new: str) -> tuple[_Call, _Call]:
        group = _port_group(self._name, number)
        change = partial(alua.set_access_state, _lun_folder(self._name, number), backstore, group)
        return partial(change, new), partial(change, old)

    def _portal(self, portal: str) -> tuple[_Call, _Call]:
        return (
            partial(lio_iscsi.create_portal, self._name, portal),
            partial(lio_iscsi.delete_portal, self._name, portal),
        )

    def _initiator(self, initiator: str) -> tuple[_Call, _Call]:
        return (
            partial(lio_iscsi.create_acl, self._name, initiator),
            partial(lio_iscsi.delete_acl, self._name, initiator),
        )

    def _chap(self, initiator: str, suffix: str, old: Chap | None, new: Chap | None) -> tuple[_Call, _Call]:
        directory = _group(self._name) / "acls" / initiator / "auth"
        return partial(_set_chap, directory, suffix, new), partial(_set_chap, directory, suffix, old)

    def _mapped(self, initiator: str, number: int, *, write_protect: bool) -> tuple[_Call, _Call]:
        return (
            partial(lio_iscsi.map_lun, self._name, initiator, number, write_protect=write_protect),
            partial(lio_iscsi.unmap_lun, self._name, initiator, number),
        )


def _changed_files(directory: Path, values: Mapping[str, str]) -> Iterator[tuple[_Call, _Call]]:
    """Compare with the kernel's own values: a creation that was cut short has left its defaults."""
    for file, value in values.items():
        path = directory / file
        old = paths.read(path)
        if old != value:
            yield partial(paths.write, path, value), partial(paths.write, path, old or value)


def _reversed(step: tuple[_Call, _Call]) -> tuple[_Call, _Call]:
    return step[1], step[0]


def _set_chap(directory: Path, suffix: str, chap: Chap | None) -> None:
    """Set or clear a user and its secret, which no error shows.

    Raises:
        HostError: The kernel refuses.
    """
    values = (_UNSET, _UNSET) if chap is None else (chap.user, chap.password)
    for key, value in zip(("userid", "password"), values, strict=True):
        paths.write_secret(directory / f"{key}{suffix}", value)
