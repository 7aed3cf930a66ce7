"""The branch ``/others``: objects of other programs, for information. Nothing here changes them."""

from collections.abc import Mapping
from typing import Any

from vscsihba.shell.context import ShellContext
from vscsihba.shell.node import Node, Summary
from vscsihba.units import counted


class OthersNode(Node):
    """``/others``."""

    def __init__(self, parent: Node, context: ShellContext) -> None:
        super().__init__("others", parent, context)
        for other in context.view.others:
            OtherNode(other, self, context)

    def summary(self) -> Summary:
        """Count them."""
        count = len(self.children)
        return f"{counted(count, 'object')} of other programs, never touched", None


class OtherNode(Node):
    """``/others/KIND:NAME``."""

    def __init__(self, other: Mapping[str, Any], parent: Node, context: ShellContext) -> None:
        # A slash would end the name in a path.
        super().__init__(f"{other['kind']}:{other['name'].replace('/', ':')}", parent, context)
        self._other = other

    def summary(self) -> Summary:
        """Return its description."""
        return self._other["text"] or "-", None

    def facts(self) -> dict[str, object]:
        """Return its description as values."""
        return dict(self._other)
