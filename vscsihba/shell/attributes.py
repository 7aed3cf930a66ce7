"""Attributes: what a document says of a thing besides its name, to be looked at and set.

Mixed into the nodes that have some. All that are set in one line are carried out together.
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
        """Return what can be set."""
        raise NotImplementedError

    def values(self) -> Mapping[str, object]:
        """Return what is said of them; those that are left out have their defaults."""
        raise NotImplementedError

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Have some attributes changed; None leaves one to its default again."""
        raise NotImplementedError

    def suggest(self, attribute: str, text: str) -> list[str]:
        """Return what an attribute may become."""
        known = {each.name: each for each in self.attributes()}
        if attribute in ("replace", "force") or known[attribute].default in ("true", "false"):
            return suggestions.flags(text)
        return []

    def ui_command_get(self, group: str = _GROUP, *names: str) -> None:
        """Show attributes, all of them or some: get attribute [NAME ...]."""
        self._check(group, names)
        said = self.values()
        found = {each.name: said.get(each.name, _default(each)) for each in self.attributes()}
        shown = {name: found[name] for name in names or found}
        lines = [f"{name}={_shown(value)}" for name, value in shown.items()]
        self.context.tell("\n".join(lines) or "it has no attributes", shown)

    def ui_command_set(self, /, group: str = _GROUP, **values: str) -> None:
        """Set attributes: set attribute NAME=VALUE ...; NAME= goes back to the default.

        replace=true also sets what cannot be changed while the disk works, by taking the disk away for a
        moment; force=true does so even while it is in use. Without a NAME, says what can be set.
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
            raise UsageError(f"there is no group {group!r}", cure=f"write {_GROUP}")
        known = [each.name for each in self.attributes()]
        for name in names:
            if name not in known:
                raise UsageError(f"{self.path} has no attribute {name!r}", cure=did_you_mean(name, known))

    def _explain(self) -> None:
        found = self.attributes()
        lines = [f"{each.name} ({each.type}): {each.description}" for each in found]
        data = [{"name": each.name, "type": each.type, "description": each.description} for each in found]
        self.context.tell("\n".join(lines) or "it has no attributes", data)


def _default(attribute: OptionHelp) -> object:
    """Return what an attribute is when nothing is said."""
    return json.loads(attribute.default) if attribute.default else None


def _shown(value: object) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
