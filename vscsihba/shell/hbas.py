"""The branch ``/hbas``: the virtual adapters and what each shows to Linux."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from vscsihba.config.model import Hba, Lun
from vscsihba.configfs.names import MAX_ID, MAX_LUN
from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp, in_words
from vscsihba.handlers.options import Options, did_you_mean, fields_of
from vscsihba.shell import suggestions
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.desk import Desk
from vscsihba.shell.node import Node, Summary
from vscsihba.shell.resizing import Resizable
from vscsihba.shell.values import read_flag, read_number, read_value
from vscsihba.units import format_size


class HbasNode(Node):
    """``/hbas``."""

    def __init__(self, parent: Node, desk: Desk) -> None:
        super().__init__("hbas", parent, desk)
        for hba_id in desk.view.hba_ids():
            HbaNode(hba_id, self, desk)

    def summary(self) -> Summary:
        """Count them."""
        count = len(self.children)
        return f"{count} HBA{'s' * (count != 1)}", None

    def ui_command_create(self, hba: str | None = None, engines: str = "1") -> None:
        """Make an HBA, the first free one or number HBA (0 to 255), served by ENGINES processes."""
        taken = self.desk.view.hba_ids()
        hba_id = _number(hba) if hba is not None else _first_free(taken, MAX_ID)
        if hba_id in taken:
            raise UsageError(f"there is an hba{hba_id} already", cure="choose another number")
        wanted = self.desk.read({}, [{"id": hba_id, "engines": read_number("engines", engines)}])
        self.desk.apply(wanted, prune="none")

    def ui_command_delete(self, hba: str, force: str = "false") -> None:
        """Take away the HBA with its LUNs; force=true also while a disk is in use. Backstores stay."""
        self._hba(hba).remove(force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the HBAs."""
        if current == "hba":
            return suggestions.starting(text, [child.name for child in self.children])
        return self.complete_flag(text, current)

    def _hba(self, name: str) -> "HbaNode":
        return cast("HbaNode", self.get_node(f"hba{_number(name)}"))


class HbaNode(WithAttributes):
    """``/hbas/hbaN``."""

    def __init__(self, hba_id: int, parent: Node, desk: Desk) -> None:
        super().__init__(f"hba{hba_id}", parent, desk)
        self.id = hba_id
        for number in desk.view.luns(hba_id):
            LunNode(number, self, desk)

    def summary(self) -> Summary:
        """Count what it shows, and who serves it."""
        status = self.desk.view.hba_status(self.id)
        luns = f"{len(self.children)} LUN{'s' * (len(self.children) != 1)}"
        if status is None:
            return f"{luns}, not there", False
        engines = status["engines"]
        well = all(engine["state"] == "running" for engine in engines)
        return f"{luns}, {len(engines)} engine{'s' * (len(engines) != 1)}", well

    def facts(self) -> dict[str, object]:
        """Return its engines."""
        status = self.desk.view.hba_status(self.id)
        engines = status["engines"] if status is not None else []
        return {
            "id": self.id,
            "luns": len(self.children),
            "engines": ", ".join(f"{engine['pid']} ({engine['state']})" for engine in engines) or None,
        }

    def attributes(self) -> list[OptionHelp]:
        """Return what a document can say of an HBA."""
        return _keys(Hba, without=("id", "luns"))

    def values(self) -> Mapping[str, object]:
        """Return what it says."""
        return self._said()[1]

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Describe it anew."""
        backstores, hba = self._said()
        document = self.desk.read(backstores, [_without_none({**hba, **values})])
        self.desk.apply(document, prune="none", replace=replace, force=force)

    def ui_command_create(self, backstore: str, lun: str | None = None, **options: str) -> None:
        """Show BACKSTORE as a LUN, the first free one or number LUN; options are the LUN's attributes."""
        known = self.desk.view.document.backstores
        if backstore not in known:
            raise UsageError(f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, known))
        taken = self.desk.view.luns(self.id)
        number = _number(lun) if lun is not None else _first_free(taken, MAX_LUN)
        if number in taken:
            raise UsageError(f"hba{self.id} has a lun{number} already", cure="choose another number")
        text = {each.name: each.type == "text" for each in _keys(Lun, without=("lun", "backstore"))}
        read = {name: read_value(value, is_text=text.get(name, False)) for name, value in options.items()}
        backstores, hba = self._said()
        hba["luns"] = [*hba.get("luns", []), {"lun": number, "backstore": backstore, **read}]
        self.desk.apply(self.desk.read(backstores, [hba]), prune="none")

    def ui_command_delete(self, lun: str, force: str = "false") -> None:
        """Take away the LUN number LUN; force=true also while its disk is in use. Its backstore stays."""
        self._lun(lun).ui_command_delete(force)

    def remove(self, *, force: bool) -> None:
        """Take away the HBA with its LUNs."""
        self._demand_ours()
        backstores, hbas = self.desk.running()
        rest = [hba for hba in hbas if hba["id"] != self.id]
        self.desk.apply(self.desk.read(backstores, [*rest]), prune="all", force=force)

    def ui_complete_create(self, parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest backstores that nothing shows yet, then options."""
        document = self.desk.view.document
        if current == "backstore":
            free = [name for name in document.backstores if document.place_of(name) is None]
            return suggestions.starting(text, free)
        found = {each.name: each for each in _keys(Lun, without=("lun", "backstore"))}
        if current in found:
            return suggestions.flags(text) if found[current].type == "true or false" else []
        if current == "lun":
            return []
        return suggestions.starting(text, [f"{name}=" for name in found if name not in parameters])

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the LUNs."""
        if current == "lun":
            return suggestions.starting(text, [child.name for child in self.children])
        return self.complete_flag(text, current)

    def _lun(self, name: str) -> "LunNode":
        return cast("LunNode", self.get_node(f"lun{_number(name)}"))

    def _said(self) -> tuple[dict[str, dict[str, object]], dict[str, Any]]:
        """Return all backstores, and this HBA, as plain JSON values."""
        self._demand_ours()
        backstores, hbas = self.desk.running()
        return backstores, next(hba for hba in hbas if hba["id"] == self.id)

    def _demand_ours(self) -> None:
        """Refuse to change what the service does not keep.

        Raises:
            UsageError: Somebody else, such as vscsitarget, has made it.
        """
        if self.desk.view.hba(self.id) is None:
            raise UsageError(f"hba{self.id} was not made by the service", cure="use what has made it")


class LunNode(Resizable, WithAttributes):
    """``/hbas/hbaN/lunM``."""

    def __init__(self, number: int, parent: HbaNode, desk: Desk) -> None:
        super().__init__(f"lun{number}", parent, desk)
        self.number = number
        self.hba = parent

    @property
    def lun(self) -> Lun:
        """What the document says of it.

        Raises:
            UsageError: Nothing.
        """
        found = self.desk.view.lun(self.hba.id, self.number)
        if found is None:
            raise UsageError(f"{self.path} was not made by the service", cure="use what has made it")
        return found

    @property
    def backstore(self) -> str:
        """Name of the backstore that it shows."""
        return self.lun.backstore

    def summary(self) -> Summary:
        """Say which disk it is, and how it is."""
        wanted = self.desk.view.lun(self.hba.id, self.number)
        status = self.desk.view.lun_status(self.hba.id, self.number)
        if status is None:
            return f"{wanted.backstore if wanted else '-'}, not there", False
        size = "-" if status["size"] is None else format_size(status["size"])
        flags = ", read-only" * status["read_only"]
        parts = (status["device"] or "no disk", size, status["backstore"] or "-", status["state"] + flags)
        return ", ".join(parts), status["state"] == "running"

    def facts(self) -> dict[str, object]:
        """Return how it is."""
        status = self.desk.view.lun_status(self.hba.id, self.number)
        found: dict[str, object] = {"hba": self.hba.id, "lun": self.number}
        if status is None:
            return {**found, "state": "not there"}
        size = None if status["size"] is None else f"{format_size(status['size'])} ({status['size']} bytes)"
        return {**found, **status, "size": size}

    def attributes(self) -> list[OptionHelp]:
        """Return what a document can say of a LUN."""
        return _keys(Lun, without=("lun", "backstore"))

    def values(self) -> Mapping[str, object]:
        """Return what it says."""
        found: Mapping[str, object] = msgspec.to_builtins(self.lun)
        return found

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Describe it anew."""
        backstores, hba = self.hba._said()  # noqa: SLF001 - its own branch
        hba["luns"] = [
            _without_none({**lun, **values}) if lun["lun"] == self.number else lun for lun in hba["luns"]
        ]
        document = self.desk.read(backstores, [hba])
        self.desk.apply(document, prune="none", replace=replace, force=force)

    def ui_command_delete(self, force: str = "false") -> None:
        """Take this LUN away; force=true also while its disk is in use. Its backstore stays."""
        number = self.lun.lun  # asked of the document: one that is not in it is not ours to take away
        backstores, hba = self.hba._said()  # noqa: SLF001 - its own branch
        shown = {lun["backstore"] for lun in hba["luns"]}
        hba["luns"] = [lun for lun in hba["luns"] if lun["lun"] != number]
        kept = {name: stack for name, stack in backstores.items() if name in shown}
        self.desk.apply(self.desk.read(kept, [hba]), prune="named", force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest yes and no."""
        return self.complete_flag(text, current)


def _number(text: str) -> int:
    """Return N of ``N``, ``hbaN`` or ``lunN``."""
    return read_number("number", text.removeprefix("hba").removeprefix("lun"))


def _first_free(taken: list[int], last: int) -> int:
    for number in range(last + 1):
        if number not in taken:
            return number
    raise UsageError(f"all numbers up to {last} are taken", cure="delete one first")


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _keys(kind: type[Hba] | type[Lun], *, without: tuple[str, ...]) -> list[OptionHelp]:
    """Return the keys that a document can have for an HBA or a LUN."""
    return [
        OptionHelp(
            name=field.encode_name,
            type=in_words(field.type),
            required=False,
            default=msgspec.json.encode(field.default).decode(),
            description=_description(field.type),
        )
        for field in fields_of(cast("type[Options]", kind))
        if field.encode_name not in without
    ]


def _description(type_: msgspec.inspect.Type) -> str:
    """Return the text that a key was annotated with; where it may be left out, that stands inside."""
    inner = type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,)
    return next(
        str((each.extra_json_schema or {}).get("description", ""))
        for each in inner
        if isinstance(each, msgspec.inspect.Metadata)
    )
