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
        """Its layers."""
        return self.context.view.document.backstores[self.name]

    @property
    def backstore(self) -> str:
        """Its name."""
        return str(self.name)

    def summary(self) -> Summary:
        """Say what it is made of, and where it is shown."""
        place = self.context.view.document.place_of(self.backstore)
        if place is None:
            return f"{layers(self.stack)}, not shown", None
        status = self.context.view.lun_status(*place)
        size = format_size(status["size"]) if status is not None and status["size"] is not None else "-"
        where = f"hba{place[0]}/lun{place[1]}"
        well = status is not None and status["state"] == "running"
        return f"{size}, {layers(self.stack)}, {where}", well

    def facts(self) -> dict[str, object]:
        """Return its layers and its place."""
        place = self.context.view.document.place_of(self.backstore)
        status = None if place is None else self.context.view.lun_status(*place)
        return {
            "name": self.backstore,
            "layers": layers(self.stack),
            "shown by": None if place is None else f"/hbas/hba{place[0]}/lun{place[1]}",
            "size": None if status is None or status["size"] is None else format_size(status["size"]),
            "document": json.dumps(self.stack),
        }

    def attributes(self) -> list[OptionHelp]:
        """Return the options of the topmost layer."""
        return describe(self._kind().Options)

    def values(self) -> Mapping[str, object]:
        """Return those that are said."""
        return self.stack

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Describe it anew."""
        stack = {**self.stack, **values}
        kept = {name: value for name, value in stack.items() if value is not None}
        place = self.context.view.document.place_of(self.backstore)
        backstores, hbas = self.context.running()
        shown_by = [hba for hba in hbas if place is not None and hba["id"] == place[0]]
        document = self.context.read({**backstores, self.backstore: kept}, [*shown_by])
        self.context.apply(document, prune="none", replace=replace, force=force)

    def suggest(self, attribute: str, text: str) -> list[str]:
        """Suggest what an option may become."""
        if attribute in option_types(self._kind().Options):
            return suggest_option(self._kind(), attribute, text)
        return super().suggest(attribute, text)

    def ui_command_delete(self) -> None:
        """Forget this backstore; what holds its bytes stays."""
        place = self.context.view.document.place_of(self.backstore)
        if place is not None:
            where = f"/hbas/hba{place[0]}/lun{place[1]}"
            raise UsageError(f"{self.backstore} is shown by {where}", cure=f"first: {where} delete")
        backstores, hbas = self.context.running()
        del backstores[self.backstore]
        self.context.apply(self.context.read(backstores, [*hbas]), prune="all")

    def _kind(self) -> type[Handler]:
        return self.context.registry.get(str(self.stack["handler"]))


def suggest_option(kind: type[Handler], option: str, text: str) -> list[str]:
    """Return what an option of a handler may be: a size, a file, yes or no."""
    if option in size_options(kind.Options):
        return suggestions.sizes(text)
    if option in path_options(kind.Options):
        return suggestions.files(text)
    words = {each.name: each.type for each in describe(kind.Options)}[option]
    if words == "true or false":
        return suggestions.flags(text)
    choices = words.removeprefix("one of ").split(", ") if words.startswith("one of ") else []
    return suggestions.starting(text, choices)
