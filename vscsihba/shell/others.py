"""The branch ``/others``: objects of other programs, to be looked at. Nothing here changes them."""

from collections.abc import Mapping
from typing import Any

from vscsihba.shell.desk import Desk
from vscsihba.shell.node import Node, Summary
from vscsihba.units import counted


class OthersNode(Node):
    """``/others``."""

    def __init__(self, parent: Node, desk: Desk) -> None:
        super().__init__("others", parent, desk)
        for other in desk.view.others:
            OtherNode(other, self, desk)

    def summary(self) -> Summary:
        """Count them."""
        count = len(self.children)
        return f"{counted(count, 'object')} of other programs, never touched", None


class OtherNode(Node):
    """``/others/KIND:NAME``."""

    def __init__(self, other: Mapping[str, Any], parent: Node, desk: Desk) -> None:
        # A slash would end the name in a path.
        super().__init__(f"{other['kind']}:{other['name'].replace('/', ':')}", parent, desk)
        self._other = other

    def summary(self) -> Summary:
        """Say what is known of it."""
        return self._other["text"] or "-", None

    def facts(self) -> dict[str, object]:
        """Return what is known of it."""
        return dict(self._other)
