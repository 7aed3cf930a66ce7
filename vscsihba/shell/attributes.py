"""Attributes of nodes, to show and set: the values of an object in the document.

A mixin for nodes that have attributes. All attributes of one line are set together.
"""

import json
from collections.abc import Mapping

from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp
from vscsihba.handlers.options import did_you_mean
from vscsihba.shell import suggestions
from vscsihba.shell.node import Node
from vscsihba.shell.values import read_flag, read_value

_GROUP = "attribute"


class WithAttributes(Node):
    """A node that has attributes."""

    def attributes(self) -> list[OptionHelp]:
        """Return the attributes that can be set."""
        raise NotImplementedError

    def values(self) -> Mapping[str, object]:
        """Return the values in the document; attributes that are missing there have their defaults."""
        raise NotImplementedError

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change some attributes; None restores the default."""
        raise NotImplementedError

    def suggest(self, attribute: str, text: str) -> list[str]:
        """Return possible values of an attribute."""
        known = {each.name: each for each in self.attributes()}
        if attribute in ("replace", "force") or known[attribute].default in ("true", "false"):
            return suggestions.flags(text)
        return []

    def ui_command_get(self, group: str = _GROUP, *names: str) -> None:
        """Show attributes, all or some: get attribute [NAME ...]."""
        self._check(group, names)
        said = self.values()
        values = {each.name: said.get(each.name, _default(each)) for each in self.attributes()}
        shown = {name: values[name] for name in names or values}
        lines = [f"{name}={_shown(value)}" for name, value in shown.items()]
        self.context.tell("\n".join(lines) or "no attributes", shown)

    def ui_command_set(self, /, group: str = _GROUP, **values: str) -> None:
        """Set attributes: set attribute NAME=VALUE ...; NAME= restores the default.

        replace=true also detaches and recreates the disk where a change needs it; force=true does so even if
        the disk is in use. Without a NAME, lists the attributes.
        """
        replace, force = (read_flag(name, values.pop(name, "false")) for name in ("replace", "force"))
        self._check(group, values)
        if not values:
            self._explain()
            return
        text = {each.name: each.type in ("text", "path") for each in self.attributes()}
        read = {
            name: read_value(value, is_text=text[name]) if value else None for name, value in values.items()
        }
        self.change(read, replace=replace, force=force)

    def ui_complete_get(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the group, then names."""
        if current == "group":
            return suggestions.starting(text, [_GROUP])
        return suggestions.starting(text, [each.name for each in self.attributes()])

    def ui_complete_set(self, parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest the group, then names, then values."""
        names = [*(each.name for each in self.attributes()), "replace", "force"]
        if current == "group":
            return suggestions.starting(text, [_GROUP])
        if current in names:
            return self.suggest(current, text)
        return suggestions.starting(text, [f"{name}=" for name in names if name not in parameters])

    def _check(self, group: str, names: Mapping[str, str] | tuple[str, ...]) -> None:
        if group != _GROUP:
            raise UsageError(f"unknown group {group!r}", cure=f"use {_GROUP}")
        known = [each.name for each in self.attributes()]
        for name in names:
            if name not in known:
                raise UsageError(f"{self.path} has no attribute {name!r}", cure=did_you_mean(name, known))

    def _explain(self) -> None:
        attributes = self.attributes()
        lines = [f"{each.name} ({each.type}): {each.description}" for each in attributes]
        data = [
            {"name": each.name, "type": each.type, "description": each.description} for each in attributes
        ]
        self.context.tell("\n".join(lines) or "no attributes", data)


def _default(attribute: OptionHelp) -> object:
    """Return the default value of an attribute."""
    return json.loads(attribute.default) if attribute.default else None


def _shown(value: object) -> str:
    """Return a value as you would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
