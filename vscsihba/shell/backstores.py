"""The branch ``/backstores``: one folder for each handler, with the backstores that have it on top."""

from collections.abc import Mapping
from typing import Final

from vscsihba.config.model import StackDocument
from vscsihba.daemon.preflight import check_new
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import option_types
from vscsihba.handlers.stack_text import parse, split
from vscsihba.shell import suggestions
from vscsihba.shell.backstore import BackstoreNode, suggest_option
from vscsihba.shell.context import ShellContext
from vscsihba.shell.node import Node, Summary
from vscsihba.shell.values import read_value
from vscsihba.shell.view import folder_of
from vscsihba.units import counted

_BELOW: Final = ("next", "legs")
"""Options for the storage below a filter, and below a fan."""


class BackstoresNode(Node):
    """``/backstores``."""

    lists_all = True

    def __init__(self, parent: Node, context: ShellContext) -> None:
        super().__init__("backstores", parent, context)
        used = {folder_of(stack) for stack in context.view.document.backstores.values()}
        for name in sorted({*context.registry.names(), *used}):
            HandlerNode(name, self, context)

    def summary(self) -> Summary:
        """Return their number."""
        count = len(self.context.view.document.backstores)
        return counted(count, "backstore"), None

    @property
    def children(self) -> set[Node]:
        """The folders; in a terse listing only those that are not empty."""
        return {child for child in self._children if child.children or not self.context.terse}


class HandlerNode(Node):
    """``/backstores/HANDLER``: the backstores that have this handler on top."""

    def __init__(self, name: str, parent: Node, context: ShellContext) -> None:
        super().__init__(name, parent, context)
        for backstore in context.view.backstores_of(name):
            BackstoreNode(backstore, self, context)

    def summary(self) -> Summary:
        """Return their number; for an empty folder, the description of the handler."""
        count = len(self.children)
        if count:
            return counted(count, "backstore"), None
        try:
            text = (self._kind().__doc__ or "").strip().partition("\n")[0]
        except (HostError, UsageError) as error:
            return error.message, False
        return text.removesuffix("."), None

    def ui_command_create(self, /, name: str, **options: str) -> None:
        """Create a backstore NAME with options of the handler (list them with "vscsihba handlers").

        A filter takes the storage below it as next=/srv/a.img or next="cow:/srv/over.cow|/srv/base.img",
        a fan as legs=/srv/a.img,/srv/b.img. A missing file is created if a size is given. Linux sees the
        disk when a LUN has the backstore.
        """
        if name in self.context.view.document.backstores:
            raise UsageError(f"backstore {name} already exists", cure="choose another name")
        wanted = self.context.read({name: self._stack(options)}, [])
        check_new(wanted, name, self.context.registry)
        self.context.apply(wanted, prune="none")

    def ui_command_delete(self, name: str) -> None:
        """Delete the backstore NAME; its storage stays."""
        self._backstore(name).ui_command_delete()

    def ui_complete_create(self, parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest options, then sizes and files."""
        kind = self._kind()
        if current in option_types(kind.Options):
            return suggest_option(kind, current, text)
        if current == "next":
            return suggestions.files(text)
        if current == "name":
            return []
        below = _BELOW[issubclass(kind, Fan)] if issubclass(kind, Fan | Filter) else None
        names = [*option_types(kind.Options), *([below] if below else [])]
        return suggestions.starting(text, [f"{name}=" for name in names if name not in parameters])

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, _current: str) -> list[str]:
        """Suggest the backstores here."""
        return suggestions.starting(text, [child.name for child in self.children])

    def _kind(self) -> type[Handler]:
        return self.context.registry.get(self.name)

    def _stack(self, options: Mapping[str, str]) -> StackDocument:
        """Return the stack that the options describe."""
        text = option_types(self._kind().Options)
        stack: StackDocument = {"handler": self.name}
        for name, value in options.items():
            if name == "next":
                stack["next"] = parse(value, self.context.registry)
            elif name == "legs":
                parts = split(value, self.context.registry)
                stack["legs"] = [parse(part, self.context.registry) for part in parts]
            else:
                stack[name] = read_value(value, is_text=text.get(name, False))
        return stack

    def _backstore(self, name: str) -> "BackstoreNode":
        node = self.get_node(name)
        if not isinstance(node, BackstoreNode):
            raise UsageError(f"there is no backstore {name!r} here", cure=f"see ls {self.path}")
        return node
