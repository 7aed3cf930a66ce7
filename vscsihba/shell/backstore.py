"""One backstore: ``/backstores/HANDLER/NAME``."""

import json
from collections.abc import Mapping

from vscsihba.config.frame_changes import layers
from vscsihba.config.model import StackDocument
from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.option_help import OptionHelp, describe
from vscsihba.handlers.options import option_types, path_options, size_options
from vscsihba.shell import suggestions
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.node import Summary
from vscsihba.shell.resizing import Resizable
from vscsihba.units import format_size


class BackstoreNode(Resizable, WithAttributes):
    """``/backstores/HANDLER/NAME``."""

    @property
    def stack(self) -> StackDocument:
        """Its layers, as in the document."""
        return self.context.view.document.backstores[self.name]

    @property
    def backstore(self) -> str:
        """Its name."""
        return str(self.name)

    def summary(self) -> Summary:
        """Return its layers and its LUN."""
        place = self.context.view.document.place_of(self.backstore)
        if place is None:
            return f"{layers(self.stack)}, no LUN", None
        status = self.context.view.lun_status(*place)
        size = format_size(status["size"]) if status is not None and status["size"] is not None else "-"
        where = f"hba{place[0]}/lun{place[1]}"
        well = status is not None and status["state"] == "running"
        return f"{size}, {layers(self.stack)}, {where}", well

    def facts(self) -> dict[str, object]:
        """Return its layers and its LUN."""
        place = self.context.view.document.place_of(self.backstore)
        status = None if place is None else self.context.view.lun_status(*place)
        return {
            "name": self.backstore,
            "layers": layers(self.stack),
            "lun": None if place is None else f"/hbas/hba{place[0]}/lun{place[1]}",
            "size": None if status is None or status["size"] is None else format_size(status["size"]),
            "document": json.dumps(self.stack),
        }

    def attributes(self) -> list[OptionHelp]:
        """Return the options of the topmost layer."""
        return describe(self._kind().Options)

    def values(self) -> Mapping[str, object]:
        """Return the options in the document."""
        return self.stack

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change its document."""
        stack = {**self.stack, **values}
        kept = {name: value for name, value in stack.items() if value is not None}
        place = self.context.view.document.place_of(self.backstore)
        backstores, hbas = self.context.running()
        shown_by = [hba for hba in hbas if place is not None and hba["id"] == place[0]]
        document = self.context.read({**backstores, self.backstore: kept}, [*shown_by])
        self.context.apply(document, prune="none", replace=replace, force=force)

    def suggest(self, attribute: str, text: str) -> list[str]:
        """Suggest values of an option."""
        if attribute in option_types(self._kind().Options):
            return suggest_option(self._kind(), attribute, text)
        return super().suggest(attribute, text)

    def ui_command_delete(self) -> None:
        """Delete this backstore; its storage stays."""
        place = self.context.view.document.place_of(self.backstore)
        if place is not None:
            where = f"/hbas/hba{place[0]}/lun{place[1]}"
            raise UsageError(f"{self.backstore} belongs to {where}", cure=f"first run: {where} delete")
        backstores, hbas = self.context.running()
        del backstores[self.backstore]
        self.context.apply(self.context.read(backstores, hbas, self.context.exports()), prune="all")

    def _kind(self) -> type[Handler]:
        return self.context.registry.get(str(self.stack["handler"]))


def suggest_option(kind: type[Handler], option: str, text: str) -> list[str]:
    """Return possible values of a handler's option: sizes, files, true and false, or its choices."""
    if option in size_options(kind.Options):
        return suggestions.sizes(text)
    if option in path_options(kind.Options):
        return suggestions.files(text)
    words = {each.name: each.type for each in describe(kind.Options)}[option]
    if words == "true or false":
        return suggestions.flags(text)
    choices = words.removeprefix("one of ").split(", ") if words.startswith("one of ") else []
    return suggestions.starting(text, choices)
