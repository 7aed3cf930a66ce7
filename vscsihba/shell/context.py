"""What every node of the tree works with: the service, the last look at it, and the page to write on.

A node changes a copy of the document; what comes of it is planned and carried out by the
service, in the same way as ``vscsihba apply``.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from vscsihba.config.dump import builtins
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.daemon.calls import Changes, Daemon
from vscsihba.handlers.registry import Registry
from vscsihba.shell.console import Console
from vscsihba.shell.view import View

_COLOURS = {"+": "green", "-": "red", "~": "yellow", "!": "magenta"}


class ShellContext:
    """Shared by all nodes of a tree.

    Args:
        daemon: The running service.
        as_json: Write JSON instead of text.

    Attributes:
        registry: The handlers that backstores are made of.
        console: What to write on.
        view: The last look.
        unsaved: Something was changed since the last save.
        terse: Empty folders are not to be shown.
    """

    def __init__(self, daemon: Daemon, *, as_json: bool = False) -> None:
        self.daemon = daemon
        self.registry = Registry()
        self.console = Console()
        self.unsaved = self.terse = False
        self.as_json = as_json
        self.view = View.of(daemon)

    def look(self) -> None:
        """Look again."""
        self.view = View.of(self.daemon)

    def tell(self, text: str, data: object) -> None:
        """Write a text, or what it says as JSON."""
        if self.as_json:
            self.console.display(json.dumps(data, indent=2))
        elif text:
            self.console.display(text)

    def read(self, backstores: Mapping[str, object], hbas: list[object]) -> Document:
        """Return a document made of plain JSON values; relative paths begin in the current directory.

        Raises:
            UsageError: It cannot be meant.
        """
        values = {"version": 1, "backstores": dict(backstores), "hbas": hbas}
        return read(values, Path.cwd(), self.registry)

    def running(self) -> tuple[dict[str, dict[str, object]], list[dict[str, object]]]:
        """Return backstores and HBAs of what runs as plain JSON values, to be changed."""
        values = json.loads(json.dumps(builtins(self.view.document)))
        return values["backstores"], values["hbas"]

    def apply(self, document: Document, *, prune: Prune, replace: bool = False, force: bool = False) -> None:
        """Have a document carried out, and write what was done.

        Raises:
            UsageError, HostError: As the service says; then nothing has changed.
        """
        # What is changed is a copy of what was seen: nobody else's work is to be undone by it.
        seen = self.view.document
        done = self.daemon.apply(document, prune=prune, replace=replace, force=force, seen=seen)
        self.unsaved = self.unsaved or bool(done["changes"])
        self.tell(self._told(done), done)

    def _told(self, done: Changes) -> str:
        lines = [
            self.console.render_text(f"{change['sign']} {change['text']}", _COLOURS.get(change["sign"]))
            for change in done["changes"]
        ]
        return "\n".join(lines) or "nothing to do: it is so already"
