"""The context that all nodes of the tree share: the service, its last known state, and the console.

A node changes a copy of the document; the service plans and applies it, as for ``vscsihba apply``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        registry: Handlers for backstores.
        console: Console to write on.
        view: Last known state of the service.
        unsaved: The configuration has changed since the last save.
        terse: Hide empty folders.
    """

    def __init__(self, daemon: Daemon, *, as_json: bool = False) -> None:
        self.daemon = daemon
        self.registry = Registry()
        self.console = Console()
        self.unsaved = self.terse = False
        self.as_json = as_json
        self.view = View.of(daemon)

    def look(self) -> None:
        """Ask the service for its state again."""
        self.view = View.of(self.daemon)

    def tell(self, text: str, data: object) -> None:
        """Write a text, or the same as JSON."""
        if self.as_json:
            self.console.display(json.dumps(data, indent=2))
        elif text:
            self.console.display(text)

    def read(
        self, backstores: Mapping[str, object], hbas: Sequence[object], exports: Sequence[object] = ()
    ) -> Document:
        """Return a document made of plain JSON values; relative paths begin in the current directory.

        Raises:
            UsageError: The document is not valid.
        """
        values = {"version": 1, "backstores": dict(backstores), "hbas": [*hbas], "exports": [*exports]}
        return read(values, Path.cwd(), self.registry)

    def running(self) -> tuple[dict[str, dict[str, object]], list[dict[str, object]]]:
        """Return backstores and HBAs of the running document as plain JSON values, to be changed."""
        values = json.loads(json.dumps(builtins(self.view.document)))
        return values["backstores"], values["hbas"]

    def exports(self) -> list[dict[str, Any]]:
        """Return the exports of the running document as plain JSON values, to be changed."""
        exports: list[dict[str, Any]] = json.loads(
            json.dumps(builtins(self.view.document).get("exports", []))
        )
        return exports

    def export_values(self, name: str) -> dict[str, Any]:
        """Return one export of the running document as plain JSON values, to be changed."""
        return next(export for export in self.exports() if export["name"] == name)

    def apply_export(
        self, export: Mapping[str, object], *, replace: bool = False, force: bool = False
    ) -> None:
        """Have the service add or change one export."""
        backstores, hbas = self.running()
        document = self.read(backstores, hbas, [export])
        self.apply(document, prune="named", replace=replace, force=force)

    def remove_export(self, name: str, *, force: bool) -> None:
        """Have the service remove one export."""
        rest = [export for export in self.exports() if export["name"] != name]
        self.apply(self.read(*self.running(), rest), prune="all", force=force)

    def apply(self, document: Document, *, prune: Prune, replace: bool = False, force: bool = False) -> None:
        """Have the service apply a document, and write the changes.

        Raises:
            UsageError, HostError: The service refuses; nothing has changed.
        """
        # The change is based on the last known document, and must not undo changes by others since then.
        seen = self.view.document
        done = self.daemon.apply(document, prune=prune, replace=replace, force=force, seen=seen)
        self.unsaved = self.unsaved or bool(done["changes"])
        self.tell(self._told(done), done)

    def _told(self, done: Changes) -> str:
        lines = [
            self.console.render_text(f"{change['sign']} {change['text']}", _COLOURS.get(change["sign"]))
            for change in done["changes"]
        ]
        return "\n".join(lines) or "no changes"
