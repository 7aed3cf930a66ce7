"""The branch ``/exports``: targets for other computers, with their LUNs, portals and initiators."""

from collections.abc import Mapping
from typing import Any, cast, get_args

import msgspec

from vscsihba.config.export import AccessState, Export, ExportLun, Initiator
from vscsihba.configfs.names import MAX_LUN
from vscsihba.daemon.calls import ExportStatus
from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp
from vscsihba.handlers.options import did_you_mean
from vscsihba.shell import suggestions
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.context import ShellContext
from vscsihba.shell.keys import first_free, keys, number_of, without_none
from vscsihba.shell.node import Node, Summary
from vscsihba.shell.values import read_flag, read_value
from vscsihba.units import counted

_LISTS = ("luns", "portals", "initiators")


class ExportsNode(Node):
    """``/exports``."""

    def __init__(self, parent: Node, context: ShellContext) -> None:
        super().__init__("exports", parent, context)
        for export in context.view.document.exports:
            ExportNode(export, self, context)

    def summary(self) -> Summary:
        """Return their number."""
        return counted(len(self.children), "export"), None

    def ui_command_create(self, name: str, portals: str, open: str = "false") -> None:  # noqa: A002 - LIO's word
        """Create the iSCSI target NAME, which listens on PORTALS: ADDRESS:PORT, several with commas.

        With open=true every initiator may log in; else create its initiators next.
        """
        if self.context.view.document.export(name) is not None:
            raise UsageError(f"the export {name} already exists", cure="choose another name")
        whole = {"transport": "iscsi", "name": name, "portals": portals.split(",")}
        self.context.apply_export({**whole, **({"open": True} if read_flag("open", open) else {})})

    def ui_command_delete(self, name: str, force: str = "false") -> None:
        """Delete the export NAME; force=true also if an initiator is logged in. Disks stay."""
        cast("ExportNode", self.get_node(name)).ui_command_delete(force)

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the exports."""
        if current == "name":
            return suggestions.starting(text, [child.name for child in self.children])
        return self.complete_flag(text, current)


class ExportNode(WithAttributes):
    """``/exports/NAME``."""

    def __init__(self, export: Export, parent: Node, context: ShellContext) -> None:
        super().__init__(export.name, parent, context)
        self.export = export
        LunsNode(self, context)
        PortalsNode(self, context)
        InitiatorsNode(self, context)

    @property
    def status(self) -> ExportStatus | None:
        """Its status, None if the service does not tell it."""
        exports = self.context.view.status.get("exports", [])
        return next((each for each in exports if each["name"] == self.export.name), None)

    def summary(self) -> Summary:
        """Return its transport, state and sessions."""
        if (status := self.status) is None:
            return f"{self.export.transport}, missing", False
        said = f"{self.export.transport}, {status['state']}, {counted(len(status['sessions']), 'session')}"
        return said + ", open to all" * self.export.open, status["state"] == "running"

    def facts(self) -> dict[str, object]:
        """Return its state and sessions."""
        status = self.status
        sessions = [] if status is None else [session["initiator"] for session in status["sessions"]]
        return {
            "name": self.export.name,
            "transport": self.export.transport,
            "state": "missing" if status is None else status["state"],
            "logged in": ", ".join(sessions) or None,
        }

    def attributes(self) -> list[OptionHelp]:
        """Return the options of an export in a document."""
        return keys(Export, without=("transport", "name", *_LISTS))

    def values(self) -> Mapping[str, object]:
        """Return the options in the document."""
        return self.context.export_values(self.export.name)

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change its options in the document."""
        self.context.apply_export(without_none({**self.values(), **values}), replace=replace, force=force)

    def with_entry(self, key: str, entry: object) -> None:
        """Add an entry to one of its lists in the document."""
        values = self.context.export_values(self.export.name)
        self.context.apply_export({**values, key: [*values.get(key, []), entry]})

    def with_entries(self, key: str, entries: list[Any], *, force: bool) -> None:
        """Replace one of its lists in the document."""
        values = self.context.export_values(self.export.name)
        self.context.apply_export({**values, key: entries}, force=force)

    def ui_command_delete(self, force: str = "false") -> None:
        """Delete this export; force=true also if an initiator is logged in. Its disks stay."""
        self.context.remove_export(self.export.name, force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest true and false."""
        return self.complete_flag(text, current)


class LunsNode(Node):
    """``/exports/NAME/luns``."""

    def __init__(self, parent: ExportNode, context: ShellContext) -> None:
        super().__init__("luns", parent, context)
        self.of = parent
        for lun in parent.export.luns:
            ExportLunNode(lun, self, context)

    def summary(self) -> Summary:
        """Return their number."""
        return counted(len(self.children), "LUN"), None

    def ui_command_create(self, /, backstore: str, lun: str | None = None, read_only: str = "") -> None:
        """Create a LUN with BACKSTORE, at the first free number or at LUN; read_only=true refuses writes."""
        known = self.context.view.document.backstores
        if backstore not in known:
            raise UsageError(f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, known))
        taken = [each.lun for each in self.of.export.luns]
        number = number_of(lun) if lun is not None else first_free(taken, MAX_LUN)
        flag = {"read_only": read_flag("read_only", read_only)} if read_only else {}
        self.of.with_entry("luns", {"lun": number, "backstore": backstore, **flag})

    def ui_complete_create(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest backstores, and true and false."""
        if current == "backstore":
            return suggestions.starting(text, list(self.context.view.document.backstores))
        return suggestions.flags(text) if current == "read_only" else []

    def remove(self, name: str, *, force: bool) -> None:
        """Remove a LUN."""
        number = number_of(name)
        values = self.context.export_values(self.of.export.name)
        self.of.with_entries("luns", [each for each in values["luns"] if each["lun"] != number], force=force)


class PortalsNode(Node):
    """``/exports/NAME/portals``."""

    def __init__(self, parent: ExportNode, context: ShellContext) -> None:
        super().__init__("portals", parent, context)
        self.of = parent
        for portal in parent.export.portals:
            EntryNode(portal, "", self, context)

    def summary(self) -> Summary:
        """Return their number."""
        return counted(len(self.children), "portal"), None

    def ui_command_create(self, portal: str) -> None:
        """Listen on PORTAL as well: ADDRESS:PORT."""
        self.of.with_entry("portals", portal)

    def remove(self, name: str, *, force: bool) -> None:
        """Remove a portal."""
        rest = [portal for portal in self.of.export.portals if portal != name]
        self.of.with_entries("portals", rest, force=force)


class InitiatorsNode(Node):
    """``/exports/NAME/initiators``."""

    def __init__(self, parent: ExportNode, context: ShellContext) -> None:
        super().__init__("initiators", parent, context)
        self.of = parent
        for initiator in parent.export.initiators:
            EntryNode(initiator.name, _about_initiator(initiator), self, context)

    def summary(self) -> Summary:
        """Return their number."""
        return counted(len(self.children), "initiator"), None

    def ui_command_create(self, /, name: str, luns: str | None = None, **options: str) -> None:
        """Let the initiator NAME log in; it sees LUNS (numbers with commas) or all.

        Options are user, password_file, mutual_user and mutual_password_file.
        """
        numbers = {} if luns is None else {"luns": [number_of(each) for each in luns.split(",")]}
        read = {key: read_value(value, is_text=True) for key, value in options.items()}
        self.of.with_entry("initiators", {"name": name, **read, **numbers})

    def ui_complete_create(self, parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest options, then files."""
        names = [each.name for each in keys(Initiator, without=("name",))]
        if current.endswith("password_file"):
            return suggestions.files(text)
        if current == "name" or current in names:
            return []
        return suggestions.starting(text, [f"{name}=" for name in names if name not in parameters])

    def remove(self, name: str, *, force: bool) -> None:
        """Remove an initiator."""
        values = self.context.export_values(self.of.export.name)
        rest = [each for each in values["initiators"] if each["name"] != name]
        self.of.with_entries("initiators", rest, force=force)


class EntryNode(Node):
    """A LUN, portal or initiator of an export."""

    def __init__(
        self, name: str, text: str, parent: LunsNode | PortalsNode | InitiatorsNode, context: ShellContext
    ) -> None:
        super().__init__(name, parent, context)
        self._entries = parent
        self._text = text

    def summary(self) -> Summary:
        """Return its description."""
        return self._text, None

    def ui_command_delete(self, force: str = "false") -> None:
        """Delete it; force=true also if an initiator that is logged in uses it."""
        self._entries.remove(self.name, force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest true and false."""
        return self.complete_flag(text, current)


class ExportLunNode(EntryNode, WithAttributes):
    """``/exports/NAME/luns/lunN``."""

    def __init__(self, lun: ExportLun, parent: LunsNode, context: ShellContext) -> None:
        super().__init__(f"lun{lun.lun}", _about_lun(parent.of.export, lun), parent, context)
        self._lun = lun
        self._of = parent.of

    def facts(self) -> dict[str, object]:
        """Return its number and its backstore."""
        return {"lun": self._lun.lun, "backstore": self._lun.backstore}

    def attributes(self) -> list[OptionHelp]:
        """Return the options of an export's LUN in a document."""
        return keys(ExportLun, without=("lun", "backstore"))

    def values(self) -> Mapping[str, object]:
        """Return the options in the document."""
        values: Mapping[str, object] = msgspec.to_builtins(self._lun)
        return values

    def suggest(self, attribute: str, text: str) -> list[str]:
        """Suggest the states of a path."""
        if attribute == "state":
            return suggestions.starting(text, list(get_args(AccessState)))
        return super().suggest(attribute, text)

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change its options in the document; none of them replaces a disk."""
        del replace
        luns = [
            without_none({**lun, **values}) if lun["lun"] == self._lun.lun else lun
            for lun in self.context.export_values(self._of.export.name)["luns"]
        ]
        self._of.with_entries("luns", luns, force=force)


def _about_lun(export: Export, lun: ExportLun) -> str:
    state = "" if lun.state == "active" else f", {lun.state}"
    return f"{lun.backstore}, {'read-only' if export.read_only(lun) else 'read-write'}{state}"


def _about_initiator(initiator: Initiator) -> str:
    seen = "all LUNs" if initiator.luns is None else f"LUN {', '.join(map(str, initiator.luns)) or '-'}"
    proof = "CHAP in both directions" if initiator.mutual_user else "CHAP" if initiator.user else "no secret"
    return f"{seen}, {proof}"
