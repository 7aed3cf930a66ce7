"""The branch ``/hbas``: the virtual adapters and their LUNs."""

from collections.abc import Mapping
from typing import Any, cast

from vscsihba.config.model import Hba, Lun
from vscsihba.configfs.names import MAX_ID, MAX_LUN
from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp
from vscsihba.handlers.options import did_you_mean
from vscsihba.shell import suggestions
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.context import ShellContext
from vscsihba.shell.keys import first_free, keys, number_of, without_none
from vscsihba.shell.lun import LunNode
from vscsihba.shell.node import Node, Summary
from vscsihba.shell.values import read_flag, read_number, read_value
from vscsihba.units import counted


class HbasNode(Node):
    """``/hbas``."""

    def __init__(self, parent: Node, context: ShellContext) -> None:
        super().__init__("hbas", parent, context)
        for hba_id in context.view.hba_ids():
            HbaNode(hba_id, self, context)

    def summary(self) -> Summary:
        """Return their number."""
        count = len(self.children)
        return counted(count, "HBA"), None

    def ui_command_create(self, hba: str | None = None, engines: str = "1") -> None:
        """Create an HBA with the first free id, or the id HBA (0 to 255), served by ENGINES processes."""
        taken = self.context.view.hba_ids()
        hba_id = number_of(hba) if hba is not None else first_free(taken, MAX_ID)
        if hba_id in taken:
            raise UsageError(f"hba{hba_id} already exists", cure="choose another number")
        wanted = self.context.read({}, [{"id": hba_id, "engines": read_number("engines", engines)}])
        self.context.apply(wanted, prune="none")

    def ui_command_delete(self, hba: str, force: str = "false") -> None:
        """Delete the HBA with its LUNs; force=true also if a disk is in use. Backstores stay."""
        self._hba(hba).remove(force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the HBAs."""
        if current == "hba":
            return suggestions.starting(text, [child.name for child in self.children])
        return self.complete_flag(text, current)

    def _hba(self, name: str) -> "HbaNode":
        return cast("HbaNode", self.get_node(f"hba{number_of(name)}"))


class HbaNode(WithAttributes):
    """``/hbas/hbaN``."""

    def __init__(self, hba_id: int, parent: Node, context: ShellContext) -> None:
        super().__init__(f"hba{hba_id}", parent, context)
        self.id = hba_id
        for number in context.view.luns(hba_id):
            LunNode(number, self, context)

    def summary(self) -> Summary:
        """Return the numbers of its LUNs and engines."""
        status = self.context.view.hba_status(self.id)
        luns = counted(len(self.children), "LUN")
        if status is None:
            return f"{luns}, missing", False
        engines = status["engines"]
        well = all(engine["state"] == "running" for engine in engines)
        return f"{luns}, {counted(len(engines), 'engine')}", well

    def facts(self) -> dict[str, object]:
        """Return its engines."""
        status = self.context.view.hba_status(self.id)
        engines = status["engines"] if status is not None else []
        return {
            "id": self.id,
            "luns": len(self.children),
            "engines": ", ".join(f"{engine['pid']} ({engine['state']})" for engine in engines) or None,
        }

    def attributes(self) -> list[OptionHelp]:
        """Return the options of an HBA in a document."""
        return keys(Hba, without=("id", "luns"))

    def values(self) -> Mapping[str, object]:
        """Return the options in the document."""
        return self.document_parts()[1]

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change its options in the document."""
        backstores, hba = self.document_parts()
        document = self.context.read(backstores, [without_none({**hba, **values})])
        self.context.apply(document, prune="none", replace=replace, force=force)

    def ui_command_create(self, /, backstore: str, lun: str | None = None, **options: str) -> None:
        """Create a LUN with BACKSTORE, at the first free number or at LUN; options are its attributes."""
        known = self.context.view.document.backstores
        if backstore not in known:
            raise UsageError(f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, known))
        taken = self.context.view.luns(self.id)
        number = number_of(lun) if lun is not None else first_free(taken, MAX_LUN)
        if number in taken:
            raise UsageError(f"hba{self.id} already has a lun{number}", cure="choose another number")
        text = {each.name: each.type == "text" for each in keys(Lun, without=("lun", "backstore"))}
        read = {name: read_value(value, is_text=text.get(name, False)) for name, value in options.items()}
        backstores, hba = self.document_parts()
        hba["luns"] = [*hba.get("luns", []), {"lun": number, "backstore": backstore, **read}]
        self.context.apply(self.context.read(backstores, [hba]), prune="none")

    def ui_command_delete(self, lun: str, force: str = "false") -> None:
        """Delete the LUN number LUN; force=true also if its disk is in use. Its backstore stays."""
        self._lun(lun).ui_command_delete(force)

    def remove(self, *, force: bool) -> None:
        """Remove the HBA with its LUNs."""
        self._check_managed()
        backstores, hbas = self.context.running()
        rest = [hba for hba in hbas if hba["id"] != self.id]
        document = self.context.read(backstores, rest, self.context.exports())
        self.context.apply(document, prune="all", force=force)

    def ui_complete_create(self, parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest backstores without a LUN, then options."""
        document = self.context.view.document
        if current == "backstore":
            free = [name for name in document.backstores if document.place_of(name) is None]
            return suggestions.starting(text, free)
        options = {each.name: each for each in keys(Lun, without=("lun", "backstore"))}
        if current in options:
            return suggestions.flags(text) if options[current].type == "true or false" else []
        if current == "lun":
            return []
        return suggestions.starting(text, [f"{name}=" for name in options if name not in parameters])

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the LUNs."""
        if current == "lun":
            return suggestions.starting(text, [child.name for child in self.children])
        return self.complete_flag(text, current)

    def _lun(self, name: str) -> "LunNode":
        return cast("LunNode", self.get_node(f"lun{number_of(name)}"))

    def document_parts(self) -> tuple[dict[str, dict[str, object]], dict[str, Any]]:
        """Return all backstores, and this HBA, as plain JSON values."""
        self._check_managed()
        backstores, hbas = self.context.running()
        return backstores, next(hba for hba in hbas if hba["id"] == self.id)

    def _check_managed(self) -> None:
        """Refuse to change an HBA that the service does not manage.

        Raises:
            UsageError: Another program, such as vscsitarget, has created it.
        """
        if self.context.view.hba(self.id) is None:
            raise UsageError(
                f"hba{self.id} is not managed by the service", cure="use the program that created it"
            )
