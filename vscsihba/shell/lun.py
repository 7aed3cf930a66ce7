"""One LUN: ``/hbas/hbaN/lunM``."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from vscsihba.config.model import Lun
from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.context import ShellContext
from vscsihba.shell.keys import keys, without_none
from vscsihba.shell.node import Summary
from vscsihba.shell.resizing import Resizable
from vscsihba.shell.values import read_flag
from vscsihba.units import format_size


class HbaBranch(Protocol):
    """The node above it."""

    id: int

    def document_parts(self) -> tuple[dict[str, dict[str, object]], dict[str, Any]]:
        """Return all backstores, and the HBA, as plain JSON values."""


class LunNode(Resizable, WithAttributes):
    """``/hbas/hbaN/lunM``."""

    def __init__(self, number: int, parent: Any, context: ShellContext) -> None:
        super().__init__(f"lun{number}", parent, context)
        self.number = number
        self.hba: HbaBranch = parent

    @property
    def lun(self) -> Lun:
        """The LUN in the document.

        Raises:
            UsageError: Nothing.
        """
        lun = self.context.view.lun(self.hba.id, self.number)
        if lun is None:
            raise UsageError(
                f"{self.path} is not managed by the service", cure="use the program that created it"
            )
        return lun

    @property
    def backstore(self) -> str:
        """Name of its backstore."""
        return self.lun.backstore

    def summary(self) -> Summary:
        """Return its disk and state."""
        wanted = self.context.view.lun(self.hba.id, self.number)
        status = self.context.view.lun_status(self.hba.id, self.number)
        if status is None:
            return f"{wanted.backstore if wanted else '-'}, missing", False
        size = "-" if status["size"] is None else format_size(status["size"])
        flags = ", read-only" * status["read_only"]
        where = "no disk" if status.get("local", True) else "exported only"
        parts = (status["device"] or where, size, status["backstore"] or "-", status["state"] + flags)
        return ", ".join(parts), status["state"] == "running"

    def facts(self) -> dict[str, object]:
        """Return its state."""
        status = self.context.view.lun_status(self.hba.id, self.number)
        shown: dict[str, object] = {"hba": self.hba.id, "lun": self.number}
        if status is None:
            return {**shown, "state": "missing"}
        size = None if status["size"] is None else f"{format_size(status['size'])} ({status['size']} bytes)"
        return {**shown, **status, "size": size}

    def attributes(self) -> list[OptionHelp]:
        """Return the options of a LUN in a document."""
        return keys(Lun, without=("lun", "backstore"))

    def values(self) -> Mapping[str, object]:
        """Return the options in the document."""
        lun: Mapping[str, object] = msgspec.to_builtins(self.lun)
        return lun

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Change its options in the document."""
        backstores, hba = self.hba.document_parts()
        hba["luns"] = [
            without_none({**lun, **values}) if lun["lun"] == self.number else lun for lun in hba["luns"]
        ]
        document = self.context.read(backstores, [hba])
        self.context.apply(document, prune="none", replace=replace, force=force)

    def ui_command_delete(self, force: str = "false") -> None:
        """Delete this LUN; force=true also if its disk is in use. Its backstore stays."""
        number = (
            self.lun.lun
        )  # raises for a LUN that is not in the document, which the service does not manage
        backstores, hba = self.hba.document_parts()
        shown = {lun["backstore"] for lun in hba["luns"]}
        hba["luns"] = [lun for lun in hba["luns"] if lun["lun"] != number]
        kept = {name: stack for name, stack in backstores.items() if name in shown}
        self.context.apply(self.context.read(kept, [hba]), prune="named", force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest true and false."""
        return self.complete_flag(text, current)
